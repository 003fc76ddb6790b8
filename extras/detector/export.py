"""Export of the detector to ONNX: any picture -> boxes; anchors, decode and suppression are in the graph."""

from pathlib import Path

import torch
from torch import Tensor, nn

from extras.detector.faceboxes import MOST, FaceBoxesV2, anchors, decode
from utils.export.files import folded, onnx_graph, write_onnx


class _Exported(nn.Module):
    """The exported module: image uint8 (H, W, 3) BGR -> boxes (1, A, 4) and scores (1, 1, A) of all anchors."""

    def __init__(self, net: FaceBoxesV2):
        super().__init__()
        self.net = net

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        offsets, logits = self.net(image[None])
        score = (logits[..., 1] - logits[..., 0]).sigmoid()  # the softmax of two, in less time
        return decode(offsets, anchors(image.shape[0], image.shape[1])), score[:, None]


class Square(nn.Module):
    """The net for square pictures of one size, without suppression, for runtimes that take a fixed size."""

    anchors: Tensor

    def __init__(self, net: FaceBoxesV2, side: int):
        super().__init__()
        self.net = net.float().cpu().fused()
        self.register_buffer("anchors", anchors(side, side))

    def predict(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return boxes (B, A, 4) x1 y1 x2 y2 in px and scores (B, A) of all anchors; image uint8 (B, side, side, 3) BGR."""
        offsets, logits = self.net(image)
        return decode(offsets, self.anchors), (logits[..., 1] - logits[..., 0]).sigmoid()


def export_detector(net: FaceBoxesV2, file: Path, metadata: dict) -> None:
    """Write `file` whole or not at all: image, threshold, overlap -> boxes (M, 4) x1 y1 x2 y2 in px, scores (M,), best
    first.

    Scores exceed the threshold; of two boxes whose IoU exceeds `overlap` the better one stays. metadata: plain values,
    as JSON.
    """
    from onnx import TensorProto, helper, numpy_helper

    example = torch.zeros(96, 160, 3, dtype=torch.uint8)
    sides = dict.fromkeys((0, 1), torch.export.Dim.DYNAMIC)
    model = onnx_graph(_Exported(net.float().cpu().fused()), example, ["every_box", "every_score"], sides)
    graph = model.graph
    constants = {
        "most": [MOST],
        "whole_px": [0.0, 0.0, 1.0, 1.0],
        "one": [1],
        "two": [2],
        "three": [3],
        "flat": [-1],
        "first": [0],
    }
    for name, values in constants.items():
        kind = torch.float32 if name == "whole_px" else torch.int64
        graph.initializer.append(numpy_helper.from_array(torch.tensor(values, dtype=kind).numpy(), name))
    # areas count whole px, as in `best_boxes`
    graph.node.extend(
        [
            helper.make_node("Add", ["every_box", "whole_px"], ["wide"]),
            helper.make_node("Unsqueeze", ["threshold", "first"], ["thresholds"]),
            helper.make_node("Unsqueeze", ["overlap", "first"], ["overlaps"]),
            helper.make_node("NonMaxSuppression", ["wide", "every_score", "most", "overlaps", "thresholds"], ["kept"]),
            helper.make_node("Slice", ["kept", "two", "three", "one"], ["column"]),
            helper.make_node("Reshape", ["column", "flat"], ["rows"]),
            helper.make_node("Squeeze", ["every_box", "first"], ["flat_boxes"]),
            helper.make_node("Reshape", ["every_score", "flat"], ["flat_scores"]),
            helper.make_node("Gather", ["flat_boxes", "rows"], ["boxes"]),
            helper.make_node("Gather", ["flat_scores", "rows"], ["scores"]),
        ]
    )
    graph.input.extend(
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, []) for name in ("threshold", "overlap")]
    )
    del graph.output[:]
    graph.output.extend(
        [
            helper.make_tensor_value_info("boxes", TensorProto.FLOAT, ["found", 4]),
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["found"]),
        ]
    )
    write_onnx(folded(model), file, metadata)
