"""Re-initialisation (DPR: Shao et al., TPAMI 2021, after Lv et al., CVPR 2017): a face is first brought to its usual place.

A small net looks at the crop and gives an affine map from it to a new one, in which the face lies as the mean face does, wherever
a detector's box put it. The net proper sees that new crop only, resampled from the wide crop with its margin; its landmarks go
back through the inverse. All of it is differentiable, so that errors in the outer crop teach both nets.

Frames: `outer` is [0, 1] of the nominal crop as it came, `inner` [0, 1] of the resampled one; a map takes outer to inner points.
"""
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nets.labels import Labels, Prediction
from nets.net import Net, Seen

SIZE = 128  # px, what the re-initialising net sees of the nominal crop
MARGIN = 1.25  # of the wide crop, for nets whose row asks for none
CALM = 0.1  # a map / what the net that gives it says: one step of Adam must not throw the face out of the picture
FLAT = 0.01  # least determinant of a map: none may squeeze the face flat or mirror it


class Frame(nn.Module):
    """x (B, 3, 128, 128) in [-1, 1], BGR -> (B, 2, 3); CALM times it is the map from the outer to the inner frame, which begins
    as the identity."""

    def __init__(self) -> None:
        super().__init__()
        self.localization = nn.Sequential(
            nn.Conv2d(3, 8, 5, 2), nn.MaxPool2d(2), nn.PReLU(),
            nn.Conv2d(8, 16, 3), nn.PReLU(), nn.Conv2d(16, 16, 3), nn.MaxPool2d(2), nn.PReLU(),
            nn.Conv2d(16, 32, 3), nn.PReLU(), nn.Conv2d(32, 32, 3), nn.MaxPool2d(2), nn.PReLU(),
            nn.Conv2d(32, 64, 3), nn.PReLU())
        self.fc_loc = nn.Sequential(nn.Linear(256, 32), nn.PReLU(), nn.Linear(32, 6))
        begin_as(self.fc_loc[-1], torch.eye(2, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.fc_loc(self.localization(x).flatten(1)).view(-1, 2, 3)


def begin_as(layer: nn.Linear, matrix: Tensor) -> None:
    """Makes the last layer of a net stand for one (2, 3) map, whatever it sees."""
    nn.init.zeros_(layer.weight)
    with torch.no_grad():
        layer.bias.copy_(matrix.flatten() / CALM)


def determinant(matrix: Tensor) -> Tensor:
    """(B,) of maps (B, 2, 3), kept from zero."""
    (a, b), (c, d) = matrix[:, 0, :2].unbind(-1), matrix[:, 1, :2].unbind(-1)
    return (a * d - b * c).clamp(min=FLAT)


def inverse(matrix: Tensor) -> Tensor:
    """Of maps (B, 2, 3)."""
    (a, b, x), (c, d, y) = matrix[:, 0].unbind(-1), matrix[:, 1].unbind(-1)
    rows = torch.stack([d, -b, b * y - d * x, -c, a, c * x - a * y], -1) / determinant(matrix)[:, None]
    return rows.view(-1, 2, 3)


def chain(first: Tensor, then: Tensor) -> Tensor:
    """One map (B, 2, 3) that does both."""
    both = (then[:, :, :2, None] * first[:, None]).sum(2)
    return torch.cat([both[:, :, :2], both[:, :, 2:] + then[:, :, 2:]], 2)


def resample(images: Tensor, matrix: Tensor, size: int, nominal: int) -> Tensor:
    """Pictures (B, S, S, 3), the nominal crop in the middle `nominal` px, through maps (B, 2, 3) -> (B, size, size, 3) float.

    Black outside the picture. Bilinear, so differentiable with regard to the maps.
    """
    side = images.shape[1]
    centre = (torch.arange(size, device=images.device) + 0.5) / size
    y, x = torch.meshgrid(centre, centre, indexing="ij")
    rows = inverse(matrix)[:, :, :, None, None]  # (B, 2, 3, 1, 1)
    outer = rows[:, :, 0] * x + rows[:, :, 1] * y + rows[:, :, 2]  # (B, 2, size, size)
    grid = ((2 * outer - 1) * (nominal / side)).permute(0, 2, 3, 1)  # the wide crop is [-1, 1]
    pictures = F.grid_sample(images.permute(0, 3, 1, 2).float(), grid, align_corners=False)
    return pictures.permute(0, 2, 3, 1)


def known(labels: Labels) -> Labels:
    """The same labels without NaN, which would reach the gradient of a map; landmarks that were NaN are invisible."""
    finite = torch.isfinite(labels.landmarks).all(-1)
    visible = finite if labels.visible is None else finite & labels.visible
    return labels._replace(landmarks=torch.where(finite[..., None], labels.landmarks, 0.5), visible=visible)


class Anchored(torch.autograd.Function):
    """Maps (B, 2, 3) twice: for the head, and for the term that anchors them to the mean face.

    Through a picture comes the gradient of a net that may have learnt nothing yet: noise, a thousand times as large as the
    anchor's, and a map that follows it runs away. Face by face, the head's has at most this share of the norm of the anchor's,
    so that every step brings the mean face nearer; of a face without the anchor's, nothing reaches the map.
    """

    SHARE = 0.5

    @staticmethod
    def forward(ctx, matrix: Tensor) -> tuple[Tensor, Tensor]:
        return matrix.clone(), matrix.clone()

    @staticmethod
    def backward(ctx, head: Tensor, anchor: Tensor) -> Tensor:
        norms = [gradient.flatten(1).norm(dim=1) for gradient in (head, anchor)]
        share = (Anchored.SHARE * norms[1] / norms[0].clamp(min=torch.finfo(head.dtype).tiny)).clamp(max=1)
        return anchor + share[:, None, None] * head


class Reinit(Net):
    """`net` behind a map to its usual place; names of `net`'s tensors stay, those of the map begin with `frame`.

    Pictures are uint8 BGR (B, S, S, 3) with the margin of spec["input_margin"]. Loss terms of the head are measured in the outer
    frame; the term `frame` is the distance from the mean face of the labels in the inner one.
    """

    def __init__(self, net: Net, meanface: list[list[float]]):
        super().__init__(net.backbone, net.neck, net.head, net.spec)
        self.frame = Frame()
        self.register_buffer("meanface", torch.tensor(meanface), persistent=False)

    @property
    def terms(self) -> dict[str, str]:
        return {**super().terms, "frame": "anchor"}

    def count(self, labels: Labels) -> dict[str, Tensor]:
        # which landmarks the inner frame will show is not known yet: all of them count
        shown = labels._replace(landmarks=torch.where(torch.isfinite(labels.landmarks), 0.5, labels.landmarks))
        return {**super().count(shown), "frame": labels.trainable().sum()}

    def locate(self, images: Tensor) -> Tensor:
        """(B, 2, 3) float32 maps from the outer to the inner frame."""
        size = self.spec["input_size"]
        same = torch.eye(2, 3, device=images.device).expand(images.shape[0], 2, 3)
        with torch.autocast(images.device.type, enabled=False):  # 16 bits are a px of 256
            seen = resample(images, same, SIZE, size).permute(0, 3, 1, 2)
            return CALM * self.frame(seen / 127.5 - 1)

    def see_inner(self, images: Tensor, matrix: Tensor) -> Seen:
        """What head and refiner see of the pictures in the inner frame."""
        size = self.spec["input_size"]
        return super().see(resample(images, matrix, size, size))

    def see(self, images: Tensor) -> Seen:
        return self.see_inner(images, self.locate(images))

    def loss(self, images: Tensor, labels: Labels) -> dict[str, Tensor]:
        return self.global_loss(images, known(labels))[0]

    def global_loss(self, images: Tensor, labels: Labels) -> tuple[dict[str, Tensor], Any, Seen, Tensor]:
        """({term: sum}, the head's maps, what is seen in the inner frame, the maps (B, 2, 3) to it). labels: without NaN."""
        matrix, anchored = Anchored.apply(self.locate(images))
        seen = self.see_inner(images, matrix)
        maps = self.head(seen.features)
        inner, weight = labels.warp(matrix), labels.trainable()
        frame = (weight * (labels.warp(anchored).landmarks - self.meanface).abs().mean(-1)).sum()
        # errors in the outer frame are those in the inner one over its scale
        scaled = inner._replace(weight=weight / determinant(matrix).sqrt()[:, None])
        return {**self.losses(maps, seen, scaled), "frame": frame}, maps, seen, matrix

    def predict(self, images: Tensor) -> Prediction:
        return outer(*self.inner(images))

    def inner(self, images: Tensor) -> tuple[Prediction, Tensor]:
        """(the prediction in the inner frame, the maps (B, 2, 3) to it)."""
        matrix = self.locate(images)
        seen = self.see_inner(images, matrix)
        return self.decode(self.head(seen.features), seen), matrix


def outer(prediction: Prediction, matrix: Tensor) -> Prediction:
    """A prediction in the inner frame of maps (B, 2, 3), in the outer one."""
    sigma = None if prediction.sigma is None else prediction.sigma / determinant(matrix).sqrt()[:, None]
    return prediction.warp(inverse(matrix))._replace(sigma=sigma)
