"""MTCNN: three nets in a cascade, boxes and five points (Zhang et al., "Joint Face Detection and Alignment Using Multi-task
Cascaded Convolutional Networks", IEEE SPL 2016).

P-Net proposes on a pyramid, R-Net refines, O-Net refines again and finds the points. The published nets count whole pixels: a
box from pixel x1 to pixel x2 is x2 - x1 + 1 wide. Here boxes are continuous, [x1, x2 + 1], so that widths are differences.
"""
import math

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torchvision.ops import nms

CELL, STRIDE = 12, 2  # px that P-Net sees, and its step
SHRINK = 0.707  # between levels of the pyramid: half the area
OVERLAPS = (0.5, 0.7, 0.7)  # IoU that suppresses: in one level, over all levels, after R-Net
BATCH = 256  # crops at once: bounds the memory on crowds


class Stage(nn.Module):
    """Convolutions, each with a PReLU and a max-pool where `pools` says (size, stride); a linear layer, if any; branches.

    x (B, 3, H, W) -> one tensor a branch. Names are the published ones.
    """

    def __init__(self, widths: list[int], kernels: list[int], pools: list[tuple[int, int] | None], linear: tuple[int, int] | None,
                 branches: dict[str, int]):
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
            x = x.transpose(2, 3).flatten(1)  # the weights come from a framework that counts columns first
            x = self.features[f"prelu{len(self.pools) + 1}"](self.features[f"conv{len(self.pools) + 1}"](x))
        return tuple(self.get_submodule(name)(x) for name in self.branches)


class MTCNN(nn.Module):
    """The cascade. `pnet`, `rnet`, `onet`: x (B, 3, S, S), S >= 12, 24, 48 -> (logits, corrections of the box[, points])."""

    def __init__(self) -> None:
        super().__init__()
        self.pnet = Stage([3, 10, 16, 32], [3, 3, 3], [(2, 2), None, None], None, {"conv4_1": 2, "conv4_2": 4})
        self.rnet = Stage([3, 28, 48, 64], [3, 3, 2], [(3, 2), (3, 2), None], (576, 128), {"conv5_1": 2, "conv5_2": 4})
        self.onet = Stage([3, 32, 64, 64, 128], [3, 3, 3, 2], [(3, 2), (3, 2), (2, 2), None], (1152, 256),
                          {"conv6_1": 2, "conv6_2": 4, "conv6_3": 10})

    @torch.inference_mode()
    def detect(self, image: np.ndarray, thresholds: tuple[float, float, float] = (0.6, 0.7, 0.8), overlap: float = 0.7,
               smallest: float = 20.0) -> tuple[Tensor, Tensor, Tensor]:
        """uint8 BGR (H, W, 3) of any size -> boxes (M, 4), scores (M,), points (M, 5, 2), continuous px, best first.

        thresholds: of the scores of the three nets; overlap: share of the smaller of two boxes at which the lower one goes;
        smallest: side of the smallest face in px. Boxes may reach beyond the image. Points are eyes, nose, corners of the mouth,
        those on the image's left first.
        """
        image = np.ascontiguousarray(image[:, :, ::-1])
        boxes = self._propose(image, thresholds[0], smallest)
        boxes = self._refine(image, boxes, thresholds[1])
        return self._locate(image, boxes, thresholds[2], overlap)

    def _propose(self, image: np.ndarray, threshold: float, smallest: float) -> Tensor:
        """RGB image (H, W, 3) -> square boxes (M, 4) in whole px: what P-Net takes for faces at any level of the pyramid."""
        height, width = image.shape[:2]
        device = next(self.parameters()).device
        found = [torch.zeros(0, 9, device=device)]
        scale, side = CELL / smallest, min(height, width) * CELL / smallest
        while side > CELL:
            level = _resize(image, math.ceil(height * scale), math.ceil(width * scale), device)
            logits, corrections = self.pnet(level[None])
            score = logits.softmax(1)[0, 1]
            y, x = (score > threshold).nonzero(as_tuple=True)
            corner = torch.stack([x, y], 1) * STRIDE + 1.0
            boxes = torch.cat([(corner / scale).round(), ((corner + CELL) / scale).round() + 1], 1)
            score = score[y, x]
            keep = nms(boxes, score, OVERLAPS[0])
            found.append(torch.cat([boxes, score[:, None], corrections[0, :, y, x].T], 1)[keep])
            scale, side = scale * SHRINK, side * SHRINK
        found = torch.cat(found)
        found = found[nms(found[:, :4], found[:, 4], OVERLAPS[1])]
        return _square(_correct(found[:, :4], found[:, 5:]))

    def _refine(self, image: np.ndarray, boxes: Tensor, threshold: float) -> Tensor:
        """Square boxes -> square boxes: of those that R-Net takes for faces."""
        logits, corrections = _in_batches(self.rnet, image, boxes, 24)
        score = logits.softmax(1)[:, 1]
        above = score > threshold
        boxes, score, corrections = boxes[above], score[above], corrections[above]
        keep = nms(boxes, score, OVERLAPS[2])
        return _square(_correct(boxes[keep], corrections[keep]))

    def _locate(self, image: np.ndarray, boxes: Tensor, threshold: float, overlap: float) -> tuple[Tensor, Tensor, Tensor]:
        """Square boxes -> (boxes, scores, points) of those that O-Net takes for faces."""
        logits, corrections, points = _in_batches(self.onet, image, boxes, 48)
        score = logits.softmax(1)[:, 1]
        above = score > threshold
        boxes, score, corrections, points = boxes[above], score[above], corrections[above], points[above]
        points = points.view(-1, 2, 5).mT  # five x, then five y, in [0, 1] of the box
        points = boxes[:, None, :2] + points * (boxes[:, 2:] - boxes[:, :2])[:, None]
        boxes = _correct(boxes, corrections)
        keep = nms_of_smaller(boxes, score, overlap)
        return boxes[keep], score[keep], points[keep]


def _resize(image: np.ndarray, height: int, width: int, device: torch.device) -> Tensor:
    """uint8 (H, W, 3) -> what a net sees, (3, height, width).

    The published cascade's own image library: with scores this close to one, another one's rounding changes which of two boxes of
    a face is kept, and so the box by some px.
    """
    image = np.array(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))
    return (torch.from_numpy(image).to(device).permute(2, 0, 1).float() - 127.5) / 128


def _correct(boxes: Tensor, corrections: Tensor) -> Tensor:
    """Corners moved by shares of the box's width and height."""
    return boxes + corrections * (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)


def _square(boxes: Tensor) -> Tensor:
    """The square of the longer side about the same centre, in whole px."""
    side = (boxes[:, 2:] - boxes[:, :2]).amax(1, keepdim=True)
    corner = (boxes[:, :2] + boxes[:, 2:] - side) / 2
    return torch.cat([corner.round(), (corner + side - 1).round() + 1], 1)


def _in_batches(net: Stage, image: np.ndarray, boxes: Tensor, size: int) -> tuple[Tensor, ...]:
    """What `net` gives for the boxes (M, 4) of the image (H, W, 3); black beyond the image."""
    crops = [_resize(_cut(image, *box), size, size, boxes.device) for box in boxes.long().tolist()]
    crops = torch.stack(crops) if crops else boxes.new_zeros(0, 3, size, size)
    outputs = [net(part) for part in crops.split(BATCH)]
    return tuple(torch.cat(parts) for parts in zip(*outputs, strict=True))


def _cut(image: np.ndarray, x1: int, y1: int, x2: int, y2: int) -> np.ndarray:
    cut = np.zeros((max(y2 - y1, 1), max(x2 - x1, 1), 3), np.uint8)
    inside = image[max(y1, 0):max(y2, 0), max(x1, 0):max(x2, 0)]
    if inside.size:
        top, left = max(-y1, 0), max(-x1, 0)
        cut[top:top + inside.shape[0], left:left + inside.shape[1]] = inside
    return cut


def nms_of_smaller(boxes: Tensor, scores: Tensor, overlap: float) -> Tensor:
    """Indices, best first, of boxes of which no better one covers more than `overlap` of the smaller one's area."""
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
