"""The PFLD of pytorch_face_landmark, which is published as an ONNX file."""

import math

import numpy as np

from extras.systems.convert.graph import Graph

SIZE = 112  # px of the input
VALUES = 136  # 68 landmarks (x, y) in [0, 1] of the crop


def is_exported(opened: Graph) -> bool:
    """Return whether a graph has one input picture of PFLD's size and gives 68 landmarks, whatever its ports' names."""
    return list(opened.values.get("inputs", {}).values()) == [[3, SIZE, SIZE]] and _output(opened) is not None


def _output(opened: Graph) -> str | None:
    """Return the name of the output that has the landmarks; None without one. A net may also give pose or features."""
    shapes = opened.values["outputs"]
    known = [name for name, shape in shapes.items() if all(isinstance(size, int) for size in shape)]
    return next((name for name in known if math.prod(shapes[name]) == VALUES), None)


def read_exported(opened: Graph, images: np.ndarray) -> dict[str, np.ndarray]:
    """Return the outputs of a landmark net for crops uint8 BGR (B, S, S, 3); the score is 1.

    The file takes one picture at a time. The channels are BGR, as PFLD-pytorch trains and the later demo of its
    author (test_batch_detections.py) runs it; the earlier test_camera_pfld_onnx.py gives RGB.
    """
    (picture,), landmarks = opened.inputs, _output(opened)
    inputs = np.ascontiguousarray((images / np.float32(255)).transpose(0, 3, 1, 2))
    values = [opened.run({picture: one[None]})[landmarks] for one in inputs]
    points = np.reshape(values, (len(images), -1, 2))
    return {"landmarks": points, "score": np.ones(points.shape[:2], np.float32)}
