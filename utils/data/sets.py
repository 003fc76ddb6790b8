"""Finds the prepared sets that names on the command line mean.
A set that is missing, or has other settings, is prepared.
"""

import hashlib
import os
import shlex
from contextlib import nullcontext, suppress
from itertools import count
from pathlib import Path
from tokenize import TokenError  # of a damaged .npy
from typing import Any

import numpy as np
from loguru import logger

from extras.datasets import DATASETS, infer
from pipnet.errors import UserError
from pipnet.layout import MOST_LANDMARKS, Layout
from utils.data.faces import Faces
from utils.data.fingerprint import fingerprint
from utils.data.locks import waiting
from utils.data.partial_folders import remove_abandoned
from utils.data.paths import MEANFACE_FILES, dataset_of, prepared
from utils.data.prepare import DataGenerator, gssl_crop
from utils.data.prepared_set import SYNTHETIC, PreparedSet, Split, fitting, test_split
from utils.settings.config import ROOT, Defaults, Settings, load_protocol
from utils.settings.yaml_files import read_yaml

MOST_BYTES = 1 << 22  # of a mean face as text
FARTHEST = 2.0  # share of the crop; a mean face has no landmark so far from the crop's centre
# {set: the set whose archive holds it too}
HOSTS = {"cofw68": "cofw", "celeba-wild": "celeba", "300w-private": "300w", "menpo-profile": "menpo"}


class Sets:
    """Prepared sets by name, for one run.

    defaults: args.yaml; a set that is prepared with other values has these in its folder's name. root: folder where
    sets are prepared. trained: another folder, whose sets are only read, see `Settings.trained_root`.
    """

    def __init__(self, settings: Settings, defaults: Defaults, overwrite: bool = False):
        self.data, self.layouts, self.protocols, self.defaults = (
            settings.data,
            settings.layouts,
            settings.protocols,
            defaults,
        )
        self.protocol = load_protocol(self.protocols, self.data.protocol or "square")
        self.layout = (
            None if self.layouts.is_union(self.data.layout) else self.data.layout
        )  # of own sets; None: their own
        self.root, self.trained = ROOT / self.data.data_root, settings.trained_root
        self.overwrite = overwrite  # a prepared set even if its archive is gone
        self.compared: set[Path] = set()  # folders whose archives have been compared with them

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
        real = [_dataset_or_folder(folder, meta) for folder, meta in self._prepared() if meta["dataset"] != SYNTHETIC]
        if real and "300w" not in real and not only_benchmarks:
            raise UserError(
                f"{self.root} holds {', '.join(dict.fromkeys(real))}, but no 300w; give --dataset {real[0]}, or "
                f"--dataset {SYNTHETIC}"
            )
        return ["300w" if "300w" in real else SYNTHETIC]

    def _prepared(self) -> list[tuple[Path, dict[str, Any]]]:
        """Return (folder, values of meta.yaml) of the prepared sets, also of those of an older format."""
        found = []
        for root in filter(None, (self.root, self.trained)):
            for file in sorted(root.glob("[!.]*/meta.yaml")):
                with suppress(UserError):  # a damaged one
                    found.append((file.parent, read_yaml(file)))
        return [(folder, meta) for folder, meta in found if "dataset" in meta]

    def with_checksums(self, checksums: list[str]) -> list[PreparedSet]:
        """Return a prepared set for each of these checksums that one has."""
        folders = {meta.get("checksum"): folder for folder, meta in self._prepared()}
        found = (fitting(folders[one], self.layouts)[0] for one in checksums if one in folders)
        return [one for one in found if one]

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
            raise UserError(f"{sets[without[0]].folder} has no test split; put faces into a folder test/, {remedy}")
        return [splits[name] for name in named or sets if splits[name]]

    def prepare(self, name: str, test: bool = False) -> PreparedSet:
        """Return the prepared set that a name means: a dataset, a prepared or a raw folder.
        Prepare it if it is missing.

        test: only the test split is needed, so the share of validation faces does not matter. UserError for unknown
        names.
        """
        if (Path(name) / "meta.yaml").is_file():
            one = PreparedSet(Path(name), self.layouts, self._drawn(Path(name)))  # another format is refused first
            wanted = {
                "labels": self.data.labels,
                "protocol": self.data.protocol and self.protocol,
                "origin": self._first_pixel(dataset_of(name, self.root)),
            }
            wanted = {key: value for key, value in wanted.items() if value is not None}
            if why := one.mismatch(**wanted):
                raise UserError(
                    f"{why}; prepare it again from its raw folder, or give --protocol, --first-pixel and --labels as "
                    "it was made"
                )
            self._compare(one)
            return one
        if Path(name).is_absolute() and not Path(name).exists() and (one := self._made_from(name, test)):
            return one
        if name != SYNTHETIC:
            self._source(name, self.root)  # a missing archive is an error before anything is made
        if self.trained:
            raw = self._source(name, self.trained)
            for folder in self._places(name, raw, self.trained):
                one, why = fitting(folder, self.layouts, self._drawn(folder), **self._wanted(name, raw, test))
                if not why:
                    return one
        frozen = self.root.is_dir() and not os.access(self.root, os.W_OK)
        try:
            with nullcontext() if frozen else waiting(self.root / ".lock"):
                if not frozen:
                    remove_abandoned(self.root)
                return self._prepare(name, test)
        except OSError as error:
            raise UserError(
                f"{error.filename or self.root}: {error.strerror or error}; give another --data-root"
            ) from None

    def _made_from(self, raw: str, test: bool) -> PreparedSet | None:
        """Return the set that was prepared from a raw folder that is gone, so that runs on it go on; None if there is
        none.
        """
        for folder, meta in self._prepared():
            if meta.get("source") == raw:
                one, why = fitting(folder, self.layouts, self._drawn(folder), **self._wanted(raw, None, test))
                if not why:
                    logger.warning(f"{raw} is gone; {folder}, which was prepared from it, is used as it is")
                    return one
        return None

    def _drawn(self, folder: Path) -> Path | None:
        """Return the folder for pictures of a prepared set. None: its own, unless only a trained run names the set."""
        foreign = self.trained and not folder.resolve().is_relative_to(self.root.resolve())
        return self.root / "show" / folder.name if foreign else None

    def _dataset(self, name: str, raw: Path | None) -> str | None:
        """Return the row of DATASETS for a set's name or raw folder; None if neither tells it."""
        return name if name in DATASETS else infer(raw) if raw else None

    def _wanted(self, name: str, raw: Path | None, test: bool) -> dict[str, Any]:
        """Return the values of meta.yaml that a prepared set must have so that this run can use it."""
        data, dataset = self.data, self._dataset(name, raw)
        wanted = {
            "protocol": self.protocol,
            "margin": data.margin,
            "target_size": data.target_size,
            "labels": data.labels,
            **gssl_crop(dataset, self.protocol, self.protocols),
        }
        if data.val not in ("test", "none") and not test:
            wanted["val"] = data.val
        options = DATASETS[dataset].options if dataset else ()
        wanted |= {key: getattr(data, key) for key in options if not (test and key == "identity")}
        wanted |= {"dataset": name} if _is_benchmark(name) else {}  # a user's own set may be in its place
        if raw:
            wanted |= {"source": str(raw.resolve()), "fingerprint": fingerprint(raw)}
        wanted |= {} if (first := self._first_pixel(dataset)) is None else {"origin": first}
        return wanted | (
            {"layout": self.layouts.load(self.layout).stored} if _has_own_layout(dataset) and self.layout else {}
        )

    def _places(self, name: str, raw: Path | None, root: Path) -> tuple[Path, Path]:
        """Return the two folders below `root` that may hold the prepared set. If it is missing, the second one is made."""
        target = root / self._folder_name(name if _is_benchmark(name) or not raw else raw.resolve().name)
        return root / name, _free_folder(target, raw) if raw and name not in DATASETS else target

    def _prepare(self, name: str, test: bool) -> PreparedSet:
        data, raw = self.data, self._source(name, self.root)
        dataset, wanted = self._dataset(name, raw), self._wanted(name, raw, test)
        named, target = self._places(name, raw, self.root)
        for folder in (named, target):
            one, why = fitting(folder, self.layouts, **wanted)
            if not why:
                if raw is None:
                    self._compare(one)
                if data.first_pixel is None and one.meta.get("origin") and _said_first_pixel(one.meta):
                    logger.info(
                        f"{folder}: pixels are counted from {one.meta['origin']:g}, as --first-pixel said before"
                    )
                return one
        for folder, meta in self._prepared() if _is_benchmark(name) else ():
            if folder in (named, target) and _has_own_layout(meta["dataset"]):
                raise UserError(
                    f"{folder} holds a set of your own and not {DATASETS[name].title}; name its folder "
                    f"({meta.get('source')}) if you mean it, else rename {folder}"
                )
        allow_partial = data.allow_partial
        if raw is None:
            raw, meta = self._earlier(name, target, why, {} if test else wanted)
            dataset = meta["dataset"]
            allow_partial |= fingerprint(raw) == meta.get("fingerprint")  # what is missing was accepted then
        logger.info(f"preparing {target.name} from {raw} ({why})")
        first_pixel = self._first_pixel(dataset, raw)
        if first_pixel and data.first_pixel is None:
            logger.info(f"{raw}: pixels are counted from {first_pixel:g}, as --first-pixel said before")
        made = DataGenerator(
            raw,
            data.target_size,
            dataset,
            target.name,
            target.parent,
            self.protocol,
            data.margin,
            0 if data.val == "none" else data.val,
            allow_partial,
            self.layout if _has_own_layout(dataset) else None,
            self.layouts,
            self.defaults,
            frame_step=data.frame_step,
            identity=data.identity,
            first_pixel=first_pixel,
            labels=data.labels,
            overwrite=self.overwrite,
        ).run()
        return PreparedSet(made, self.layouts)

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

    def _first_pixel(self, dataset: str | None, raw: Path | None = None) -> float | None:
        """Return the coordinate of the first pixel in an own set: the one given now, else when `raw` was prepared
        before. None: the default.
        """
        if dataset is None or not DATASETS[dataset].countable:
            return None
        earlier = (
            meta["origin"]
            for _, meta in self._prepared()
            if raw and meta.get("source") == str(raw.resolve()) and _said_first_pixel(meta)
        )
        return next(earlier, None) if self.data.first_pixel is None else self.data.first_pixel

    def _earlier(self, name: str, target: Path, why: str, wanted: dict[str, Any]) -> tuple[Path, dict[str, Any]]:
        """Return the raw archive of an earlier preparation of the set, with any protocol and size, and its meta.yaml's
        values.

        UserError if the archive is gone; it names flags with which the earlier folder can be used. wanted: needed
        values of meta.yaml.
        """
        places = [target, target.with_name(name)]
        found = [
            (folder, meta)
            for folder, meta in self._prepared()
            if folder in places or _dataset_or_folder(folder, meta) == name
        ]
        found.sort(key=lambda pair: pair[0] not in places)
        for _, meta in found:
            if Path(str(meta.get("source"))).is_dir():
                return Path(meta["source"]), meta
        if not found:
            raise UserError(f"{why}; name the unpacked archive: --data-dir FOLDER")
        folder, meta = found[0]
        flags = " ".join(self._flags(meta, wanted))
        raise UserError(
            f"{why}, and {meta.get('source')}, from which {folder} was made, is gone; name the unpacked archive: "
            "--data-dir FOLDER" + (f", or take that set as it is: {flags}" if flags else "")
        )

    def _flags(self, meta: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
        """Return the flags with which this run can use a prepared set as it is; [] if no flags can do that."""
        wanted = {key: value._asdict() if key == "protocol" else value for key, value in wanted.items()}
        found = {key: meta.get(key) for key, value in wanted.items() if meta.get(key) != value}
        if "protocol" in found:
            found["protocol"] = next((name for name, row in self.protocols.items() if row == meta["protocol"]), None)
        names = {key: {"origin": "first-pixel"}.get(key, key.replace("_", "-")) for key in found}
        return [] if None in found.values() else [f"--{names[key]} {value}" for key, value in found.items()]

    def _folder_name(self, name: str) -> str:
        """Return the folder name of a set: `name`, with marks for each setting of its crops that is not the default."""

        def unusual(key: str) -> bool:
            return getattr(self.data, key) != self.defaults.values[key]

        marks = []
        if name == SYNTHETIC and (unusual("synthetic_train") or unusual("synthetic_test")):
            marks += [str(self.data.synthetic_train), str(self.data.synthetic_test)]
        if self.data.protocol not in (None, "square"):
            marks.append(self.data.protocol)
        if unusual("labels"):
            marks.append(self.data.labels)
        if unusual("target_size"):
            marks.append(str(self.data.target_size))
        for key in DATASETS[name].options if name in DATASETS else ():
            if unusual(key):
                marks.append(f"{key.replace('_', '-')}-{getattr(self.data, key)}")
        return "-".join([name, *marks])

    def _source(self, name: str, root: Path) -> Path | None:
        """Return the raw archive of a set; None if only the meta.yaml of an earlier preparation in `root` names it."""
        if name == SYNTHETIC:
            return self._rendered(root)
        if name in DATASETS:
            raw = _raw_folder(self.data.data_dir) if self.data.data_dir else None
            chosen = name == self.data.dataset
            if raw is None or infer(raw) in (name, HOSTS.get(name)) or (chosen and _has_own_layout(name)):
                return raw
            folders = sorted(path for path in raw.iterdir() if path.is_dir())  # several archives side by side
            for wanted in filter(None, (name, HOSTS.get(name))):
                if found := [folder for folder in folders if wanted in (folder.name.lower(), infer(folder))]:
                    return found[0]
            there = any(_dataset_or_folder(folder, meta) == name for folder, meta in self._prepared())
            return None if there and not chosen else raw
        if Path(name).is_dir():
            return Path(name)
        dataset_of(name, self.root)  # an unknown name is an error
        return None

    def _rendered(self, root: Path) -> Path | None:
        """Return the folder of rendered faces, which looks like 300W.

        Render them if they are missing and `root` is this run's.
        """
        from extras.synthetic import VERSION, generate

        train, test = self.data.synthetic_train, self.data.synthetic_test
        folder = root / f"synthetic-raw{VERSION}-{train}-{test}"
        if not folder.is_dir():
            if root != self.root:
                return None
            logger.info(f"rendering {train} + {test} synthetic faces into {folder}")
            generate(folder, train, test)
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
            meta = prepared(name, self.root)
            unprepared = not meta and name in DATASETS
            points = (
                self.prepare(name) if unprepared else PreparedSet(meta.parent if meta else file, self.layouts)
            ).meanface()
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


def _said_first_pixel(meta: dict[str, Any]) -> bool:
    """Return whether --first-pixel told the origin of a prepared set. Published labels are read without one."""
    row = DATASETS.get(str(meta.get("dataset")))
    known = isinstance(meta.get("origin"), (int, float)) and meta.get("labels") != "published"
    return bool(row and row.countable and known and not meta.get("origin_guessed"))


def _has_own_layout(dataset: str | None) -> bool:
    """Return whether a row of DATASETS is for users' own sets, which may have any layout and are named after their
    folder.
    """
    return dataset in DATASETS and DATASETS[dataset].layout is None


def _is_benchmark(name: str) -> bool:
    """Return whether a name is that of a row of DATASETS whose sets are named after it."""
    return name in DATASETS and not _has_own_layout(name)


def _free_folder(target: Path, raw: Path) -> Path:
    """Return `target`, with a mark for the raw folder's path if it already holds the set of another raw folder."""
    if not (target / "meta.yaml").is_file():
        return target
    if str(read_yaml(target / "meta.yaml").get("source")) == str(raw.resolve()):
        return target
    return target.with_name(f"{target.name}-{hashlib.sha256(bytes(raw.resolve())).hexdigest()[:6]}")


def _raw_folder(text: str) -> Path:
    if not Path(text).is_dir():
        raise UserError(f"no folder {text}; give the folder that holds the unpacked dataset")
    return Path(text)


def _dataset_or_folder(folder: Path, meta: dict[str, Any]) -> str:
    """Return the name of a prepared set: its dataset, if the folder's name begins with that (300w-pipnet), else the
    folder's.
    """
    dataset = meta["dataset"]
    return dataset if f"{folder.name}-".startswith(f"{dataset}-") else folder.name


def test_flags(sets: list[PreparedSet], data_root: str) -> str:
    """Return flags that test a run on these sets.
    They name datasets or raw archives, so that the run can have other crops.

    data_root: that of args.yaml.
    """
    names, root = [], sets[0].folder.resolve().parent
    for one in sets:
        name, source = _dataset_or_folder(one.folder, one.meta), Path(one.meta["source"])
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
