"""A user's own annotation in one file for all faces: a CSV, or COCO's keypoints JSON."""

import csv
import os
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from pipnet.errors import UserError
from pipnet.files import from_cell, parse_json, read_bytes
from utils.faces.archives.archive import Archive
from utils.faces.archives.lists import path_inside, read_lines
from utils.faces.archives.naming import cleaned, composed, identity, split_folders, split_of
from utils.faces.archives.own_layout import normalised, own_order

NAME = re.compile(r"(?:(.+?)[ _.-]?x|x[ _.-]?(.+))", re.IGNORECASE)  # of a point, in the header of its x


def split_files(archive: Archive, patterns: tuple[str, ...], what: str) -> list[tuple[str, Path]]:
    """Return (split, file), train first: files at the top, else one in each of its folders train, val and test.

    At the top the word train, val or test in a name is the split; a single file is train. The archive has these splits
    then.
    """
    root = archive.root
    files = _visible(root, patterns)
    named = [(split, path) for path in files if (split := split_of(path))]
    if len(files) == 1:
        named = named or [("train", files[0])]
    if not files:
        for split, folder in split_folders(root).items():
            found = _visible(folder, patterns)
            files += found
            named += [(split, path) for path in found]
    twice = [name for name, count in Counter(split for split, _ in named).items() if count > 1]
    if not named or twice or len(named) != len(files):
        there = ", ".join(path.relative_to(root).as_posix() for path in files) or "none"
        raise UserError(
            f"{root}: one {what}, or one each with train, val or test in its name or folder, belongs there, not {there}"
        )
    for _, path in named:
        path_inside(root, path.relative_to(root).as_posix(), str(root))
    named.sort(key=lambda pair: ("train", "val", "test").index(pair[0]))  # training sets give points their order
    archive.splits += [split for split, _ in named]
    return named


def _visible(folder: Path, patterns: tuple[str, ...]) -> list[Path]:
    return [path for pattern in patterns for path in sorted(folder.glob(pattern)) if not path.name.startswith(".")]


def find_image(archive: Archive, names: list[str], table: Path, where: str, uploaded: bool = False) -> Path:
    """Return the first image of these names, beside the file that lists them, in the folder, or in their images/.

    A name matches in any of Unicode's forms. uploaded: also as Label Studio cleans it, if only one file matches. Raise
    UserError if there is none.
    """
    root = archive.root
    places = dict.fromkeys(
        f"{folder.relative_to(root).as_posix()}/{below}"
        for folder in (table.parent, root)
        for below in ("", "images/", "images/default/")
    )  # the last is CVAT's, of a task without subsets
    for name in names:
        for below in places:
            path = path_inside(root, name, where, below)
            image = path if path.is_file() else archive.images.get(composed(os.path.normpath(f"{below}{name}")))
            if image:
                return image
    fitting = list(
        dict.fromkeys(path for name in names if uploaded for path in archive.uploaded.get(composed(name), ()))
    )
    if len(fitting) > 1:
        raise UserError(f"{where}: {fitting[0].name} and {fitting[1].name} both fit {names[-1]}; rename one")
    if fitting:
        return fitting[0]
    alike = archive.uploaded.get(next(iter(cleaned(Path(names[0].replace("\\", "/")).name))), ())
    other = f", but {alike[0].relative_to(root)}; list it by that name" if alike else ""
    raise UserError(f"{where}: no image {names[0][:80]} below {root}{other}")


def parse_csv(archive: Archive) -> None:
    """Add the faces of CSV files: a header `file,x0,y0,x1,y1,...`, or with names `file,nose_x,nose_y,...`, then a line
    per face.

    Two empty or nan cells are a landmark that is not annotated. Images are beside the file, below the folder or its
    images/; the identity is the image.
    """
    order: list[str] = []
    for split, file in split_files(archive, ("*.csv",), "CSV"):
        try:
            rows = [
                (number, row) for number, row in enumerate(csv.reader(read_lines(file)), 1) if any(map(str.strip, row))
            ]
        except csv.Error as error:
            raise UserError(f"{file}: not a CSV file ({error})") from None
        header = [cell.strip() for cell in rows[0][1]] if rows else []
        names = _names_of(header, f"{file}, line 1")
        order = order or own_order(archive, names)
        for number, row in rows[1:]:
            where = f"{file}, line {number}"
            with archive.checked():
                if len(row) != len(header):
                    raise UserError(f"{where}: {len(row)} cells where the header has {len(header)}")
                points, name = _cells(row[1:], where)[_places(names, order, where)], from_cell(row[0].strip())
                archive.add(split, find_image(archive, [name], file, where), "all", identity(name), points, where)


def _names_of(header: list[str], where: str) -> list[str]:
    """Return the names of the points of a CSV; their numbers without names. Raise UserError for another header."""
    low, pairs = [cell.lower() for cell in header], list(zip(header[1::2], header[2::2], strict=False))
    numbers = list(map(str, range(len(pairs))))
    if low and low == ["file", *(f"{axis}{i}" for i in numbers for axis in "xy")] and pairs:
        return numbers
    names = [next(filter(None, match.groups())) for x, _ in pairs if (match := NAME.fullmatch(x))]
    same = all(re.sub("[xX]", "y", x) == re.sub("[xXY]", "y", y) and x != y for x, y in pairs)
    distinct = len(set(map(normalised, names))) == len(header) // 2 and not any(name.isdecimal() for name in names)
    if low[:1] != ["file"] or not names or len(header) % 2 == 0 or not same or not distinct:
        raise UserError(
            f"{where}: '{','.join(low)[:40]}' where the header file,x0,y0,x1,y1,... belongs, or names of points as "
            "in file,nose_x,nose_y,..."
        )
    return names


def _cells(cells: list[str], where: str) -> np.ndarray:
    """Return the points (N, 2) of a line's cells."""
    try:
        points = np.array([cell.strip() or "nan" for cell in cells], dtype=np.float64).reshape(-1, 2)
    except ValueError:
        raise UserError(f"{where}: a cell is not a number") from None
    if (np.abs(points) >= 1e9).any():
        raise UserError(f"{where}: not a coordinate where one belongs")
    if (np.isnan(points).sum(axis=1) == 1).any():
        raise UserError(f"{where}: one coordinate of a point is missing and the other is not")
    return points


def parse_coco(archive: Archive) -> None:
    """Add the faces of COCO keypoints: `images` (id, file_name), `annotations` (image_id, keypoints x y v ..., bbox x y
    w h).

    The JSON is in the folder or its annotations/, or, as Roboflow's, in each of train/, valid/ and test/; images are
    beside it, below the folder or its images/. v is 0 for not annotated, 1 for hidden, 2 for visible. The box is bbox,
    from x to x + w, 0 being the edge of the first pixel; without it, the tight box. Annotations without a keypoint are
    left out. The identity is the image. If the categories name the keypoints, the names say which is which, so that
    files may list them in different orders.
    """
    order: list[str] = []  # names of the points, by the first category that names them
    places: dict[bool, str] = {}  # {whether its category names the points: a face}
    for split, file in split_files(archive, ("*.json", "annotations/*.json"), "JSON"):
        try:
            content = parse_json(read_bytes(file))
            images = _by_id(
                [
                    (image["id"], (str(image["file_name"]), image.get("width"), image.get("height")))
                    for image in content["images"]
                ],
                "images",
                file,
            )
            faces = [face for face in content["annotations"] if any(face.get("keypoints") or ())]
            named = _by_id(
                [
                    (one.get("id"), [str(name) for name in one.get("keypoints") or ()])
                    for one in content.get("categories") or ()
                ],
                "categories",
                file,
            )
            archive.left_out["annotations without a keypoint"] += len(content["annotations"]) - len(faces)
        except OSError as error:
            raise UserError(f"{file}: cannot be read ({error.strerror})") from None
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise UserError(
                f"{file}: not COCO keypoints ({type(error).__name__}: {str(error)[:80]}); it must hold images with "
                "id and file_name, and annotations with image_id and keypoints"
            ) from None
        for number, face in enumerate(faces, 1):
            where = f"{file}, annotation {str(face.get('id', number))[:20]}"
            with archive.checked():
                (name, *size), own, values, box = _coco_face(images, named, face, where)
                if own and len(own) != len(values):
                    raise UserError(f"{where}: {len(values)} points where its category names {len(own)}")
                names = own if len(set(map(normalised, own))) == len(own) else []
                places.setdefault(bool(names), where)
                if names:
                    order = order or own_order(archive, names)
                    values = values[_places(names, order, where)]
                image = find_image(archive, [name], file, where)
                archive.state(image, *size, where)
                points = np.where(values[:, 2:] > 0, values[:, :2], np.nan)
                if box is not None:  # in continuous px, while `add` expects the keypoints' origin
                    box = np.concatenate([box[:2], box[:2] + box[2:]]) + archive.origin - 0.5
                archive.add(split, image, "all", identity(name), points, where, box, visible=values[:, 2] == 2)
    if len(places) == 2:
        archive.faults.append(
            f"{places[False]}: its category does not name the points, each by a name of its own, as that of "
            f"{places[True]} does; name them there too"
        )


def _by_id(rows: list[tuple[Any, Any]], what: str, file: Path) -> dict[Any, Any]:
    """Return {id: value} of rows. UserError for two values of one id."""
    found: dict[Any, Any] = {}
    for number, value in rows:
        if found.setdefault(number, value) != value:
            raise UserError(
                f"{file}: two {what} have the id {str(number)[:20]}, {str(found[number])[:60]} and "
                f"{str(value)[:60]}; number them anew"
            )
    return found


def _places(names: list[str], order: list[str], where: str) -> list[int]:
    """Return where each name of `order` is among the names of a face's points. UserError if they differ."""
    own, wanted = list(map(normalised, names)), list(map(normalised, order))
    if set(own) != set(wanted):
        other = next((name for name in own if name not in wanted), own[0])
        raise UserError(f"{where}: a keypoint is named {other[:40]!r}, which no other category has")
    return list(map(own.index, wanted))


def _coco_face(
    images: dict[Any, tuple], named: dict[Any, list[str]], face: dict, where: str
) -> tuple[tuple, list[str], np.ndarray, np.ndarray | None]:
    """Return of a face (name, width, height) of its image, the names of its points, these (N, 3) x y v, and its box x y
    w h (4,).

    images, named: of the file, by id.
    """
    try:
        values = np.array(face["keypoints"], dtype=np.float64).reshape(-1, 3)
        box = None if face.get("bbox") is None else np.array(face["bbox"], dtype=np.float64).reshape(4)
        image, category = images[face["image_id"]], face.get("category_id")
        own = named.get(category, [])
    except (ValueError, TypeError, KeyError, OverflowError):
        raise UserError(
            f"{where}: keypoints x y v ..., bbox x y w h and the image_id of an image belong in it"
        ) from None
    if any(named.values()) and category not in named:
        raise UserError(f"{where}: its category_id {str(category)[:20]} is in no category of the file; correct it")
    if not (np.abs(values) < 1e9).all() or not np.isin(values[:, 2], (0, 1, 2)).all():
        raise UserError(f"{where}: a keypoint is not x y v with v 0, 1 or 2")
    return image, own, values, box
