"""A run's folder weights/<exp>/: finds the one that --exp means, and names the files in it."""

import hashlib
import re
import shlex
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple

from pipnet.errors import UserError
from pipnet.runtimes import RUNTIMES, stored_values
from pipnet.shipped import SHIPPED, checksum, shipped, shipped_net
from utils.settings import rooms
from utils.settings.formats import FORMATS, SOURCE, files_of, folder_of
from utils.settings.yaml_files import nearest, read_yaml
from utils.train import checkpoint
from utils.train.weight_files import weights_and_mean_face

SUFFIXES = (".pt", ".pth", ".tar", ".safetensors", *RUNTIMES)
FILES = "files"  # below the folder of the runs: results of files that are in no run's folder


class Run(NamedTuple):
    """The file that --exp means, and the folder of its run.

    folder: the run's; for a file without a run, the folder of its results
    weights: the file under test
    given: exported files that came with the weights, or the file under test itself. The first one is used to predict.
    They are never written
    view: the layout, of several that the net has learnt, in which it is exported; None: the first one, as in `given`
    anew: formats whose file depends on more than the weights, such as the calibration faces, so that an export writes
    it anew
    """

    folder: Path
    weights: Path
    given: tuple[Path, ...] = ()
    view: str | None = None
    anew: tuple[str, ...] = ("pipeline", "pipeline-int8")

    @property
    def alone(self) -> bool:
        """Return whether the weights belong to no run, so that `folder` holds only their results."""
        return self.weights.parent != self.folder

    @property
    def model(self) -> str:
        """Return the format of the weights: `torch` for a checkpoint, else a key of FORMATS."""
        fitting = [name for name, row in FORMATS.items() if self.weights.name.endswith(row.suffix)]
        return max(fitting, key=lambda name: len(FORMATS[name].suffix), default="torch")

    @property
    def settings_file(self) -> Path:
        """Return the file that holds the settings of the training: the run's checkpoint, or the file itself without a
        run.
        """
        return self.weights if self.alone else self.folder / f"{self.weights.name.partition('.')[0]}.pt"

    @property
    def last(self) -> Path:
        """Return the path of the checkpoint that a training resumes from."""
        return self.folder / "last.pt"

    def in_layout(self, view: str | None, learnt: dict[str, Any]) -> "Run":
        """Return the run whose exports have the layout `view`; None: the first one that the net has learnt.

        learnt: the layout in the checkpoint.
        """
        first = next(iter(learnt.get("members", {})), view)
        return self._replace(view=None if view == first else view)

    def part(self, name: str) -> "Run":
        """Return the run of one of several nets, in a folder of that name below the run's."""
        return Run(self.folder / name, self.folder / name / "best.pt")

    def first(self, audit: bool = False) -> "Run":
        """Return the run whose last.pt shows how far a training is: that of its first round, or of an audit's first fold."""
        first = self.part("fold0" if audit else "round0")
        return first if audit or first.last.is_file() else self

    @property
    def flags(self) -> str:
        """Return the flags by which a command finds this run."""
        if self.folder.parent.name != FILES:
            return f"--exp {shlex.quote(str(self.folder))}"
        name = self.folder.name if self.folder.name in SHIPPED else self.weights
        return f"--exp {shlex.quote(str(name))} --run-root {shlex.quote(str(self.folder.parent.parent))}"

    def export_path(self, name: str) -> Path:
        """Return the path to which the weights are exported. name: a format, key of FORMATS."""
        suffix = f"{f'.{plain_name(self.view)}' if self.view else ''}{FORMATS[name].suffix}"
        fitting = [file for file in self.given if file.name.endswith(suffix)]
        if fitting and self.model in ("torch", name):
            return fitting[0]
        return self.folder / f"best{suffix}" if self.alone else self.settings_file.with_suffix(suffix)

    @property
    def onnx(self) -> Path:
        """Return the path of the ONNX export."""
        return self.export_path("onnx")

    @property
    def exported(self) -> bool:
        """Return whether the ONNX file exists and was made from these weights."""
        return self.has("onnx")

    def has(self, name: str) -> bool:
        """Return whether the export in a format exists and was made from these weights.
        Checksums decide, not names or times.
        """
        file = self.export_path(name)
        return file in self.given or (file.is_file() and stored_values(file).get(SOURCE) == self.source[SOURCE])

    def keeps(self, name: str) -> bool:
        """Return whether an export keeps the file of a format."""
        return self.has(name) and name not in self.anew

    @property
    def source(self) -> dict[str, str]:
        """Return {SOURCE: checksum of the weights}: the entry in an export's metadata that names its weights."""
        return {SOURCE: net_checksum(self.weights)}

    @property
    def fastest(self) -> Path:
        """Return the file to predict with: the first export that came with the weights, if it has the layout, else the
        weights.
        """
        return self.weights if self.view else next(iter(self.given), self.weights)

    @property
    def epochs(self) -> int:
        """Return the number of completed epochs."""
        return len(checkpoint.load(self.last).get("rows", ())) if self.last.is_file() else 0


def plain_name(view: str) -> str:
    """Return the name of a layout as a part of a file's name; it may come from a foreign file."""
    return re.sub(r"[^\w+-]", "_", view)[:40]


def next_id(root: Path) -> str:
    """Return the three-digit id after the largest one below `root`."""
    used = [int(path.name) for path in root.glob("*") if re.fullmatch(r"\d{3,}", path.name)] if root.is_dir() else []
    return f"{max(used, default=-1) + 1:03d}"


def find_run(exp: str | None, root: Path, train: bool, resume: bool = False) -> Run:
    """Return the run that --exp means: an id below `root`, a folder, a file, or the name of a shipped net.

    Without --exp, a training gets the next free id, everything else the newest run. UserError if there is nothing to
    test.
    """
    name = exp or ""
    is_file = Path(name).suffix in SUFFIXES or Path(name).is_file() or "," in name
    if train and (exp in SHIPPED or is_file):
        kind = "a shipped net" if exp in SHIPPED else "a list of files" if "," in name else "a file"
        raise UserError(f"--exp {exp} is {kind}; give an id or a folder to train in (--weights {exp} starts from it)")
    if exp in SHIPPED:
        given = (shipped(f"{exp}{FORMATS[format].suffix}") for format in ("onnx", "int8"))
        return Run(root / FILES / exp, shipped_net(exp, ".pt", ".onnx"), tuple(takewhile(Path.is_file, given)))
    if is_file:
        return _find_file(name, root)
    if exp is not None:
        folder = folder_of(exp, root)
    elif train and not resume:
        folder = root / next_id(root)
    else:
        files = [*root.glob("*/last.pt" if resume else "*/best.pt")]
        if not files:
            raise UserError(f"nothing is trained yet in {root}; train a net (--train) or name one (--exp)")
        folder = max(files, key=lambda path: path.stat().st_mtime).parent
    run = Run(folder, folder / "best.pt")
    if not train and not run.weights.is_file():
        names = sorted(path.parent.name for path in root.glob("*/best.pt")) if root.is_dir() else []
        known = f"there are: {', '.join(names[-10:])}" if names else "nothing is trained yet"
        near = nearest(exp or "", [*names, *SHIPPED])
        raise UserError(f"no trained net in {folder} ({known}; shipped: {', '.join(SHIPPED)}){near}")
    return run


def _find_file(exp: str, root: Path) -> Run:
    """Return the run of a file: its own folder if that is a run's, else a folder for its results below `root`."""
    weights, mean = weights_and_mean_face(exp)
    for file in [*weights, *([mean] if mean else [])]:
        if not file.is_file():
            raise UserError(f"no file {file}; give an id, a folder, a file or one of {', '.join(SHIPPED)}")
    first = weights[0]
    run = Run(first.parent, first, (first,) if first.suffix in RUNTIMES else ())
    if "," not in exp and run.settings_file.is_file() and is_run(run.folder):
        return run
    # many files share a name, such as best.pt, so the folder is named after the content too
    name = f"{first.name.replace('.', '-')[:100]}-{net_checksum(exp)[:8]}"
    return run._replace(folder=root / FILES / name, weights=Path(exp))


def net_files(text: Path | str) -> list[Path]:
    """Return the files that a net consists of: the weights and their mean face, or the files of an export.

    text: see `weights_and_mean_face`; a mean face that is not named is looked for beside the weights.
    """
    files, mean = weights_and_mean_face(text)
    if files[0].suffix in RUNTIMES:
        return [file for file in files_of(files[0]) if file.is_file()]
    beside = rooms.systems.mean_faces(files[0]) if rooms.systems else []
    return [*files, *([mean] if mean else beside)]


def is_run(folder: Path) -> bool:
    """Return whether a folder has the settings of a run, see `Settings.dump`; an args.yaml with presets is the project's."""
    try:
        keys = read_yaml(folder / "args.yaml").keys()
    except (OSError, UserError):
        return False
    return {"data", "net", "train", "protocols", "layouts"} <= keys and "presets" not in keys


def net_checksum(weights: Path | str) -> str:
    """Return the checksum of the files that a net consists of."""
    sums = [checksum(file) for file in net_files(weights)]
    return sums[0] if len(sums) == 1 else hashlib.sha256("".join(sums).encode()).hexdigest()
