"""Re-initialisation (DPR: Shao et al., TPAMI 2021, after Lv et al., CVPR 2017): the face is moved to a standard place
first.

A small net predicts from the crop an affine map theta to a new crop, in which the face lies where the mean face lies.
The wrapped net sees only the new crop, resampled from the wide crop with its margin. Its landmarks go back through the
inverse map. Everything is differentiable, so errors in the outer crop train both nets.

Frames: `outer` is [0, 1] of the nominal crop, `inner` is [0, 1] of the new crop; theta (B, 2, 3) takes outer to inner
points.
"""

from typing import Any

import torch
from torch import Tensor, nn

from nets.blocks import in_full
from nets.labels import Labels, Prediction, move
from nets.net import Features, Net, Outputs, by_name
from nets.wrappers.affine import inverse, length_scale, resample
from nets.wrappers.base import Wrapper

SIZE = 128  # px, side of the nominal crop as the transformer sees it
SHARE = 0.5  # largest gradient through the picture, as a share of the alignment's gradient
THETA_SCALE = 0.1  # the last layer's output is scaled by this, so that one Adam step cannot move the crop off the face


class SpatialTransformer(nn.Module):
    """Maps x (B, 3, 128, 128), BGR in [-1, 1], to theta (B, 2, 3), which is the identity at first."""

    def __init__(self) -> None:
        super().__init__()
        self.localization = nn.Sequential(
            nn.Conv2d(3, 8, 5, 2),
            nn.MaxPool2d(2),
            nn.PReLU(),
            nn.Conv2d(8, 16, 3),
            nn.PReLU(),
            nn.Conv2d(16, 16, 3),
            nn.MaxPool2d(2),
            nn.PReLU(),
            nn.Conv2d(16, 32, 3),
            nn.PReLU(),
            nn.Conv2d(32, 32, 3),
            nn.MaxPool2d(2),
            nn.PReLU(),
            nn.Conv2d(32, 64, 3),
            nn.PReLU(),
        )
        self.fc_loc = nn.Sequential(nn.Linear(256, 32), nn.PReLU(), nn.Linear(32, 6))
        set_constant(self.fc_loc[-1], torch.eye(2, 3))

    def forward(self, x: Tensor) -> Tensor:
        return THETA_SCALE * self.fc_loc(self.localization(x).flatten(1)).view(-1, 2, 3)


def set_constant(layer: Any, matrix: Tensor) -> None:
    """Initialise the last layer of a net for theta so that it returns `matrix` (2, 3) for every input."""
    nn.init.zeros_(layer.weight)
    with torch.no_grad():
        layer.bias.copy_(matrix.flatten() / THETA_SCALE)


class SplitGradient(torch.autograd.Function):
    """Returns maps (B, 2, 3) twice: for the head's picture, and for the alignment term.

    The gradient of the head with respect to theta is limited, per face, to SHARE of the alignment's. In an untrained
    net the head's gradient is noise, a thousand times larger than the alignment's, and would move the crop off the
    face. With the limit, every step brings the labels nearer to the mean face. Without an alignment gradient, theta
    gets no gradient.
    """

    @staticmethod
    def forward(ctx, matrix: Tensor) -> tuple[Tensor, Tensor]:
        return matrix.clone(), matrix.clone()

    @staticmethod
    def backward(ctx, head: Tensor, alignment: Tensor) -> Tensor:
        norms = [gradient.flatten(1).norm(dim=1) for gradient in (head, alignment)]
        share = (SHARE * norms[1] / norms[0].clamp(min=torch.finfo(head.dtype).tiny)).clamp(max=1)
        return alignment + share[:, None, None] * head


def alignment_loss(truth: Tensor, weight: Tensor, matrix: Tensor, mean: Tensor) -> Tensor:
    """Return the weighted sum of the distances between landmarks moved by `matrix` and their mean places.

    truth (B, N, 2); weight (B, N); matrix (B, 2, 3); mean (N, 2): in the frame that `matrix` leads to.
    """
    return (weight * (move(truth, matrix) - mean).abs().mean(-1)).sum()


class Reinit(Wrapper):
    """`net` behind a spatial transformer; its tensors are named `transformer.*`.

    Pictures are uint8 BGR (B, S, S, 3) with the margin spec["input_margin"]. The head's loss terms are measured in the
    outer frame. The term `alignment` is the distance of the labels in the inner frame from the mean face
    spec["meanface"].
    """

    net: Net
    meanface: Tensor

    def __init__(self, net: Net):
        super().__init__(net)
        self.transformer = SpatialTransformer()
        self.register_buffer("meanface", torch.tensor(net.spec["meanface"]), persistent=False)

    @property
    def terms(self) -> dict[str, str]:
        return {**self.net.terms, "alignment": "alignment"}

    def denominators(self, labels: Labels) -> dict[str, Tensor]:
        # the inner frame is not known yet, so every landmark counts as if it lay inside
        inside = labels.replace(landmarks=torch.full_like(labels.landmarks, 0.5))
        return {**self.net.denominators(inside), "alignment": labels.weight.sum()}

    def theta(self, images: Tensor) -> Tensor:
        """Return the float32 maps (B, 2, 3) from the outer to the inner frame."""
        size = self.spec["input_size"]
        same = torch.eye(2, 3, device=images.device).expand(images.shape[0], 2, 3)
        with in_full(images):  # 16 bits would round to a px of 256
            nominal = resample(images, same, SIZE, size).permute(0, 3, 1, 2)
            return self.transformer(nominal / 127.5 - 1)

    def extract_inner(self, images: Tensor, theta: Tensor) -> Features:
        """Return the wrapped net's features of the inner crop."""
        size = self.spec["input_size"]
        return self.net.extract(resample(images, theta, size, size))

    def loss(self, images: Tensor, labels: Labels) -> dict[str, Tensor]:
        return self.global_loss(images, labels)[0]

    def global_loss(self, images: Tensor, labels: Labels) -> tuple[dict[str, Tensor], Outputs, Tensor]:
        """Return ({term: sum}, outputs of the wrapped net for the inner crop, theta (B, 2, 3))."""
        theta, aligned = SplitGradient.apply(self.theta(images))
        outputs = self.net.run(self.extract_inner(images, theta))
        # an error in the outer frame is the error in the inner one divided by the scale of theta
        inner = labels.warp(theta).replace(weight=labels.weight / length_scale(theta))
        terms = self.net.losses(outputs, inner)
        alignment = alignment_loss(labels.landmarks, labels.weight, aligned, self.meanface)
        return {**terms, "alignment": alignment}, outputs, theta

    def predict(self, images: Tensor) -> Prediction:
        return outer(*self.inner(images))

    def maps(self, images: Tensor) -> dict[str, Tensor]:
        """Return the maps of the head in the inner frame, and `theta`."""
        theta = self.theta(images)
        return {"theta": theta, **by_name(self.head(self.extract_inner(images, theta).coarse))}

    def inner(self, images: Tensor) -> tuple[Prediction, Tensor]:
        """Return the prediction in the inner frame and theta (B, 2, 3)."""
        theta = self.theta(images)
        features = self.extract_inner(images, theta)
        return self.net.decode(self.head(features.coarse), features), theta


def outer(prediction: Prediction, theta: Tensor) -> Prediction:
    """Return a prediction, given in the inner frame of theta (B, 2, 3), in the outer frame."""
    sigma = None if prediction.sigma is None else prediction.sigma / length_scale(theta)
    return prediction.warp(inverse(theta))._replace(sigma=sigma)
