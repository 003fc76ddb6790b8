"""8-bit ONNX files: static quantisation of an exported float graph, calibrated on pictures that the net was trained on."""

import logging
import tempfile
from pathlib import Path

import numpy as np

from extras.runtimes.fusion import fold_pools, read_blocks
from utils.export.files import Source, folded, write_onnx

QUANTIZED = ["Conv", "Relu"]  # a Relu becomes a part of the convolution before it
SHAPING, PIXELWISE = ("Unsqueeze", "Transpose"), ("Slice", "Cast", "Mul", "Add", "Sub")
FLOATS, CENTRED, LEVEL, BIAS = "image_floats", "image_centred", "image_level", "image_bias"  # names of tensors


def write_int8(source: Source, file: Path) -> None:
    """Write the graph with its convolutions in 8 bits: weights per output channel, activations per tensor.

    Ranges are the extremes over the calibration pictures. Weights use 7 of the 8 bits, because processors without VNNI
    instructions add pairs of 8-bit products in 16 bits, which would overflow. Everything else stays in float32: with
    attention, decoding and merging in 8 bits, the loss of accuracy on validation faces was five times as large, and no
    time was gained.
    """
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        """Give the calibration pictures one after the other."""

        def __init__(self) -> None:
            self.feeds = iter(source.feeds())

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.feeds, None)

    model = folded(onnx.load(source.onnx))  # its weights may be stored in 16 bits
    level = fold_normalisation(model)
    fold_pools(model.graph)
    if level is not None:
        read_blocks(model.graph, FLOATS, level)
    ranges = (
        {}
        if level is None
        else {CENTRED: [{"scale": np.array(1, np.float32), "zero_point": np.array(level, np.uint8)}]}
    )
    verbosity = logging.root.level
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "int8.onnx"
        logging.root.setLevel(logging.ERROR)  # advice on preparations that our export has done
        try:
            quantize_static(
                model,
                target,
                Reader(),
                QuantFormat.QDQ,
                QUANTIZED,
                per_channel=True,
                reduce_range=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                extra_options={"TensorQuantOverrides": ranges},
            )
        finally:
            logging.root.setLevel(verbosity)
        quantized = onnx.load(target)
    if level is not None:
        join_image(quantized.graph)
    del quantized.metadata_props[:]
    write_onnx(quantized, file, source.metadata())


def fold_normalisation(model) -> int | None:
    """Move the normalisation of the image into the first convolution, so that in 8 bits it can read the bytes of the
    image.

    Return the grey level that the convolution then takes for 0. Its padding becomes this level in all channels; before,
    it was the mean of each channel. Return None and change nothing if there is no `way_of_the_image`, or if the weights
    of the convolution are no constants or have several groups of channels.
    """
    from onnx import helper, numpy_helper

    graph = model.graph
    stored = {value.name: value for value in graph.initializer}
    way = way_of_the_image(graph)
    if way is None or not set(way[-1].input[1:]) <= stored.keys() or stored[way[-1].input[1]].dims[1] != 3:
        return None
    *way, convolution = way
    if len(convolution.input) == 2:
        convolution.input.append(BIAS)
        stored[BIAS] = graph.initializer.add()
        stored[BIAS].CopyFrom(numpy_helper.from_array(np.zeros(stored[convolution.input[1]].dims[0], np.float32), BIAS))
    matrix, shift = colour_map(model, convolution.input[0])
    level = int(np.clip(np.round(np.linalg.solve(matrix, -shift).mean()), 0, 255))
    weight, bias = (numpy_helper.to_array(stored[name]) for name in convolution.input[1:])
    values = (
        np.einsum("oihw,ic->ochw", weight, matrix),
        bias + np.einsum("oihw,i->o", weight, shift + level * matrix.sum(1)),
    )
    for name, value in zip(convolution.input[1:], values, strict=True):
        stored[name].CopyFrom(numpy_helper.from_array(value.astype(np.float32), name))
    image = "image"
    for node in way:
        if node.op_type in SHAPING:
            node.input[0], image = image, node.output[0]
        else:
            graph.node.remove(node)
    place = list(graph.node).index(convolution)
    graph.node.insert(place, helper.make_node("Cast", [image], [FLOATS], to=1))
    graph.node.insert(place + 1, helper.make_node("Sub", [FLOATS, LEVEL], [CENTRED]))
    graph.initializer.append(numpy_helper.from_array(np.array(level, np.float32), LEVEL))
    convolution.input[0] = CENTRED
    used = {name for node in graph.node for name in node.input}
    for value in [value for value in graph.initializer if value.name not in used]:
        graph.initializer.remove(value)
    return level


def way_of_the_image(graph) -> list | None:
    """Return the nodes through which the image goes, up to the first convolution; None if it branches or meets other
    nodes.
    """
    way, name = [], "image"
    while not way or way[-1].op_type != "Conv":
        readers = [node for node in graph.node if name in node.input and (name != "image" or node.op_type != "Shape")]
        if len(readers) != 1 or readers[0].op_type not in (*SHAPING, *PIXELWISE, "Conv"):
            return None
        way += readers
        name = way[-1].output[0]
    return way


def colour_map(model, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the matrix (3, 3) and the shift (3,) that turn BGR values into those of the tensor `name` (B, 3, H, W)."""
    import onnx
    import onnxruntime

    part = onnx.utils.Extractor(model).extract_model(["image"], [name])
    session = onnxruntime.InferenceSession(part.SerializeToString(), providers=["CPUExecutionProvider"])
    shape = [side if isinstance(side, int) else 1 for side in session.get_inputs()[0].shape]
    colours = np.zeros(3), *(255 * np.eye(3))
    black, *others = (
        session.run(None, {"image": np.full(shape, colour, np.uint8)})[0][0, :, 0, 0] for colour in colours
    )
    return (np.stack(others, 1) - black[:, None]) / 255, black


def join_image(graph) -> None:
    """Let the first convolution read the bytes of the image; the quantised graph turns them into floats and into bytes
    again.
    """
    made = {name: node for node in graph.node for name in node.output}
    cast, subtract = made[FLOATS], made[CENTRED]
    quantize = next(node for node in graph.node if node.op_type == "QuantizeLinear" and node.input[0] == CENTRED)
    next(node for node in graph.node if quantize.output[0] in node.input).input[0] = cast.input[0]
    for node in (cast, subtract, quantize):
        graph.node.remove(node)
    graph.initializer.remove(next(value for value in graph.initializer if value.name == LEVEL))
