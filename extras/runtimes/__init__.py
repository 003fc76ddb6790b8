"""Exports for other runtimes than onnxruntime in 32 bits: 8 bits, MNN, phones, the pipeline."""

from pathlib import Path

from utils.export.files import Source


def write(name: str, source: Source, file: Path) -> None:
    """Write the file of a format, a key of `FORMATS`, and those that belong to it, into the folder of `file`.

    UserError if the net cannot be converted.
    """
    from extras.runtimes import pipeline, quantize, runtimes

    writers = {
        "int8": quantize.write_int8,
        "mnn": runtimes.write_mnn,
        "tflite": runtimes.write_tflite,
        "coreml": runtimes.write_coreml,
        "pipeline": pipeline.write_pipeline,
        "pipeline-int8": pipeline.write_pipeline_int8,
    }
    writers[name](source, file)
