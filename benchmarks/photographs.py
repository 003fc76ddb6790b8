"""Data that the benchmarks need but the project does not hold, and the labelled faces in it.

Environment variables name the folders and files. A benchmark whose data is missing says so and stops.

- FACES_300W: the official tree of 300W or a part of it
- FACES68: images with 68-point .pts in train/ and test/
- FACEBOXES: photographs with face boxes in the layout of WIDER FACE
- FACEBOXES_V2: the published weights FaceBoxesV2.pth
- UNLABELLED: photographs without labels in subfolders
- ALL_AGES, DIVERSE: two of these subfolders, labelled by pseudo_labels.py
- RENDERED, RENDERED_FEW: 2,000 and 1,000 faces of rare_faces.py
- OPEN, OPEN_BACKGROUNDS: the faces of open_faces.py, the pictures of open_backgrounds.py
- LIDS, STEADY: the sets of lids.py and steady_labels.py
- VIDEOS: videos of one person each, who blinks
- BABIES: pictures of babies with 68-point .pts in continuous px, which no net is trained on
- HARD: hard photographs with 68-point .pts counted from 1, which no net is trained on
- NOFACE: photographs without a human face. By sorted name, trainings may use the first, third, ... file, which are
  the odd ones; the second, fourth, ... are for validation only
- NOFACE_ODD: a folder with the odd ones
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
from record import ROOT

from extras.datasets import DATASETS
from pipnet.detector import Detector
from pipnet.errors import UserError
from pipnet.geometry import box_of, iou
from pipnet.landmarker import Landmarker
from pipnet.shipped import SHIPPED
from utils.data.prepare import split_identities
from utils.data.table import image_of
from utils.settings.union import Union, layout_of
from utils.train import checkpoint

WORDS = (
    "300W FACES68 FACEBOXES FACEBOXES_V2 UNLABELLED ALL_AGES DIVERSE RENDERED RENDERED_FEW OPEN OPEN_BACKGROUNDS LIDS STEADY "
    "VIDEOS BABIES HARD NOFACE NOFACE_ODD"
).split()
VARIABLES = {word: "FACES_300W" if word == "300W" else word for word in WORDS}  # {word in flags: environment variable}
PLACES = {word: (ROOT / os.environ[name]).resolve() for word, name in VARIABLES.items() if os.environ.get(name)}
LABELLED = {"300W": "300w", "FACES68": "points"}  # {folder: its row of DATASETS}
FIRST_PIXEL = {"BABIES": 0.5, "HARD": 1.0}  # {folder of .pts: coordinate of the first pixel's centre}
# {set of photographs of one labelled face each that no net is trained on: its split}
PORTRAITS = {"HARD": "train", "BABIES": "train", "300W": "test", "FACES68": "test"}
HELD_OUT = 0.1  # share of the training identities that trainings hold out, `val` of args.yaml
LEAST = 0.3  # IoU from which a detection is the labelled face


class Photograph(NamedTuple):
    """A labelled face."""

    file: Path
    identity: str
    landmarks: np.ndarray  # (N, 2) continuous px


def missing(words: list[str]) -> str | None:
    """Return why the first of the words that name absent data is absent, None if all are there.
    Other words are ignored.
    """
    for word in (word.split("/")[0] for word in words):
        if word in VARIABLES and not (word in PLACES and PLACES[word].exists()):
            return f"no {word}: the environment variable {VARIABLES[word]} must name it"
    return None


def require(*words: str) -> list[Path]:
    """Return the places of the data that the words name. Stop with a message if it is absent."""
    if why := missing(list(words)):
        sys.exit(f"skipped: {why}")
    return [PLACES[word] for word in words]


def named(words: list[str]) -> list[str]:
    """Return the words, each name of a folder or file replaced by its path, also at the beginning of NAME/FOLDER."""
    parts = [(word, *word.partition("/")) for word in words]
    return [f"{PLACES[name]}{slash}{rest}" if name in PLACES else word for word, name, slash, rest in parts]


def run(*flags: str) -> None:
    """Run main.py, whose flags may be words that name data. Stop this program if the data is absent or if it fails."""
    if why := missing(list(flags)):
        sys.exit(f"skipped: {why}")
    if status := subprocess.run([sys.executable, "main.py", *named(list(flags))], cwd=ROOT).returncode:
        sys.exit(f"main.py {' '.join(flags)} failed with status {status}")


def there(*words: str) -> list[str]:
    """Return the words whose data is there, and print why others are skipped. Stop if all of them are."""
    reasons = {word: missing([word]) for word in words}
    for why in filter(None, reasons.values()):
        print(f"skipped: {why}")
    return [word for word, why in reasons.items() if not why] or sys.exit("skipped: there is no data")


def photographs(name: str, split: str, most: int | None = None) -> list[Photograph]:
    """Return the labelled faces of a split of a set, or at most `most`, evenly spread over it.

    split: train, test, or val, the faces of the training split that trainings hold out.
    """
    row, origin = DATASETS[LABELLED.get(name, "points")], FIRST_PIXEL.get(name)
    tables = row.parse(PLACES[name], allow_partial=True, count=68, origin=origin)
    table = tables["train" if split == "val" else split]
    held = split_identities(table["identity"], HELD_OUT, 0) if split == "val" else np.ones(len(table["file"]), bool)
    places = np.flatnonzero(held)
    chosen = np.unique(np.linspace(0, len(places) - 1, most or len(places)).round().astype(int))
    return [
        Photograph(image_of(PLACES[name], table["file"][i]), table["identity"][i], table["landmarks"][i])
        for i in places[chosen]
    ]


def place_of(record: Photograph, boxes: np.ndarray) -> int | None:
    """Return which of the boxes (M, 4) lies on the labelled face, None if none does."""
    near = iou(box_of(record.landmarks)[None], boxes)[0] if len(boxes) else np.zeros(1)
    return int(near.argmax()) if near.max() > LEAST else None


def open_detector(name: str, file: str | Path, **options) -> Detector:
    """Return a detector by name; `shipped` is an exported file of this project. options: of Detector."""
    return Detector("faceboxes" if name == "shipped" else name, file, **options)


def landmarker_for(name: str | None, net: str | Path | None = None, **options) -> Landmarker:
    """Return a landmarker of a net, in the layout of a labelled set if the net has learnt it. options: of Landmarker.

    The exported files of a shipped net have one layout; for another one its checkpoint is opened, in 32 bits.
    """
    shipped_net = str(net or SHIPPED[0]) in SHIPPED
    file = ROOT / "weights" / f"{net or SHIPPED[0]}.pt" if shipped_net else net
    with suppress(UserError):  # a net of another set
        if name and not (shipped_net and in_exports(file, name.lower())):
            return Landmarker(file, layout=name.lower(), **options)
    return Landmarker(net, **options)


def in_exports(checkpoint_file: Path, name: str) -> bool:
    """Return whether the exported files of a shipped net have the layout of a set: they have that of its first set."""
    learnt = layout_of(checkpoint.load(checkpoint_file)["layout"])
    return not isinstance(learnt, Union) or learnt.chosen(name) == learnt.chosen()


def without_detector(net: str | Path, name: str | None = None, **options) -> Landmarker:
    """Return `landmarker_for` a set without a detector, for boxes that are given."""
    blind = {"detector": lambda image: (np.zeros((0, 4)), np.zeros(0)), "finder": "none"}
    return landmarker_for(name, net, **blind, **options)


def found_in_box(landmarker: Landmarker, image: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return the landmarks (N, 2) of the face in the box of the true ones, in px, after the second crop."""
    (face,) = landmarker.landmarks_of(image, box_of(truth)[None])
    (face,) = landmarker.landmarks_of(image, landmarker.box_of(face.landmarks))
    return face.landmarks


def name_and_file(text: str) -> tuple[str, str]:
    """Return the two parts of NAME=FILE. Stop with a message if there are none."""
    name, separator, file = text.partition("=")
    if not separator:
        sys.exit(f"'{text}' must be NAME=FILE, such as faceboxes=FaceBoxesV2.pth")
    return name, file


def titled(nets: Sequence[str], default: Sequence[str] = SHIPPED[:2]) -> dict[str, str]:
    """Return {title: net} of words NET, as demo.py --exp takes it, or TITLE=NET; of `default` if there are no words."""
    return {title or net: net for title, _, net in (text.rpartition("=") for text in nets or default)}
