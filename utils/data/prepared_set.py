"""A prepared set, data/<name>-<hash>/, and the faces that a training or a test loads from several sets."""

import hashlib
import os
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import cached_property, lru_cache, partial
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from loguru import logger

from pipnet import images
from pipnet.bounds import MOST_LANDMARKS
from pipnet.card import FLAG, PROTOCOL, TEXT, check, maybe, nullable, number, record, several, table_of, whole
from pipnet.errors import UserError
from pipnet.files import open_regular
from pipnet.geometry import Protocol, border_px, cut
from pipnet.layout import Layout
from utils.data.disk import AGAIN, CROPS, FAR, decoded_crop, stored_columns, stored_crop
from utils.data.faces import CropGeometry, Faces, Part, constant
from utils.data.table import SYNTHETIC, image_of
from utils.settings import rooms
from utils.settings.layouts import Layouts, normalised, without_same
from utils.settings.union import Labelled, Union, labels_to
from utils.settings.yaml_files import read_yaml

SPLITS = ("train", "val", "test", "unlabelled")
UNLABELLED = "unlabelled"  # split, dataset and layout of faces without landmarks, which unlabelled.py prepares
ALL = "all"  # every face of a set, whatever its split
LEFT_OUT = "left_out.txt"
OPENED = "opened"  # file whose time is that of the last use
FORMAT = 5  # of the folder; a folder of another format is not read
META = record(
    dataset=TEXT,
    title=TEXT,
    own=FLAG,
    name=TEXT,
    source=TEXT,
    layout=TEXT,
    count=whole(1, MOST_LANDMARKS),
    protocol=PROTOCOL,
    target_size=whole(1, FAR),
    margin=number(0, 100),
    origin=nullable(number()),
    label_shift=number(),
    norms=several(TEXT),
    states=several(TEXT),
    labels=TEXT,
    val=number(),
    seed=whole(most=2**63),
    expected=nullable(table_of(whole())),
    found=table_of(whole()),
    checksum=TEXT,
    columns=several(TEXT),
    frame_step=maybe(nullable(whole())),
)
COLUMN = re.compile(r"[a-z_]+(\.text)?")  # names of their files
# columns of every set
COLUMNS = {"file.text", "subset.text", "identity.text", "size", "crop", "box", "landmarks", "jpeg"}


class PreparedSet:
    """A complete prepared set. UserError if `folder` is none.

    meta: the values of meta.yaml. layouts: where its `layout` is looked up. show: folder for pictures of the set:
    `drawn`, or if that is None the folder show/ of the set.
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
        return Protocol(*(self.meta["protocol"][key] for key in Protocol._fields))

    @property
    def checksum(self) -> str:
        """Return the checksum of the names, image sizes and labels of the raw set."""
        return self.meta["checksum"]

    def state(self, val: float | str) -> list[str]:
        """Return the checksum of what a resumed training must find beside the labels: boxes, crops, validation.
        [] without it.

        val: the setting of that name.
        """
        split = () if val in ("test", "none") else (self.meta["val"], self.meta["seed"])
        values = self.meta.get("contents"), self.meta["margin"], self.meta["target_size"], *split
        return [hashlib.sha256(repr(values).encode()).hexdigest()] if values[0] else []

    @property
    def splits(self) -> list[str]:
        """Return the names of its splits."""
        return [split for split in SPLITS if (self.folder / split).is_dir()]

    @property
    def synthetic(self) -> bool:
        """Return whether the faces are rendered."""
        return self.meta["dataset"] == SYNTHETIC

    @property
    def title(self) -> str:
        """Return the name for tables. That of rendered faces says that they are synthetic."""
        return "synthetic faces" if self.synthetic else self.meta["name"]

    @property
    def labelled(self) -> Labelled:
        """Return the name of the set in unions of layouts and in --shares, which is its dataset, for a user's own set its
        raw folder; and the layout of its labels.
        """
        name = Path(self.meta["source"]).name if self.meta["own"] else self.meta["dataset"]
        return Labelled(name, self.meta["layout"])

    def meanface(self) -> np.ndarray:
        """Return the mean training landmarks (N, 2) in [0, 1] of the nominal crop. UserError without a train split."""
        file, count = self.folder / "meanface.txt", self.meta["count"]
        try:
            points = np.array(file.read_text(encoding="ascii").split(), dtype=np.float64).reshape(count, 2)
            if not (np.abs(points) < FAR).all():
                raise ValueError
            return points
        except (OSError, ValueError):
            raise UserError(
                f"{file} does not hold {count} landmarks; a prepared set without a train split has none"
            ) from None

    def read(self, split: str) -> Faces:
        """Return the faces of a split, or of ALL splits. Values are read when they are used.

        If the split `val` is missing, there are no faces in it. UserError for any other missing split, and for damaged
        files.
        """
        if split == ALL:
            return Faces.join([self.read(name) for name in self.splits])
        if split == "val" and self.splits and split not in self.splits:
            faces = self.read(self.splits[0])
            none = {name: values[:0] for name, values in faces.parts[0].columns.items()}
            return Faces.of(replace(faces.parts[0], columns=none), faces.geometry, faces.facts)
        if split not in self.splits:
            raise UserError(f"{self.folder} has no {split} split; give a set that has one")
        folder, meta = self.folder / split, self.meta
        columns = stored_columns(folder, meta)
        whole = {
            "source": Path(meta["source"]),
            "set": meta["checksum"],
            "target": meta["target_size"],
            "step": meta.get("frame_step"),
        }
        count = len(columns["jpeg"])
        columns |= {name: constant(value, count) for name, value in whole.items() if value is not None}
        facts = {
            "protocol": self.protocol,
            "margin": meta["margin"],
            "states": meta["states"],
            "subsets": list(meta["expected"] or ()),
        }
        jpeg = partial(stored_crop, folder / CROPS, columns["jpeg"])
        crop = partial(decoded_crop, folder / CROPS, jpeg, columns["file"])
        geometry = CropGeometry(meta["target_size"], border_px(meta["target_size"], meta["margin"]))
        return Faces.of(Part(columns, crop, jpeg), geometry, facts)

    def mismatch(self, **wanted: Any) -> str:
        """Return in one line why the set cannot be used; '' if it has all wanted values.

        wanted: keys and values of meta.yaml. Its layout must have the set's points, if it is still in args.yaml.
        """
        for key, value in wanted.items():
            found = self.meta.get(key)
            if key == "row" and found and value:
                found, value = without_same(found), without_same(value)
            if found != value:
                return f"{self.folder} was prepared with {key} {found}, not {value}"
        name, count = self.meta["layout"], self.meta["count"]
        if name not in self.layouts.rows:
            return ""
        if self.layout.count != count:
            return f"{self.folder} was prepared with {count} landmarks, but layout {name} has {self.layout.count} now"
        points, named = self.meta.get("points") or [], self.layout.point_names()
        points, named = list(map(normalised, points)), list(map(normalised, named))
        if named != points and set(named) == set(points):
            return f"{self.folder} was prepared with the points in another order than layout {name} has now"
        return ""

    @property
    def last_use(self) -> float:
        """Return when the set was last used, in seconds as os.stat gives them."""
        file = self.folder / OPENED
        return (file if file.is_file() else self.folder / "meta.yaml").stat().st_mtime

    def touch(self) -> None:
        """Note that the set is used now. Where nothing can be written, nothing is noted."""
        with suppress(OSError):
            os.close(open_regular(self.folder / OPENED, os.O_WRONLY | os.O_CREAT))
            os.utime(self.folder / OPENED)


class Split(NamedTuple):
    """A split of a prepared set.

    label_shift: px of the source image by which the labels lie too far right
    labelled: False hides the labels, so that nothing can learn from them; the set may then have any layout
    """

    set: PreparedSet
    name: str
    label_shift: float = 0.0
    labelled: bool = True


def trained_splits(val: float | str) -> tuple[str, ...]:
    """Return the splits to train on: train, and val unless it validates. val: the setting of that name."""
    return ("train", "val") if val in ("test", "none") else ("train",)


def test_split(one: PreparedSet, apart: bool) -> Split | None:
    """Return the test split of a set.

    Without one, return all its faces if it is a user's own and `apart` from training, else None.
    """
    if "test" in one.splits:
        return Split(one, "test")
    if not apart or not one.meta["own"]:
        return None
    logger.info(f"{one.folder.name} has no test split: all its faces are tested")
    return Split(one, ALL)


def load_splits(splits: list[Split], layout: Layout, size: int, cache: float, input_margin: float = 1.0) -> Faces:
    """Return the faces of several splits for a net of `layout` that sees `input_margin` times a nominal crop of `size`
    px.

    Sets of another layout are converted if conversion.py has a rule. cache: GiB for decoded crops.
    """
    several = [split.set.read(split.name) for split in splits]
    first = several[0].facts
    for split, faces in zip(splits, several, strict=True):
        if any(faces.facts[key] != first[key] for key in ("protocol", "margin")):
            raise UserError(
                f"{split.set.folder} was cut by another protocol or margin than {splits[0].set.folder}; prepare "
                "both with the same"
            )
    geometry = CropGeometry(size, border_px(size, first["margin"]), border_px(size, input_margin))
    if geometry.seen > geometry.border:
        raise UserError(
            f"this net sees {input_margin} times the nominal crop, {splits[0].set.folder} holds {first['margin']}; "
            f"prepare it with --margin {input_margin} or more"
        )
    union = {
        key: list(dict.fromkeys(name for faces in several for name in faces.facts[key]))
        for key in ("states", "subsets")
    }
    facts = {**first, **union, "aligned": isinstance(layout, Union)}
    seen = [_as_seen(*pair, layout, union["states"], geometry) for pair in zip(splits, several, strict=True)]
    faces = replace(Faces.join(seen), geometry=geometry, facts=facts).cached(cache)
    order = _in_order(splits, several)
    return faces if order is None else faces.only(order)


def _in_order(splits: list[Split], several: list[Faces]) -> np.ndarray | None:
    """Return the rows of the joined faces with train and val of a set in the order of its archive; None if they are in
    order.

    So a training on both sees the same faces in the same order, whatever share was held out when the set was prepared.
    """
    starts = np.cumsum([0, *map(len, several)])
    rows = np.arange(starts[-1])
    for i, (one, two) in enumerate(pairwise(splits)):
        pair, of_one = several[i : i + 2], (one.name, two.name, one.set.folder) == ("train", "val", two.set.folder)
        if of_one and all("place" in faces for faces in pair):
            places = np.concatenate([faces["place"] for faces in pair])
            rows[starts[i] : starts[i + 2]] = starts[i] + np.argsort(places, kind="stable")
    return None if (np.diff(rows) > 0).all() else rows


def _as_seen(split: Split, faces: Faces, layout: Layout, states: list[str], geometry: CropGeometry) -> Faces:
    """Return the faces of a split as a net of `layout` sees them. Hidden labels are unknown."""
    meta, rule = split.set.meta, None
    if split.labelled and not split.set.layouts.same(meta["layout"], layout.stored):
        rule = labels_to(layout, split.set.labelled, split.set.layouts)
        if rule is None:
            raise UserError(
                f"{split.set.folder} has {meta['count']} landmarks (layout {meta['layout']}), which a net of layout "
                f"{layout.stored} cannot use; give sets of that layout or another --layout"
            )
    count = rule.x.shape[1] if rule else meta["count"]
    selected = None if len(layout.selected) == count else list(layout.selected)
    places = [states.index(name) for name in faces.facts["states"]], len(states)
    parts = []
    for part in faces.parts:
        crop = partial(_resized, part.crop, faces.geometry.size, geometry)
        part = replace(part, crop=crop, rule=rule, selected=selected, states=places)
        parts.append(part if split.labelled else part.hidden(layout.count))
    return replace(faces, parts=tuple(parts)).with_values(label_shift=float(split.label_shift))


def _resized(crop: Callable[[int], np.ndarray], size: int, geometry: CropGeometry, row: int) -> np.ndarray:
    """Return a stored crop at the size that `geometry` tells. size: px of its nominal crop as stored."""
    picture, side = crop(row), geometry.stored
    if len(picture) == side:
        return picture
    edge = (len(picture) - size) / 2
    inside = np.array([edge, edge, len(picture) - edge, len(picture) - edge])
    return cut(picture, inside, geometry.size, side / geometry.size)


def read_meta(folder: Path) -> dict[str, Any]:
    """Return the values of meta.yaml. UserError if there is none, or one of another format."""
    file = Path(folder) / "meta.yaml"
    if not file.is_file():
        raise UserError(f"{folder} is not a prepared set; prepare one: python main.py --prepare --data-dir RAW")
    return {**_read_meta(file, file.stat().st_mtime_ns)}


@lru_cache(maxsize=1024)
def _read_meta(file: Path, written: int) -> dict[str, Any]:
    """Return the values of a meta.yaml that was written at a time in ns; it is read once."""
    meta = read_yaml(file)
    if meta.get("format") != FORMAT:
        raise UserError(f"{file} is of format {meta.get('format')}, which this version does not read; {AGAIN}")
    try:
        check(meta, META, "")
    except ValueError as error:
        raise UserError(f"{file} is damaged: {error}; {AGAIN}") from None
    if not COLUMNS <= {*meta["columns"]} or not all(map(COLUMN.fullmatch, meta["columns"])):
        raise UserError(f"{file} is damaged: its columns are not those of a set; {AGAIN}")
    return meta


def name_hash(text: str) -> bytes:
    """Return the sha256 of a text, to draw names by: the draw of a name stays the same when others are added.

    File names that are not UTF-8 are allowed.
    """
    return hashlib.sha256(text.encode(errors="surrogateescape")).digest()


def source_picture(source: Path, name: str) -> Path | None:
    """Return the source image of a face, None if it is gone.
    source: the raw archive; name: the face's value in column file.
    """
    image = image_of(source, name)
    return image if image.is_file() or image.parent.is_file() else None  # COFW's and 300VW's are inside a file


def read_source_image(file: Path | str) -> np.ndarray:
    """Return an image (H, W, 3) uint8 BGR, turned as its EXIF tag says.
    FILE/0001 means an image inside a file of an archive.

    UserError if it is missing, unreadable or cut short.
    """
    file = Path(file)
    if file.parent.suffix in (".mat", ".avi") and file.parent.is_file():
        return rooms.datasets.read_within(file)
    return images.read_image(file, "fetch it again or remove it with its .pts")
