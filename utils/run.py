"""An experiment's folder weights/<exp>/: which one is meant, what is in it, and what goes into a checkpoint."""
import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import torch

from nets import Net, build_net
from utils import checkpoint
from utils.config import Layout, nearest
from utils.errors import UserError
from utils.export import export_onnx

SUFFIXES = (".pt", ".onnx")


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
        folder = Path(exp) if Path(exp).is_dir() or "/" in exp else root / exp
    run = Run(folder, folder / "best.pt")
    if not train and not run.weights.is_file():
        names = sorted(path.parent.name for path in root.glob("*/best.pt")) if root.is_dir() else []
        known = f"there are: {', '.join(names[-10:])}" if names else "nothing is trained yet"
        raise UserError(f"no trained net in {folder} ({known}){nearest(exp or '', names)}")
    return run


def check_free(run: Run, resume: bool, overwrite: bool) -> None:
    """Training must not destroy a run by accident, nor resume nothing."""
    if resume and not run.last.is_file():
        raise UserError(f"{run.folder} has no last.pt to resume; train without --resume")
    if not resume and not overwrite and (run.last.is_file() or run.weights.is_file()):
        raise UserError(f"{run.folder} already holds a run; give --resume to go on, --overwrite to replace it, or another --exp")


def clear(run: Run) -> None:
    """Removes what an earlier training left, and only that; the log goes on."""
    for name in ("best.pt", "best.onnx", "last.pt", "step.csv", "time.csv", "args.yaml"):
        (run.folder / name).unlink(missing_ok=True)
    for name in ("report", "events"):
        shutil.rmtree(run.folder / name, ignore_errors=True)


def log_epoch(events, row: dict, speed: dict) -> None:
    """An epoch's figures for TensorBoard."""
    for key, value in {**row, **{f"time/{key}": value for key, value in speed.items()}}.items():
        if not key.endswith("epoch"):
            events.add_scalar(key, value, row["epoch"] + 1)
    events.flush()


def export(run: Run) -> None:
    """Writes the run's ONNX file unless it is there and newer; its metadata carry all that a user of the file needs."""
    if run.onnx.is_file() and run.onnx.stat().st_mtime_ns >= run.weights.stat().st_mtime_ns:
        return
    net, _, stored = unpack(run.weights)
    metadata = {key: stored[key] for key in ("layout", "protocol", "epoch", "val_nme")}
    spec = {key: value for key, value in stored["net"].items() if key != "neighbor_index"}
    export_onnx(net, run.onnx, {**metadata, "net": spec, "input_size": net.spec["input_size"], "channels": "BGR"})


def pack(net_spec: dict, layout: Layout, protocol: dict, args: SimpleNamespace, state: dict, **more) -> dict:
    """All that inference and tests need, as a checkpoint; `more` joins it (epoch, figures, training state)."""
    values = {key: value for key, value in vars(args).items() if key != "tables"}
    return {"format": checkpoint.FORMAT, "net": net_spec, "layout": layout.to_dict(), "protocol": protocol, "args": values,
            "model": {name: tensor.detach().cpu() for name, tensor in state.items()}, **more}


def unpack(file: Path) -> tuple[Net, Layout, dict]:
    """(net with its weights, layout, the whole checkpoint). UserError for a file that does not fit itself."""
    values = checkpoint.load(file)
    try:
        net, layout = build_net(values["net"]), Layout.from_dict(values["layout"])
        net.load_state_dict(values["model"])
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RuntimeError) as error:
        raise UserError(f"{file} does not describe a net that this version can build ({str(error).splitlines()[0]})") from None
    return net, layout, values


def initialise(net: Net, source: str, warn) -> str:
    """Starts `net` from `source` (imagenet, none or a checkpoint of ours). Returns what was loaded, for the log."""
    from nets import net_row
    from nets.row import load_imagenet
    if source == "none":
        return "random weights"
    if source == "imagenet":
        try:
            load_imagenet(net.backbone, net_row(net.spec["net"]))
        except OSError as error:
            warn(f"{error}; training starts from random weights")
            return "random weights"
        return "ImageNet weights"
    stored, own = checkpoint.load(Path(source))["model"], net.state_dict()
    fitting = {name: tensor for name, tensor in stored.items() if name in own and own[name].shape == tensor.shape}
    if not any(torch.is_floating_point(tensor) for tensor in fitting.values()):
        raise UserError(f"{source} holds no tensor that fits {net.spec['net']}; give a checkpoint of the same backbone")
    net.load_state_dict(fitting, strict=False)
    left = sorted(set(own) - set(fitting))
    new = f" (new: {', '.join(left[:4])}{' ...' if len(left) > 4 else ''})" if left else ""
    return f"{len(fitting)} of {len(own)} tensors of {source}{new}"
