"""Export of a whole net to ONNX: normalisation, decode and merge are in the graph; its metadata say how to cut the
crop.
"""

import json
import logging
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterable, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from nets import Prediction, Trainable
from pipnet.errors import UserError, one_line
from pipnet.files import set_aside, write_atomic, write_text
from pipnet.geometry import border_px
from pipnet.runtimes import metadata_file, open_file
from pipnet.shipped import checksum, read_manifest
from utils.evaluate.evaluate import Predict
from utils.settings import rooms
from utils.settings.formats import FORMATS, files_of

OPSET = 18
BATCH = {0: torch.export.Dim("batch", min=1)}  # any number of pictures
RAW = ("stride", "neighbor_index")  # of a net's spec, to decode its maps with


class Source(NamedTuple):
    """Files and nets that the other formats are made from.

    onnx: the float ONNX file; feeds(): yields inputs of that file for the calibration of 8-bit numbers
    net: the net as it is exported, with a method `predict`; example: pictures uint8 (2, S, S, 3) for it
    detector: the file that finds the faces for a landmark net
    int8: the 8-bit ONNX file, for a format that is made from it
    origin: entries of the metadata that the ONNX file lacks, such as the one that names the weights
    index: the landmarks that the exported net gives; None: all
    """

    onnx: Path
    feeds: Callable[[], Iterable[dict[str, np.ndarray]]]
    net: Any = None
    example: Tensor = torch.empty(0)
    detector: Path | None = None
    origin: dict[str, str] = {}
    index: tuple[int, ...] | None = None
    int8: Path | None = None

    def metadata(self) -> dict[str, str]:
        """Return the metadata, as they are stored, for a file that is made from this source."""
        return stored_in(self.onnx) | self.origin


class Unnamed(nn.Module):
    """The exported module: image uint8 (B, S, S, 3) BGR -> landmarks (B, N, 2) in [0, 1] of the crop, score (B, N), ...

    index: the landmarks that it gives; None: all.
    """

    def __init__(self, net: Trainable, index: Sequence[int] | None = None):
        super().__init__()
        self.net, self.index = net, index and list(index)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        found = self.net.predict(image)
        return tuple(part for part in (found.select(self.index) if self.index else found) if part is not None)


class Raw(Unnamed):
    """The exported module that gives the maps of the head."""

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.net.maps(image).values())


@contextmanager
def _quiet():
    """Silence the exporter's messages; its errors are exceptions."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def deployed(net: Trainable) -> Trainable:
    """Return a copy of a net for export: float32 on the CPU, one convolution for each block of branches."""
    return net.eval().reparameterized().float().cpu().to(memory_format=torch.contiguous_format).eval()


def example_for(size: int, margin: float) -> Tensor:
    """Return random pictures (2, S, S, 3) uint8 for a net of that input size and margin."""
    side = size + 2 * border_px(size, margin)
    return torch.randint(0, 256, (2, side, side, 3), dtype=torch.uint8)


def export_onnx(net: Trainable, file: Path, metadata: dict, index: Sequence[int] | None = None) -> None:
    """Write a net as an ONNX file, whole or not at all. metadata: {name: plain value}, stored as JSON.
    index: see `Unnamed`.
    """
    net, example = deployed(net), example_for(net.spec["input_size"], net.input_margin)
    names = [name for name, part in zip(Prediction._fields, net.predict(example), strict=True) if part is not None]
    write_onnx(folded(onnx_graph(Unnamed(net, index), example, names, BATCH)), file, metadata)


def write_raw(source: Source, file: Path) -> None:
    """Write an ONNX file that returns the maps of the head, see `Net.maps`, for programs with a decoder of their own."""
    net = source.net
    assert net
    metadata = source.metadata() | {key: net.spec[key] for key in RAW if key in net.spec}
    write_onnx(
        folded(onnx_graph(Raw(net), source.example, list(net.maps(source.example)), BATCH)),
        file,
        metadata,
    )


def onnx_graph(module: nn.Module, example: Tensor, names: list[str], sizes: dict[int, Any]):
    """Return the ONNX model of a module with the input `image`.
    names: of its outputs; sizes: {axis that may vary: its `Dim`}.
    """
    with _quiet(), torch.inference_mode():
        return torch.onnx.export(
            module.eval(),
            (example,),
            input_names=["image"],
            output_names=names,
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
            dynamic_shapes={"image": sizes},
        ).model_proto


def stored_in(file: Path) -> dict[str, str]:
    """Return the metadata of an ONNX file as they are stored."""
    import onnx

    return {entry.key: entry.value for entry in onnx.load(file, load_external_data=False).metadata_props}


def folded(model):
    """Return the graph after onnxruntime's basic optimisations, so that other runtimes gain by them too.

    Constants are computed, operations without effect removed, additions moved into convolutions, transpositions joined.
    Only standard operators are left.
    """
    import onnx
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level, options.log_severity_level = (
        onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC,
        3,
    )
    with tempfile.TemporaryDirectory() as folder:
        options.optimized_model_filepath = str(Path(folder) / "folded.onnx")
        try:
            onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's exceptions share no base class
            raise UserError(
                f"onnxruntime cannot optimise the graph ({one_line(error)}); if {folder} is full, free some "
                "space, or let TMPDIR name another folder"
            ) from None
        model = onnx.load(options.optimized_model_filepath)
    standard = [entry for entry in model.opset_import if not entry.domain]
    del model.opset_import[:]  # onnxruntime names every domain that it knows
    model.opset_import.extend(standard)
    return model


def write_onnx(model, file: Path, metadata: dict) -> None:
    """Write a graph with `metadata`, whole or not at all.
    The exporter's notes, which name files of this machine, are removed.
    """
    import onnx

    for part in (
        *model.graph.node,
        *model.graph.value_info,
        *model.graph.input,
        *model.graph.output,
        *model.graph.initializer,
    ):
        part.ClearField("metadata_props")
    for key, value in metadata.items():
        model.metadata_props.add(key=key, value=value if isinstance(value, str) else json.dumps(value))
    onnx.checker.check_model(model)
    write_atomic(file, lambda path: path.write_bytes(model.SerializeToString()))


def write_format(name: str, source: Source, file: Path) -> None:
    """Write the files of a format other than ONNX, each completely or not at all.
    The metadata, with the source, come last.

    UserError if the net cannot be converted, the format's package is missing, or there is no room for temporary files.
    """
    values = open_file(source.onnx).values | source.origin
    del values["inputs"]  # others than those of the ONNX file
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / file.name
        try:
            write_raw(source, made) if name == "raw" else rooms.runtimes.write(name, source, made)
            if file.suffix != ".onnx":
                write_text(metadata_file(made), json.dumps(values, indent=1) + "\n")
                if FORMATS[name].same:
                    open_file(made, 1)  # some converters do not notice that a disk is full
        except Exception as error:  # whatever a converter without room raises
            if _has_room(made.parent, 2 * source.onnx.stat().st_size):
                raise
            raise UserError(
                f"{file} cannot be made: {made.parent.parent}, the folder for temporary files, has too little space; "
                "free some, or let TMPDIR name another folder"
            ) from error
        for path in sorted(made.parent.iterdir(), key=lambda path: (path == metadata_file(made), path == made)):
            write_atomic(file.with_name(path.name), partial(shutil.copyfile, path))


def _has_room(folder: Path, size: int) -> bool:
    """Return whether so many bytes can be written to a folder."""
    try:
        with tempfile.TemporaryFile(dir=folder) as handle:
            handle.write(bytes(size))
            handle.flush()
    except OSError:
        return False
    return True


def known_exports(folder: Path) -> dict[str, dict]:
    """Return the entries of a run's manifest. UserError for a damaged one."""
    return read_manifest(folder, "remove it, and export again")


def write_manifest(folder: Path, exports: list[Path]) -> None:
    """Add sizes and checksums of exports, and of the files that belong to them, to a folder's manifest; other entries
    stay.
    """
    entries = known_exports(folder)
    for export in exports:
        for path in filter(Path.is_file, files_of(export)):
            known = {"sha256": checksum(path), "bytes": path.stat().st_size}
            entries[path.name] = {**entries.get(path.name, {}), **known}
    write_text(folder / "manifest.json", json.dumps(entries, indent=1) + "\n")


def check_copies(exports: list[Path], folder: Path, overwrite: bool) -> None:
    """Raise UserError if exports cannot be copied into a folder: it is a file, or holds such a file without `overwrite`."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--out: {folder} is a file; name a folder for the exports")
    for export in exports:
        if (folder / export.name).exists() and not overwrite:
            raise UserError(
                f"--out: {folder / export.name} exists; give --overwrite to move it aside, or another folder"
            )


def write_copies(exports: list[Path], folder: Path) -> list[Path]:
    """Copy exports, and the files that belong to them, into a folder. What has their names there is moved aside.
    Return their new paths.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for export in exports:
        for file in reversed(files_of(export)):
            target = folder / file.name
            if target.exists():
                set_aside(target)
            if file.is_file():
                write_atomic(target, partial(shutil.copyfile, file))
    return [folder / export.name for export in exports]


def from_arrays(run: Callable[[np.ndarray], dict[str, np.ndarray]]) -> Predict:
    """Return a predictor from a function of arrays, such as the `predict` of a LandmarkNet."""
    return lambda images: Prediction(
        **{name: torch.from_numpy(value) for name, value in run(images.cpu().numpy()).items()}
    )
