"""Changes of an ONNX graph that make its 8-bit convolutions faster.
Its outputs stay the same except at the edge of the image.
"""

import numpy as np

SIDE = 4  # px of a row that become the channels of one place: the product of the strides of the first two convolutions
USUAL = {
    "strides": [1, 1],
    "pads": [0, 0, 0, 0],
    "dilations": [1, 1],
    "group": 1,
    "auto_pad": b"NOTSET",
    "ceil_mode": 0,
    "count_include_pad": 0,
}  # values of attributes that a node does not have
STRIDED = {**USUAL, "kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}
SINGLE = {**USUAL, "kernel_shape": [1, 1]}


def read_blocks(graph, floats: str, level: int) -> None:
    """Let the first two convolutions read blocks of px as channels, if both have 3x3 weights and stride 2.

    8-bit kernels copy the inputs of a convolution, place by place. With few channels at many places, as in an image,
    this takes longer than the products. So the first convolution reads SIDE px of a row as channels of one place, and
    gives blocks of 2 x 2 outputs, which the second one reads as channels.

    floats: name of the tensor (B, 3, H, W) of the image, which the first convolution reads after a subtraction. level:
    the grey level that the subtraction makes 0. Columns of this level are added to make the width a multiple of SIDE.
    """
    from onnx import helper, numpy_helper

    stored = {value.name: value for value in graph.initializer}
    first = reader(graph, reader(graph, floats).output[0])
    relu = reader(graph, first.output[0])
    second = reader(graph, relu.output[0]) if relu is not None and relu.op_type == "Relu" else None
    if second is None or not all(is_constant(node, stored) and attributes(node) == STRIDED for node in (first, second)):
        return
    change(
        first, stored, of_rows, 4, {"kernel_shape": [SIDE + 1, 2], "strides": [SIDE, 1], "pads": [1, 1, SIDE - 1, 0]}
    )
    change(second, stored, of_blocks, 1, {"kernel_shape": [2, 2], "pads": [1, 1, 0, 0]})
    (cast,) = (node for node in graph.node if floats in node.output)
    name = cast.input[0]
    while name != "image":  # nodes that only change the shape
        (node,) = (node for node in graph.node if name in node.output)
        graph.node.remove(node)
        name = node.input[0]
    constants = {"axis": [0], "grid": [1, 1, SIDE, 1], "none": [0, 0, 0, 0], "joined": [1, 1, 1, SIDE]}
    graph.initializer.extend(
        numpy_helper.from_array(np.array(values), f"block_{name}") for name, values in constants.items()
    )
    graph.initializer.append(numpy_helper.from_array(np.array(level, np.uint8), "block_level"))
    image = next(value for value in graph.input if value.name == "image")
    single = len(image.type.tensor_type.shape.dim) == 3
    steps: list[tuple[str, str, str, dict]] = [
        ("Unsqueeze", "image axis", "batch", {}) if single else ("Identity", "image", "batch", {}),
        ("Shape", "batch", "shape", {}),
        ("Neg", "shape", "negative", {}),
        ("Mod", "negative grid", "after", {}),
        ("Concat", "none after", "pads", {"axis": 0}),
        ("Pad", "batch pads level", "whole", {}),
        ("Shape", "whole", "sides", {}),  # no -1 in the new shape: of an empty batch it would be unknown
        ("Div", "sides grid", "places", {}),
        ("Mul", "places joined", "flat", {}),
        ("Reshape", "whole flat", "last", {}),
        ("Transpose", "last", "channels", {"perm": [0, 3, 1, 2]}),
    ]
    place = list(graph.node).index(cast)
    for kind, given, made, options in reversed(steps):
        inputs = [name if name == "image" else f"block_{name}" for name in given.split()]
        graph.node.insert(place, helper.make_node(kind, inputs, [f"block_{made}"], **options))
    cast.input[0] = "block_channels"
    del graph.value_info[:]  # shapes of before, which are inferred anew


def of_rows(weight: np.ndarray) -> np.ndarray:
    """Return weights (O, 3, 3, 3) of the first convolution as weights (4 O, 3 SIDE, SIDE + 1, 2) for blocks.

    Channels of the input are SIDE px from left to right, each with three channels. Outputs come in blocks of 2 x 2, row
    by row.
    """
    found = np.zeros((2, 2, len(weight), SIDE, 3, SIDE + 1, 2), weight.dtype)
    for y, x, row, column in np.ndindex(2, 2, 3, 3):
        right = 2 * x + column - 1  # -1: the last px of the place before
        found[y, x, :, right % SIDE, :, 2 * y + row, int(right >= 0)] = weight[:, :, row, column]
    return found.reshape(4 * len(weight), 3 * SIDE, SIDE + 1, 2)


def of_blocks(weight: np.ndarray) -> np.ndarray:
    """Return weights (O, C, 3, 3), stride 2, as weights (O, 4 C, 2, 2), stride 1, for an input in blocks of 2 x 2."""
    found = np.zeros((len(weight), 2, 2, weight.shape[1], 2, 2), weight.dtype)
    for row, column in np.ndindex(3, 3):
        found[:, (row - 1) % 2, (column - 1) % 2, :, int(row >= 1), int(column >= 1)] = weight[:, :, row, column]
    return found.reshape(len(weight), -1, 2, 2)


def fold_pools(graph) -> None:
    """Join each average pool with the 1x1 convolution that reads it, if nothing else does, because 8-bit pools are
    slow.
    """
    stored = {value.name: value for value in graph.initializer}
    sides = {
        value.name: [side.dim_value for side in value.type.tensor_type.shape.dim[2:]] for value in graph.value_info
    }
    for pool in [node for node in graph.node if node.op_type == "AveragePool"]:
        window, node = attributes(pool), reader(graph, pool.output[0])
        counts_zeros = window["count_include_pad"] or not any(window["pads"])
        if (
            counts_zeros
            and covers(window, sides.get(pool.input[0], []))
            and window["auto_pad"] == USUAL["auto_pad"]
            and node is not None
            and is_constant(node, stored)
            and attributes(node) == SINGLE
        ):
            kernel = window["kernel_shape"]
            change(
                node,
                stored,
                lambda weight, kernel=kernel: np.tile(weight / np.float32(np.prod(kernel)), kernel),
                1,
                {name: window[name] for name in ("kernel_shape", "strides", "pads")},
            )
            node.input[0] = pool.input[0]
            graph.node.remove(pool)
    del graph.value_info[:]  # shapes of before, which are inferred anew


def covers(window: dict, sides: list[int]) -> bool:
    """Return whether `ceil_mode` adds no outputs: it is off, or windows cover inputs of these sides (0: unknown)
    exactly.
    """
    if not window["ceil_mode"]:
        return True
    parts = zip(sides, window["kernel_shape"], window["strides"], window["pads"][:2], window["pads"][2:], strict=False)
    return bool(sides) and all(
        side and (side + sum(pads) - kernel) % stride == 0 for side, kernel, stride, *pads in parts
    )


def change(node, stored: dict, weights, times: int, attributes: dict) -> None:
    """Change a convolution in place: its weights to weights(its weights), its bias to `times` copies, its attributes."""
    from onnx import helper, numpy_helper

    weight, *bias = (numpy_helper.to_array(stored[name]) for name in node.input[1:])
    for name, value in zip(node.input[1:], (weights(weight), *(np.tile(one, times) for one in bias)), strict=True):
        stored[name].CopyFrom(numpy_helper.from_array(value, name))
    del node.attribute[:]
    node.attribute.extend(helper.make_attribute(name, value) for name, value in attributes.items())


def is_constant(node, stored: dict) -> bool:
    """Return whether a node is a convolution whose weights are constants."""
    return node.op_type == "Conv" and set(node.input[1:]) <= stored.keys()


def reader(graph, name: str):
    """Return the only node that reads a tensor; None if there is none, or several."""
    nodes = [node for node in graph.node if name in node.input]
    return nodes[0] if len(nodes) == 1 else None


def attributes(node) -> dict:
    """Return {name: value} of the attributes of a convolution or a pool, with default values."""
    from onnx import helper

    return USUAL | {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
