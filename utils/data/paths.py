"""Names of sets and paths on the command line.
Paths are made absolute, so that they are valid in any working directory.
"""

import hashlib
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from nets.outside import import_typed, is_outside
from pipnet.errors import UserError
from pipnet.images import is_picture
from utils.data.makers import SYNTHETIC, dataset_rows, infer
from utils.data.new_folder import ASIDE
from utils.settings.config import ROOT, Defaults
from utils.settings.extras import extra
from utils.settings.layouts import Layouts
from utils.settings.sections import KEYS
from utils.settings.yaml_files import nearest, read_yaml

MEANFACE_FILES = (".txt", ".npy")  # text or an array; other names are prepared sets


def resolve_paths(given: dict[str, Any]) -> dict[str, Any]:
    """Return the given keys with absolute paths."""
    found = {key: absolute(given[key]) for key in ("train_data", "test_data", "unlabelled") if given.get(key)}
    if given.get("backgrounds"):
        found["backgrounds"] = [str(Path(name).resolve()) for name in given["backgrounds"]]
    files = ["data_dir", "detector_weights", "layouts"]
    if mean := given.get("meanface"):
        found["meanface"] = absolute([mean])[0]
        if mean.endswith(MEANFACE_FILES):
            files.append("meanface")
    return {**given, **found, **{key: str(Path(given[key]).resolve()) for key in files if given.get(key)}}


def absolute(names: list[str]) -> list[str]:
    """Return names of datasets as they are, folders and files as absolute paths."""
    known = dataset_rows()
    return [name if name in known or not Path(name).exists() else str(Path(name).resolve()) for name in names]


def archive_and_labels(path: Path) -> tuple[Path, str | None]:
    """Return the folder of an archive and, if `path` is a file of labels, its name there; COCO's may be in annotations/."""
    if not path.is_file():
        return path, None
    folder = path.parent.parent if path.resolve().parent.name == "annotations" else path.parent
    return folder, path.relative_to(folder).as_posix()


def layout_file(root: Path, source: Path) -> Path:
    """Return the file in `root`, beside the prepared sets, of the layout that is made for the own set in a raw folder."""
    mark = hashlib.sha256(str(source.resolve()).encode(errors="surrogateescape")).hexdigest()[:8]
    return root / f"{source.resolve().name}-{mark}.yaml"


def edited_layout(root: Path, source: Path, layouts: Layouts) -> tuple[str | None, Layouts]:
    """Return the name of the layout in the `layout_file` of a raw folder, None without one, and layouts with it.

    If `layouts` has one with its name, or with its names of points, as those of a trained run may, that is taken.
    """
    file = layout_file(root, source)
    if not file.is_file():
        return None, layouts
    name = str(next(iter(read_yaml(file)), None))
    if name in layouts.rows:
        return name, layouts
    name, known = layouts.with_file(str(file))
    points = known.load(name).point_names()
    alike = (one.name for one in layouts.with_count(len(points)) if one.point_names() == points)
    same = None if points[0].isdecimal() else next(alike, None)  # they have no names
    return (same, layouts) if same else (name, known)


def prepared_folders(root: Path) -> list[Path]:
    """Return the folders of the prepared sets in `root`, the newest first, without those that were moved aside."""
    found = []
    for file in root.glob("[!.]*/meta.yaml"):
        if not ASIDE.search(file.parent.name):
            with suppress(FileNotFoundError):  # somebody removes it
                found.append((file.stat().st_mtime_ns, file.parent))
    return [folder for _, folder in sorted(found, reverse=True)]


def set_name(folder: Path) -> str:
    """Return the name of a prepared set: that of its folder without the hash."""
    return re.sub(r"-[0-9a-f]{8}$", "", folder.name)


def prepared(name: str, root: Path) -> Path | None:
    """Return the prepared set that `name` means: a path, or the newest folder in `root` that has it, with its hash or
    without. None if there is no such set.
    """
    if Path(name).exists():
        return Path(name) if (Path(name) / "meta.yaml").is_file() else None
    return next((folder for folder in prepared_folders(root) if name in (folder.name, set_name(folder))), None)


def dataset_of(name: str, root: Path) -> str:
    """Return the dataset that a name means: its own name, that of a prepared set (in `root`), or a raw folder.
    UserError for others.
    """
    known = dataset_rows()
    if name in known:
        return name
    if folder := prepared(name, root):
        meta = folder / "meta.yaml"
        dataset = read_yaml(meta).get("dataset")
        if not isinstance(dataset, str):
            raise UserError(f"{meta} names no dataset; prepare the set again")
        return dataset
    if Path(name).exists():
        return infer(Path(name))
    extra("synthetic" if name == SYNTHETIC else "datasets")  # a missing room is the reason
    if is_outside("datasets", name):
        raise UserError(f"'{name}' is a dataset from outside of the checkout; type --dataset {name} to import it")
    raise UserError(
        f"'{name}' is neither a dataset ({', '.join(known)}), a set in {root}, nor a folder or a file of labels"
        f"{nearest(name, known)}"
    )


def is_unlabelled_set(name: str, root: Path) -> bool:
    """Return whether a name of --unlabelled means a dataset or a prepared set (in `root`); False: pictures or a video.

    UserError if it means nothing, or a folder without a picture.
    """
    if name in dataset_rows() or prepared(name, root):
        return True
    check_pictures("--unlabelled", name, "a dataset, a prepared set, ")
    return False


def check_pictures(flag: str, name: str, others: str = "") -> None:
    """Raise UserError if a name is no folder with a picture and no file. others: what else it may be, in words."""
    path = Path(name)
    if not path.exists():
        raise UserError(f"{flag} {name} is neither {others}a folder of pictures nor a video")
    if path.is_dir() and not any(map(is_picture, path.rglob("*"))):
        raise UserError(f"{flag}: no picture in the folder {name}")


@contextmanager
def unpacked_sets(given: dict[str, Any], root: Path) -> Iterator[dict[str, Any]]:
    """Yield the given keys with folders in the place of ZIP files. root: folder of the prepared sets.

    What is unpacked now is removed again if the body raises a UserError and no set was prepared from it.
    """
    made: list[Path] = []

    def folder(name: str) -> str:
        packed = name.lower().endswith(".zip") and Path(name).is_file()
        return str(extra("datasets").unpack(Path(name), root, made)) if packed else name

    try:
        found = {key: folder(given[key]) for key in ("dataset", "data_dir") if given.get(key)}
        found |= {key: [folder(name) for name in given[key]] for key in ("train_data", "test_data") if given.get(key)}
        yield {**given, **found}
    except UserError:
        for place in made:
            if not any(read_yaml(meta).get("source") == str(place.resolve()) for meta in root.glob("*/meta.yaml")):
                shutil.rmtree(place.parent, ignore_errors=True)
        raise


def import_outside(given: dict[str, Any]) -> None:
    """Import the nets, forms of the loss and datasets from outside of the checkout that typed flags name.
    UserError if one cannot be imported.
    """
    for key, value in given.items():
        kind = KEYS[key].outside
        for name in filter(None, value if isinstance(value, list) else [value]) if kind else ():
            if Path(name).exists() or (kind == "datasets" and name in dataset_rows()) or not is_outside(kind, name):
                continue
            try:
                code = import_typed(kind, name)
            except ValueError as error:
                raise UserError(f"{KEYS[key].flag}: {error}") from None
            if kind == "datasets":
                extra("datasets").add(name, code)


def check_sets(given: dict[str, Any], defaults: Defaults) -> None:
    """Raise UserError if a given name of a set does not exist. Fast, because torch is not loaded."""
    root = ROOT / given.get("data_root", defaults.values["data_root"])
    names = [given.get("dataset", "auto"), *(given.get("train_data") or ()), *(given.get("test_data") or ())]
    for name in names:
        if name != "auto":
            dataset_of(name, root)
    for name in given.get("unlabelled") or ():
        is_unlabelled_set(name, root)
    for name in given.get("backgrounds") or ():
        check_pictures("--backgrounds", name)
