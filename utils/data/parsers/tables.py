"""Own layouts in one file for all faces: a CSV, or the keypoints JSON of COCO."""

import csv
import json
import re
from collections import Counter
from pathlib import Path

import numpy as np

from pipnet.errors import UserError
from utils.data.parsers.records import Splits, complain, inside, read_lines, record, uniform

SPLIT = re.compile(r"(?<![a-z])(train|val|test)(?![a-z])", re.IGNORECASE)  # not that of latest.csv


def _files(root: Path, patterns: tuple[str, ...], what: str) -> list[tuple[str, Path]]:
    """(split, file): the split is a word of the file's name (train.csv, person_keypoints_val2017.json); a single file trains."""
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
    return named


def _image(root: Path, name: str, where: str) -> Path:
    """The image of a list, below the folder or its images/. UserError where there is none."""
    path = inside(root, name, where)
    if not path.is_file() and not (path := inside(root, f"images/{name}", where)).is_file():
        raise UserError(f"{where}: no image {name[:80]} below {root}")
    return path


def parse_csv(data_dir: Path, allow_partial: bool = False, count: int | None = None, origin: float = 0.0) -> Splits:
    """A header `file,x0,y0,x1,y1,...` and a line a face; a pair of empty cells or of nan is a landmark that was not annotated.

    Files are below the folder or its images/; the identity is the image.
    """
    root = Path(data_dir)
    splits: Splits = {}
    for split, file in _files(root, ("*.csv",), "CSV"):
        faults, records, width = [], [], None
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
            try:
                if len(row) != len(header):
                    raise UserError(f"{where}: {len(row)} cells where the header has {len(header)}")
                points = _cells(row[1:], where)
                records.append(record(_image(root, row[0].strip(), where), "all", row[0].strip(), points, origin, where=where))
            except UserError as error:
                faults.append(str(error))
        complain(faults)
        splits[split] = records
    return uniform(splits, f"{root}: no annotated face in it", "faces", lambda face: face.file)


def _cells(cells: list[str], where: str) -> np.ndarray:
    """(N, 2) of the cells of a line."""
    try:
        points = np.array([cell.strip() or "nan" for cell in cells], dtype=np.float64).reshape(-1, 2)
    except ValueError:
        raise UserError(f"{where}: a cell that is not a number") from None
    if np.isinf(points).any() or (np.abs(np.nan_to_num(points)) >= 1e9).any():
        raise UserError(f"{where}: not a coordinate where one belongs")
    if (np.isnan(points).sum(axis=1) == 1).any():
        raise UserError(f"{where}: one coordinate of a point is missing and the other is not")
    return points


def parse_coco(data_dir: Path, allow_partial: bool = False, count: int | None = None, origin: float = 0.0) -> Splits:
    """COCO's keypoints: `images` (id, file_name) and `annotations` (image_id, keypoints x y v ..., bbox x y w h).

    The JSON lies in the folder or its annotations/, images below the folder or its images/. v = 0: not annotated, 1: hidden,
    2: visible. The box is bbox, which reaches from x to x + w and whose pixels begin at whole numbers; else the tight box.
    Annotations without a keypoint, crowds for example, are left out. The identity is the image.
    """
    root = Path(data_dir)
    splits: Splits = {}
    for split, file in _files(root, ("*.json", "annotations/*.json"), "JSON"):
        try:
            content = json.loads(file.read_bytes())
            names = {image["id"]: str(image["file_name"]) for image in content["images"]}
            faces = [face for face in content["annotations"] if any(face.get("keypoints") or ())]
        except OSError as error:
            raise UserError(f"{file}: cannot be read ({error.strerror})") from None
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise UserError(f"{file}: not COCO keypoints ({type(error).__name__}: {str(error)[:80]}); images with id and "
                            "file_name and annotations with image_id and keypoints belong in it") from None
        faults, records = [], []
        for number, face in enumerate(faces, 1):
            where = f"{file}, annotation {str(face.get('id', number))[:20]}"
            try:
                records.append(_coco_face(root, names, face, count, origin, where))
            except UserError as error:
                faults.append(str(error))
        complain(faults)
        splits[split] = records
    return uniform(splits, f"{root}: no annotated face in it", "faces", lambda face: face.file)


def _coco_face(root: Path, names: dict, face: dict, count: int | None, origin: float, where: str):
    """The record of one annotation."""
    try:
        values = np.array(face["keypoints"], dtype=np.float64).reshape(-1, 3)
        box = None if face.get("bbox") is None else np.array(face["bbox"], dtype=np.float64).reshape(4)
        name = names[face["image_id"]]
    except (ValueError, TypeError, KeyError, OverflowError):
        raise UserError(f"{where}: keypoints x y v ..., bbox x y w h and the image_id of an image belong in it") from None
    if not np.isfinite(values).all() or (np.abs(values) >= 1e9).any() or not np.isin(values[:, 2], (0, 1, 2)).all():
        raise UserError(f"{where}: a keypoint that is not x y v with v 0, 1 or 2")
    if count is not None and len(values) != count:
        raise UserError(f"{where}: {len(values)} points where {count} are expected; choose the layout of that number")
    points = np.where(values[:, 2:] > 0, values[:, :2], np.nan)
    edges = None if box is None else np.concatenate([box[:2], box[:2] + box[2:]]) + origin - 0.5  # `record` takes this off again
    return record(_image(root, name, where), "all", name, points, origin, values[:, 2] == 2, edges, where)
