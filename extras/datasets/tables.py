"""A user's own annotation in one file for all faces: a CSV, or COCO's keypoints JSON."""

import csv
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from loguru import logger

from extras.datasets.archive import Archive
from extras.datasets.naming import SPLITS, cleaned, composed, split_of
from extras.datasets.own_layout import own_order
from pipnet.errors import UserError
from pipnet.files import from_cell, parse_json, read_bytes
from pipnet.images import SUFFIXES
from utils.data.lists import decoded, floats, path_inside
from utils.data.pts import FIRST_PIXEL
from utils.settings.layouts import normalised
from utils.settings.progress import progress

IDENTITY = "identity"
OTHER_COLUMNS = (IDENTITY, FIRST_PIXEL)  # of a CSV, beside the file and the points
ANEW = "; write its points to a CSV: file,x0,y0,x1,y1,..."
FOREIGN = {
    (
        "image_path",
        "keypoints",
    ): "a list that Peppa trains on, made from .pts files; give their folder: --dataset peppa",
    ("image_id", "keypoints"): "COCO's format of results, without images; give the file of annotations",
    ("shapes", "imagePath"): f"a file of labelme, which is not read{ANEW}",
    ("_via_img_metadata",): f"a project of VIA, which is not read{ANEW}",
}  # {keys of a JSON file, or of the first row of its list: what it is, and the remedy}
LARGE = 50  # MB of a JSON file whose reading is announced
SLOW = 2  # s; reading that takes longer shows its progress
NAME = re.compile(r"(?:(.+?)[ _.-]?x|x[ _.-]?(.+))", re.IGNORECASE)  # of a point, in the header of its x


def split_files(archive: Archive, patterns: tuple[str, ...], what: str) -> list[tuple[str | None, Path]]:
    """Return (split that it says, file), train first: files at the top, else one in each of the folders of the splits.

    At the top the word train, val or test in a name is the split; a single file may say none.
    """
    root = archive.root
    files = [root / archive.annotation] if archive.annotation else _visible(root, patterns)
    groups = [[(split_of(path.stem), path) for path in files]]
    if not files:
        groups = [[(split, path) for path in _visible(at, patterns)] for at, split in archive.split_folders.items()]
    named = sum(groups, [])
    clear = all(len({split for split, _ in group}) == len(group) for group in groups)
    if not named or not clear or (len(named) > 1 and any(split is None for split, _ in named)):
        there = ", ".join(path.relative_to(root).as_posix() for _, path in named[:3]) or "none"
        there += f" and {len(named) - 3} more" * (len(named) > 3)
        for _, path in named[:3]:
            with suppress(OSError, ValueError):
                if path.suffix.lower() == ".json" and (name := foreign(parse_json(read_bytes(path)))):
                    raise UserError(f"{path} is {name}")
        raise UserError(
            f"{root}: one {what}, or one each with train, val or test in its name or folder, belongs there, not {there}; "
            f"name the one to read: --dataset {root}/FILE"
        )
    for _, path in named:
        path_inside(root, path.relative_to(root).as_posix(), str(root))
    archive.splits += [split for split, _ in named if split]
    return sorted(named, key=lambda pair: [*SPLITS].index(pair[0] or "train"))  # training sets give points their order


def _visible(folder: Path, patterns: tuple[str, ...]) -> list[Path]:
    return [path for pattern in patterns for path in sorted(folder.glob(pattern)) if not path.name.startswith(".")]


def find_image(
    archive: Archive, names: list[str], table: Path, where: str, said: str | None, uploaded: bool = False
) -> Path:
    """Return the first image of these names, beside the file that lists them, in the folder, in their images/, or in the
    folders of the split that the list `said`.

    A name matches in any of Unicode's forms, and without its ending if one picture fits. uploaded: also as Label Studio
    cleans it, if only one file matches. Raise UserError if there is none.
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
        if Path(name).suffix.lower() not in SUFFIXES:
            ended = [archive.without_ending.get(composed(os.path.normpath(f"{below}{name}")), ()) for below in places]
            if found := next(filter(None, ended), None):
                if len(found) > 1:
                    raise UserError(
                        f"{where}: {found[0].name} and {found[1].name} both fit {name[:80]}; give its ending"
                    )
                return found[0]
    listed = names[0].replace("\\", "/")
    fitting = list(
        dict.fromkeys(path for name in names if uploaded for path in archive.uploaded.get(composed(name), ()))
    )
    alike = fitting or archive.uploaded.get(next(iter(cleaned(Path(listed).name))), [])
    own = [
        path
        for path in alike
        if (folder := archive.split_folder(path))
        and archive.split_folders[folder] == said
        and (fitting or composed(path.as_posix()).endswith(composed(f"/{listed}")))
    ]
    fitting = own if len(own) == 1 else fitting
    if len(fitting) == 1:
        return fitting[0]
    others = " and ".join(path.relative_to(root).as_posix() for path in alike[:3])
    if fitting:
        raise UserError(f"{where}: {others} fit {names[-1]}; rename them, or list them with their folder")
    advice = f", but {others}; list it {'by that name' if len(alike) == 1 else 'with its folder'}" if alike else ""
    raise UserError(f"{where}: no image {names[0][:80]} below {root}{advice}")


def parse_csv(archive: Archive) -> None:
    """Add the faces of CSV files: a header `file,x0,y0,x1,y1,...`, or with names `file,nose_x,nose_y,...`, then a line
    per face. Other columns: `identity` of the person or clip, and `first_pixel`, see `Archive.counted`.

    The columns `file`, `identity` and `first_pixel` may be anywhere. Two empty or nan cells are a landmark that is not
    annotated. Images are beside the file, below the folder or its images/.
    """
    order: list[str] = []
    for split, file in split_files(archive, ("*.csv",), "CSV"):
        rows, encoding = _read_table(file)
        if encoding != "utf-8":
            archive.notes.append(f"{file} is not UTF-8; it is read as {encoding}")
        header = [cell.strip() for cell in rows[0][1]] if rows else []
        others = {name: place for place, name in enumerate(map(str.lower, header)) if place and name in OTHER_COLUMNS}
        names = _names_of(
            [cell for place, cell in enumerate(header) if place not in others.values()], f"{file}, line 1"
        )
        order = order or own_order(archive, names)
        for number, row in progress(rows[1:], desc=file.name, unit="face", delay=SLOW):
            where = f"{file}, line {number}"
            with archive.checked():
                if len(row) != len(header):
                    raise UserError(f"{where}: {len(row)} cells where the header has {len(header)}")
                cells = [cell for place, cell in enumerate(row) if place not in others.values()]
                points = _cells(cells[1:], where)[_places(names, order, where)]
                more = {name: from_cell(row[place].strip()) for name, place in others.items()}
                points = archive.counted(points, more.get(FIRST_PIXEL) or None, where)
                name = from_cell(cells[0].strip())
                image = find_image(archive, _spellings(name, encoding), file, where, split)
                archive.add_own(split, image, points, where, more.get(IDENTITY, ""))


def _spellings(name: str, encoding: str) -> list[str]:
    """Return the names that a picture of a table in that encoding may have on the disk: also with the table's bytes."""
    if encoding != "cp1252":
        return [name]
    return [name, name.encode(encoding, "surrogateescape").decode("utf-8", "surrogateescape")]


def _read_table(file: Path) -> tuple[list[tuple[int, list[str]]], str]:
    """Return (number of the line, cells) of the lines of a CSV file that are not blank, and its encoding. The cell of the
    column `file` is the first; blank cells beyond the last column are left out, as of a comma that ends each line.

    Spreadsheets separate cells by semicolons where the comma is in numbers, and by tabs in UTF-16. UserError for
    another file.
    """
    try:
        text, encoding = decoded(read_bytes(file))
        lines = text.splitlines()
        first = next(filter(str.strip, lines), "")
        mark = "," if "," in first else next((mark for mark in ";\t" if mark in first), ",")
        rows = [
            (number, row) for number, row in enumerate(csv.reader(lines, delimiter=mark), 1) if any(map(str.strip, row))
        ]
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror})") from None
    except csv.Error as error:
        raise UserError(f"{file}: not a CSV file ({error})") from None
    names = [cell.strip().lower() for cell in rows[0][1]] if rows else []
    at = names.index("file") if "file" in names else 0
    width = max((place for place, name in enumerate(names, 1) if name), default=0)
    found = []
    for number, row in rows:
        cells = row if any(map(str.strip, row[width:])) else row[:width]
        name, others = cells[at : at + 1], [*cells[:at], *cells[at + 1 :]]
        found.append((number, name + (others if mark == "," else [cell.replace(",", ".") for cell in others])))
    return found, encoding


def _names_of(header: list[str], where: str) -> list[str]:
    """Return the names of the points of a CSV; their numbers without names. Raise UserError for another header."""
    low, pairs = [cell.lower() for cell in header], list(zip(header[1::2], header[2::2], strict=False))
    numbers = list(map(str, range(len(pairs))))
    if low and low == ["file", *(f"{axis}{i}" for i in numbers for axis in "xy")] and pairs:
        return numbers
    names = [next(filter(None, match.groups())) for x, _ in pairs if (match := NAME.fullmatch(x))]
    distinct = len(set(map(normalised, names))) == len(header) // 2 and not any(name.isdecimal() for name in names)
    odd = _odd_column(header)
    if odd is not None or low[:1] != ["file"] or not names or not distinct:
        column = f"the column {odd[:40]!r} is" if odd and low[:1] == ["file"] else f"'{','.join(low)[:40]}' is"
        raise UserError(
            f"{where}: {column} not as in the header file,x0,y0,x1,y1,..., or with names of points file,nose_x,nose_y,...; "
            f"there may be columns {' and '.join(OTHER_COLUMNS)} too; remove others"
        )
    return names


def _odd_column(header: list[str]) -> str | None:
    """Return the first column after the file that is not of an x with its y behind it; None if there is none."""
    place = 1
    while place < len(header):
        x, y = header[place], header[place + 1] if place + 1 < len(header) else ""
        same = x != y and re.sub("[xX]", "y", x) == re.sub("[xXY]", "y", y)
        if not (same and NAME.fullmatch(x)):
            return x
        place += 2
    return None


def _cells(cells: list[str], where: str) -> np.ndarray:
    """Return the points (N, 2) of a line's cells."""
    try:
        points = floats(cell.strip() or "nan" for cell in cells).reshape(-1, 2)
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
    from x to x + w, 0 being the edge of the first pixel; without it, the tight box. Annotations without a keypoint, and
    those of crowds, are left out. If the categories name the keypoints, the names say which is which, so that files may
    list them in different orders.
    """
    order: list[str] = []  # names of the points, by the first category that names them
    places: dict[bool, str] = {}  # {whether its category names the points: a face}
    for split, file in split_files(archive, ("*.json", "annotations/*.json"), "JSON"):
        try:
            megabytes = file.stat().st_size >> 20
            if megabytes > LARGE:
                logger.info(f"{file}: reading {megabytes} MB")
            content = parse_json(read_bytes(file), _smaller)
            if name := foreign(content):
                raise UserError(f"{file} is {name}")
            images = _by_id(
                [
                    (image["id"], (str(image["file_name"]), image.get("width"), image.get("height")))
                    for image in content["images"]
                ],
                "images",
                file,
            )
            crowds = sum(bool(face.get("iscrowd")) for face in content["annotations"])
            faces = [face for face in content["annotations"] if _has_points(face) and not face.get("iscrowd")]
            named = _by_id(
                [
                    (one.get("id"), [str(name) for name in one.get("keypoints") or ()])
                    for one in content.get("categories") or ()
                ],
                "categories",
                file,
            )
            info = content.get("info")
            first = info.get(FIRST_PIXEL) if isinstance(info, dict) else None
            archive.left_out["annotations of crowds (iscrowd)"] += crowds
            archive.left_out["annotations without a keypoint"] += len(content.pop("annotations")) - len(faces) - crowds
        except OSError as error:
            raise UserError(f"{file}: cannot be read ({error.strerror})") from None
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise UserError(
                f"{file}: not COCO keypoints ({type(error).__name__}: {str(error)[:80]}); it must hold images with "
                "id and file_name, and annotations with image_id and keypoints"
            ) from None
        found: dict[str, Path] = {}
        for number, face in progress(_drained(faces), desc=file.name, total=len(faces), unit="face", delay=SLOW):
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
                if name not in found:
                    found[name] = find_image(archive, [name], file, where, split)
                image = found[name]
                archive.state(image, *size, where)
                points = archive.counted(np.where(values[:, 2:] > 0, values[:, :2], np.nan), first, where)
                if box is not None:  # in continuous px, while `add` expects the keypoints' origin
                    box = np.concatenate([box[:2], box[:2] + box[2:]]) + archive.origin - 0.5
                archive.add_own(split, image, points, where, box=box, visible=values[:, 2] == 2)
    if len(places) == 2:
        archive.faults.append(
            f"{places[False]}: its category does not name the points, each by a name of its own, as that of "
            f"{places[True]} does; name them there too"
        )


def foreign(content: Any) -> str:
    """Return what a JSON file is, and the remedy, if it is of a known format that is not read; else ""."""
    first = content[0] if isinstance(content, list) and content else content
    keys = first.keys() if isinstance(first, dict) else ()
    return next((name for there, name in FOREIGN.items() if all(key in keys for key in there)), "")


def _smaller(values: dict) -> dict:
    """Return an object of COCO's JSON, of an annotation only what is read, with its numbers as an array: a list of
    numbers takes four times as much memory.
    """
    if "image_id" not in values:
        return values
    values = {
        key: values[key] for key in ("id", "image_id", "category_id", "iscrowd", "keypoints", "bbox") if key in values
    }
    for key in ("keypoints", "bbox"):
        numbers = values.get(key)
        if isinstance(numbers, list) and numbers and isinstance(numbers[0], (int, float)):
            with suppress(ValueError, TypeError, OverflowError):  # `_coco_face` says what is wrong
                values[key] = np.array(numbers, dtype=np.float64)
    return values


def _has_points(face: dict) -> bool:
    """Return whether an annotation has a keypoint that is not 0."""
    values = face.get("keypoints")
    return bool(values.any()) if isinstance(values, np.ndarray) else any(values or ())


def _drained(faces: list[dict]) -> Iterator[tuple[int, dict]]:
    """Yield (number from 1, face) of a list, and take it out of the list, so that its memory is free."""
    faces.reverse()
    for number in range(1, len(faces) + 1):
        yield number, faces.pop()


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
