"""Checkpoints: they are written completely or not at all, and reading one runs no code from it."""

import pickle
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from nets import Trainable, build_net, no_larger
from pipnet.card import LandmarkCard
from pipnet.detector import exported_card
from pipnet.errors import UserError, one_line
from pipnet.files import unpacked_size, write_atomic
from pipnet.landmark_net import DETECTS, LandmarkNet
from pipnet.layout import Layout
from pipnet.runtimes import RUNTIMES, open_file
from utils.data.paths import MEANFACE_FILES
from utils.settings.config import Defaults, check_values
from utils.settings.extras import extra
from utils.settings.memory import limited
from utils.train.make_net import trained_states
from utils.train.schema import FORMAT, check_checkpoint, is_whole

OURS = {
    "format",
    "net",
    "layout",
    "protocol",
    "args",
}  # keys of our checkpoints; foreign files do not have most of them
PARTS = (
    "backbone",
    "neck",
    "head",
    "auxiliary",
    "refiner",
    "visibility",
    "face",
    "transformer",
    "places",
    "regressors",
)
WRAPPED = re.compile(r"^(module\.|_orig_mod\.)+")
STRUCTURE = ("net", "head", "stride", "input_size", "act", "pool", "excite", "score_width")
STAGES = ("refine", "reinit", "local_parts")
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")  # of batch norms
MOST_SHARED = 4  # bytes of the tensors in a file / bytes of the file: some share their values
LEAST = 1.0  # GiB that reading a small file may take
SAVED = b"PK", b"\x80"  # how files of torch.save begin: a zip or, written by old versions, a pickle


def weights_and_mean_face(text: Path | str) -> tuple[list[Path], Path | None]:
    """Return (files of weights, file of their mean face or None). text: one path, or several joined by commas.
    UserError for a mean face alone.
    """
    files = [Path(one) for one in ([text] if Path(text).is_file() else str(text).split(","))]
    means = [file for file in files if file.suffix in MEANFACE_FILES]
    weights = [file for file in files if file not in means]
    if not weights:
        raise UserError(f"{text} is no net: files {' and '.join(MEANFACE_FILES)} hold mean faces; name the net's file")
    return weights, means[0] if means else None


def are_our_names(state: dict[str, torch.Tensor]) -> bool:
    """Return whether all names of a state dict are ours."""
    return all(name.partition(".")[0] in PARTS for name in state)


def unwrapped(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return a state dict without the prefixes that DataParallel and torch.compile put before all names.

    Raises ValueError if two names become one.
    """
    plain = {WRAPPED.sub("", name): tensor for name, tensor in state.items()}
    if len(plain) < len(state):
        raise ValueError("it names some tensors both with and without the prefix 'module.'; it mixes two nets")
    return plain


def save(file: Path, values: dict[str, Any]) -> None:
    """Write tensors and plain values, so that `load` needs no pickled code."""

    def write(path: Path) -> None:
        try:
            with open(path, "wb") as handle:  # with a path, torch does not say that the disk is full
                torch.save(values, handle)
        except RuntimeError as error:  # torch could not end the file, which hides what interrupted it
            cause = error.__context__
            raise cause if isinstance(cause, (OSError, KeyboardInterrupt)) else error from None

    write_atomic(file, write)


def unpack(file: Path | str, defaults: Defaults | None = None) -> tuple[Trainable, Layout, dict[str, Any]]:
    """Return (landmark net with its weights, layout, the whole checkpoint).
    UserError if net and weights do not fit together.

    defaults: see `load`.
    """
    if Path(file).suffix in RUNTIMES:
        raise no_weights(file)
    values = load(file, defaults)
    if values["args"].get("task") == "detect":
        raise UserError(f"{file} {DETECTS}")
    return built(file, values), Layout.from_dict(values["layout"]), values


def no_weights(file: Path | str) -> UserError:
    """Return the error for an exported file where a checkpoint is needed."""
    return UserError(f"{file} cannot be loaded with torch; give the .pt that it was exported from")


def built(file: Path | str, values: dict[str, Any]) -> Trainable:
    """Return the net of a checkpoint's values, with its weights.
    UserError if they do not fit together; nothing is made of a net that is far larger than its weights.
    """
    try:
        with no_larger(sum(tensor.numel() for tensor in values["model"].values())):
            net = build_net(values["net"])
        net.load_state_dict(values["model"])
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RuntimeError) as error:
        raise UserError(f"{file} does not describe a net that this version can build ({one_line(error)})") from None
    return net


def described(net: Trainable, stored: dict[str, Any]) -> LandmarkNet:
    """Return the `LandmarkNet` that a checkpoint describes; its `predict` is None."""
    values = {
        "input_size": net.spec["input_size"],
        "input_margin": net.input_margin,
        "outputs": {name: [] for name in net.spec["auxiliary"]},
        "states": trained_states(stored),
    }
    return LandmarkNet.of(None, LandmarkCard.of({**stored, **values}))


def load(file: Path | str, defaults: Defaults | None = None) -> dict[str, Any]:
    """Return the values of a checkpoint, on the CPU.
    A published file gives the same values; an exported one has no weights.

    file: a path, or the paths of several published files of one net, joined by commas. defaults: args.yaml, whose
    presets and tables describe published and exported landmark nets; without it only our own checkpoints are read.
    UserError if a file is missing, damaged, unknown, or holds code.
    """
    if Path(file).suffix in RUNTIMES:
        return {"format": FORMAT, "model": {}, **_export_values(Path(file), defaults)}
    tensors, known = load_weights(file)
    if not known and defaults is None:
        raise UserError(f"{file} is not a checkpoint of this project")
    return known or {"format": FORMAT, **extra("systems").checkpoint_values(file, tensors, defaults)}


def _export_values(file: Path, defaults: Defaults | None) -> dict[str, Any]:
    """Return the values of a checkpoint, without weights, for an exported file. UserError for unknown files.

    defaults: args.yaml, by which published files are described; None is enough for a detector.
    """
    opened = open_file(file, 1)
    values = opened.values
    if {*opened.outputs} == {"boxes", "scores"}:
        exported_card(values, file)
        args = {
            "task": "detect",
            "val": values.get("figures", {}).get("val", "none"),
            "train_data": values.get("train_data"),
        }
        args = check_values(args, str(file))
        return {**values, "layout": {}, "protocol": {}, "args": args, "net": {"net": values.get("net", "faceboxes")}}
    if not {"landmarks", "score"} <= {*opened.outputs}:
        return extra("systems").graph_values(file, opened, defaults)
    net = LandmarkNet.of_export(opened, file)
    known = {**defaults.layouts.rows, **values.get("layouts", {})}
    name = net.layout.name if net.layout.name in known else net.layout.stored
    protocol = next((row for row, same in defaults.protocols.items() if same == values["protocol"]), file.stem)
    args = {
        "task": "landmarks",
        "layout": name,
        "protocol": protocol,
        "val": "none",
        **{key: values[key] for key in ("norm", "val", "train_data") if key in values},
    }
    return {
        **values,
        "layout": net.layout.to_dict(),
        "args": check_values(args, str(file)),
        "net": {"net": values.get("net"), "head": values.get("head", "pip"), "input_size": net.size},
    }


def structure(tensors: dict[str, torch.Tensor], known: dict[str, Any], defaults: Defaults) -> dict[str, Any]:
    """Return the keys of args.yaml that a net takes over from the trained landmark net in a file; {} for a backbone.

    tensors, known: see `load_weights`. A stage that the file lacks is not among the keys, since it can be added.
    """
    if known:
        values = {**known["args"], **known["net"]}
    else:
        values = {} if are_our_names(tensors) else extra("systems").settings_in(tensors, defaults)
    return {key: values[key] for key in STRUCTURE if key in values} | {key: True for key in STAGES if values.get(key)}


def about(file: Path, stored: dict[str, Any]) -> str:
    """Return a description of a tested file: its name, the epoch if it is known, the net and its number of parameters."""
    epoch = stored.get("epoch")
    names = ", ".join(one.name for one in weights_and_mean_face(file)[0])
    return f"{names}{'' if epoch is None else f' of epoch {epoch + 1}'}: {in_words(stored['model'], stored)}"


def in_words(tensors: Mapping[str, torch.Tensor], values: Mapping[str, Any]) -> str:
    """Return the net's name, its published system and its number of parameters, in words. values: of its checkpoint."""
    counted = (tensor for name, tensor in tensors.items() if not name.endswith(STATISTICS))
    whose = f" of {values['system']}" if "system" in values else ""
    size = sum(tensor.numel() for tensor in counted) / 1e6
    return f"{values['net'].get('net') or 'a net'}{whose}{f', {size:.2f} M parameters' if size else ''}"


def first_three(names: list[str]) -> str:
    """Return the first three names, joined by commas, and ' ...' if there are more."""
    return f"{', '.join(names[:3])}{' ...' if names[3:] else ''}"


def _check(file: Path, values: dict[str, Any]) -> None:
    """Raise UserError if our checkpoint is of another version, incomplete or wrong."""
    if isinstance(found := values.get("format"), int) and found != FORMAT:
        raise UserError(f"{file} has checkpoint format {found}, this version reads {FORMAT}; train the net again")
    try:
        check_checkpoint(values)
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"{file} is not a whole checkpoint of this version: {error}; give another one, or train the net again"
        ) from None


def load_weights(file: Path | str) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Return ({name: tensor}, the whole checkpoint or {} for a foreign file). float16 becomes float32.
    UserError as in `load`.
    """
    files, _ = weights_and_mean_face(file)
    read = [_load_one(one) for one in files]  # DPR publishes its nets one by one
    tensors = {name: tensor for some, _ in read for name, tensor in some.items()}
    wide = {name: tensor.float() if tensor.dtype == torch.float16 else tensor for name, tensor in tensors.items()}
    return wide, read[0][1] if len(read) == 1 else {}


def _load_one(file: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    values = _read(file)
    known = values if isinstance(values, dict) and len(OURS & values.keys()) > len(OURS) / 2 else {}
    if known:
        _check(file, known)
    for key in ("model", "state_dict"):
        if isinstance(values, dict) and isinstance(values.get(key), dict):
            values = values[key]
    if (
        not isinstance(values, dict)
        or not values
        or not all(isinstance(value, torch.Tensor) for value in values.values())
    ):
        raise UserError(
            f"{file} is not a checkpoint of this project, and holds no tensors by name as a state dict does"
        )
    if wrong := [name for name, tensor in values.items() if not is_whole(tensor)]:
        raise UserError(
            f"{file} does not hold the values of the tensor {wrong[0]}, as it is sparse, quantized, or claims more than "
            "there are; save the net's state dict again, on the CPU"
        )
    if sum(tensor.nbytes for tensor in values.values()) > MOST_SHARED * Path(file).stat().st_size:
        raise UserError(f"{file} has tensors that share their values, {MOST_SHARED} times its size; save it again")
    try:
        return values if known else unwrapped(values), known
    except (TypeError, ValueError) as error:
        raise UserError(f"{file} does not hold the tensors of one net by name ({error})") from None


def _read(file: Path):
    if not Path(file).is_file():
        raise UserError(f"no checkpoint at {file}")
    size = Path(file).stat().st_size
    if (unpacked := unpacked_size(file)) > size:
        raise UserError(
            f"{file} is refused: its {size:,} bytes unpack to {unpacked:,}, and torch.save packs nothing; save it again"
        )
    try:
        with warnings.catch_warnings(action="ignore"), limited(LEAST + 3 * size / 2**30):
            if Path(file).suffix == ".safetensors":
                return load_file(file)
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        with open(file, "rb") as content:
            if not content.read(2).startswith(SAVED):
                raise UserError(
                    f"{file} is no checkpoint; give a .pt, or an exported file with its ending (.onnx)"
                ) from None
        raise UserError(
            f"{file} is refused: it holds more than tensors and plain values, loading it could run code; if you "
            "trust it, save its tensors with the code that made it: torch.save(torch.load(FILE, "
            "weights_only=False)['model'].state_dict(), 'state.pt'), and give state.pt"
        ) from None
    except Exception as error:  # the reader raises errors of any type for a damaged file
        raise UserError(f"{file} is not a readable checkpoint ({one_line(error) or type(error).__name__})") from None
