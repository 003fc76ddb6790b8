"""FaceBoxesV2, the face detector of PIPNet's demo: net, anchors, decode, encode and loss.

After Zhang et al., "FaceBoxes: A CPU Real-time Face Detector with High Accuracy", IJCB 2017: dense anchors (section
3.3), matching and hard negatives (section 3.4). Version 2 has plain strided convolutions in place of CReLU and pools.
Boxes are corners x1, y1, x2, y2, anchors are centre and size cx, cy, w, h, both in px of the input.
"""

import copy
import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchvision.ops import box_iou, nms

from nets.trainable import Trainable

# {stride: (side of the anchor in px, anchors along each side of a cell, 0 for one in its middle)}
ANCHORS = {32: ((32, 4), (64, 2), (128, 0)), 64: ((256, 0),), 128: ((512, 0),)}
PER_CELL = {stride: sum(max(dense, 1) ** 2 for _, dense in sizes) for stride, sizes in ANCHORS.items()}
VARIANCES = (0.1, 0.2)  # of the centre and of the logarithm of the size
MEAN = (104.0, 117.0, 123.0)  # BGR of 0..255
CANDIDATES, MOST = 5000, 750  # upper bounds of boxes before and after suppression
MATCH, NEAREST = 0.35, 0.2  # IoU from which an anchor learns a box, and from which the nearest one does
NEGATIVES, LEAST = 7, 16  # background anchors in the loss: for each match, and at least for each image


class BoxTargets(NamedTuple):
    """Wanted outputs in one tensor, packed (B, A, 5): offsets (B, A, 4) of the anchors whose label is 1, else 0; label
    (B, A) 0 for background, -1 for anchors that are not trained.
    """

    packed: Tensor

    offsets = property(lambda self: self.packed[..., :4])
    label = property(lambda self: self.packed[..., 4])

    def to(self, device) -> "BoxTargets":
        """Return the targets on another device."""
        return BoxTargets(self.packed.to(device, non_blocking=True))


class Conv(nn.Module):
    """Convolution without bias, batch norm, ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)), inplace=True)


class Inception(nn.Module):
    """Four branches of 32 channels with receptive fields of 1, 3, 3 and 5 cells."""

    def __init__(self) -> None:
        super().__init__()
        self.branch1x1 = Conv(128, 32, 1)
        self.branch1x1_2 = Conv(128, 32, 1)
        self.branch3x3_reduce = Conv(128, 24, 1)
        self.branch3x3 = Conv(24, 32, 3)
        self.branch3x3_reduce_2 = Conv(128, 24, 1)
        self.branch3x3_2 = Conv(24, 32, 3)
        self.branch3x3_3 = Conv(32, 32, 3)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat(
            [
                self.branch1x1(x),
                self.branch1x1_2(F.avg_pool2d(x, 3, 1, 1)),
                self.branch3x3(self.branch3x3_reduce(x)),
                self.branch3x3_3(self.branch3x3_2(self.branch3x3_reduce_2(x))),
            ],
            1,
        )


class FaceBoxesV2(Trainable):
    """uint8 BGR (B, H, W, 3) of any size -> (offsets (B, A, 4), logits (B, A, 2): background, face), A as in
    `anchors(H, W)`.
    """

    terms = {"conf": "cls", "loc": "reg"}
    spec = {"net": "faceboxes"}

    mean: Tensor
    conv1: Conv
    conv2: Conv
    conv3: Conv
    conv4: Conv
    conv5: Conv

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 8, 16, 32, 64, 128)
        for index in range(1, 6):
            self.add_module(f"conv{index}", Conv(widths[index - 1], widths[index], 3, 2))
        self.inception1, self.inception2, self.inception3 = Inception(), Inception(), Inception()
        self.conv6_1, self.conv6_2 = Conv(128, 128, 1), Conv(128, 256, 3, 2)
        self.conv7_1, self.conv7_2 = Conv(256, 128, 1), Conv(128, 256, 3, 2)
        taps = list(zip((128, 256, 256), PER_CELL.values(), strict=True))
        self.loc = nn.ModuleList(nn.Conv2d(channels, 4 * count, 3, padding=1) for channels, count in taps)
        self.conf = nn.ModuleList(nn.Conv2d(channels, 2 * count, 3, padding=1) for channels, count in taps)
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        x = images.permute(0, 3, 1, 2).float() - self.mean
        x = self.conv5(self.conv4(self.conv3(self.conv2(self.conv1(x)))))
        stride32 = self.inception3(self.inception2(self.inception1(x)))
        stride64 = self.conv6_2(self.conv6_1(stride32))
        stride128 = self.conv7_2(self.conv7_1(stride64))
        offsets, logits = [], []
        for features, loc, conf in zip((stride32, stride64, stride128), self.loc, self.conf, strict=True):
            offsets.append(loc(features).permute(0, 2, 3, 1).flatten(1))
            logits.append(conf(features).permute(0, 2, 3, 1).flatten(1))
        return torch.cat(offsets, 1).unflatten(1, (-1, 4)), torch.cat(logits, 1).unflatten(1, (-1, 2))

    def loss(self, images: Tensor, targets: BoxTargets) -> dict[str, Tensor]:
        return multibox_loss(*self(images), targets)

    def denominators(self, targets: BoxTargets) -> dict[str, Tensor]:
        """Return {term: count}: the matched anchors, for `conf` at least those that LEAST background anchors stand for."""
        faces = (targets.label == 1).sum(1).float()
        return {"conf": faces.clamp(min=LEAST / NEGATIVES).sum(), "loc": faces.sum()}

    def fused(self) -> "FaceBoxesV2":
        """Return a copy for inference, with batch norms folded into the convolutions: same outputs, less memory
        traffic.
        """
        net = copy.deepcopy(self).eval()
        for module in net.modules():
            if isinstance(module, Conv):
                module.conv, module.bn = fuse_conv_bn_eval(module.conv, module.bn), nn.Identity()
        return net

    @torch.no_grad()
    def measure_norms(self, images: Tensor) -> None:
        """Set every batch norm to the statistics of `images`, and its weights so that its outputs stay the same.

        A net whose batch norms were folded can then be trained on.
        """

        def measure(norm: Any, inputs: tuple[Tensor]) -> None:
            slope = norm.weight / (norm.running_var + norm.eps).sqrt()
            start = norm.bias - slope * norm.running_mean
            variance, mean = torch.var_mean(inputs[0].float(), (0, 2, 3), correction=0)
            norm.running_mean.copy_(mean)
            norm.running_var.copy_(variance)
            norm.weight.copy_(slope * (variance + norm.eps).sqrt())
            norm.bias.copy_(start + slope * mean)

        norms = [module for module in self.modules() if isinstance(module, nn.BatchNorm2d)]
        hooks = [norm.register_forward_pre_hook(measure) for norm in norms]
        was = self.training
        self.eval()(images)
        self.train(was)
        for hook in hooks:
            hook.remove()

    @torch.inference_mode()
    def detect(self, images: Tensor, threshold: float = 0.6, overlap: float = 0.3) -> list[tuple[Tensor, Tensor]]:
        """Return boxes (M, 4) and scores (M,), best first, M <= 750, of each image uint8 BGR (B, H, W, 3).

        Boxes may reach beyond the image. Scores exceed `threshold`; of two boxes with the IoU `overlap` the lower one
        is dropped.
        """
        offsets, logits = self(images)
        boxes = decode(offsets, anchors(*images.shape[1:3], device=images.device))
        return [best_boxes(*image, threshold, overlap) for image in zip(boxes, logits.softmax(-1)[..., 1], strict=True)]


def anchors(height: int, width: int, device: torch.device | None = None) -> Tensor:
    """Return (A, 4) cx, cy, w, h in px of an input of that size: by stride, cell (row by row), size, place in the cell
    (by y).
    """
    found = []
    for stride, sizes in ANCHORS.items():
        rows, columns = (height + stride - 1) // stride, (width + stride - 1) // stride
        cell = []  # cx, cy, w, h in one cell
        for side, dense in sizes:
            places = [step / dense for step in range(dense)] or [0.5]
            cell += [(x * stride, y * stride, side, side) for y in places for x in places]
        y, x = torch.meshgrid(torch.arange(rows, device=device), torch.arange(columns, device=device), indexing="ij")
        corner = torch.stack([x, y, torch.zeros_like(x), torch.zeros_like(x)], -1).float() * stride
        found.append((corner[:, :, None] + torch.tensor(cell, dtype=torch.float32, device=device)).view(-1, 4))
    return torch.cat(found)


def decode(offsets: Tensor, anchor: Tensor) -> Tensor:
    """Return boxes (..., A, 4) from offsets (..., A, 4) and anchors (A, 4)."""
    centre = anchor[:, :2] + offsets[..., :2] * VARIANCES[0] * anchor[:, 2:]
    half = anchor[:, 2:] * (offsets[..., 2:] * VARIANCES[1]).exp() / 2
    return torch.cat([centre - half, centre + half], -1)


def corners(anchor: Tensor) -> Tensor:
    """Return boxes (A, 4) of anchors (A, 4)."""
    return torch.cat([anchor[:, :2] - anchor[:, 2:] / 2, anchor[:, :2] + anchor[:, 2:] / 2], 1)


def encode_boxes(boxes: Tensor, anchor: Tensor) -> Tensor:
    """Return offsets (A, 4) of boxes (A, 4), one for each anchor: the inverse of `decode`."""
    centre, size = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    return torch.cat(
        [(centre - anchor[:, :2]) / (VARIANCES[0] * anchor[:, 2:]), (size / anchor[:, 2:]).log() / VARIANCES[1]], -1
    )


def best_boxes(boxes: Tensor, scores: Tensor, threshold: float, overlap: float) -> tuple[Tensor, Tensor]:
    """Return the boxes (M, 4) above the threshold that overlap no better one, and their scores (M,), best first.

    As published, a box from x1 to x2 is x2 - x1 + 1 wide here, and an IoU of exactly `overlap` is dropped.
    """
    above = (scores > threshold).nonzero()[:, 0]
    boxes, scores = boxes[above], scores[above]
    order = scores.argsort(descending=True, stable=True)[:CANDIDATES]
    boxes, scores = boxes[order], scores[order]
    keep = nms(boxes + boxes.new_tensor([0, 0, 1, 1]), scores, math.nextafter(overlap, 0))[:MOST]
    return boxes[keep], scores[keep]


def encode(boxes: Tensor, anchor: Tensor, smallest: float = 0.0) -> Tensor:
    """Return the packed `BoxTargets` (A, 5) of an image (section 3.4); boxes (M, 4), M >= 0.

    An anchor learns the box with the largest IoU if that reaches MATCH. The nearest anchor of a box learns that box if
    the IoU reaches NEAREST, so that gaps between anchors leave no box out. smallest: px; shorter sides are matched as
    if they had this length, so that a small box trains as many anchors as others do.
    """
    if not len(boxes):
        return anchor.new_zeros(len(anchor), 5)
    more = (smallest - (boxes[:, 2:] - boxes[:, :2])).clamp(min=0) / 2
    iou = box_iou(corners(anchor), torch.cat([boxes[:, :2] - more, boxes[:, 2:] + more], 1))
    nearest = iou.argmax(0), torch.arange(len(boxes), device=boxes.device)
    # where two boxes have one nearest anchor, the larger IoU wins; a nearest anchor wins over other overlaps
    iou[nearest] += 2.0 * (iou[nearest] >= NEAREST)
    best, box = iou.max(1)
    label = (best >= MATCH)[:, None]
    return torch.cat([torch.where(label, encode_boxes(boxes[box], anchor), 0), label.float()], 1)


def multibox_loss(
    offsets: Tensor, logits: Tensor, targets: BoxTargets, negatives: float = NEGATIVES, least: int = LEAST
) -> dict[str, Tensor]:
    """Return {"loc": sum, "conf": sum} of a batch (section 3.4).

    loc is smooth L1 of the offsets of matched anchors. conf is the cross-entropy of these and of each image's hardest
    background: `negatives` for each match and at least `least`, so that images without a face are trained too.
    """
    face = targets.label == 1
    offsets, logits = offsets.float(), logits.float()
    loc = F.smooth_l1_loss(offsets, targets.offsets, reduction="none").sum(-1)
    entropy = F.cross_entropy(logits.transpose(1, 2), face.long(), reduction="none")
    background = entropy.detach().masked_fill(targets.label != 0, -1)  # an entropy is never negative
    rank = background.argsort(1, descending=True).argsort(1)
    wanted = (face.sum(1, keepdim=True) * negatives).clamp(min=least)
    hard = (rank < wanted) & (targets.label == 0)
    return {"loc": (face * loc).sum(), "conf": ((face | hard) * entropy).sum()}
