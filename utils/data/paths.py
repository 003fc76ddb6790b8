"""Names of sets and paths on the command line.
Paths are made absolute, so that they are valid in any working directory.
"""

import hashlib
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml

from nets.outside import import_typed, is_outside
from pipnet.errors import UserError
from pipnet.files import write_text
from pipnet.images import is_picture
from utils.data.makers import dataset_rows, infer
from utils.data.new_folder import ASIDE
from utils.data.table import SYNTHETIC
from utils.settings import rooms
from utils.settings.command import Command
from utils.settings.heads import HEADS
from utils.settings.layouts import Layouts
from utils.settings.sections import KEYS
from utils.settings.yaml_files import nearest, read_yaml

MEANFACE_FILES = (".txt", ".npy")  # text or an array; other names are prepared sets
SETS, FILES = ([key for key, row in KEYS.items() if row.path == kind] for kind in ("set", "file"))


def with_absolute_paths(command: Command) -> Command:
    """Return the command with absolute paths."""
    sets = changed(command.given, SETS, lambda name: absolute([name])[0])
    return command.with_values(sets | changed(command.given, FILES, lambda name: str(Path(name).resolve())))


def changed(values: dict[str, Any], keys: Iterable[str], change: Callable[[str], str]) -> dict[str, Any]:
    """Return {key: its text or its texts, each after a change} of those of the keys that have a value."""
    found = {key: values[key] for key in keys if values.get(key)}
    return {key: list(map(change, value)) if KEYS[key].many else change(value) for key, value in found.items()}


def absolute(names: list[str]) -> list[str]:
    """Return names of datasets as they are, folders and files as absolute paths."""
    known = dataset_rows()
    return [name if name in known or not Path(name).exists() else str(Path(name).resolve()) for name in names]


def layout_file(root: Path, source: Path) -> Path:
    """Return the file in `root`, beside the prepared sets, of the layout that is made for the own set in a raw folder."""
    mark = hashlib.sha256(str(source.resolve()).encode(errors="surrogateescape")).hexdigest()[:8]
    return root / f"{source.resolve().name}-{mark}.yaml"


def write_layout_file(file: Path, name: str, row: dict[str, Any]) -> None:
    """Write the row of a layout, see `layout_file`."""
    rows = {name: row}
    write_text(file, yaml.safe_dump(rows, sort_keys=False, default_flow_style=None, allow_unicode=True, width=130))


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
    (rooms.synthetic if name == SYNTHETIC else rooms.datasets).require()  # a missing room is the reason
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
def unpacked_sets(command: Command) -> Iterator[Command]:
    """Yield the command with folders in the place of ZIP files.

    What is unpacked now is removed again if the body raises a UserError and no set was prepared from it.
    """
    root = command.folder("data_root")
    made: list[Path] = []

    def folder(name: str) -> str:
        packed = name.lower().endswith(".zip") and Path(name).is_file()
        return str(rooms.datasets.unpack(Path(name), root, made)) if packed else name

    try:
        yield command.with_values(changed(command.given, ("dataset", "data_dir", "train_data", "test_data"), folder))
    except UserError:
        for place in made:
            if not any(read_yaml(meta).get("source") == str(place.resolve()) for meta in root.glob("*/meta.yaml")):
                shutil.rmtree(place.parent, ignore_errors=True)
        raise


def import_outside(command: Command) -> None:
    """Import the nets, heads, forms of the loss and datasets from outside of the checkout that typed flags name.
    UserError if one cannot be imported, and for a head whose row names an unknown key.
    """
    for key, value in command.given.items():
        kind = KEYS[key].outside if key in command.typed else ""
        for name in filter(None, value if isinstance(value, list) else [value]) if kind else ():
            if Path(name).exists() or (kind == "datasets" and name in dataset_rows()) or not is_outside(kind, name):
                continue
            try:
                code = import_typed(kind, name)
            except ValueError as error:
                raise UserError(f"{KEYS[key].flag}: {error}") from None
            if kind == "datasets":
                rooms.datasets.add(name, code)
            if kind == "heads":
                unknown = {*HEADS[name].options, *HEADS[name].weights} - KEYS.keys()
                if unknown:
                    raise UserError(f"--head {name}: its row names '{min(unknown)}', which is no key of args.yaml")


def check_sets(command: Command) -> None:
    """Raise UserError if a given name of a set does not exist. Fast, because torch is not loaded."""
    given, root = command.given, command.folder("data_root")
    names = [given.get("dataset", "auto"), *(given.get("train_data") or ()), *(given.get("test_data") or ())]
    for name in names:
        if name != "auto":
            dataset_of(name, root)
    for name in given.get("unlabelled") or ():
        is_unlabelled_set(name, root)
    for name in given.get("backgrounds") or ():
        check_pictures("--backgrounds", name)
