"""Reads tensors from files that may come from anybody: our checkpoints, published nets, state dicts. It runs no code."""

import pickle
import re
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from pipnet.bounds import MOST_SHARED, unpacked_size
from pipnet.errors import UserError, one_line
from utils.data.paths import MEANFACE_FILES
from utils.settings.memory import limited
from utils.settings.rules import NO_NET
from utils.train.schema import FORMAT, checked, is_whole

# fmt: off
# beginnings of the names of tensors of our nets
PARTS = "backbone", "neck", "head", "auxiliary", "refiner", "visibility", "face", "transformer", "places", "regressors", "points"
# fmt: on
WRAPPED = re.compile(r"^(module\.|_orig_mod\.)+")
LEAST = 1.0  # GiB that reading a small file may take


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


def load_weights(file: Path | str) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Return ({name: tensor}, the whole checkpoint or {} for a foreign file). float16 becomes float32.

    file: a path, or the paths of several published files of one net, joined by commas; one of NO_NET gives ({}, {}).
    UserError if one is missing, damaged, unknown, or holds code.
    """
    if file in NO_NET:
        return {}, {}
    files, _ = weights_and_mean_face(file)
    read = [_load_one(one) for one in files]  # DPR publishes its nets one by one
    tensors = {name: tensor for some, _ in read for name, tensor in some.items()}
    wide = {name: tensor.float() if tensor.dtype == torch.float16 else tensor for name, tensor in tensors.items()}
    return wide, read[0][1] if len(read) == 1 else {}


def first_three(names: list[str]) -> str:
    """Return the first three names, joined by commas, and ' ...' if there are more."""
    return f"{', '.join(names[:3])}{' ...' if names[3:] else ''}"


def _load_one(file: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    values = _read(file)
    if not isinstance(values, dict):
        values = {}
    known = values if {"format", "args"} <= values.keys() else {}
    if known:
        known = _checked(file, known)
    for key in ("model", "state_dict"):
        if isinstance(values.get(key), dict):
            values = values[key]
    if not values or not all(isinstance(value, torch.Tensor) for value in values.values()):
        raise UserError(
            f"{file} is not a checkpoint of this project, and holds no tensors by name as a state dict does"
        )
    if wrong := [name for name, tensor in values.items() if not is_whole(tensor)]:
        raise UserError(
            f"{file} does not hold the values of the tensor {wrong[0]}, as it is sparse, quantized, or claims more than "
            "there are; save the net's state dict again, on the CPU"
        )
    if sum(tensor.nbytes for tensor in values.values()) > MOST_SHARED * file.stat().st_size:
        raise UserError(f"{file} has tensors that share their values, {MOST_SHARED} times its size; save it again")
    try:
        return values if known else unwrapped(values), known
    except (TypeError, ValueError) as error:
        raise UserError(f"{file} does not hold the tensors of one net by name ({error})") from None


def _checked(file: Path, values: dict[str, Any]) -> dict[str, Any]:
    """Return the values of our checkpoint. UserError if it is of another version, incomplete or wrong."""
    if isinstance(found := values["format"], int) and found != FORMAT:
        raise UserError(f"{file} has checkpoint format {found}, this version reads {FORMAT}; train the net again")
    try:
        return checked(values)
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"{file} is not a whole checkpoint of this version: {error}; give another one, or train the net again"
        ) from None


def _read(file: Path) -> Any:
    if not file.is_file():
        raise UserError(f"no checkpoint at {file}")
    size = file.stat().st_size
    if (unpacked := unpacked_size(file)) > size:
        raise UserError(
            f"{file} is refused: its {size:,} bytes unpack to {unpacked:,}, and torch.save packs nothing; save it again"
        )
    try:
        with warnings.catch_warnings(action="ignore"), limited(LEAST + 3 * size / 2**30):
            if file.suffix == ".safetensors":
                return load_file(file)
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise UserError(
            f"{file} is refused: it is no .pt, and has no ending of an exported file (.onnx), or it holds more than tensors "
            "and plain values, so that loading it could run code; if you trust it, save its tensors with the code that made "
            "it: torch.save(torch.load(FILE, weights_only=False)['model'].state_dict(), 'state.pt'), and give state.pt"
        ) from None
    except Exception as error:  # the reader raises errors of any type for a damaged file
        raise UserError(f"{file} is not a readable checkpoint ({one_line(error) or type(error).__name__})") from None
