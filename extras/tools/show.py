"""--show-data: a sheet of augmented training faces, and the labels that look wrong."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from extras.tools import label_check
from extras.tools.suspects import write_suspects
from nets.heads.pip import nearest_neighbors
from pipnet.draw import (
    GREY,
    WHITE,
    draw,
    draw_circle,
    draw_line,
    draw_numbers,
    draw_text,
    group_colours,
    palette,
    sheet,
    tile,
)
from pipnet.errors import UserError
from pipnet.files import own_folder
from pipnet.geometry import cut, to_crop
from pipnet.images import write_image
from pipnet.landmarker import Landmarker
from pipnet.layout import Layout
from utils.data.batches import Batches
from utils.data.faces import Faces
from utils.data.prepared_set import Split, load_splits
from utils.data.sets import meanface as mean_face
from utils.settings.union import Union
from utils.task.check_sets import check_known
from utils.task.task_data import TaskData
from utils.train.ranks import Ranks

SIZE, COLUMNS = 320, 6  # px of a tile, tiles in a row
EXPLAINED = 4  # landmarks whose neighbors are drawn


def show_sets(task_data: TaskData, ranks: Ranks, count: int) -> str:
    """Draw `count` training faces of each set. Return the text to print. All processes call this."""
    return ranks.agree(lambda: _show_all(task_data, count))


def _show_all(task_data: TaskData, count: int) -> str:
    judge = label_check.open_judge(task_data.settings, task_data.sets.defaults)
    return "\n".join(_show_set(task_data, split, judge, count) for split in task_data.splits("train"))


def _show_set(task_data: TaskData, split: Split, judge: Landmarker, count: int) -> str:
    net, layout = task_data.settings.net, task_data.layout_of(split.set)
    faces = task_data.crops([split], layout)
    check_known(layout, faces)
    try:
        meanface = mean_face(task_data.sets, net.meanface, layout, faces)
        # one layout of several may have few landmarks
        most = layout.count - 1 if isinstance(task_data.layout, Union) else net.num_nb
        neighbors = nearest_neighbors(meanface, min(net.num_nb, most) if net.head == "pip" else 0)
    except ValueError as error:
        raise UserError(str(error)) from None
    folder, place = split.set.folder, split.set.show
    try:
        own_folder(place.parent, place.name)
        write_image(place / "samples.jpg", _samples(task_data.batches(faces, layout), layout, neighbors, count))
        both = load_splits([Split(split.set, name) for name in ("train", "val")], layout, 256, 0)
        found = label_check.examine(*label_check.see(both, judge), layout, list(both["file"]))
        judged = write_suspects(place / "suspects.csv", place / "suspects.jpg", both, found, layout)
    except OSError as error:
        raise UserError(f"{place} cannot be written to ({error.strerror}); copy the set to a place that can") from None
    written = filter(Path.is_file, [place / name for name in ("samples.jpg", "suspects.jpg", "suspects.csv")])
    files = ", ".join(map(str, written))
    drawn = f"{min(count, len(faces))} of {len(faces)} training faces as the net gets them"
    return f"{folder.name}: {drawn}; {judged}\nFiles: {files}"


# ------------------------------------------------------------------------------------------------------------- samples
def _samples(batches: Batches, layout: Layout, neighbors: list[list[int]], count: int) -> np.ndarray:
    """Draw three large tiles that explain the layout, above `count` faces of the first epoch, chosen by the seed."""
    faces, colours = batches.faces, group_colours(layout)
    chosen = np.random.default_rng(batches.seed).permutation(len(faces))[:count]
    marked = [group[0] for group in layout.groups.values()]
    tiles = []
    images, labels, _ = batches[np.zeros(len(chosen), int), chosen]
    known = labels.weight.numpy() > 0
    points = np.where(known[..., None], labels.landmarks.numpy(), np.nan)
    for index, image, landmarks, visible in zip(chosen.tolist(), images.numpy(), points, known, strict=True):
        landmarks = (landmarks * faces.geometry.size + faces.geometry.seen) / len(image)
        shades = [colour if seen else GREY for colour, seen in zip(colours, visible, strict=True)]
        picture = tile(image, [(landmarks, shades)], layout, SIZE, Path(faces.row(index)["file"]).name)
        draw_numbers(picture, landmarks * SIZE, layout, shades, marked, 0.35)
        tiles.append(picture)
    large = _explanations(faces, layout, neighbors, SIZE * COLUMNS // 3)
    return np.concatenate([np.concatenate(large, 1), sheet(tiles, COLUMNS)])


def _explanations(faces: Faces, layout: Layout, neighbors: list[list[int]], size: int) -> list[np.ndarray]:
    """Draw tiles of `size` px: a typical face with numbered landmarks, neighbors of some landmarks, mirrored pairs."""
    meanface, colours = faces.meanface(), group_colours(layout)
    nominal = faces["nominal"]
    distance = np.nan_to_num(np.linalg.norm(nominal - meanface, axis=-1), nan=1.0).mean(1)
    usual = int(distance.argmin())
    mean = np.mean([faces.nominal_crop(i) for i in range(0, len(faces), -(-len(faces) // 100))], 0).astype(np.uint8)
    first, landmarks = _enlarged(faces.nominal_crop(usual), nominal[usual].astype(np.float64), size)
    draw(first, landmarks, layout, colours)
    draw_numbers(first, landmarks, layout, colours)
    draw_text(
        first,
        f"{layout.count} landmarks, layout {layout.name}: {Path(faces.row(usual)['file']).name}",
        (8, size - 10),
        0.55,
    )

    second, landmarks = _enlarged(mean, meanface, size)
    third = second.copy()
    apart = _apart(meanface, EXPLAINED)
    for i, colour in zip(apart, palette(EXPLAINED), strict=False):
        for j in neighbors[i]:
            draw_line(second, landmarks[i], landmarks[j], colour)
    draw(second, landmarks, replace(layout, groups={}), WHITE)
    for i, colour in zip(apart, palette(EXPLAINED), strict=False):
        draw(second, landmarks[[i, *neighbors[i]]], replace(layout, groups={}), colour)
        draw_circle(second, landmarks[i], colour, 9)
    draw_numbers(second, landmarks, layout, [WHITE] * layout.count, apart, 0.5)
    title = f"the {len(neighbors[0])} neighbors of {', '.join(map(str, apart))}, on the mean face"
    draw_text(second, title, (8, size - 10), 0.55)

    pairs = [(i, j) for i, j in enumerate(layout.flip_index) if i < j]
    for (i, j), colour in zip(pairs, palette(len(pairs)), strict=True):
        draw_line(third, landmarks[i], landmarks[j], colour)
        draw(third, landmarks[[i, j]], replace(layout, groups={}), colour)
    alone = [i for i, j in enumerate(layout.flip_index) if i == j]
    for i in alone:
        draw_circle(third, landmarks[i], WHITE, 6)
    draw_text(third, f"{len(pairs)} mirrored pairs; rings: {len(alone)} that stay themselves", (8, size - 10), 0.55)
    return [first, second, third]


def _enlarged(crop: np.ndarray, landmarks: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return (dimmed picture (size, size, 3) of the part of the crop around the landmarks, landmarks (N, 2) in its px).

    landmarks (N, 2): in [0, 1] of the crop.
    """
    low, high = np.nanmin(landmarks, 0), np.nanmax(landmarks, 0)
    half = max(0.58 * (high - low).max(), 0.05)
    box = np.concatenate([(low + high) / 2 - half, (low + high) / 2 + half])
    picture = cut(cv2.resize(crop, (2 * size, 2 * size), interpolation=cv2.INTER_CUBIC), box * 2 * size, size)
    return (picture * 0.6).astype(np.uint8), to_crop(landmarks, box) * size


def _apart(meanface: np.ndarray, count: int) -> list[int]:
    """Return up to `count` landmarks that lie far from each other, the first one near the middle."""
    points = np.nan_to_num(meanface)
    chosen = [int(np.linalg.norm(points - points.mean(0), axis=1).argmin())]
    while len(chosen) < min(count, len(points)):
        chosen.append(int(np.linalg.norm(points[:, None] - points[chosen], axis=-1).min(1).argmax()))
    return chosen
