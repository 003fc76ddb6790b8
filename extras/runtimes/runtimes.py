"""Exports for other runtimes than onnxruntime. Each writer makes files in the folder of `file` only."""

import io
import shutil
import subprocess
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from pipnet.errors import UserError, one_line
from pipnet.module_path import python
from pipnet.runtimes import import_runtime, open_file, silent
from utils.export.files import Source, Unnamed
from utils.settings.formats import REMEDIES, lacking

INTEGERS = (torch.int32, torch.int64)


def _run(command: list[str], file: Path, what: str) -> None:
    """Run a converter. If it fails or writes nothing, raise UserError with the last line that it printed."""
    done = subprocess.run(command, cwd=file.parent, capture_output=True, text=True, errors="replace")
    if done.returncode or not file.is_file():
        lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()] or ["no message"]
        reason = next((line for line in lines if "Not Support" in line), lines[-1])
        raise UserError(f"{what} cannot convert this net ({one_line(reason)}); leave this format out")


def _needed(package: str, file: Path) -> Any:
    """Import a package that a format needs. An error gives the name of its file, whose folder is a temporary one."""
    return import_runtime(package, Path(file.name))


def write_mnn(source: Source, file: Path) -> None:
    """Write the ONNX graph for MNN, with float32 weights."""
    _needed("MNN", file)
    # the command `mnnconvert` installs a package and sends a report of its use; the function that it calls does neither
    _run(
        [
            *python("import _tools; _tools.mnnconvert(sys.argv)"),
            "-f",
            "ONNX",
            "--modelFile",
            str(source.onnx.absolute()),
            "--MNNModel",
            str(file),
            "--bizCode",
            "MNN",
        ],
        file,
        "MNN",
    )


def write_tflite(source: Source, file: Path) -> None:
    """Write the net for LiteRT, once TensorFlow Lite, with float32 weights. Input: one picture at a time."""
    if missing := lacking(["tflite"], ()):
        raise UserError(f"{file.name} needs the package {missing}; {REMEDIES[missing]}")
    litert_torch, example = _needed("litert_torch", file), source.example[:1]
    try:
        with silent():
            model = litert_torch.convert(Unnamed(source.net, source.index).eval(), sample_kwargs={"image": example})
            model(image=example)  # some operators are written that LiteRT does not have
    except (AssertionError, RuntimeError, ValueError) as error:
        raise UserError(f"LiteRT cannot run this net ({one_line(error)}); leave this format out") from None
    model.export(str(file))


def write_coreml(source: Source, file: Path) -> None:
    """Write a zipped .mlpackage for Core ML (iOS 16, macOS 13), in float32. Input: a BGR picture; one at a time."""
    coremltools = _needed("coremltools", file)
    shape = _trace_planes(source, file.parent)
    picture = coremltools.ImageType("image", shape, color_layout=coremltools.colorlayout.BGR)
    values = source.metadata()
    outputs = [coremltools.TensorType(name) for name in open_file(source.onnx, 1).outputs]
    try:
        net = coremltools.convert(
            torch.jit.load(file.parent / "traced.pt"),
            inputs=[picture],
            outputs=outputs,
            minimum_deployment_target=coremltools.target.iOS16,
            compute_precision=coremltools.precision.FLOAT32,
        )
    except (NotImplementedError, RuntimeError, ValueError) as error:
        raise UserError(f"Core ML cannot run this net ({one_line(error)}); leave this format out") from None
    net.user_defined_metadata.update(values)
    package = file.with_name(file.name.removesuffix(".zip"))
    net.save(str(package))
    shutil.make_archive(str(package), "zip", file.parent, package.name)
    _keep(file.parent, file.name)


def _keep(folder: Path, *names: str) -> None:
    """Remove all but these files from the folder of a converter."""
    for path in folder.iterdir():
        if path.name not in names:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _trace_planes(source: Source, folder: Path) -> tuple[int, ...]:
    """Write traced.pt, the net for one float picture (1, 3, S, S) from 0 to 255, to a folder. Return this shape."""
    example = source.example[:1].permute(0, 3, 1, 2).float()
    with Arithmetic():
        _trace(_Planes(source.net, source.index), example, folder / "traced.pt")
    return tuple(example.shape)


def _trace(module: nn.Module, example: Tensor, file: Path) -> None:
    with torch.inference_mode(), warnings.catch_warnings(action="ignore"), io.BytesIO() as data:
        torch.jit.save(torch.jit.trace(module, example, check_trace=False), data)
        file.write_bytes(data.getvalue())  # where the disk is full, torch's own writer ends the process


class _Planes(Unnamed):
    """The exported module for float pictures (B, 3, S, S) from 0 to 255."""

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        return super().forward(image.permute(0, 2, 3, 1))


class Arithmetic(TorchFunctionMode):
    """A context in which argmax, gather and similar functions are computed in floats; results are the same.

    Core ML stacks no integers on floats, so an index is a float here, and integers that are combined with floats are
    turned into floats first.
    """

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs, name = kwargs or {}, getattr(function, "__name__", "")
        if name == "argmax":
            return _first_maximum(*args, **kwargs)
        if name == "max" and len(args) == 2:
            return args[0].amax(args[1]), _first_maximum(*args)
        if name == "gather":
            return _gathered(*args, **kwargs)
        if name == "__getitem__" and _names_columns(args[1]):
            return _columns(args[0], torch.as_tensor(args[1][1]))
        if name in ("remainder", "__mod__"):
            return args[0] - _quotient(*args) * args[1]
        if name == "div" and kwargs.get("rounding_mode") == "floor":
            return _quotient(*args)
        if name == "to" and args[0].is_floating_point():  # all numbers are float32 already
            return args[0]
        if any(isinstance(arg, Tensor) and arg.is_floating_point() for arg in args):
            args = tuple(arg.float() if isinstance(arg, Tensor) and arg.dtype in INTEGERS else arg for arg in args)
        return function(*args, **kwargs)


def _first_maximum(values: Tensor, dim: int) -> Tensor:
    """Return the index of the first maximum along `dim`, as a float."""
    largest = ((values - values.amax(dim, keepdim=True)) * 1e30 + 1).clamp(0, 1)  # 1 at maxima, 0 elsewhere
    return (torch.arange(values.shape[dim]).float() + 1e6 * (1 - largest)).amin(dim)


def _quotient(index: Tensor, width: int) -> Tensor:
    """Return index // width of whole numbers. Half a step is added, because a quotient of floats may be just below."""
    return ((index + 0.5) / width).floor()


def _gathered(values: Tensor, dim: int, index: Tensor) -> Tensor:
    """Return `values.gather(dim, index)` for the last dimension of a batch of one."""
    rows = values.flatten(0, -2).shape[0]
    first = (torch.arange(rows) * values.shape[-1]).float().reshape(*values.shape[:-1], 1)
    return _read(values.reshape(1, 1, 1, -1), (index + first).flatten()).reshape(index.shape)


def _names_columns(place) -> bool:
    """Return whether the `place` in brackets is `:, table`, with a table of integers as a tensor or as a list."""
    return (
        isinstance(place, tuple)
        and len(place) == 2
        and place[0] == slice(None)
        and isinstance(place[1], (Tensor, list))
    )


def _columns(values: Tensor, table: Tensor) -> Tensor:
    """Return `values[:, table]` for values (B, M, ...) and a constant table of integers."""
    row = values.reshape(len(values), values.shape[1], -1).transpose(1, 2)[:, :, None]  # (B, C, 1, M)
    return _read(row, table.flatten()).transpose(1, 2).reshape(len(values), *table.shape, *values.shape[2:])


def _read(row: Tensor, places: Tensor) -> Tensor:
    """Return the values (B, C, K) at `places` (K,) of pictures of one row (B, C, 1, M)."""
    across = (2 * places.float() + 1) / row.shape[-1] - 1
    grid = torch.stack([across, torch.zeros_like(across)], -1)[None, None]
    return torch.nn.functional.grid_sample(row, grid, mode="nearest", align_corners=False)[:, :, 0]
