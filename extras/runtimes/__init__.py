"""Exports for other runtimes than onnxruntime in 32 bits: 8 bits, MNN, ncnn, OpenVINO, phones, TorchScript, the pipeline."""

from pathlib import Path

from pipnet.runtimes import Opened
from utils.export.files import Source


def write(name: str, source: Source, file: Path) -> None:
    """Write the file of a format, a key of `FORMATS`, and those that belong to it, into the folder of `file`.

    UserError if the net cannot be converted.
    """
    from extras.runtimes import pipeline, quantize, runtimes

    writers = {
        "int8": quantize.write_int8,
        "mnn": runtimes.write_mnn,
        "ncnn": runtimes.write_ncnn,
        "openvino": runtimes.write_openvino,
        "tflite": runtimes.write_tflite,
        "coreml": runtimes.write_coreml,
        "torchscript": runtimes.write_torchscript,
        "pipeline": pipeline.write_pipeline,
    }
    writers[name](source, file)


def open_torchscript(file: Path, threads: int, sha256: str) -> Opened:
    """Open a TorchScript file whose content has this checksum, that of a file which this command has written.

    UserError for another content: a TorchScript file may read and write any file.
    """
    from extras.runtimes import runtimes

    return runtimes.open_torchscript(file, threads, sha256)
