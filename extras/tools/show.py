"""--show-data: a sheet of augmented training faces, and the labels that look wrong."""

from pathlib import Path

import cv2
import numpy as np

from extras.tools import label_check
from nets.heads.pip import nearest_neighbors
from pipnet.draw import (
    GREY,
    RED,
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
from pipnet.files import own_folder, write_csv
from pipnet.geometry import cut, to_crop
from pipnet.images import write_image
from pipnet.layout import Layout
from utils.data.batches import Batches
from utils.data.faces import Faces
from utils.data.prepared_set import Split, load_splits
from utils.evaluate.tables import markdown_table
from utils.task.check_sets import check_known
from utils.task.task_data import TaskData
from utils.train.ranks import Ranks

SIZE, COLUMNS = 320, 6  # px of a tile, tiles in a row
EXPLAINED = 4  # landmarks whose neighbors are drawn
LISTED, PICTURED = 10, 20  # suspicious faces in the printed table, in the sheet
HEADER = ["file", "why", "landmarks", "score"]


def show_sets(task_data: TaskData, ranks: Ranks, count: int) -> str:
    """Draw `count` training faces of each set. Return the text to print. All processes call this."""
    return "\n".join(ranks.agree(lambda: [_show_set(task_data, split, count) for split in task_data.splits("train")]))


def _show_set(task_data: TaskData, split: Split, count: int) -> str:
    net, layout = task_data.settings.net, task_data.layout_of(split.set)
    faces = task_data.crops([split], layout)
    check_known(layout, faces)
    try:
        meanface = task_data.sets.meanface(net.meanface, layout, faces)
        most = (
            layout.count - 1 if task_data.layout.members else net.num_nb
        )  # one layout of several may have few landmarks
        neighbors = nearest_neighbors(meanface, min(net.num_nb, most) if net.head == "pip" else 0)
    except ValueError as error:
        raise UserError(str(error)) from None
    return show(split, task_data.batches(faces, layout), layout, neighbors, count)


def show(split: Split, batches: Batches, layout: Layout, neighbors: list[list[int]], count: int) -> str:
    """Write samples.jpg, suspects.jpg and suspects.csv into the set's folder for pictures. Return the text to print.

    batches: the faces as the net gets them; neighbors: of each landmark.
    """
    folder, place, faces = split.set.folder, split.set.show, batches.faces
    try:
        own_folder(place.parent, place.name)
        write_image(place / "samples.jpg", _samples(batches, layout, neighbors, count))
        judged, worst = _suspects(split, layout, place)
    except OSError as error:
        raise UserError(f"{place} cannot be written to ({error.strerror}); copy the set to a place that can") from None
    written = filter(Path.is_file, [place / name for name in ("samples.jpg", "suspects.jpg", "suspects.csv")])
    files = ", ".join(map(str, written))
    drawn = f"{min(count, len(faces))} of {len(faces)} training faces as the net gets them"
    return "\n".join(filter(None, [f"{folder.name}: {drawn}; {judged}", worst, f"Files: {files}"]))


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
        landmarks = (landmarks * faces.crops.size + faces.crops.seen) / len(image)
        shades = [colour if seen else GREY for colour, seen in zip(colours, visible, strict=True)]
        picture = tile(image, [(landmarks, shades)], layout, SIZE, Path(faces["file"][index]).name)
        draw_numbers(picture, landmarks * SIZE, layout, shades, marked, 0.35)
        tiles.append(picture)
    large = _explanations(faces, layout, neighbors, SIZE * COLUMNS // 3)
    return np.concatenate([np.concatenate(large, 1), sheet(tiles, COLUMNS)])


def _explanations(faces: Faces, layout: Layout, neighbors: list[list[int]], size: int) -> list[np.ndarray]:
    """Draw tiles of `size` px: a typical face with numbered landmarks, neighbors of some landmarks, mirrored pairs."""
    meanface, colours = faces.meanface(), group_colours(layout)
    distance = np.nan_to_num(np.linalg.norm(faces.nominal() - meanface, axis=-1), nan=1.0).mean(1)
    usual = int(distance.argmin())
    mean = np.mean([faces.crops.plain(i, 0) for i in range(0, len(faces), -(-len(faces) // 100))], 0).astype(np.uint8)
    first, landmarks = _enlarged(faces.crops.plain(usual, 0), faces.nominal(usual).astype(np.float64), size)
    draw(first, landmarks, layout, colours)
    draw_numbers(first, landmarks, layout, colours)
    draw_text(
        first,
        f"{layout.count} landmarks, layout {layout.name}: {Path(faces['file'][usual]).name}",
        (8, size - 10),
        0.55,
    )

    second, landmarks = _enlarged(mean, meanface, size)
    third = second.copy()
    apart = _apart(meanface, EXPLAINED)
    for i, colour in zip(apart, palette(EXPLAINED), strict=False):
        for j in neighbors[i]:
            draw_line(second, landmarks[i], landmarks[j], colour)
    draw(second, landmarks, layout._replace(groups={}), WHITE)
    for i, colour in zip(apart, palette(EXPLAINED), strict=False):
        draw(second, landmarks[[i, *neighbors[i]]], layout._replace(groups={}), colour)
        draw_circle(second, landmarks[i], colour, 9)
    draw_numbers(second, landmarks, layout, [WHITE] * layout.count, apart, 0.5)
    title = f"the {len(neighbors[0])} neighbors of {', '.join(map(str, apart))}, on the mean face"
    draw_text(second, title, (8, size - 10), 0.55)

    pairs = [(i, j) for i, j in enumerate(layout.flip_index) if i < j]
    for (i, j), colour in zip(pairs, palette(len(pairs)), strict=True):
        draw_line(third, landmarks[i], landmarks[j], colour)
        draw(third, landmarks[[i, j]], layout._replace(groups={}), colour)
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


# ------------------------------------------------------------------------------------------------------------ suspects
def _suspects(split: Split, layout: Layout, place: Path) -> tuple[str, str]:
    """Write suspects.csv and suspects.jpg of the training and validation faces. Return (one line, table of the worst)."""
    faces = load_splits([Split(split.set, name) for name in ("train", "val")], layout, 256, 0)
    landmarks, known, box, size = (faces[name][:] for name in ("landmarks", "known", "box", "size"))
    found = label_check.examine(landmarks, known, layout, box, size, faces["file"])
    rows = [
        [faces["file"][finding.face], finding.reason, " ".join(map(str, finding.landmarks)), f"{finding.score:.1f}"]
        for finding in found
    ]
    write_csv(place / "suspects.csv", HEADER, rows)
    (place / "suspects.jpg").unlink(missing_ok=True)
    if tiles := [_suspect(faces, finding, layout) for finding in found[:PICTURED]]:
        write_image(place / "suspects.jpg", sheet(tiles, 5))
    alarms = sum(finding.score >= label_check.THRESHOLD for finding in found)
    shown = [
        [row[0], row[1], row[2] if len(row[2]) <= 24 else f"{row[2][:24].rsplit(' ', 1)[0]} ...", row[3]]
        for row in rows
    ]
    text = markdown_table(shown[: min(alarms, LISTED)], HEADER) if alarms else ""
    few = f" (shapes are compared from {label_check.FEWEST} faces on)" if len(faces) < label_check.FEWEST else ""
    return f"{alarms} of {len(faces)} training and validation labels are suspicious{few}", text


def _suspect(faces: Faces, finding: label_check.Finding, layout: Layout, size: int = 384) -> np.ndarray:
    """Draw a suspicious face; landmarks in doubt are ringed and numbered."""
    whole = faces.crops[finding.face]
    landmarks = (faces.nominal(finding.face) * faces.crops.size + faces.crops.border) / len(whole)
    picture = tile(whole, [(landmarks, group_colours(layout))], layout, size, "")
    for i in finding.landmarks:
        if np.isfinite(landmarks[i]).all():
            draw_circle(picture, landmarks[i] * size, RED, 6)
    draw_numbers(picture, landmarks * size, layout, [WHITE] * layout.count, finding.landmarks[:12])
    draw_text(picture, f"{finding.score:.1f}  {Path(faces['file'][finding.face]).name}", (4, size - 22), 0.42)
    draw_text(picture, finding.reason, (4, size - 6), 0.42)
    return picture
