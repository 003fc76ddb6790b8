"""A user's own annotation in one file for all faces: a CSV, or COCO's keypoints JSON."""
import csv
import json
import re
from collections import Counter
from pathlib import Path

import numpy as np

from pipnet.errors import UserError
from pipnet.files import read_bytes
from utils.data.parsers.records import Annotation, Archive, inside, read_lines

SPLIT = re.compile(r"(?<![a-z])(train|val|test)(?![a-z])", re.IGNORECASE)  # a word of its own: latest.csv has none


def split_files(root: Path, patterns: tuple[str, ...], what: str) -> list[tuple[str, Path]]:
    """Return (split, file), train first; the word train, val or test in a name is the split; a single file is train."""
    files = [path for pattern in patterns for path in sorted(root.glob(pattern)) if not path.name.startswith(".")]
    named = [(word[1].lower(), path) for path in files if (word := SPLIT.search(path.stem))]
    if len(files) == 1:
        named = named or [("train", files[0])]
    twice = [name for name, count in Counter(split for split, _ in named).items() if count > 1]
    if not named or twice or len(named) != len(files):
        found = ", ".join(path.name for path in files) or "none"
        raise UserError(f"{root}: one {what}, or one each with train, val or test in its name, belongs there, not {found}")
    for _, path in named:
        inside(root, path.relative_to(root).as_posix(), str(root))
    return sorted(named, key=lambda pair: ("train", "val", "test").index(pair[0]))  # training sets give points their order


def find_image(root: Path, names: list[str], where: str) -> Path:
    """Return the first image of these names, in the folder or its images/. Raise UserError if there is none."""
    for name in names:
        for below in ("", "images/", "images/default/"):  # CVAT's place for the pictures of a task without subsets
            if (path := inside(root, name, where, below)).is_file():
                return path
    raise UserError(f"{where}: no image {names[0][:80]} below {root}")


def own_order(archive: Archive, names: list[str]) -> list[str]:
    """Return the names of an own set's points in their order: that of the layout that has just these names, else as they are."""
    layouts = (archive.layouts.load(name) for name, row in archive.layouts.rows.items() if row.get("count") == len(names))
    return next((found for layout in layouts if set(found := layout.point_names()) == set(names)), names)


def parse_csv(archive: Archive) -> None:
    """Add the faces of CSV files: a header `file,x0,y0,x1,y1,...`, then a line per face.

    Two empty or nan cells are a landmark that is not annotated. Images are below the folder or its images/; the identity is
    the image.
    """
    root, count = archive.root, archive.count
    for split, file in split_files(root, ("*.csv",), "CSV"):
        archive.splits[split] = []
        try:
            rows = [(number, row) for number, row in enumerate(csv.reader(read_lines(file)), 1) if any(map(str.strip, row))]
        except csv.Error as error:
            raise UserError(f"{file}: not a CSV file ({error})") from None
        header = [cell.strip().lower() for cell in rows[0][1]] if rows else []
        width = (len(header) - 1) // 2
        if width < 1 or header != ["file", *(f"{axis}{i}" for i in range(width) for axis in "xy")]:
            raise UserError(f"{file}, line 1: '{','.join(header)[:40]}' where the header file,x0,y0,x1,y1,... belongs")
        if count is not None and width != count:
            raise UserError(f"{file}: {width} points where {count} are expected; choose the layout of that number")
        for number, row in rows[1:]:
            where = f"{file}, line {number}"
            with archive.checked():
                if len(row) != len(header):
                    raise UserError(f"{where}: {len(row)} cells where the header has {len(header)}")
                name, annotation = row[0].strip(), Annotation(_cells(row[1:], where), where)
                archive.add(split, find_image(root, [name], where), "all", name, annotation)


def _cells(cells: list[str], where: str) -> np.ndarray:
    """Return the points (N, 2) of a line's cells."""
    try:
        points = np.array([cell.strip() or "nan" for cell in cells], dtype=np.float64).reshape(-1, 2)
    except ValueError:
        raise UserError(f"{where}: a cell is not a number") from None
    if np.isinf(points).any() or (np.abs(np.nan_to_num(points)) >= 1e9).any():
        raise UserError(f"{where}: not a coordinate where one belongs")
    if (np.isnan(points).sum(axis=1) == 1).any():
        raise UserError(f"{where}: one coordinate of a point is missing and the other is not")
    return points


def parse_coco(archive: Archive) -> None:
    """Add the faces of COCO keypoints: `images` (id, file_name), `annotations` (image_id, keypoints x y v ..., bbox x y w h).

    The JSON is in the folder or its annotations/, images are below the folder or its images/. v is 0 for not annotated, 1 for
    hidden, 2 for visible. The box is bbox, from x to x + w, where 0 is the edge of the first pixel; without it, the tight box.
    Annotations without a keypoint, for example crowds, are left out. The identity is the image. If the categories name the
    keypoints, the names say which is which, so that files may list them in different orders.
    """
    root, count = archive.root, archive.count
    order: list[str] = []  # names of the points, by the first category that names them
    for split, file in split_files(root, ("*.json", "annotations/*.json"), "JSON"):
        archive.splits[split] = []
        try:
            content = json.loads(read_bytes(file))
            names = {image["id"]: str(image["file_name"]) for image in content["images"]}
            faces = [face for face in content["annotations"] if any(face.get("keypoints") or ())]
            named = {one.get("id"): one["keypoints"] for one in content.get("categories") or () if one.get("keypoints")}
        except OSError as error:
            raise UserError(f"{file}: cannot be read ({error.strerror})") from None
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise UserError(f"{file}: not COCO keypoints ({type(error).__name__}: {str(error)[:80]}); it must hold images with "
                            "id and file_name, and annotations with image_id and keypoints") from None
        for number, face in enumerate(faces, 1):
            where = f"{file}, annotation {str(face.get('id', number))[:20]}"
            with archive.checked():
                name, annotation = _coco_face(names, face, archive.origin, where)
                points = len(annotation.landmarks)
                if count is not None and points != count:
                    raise UserError(f"{where}: {points} points where {count} are expected; choose the layout of that number")
                own = list(map(str, named.get(face.get("category_id"), ())))
                if len(set(own)) == points:
                    order = order or own_order(archive, own)
                    annotation = _ordered(annotation, own, order)
                archive.add(split, find_image(root, [name], where), "all", name, annotation)


def _ordered(annotation: Annotation, names: list[str], order: list[str]) -> Annotation:
    """Return an annotation with its points, which have these names, in another order. UserError if the names differ."""
    if set(names) != set(order):
        other = next(name for name in names if name not in order)
        raise UserError(f"{annotation.where}: a keypoint is named {other[:40]!r}, which no other category has")
    place = [names.index(name) for name in order]
    return annotation._replace(landmarks=annotation.landmarks[place], visible=annotation.visible[place])


def _coco_face(names: dict, face: dict, origin: float, where: str) -> tuple[str, Annotation]:
    """Return the image's name and the annotation of a face; `names` by image id."""
    try:
        values = np.array(face["keypoints"], dtype=np.float64).reshape(-1, 3)
        box = None if face.get("bbox") is None else np.array(face["bbox"], dtype=np.float64).reshape(4)
        name = names[face["image_id"]]
    except (ValueError, TypeError, KeyError, OverflowError):
        raise UserError(f"{where}: keypoints x y v ..., bbox x y w h and the image_id of an image belong in it") from None
    if not np.isfinite(values).all() or (np.abs(values) >= 1e9).any() or not np.isin(values[:, 2], (0, 1, 2)).all():
        raise UserError(f"{where}: a keypoint is not x y v with v 0, 1 or 2")
    points = np.where(values[:, 2:] > 0, values[:, :2], np.nan)
    if box is not None:  # in continuous px, while `record` expects the keypoints' origin
        box = np.concatenate([box[:2], box[:2] + box[2:]]) + origin - 0.5
    return name, Annotation(points, where, box, values[:, 2] == 2)
