"""8-bit ONNX files: static quantisation of an exported float graph, calibrated on pictures that the net was trained on."""
import logging
import tempfile
from pathlib import Path

import numpy as np

from utils.test.export import Source, stored_in, write_onnx


def write_int8(source: Source, file: Path) -> None:
    """Write the graph with its convolutions in 8 bits: weights per output channel, activations per tensor.

    The ranges are the extremes over the calibration pictures. Weights use 7 of the 8 bits, because processors without VNNI
    instructions add pairs of 8-bit products in 16 bits, which overflow otherwise. Everything else stays in float32: on validation
    faces, attention, decoding and merging in 8 bits cost five times as much accuracy and gained no time.
    """
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        """Give the calibration pictures one after the other."""

        def __init__(self) -> None:
            self.feeds = iter(source.feeds())

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.feeds, None)

    model = onnx.load(source.onnx)
    level = logging.root.level
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "int8.onnx"
        logging.root.setLevel(logging.ERROR)  # advice on preparations that our export has done
        try:
            quantize_static(model, target, Reader(), QuantFormat.QDQ, ["Conv"], per_channel=True, reduce_range=True,
                            activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8)
        finally:
            logging.root.setLevel(level)
        quantized = onnx.load(target)
    del quantized.metadata_props[:]
    write_onnx(quantized, file, stored_in(source.onnx))
