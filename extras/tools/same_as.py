"""How a user's own points lie beside the landmarks of a trained net, as that net sees the faces in which they are labelled:
which landmarks they are, and whether their crops are such as that net has learnt.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from loguru import logger

from extras.tools.label_check import FEWEST, beside, see
from pipnet.geometry import Protocol, crop_box
from pipnet.landmarker import Landmarker
from pipnet.layout import Layout
from utils.data.faces import evenly
from utils.data.paths import layout_file, write_layout_file
from utils.settings.layouts import without_same
from utils.settings.union import Union, layout_of
from utils.settings.yaml_files import read_yaml
from utils.task.inference import open_landmark_net
from utils.task.task_data import TaskData
from utils.train.initialise import shared_landmarks
from utils.train.ranks import Ranks
from utils.train.weight_files import load_weights

MOST, FEW = 200, 50  # faces that are looked at, for points and for crops
ALIKE, CLOSE, SHIFTED = 1.25, 1.15, 0.12  # ratios of the sizes of crops; distance of their centres, in crops
NEAR, STEADY = 0.06, 0.03  # face sizes: usual distance from the net's landmark, and median deviation from that place


class Match(NamedTuple):
    """An own point and the landmark of a net that it is."""

    point: int
    landmark: int
    spread: float  # median deviation of the label from its usual place beside the landmark, in face sizes


def with_same_landmarks(task_data: TaskData, ranks: Ranks) -> TaskData:
    """Return the sets of a training with `same_as` in the row of their layout, if that shares no landmark with the net of
    --weights. It is also written into the layout file that was made from names of points, and logged.
    """
    layout, settings = task_data.layout, task_data.settings
    row = ranks.agree(lambda: _proposed_row(task_data))
    if not row:
        return task_data
    layouts = settings.layouts.with_rows({layout.stored: row})
    return replace(task_data, sets=replace(task_data.sets, settings=settings._replace(layouts=layouts)))


def _proposed_row(task_data: TaskData) -> dict[str, Any] | None:
    """Return the layout's row with `same_as`; None if there is nothing to propose. The net starts from a file."""
    layout, settings = task_data.layout, task_data.settings
    weights = settings.net.weights
    if settings.net.same_as == "none" or isinstance(layout, Union):
        return None
    known = load_weights(Path(weights))[1]
    if not known or layout.same_as or shared_landmarks(layout, layout_of(known["layout"])):
        return None
    net = open_landmark_net(Path(weights), task_data.sets.defaults)
    if net.layout.stored not in settings.layouts.rows:
        return None
    faces = task_data.crops(task_data.splits())
    faces = faces.only(evenly(len(faces), MOST))
    labels, found = see(faces, Landmarker(net))
    whole = np.isfinite(labels).all(-1).any(1)
    if whole.sum() < FEWEST:
        return None
    matches = match(labels[whole], found[whole], layout, net.layout)
    if not matches:
        logger.warning(
            f"layout '{layout.name}': none of the {layout.count} points lies beside a landmark of {weights} as it sees the "
            "faces; if some should, x and y are exchanged, or the labels are of other pictures: look with --show-data"
        )
        return None
    same = {layout.selected[one.point]: net.layout.selected[one.landmark] for one in matches}
    row = {**settings.layouts.rows[layout.stored], "same_as": {net.layout.stored: same}}
    names = layout.point_names()
    told = ", ".join(f"{names[one.point]} = {one.landmark} ({100 * one.spread:.1f} %)" for one in matches)
    written = [file for one in task_data.training if (file := _write(one.meta, task_data.sets.root, layout, row))]
    place = f", written to {written[0]}" if written else ""
    logger.info(
        f"layout '{layout.name}': {len(matches)} of {layout.count} points follow landmarks of layout {net.layout.name} as "
        f"{weights} sees them in {whole.sum()} faces (deviation in % of the face's size): {told}. The training starts from "
        f"these (--same-as none: from none); same_as: {row['same_as']}{place}"
    )
    return row


def fitting_crops(task_data: TaskData) -> tuple[str, dict[str, Any]] | None:
    """Return (what differs in words, the row of the protocol that fits) if the crops of the training sets lie otherwise on the
    faces than those that the net of --weights was trained with; None if they do not, and for a net that cannot tell a face.
    """
    settings, weights = task_data.settings, task_data.settings.net.weights
    net, faces = open_landmark_net(Path(weights), task_data.sets.defaults), task_data.crops(task_data.splits())
    whole = faces.read("known")["known"].all(1)
    faces = faces.only(whole) if whole.sum() >= FEWEST else faces  # a face without a point has a smaller crop
    here = Protocol(**task_data.training[0].meta["protocol"])
    if not (net.face and here.square == net.protocol.square == "max"):
        return None
    faces = faces.only(evenly(len(faces), FEW))
    _, found = see(faces, Landmarker(net))
    size, border = faces.geometry.size, faces.geometry.border
    own = (faces.read("frame")["frame"][:, 0] * size + border).reshape(-1, 4)
    usual = net.protocol._replace(border="real", rounding="float")
    wanted = np.stack([crop_box(net.box_of(points)[:4], usual, 0, 0) for points in found])
    side, off = wanted[:, 2] - wanted[:, 0], wanted[:, 1::2].mean(1)
    larger, lower = float(np.median(side / size)), float(np.median((border + size / 2 - off) / side))
    if 1 / ALIKE < larger < ALIKE and abs(lower) < SHIFTED:
        return None
    sides = own[:, 2:] - own[:, :2]
    scale = round(float(np.median(side / sides.max(1))), 2)
    shift = round(float(np.median((off - own[:, 1::2].mean(1)) / sides[:, 1])), 2)
    fitting = here._replace(scale_x=scale, scale_y=scale, shift_y=shift)
    known = (Protocol(**row) for row in settings.protocols.values())
    fitting = next((one for one in known if _alike(one, fitting)), fitting)
    words = (
        f"faces are {larger:.2f} times as large in crops around these points as in those that {weights} was trained with, and "
        f"lie {abs(lower):.2f} crops {'higher' if lower > 0 else 'lower'}"
    )
    return words, fitting._asdict()


def _alike(one: Protocol, other: Protocol) -> bool:
    """Return whether two protocols make about the same crops of a face."""
    same = one.square == other.square and 1 / CLOSE < one.scale_x / other.scale_x < CLOSE and one.scale_x == one.scale_y
    return same and abs(one.shift_y - other.shift_y) < SHIFTED


def match(labels: np.ndarray, found: np.ndarray, layout: Layout, there: Layout) -> list[Match]:
    """Return the points of `layout` that are landmarks of `there`, with these, in order: each other one, and mirror
    partners those of mirror partners.

    labels: (M, N, 2) px, NaN where unknown; found (M, K, 2) px: where a net of `there` sees its landmarks.
    """
    usual, spread = beside(labels, found)
    distance = np.linalg.norm(usual, axis=-1)
    flip, other = np.array(layout.flip_index), np.array(there.flip_index)
    cost = np.where((distance < NEAR) & (spread < STEADY), distance + spread, np.inf)
    cost = cost + cost[flip][:, other]
    middle = flip == np.arange(layout.count)
    cost[middle] = np.where(other == np.arange(there.count), cost[middle], np.inf)
    matches: dict[int, int] = {}
    for point, landmark in zip(*np.unravel_index(cost.argsort(None), cost.shape), strict=True):
        pair = {int(point): int(landmark), int(flip[point]): int(other[landmark])}
        if not np.isfinite(cost[point, landmark]):
            break
        if not (pair.keys() & matches.keys() or {*pair.values()} & {*matches.values()}):
            matches |= pair
    return [Match(i, j, float(spread[i, j])) for i, j in sorted(matches.items())]


def _write(meta: dict[str, Any], root: Path, layout: Layout, row: dict[str, Any]) -> Path | None:
    """Write the row of a layout into the file that was made for a set from the names of its points. Return the file; None
    if there is no such file, or if it holds another row.
    """
    file = layout_file(root, Path(meta["source"]))
    if not file.is_file() or read_yaml(file) != {layout.stored: without_same(row)}:
        return None
    write_layout_file(file, layout.stored, row)
    return file
