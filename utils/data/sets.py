"""Finds the prepared sets that names on the command line mean. A set that is missing, or has other settings, is made."""

import shlex
import time
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from tokenize import TokenError  # of a damaged .npy
from typing import Any, NamedTuple

import numpy as np
from loguru import logger

from pipnet.bounds import MOST_LANDMARKS, MOST_TEXT
from pipnet.errors import UserError
from pipnet.files import DAY
from pipnet.geometry import Protocol
from pipnet.layout import Layout
from utils.data.faces import Faces
from utils.data.fingerprint import fingerprint
from utils.data.makers import dataset_rows, infer
from utils.data.new_folder import ASIDE
from utils.data.paths import (
    MEANFACE_FILES,
    dataset_of,
    edited_layout,
    prepared_folders,
    set_name,
)
from utils.data.prepare import OPTIONS, DataGenerator
from utils.data.prepared_set import UNLABELLED, PreparedSet, Split, test_split
from utils.data.table import SYNTHETIC, archive_and_labels
from utils.settings import rooms
from utils.settings.config import ROOT, Defaults, Settings, load_protocol
from utils.settings.layouts import Layouts, without_same
from utils.settings.sections import DataSettings
from utils.settings.union import Union

UNUSED = 30 * DAY  # after so many seconds a set is named as one that may be removed
FARTHEST = 2.0  # share of the crop; a mean face has no landmark so far from the crop's centre


@dataclass(frozen=True)
class Sets:
    """The prepared sets of a run: `sets[name]` is the one that a name means, once `with_sets` has found or made it.

    defaults: args.yaml. overwrite: make sets anew, and move those that are there aside. folders: by names; made: those
    that were written for this run. The layouts of the settings come to have those of the users' own sets too.
    """

    settings: Settings
    defaults: Defaults
    overwrite: bool = False
    folders: dict[str, Path] = field(default_factory=dict)
    made: frozenset[Path] = frozenset()

    @property
    def data(self) -> DataSettings:
        """Return the settings of the data."""
        return self.settings.data

    @property
    def layouts(self) -> Layouts:
        """Return the rows of layouts."""
        return self.settings.layouts

    @property
    def root(self) -> Path:
        """Return the folder in which sets are made."""
        return ROOT / self.data.data_root

    @property
    def protocol(self) -> Protocol:
        """Return the protocol of the crops."""
        return load_protocol(self.settings.protocols, self.data.protocol or "square")

    @property
    def layout(self) -> str | None:
        """Return the layout of the users' own sets; None: each has its own."""
        return self.layouts.plain(self.data.layout)

    def with_sets(self, names: list[str], test: bool = False) -> "Sets":
        """Return these sets and those that `names` mean: datasets, prepared or raw folders. Missing ones are made.

        test: only test splits are needed, so the share of validation faces does not matter. UserError for unknown names.
        """
        found = self
        for name in names:
            if name not in found.folders:
                found = _with_set(found, name, test)
        return found

    def __getitem__(self, name: str) -> PreparedSet:
        return self.open(self.folders[name])

    def open(self, folder: Path) -> PreparedSet:
        """Return the prepared set in a folder. Pictures of one that only a trained run names are drawn elsewhere."""
        foreign = self.settings.trained_root and not folder.resolve().is_relative_to(self.root.resolve())
        return PreparedSet(folder, self.layouts, self.root / "show" / folder.name if foreign else None)

    def prepared(self) -> list[PreparedSet]:
        """Return all prepared sets, the newest first; those of the trained run before those of `root`."""
        found = []
        for root in dict.fromkeys(filter(None, (self.settings.trained_root, self.root))):
            for folder in prepared_folders(root):
                with suppress(UserError, FileNotFoundError):  # damaged, of another format, or removed meanwhile
                    found.append(self.open(folder))
        return found


def _with_set(sets: Sets, name: str, test: bool) -> Sets:
    """Return the sets with the one that a name means, and its layout. Note that it is used now."""
    made = sets.made
    if (Path(name) / "meta.yaml").is_file():
        one = _as_it_is(sets, Path(name))
    else:
        meaning = _meaning_of(sets, name, test)
        found = find(sets, meaning)
        one = make(sets, meaning) if found is None else found
        made |= {one.folder} if found is None else set()
    if one.folder.resolve().is_relative_to(sets.root.resolve()):
        one.touch()
    settings, layout = sets.settings, one.meta["layout"]
    if "row" in one.meta and layout not in sets.layouts.rows:
        row = one.meta["row"]
        edited, known = edited_layout(sets.root, Path(one.meta["source"]), sets.layouts)
        if edited == layout and without_same(known.rows[layout]) == without_same(row):
            row = known.rows[layout]  # with the `same_as` of today
        settings = settings._replace(layouts=sets.layouts.with_rows({layout: row}))
    return replace(sets, settings=settings, folders={**sets.folders, name: one.folder}, made=made)


def _as_it_is(sets: Sets, folder: Path) -> PreparedSet:
    """Return the prepared set in a folder. UserError if it was prepared otherwise than this run asks for."""
    one, data = sets.open(folder), sets.data
    wanted: dict[str, Any] = {"labels": data.labels}
    if data.protocol:
        wanted["protocol"] = sets.protocol._asdict()
    if data.first_pixel is not None and _has_ambiguous_origin(one.meta["dataset"]):
        wanted["origin"] = data.first_pixel
    if why := one.mismatch(**wanted):
        raise UserError(
            f"{why}; prepare it again from its raw folder, or give --protocol, --first-pixel and --labels as it was made"
        )
    _compare(sets, one)
    return one


class Meaning(NamedTuple):
    """What a name means.

    raw: the archive, None: only an earlier preparation names it. named: prepared sets of this name. wanted: values of
    meta.yaml that this run asks for. test_split: share of the faces of a user's own set that is the test.
    """

    name: str
    raw: Path | None
    named: list[PreparedSet]
    dataset: str | None
    wanted: dict[str, Any]
    test_split: float | None


def _meaning_of(sets: Sets, name: str, test: bool) -> Meaning:
    """Return what a name means. UserError if it means nothing, or several sets."""
    data, raw, named = sets.data, source_of(sets, name), _named(sets, name)
    dataset = name if name in dataset_rows() else infer(raw) if raw else named[0].meta["dataset"] if named else None
    test_split = data.test_split if name in data.training_sets else None
    wanted = {key: getattr(data, key) for key in ("margin", "target_size", "labels")}
    wanted["protocol"] = sets.protocol._asdict()
    if data.val not in ("test", "none") and not test:
        wanted["val"] = data.val
    if row := dataset_rows().get(str(dataset)):
        wanted |= {key: getattr(data, key) for key in row.options if not (test and key == "identity")}
        wanted["dataset"] = dataset
        if row.origin_is_ambiguous and data.first_pixel is not None:
            wanted["origin"] = data.first_pixel
        if row.layout is None and sets.layout:
            wanted["layout"] = sets.layouts.load(sets.layout).stored
    if raw:
        source, annotation = archive_and_labels(raw)
        wanted |= {"source": str(source.resolve()), "fingerprint": fingerprint(source)}
        if _has_own_layout(dataset):
            wanted |= {"annotation": annotation, "test_split": test_split}
            edited, known = edited_layout(sets.root, source, sets.layouts)
            if edited and not sets.layout:
                wanted |= {
                    "layout": edited,
                    "row": None if edited in sets.defaults.layouts.rows else known.rows[edited],
                }
    return Meaning(name, raw, named, dataset, wanted, test_split)


def find(sets: Sets, meaning: Meaning) -> PreparedSet | None:
    """Return the newest prepared set that was prepared as this run asks for; None if it has to be made."""
    name, raw = meaning.name, meaning.raw
    among = sets.prepared() if raw else meaning.named
    one = next((one for one in among if not one.mismatch(**meaning.wanted)), None)
    if one is None or (sets.overwrite and one.folder not in sets.made):
        return None
    if name == one.meta["source"] and not raw:
        logger.warning(f"{name} is gone; {one.folder}, which was prepared from it, is used as it is")
    elif not raw:
        _compare(sets, one)
    if sets.data.first_pixel is None and _said_first_pixel(one):
        logger.info(f"{one.folder}: pixels are counted from {one.meta['origin']:g}, as --first-pixel said before")
    return one


def make(sets: Sets, meaning: Meaning) -> PreparedSet:
    """Return the set that is prepared from the archive of a name, as this run asks for."""
    name, raw, data = meaning.name, meaning.raw, sets.data
    dataset, accepted = meaning.dataset, False  # accepted: it may be incomplete
    if name == SYNTHETIC:
        raw = _rendered(sets)
    elif raw:
        source = archive_and_labels(raw)[0]
        name = name if _is_benchmark(name) else source.resolve().name
    else:
        earlier = next((one for one in meaning.named if Path(one.meta["source"]).is_dir()), None)
        if earlier is None:
            raise UserError(_lacking(sets, meaning))
        source, dataset, name = Path(earlier.meta["source"]), earlier.meta["dataset"], set_name(earlier.folder)
        accepted = fingerprint(source) == earlier.meta["fingerprint"]  # what is missing was accepted then
        raw = source / (earlier.meta.get("annotation") or "")
    first_pixel = data.first_pixel
    if first_pixel is None and _has_ambiguous_origin(dataset):
        source = archive_and_labels(raw)[0].resolve()
        before = (one for one in sets.prepared() if one.meta["source"] == str(source) and _said_first_pixel(one))
        first_pixel = next((one.meta["origin"] for one in before), None)
        if first_pixel:
            logger.info(f"{raw}: pixels are counted from {first_pixel:g}, as --first-pixel said before")
    folder = DataGenerator(
        raw,
        dataset=dataset,
        name=name,
        out=sets.root,
        protocol=sets.protocol,
        allow_partial=data.allow_partial or accepted,
        layout=sets.layout if _has_own_layout(dataset) else None,
        layouts=sets.layouts,
        defaults=sets.defaults,
        first_pixel=first_pixel if _has_ambiguous_origin(dataset) else None,
        overwrite=sets.overwrite,
        **{key: getattr(data, key) for key in OPTIONS} | {"test_split": meaning.test_split},
    ).run()
    return sets.open(folder)


def training_names(settings: Settings, defaults: Defaults, only_benchmarks: bool = False) -> list[str]:
    """Return the names to train on: train_data, else the dataset.

    The dataset `auto` is the set in --data-dir. Without that flag it is 300w if that has been prepared in any way, and
    synthetic if no other set has been prepared, or if others do not count (`only_benchmarks`). UserError if only others
    have been prepared.
    """
    data, sets = settings.data, Sets(settings, defaults)
    if data.train_data:
        return data.train_data
    if data.dataset != "auto":
        return [data.dataset]
    if data.data_dir:
        raw = _raw_folder(data.data_dir)
        name = infer(raw)
        return [str(raw) if _has_own_layout(name) else name]
    real = [set_name(one.folder) for one in sets.prepared() if not one.synthetic]
    if real and "300w" not in real and not only_benchmarks:
        raise UserError(
            f"{sets.root} holds {', '.join(dict.fromkeys(real))}, but no 300w; give --dataset {real[0]}, or "
            f"--dataset {SYNTHETIC}"
        )
    return ["300w" if "300w" in real else SYNTHETIC]


def test_splits(sets: Sets) -> list[Split]:
    """Return the splits to test on: those of test_data, else of the training sets. UserError if there is no test split.

    The sets have been found or made.
    """
    data = sets.data
    named, trained = data.test_data, set(data.training_sets)
    chosen = {name: sets[name] for name in named or data.training_sets}
    splits = {}
    for name, one in chosen.items():
        apart = bool(named) and not {name, one.meta["source"], str(one.folder)} & trained
        splits[name] = test_split(one, apart)
    if without := [name for name, split in splits.items() if split is None and (named or not any(splits.values()))]:
        remedy = "or name other faces, since this net trains on these" if named else "or give --test-data"
        one = chosen[without[0]]
        if one.meta.get("test_split") and not one.meta.get("identities"):
            remedy += "; --test-split divides no identity: --identity picture makes each picture one"
        raise UserError(f"{one.folder} has no test split; put faces into a folder test/, {remedy}")
    return [splits[name] for name in named or splits if splits[name]]


def with_checksums(sets: Sets, checksums: list[str], states: list[str], val: float | str) -> list[PreparedSet]:
    """Return a prepared set for each of these checksums that one has, if possible with one of these states for `val`."""
    best_first = sorted(sets.prepared(), key=lambda one: not {*one.state(val)} & {*states})
    found = {one.checksum: one for one in reversed(best_first)}
    return [found[one] for one in checksums if one in found]


def log_ready(sets: Sets) -> None:
    """Log the sets that had been prepared before."""
    for folder in dict.fromkeys(sets.folders.values()):
        if folder not in sets.made:
            one = sets.open(folder)
            faces = ", ".join(f"{len(one.read(split))} {split}" for split in one.splits)
            logger.info(f"{folder} is prepared already: {faces} faces with {one.meta['count']} landmarks")


def log_unused(sets: Sets) -> None:
    """Log the sets in `root` that were not used for 30 days or were moved aside, and how to delete them."""
    found = []
    for file in (*sets.root.glob("[!.]*/meta.yaml"), *sets.root.glob(f"{UNLABELLED}/*/meta.yaml")):
        with suppress(UserError, OSError):
            one = sets.open(file.parent)
            if ASIDE.search(one.folder.name) or time.time() - one.last_use > UNUSED:
                found.append(str(one.folder))
    if found:
        logger.info(f"sets that were not used for 30 days; to delete them: rm -r {shlex.join(sorted(found))}")


# --------------------------------------------------------------------------------------------------- meanings of names
def source_of(sets: Sets, name: str) -> Path | None:
    """Return the raw archive of a set; None if only the meta.yaml of an earlier preparation names it."""
    data = sets.data
    if name == SYNTHETIC:
        return None
    if name in dataset_rows():
        raw = _raw_folder(data.data_dir) if data.data_dir else None
        chosen = name == data.dataset
        if raw is None or (chosen and _has_own_layout(name)):
            return raw
        if found := rooms.datasets.archive_of(name, raw):
            return found
        return None if _named(sets, name) and not chosen else raw
    if Path(name).exists():
        return Path(name)
    if not _named(sets, name):
        dataset_of(name, sets.root)  # an unknown name is an error
    return None


def _named(sets: Sets, name: str) -> list[PreparedSet]:
    """Return the prepared sets of a name: of a dataset, of a folder with its hash or without, of a raw folder.

    UserError if they were prepared from several raw folders of that name.
    """
    if name == SYNTHETIC:
        folder = _rendered_folder(sets)
        return [one for one in sets.prepared() if Path(one.meta["source"]).name == folder.name]
    found = [one for one in sets.prepared() if name in (one.folder.name, set_name(one.folder), one.meta["source"])]
    if _is_benchmark(name):
        return [one for one in found if one.meta["dataset"] == name]
    if len(sources := sorted({one.meta["source"] for one in found})) > 1:
        raise UserError(f"'{name}' may mean the sets of {' and '.join(sources)}; name one by its path")
    return found


def _compare(sets: Sets, one: PreparedSet) -> None:
    """Warn if the archive has changed from which a set was prepared that is used as it is."""
    source = Path(str(one.meta["source"]))
    used = one.folder in sets.folders.values()  # then this has been said
    if not used and source.is_dir() and one.meta.get("fingerprint") != fingerprint(source):
        logger.warning(
            f"{source} has changed since {one.folder} was prepared from it, which is used as it is; to prepare it "
            "again, name the first folder, for a named set by --data-dir"
        )


def _lacking(sets: Sets, meaning: Meaning) -> str:
    """Return why a set cannot be prepared, and how an earlier one can be used as it is, if there is any."""
    if not meaning.named:
        return f"{meaning.name} has not been prepared in {sets.root}; name the unpacked archive: --data-dir FOLDER"
    one = meaning.named[0]
    return (
        f"{one.mismatch(**meaning.wanted) or one.folder}, and its archive {one.meta['source']} is gone; name the unpacked "
        f"archive: --data-dir FOLDER, or name that set as it is, instead of {meaning.name}: {one.folder}"
    )


def _rendered_folder(sets: Sets) -> Path:
    """Return the folder of rendered faces."""
    data = sets.data
    return sets.root / f"synthetic-raw{rooms.synthetic.VERSION}-{data.synthetic_train}-{data.synthetic_test}"


def _rendered(sets: Sets) -> Path:
    """Return the folder of rendered faces, which looks like 300W. Render them if they are missing."""
    folder = _rendered_folder(sets)
    if not folder.is_dir():
        train, test = sets.data.synthetic_train, sets.data.synthetic_test
        logger.info(f"rendering {train} + {test} synthetic faces into {folder}")
        rooms.synthetic.generate(folder, train, test)
    return folder


def meanface(sets: Sets, name: str | None, layout: Layout, faces: Faces) -> np.ndarray:
    """Return the mean face (N, 2), in [0, 1] of the crop, that defines the neighbors.

    name: --meanface; None: that of `faces`. UserError if its number of landmarks is neither that of `layout` nor that of
    the layout that `layout` is a subset of.
    """
    if name is None:
        return faces.meanface()
    file = Path(name)
    if file.suffix in MEANFACE_FILES:
        points = read_meanface(file)
    elif (file / "meta.yaml").is_file():
        points = sets.open(file).meanface()
    else:
        points = sets.with_sets([name])[name].meanface()
    if np.abs(points - 0.5).max(initial=0) > FARTHEST:
        raise UserError(
            f"--meanface {file} has numbers up to {np.abs(points).max():.4g}; give shares of the crop, 0 to 1"
        )
    if not isinstance(layout, Union) and len(points) == sets.layouts.load(layout.stored).count:
        points = points[list(layout.selected)]
    if len(points) != layout.count or not np.isfinite(points).all():
        raise UserError(
            f"--meanface {file} has {len(points)} landmarks, not the {layout.count} of layout {layout.name}"
        )
    return points


def read_meanface(file: Path) -> np.ndarray:
    """Return the points (N, 2) in a file of numbers x y x y ..., text or .npy. UserError if it holds something else."""
    try:
        if file.suffix == ".npy":
            numbers = np.lib.format.open_memmap(file, mode="r")  # which reads no more than the file has
        else:
            with open(file, encoding="ascii") as handle:
                numbers = handle.read(MOST_TEXT).split()
        if np.size(numbers) > 2 * MOST_LANDMARKS:
            raise ValueError(f"more than {MOST_LANDMARKS} landmarks")
        return np.array(numbers, np.float64).reshape(-1, 2)
    except (OSError, EOFError, ValueError, OverflowError, TypeError, TokenError) as error:
        raise UserError(f"the mean face {file} holds no numbers x y x y ... ({error})") from None


def _said_first_pixel(one: PreparedSet) -> bool:
    """Return whether --first-pixel told the origin of a set. Published labels are read without one."""
    return _has_ambiguous_origin(one.meta["dataset"]) and bool(one.meta["origin"]) and one.meta["labels"] != "published"


def _has_ambiguous_origin(dataset: str | None) -> bool:
    """Return whether users say where the first pixel is in the files of a dataset."""
    row = dataset_rows().get(str(dataset))
    return row is not None and row.origin_is_ambiguous


def _has_own_layout(dataset: str | None) -> bool:
    """Return whether a dataset is of users' own sets, which may have any layout and are named after their folder."""
    row = dataset_rows().get(str(dataset))
    return row is not None and row.layout is None


def _is_benchmark(name: str) -> bool:
    """Return whether a name is that of a dataset whose sets are named after it."""
    return name in dataset_rows() and not _has_own_layout(name)


def _raw_folder(text: str) -> Path:
    if not Path(text).is_dir():
        raise UserError(f"no folder {text}; give the folder that holds the unpacked dataset")
    return Path(text)


def test_names(sets: list[PreparedSet]) -> list[str]:
    """Return the names by which any run is tested on these sets: datasets or raw archives, so that it can have other crops."""
    names = []
    for one in sets:
        name, source = set_name(one.folder), Path(one.meta["source"])
        names.append(name if name == one.meta["dataset"] else str(source if source.is_dir() else one.folder))
    return names


def check_same_protocol(one: PreparedSet, protocol: dict) -> None:
    """Raise UserError if a set was cut by another protocol than the net's training crops."""
    if (found := one.meta["protocol"]) != protocol:
        raise UserError(
            f"{one.folder} was cut with protocol {found}, but the net was trained with {protocol}; give --protocol"
        )


def title_for(one: PreparedSet, net: Layout, compared: Layout) -> str:
    """Return the set's name for tables. It names the layouts if those of the set, the net and the comparison differ."""
    if net.stored == one.meta["layout"]:
        return one.title
    if isinstance(net, Union):
        return f"{one.title}, as {compared.name}"
    if compared is not net:
        return f"{one.title}, net {net.name} as {compared.name}"
    return f"{one.title}, {one.meta['layout']} as {net.name}"


def distinct(names: list[str]) -> list[str]:
    """Return the names; repeated ones get a number from 2 on."""
    found: list[str] = []
    for name in names:
        numbered = (f"{name}-{number}" for number in count(2))
        found.append(name if name not in found else next(new for new in numbered if new not in found))
    return found
