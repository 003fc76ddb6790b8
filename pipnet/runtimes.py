"""Exported files in the runtimes that read them, behind one interface: arrays by name in, arrays by name out."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pipnet.bounds import MOST_METADATA, MOST_THREADS
from pipnet.cores import cores
from pipnet.device import refuse_cuda
from pipnet.errors import UserError, as_text, is_integer, one_line
from pipnet.files import parse_json, read_bytes
from pipnet.packages import import_package
from pipnet.session import metadata, open_session

Arrays = dict[str, np.ndarray]
FOREIGN = {".param": "ncnn", ".xml": "OpenVINO", ".torchscript": "TorchScript"}  # runtimes that get the net otherwise


class Opened(NamedTuple):
    """An opened file.

    run: {input: array} -> {output: array}; inputs, outputs: names; values: the metadata, with `inputs` (ONNX only) and
    `outputs`, {name: shape without the batch}, if the shapes are known
    """

    run: Callable[[Arrays], Arrays]
    inputs: list[str]
    outputs: list[str]
    values: dict[str, Any]


def open_file(file: Path | str, threads: int = 0, remedy: str = "name another file") -> Opened:
    """Return an exported net, opened in the runtime of its suffix, see RUNTIMES. threads: 0 takes all cores.

    UserError for a file that is missing (`remedy` says what to do then), damaged or of another kind, if the package of
    the runtime is missing, and for a wrong number of threads.
    """
    file = Path(file)
    if not is_integer(threads, 0, MOST_THREADS):
        raise UserError(
            f"threads must be a whole number up to {MOST_THREADS}, or 0 for all cores, not {as_text(threads)}"
        )
    if file.suffix not in RUNTIMES:
        known = ", ".join(suffix for suffix in RUNTIMES if suffix not in FOREIGN)
        raise UserError(f"{file} has none of the suffixes of exported nets ({known}); {remedy}")
    if not file.is_file():
        raise UserError(f"no file at {file}; {remedy}")
    if file.suffix not in (".onnx", *FOREIGN):
        refuse_cuda(file)
    opened = RUNTIMES[file.suffix](file, int(threads))

    def run(feeds: Arrays) -> Arrays:
        try:
            return opened.run(feeds)
        # also for shapes that the metadata state wrongly
        except (RuntimeError, SystemError, TypeError, ValueError) as error:
            raise UserError(
                f"{file} cannot be run ({one_line(error)}); export the net again, or name another file"
            ) from None

    return opened._replace(run=run)


def metadata_file(file: Path) -> Path:
    """Return the path of the JSON file with the metadata of an export that cannot store them: {name: value}, see
    `Opened`.
    """
    return Path(f"{file}.json")


def stored_values(file: Path) -> dict[str, Any]:
    """Return the metadata of an exported file; {} if they are missing or damaged. Only ONNX files are opened for them."""
    try:
        return metadata(open_session(file, 1)) if file.suffix == ".onnx" else _stored(file)
    except UserError:
        return {}


def _stored(file: Path, need: bool = True) -> dict[str, Any]:
    """Return the metadata beside a file. If they are missing: UserError, or without `need` {"outputs": {}}."""
    if not metadata_file(file).is_file():
        if not need:
            return {"outputs": {}}
        raise UserError(
            f"{file} is no export of this project, or {metadata_file(file).name}, which main.py writes beside it, is missing; "
            f"nets of others are read from ONNX: give {file.stem}.onnx"
        )
    try:
        values = parse_json(read_bytes(metadata_file(file), MOST_METADATA))
        return {**values, "outputs": dict(values["outputs"])}
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"{metadata_file(file)} is damaged; it belongs to {file.name}, export the net again") from None


def import_runtime(name: str, file: Path) -> Any:
    """Import the package of a runtime, without its greeting. UserError where it is missing or does not load."""
    with silent():
        return import_package(name, f"{file} needs")


@contextmanager
def silent() -> Iterator[None]:
    """Discard what compiled code prints: runtimes print a greeting on stdout, where the demo may write its JSON."""
    kept = [os.dup(number) for number in (1, 2)]
    with open(os.devnull, "wb") as nothing:
        try:
            for number in (1, 2):
                os.dup2(nothing.fileno(), number)
            yield
        finally:
            for number, before in zip((1, 2), kept, strict=True):
                os.dup2(before, number)
                os.close(before)


def _refuse(file: Path, runtime: str) -> UserError:
    return UserError(f"{file} is not a file that {runtime} can run; export the net again")


def _one_by_one(
    run_one: Callable[..., list[np.ndarray]], inputs: list[str], outputs: list[str]
) -> Callable[[Arrays], Arrays]:
    """Return the `run` of a runtime that takes one picture at a time.
    run_one: inputs -> outputs, both without the batch axis.
    """

    def run(feeds: Arrays) -> Arrays:
        rows = zip(*(np.ascontiguousarray(feeds[name]) for name in inputs), strict=True)
        found = zip(*(run_one(*row) for row in rows), strict=True)
        return {name: np.stack(values) for name, values in zip(outputs, found, strict=True)}

    return run


# ------------------------------------------------------------------------------------------------------------ runtimes
def open_onnx(file: Path, threads: int) -> Opened:
    """Open a file in onnxruntime."""
    session = open_session(file, threads)
    inputs = {port.name: port.shape[1:] for port in session.native.get_inputs()}
    outputs = {port.name: port.shape[1:] for port in session.native.get_outputs()}
    names = list(outputs)
    return Opened(
        lambda feeds: dict(zip(names, session.run(names, feeds), strict=True)),
        list(inputs),
        names,
        {**metadata(session), "inputs": inputs, "outputs": outputs},
    )


def open_mnn(file: Path, threads: int) -> Opened:
    """Open a file in MNN, in float32. Without metadata beside it, outputs keep the shapes that MNN gives them.

    It runs one picture at a time: with several, MNN is no faster, and 64 of 192 px take 12 GB.
    """
    mnn, stored = import_runtime("MNN", file), _stored(file, need=False)
    kinds = {np.dtype(np.uint8): mnn.expr.uint8, np.dtype(np.float32): mnn.expr.float}
    options = {"backend": "CPU", "precision": "high", "numThread": threads or cores()}
    try:
        with silent():
            runtime = mnn.nn.create_runtime_manager((options,))
            net = mnn.nn.load_module_from_file(str(file), [], [], runtime_manager=runtime)
            ports = net.get_info()
    except (SystemError, RuntimeError, ValueError) as error:
        raise _refuse(file, "MNN") from error
    inputs, outputs = ports["inputNames"], ports["outputNames"]

    def run_one(*arrays: np.ndarray) -> list[np.ndarray]:
        given = [mnn.expr.const(array, [1, *array.shape], mnn.expr.NCHW, kinds[array.dtype]) for array in arrays]
        found = [np.array(value.read()) for value in net.forward(given)]  # MNN keeps dimensions that the graph drops
        return [
            value.reshape(stored["outputs"].get(name, value.shape[1:]))
            for name, value in zip(outputs, found, strict=True)
        ]

    return Opened(_one_by_one(run_one, inputs, outputs), inputs, outputs, stored)


def open_tflite(file: Path, threads: int) -> Opened:
    """Open a .tflite file in LiteRT, on the CPU in float32."""
    stored = _stored(file)
    import_runtime("ai_edge_litert", file)
    try:
        with silent():
            interpreter = import_module("ai_edge_litert.interpreter").Interpreter(
                str(file), num_threads=threads or cores()
            )
            interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise _refuse(file, "LiteRT") from error
    place = interpreter.get_input_details()[0]["index"]
    places = [one["index"] for one in interpreter.get_output_details()]

    def run_one(image: np.ndarray) -> list[np.ndarray]:
        interpreter.set_tensor(place, image[None])
        interpreter.invoke()
        return [interpreter.get_tensor(place)[0] for place in places]

    outputs = list(stored["outputs"])
    return Opened(_one_by_one(run_one, ["image"], outputs), ["image"], outputs, stored)


def refuse_foreign(file: Path, threads: int) -> Opened:
    """Raise UserError for a file of a runtime of FOREIGN."""
    raise UserError(
        f"{file} is a file of {FOREIGN[file.suffix]}, which is not opened here; give the net's ONNX file, "
        f"such as {file.with_suffix('.onnx').name} (docs/runtimes.md says how that runtime gets it)"
    )


RUNTIMES: dict[str, Callable[[Path, int], Opened]] = {
    ".onnx": open_onnx,
    ".mnn": open_mnn,
    ".tflite": open_tflite,
    **dict.fromkeys(FOREIGN, refuse_foreign),
}
