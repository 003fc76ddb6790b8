"""A prepared set on disk, data/<name>/: one row per face, written and read back.

    <split>.tsv               headed rows (COLUMNS, and OPTIONAL ones that the set has); row i is crops/<split>/{i:06d}.jpg
    crops/<split>/*.jpg       the nominal crop grown by the margin, side round(target_size * margin) px
    meanface.txt              mean training landmarks in [0, 1] of the nominal crop, x y x y ... on one line
    left_out.txt              faces whose image is damaged, with the reason; absent if there are none
    meta.yaml                 how the set was made; written last, so a folder without it is not a prepared set
"""

import hashlib
import math
import os
from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml
from loguru import logger

from pipnet import images
from pipnet.errors import UserError
from pipnet.geometry import Protocol, border_px, check_protocol, to_crop
from pipnet.layout import MOST_LANDMARKS, Layout
from utils.conversion import conversion
from utils.faces.archives import DATASETS, WITHIN, Splits, image_of
from utils.faces.faces import Crops, Faces, constant, mapped, text
from utils.growing import SPLITS
from utils.layouts import Layouts
from utils.yaml_files import read_yaml

SYNTHETIC = "synthetic"
UNLABELLED = "unlabelled"  # split, dataset and layout of faces without landmarks, which unlabelled.py prepares
FAR = 1 << 20  # px; no picture that can be read is larger
ALL = "all"  # every face of a set, whatever its split
COLUMNS = ("file", "subset", "identity", "width", "height", "crop_x1", "crop_y1", "crop_x2", "crop_y2",
           "box_x1", "box_y1", "box_x2", "box_y2", "landmarks", "visible")
LEFT_OUT = "left_out.txt"
OPTIONAL = ("pose", "states")  # pitch yaw roll in radians; one 0 or 1 per name in meta.yaml's `states`
FORMAT = 2  # of the folder; a folder of another format is prepared again
META = {"dataset": str, "name": str, "source": str, "layout": str, "count": int, "protocol": dict, "target_size": int,
        "margin": (int, float), "origin": (int, float, type(None)), "val": (int, float, str), "seed": int,
        "expected": (dict, type(None)), "found": dict, "checksum": str}  # types of the values


class Done(NamedTuple):
    """A prepared face: its nominal crop (4,) in px of the source image, and that image's width and height."""

    crop: np.ndarray
    size: tuple[int, int]


class PreparedSet:
    """A whole prepared folder. `PreparedSet(folder, layouts)` raises UserError if there is none.

    folder; meta: the values of meta.yaml; layouts: those that its own `layout` comes from; show: where it is drawn, `drawn` or a
    folder in its own.
    """

    def __init__(self, folder: Path, layouts: Layouts, drawn: Path | None = None):
        self.folder, self.layouts, self.meta = Path(folder), layouts, read_meta(folder)
        self.show = drawn or self.folder / "show"

    @cached_property
    def layout(self) -> Layout:
        """Return the layout of the stored landmarks."""
        return self.layouts.load(self.meta["layout"])

    @cached_property
    def protocol(self) -> Protocol:
        """Return the protocol by which the crops were cut."""
        return Protocol(**self.meta["protocol"])

    @property
    def checksum(self) -> str:
        """Return the checksum of the names, image sizes and labels of the raw set."""
        return self.meta["checksum"]

    @property
    def splits(self) -> list[str]:
        """Return the splits that it has."""
        return [split for split in SPLITS if (self.folder / f"{split}.tsv").is_file()]

    @property
    def synthetic(self) -> bool:
        """Return whether the faces are rendered."""
        return self.meta["dataset"] == SYNTHETIC

    @property
    def title(self) -> str:
        """Return the name for tables; rendered faces say so."""
        return "synthetic faces" if self.synthetic else self.meta["name"]

    def meanface(self) -> np.ndarray:
        """Return the mean training landmarks (N, 2) in [0, 1] of the nominal crop. UserError without a train split."""
        file, count = self.folder / "meanface.txt", self.meta["count"]
        try:
            points = np.array(file.read_text(encoding="ascii").split(), dtype=np.float64).reshape(count, 2)
            if not (np.abs(points) < FAR).all():
                raise ValueError
            return points
        except (OSError, ValueError):
            raise UserError(f"{file} does not hold {count} landmarks; a prepared set without a train split has none") from None

    def read(self, split: str) -> Faces:
        """Return a split, or ALL. UserError names file and line of a bad row. Only `val` may be absent: it then has no face."""
        if split == ALL:
            return Faces.join([self.read(name) for name in self.splits])
        file, meta, count = self.folder / f"{split}.tsv", self.meta, self.meta["count"]
        if not file.is_file() and split != "val":
            raise UserError(f"{self.folder} has no {split} split; give a set that has one")
        content = file.read_text(encoding="utf-8", errors="surrogateescape") if file.is_file() else "\t".join(COLUMNS)
        lines = content.removesuffix("\n").split("\n")
        columns = lines[0].split("\t")
        more = columns[len(COLUMNS):]
        if columns != [*COLUMNS, *(name for name in OPTIONAL if name in more)]:
            raise UserError(f"{file}, line 1: the header is not that of a prepared set; prepare it again")
        sizes = [{"pose": 3, "states": len(meta.get("states", ()))}[name] for name in more]
        rows = [_row(line.split("\t"), count, sizes, f"{file}, line {number}") for number, line in enumerate(lines[1:], 2)]
        if not rows and split != "val":
            raise UserError(f"{file}: no face in it; prepare the set again")
        numbers = np.array([row[1] for row in rows]).reshape(-1, 10)
        landmarks = np.array([row[2] for row in rows]).reshape(-1, count, 2)
        visible = np.array([row[3] for row in rows], dtype=bool).reshape(-1, count) & ~np.isnan(landmarks).any(axis=-1)
        table = {name: text([row[0][i] for row in rows]) for i, name in enumerate(("file", "subset", "identity"))}
        table |= {"size": numbers[:, :2].astype(np.int64), "crop": numbers[:, 2:6], "box": numbers[:, 6:], "landmarks": landmarks,
                  "visible": visible}
        table |= {name: np.array([row[4][i] for row in rows]).reshape(-1, sizes[i]) for i, name in enumerate(more)}
        if "states" in table:
            table["states"] = table["states"] == 1
        whole = {"source": Path(meta["source"]), "set": meta["checksum"], "target": meta["target_size"],
                 "step": meta.get("frame_step")}
        table |= {name: constant(value, len(rows)) for name, value in whole.items() if value is not None}
        facts = {"protocol": self.protocol, "margin": meta["margin"], "states": list(meta.get("states", ())),
                 "subsets": list(meta["expected"] or ())}
        images = partial(crop_of, self.folder, split)
        size = meta["target_size"]
        return Faces(table, Crops(partial(_decoded, images), partial(_encoded, images), len(rows), size,
                                  border_px(size, meta["margin"])), facts)


class Split(NamedTuple):
    """A split of a prepared set, and by how many px of the source image its labels lie right of the true points.

    labelled: False hides the labels, so that nothing can learn from them; the set may then be of any layout.
    """

    set: PreparedSet
    name: str
    label_shift: float = 0.0
    labelled: bool = True


def test_split(one: PreparedSet, apart: bool) -> Split | None:
    """Return what to test on: the test split; without one, all faces of an own set that is kept `apart` for tests; else None."""
    if "test" in one.splits:
        return Split(one, "test")
    if not apart or DATASETS[one.meta["dataset"]].layout is not None:
        return None
    logger.info(f"{one.folder.name} has no test split: all its faces are tested")
    return Split(one, ALL)


def load(splits: list[Split], layout: Layout, size: int, cache: float, train_hidden: bool = True,
         input_margin: float = 1.0) -> Faces:
    """Return the faces of several splits for a net of `layout` that sees `input_margin` times a nominal crop of `size` px.

    Sets of another layout are converted if conversion.py has a rule. Landmarks are `visible` if they are known and, without
    train_hidden, not hidden. cache: GiB of decoded crops.
    """
    parts = [split.set.read(split.name) for split in splits]
    for split, part in zip(splits, parts, strict=True):
        if any(part.facts[key] != parts[0].facts[key] for key in ("protocol", "margin")):
            raise UserError(f"{split.set.folder} was cut by another protocol or margin than {splits[0].set.folder}; prepare "
                            "both with the same")
    margin = parts[0].facts["margin"]
    if border_px(size, input_margin) > border_px(size, margin):
        raise UserError(f"this net sees {input_margin} times the nominal crop, {splits[0].set.folder} holds {margin}; prepare it "
                        f"with --margin {input_margin} or more")
    union = {key: list(dict.fromkeys(name for part in parts for name in part.facts[key])) for key in ("states", "subsets")}
    faces = Faces.join([_for_net(*pair, layout, train_hidden, union["states"]) for pair in zip(splits, parts, strict=True)])
    crops = Crops.join([part.crops.at(size, margin, input_margin) for part in parts]).cached(cache)
    return Faces(faces.columns, crops, faces.facts | union)


def _for_net(split: Split, faces: Faces, layout: Layout, train_hidden: bool, states: list[str]) -> Faces:
    """Return the labels of a split in `layout`, with all `states`; unknown ones if it is not `labelled`."""
    meta, landmarks, visible = split.set.meta, faces["landmarks"], faces["visible"]
    faces = faces.with_columns(label_shift=constant(float(split.label_shift), len(faces)))
    if not split.labelled:
        unknown = {"landmarks": np.full((layout.count, 2), np.nan), "visible": np.zeros(layout.count, bool)}
        return faces.without("pose", "states").with_columns(
            **{name: constant(value, len(faces)) for name, value in unknown.items()})
    if meta["layout"] != layout.stored:
        way = conversion(meta["layout"], layout.stored, split.set.layouts)
        if way is None:
            raise UserError(f"{split.set.folder} has {meta['count']} landmarks (layout {meta['layout']}), which a net of layout "
                            f"{layout.name} cannot use; give sets of layout {layout.stored} or another --layout")
        landmarks, visible = mapped(way, landmarks), mapped(way.flags, landmarks, visible)
    if len(layout.selected) != landmarks[:0].shape[1]:
        landmarks, visible = (mapped(partial(np.take, indices=layout.selected, axis=1), part) for part in (landmarks, visible))
    new = {"landmarks": landmarks, "visible": mapped(_known, landmarks) if train_hidden else mapped(_seen, landmarks, visible)}
    if "pose" in faces:
        new["pose"] = mapped(partial(np.asarray, dtype=np.float32), faces["pose"])
    if "states" in faces:
        places = [states.index(name) for name in faces.facts["states"]]
        new["states"] = mapped(partial(_among, places, len(states)), faces["states"])
    return faces.with_columns(**new)


def _known(landmarks: np.ndarray) -> np.ndarray:
    return np.isfinite(landmarks).all(-1)


def _seen(landmarks: np.ndarray, visible: np.ndarray) -> np.ndarray:
    return visible & _known(landmarks)


def _among(places: list[int], count: int, states: np.ndarray) -> np.ndarray:
    """Return (B, count) float32 with `states` (B, k) at their places, NaN at others."""
    found = np.full((len(states), count), np.nan, np.float32)
    found[:, places] = states
    return found


def _row(fields: list[str], count: int, sizes: list[int], where: str) -> tuple:
    """Return names (3), numbers (10), landmarks (2 count,), visible flags and the optional columns of one line.

    All landmarks are visible if the line has no flags. sizes: how many numbers each optional column holds.
    """
    if len(fields) != len(COLUMNS) + len(sizes):
        raise UserError(f"{where}: {len(fields)} columns where {len(COLUMNS) + len(sizes)} belong; prepare the set again")
    try:
        numbers, landmarks = np.array(fields[3:13], dtype=np.float64), np.array(fields[13].split(), dtype=np.float64)
        extra = [np.array(field.split() if " " in field else list(field), dtype=np.float64) for field in fields[15:]]
    except ValueError:
        raise UserError(f"{where}: a column that is not a number; prepare the set again") from None
    if len(landmarks) != 2 * count:
        raise UserError(f"{where}: {len(landmarks) / 2:g} landmarks where {count} belong; prepare the set again")
    if (np.abs(landmarks) > FAR).any() or (np.abs(numbers) > FAR).any():
        raise UserError(f"{where}: a coordinate is more than {FAR} px away; prepare the set again")
    if set(fields[14]) - {"0", "1"} or len(fields[14]) not in (0, count):
        raise UserError(f"{where}: visible is not {count} flags 0 or 1; prepare the set again")
    if not (np.isfinite(numbers).all() and (numbers[4:6] > numbers[2:4]).all()):
        raise UserError(f"{where}: not a crop box; prepare the set again")
    if [len(values) for values in extra] != sizes:
        raise UserError(f"{where}: pose or states have another number of values than the set; prepare the set again")
    return fields[:3], numbers, landmarks, [flag == "1" for flag in fields[14]] or [True] * count, extra


def read_meta(folder: Path) -> dict[str, Any]:
    """Return the values of meta.yaml. UserError if there is none, or one of another format."""
    file = Path(folder) / "meta.yaml"
    if not file.is_file():
        raise UserError(f"{folder} is not a prepared set; prepare one: python main.py --prepare --data-dir RAW")
    meta = read_yaml(file)
    meta.setdefault("labels", "exact")
    try:
        whole = meta.get("format") == FORMAT and all(isinstance(meta[key], kind) for key, kind in META.items())
        whole = whole and meta["dataset"] in (*DATASETS, UNLABELLED)
        whole = whole and 0 < meta["count"] <= MOST_LANDMARKS and 0 < meta["target_size"] <= FAR and 0 < meta["margin"] <= 100
        whole = whole and all(math.isfinite(value) for value in meta.values() if isinstance(value, float))
        whole = whole and all(isinstance(value, int) for key in ("expected", "found") for value in (meta[key] or {}).values())
        whole = whole and isinstance(meta.get("frame_step", 1), int | None) and isinstance(meta.get("states", []), list)
        check_protocol(Protocol(**meta["protocol"]))
    except (KeyError, TypeError, OverflowError, UserError):
        whole = False
    if not whole:
        raise UserError(f"{file} is damaged or of another version of the format; remove {folder} and prepare it again")
    return meta


def mismatch(folder: Path, **wanted: Any) -> str:
    """Return in one line why a folder cannot serve; empty if it is a whole prepared set and meta.yaml has all wanted values.

    wanted: keys of meta.yaml, e.g. target_size, margin, protocol (a Protocol), val, seed, layout, source.
    """
    folder = Path(folder)
    if not (folder / "meta.yaml").is_file():
        return f"{folder} has not been prepared"
    try:
        meta = read_meta(folder)
    except UserError as error:
        return str(error)
    for key, value in wanted.items():
        value = value._asdict() if key == "protocol" else value
        if key not in meta:
            return f"{folder} was prepared without {key}"
        if meta[key] != value:
            if key == "fingerprint":
                return f"{meta['source']} has changed since {folder} was prepared"
            return f"{folder} was prepared with {key} {meta[key]}, not {value}"
    splits = [split for split in SPLITS if (folder / f"{split}.tsv").is_file()]
    for split in splits:
        with open(folder / f"{split}.tsv", "rb") as file:
            rows = sum(1 for _ in file) - 1
        crops = folder / "crops" / split
        held = sum(entry.name.endswith(".jpg") for entry in os.scandir(crops)) if crops.is_dir() else 0
        if held != rows:
            return f"{crops} holds {held} crops for {rows} rows of {split}.tsv"
    return "" if splits else f"{folder} holds no split"


def crop_of(folder: Path, split: str, index: int) -> Path:
    """Return the file of a crop."""
    return folder / crop_file(split, index)


def _encoded(place: Callable[[int], Path], index: int) -> bytes:
    return place(index).read_bytes()


def _decoded(place: Callable[[int], Path], index: int) -> np.ndarray:
    return read_image(place(index))


# -------------------------------------------------------------------------------------------------------------- writing
def crop_file(split: str, index: int) -> str:
    """Return where the crop of a row lies, relative to the prepared folder."""
    return f"crops/{split}/{index:06d}.jpg"


def name_hash(text: str) -> bytes:
    """Return the sha256 of a text with a name in it, by which draws of names stay the same when others are added. File names
    that are not UTF-8 are allowed."""
    return hashlib.sha256(text.encode(errors="surrogateescape")).digest()


def source_picture(source: Path, name: str) -> Path | None:
    """Return the picture of a face by its name in the tables, or None if it is gone. source: the raw archive."""
    image = image_of(source, name)
    return image if image.is_file() or image.parent.is_file() else None  # COFW's and 300VW's are inside a file


def _line(table: dict, row: int) -> str:
    """Return a face as a line of the table; `_row` reads it back."""
    numbers = (f"{value:.4f}" for name in ("crop", "box") for value in table[name][row])
    landmarks = " ".join(f"{value:.4f}" for value in table["landmarks"][row].ravel())
    flags = {name: "".join("01"[int(flag)] for flag in table[name][row]) for name in ("visible", "states") if name in table}
    more = [" ".join(f"{value:.6f}" for value in table["pose"][row])] if "pose" in table else []
    more += [flags["states"]] if "states" in table else []
    names = (table[name][row] for name in ("file", "subset", "identity"))
    return "\t".join((*names, *map(str, table["size"][row]), *numbers, landmarks, flags.get("visible", ""), *more))


def write_set(folder: Path, source: Path, splits: Splits, meta: dict) -> None:
    """Write tables, meanface and, last, meta.yaml beside the crops. UserError if a landmark is never annotated."""
    for split, table in splits.items():
        columns = [*COLUMNS, *(name for name in OPTIONAL if name in table)]
        lines = ["\t".join(columns), *(_line(table, row) for row in range(len(table["file"])))]
        (folder / f"{split}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8", errors="surrogateescape")
    if "train" in splits:
        landmarks = to_crop(splits["train"]["landmarks"], splits["train"]["crop"])
        unseen = np.flatnonzero(np.isnan(landmarks).any(axis=-1).all(axis=0))
        if len(unseen):
            raise UserError(f"{source}: landmark {unseen[0]} is annotated in no training face, so it has no mean")
        meanface = np.nanmean(landmarks, axis=0).ravel().tolist()
        (folder / "meanface.txt").write_text(" ".join(map(repr, meanface)) + "\n", encoding="ascii")
    (folder / "meta.yaml").write_text(yaml.safe_dump(meta, sort_keys=False), encoding="utf-8")


def read_image(file: Path | str) -> np.ndarray:
    """Return an image (H, W, 3) uint8 BGR, upright by its EXIF tag; FILE/0001 is an image inside a file of an archive.

    UserError if it is missing, unreadable or cut short.
    """
    file = Path(file)
    if (reader := WITHIN.get(file.parent.suffix)) and file.parent.is_file():
        return reader(file)
    return images.read_image(file, "fetch it again or remove it with its .pts")
