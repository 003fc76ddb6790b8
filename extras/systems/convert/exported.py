"""The nets that pytorch_face_landmark publishes as ONNX files: PFLD, MobileFaceNet and MobileNetV2.

They are known by the shapes of their ports and weights, whatever these are called.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from extras.systems.convert.gdconv import SIZES, protocol_at
from nets.backbones.row import IMAGENET_MEAN, IMAGENET_STD
from pipnet.runtimes import Opened

SIZE = 112  # px of the input of PFLD and MobileFaceNet, to which their poolings bind them
VALUES = 136  # 68 landmarks (x, y) in [0, 1] of the crop
WIDTH, REDUCED = 1280, 160  # channels of MobileNetV2's last map, and of its squeeze-excite
FILTERS = (512, 1, 7, 7)  # of MobileFaceNet: one filter over all cells per channel


class Structure(NamedTuple):
    """What the weights of a MobileNetV2 tell: landmarks, px of the input, whether it has squeeze-excite."""

    landmarks: int
    size: int
    excite: bool


def structure(opened: Opened) -> Structure | None:
    """Return the structure of a MobileNetV2 whose last map is filtered whole, then mapped to landmarks; None for others.

    Its weights have the shapes (1280, 1, cells, cells) and (2 * landmarks, 1280, 1, 1). A size that the graph leaves open
    is the published one for that number of cells.
    """
    shapes, sides = opened.values.get("weights", set()), _sides(opened)
    cells = next((shape[2] for shape in shapes if shape[:2] == (WIDTH, 1) and len({*shape[2:]}) == 1), None)
    counts = [shape[0] for shape in shapes if shape[1:] == (WIDTH, 1, 1) and _output(opened, shape[0])]
    if cells is None or not counts or sides is None:
        return None
    stated: set[int | None] = {side for side in sides if isinstance(side, int)} or {SIZES.get(cells)}
    size = stated.pop()
    return None if stated or size is None else Structure(counts[0] // 2, size, (REDUCED, WIDTH, 1, 1) in shapes)


def mobilenet_keys(opened: Opened) -> dict[str, Any]:
    """Return the keys of args.yaml that the shapes of a MobileNetV2 tell."""
    landmarks, size, excite = structure(opened)
    return {"layout": str(landmarks), "input_size": size, "excite": excite, "protocol": protocol_at(size)}


def is_pfld(opened: Opened) -> bool:
    """Return whether a graph has one input picture of PFLD's size and gives 68 landmarks."""
    return _sides(opened) == (SIZE, SIZE) and _output(opened, VALUES) is not None


def is_mobilefacenet(opened: Opened) -> bool:
    """Return whether a graph with PFLD's ports has the weights of MobileFaceNet, which gets the same input."""
    return is_pfld(opened) and FILTERS in opened.values.get("weights", set())


def pfld_keys(opened: Opened) -> dict[str, Any]:
    """Return the keys of args.yaml of PFLD and MobileFaceNet."""
    return {"layout": "68", "input_size": SIZE, "protocol": protocol_at(SIZE)}


def _sides(opened: Opened) -> tuple[Any, Any] | None:
    """Return the height and width of the only input picture, names if they are open; None for other inputs."""
    shapes = list(opened.values.get("inputs", {}).values())
    return tuple(shapes[0][1:]) if len(shapes) == 1 and len(shapes[0]) == 3 and shapes[0][0] == 3 else None


def _output(opened: Opened, values: int) -> str | None:
    """Return the name of the output that has the landmarks; None without one. A net may also give pose or features."""
    shapes = opened.values["outputs"]
    known = [name for name, shape in shapes.items() if all(isinstance(size, int) for size in shape)]
    return next((name for name in known if math.prod(shapes[name]) == values), None)


def _read(opened: Opened, values: int, inputs: np.ndarray) -> dict[str, np.ndarray]:
    """Return the outputs of a landmark net for preprocessed crops (B, S, S, 3); the score is 1. One crop runs at a time."""
    (picture,), landmarks = opened.inputs, str(_output(opened, values))
    inputs = np.ascontiguousarray(inputs.transpose(0, 3, 1, 2), np.float32)
    points = np.reshape([opened.run({picture: one[None]})[landmarks] for one in inputs], (len(inputs), -1, 2))
    return {"landmarks": points, "score": np.ones(points.shape[:2], np.float32)}


def read_pfld(opened: Opened, images: np.ndarray) -> dict[str, np.ndarray]:
    """Return the outputs of PFLD or MobileFaceNet for crops uint8 BGR (B, S, S, 3).

    The channels are BGR, as PFLD-pytorch trains and the later demo of its author (test_batch_detections.py) runs it; the
    earlier test_camera_pfld_onnx.py gives RGB.
    """
    return _read(opened, VALUES, images / np.float32(255))


def read_mobilenet(opened: Opened, images: np.ndarray) -> dict[str, np.ndarray]:
    """Return the outputs of a MobileNetV2 for crops uint8 BGR (B, S, S, 3). Its input is RGB with ImageNet's statistics,
    as for its weights in torch.
    """
    rgb = images[..., ::-1] / np.float32(255)
    inputs = (rgb - np.array(IMAGENET_MEAN, np.float32)) / np.array(IMAGENET_STD, np.float32)
    found = structure(opened)
    assert found
    return _read(opened, 2 * found.landmarks, inputs)
