"""A user's own annotation as COCO's keypoints JSON."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from loguru import logger

from extras.datasets.archive import Archive
from extras.datasets.listed import SLOW, find_image, places_of, read_json, split_files
from extras.shared.pts import FIRST_PIXEL
from pipnet.errors import UserError
from utils.settings.layouts import normalised
from utils.settings.progress import progress

LARGE = 50  # MB of a JSON file whose reading is announced
READ = ("id", "image_id", "category_id", "iscrowd", "keypoints", "bbox")  # keys of an annotation


class Content(NamedTuple):
    """What a file holds: {id: (name, width, height)} of its images, {id: names of the points} of its categories, its
    faces, and the coordinate of the first pixel that it states.
    """

    images: dict[Any, tuple]
    names: dict[Any, list[str]]
    faces: list[dict]
    first: Any


class Face(NamedTuple):
    """A face: (name, width, height) of its image, its points (N, 3) x y v and their names, its box x y w h (4,)."""

    image: tuple
    points: np.ndarray
    names: list[str]
    box: np.ndarray | None


def parse_coco(archive: Archive) -> None:
    """Add the faces of COCO keypoints: `images` (id, file_name), `annotations` (image_id, keypoints x y v ..., bbox x y
    w h).

    The JSON is in the folder or its annotations/, or, as Roboflow's, in each of train/, valid/ and test/; images are
    beside it, below the folder or its images/. v is 0 for not annotated, 1 for hidden, 2 for visible. The box is bbox,
    from x to x + w, 0 being the edge of the first pixel; without it, the tight box. Annotations without a keypoint, and
    those of crowds, are left out. If the categories name the keypoints, the names say which is which, so that files may
    list them in different orders.
    """
    places: dict[bool, str] = {}  # {whether its category names the points: a face}
    for split, file in split_files(archive, ("*.json", "annotations/*.json"), "JSON"):
        content = _content(archive, file)
        found: dict[str, Path] = {}
        faces = progress(_drained(content.faces), desc=file.name, total=len(content.faces), unit="face", delay=SLOW)
        for number, annotation in faces:
            where = f"{file}, annotation {str(annotation.get('id', number))[:20]}"
            with archive.checked():
                face = _face(content, annotation, where)
                name, *size = face.image
                values = face.points
                names = face.names if len(set(map(normalised, face.names))) == len(face.names) else []
                places.setdefault(bool(names), where)
                if names:
                    values = values[places_of(archive, names, where)]
                if name not in found:
                    found[name] = find_image(archive, [name], file, where, split)
                archive.state(found[name], *size, where)
                points = np.where(values[:, 2:] > 0, values[:, :2], np.nan)
                points = archive.counted(points, content.first, where)
                box = face.box
                if box is not None:  # in continuous px, while `add` expects the keypoints' origin
                    box = np.concatenate([box[:2], box[:2] + box[2:]]) + archive.origin - 0.5
                archive.add_own(split, found[name], points, where, box=box, visible=values[:, 2] == 2)
    if len(places) == 2:
        archive.faults.append(
            f"{places[False]}: its category does not name the points, each by a name of its own, as that of "
            f"{places[True]} does; name them there too"
        )


def _content(archive: Archive, file: Path) -> Content:
    """Return what a file holds, without crowds and annotations without a keypoint, which the archive counts."""
    megabytes = file.stat().st_size >> 20 if file.is_file() else 0
    if megabytes > LARGE:
        logger.info(f"{file}: reading {megabytes} MB")
    content = read_json(file, _smaller)
    try:
        images = [
            (image["id"], (str(image["file_name"]), image.get("width"), image.get("height")))
            for image in content["images"]
        ]
        names = [
            (category.get("id"), [str(name) for name in category.get("keypoints") or ()])
            for category in content.get("categories") or ()
        ]
        annotations = content.pop("annotations")
        crowds = sum(bool(face.get("iscrowd")) for face in annotations)
        faces = [face for face in annotations if _has_points(face) and not face.get("iscrowd")]
        info = content.get("info")
        first = info.get(FIRST_PIXEL) if isinstance(info, dict) else None
        found = Content(_by_id(images, "images", file), _by_id(names, "categories", file), faces, first)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(
            f"{file}: not COCO keypoints ({type(error).__name__}: {str(error)[:80]}); it must hold images with "
            "id and file_name, and annotations with image_id and keypoints"
        ) from None
    archive.left_out["annotations of crowds (iscrowd)"] += crowds
    archive.left_out["annotations without a keypoint"] += len(annotations) - len(faces) - crowds
    return found


def _smaller(values: dict) -> dict:
    """Return an object of COCO's JSON, of an annotation only what is read, with its numbers as an array: a list of
    numbers takes four times as much memory.
    """
    if "image_id" not in values:
        return values
    values = {key: values[key] for key in READ if key in values}
    for key in ("keypoints", "bbox"):
        numbers = values.get(key)
        if isinstance(numbers, list) and numbers and isinstance(numbers[0], (int, float)):
            with suppress(ValueError, TypeError, OverflowError):  # `_face` says what is wrong
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


def _face(content: Content, face: dict, where: str) -> Face:
    """Return a face of an annotation. UserError for other values."""
    try:
        values = np.array(face["keypoints"], dtype=np.float64).reshape(-1, 3)
        box = None if face.get("bbox") is None else np.array(face["bbox"], dtype=np.float64).reshape(4)
        image, category = content.images[face["image_id"]], face.get("category_id")
        names = content.names.get(category, [])
    except (ValueError, TypeError, KeyError, OverflowError):
        raise UserError(
            f"{where}: keypoints x y v ..., bbox x y w h and the image_id of an image belong in it"
        ) from None
    if any(content.names.values()) and category not in content.names:
        raise UserError(f"{where}: its category_id {str(category)[:20]} is in no category of the file; correct it")
    if not (np.abs(values) < 1e9).all() or not np.isin(values[:, 2], (0, 1, 2)).all():
        raise UserError(f"{where}: a keypoint is not x y v with v 0, 1 or 2")
    if names and len(names) != len(values):
        raise UserError(f"{where}: {len(values)} points where its category names {len(names)}")
    return Face(image, values, names, box)
