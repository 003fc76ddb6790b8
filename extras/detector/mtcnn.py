"""MTCNN: boxes and five points from a cascade of three nets (Zhang et al., "Joint Face Detection and Alignment Using
Multi-task Cascaded Convolutional Networks", IEEE SPL 2016).

P-Net proposes boxes on an image pyramid, R-Net refines them, O-Net refines them again and finds the points. As
published, a box from pixel x1 to pixel x2 is x2 - x1 + 1 wide; boxes are continuous here, [x1, x2 + 1], so widths are
differences.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torchvision.ops import nms

CELL, STRIDE = 12, 2  # px, input and step of P-Net
SHRINK = 0.707  # of sides between levels of the pyramid: half the area
OVERLAPS = (0.5, 0.7, 0.7)  # IoU of suppression: in one level, over all levels, after R-Net
BATCH = 256  # crops at once, to bound memory on crowds


class Stage(nn.Module):
    """Convolutions, each with a PReLU and, where `pools` has (size, stride), a max-pool; a linear layer, if any;
    branches.

    x (B, 3, H, W) -> one tensor a branch. Tensors have the published names.
    """

    def __init__(
        self,
        widths: list[int],
        kernels: list[int],
        pools: list[tuple[int, int] | None],
        linear: tuple[int, int] | None,
        branches: dict[str, int],
    ):
        super().__init__()
        self.pools, self.linear, self.branches = pools, linear, list(branches)
        self.features = nn.ModuleDict()
        for index, kernel in enumerate(kernels):
            self.features[f"conv{index + 1}"] = nn.Conv2d(widths[index], widths[index + 1], kernel)
            self.features[f"prelu{index + 1}"] = nn.PReLU(widths[index + 1])
        last = widths[-1]
        if linear:
            self.features[f"conv{len(kernels) + 1}"] = nn.Linear(*linear)
            self.features[f"prelu{len(kernels) + 1}"] = nn.PReLU(linear[1])
            last = linear[1]
        for name, width in branches.items():
            self.add_module(name, nn.Linear(last, width) if linear else nn.Conv2d(last, width, 1))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        for index, pool in enumerate(self.pools, 1):
            x = self.features[f"prelu{index}"](self.features[f"conv{index}"](x))
            if pool:
                x = F.max_pool2d(x, *pool, ceil_mode=True)
        if self.linear:
            x = x.transpose(2, 3).flatten(1)  # the framework of the published weights is column-major
            x = self.features[f"prelu{len(self.pools) + 1}"](self.features[f"conv{len(self.pools) + 1}"](x))
        return tuple(self.get_submodule(name)(x) for name in self.branches)


class MTCNN(nn.Module):
    """The cascade. `pnet`, `rnet`, `onet`: x (B, 3, S, S), S >= 12, 24, 48 -> (logits, corrections of the box[,
    points]).
    """

    def __init__(self) -> None:
        super().__init__()
        self.pnet = Stage([3, 10, 16, 32], [3, 3, 3], [(2, 2), None, None], None, {"conv4_1": 2, "conv4_2": 4})
        self.rnet = Stage([3, 28, 48, 64], [3, 3, 2], [(3, 2), (3, 2), None], (576, 128), {"conv5_1": 2, "conv5_2": 4})
        self.onet = Stage(
            [3, 32, 64, 64, 128],
            [3, 3, 3, 2],
            [(3, 2), (3, 2), (2, 2), None],
            (1152, 256),
            {"conv6_1": 2, "conv6_2": 4, "conv6_3": 10},
        )

    @torch.inference_mode()
    def detect(
        self,
        image: np.ndarray,
        thresholds: tuple[float, float, float] = (0.6, 0.7, 0.8),
        overlap: float = 0.7,
        smallest: float = 20.0,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return boxes (M, 4), scores (M,), points (M, 5, 2) in continuous px, best first; image uint8 BGR (H, W, 3).

        thresholds: scores of the three nets; overlap: share of the smaller of two boxes from which the lower one is
        dropped; smallest: px, side of the smallest face. Boxes may reach beyond the image. Points are eyes, nose,
        corners of the mouth, the image's left before its right.
        """
        picture = Image.fromarray(np.ascontiguousarray(image[:, :, ::-1]))
        boxes = self._propose(picture, thresholds[0], smallest)
        boxes, score, corrections = _accepted(self.rnet, picture, boxes, 24, thresholds[1])
        keep = nms(boxes, score, OVERLAPS[2])
        boxes = _square(_correct(boxes[keep], corrections[keep]))
        boxes, score, corrections, points = _accepted(self.onet, picture, boxes, 48, thresholds[2])
        points = points.view(-1, 2, 5).mT  # five x, then five y, in [0, 1] of the box
        points = boxes[:, None, :2] + points * (boxes[:, 2:] - boxes[:, :2])[:, None]
        boxes = _correct(boxes, corrections)
        keep = nms_of_smaller(boxes, score, overlap)
        return boxes[keep], score[keep], points[keep]

    def _propose(self, picture: Image.Image, threshold: float, smallest: float) -> Tensor:
        """Return square boxes (M, 4) in whole px that P-Net finds at any level of the pyramid."""
        (width, height), device = picture.size, next(self.parameters()).device
        found = [torch.zeros(0, 9, device=device)]
        scale, side = CELL / smallest, min(height, width) * CELL / smallest
        while side > CELL:
            level = _resize(picture, math.ceil(height * scale), math.ceil(width * scale)).to(device)
            logits, corrections = self.pnet(level[None])
            score = logits.softmax(1)[0, 1]
            y, x = (score > threshold).nonzero(as_tuple=True)
            corner = torch.stack([x, y], 1) * STRIDE + 1.0
            boxes = torch.cat([(corner / scale).round(), ((corner + CELL) / scale).round() + 1], 1)
            score = score[y, x]
            keep = nms(boxes, score, OVERLAPS[0])
            found.append(torch.cat([boxes, score[:, None], corrections[0, :, y, x].T], 1)[keep])
            scale, side = scale * SHRINK, side * SHRINK
        joined = torch.cat(found)
        joined = joined[nms(joined[:, :4], joined[:, 4], OVERLAPS[1])]
        return _square(_correct(joined[:, :4], joined[:, 5:]))


def _resize(picture: Image.Image, height: int, width: int) -> Tensor:
    """Return the input (3, height, width) of a net.

    It is resized by Pillow, as published. Another library rounds differently, and because scores are close to 1, that
    changes which of two boxes of a face is kept.
    """
    image = np.array(picture.resize((width, height), Image.Resampling.BILINEAR))
    return (torch.from_numpy(image).permute(2, 0, 1).float() - 127.5) / 128


def _correct(boxes: Tensor, corrections: Tensor) -> Tensor:
    """Return boxes whose corners are moved by shares of the width and height."""
    return boxes + corrections * (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)


def _square(boxes: Tensor) -> Tensor:
    """Return squares of the longer side around the same centres, in whole px."""
    side = (boxes[:, 2:] - boxes[:, :2]).amax(1, keepdim=True)
    corner = (boxes[:, :2] + boxes[:, 2:] - side) / 2
    return torch.cat([corner.round(), (corner + side - 1).round() + 1], 1)


def _accepted(net: Stage, picture: Image.Image, boxes: Tensor, size: int, threshold: float) -> tuple[Tensor, ...]:
    """Return (boxes, scores, corrections[, points]) of the boxes (M, 4) that `net` scores above the threshold."""
    # beyond the picture PIL's crop is black
    cut = [
        _resize(picture.crop((x1, y1, max(x2, x1 + 1), max(y2, y1 + 1))), size, size)
        for x1, y1, x2, y2 in boxes.long().tolist()
    ]
    crops = torch.stack(cut).to(boxes.device) if cut else boxes.new_zeros(0, 3, size, size)
    outputs = [net(part) for part in crops.split(BATCH)]
    logits, *others = (torch.cat(parts) for parts in zip(*outputs, strict=True))
    score = logits.softmax(1)[:, 1]
    above = score > threshold
    return boxes[above], score[above], *(output[above] for output in others)


def nms_of_smaller(boxes: Tensor, scores: Tensor, overlap: float) -> Tensor:
    """Return the indices of boxes, best first, whose overlap with each better box is at most `overlap` of the smaller
    area.
    """
    order = scores.argsort(descending=True, stable=True)
    corner = torch.maximum(boxes[:, None, :2], boxes[None, :, :2])
    common = (torch.minimum(boxes[:, None, 2:], boxes[None, :, 2:]) - corner).clamp(min=0).prod(2)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    covered = common / torch.minimum(area[:, None], area[None]) > overlap
    keep: list[int] = []
    for index in order.tolist():
        if not covered[index, keep].any():
            keep.append(index)
    return torch.tensor(keep, dtype=torch.long, device=boxes.device)
