"""Pictures with boxes: training crops of a detector for --show-data, and faces in photographs."""

import cv2
import numpy as np

from extras.detector.experiment import PictureSets, make_scenes
from pipnet.draw import FOUND, TRUTH, sheet
from pipnet.files import own_folder
from pipnet.images import write_image
from utils.settings.config import ROOT
from utils.train.ranks import Ranks
from utils.train.run_folder import Run


def show(task_data: PictureSets, ranks: Ranks, count: int, run: Run | None) -> str:
    """Draw training crops as the detector gets them; return what to print. All processes call it."""
    material, _ = task_data.loaded

    def draw() -> str:
        scenes = make_scenes(material, task_data.settings, count)
        made = [scenes.scene(0, index) for index in range(count)]
        tiles = [draw_boxes(scene.image, [(scene.unknown, FOUND), (scene.boxes, TRUTH)]) for scene in made]
        file = own_folder(ROOT / task_data.settings.data.data_root, "detect", "show") / "samples.jpg"
        write_image(file, sheet(tiles, min(6, count)))
        return f"{file}: {count} training crops, faces green, regions that are not trained red"

    return ranks.agree(draw)


def draw_boxes(picture: np.ndarray, groups: list[tuple[np.ndarray, tuple]], size: int = 320) -> np.ndarray:
    """Return a picture (size, size, 3), shrunk to fit, with groups of boxes (M, 4). A group has one BGR colour."""
    zoom = size / max(picture.shape[:2])
    method = cv2.INTER_AREA if zoom < 1 else cv2.INTER_CUBIC
    small = cv2.resize(picture, None, fx=zoom, fy=zoom, interpolation=method)[:size, :size]
    canvas = np.zeros((size, size, 3), np.uint8)
    canvas[: small.shape[0], : small.shape[1]] = small
    for boxes, colour in groups:
        for x1, y1, x2, y2 in np.round(boxes * zoom).astype(int).tolist():
            cv2.rectangle(canvas, (x1, y1), (x2, y2), colour, 1, cv2.LINE_AA)
    return canvas
