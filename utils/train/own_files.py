"""The files that this project writes into a run's folder. No others are removed, and no run is written among others."""

import os
import re
from contextlib import suppress
from pathlib import Path

from pipnet.errors import UserError
from pipnet.files import is_partial
from utils.data.locks import LOCK, LOG
from utils.settings.formats import FORMATS, files_of
from utils.settings.yaml_files import read_yaml
from utils.train import checkpoint

NETS = r"(round|fold)\d+"  # folders below a run's: of a round of --semi, and of a fold of --audit
EXPORTS = (
    rf"best(\.[\w+-]{{1,40}})?{re.escape(file.name.removeprefix('best'))}"  # with the name of one layout of several
    for row in FORMATS.values()
    for file in files_of(Path(f"best{row.suffix}"))
)
# regular expressions of the names of our files. args.yaml is removed last: a folder with it is known as a run's
RUN = (
    *EXPORTS,
    r"(best|last)\.pt",
    r"(step|time|initialisation)\.csv",
    r"manifest\.json",
    r"card\.md",
    r"trace\.json",
    r"args\.yaml",
)
SWEEP = (r"sweep\.(yaml|csv)",)
FOLDERS = {  # {folder of a run: its files}
    "report": (
        r"(faces|sigma|pictures)_.*\.(csv|jpg|svg)",
        r"(scores|groups|norms|protocols|rounds|formats)\.csv",
        r"test\.yaml",
        r"index\.html",
    ),
    "events": (r"events\.out\.tfevents\..*",),
    "pseudo_labels": (r"round\d+\.(csv|jpg)", r"changed\.jpg"),
    "audit": (r"(labels|errors|weights)\.csv", r"(faces|landmarks)\.jpg"),
}
WRITTEN = rf"{'|'.join(FOLDERS)}|predicted|web|{NETS}"  # folders into which a run writes
MARKS = ("args.yaml", "round0/args.yaml")  # by which a run's folder is known, beside its checkpoints
LINE = re.compile(rb"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d [A-Z]+ ")  # how a line of a run's log begins


def clear(folder: Path) -> None:
    """Make a run's folder, and remove the files of an earlier training from it. The log and all other files stay."""
    folder.mkdir(exist_ok=True)
    for name in ("report", "events"):
        remove(folder / name, *FOLDERS[name])
    remove(folder, *RUN, keep=True)


def remove(folder: Path, *names: str, keep: bool = False) -> None:
    """Remove the files in a folder whose names match one of the regular expressions, in the order of these.

    Then remove the folder if it is empty, unless `keep`.
    """
    if not folder.is_dir() or folder.is_symlink():
        return
    for name in names:
        for path in folder.iterdir():
            if (re.fullmatch(name, path.name) or is_partial(path, name)) and not path.is_dir():
                path.unlink()
    if not keep:
        with suppress(OSError):
            folder.rmdir()


def clear_nets(folder: Path, kind: str) -> None:
    """Remove the files of the nets in the folders `kind`0, `kind`1 and so on below a run's folder."""
    for place in folder.iterdir():
        if re.fullmatch(rf"{kind}\d+", place.name) and place.is_dir() and not place.is_symlink():
            clear(place)
            with suppress(OSError):
                place.rmdir()


def clear_rounds(folder: Path) -> None:
    """Remove the files of earlier rounds of --semi from a run's folder."""
    clear_nets(folder, "round")
    remove(folder / "pseudo_labels", *FOLDERS["pseudo_labels"])


def tidy(folder: Path) -> None:
    """Remove the half-written files of a killed process from a run's folder. UserError if it holds a link to a folder."""
    for place, folders, files in os.walk(folder):
        top = Path(place)
        inside = top == folder or bool(re.fullmatch(NETS, top.name))
        if inside:
            folders[:] = [name for name in folders if re.fullmatch(WRITTEN, name)]
        for path in map(top.joinpath, folders):
            if path.is_symlink():
                raise UserError(
                    f"{path} is a link to a folder, and links in a run's folder are not followed; remove it"
                )
        for path in map(top.joinpath, files):
            if is_partial(path, *((*RUN, *SWEEP) if inside else ())):
                path.unlink()


def check_place(folder: Path, kept: list[Path], marks: tuple[str, ...] = MARKS) -> None:
    """Raise UserError if no net may be trained in `folder`: it is or contains one of `kept`, or holds foreign files.

    marks: files that show that the folder holds a run.
    """
    for place in kept:
        if place.resolve().is_relative_to(folder.resolve()):
            raise UserError(f"--exp {folder} is or holds {place}; give an id, or a folder of the run's own")
    if not folder.is_dir() or any(is_own_file(folder / name) for name in (*marks, "last.pt", "best.pt")):
        return
    if other := _foreign(folder):
        raise UserError(f"{folder} holds {other.name} and no run of this project; give an id, or a new or empty folder")


def is_own_file(file: Path) -> bool:
    """Return whether a file is a checkpoint of ours, settings of a run, or the plan of a sweep."""
    if not file.is_file():
        return False
    try:
        if file.suffix == ".pt":
            return bool(checkpoint.load_weights(file)[1])
        values = read_yaml(file)
    except UserError:
        return False
    is_plan, is_run = {"sweep", "given"} == values.keys() - {"tests", "args"}, {"data", "net", "train"} <= values.keys()
    return is_plan or (is_run and "presets" not in values)


def _foreign(folder: Path) -> Path | None:
    """Return a foreign file or folder in `folder`, None if there is none. What a killed training leaves is not foreign."""
    for path in sorted(folder.iterdir()):
        if path.name == LOCK or is_partial(path, *RUN, *SWEEP) or (path.name == LOG and _is_log(path)):
            continue
        if re.fullmatch(NETS, path.name) and path.is_dir() and not path.is_symlink() and _foreign(path) is None:
            continue
        return path
    return None


def _is_log(file: Path) -> bool:
    if file.is_symlink() or not file.is_file():
        return False
    with open(file, "rb") as log:
        line = log.readline(100)
    return not line or LINE.match(line) is not None
