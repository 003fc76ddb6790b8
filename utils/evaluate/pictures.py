"""Pictures of faces with their labels and predictions: the best, the median and the worst ones of a set."""

import numpy as np

from pipnet.draw import FOUND, TRUTH, sheet, tile
from pipnet.geometry import to_crop
from pipnet.layout import Layout
from utils.data.faces import Faces
from utils.evaluate.evaluate import Result

EACH, TILE = 8, 224  # faces of each kind, px of one


def extremes(values: np.ndarray) -> dict[str, np.ndarray]:
    """Return the indices of the best, the median and the worst EACH faces by their NME (M,)."""
    order = np.argsort(values)
    order = order[np.isfinite(values[order])]
    each = min(EACH, len(order))
    middle = max((len(order) - each) // 2, 0)
    return {"best": order[:each], "median": order[middle : middle + each], "worst": order[len(order) - each :]}


def shown_face(faces: Faces, index: int, result: Result, layout: Layout) -> np.ndarray:
    """Return the crop of a face (TILE, TILE, 3) with its NME in %: the truth green, the prediction red."""
    pair = [(faces.nominal(index), TRUTH), (to_crop(result.landmarks[index], faces["crop"][index]), FOUND)]
    return tile(faces.crops.plain(index, 0), pair, layout, TILE, f"{result.nme[index]:.2f} %")


def worst_faces(faces: Faces, result: Result, layout: Layout) -> np.ndarray:
    """Return one picture of the worst faces, the worst one last, as uint8 BGR (H, W, 3)."""
    return sheet([shown_face(faces, i, result, layout) for i in extremes(result.nme)["worst"]], EACH // 2)
