"""An experiment's folder weights/<exp>/: which one is meant, what is in it, and what goes into a checkpoint."""
import math
import os
import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
from torch.utils.tensorboard import SummaryWriter

from nets import HEADS, NetOptions, Trainable, build_net, make_spec, net_row
from nets.convert.imagenet import load_imagenet
from pipnet.errors import UserError
from pipnet.layout import Layout
from utils.config import nearest, plain
from utils.data.prepared_set import load_meta
from utils.test.export import export_onnx
from utils.test.report import write_csv
from utils.train import checkpoint
from utils.train import initialise as finetune

SUFFIXES = (".pt", ".onnx")
INITIALISATION = "initialisation.csv"


class Run(NamedTuple):
    """A folder and the file in it that tests use."""
    folder: Path
    weights: Path

    @property
    def last(self) -> Path:
        return self.folder / "last.pt"

    @property
    def onnx(self) -> Path:
        return self.weights.with_suffix(".onnx")

    @property
    def exported(self) -> bool:
        """Whether the ONNX file is there and not older than the weights."""
        return self.onnx.is_file() and self.onnx.stat().st_mtime_ns >= self.weights.stat().st_mtime_ns


def next_id(root: Path) -> str:
    """The three-digit id after the largest in use."""
    used = [int(path.name) for path in root.glob("*") if re.fullmatch(r"\d{3,}", path.name)] if root.is_dir() else []
    return f"{max(used, default=-1) + 1:03d}"


def find(exp: str | None, root: Path, train: bool, resume: bool = False) -> Run:
    """The run that `--exp` means: an id below `root`, a folder, or a file; without it the next free id to train, else the newest.

    UserError where there is nothing to test.
    """
    if exp is None:
        if train and not resume:
            folder = root / next_id(root)
        else:
            runs = sorted(root.glob("*/last.pt" if resume else "*/best.pt"), key=lambda path: path.stat().st_mtime)
            if not runs:
                raise UserError(f"nothing is trained yet in {root}; train a net (--train) or name one (--exp)")
            folder = runs[-1].parent
    elif Path(exp).suffix in SUFFIXES:
        file = Path(exp)
        if train:
            raise UserError(f"--exp {exp} is a file; give an id or a folder to train in (--weights {exp} starts from it)")
        if not file.is_file():
            raise UserError(f"no file {exp}")
        if file.suffix == ".onnx" and not file.with_suffix(".pt").is_file():
            raise UserError(f"{file} has no {file.with_suffix('.pt').name} beside it, which says what it was trained on")
        return Run(file.parent, file.with_suffix(".pt"))
    else:
        folder = Path(exp) if os.sep in exp else root / exp
    run = Run(folder, folder / "best.pt")
    if not train and not run.weights.is_file():
        names = sorted(path.parent.name for path in root.glob("*/best.pt")) if root.is_dir() else []
        known = f"there are: {', '.join(names[-10:])}" if names else "nothing is trained yet"
        raise UserError(f"no trained net in {folder} ({known}){nearest(exp or '', names)}")
    return run


# keys that make a run what it is: another value would be another run
FIXED = ("task", "preset", "dataset", "data_dir", "train_data", "layout", "selected_index", "protocol", "target_size", "margin",
         "val", "train_hidden", "synthetic_train", "synthetic_test", "net", "head", "stride", "pool", "excite", "num_lms",
         "num_nb", "input_size", "act", "meanface", "error", "score_width", "sigma", "weights", "seed", "label_weights",
         "label_shift", "folds", "norm", "reinit", "local_parts", "refine", "hard_landmarks", "balance", "frame_step",
         "partial_events", "teacher", "teacher_landmarks", "teacher_maps", "teacher_features", "face_sides", "pasted", "mosaic",
         "crops", "scales")
# keys that a test of a run that is trained can take up
OF_TESTS = ("test_data", "data_root", "run_root", "allow_partial", "cache", "norm", "thresholds", "flip_test", "test_batch_size",
            "threads", "workers", "deterministic", "box", "box_jitter", "detector", "detector_weights", "frame_step", "scales")

# keys that only one task reads
OF_TASK = {
    "detect": ("partial_events", "crops", "mosaic", "pasted", "face_sides", "scales"),
    "landmarks": ("net", "head", "stride", "pool", "excite", "reinit", "local_parts", "refine", "num_lms", "num_nb",
                  "selected_index", "meanface", "act", "error", "score_width", "sigma", "alignment", "hard_landmarks", "pose",
                  "eyes", "mouth", "balance", "teacher_landmarks", "teacher_maps", "teacher_features", "train_hidden",
                  "label_weights", "folds", "norm", "thresholds", "flip_test", "test_batch_size", "box", "box_jitter",
                  "detector", "detector_weights", "label_shift", "rotation_prob", "scale", "translation", "translation_prob",
                  "fill", "interpolation")}


def check_given(given: dict, stored: dict, resume: bool) -> None:
    """Keys that a run cannot take up any more must have the run's values, `stored`. UserError names the first that has not."""
    for key, value in given.items():
        if stored.get(key) != value and (key in FIXED if resume else key not in OF_TESTS):
            raise UserError(f"--{key.replace('_', '-')} belongs to a new training, this run has {stored.get(key)}; "
                            "other faces are tested with --test-data")


def check_task(given: dict, task: str) -> None:
    """Keys that only the other task reads must not be typed. UserError names the first that is."""
    for key in given:
        if key in OF_TASK["detect" if task == "landmarks" else "landmarks"]:
            raise UserError(f"--{key.replace('_', '-')} says nothing to --task {task}; leave it out")


def check_head(given: dict, args: SimpleNamespace) -> None:
    """Options and weights of losses that another head has and this one has not must not be typed. UserError names the first."""
    for key in given:
        heads = [name for name, row in HEADS.items() if key in row.options or key in row.weights]
        if heads and args.head not in heads and not (key == "reg" and (args.local_parts or args.refine)):
            raise UserError(f"--{key.replace('_', '-')} is of the head {' or '.join(heads)}, not of {args.head}; leave it out")
    if "alignment" in given and not (args.reinit or args.local_parts):
        raise UserError("--alignment weighs a loss of --reinit and --local-parts; leave it out, or give one of these")
    if not args.teacher and (weights := [key for key in given if key.startswith("teacher_")]):
        raise UserError(f"--{weights[0].replace('_', '-')} weighs what is learnt from a --teacher; leave it out, or give one")


def head_options(args: SimpleNamespace) -> dict:
    """What the head is made with, from the resolved args."""
    row = HEADS[args.head]
    values = {key: getattr(args, key) for key in row.options if key != "num_nb"}  # which make_spec takes by itself
    return {**values, "sigma": args.sigma > 0} if "sigma" in row.weights else values


def outputs(args: SimpleNamespace) -> list[str]:
    """What the net says beside the landmarks: pose, states."""
    return ["pose"] * (args.pose > 0) + ["states"] * (args.eyes + args.mouth > 0)


def input_margin(args: SimpleNamespace) -> float:
    """How much the net sees / the nominal crop."""
    return net_row(args.net).input_margin if args.reinit or args.local_parts else 1.0


def make_net(args: SimpleNamespace, layout: Layout, meanface: np.ndarray) -> Trainable:
    """A net with random weights. meanface (N, 2) in [0, 1] of the crop. ValueError for choices that do not fit together."""
    groups = None
    if args.head == "parts":
        groups = list(local_parts(layout).values())
        if rest := sorted(set(range(layout.count)) - {i for ids in groups for i in ids}):
            groups.append(rest)
    parts = local_parts(layout) if args.local_parts else None
    return build_net(make_spec(NetOptions(
        args.net, args.head, args.stride, args.input_size, args.act, args.num_nb, head_options(args), args.reinit, parts,
        tuple(outputs(args)), args.hard_landmarks, args.refine, groups), meanface))


def local_parts(layout: Layout) -> dict[str, list[int]]:
    """{eye_left, eye_right, nose, mouth: landmarks}, eyes with brows and pupils. ValueError where the layout names none."""
    found: dict[str, list[int]] = {}
    for part, ids in layout.parts.items():
        kind, _, side = part.partition("_")
        name = {"brow": f"eye_{side}", "eye": f"eye_{side}", "pupil": f"eye_{side}", "nose": "nose", "lips": "mouth"}.get(kind)
        if name:
            found.setdefault(name, []).extend(ids)
    if not found:
        raise ValueError(f"layout {layout.name} has no parts eye_left, eye_right, nose... or lips..., at which --local-parts "
                         "and --head parts look; name them in its row, or leave this out")
    return found


def take_up_restart(mode: SimpleNamespace, run: Run) -> None:
    """torchrun's restart after a failure goes on where the run was; for that it must be named. UserError otherwise."""
    if int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", 0)) and not mode.exp:
        raise UserError("MAX_RESTARTS needs --exp, by which a restarted training finds its run")
    if int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)):
        mode.resume = run.last.is_file()
        mode.overwrite = not mode.resume


def epochs(run: Run) -> int:
    """Whole epochs behind a training, 0 for none."""
    return len(checkpoint.load(run.last).get("rows", ())) if run.last.is_file() else 0


def check_free(run: Run, resume: bool, overwrite: bool) -> None:
    """Training must not destroy a run by accident, nor resume nothing."""
    if resume and not run.last.is_file():
        raise UserError(f"{run.folder} has no last.pt to resume; train without --resume")
    if not resume and not overwrite and (run.last.is_file() or run.weights.is_file()):
        raise UserError(f"{run.folder} already holds a run; give --resume to go on, --overwrite to replace it, or another --exp")


def clear(run: Run) -> None:
    """Makes the folder and removes what an earlier training left, and only that; the log goes on."""
    run.folder.mkdir(exist_ok=True)
    for name in ("best.pt", "best.onnx", "last.pt", "step.csv", "time.csv", "args.yaml", INITIALISATION):
        (run.folder / name).unlink(missing_ok=True)
    for name in ("report", "events"):
        shutil.rmtree(run.folder / name, ignore_errors=True)


def report_start(run: Run, started: finetune.Started) -> None:
    """What a training's first weights are of, tensor by tensor, where they are of a file."""
    if started.rows:
        write_csv(run.folder / INITIALISATION, ["tensor", "shape", "what"], started.rows)


class History:
    """What a training has been through: rows of step.csv and time.csv, the best validation figure, the solver's state.

    figure: its column in step.csv, by which epochs are compared; the lower the better.
    """

    def __init__(self, rows: list[dict], times: list[dict], best: float, solver: dict | None, figure: str = "val_nme"):
        self.rows, self.times, self.best, self.solver, self.figure = rows, times, best, solver, figure

    @classmethod
    def start(cls, figure: str = "val_nme") -> "History":
        """Of a new training."""
        return cls([], [], float("inf"), None, figure)

    @classmethod
    def load(cls, run: Run, spec: dict, layout: Layout | None, data: list[str], figure: str = "val_nme") -> "History":
        """Of a training to resume. UserError where its last checkpoint is of another net, layout, data or teacher (checksums)."""
        stored = checkpoint.load(run.last)
        if "solver" not in stored:
            raise UserError(f"{run.last} has no training state, only weights; start from them: --weights {run.last}")
        there = Layout.from_dict(stored["layout"]) if stored["layout"] else None  # a detector has none
        if (stored["net"], there, stored["data"]) != (spec, layout, data):
            raise UserError(f"{run.last} was trained with another net, layout, data or teacher than there is now; train a new "
                            "run")
        return cls(stored["rows"], stored["times"], stored["best"], stored["solver"], figure)

    @property
    def epochs(self) -> int:
        """Whole epochs behind."""
        return len(self.rows)

    def epochs_since_best(self) -> int:
        """Epochs after the one with the best validation figure."""
        last = self.epochs - 1
        return last - min((row["epoch"] for row in self.rows if row[self.figure] == self.best), default=last)

    def add(self, row: dict, times: dict) -> bool:
        """An epoch's figures; whether that of its validation is the best."""
        better = not row[self.figure] >= self.best  # without validation it is NaN: the last epoch is the best
        self.best = min(row[self.figure], self.best)
        self.rows.append({**row, "best": self.best})
        self.times.append(times)
        return better


class Keeper:
    """Writes a training's files: each of them whole, whenever the process is killed."""

    def __init__(self, run: Run, history: History):
        self.run, self.history = run, history
        self.events = SummaryWriter(run.folder / "events", purge_step=history.epochs + 1)
        self._tables()  # a kill may have come between the last checkpoint and its rows

    def save(self, inference: dict, solver: dict, better: bool) -> None:
        """After an epoch: best.pt if it is `better`, last.pt, the tables, TensorBoard's events."""
        if better:
            checkpoint.save(self.run.weights, inference)
        checkpoint.save(self.run.last, {**inference, "solver": solver, "rows": self.history.rows, "times": self.history.times,
                                        "best": self.history.best})
        self._tables()
        row, times = self.history.rows[-1], self.history.times[-1]
        for key, value in {**row, **{f"time/{key}": value for key, value in times.items()}}.items():
            if not key.endswith("epoch"):
                self.events.add_scalar(key, value, row["epoch"] + 1)
        self.events.flush()

    def _tables(self) -> None:
        for name, rows in (("step.csv", self.history.rows), ("time.csv", self.history.times)):
            if rows:
                write_csv(self.run.folder / name, list(rows[0]), [row.values() for row in rows])


def checksums(folders: list[Path]) -> list[str]:
    """Of what the prepared sets were made of."""
    return [load_meta(folder)["checksum"] for folder in folders]


def export(run: Run) -> None:
    """Writes the run's ONNX file unless it is there and newer; its metadata carry all that a user of the file needs."""
    if run.exported:
        return
    net, _, stored = unpack(run.weights)
    args = stored["args"]
    export_onnx(net, run.onnx, {
        **{key: stored[key] for key in ("layout", "protocol", "epoch")}, "net": stored["net"]["net"],
        "val_nme": stored["val_nme"] if math.isfinite(stored["val_nme"]) else None,  # NaN is no JSON
        "meanface": stored.get("meanface"), "input_size": net.spec["input_size"], "input_margin": net.input_margin,
        "channels": "BGR, uint8, not normalised",
        "box": "tight box of the landmarks, or the rectangle that the data set gives", "frame": "[0, 1] of the nominal crop",
        "norm": args["norm"], "train_data": [Path(name).name for name in args["train_data"] or ()], "val": args["val"]})


def pack(net_spec: dict, layout: Layout, protocol: dict, args: SimpleNamespace, state: dict, **more) -> dict:
    """All that inference and tests need, as a checkpoint; `more` joins it (epoch, figures, training state)."""
    rows = {name: row for name, row in args.tables["layouts"].items() if name in (args.layout, layout.stored)}
    return {"format": checkpoint.FORMAT, "net": net_spec, "layout": layout.to_dict(), "protocol": protocol, "args": plain(args),
            "layouts": rows, "model": {name: tensor.detach().cpu() for name, tensor in state.items()}, **more}


def unpack(file: Path) -> tuple[Trainable, Layout, dict]:
    """(net with its weights, layout, the whole checkpoint). UserError for a file that does not fit itself."""
    values = checkpoint.load(file)
    try:
        net, layout = build_net(values["net"]), Layout.from_dict(values["layout"])
        net.load_state_dict(values["model"])
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RuntimeError) as error:
        raise UserError(f"{file} does not describe a net that this version can build ({str(error).splitlines()[0]})") from None
    return net, layout, values


def initialise(net: Trainable, source: str, layout: Layout, meanface: np.ndarray, warn) -> finetune.Started:
    """Starts `net` from `source`: imagenet, none, a checkpoint of ours or a published one. Returns what was loaded, and what not.

    layout and meanface (N, 2), in [0, 1] of the crop, are of the faces to train on.
    """
    if source == "none":
        return finetune.Started("random weights", [])
    if source == "imagenet":
        try:
            load_imagenet(net.backbone, net_row(net.spec["net"]))
        except OSError as error:
            warn(f"{error}; training starts from random weights")
            return finetune.Started("random weights", [])
        return finetune.Started("ImageNet weights", [])
    return finetune.start(net, Path(source), layout, meanface, warn)
