"""Pictures of faces with their labels and predictions: the best, the median and the worst ones of a set, or all of few."""

import numpy as np

from pipnet.draw import FOUND, TRUTH, sheet, tile
from pipnet.geometry import to_crop
from pipnet.layout import Layout
from utils.data.faces import Faces
from utils.evaluate.evaluate import Result

EACH, TILE = 8, 224  # faces of each kind, px of one
FEW = 12  # below so many faces, all of them are shown


def by_error(values: np.ndarray) -> np.ndarray:
    """Return the indices of the faces with a known NME (M,), the best first."""
    order = np.argsort(values)
    return order[np.isfinite(values[order])]


def extremes(values: np.ndarray) -> dict[str, np.ndarray]:
    """Return the indices of the best, the median and the worst faces by their NME (M,), at most EACH and none twice."""
    order = by_error(values)
    if len(order) < FEW:
        return {"all": order}
    each = min(EACH, len(order) // 3)
    middle = (len(order) - each) // 2
    return {"best": order[:each], "median": order[middle : middle + each], "worst": order[len(order) - each :]}


def shown_face(faces: Faces, index: int, result: Result, layout: Layout) -> np.ndarray:
    """Return the crop of a face (TILE, TILE, 3) with its NME in %: the truth green, the prediction red."""
    row = faces.row(index)
    pair = [(row["nominal"], TRUTH), (to_crop(result.landmarks[index], row["crop"]), FOUND)]
    return tile(faces.nominal_crop(index), pair, layout, TILE, f"{result.nme[index]:.2f} %")


def worst_faces(faces: Faces, result: Result, layout: Layout) -> np.ndarray:
    """Return one picture of the worst faces, the worst one last, as uint8 BGR (H, W, 3)."""
    return sheet([shown_face(faces, i, result, layout) for i in by_error(result.nme)[-EACH:]], EACH // 2)
