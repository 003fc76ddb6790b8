"""Exports of Label Studio as JSON and JSON-MIN. Their coordinates are continuous px, in % of the picture."""

import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from extras.datasets.archive import Archive
from extras.datasets.listed import find_image, read_json, split_files
from extras.datasets.named import Named, Point, add_named, name_points
from pipnet.errors import UserError
from pipnet.images import SUFFIXES

UPLOADED = re.compile(r"^[0-9a-f]{6,8}-")  # Label Studio puts this before the name of a file that is uploaded


def parse_label_studio(archive: Archive) -> None:
    """Add the faces of Label Studio's JSON or JSON-MIN: the key points of a picture, or those below each parent region.

    The points come in the natural order of their labels. Of several annotations of a picture the first one with points
    counts, of those that are a ground truth, if any. Predictions do not count.
    """
    faces: list[Named] = []
    for split, file in split_files(archive, ("*.json",), "JSON"):
        tasks = read_json(file)
        for number, task in enumerate(tasks if isinstance(tasks, list) else [tasks], 1):
            where = f"{file}, task {number}"
            with archive.checked():
                try:
                    groups, size, others = _key_points(task, where)
                    names = _file_names(task) if groups else []
                except (AttributeError, KeyError, TypeError, ValueError, IndexError):
                    raise UserError(
                        f"{where}: not a task of Label Studio with key points; export JSON or JSON-MIN"
                    ) from None
                predicted = not groups and bool(task.get("predictions"))
                archive.left_out["tasks with predictions only, which nobody has submitted as annotations"] += predicted
                archive.left_out["tasks without key points"] += not groups and not predicted
                archive.left_out["further annotations of a task"] += others
                if groups:
                    path = find_image(archive, names, file, where, split, uploaded=True)
                    archive.state(path, *size, where)
                    faces += [name_points(split, path, where, points) for points in groups]
    add_named(archive, faces, sorted({name for face in faces for name in face.points}, key=_natural))


def _natural(name: str) -> list[tuple[bool, int, str]]:
    """Return a key by which a2 comes before a10."""
    parts = re.split(r"(\d+)", name)
    return [(not part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in parts]


def _key_points(task: dict[str, Any], where: str) -> tuple[list[list[tuple[str, Point]]], tuple, int]:
    """Return the (name, point) of each face of a task, the size of its picture, and how many other annotations have
    points.

    UserError for a picture that was rotated in the tool: it is not told of which picture the coordinates are then.
    """
    made = sorted(task.get("annotations", ()), key=lambda one: not one.get("ground_truth"))
    whole = [one["result"] for one in made if not one.get("was_cancelled")]
    # JSON-MIN
    listed = [row for rows in task.values() if isinstance(rows, list) for row in rows if isinstance(row, dict)]
    labelled = [rows for rows in whole or [listed] if any(row.get("value", row).get("keypointlabels") for row in rows)]
    groups: dict[str, list] = {}
    size: tuple = (None, None)
    for row in labelled[0] if labelled else ():
        value = row.get("value", row)
        if labels := value.get("keypointlabels"):
            if row.get("image_rotation"):
                raise UserError(
                    f"{where}: its picture was rotated in Label Studio; turn the file itself, and label it again"
                )
            size = (row["original_width"], row["original_height"])
            x, y = value["x"] / 100 * size[0], value["y"] / 100 * size[1]  # stored in %
            groups.setdefault(str(row.get("parentID") or ""), []).append((str(labels[0]), (x, y, 1.0)))
    return list(groups.values()), size, max(len(labelled) - 1, 0)


def _file_names(task: dict[str, Any]) -> list[str]:
    """Return the names that the picture of a task may have: with its path, with the end of it, and as it was before the
    upload. An address may have a query after the name, such as a signature.
    """
    given = [text.split("?d=")[-1] for text in task.get("data", task).values() if isinstance(text, str)]
    texts = [unquote(text) for whole in given for text in (re.split("[?#&]", whole)[0], whole)]
    text = [text for text in texts if Path(text).suffix.lower() in SUFFIXES][0]
    text = text.lstrip("/")
    parts = [part for part in text.split("/") if part]
    ends = ["/".join(parts[first:]) for first in range(1, len(parts))]
    return [text, *ends, UPLOADED.sub("", parts[-1])]
