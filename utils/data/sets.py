"""Finds the prepared sets that names on the command line mean.
A set that is missing, or has other settings, is prepared.
"""

import shlex
import time
from contextlib import suppress
from itertools import count
from pathlib import Path
from tokenize import TokenError  # of a damaged .npy
from typing import Any

import numpy as np
from loguru import logger

from pipnet.errors import UserError
from pipnet.files import DAY
from pipnet.layout import MOST_LANDMARKS, Layout
from utils.data.faces import Faces
from utils.data.fingerprint import fingerprint
from utils.data.makers import SYNTHETIC, dataset_rows, infer
from utils.data.new_folder import ASIDE
from utils.data.paths import (
    MEANFACE_FILES,
    archive_and_labels,
    dataset_of,
    edited_layout,
    prepared_folders,
    set_name,
)
from utils.data.prepare import DataGenerator
from utils.data.prepared_set import UNLABELLED, PreparedSet, Split, test_split
from utils.settings.config import ROOT, Defaults, Settings, load_protocol
from utils.settings.extras import extra
from utils.settings.layouts import Layouts

MOST_BYTES = 1 << 22  # of a mean face as text
UNUSED = 30 * DAY  # after so many seconds a set is named as one that may be removed
FARTHEST = 2.0  # share of the crop; a mean face has no landmark so far from the crop's centre


class SetFinder:
    """Prepared sets by name, for one run.

    defaults: args.yaml. overwrite: prepare sets anew, and move those that are there aside. root: folder where sets are
    prepared. trained: another folder, whose sets are only read, see `Settings.trained_root`.
    """

    def __init__(self, settings: Settings, defaults: Defaults, overwrite: bool = False):
        self.data, self.protocols = settings.data, settings.protocols
        self.layouts = Layouts(
            {**settings.layouts.rows}
        )  # one table for all sets; those of own sets join it when they are used
        self.defaults, self.overwrite = defaults, overwrite
        self.protocol = load_protocol(self.protocols, self.data.protocol or "square")
        self.layout = (
            None if self.layouts.is_union(self.data.layout) else self.data.layout
        )  # of own sets; None: their own
        self.root, self.trained = ROOT / self.data.data_root, settings.trained_root
        self.compared: set[Path] = set()  # folders whose archives have been compared with them
        self.made: set[Path] = set()  # folders that were written by this object
        self.used: dict[Path, PreparedSet] = {}  # sets that `prepare` has returned, by their folders
        self.opened: dict[
            tuple[Path, int], PreparedSet
        ] = {}  # by folder and time of its meta.yaml, so each is read once

    def training_names(self, only_benchmarks: bool = False) -> list[str]:
        """Return the names to train on: train_data, else the dataset.

        The dataset `auto` is the set in --data-dir. Without that flag it is 300w if that has been prepared in any way,
        and synthetic if no other set has been prepared, or if others do not count (`only_benchmarks`). UserError if
        only others have been prepared.
        """
        if self.data.train_data:
            return self.data.train_data
        if self.data.dataset != "auto":
            return [self.data.dataset]
        if self.data.data_dir:
            raw = _raw_folder(self.data.data_dir)
            name = infer(raw)
            return [str(raw) if _has_own_layout(name) else name]
        real = [set_name(one.folder) for one in self._prepared() if not one.synthetic]
        if real and "300w" not in real and not only_benchmarks:
            raise UserError(
                f"{self.root} holds {', '.join(dict.fromkeys(real))}, but no 300w; give --dataset {real[0]}, or "
                f"--dataset {SYNTHETIC}"
            )
        return ["300w" if "300w" in real else SYNTHETIC]

    def _prepared(self) -> list[PreparedSet]:
        """Return the prepared sets, the newest first; those of `trained` before those of `root`."""
        found = []
        for root in dict.fromkeys(filter(None, (self.trained, self.root))):
            for folder in prepared_folders(root):
                with suppress(
                    UserError, FileNotFoundError
                ):  # a damaged one, one of another format, one that is removed
                    found.append(self._opened(folder))
        return found

    def _opened(self, folder: Path) -> PreparedSet:
        """Return the prepared set in a folder, which is read again only if it was written again."""
        key = folder, (folder / "meta.yaml").stat().st_mtime_ns
        if key not in self.opened:
            self.opened[key] = PreparedSet(folder, self.layouts, self._drawn(folder))
        return self.opened[key]

    def log_ready(self) -> None:
        """Log the sets that were used and had been prepared before."""
        for folder, one in self.used.items():
            if folder not in self.made:
                faces = ", ".join(f"{len(one.read(split))} {split}" for split in one.splits)
                logger.info(f"{folder} is prepared already: {faces} faces with {one.meta['count']} landmarks")

    def log_unused(self) -> None:
        """Log the sets in `root` that were not used for 30 days or were moved aside, and how to delete them."""
        found = []
        for file in (*self.root.glob("[!.]*/meta.yaml"), *self.root.glob(f"{UNLABELLED}/*/meta.yaml")):
            with suppress(UserError, OSError):
                one = PreparedSet(file.parent, self.layouts)
                if ASIDE.search(one.folder.name) or time.time() - one.last_use > UNUSED:
                    found.append(str(one.folder))
        if found:
            logger.info(f"sets that were not used for 30 days; to delete them: rm -r {shlex.join(sorted(found))}")

    def with_checksums(self, checksums: list[str], states: list[str], val: float | str) -> list[PreparedSet]:
        """Return a prepared set for each of these checksums that one has, if possible with one of these states for `val`."""
        best_first = sorted(self._prepared(), key=lambda one: not {*one.state(val)} & {*states})
        found = {one.checksum: one for one in reversed(best_first)}
        return [found[one] for one in checksums if one in found]

    def training(self) -> list[PreparedSet]:
        """Return the training sets, prepared if need be."""
        return [self.prepare(name) for name in self.data.train_data]

    def test_splits(self) -> list[Split]:
        """Return the splits to test on: those of test_data, else of the training sets.
        UserError if there is no test split.
        """
        named, trained = self.data.test_data, set(self.data.train_data or ())
        sets = {name: self.prepare(name, test=True) for name in named or self.data.train_data}
        apart = {
            name for name, one in sets.items() if named and not {name, one.meta["source"], str(one.folder)} & trained
        }
        splits = {name: test_split(one, name in apart) for name, one in sets.items()}
        if without := [name for name, split in splits.items() if split is None and (named or not any(splits.values()))]:
            remedy = "or name other faces, since this net trains on these" if named else "or give --test-data"
            one = sets[without[0]]
            if one.meta.get("test_split") and not one.meta.get("identities"):
                remedy += "; --test-split divides no identity: --identity picture makes each picture one"
            raise UserError(f"{one.folder} has no test split; put faces into a folder test/, {remedy}")
        return [splits[name] for name in named or sets if splits[name]]

    def prepare(self, name: str, test: bool = False) -> PreparedSet:
        """Return the prepared set that a name means: a dataset, a prepared or a raw folder.
        Prepare it if it is missing.

        test: only the test split is needed, so the share of validation faces does not matter. UserError for unknown
        names.
        """
        named = (Path(name) / "meta.yaml").is_file()
        one = self._as_it_is(Path(name)) if named else self._found_or_made(name, test)
        if one.folder.resolve().is_relative_to(self.root.resolve()):
            one.touch()
        if "row" in one.meta:
            self.layouts.rows.setdefault(one.meta["layout"], one.meta["row"])
        self.used[one.folder] = one
        return one

    def _as_it_is(self, folder: Path) -> PreparedSet:
        """Return the prepared set in a folder. UserError if it was prepared otherwise than this run asks for."""
        one = PreparedSet(folder, self.layouts, self._drawn(folder))
        wanted: dict[str, Any] = {"labels": self.data.labels}
        if self.data.protocol:
            wanted["protocol"] = self.protocol._asdict()
        if self.data.first_pixel is not None and _has_ambiguous_origin(one.meta["dataset"]):
            wanted["origin"] = self.data.first_pixel
        if why := one.mismatch(**wanted):
            raise UserError(
                f"{why}; prepare it again from its raw folder, or give --protocol, --first-pixel and --labels as "
                "it was made"
            )
        self._compare(one)
        return one

    def _drawn(self, folder: Path) -> Path | None:
        """Return the folder for pictures of a prepared set. None: its own, unless only a trained run names the set."""
        foreign = self.trained and not folder.resolve().is_relative_to(self.root.resolve())
        return self.root / "show" / folder.name if foreign else None

    def _found_or_made(self, name: str, test: bool) -> PreparedSet:
        """Return the newest set of that name that was prepared as this run asks for, or prepare it from its archive."""
        raw, named = self._source(name), self._named(name)
        dataset = name if name in dataset_rows() else infer(raw) if raw else named[0].meta["dataset"] if named else None
        test_split = self.data.test_split if name in (self.data.train_data or ()) else None
        wanted = self._wanted(dataset, test)
        if raw:
            source, annotation = archive_and_labels(raw)
            wanted |= {"source": str(source.resolve()), "fingerprint": fingerprint(source)}
            if _has_own_layout(dataset):
                wanted |= {"annotation": annotation, "test_split": test_split, **self._edited_layout(source)}
        fits = [one for one in (self._prepared() if raw else named) if not one.mismatch(**wanted)]
        if fits and (not self.overwrite or fits[0].folder in self.made):
            one = fits[0]
            if name == one.meta["source"] and not raw:
                logger.warning(f"{name} is gone; {one.folder}, which was prepared from it, is used as it is")
            elif not raw:
                self._compare(one)
            if self.data.first_pixel is None and _said_first_pixel(one):
                logger.info(
                    f"{one.folder}: pixels are counted from {one.meta['origin']:g}, as --first-pixel said before"
                )
            return one
        if name == SYNTHETIC:
            return self._made(self._rendered(), name, name)
        if raw:
            return self._made(raw, dataset, name if _is_benchmark(name) else source.resolve().name, False, test_split)
        earlier = next((one for one in named if Path(one.meta["source"]).is_dir()), None)
        if not earlier:
            raise UserError(self._lacking(name, named, wanted))
        archive = Path(earlier.meta["source"])
        accepted = fingerprint(archive) == earlier.meta["fingerprint"]  # what is missing was accepted then
        archive = archive / (earlier.meta.get("annotation") or "")
        return self._made(archive, earlier.meta["dataset"], set_name(earlier.folder), accepted, test_split)

    def _edited_layout(self, source: Path) -> dict[str, Any]:
        """Return the layout and its row that a prepared own set must have, by its `layout_file`; {} without one, and if
        --layout says which layout it has.
        """
        name, known = (None, self.layouts) if self.layout else edited_layout(self.root, source, self.layouts)
        if not name:
            return {}
        self.layouts.rows.update(known.rows)
        return {"layout": name, "row": None if name in self.defaults.layouts.rows else known.rows[name]}

    def _made(
        self, raw: Path, dataset: str | None, name: str, accepted: bool = False, test_split: float | None = None
    ) -> PreparedSet:
        """Prepare an archive, a folder or a file of labels, as this run asks for. accepted: it may be incomplete."""
        data = self.data
        first_pixel = self._first_pixel(dataset, archive_and_labels(raw)[0])
        if first_pixel and data.first_pixel is None:
            logger.info(f"{raw}: pixels are counted from {first_pixel:g}, as --first-pixel said before")
        folder = DataGenerator(
            raw,
            data.target_size,
            dataset,
            name,
            self.root,
            self.protocol,
            data.margin,
            0 if data.val == "none" else data.val,
            data.allow_partial or accepted,
            self.layout if _has_own_layout(dataset) else None,
            self.layouts,
            self.defaults,
            frame_step=data.frame_step,
            identity=data.identity,
            first_pixel=first_pixel,
            labels=data.labels,
            overwrite=self.overwrite,
            test_split=test_split,
        ).run()
        self.made.add(folder)
        return PreparedSet(folder, self.layouts)

    def _wanted(self, dataset: str | None, test: bool) -> dict[str, Any]:
        """Return the values of meta.yaml that a prepared set must have so that this run can use it."""
        data, row = self.data, dataset_rows().get(str(dataset))
        wanted = {
            "protocol": self.protocol._asdict(),
            "margin": data.margin,
            "target_size": data.target_size,
            "labels": data.labels,
        }
        if data.val not in ("test", "none") and not test:
            wanted["val"] = data.val
        if row:
            wanted |= {"dataset": dataset}
            wanted |= {key: getattr(data, key) for key in row.options if not (test and key == "identity")}
        if row and row.origin_is_ambiguous and data.first_pixel is not None:
            wanted["origin"] = data.first_pixel
        if _has_own_layout(dataset) and self.layout:
            wanted["layout"] = self.layouts.load(self.layout).stored
        return wanted

    def _named(self, name: str) -> list[PreparedSet]:
        """Return the prepared sets of a name: of a dataset, of a folder with its hash or without, of a raw folder.

        UserError if they were prepared from several raw folders of that name.
        """
        if name == SYNTHETIC:
            return [one for one in self._prepared() if Path(one.meta["source"]).name == self._rendered_name]
        found = [one for one in self._prepared() if name in (one.folder.name, set_name(one.folder), one.meta["source"])]
        if _is_benchmark(name):
            return [one for one in found if one.meta["dataset"] == name]
        if len(sources := sorted({one.meta["source"] for one in found})) > 1:
            raise UserError(f"'{name}' may mean the sets of {' and '.join(sources)}; name one by its path")
        return found

    def _compare(self, one: PreparedSet) -> None:
        """Warn if the archive has changed from which a set was prepared that is used as it is."""
        source = Path(str(one.meta["source"]))
        if one.folder in self.compared or not source.is_dir():
            return
        self.compared.add(one.folder)
        if one.meta.get("fingerprint") != fingerprint(source):
            logger.warning(
                f"{source} has changed since {one.folder} was prepared from it, which is used as it is; to prepare it "
                "again, name the first folder, for a named set by --data-dir"
            )

    def _first_pixel(self, dataset: str | None, raw: Path) -> float | None:
        """Return the coordinate of the first pixel in an own set: the one given now, else when `raw` was prepared
        before. None: the default.
        """
        if not _has_ambiguous_origin(dataset):
            return None
        if self.data.first_pixel is not None:
            return self.data.first_pixel
        earlier = (one for one in self._prepared() if one.meta["source"] == str(raw.resolve()))
        return next((one.meta["origin"] for one in earlier if _said_first_pixel(one)), None)

    def _lacking(self, name: str, named: list[PreparedSet], wanted: dict[str, Any]) -> str:
        """Return why a set cannot be prepared, with flags that use an earlier one as it is, if any can do that."""
        if not named:
            return f"{name} has not been prepared in {self.root}; name the unpacked archive: --data-dir FOLDER"
        one = named[0]
        flags = " ".join(self._flags(one.meta, wanted))
        return (
            f"{one.mismatch(**wanted) or one.folder}, and its archive {one.meta['source']} is gone; name the unpacked "
            "archive: --data-dir FOLDER" + (f", or take that set as it is: {flags}" if flags else "")
        )

    def _flags(self, meta: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
        """Return the flags with which this run can use a prepared set as it is; [] if no flags can do that."""
        found = {key: meta.get(key) for key, value in wanted.items() if meta.get(key) != value}
        if "protocol" in found:
            found["protocol"] = next((name for name, row in self.protocols.items() if row == meta["protocol"]), None)
        names = {key: {"origin": "first-pixel"}.get(key, key.replace("_", "-")) for key in found}
        return [] if None in found.values() else [f"--{names[key]} {value}" for key, value in found.items()]

    def _source(self, name: str) -> Path | None:
        """Return the raw archive of a set; None if only the meta.yaml of an earlier preparation names it."""
        if name == SYNTHETIC:
            return None
        if name in dataset_rows():
            raw = _raw_folder(self.data.data_dir) if self.data.data_dir else None
            chosen = name == self.data.dataset
            if raw is None or (chosen and _has_own_layout(name)):
                return raw
            if found := extra("datasets").archive_of(name, raw):
                return found
            return None if self._named(name) and not chosen else raw
        if Path(name).exists():
            return Path(name)
        if not self._named(name):
            dataset_of(name, self.root)  # an unknown name is an error
        return None

    @property
    def _rendered_name(self) -> str:
        """Return the name of the folder of rendered faces."""
        return f"synthetic-raw{extra('synthetic').VERSION}-{self.data.synthetic_train}-{self.data.synthetic_test}"

    def _rendered(self) -> Path:
        """Return the folder of rendered faces, which looks like 300W. Render them if they are missing."""
        folder = self.root / self._rendered_name
        if not folder.is_dir():
            train, test = self.data.synthetic_train, self.data.synthetic_test
            logger.info(f"rendering {train} + {test} synthetic faces into {folder}")
            extra("synthetic").generate(folder, train, test)
        return folder

    def meanface(self, name: str | None, layout: Layout, faces: Faces) -> np.ndarray:
        """Return the mean face (N, 2), in [0, 1] of the crop, that defines the neighbors.

        name: --meanface; None: that of `faces`. UserError if its number of landmarks is neither that of `layout` nor
        that of the layout that `layout` is a subset of.
        """
        if name is None:
            return faces.meanface()
        file = Path(name)
        if file.suffix in MEANFACE_FILES:
            points = read_meanface(file)
        else:
            named = (file / "meta.yaml").is_file()
            points = (PreparedSet(file, self.layouts) if named else self.prepare(name)).meanface()
        if np.abs(points - 0.5).max(initial=0) > FARTHEST:
            raise UserError(
                f"--meanface {file} has numbers up to {np.abs(points).max():.4g}; give shares of the crop, 0 to 1"
            )
        if not layout.members and len(points) == self.layouts.load(layout.stored).count:
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
                numbers = handle.read(MOST_BYTES).split()
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


def test_flags(sets: list[PreparedSet], data_root: str) -> str:
    """Return flags that test a run on these sets.
    They name datasets or raw archives, so that the run can have other crops.

    data_root: that of args.yaml.
    """
    names, root = [], sets[0].folder.resolve().parent
    for one in sets:
        name, source = set_name(one.folder), Path(one.meta["source"])
        names.append(name if name == one.meta["dataset"] else str(source if source.is_dir() else one.folder))
    other = "" if root == (ROOT / data_root).resolve() else f" --data-root {shlex.quote(str(root))}"
    return f"--test-data {shlex.join(names)}{other}"


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
