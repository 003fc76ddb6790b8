"""What a sample says of its face, and what a net says of it: one shape for true labels, pseudo-labels and predictions."""
from typing import NamedTuple

import torch
from torch import Tensor


class Labels(NamedTuple):
    """A batch of labels, landmarks in the frame of the crop ([0, 1] across its width and height).

    landmarks (B, N, 2); may hold NaN where a landmark is unknown
    visible   (B, N) bool; an invisible landmark is not trained
    weight    (B, N) float, default one
    pose      (B, 3) pitch, yaw, roll in radians, NaN where unknown
    states    (B, k) 0 or 1, NaN where unknown; the first two are of the left and the right eye wherever `flip` is used
    task      (B,) which loss terms a sample trains
    """
    landmarks: Tensor
    visible: Tensor | None = None
    weight: Tensor | None = None
    pose: Tensor | None = None
    states: Tensor | None = None
    task: Tensor | None = None

    def flip(self, layout) -> "Labels":
        """Labels of the mirrored crop; its own inverse."""
        return _flip(self, layout)

    def warp(self, matrix: Tensor) -> "Labels":
        """Landmarks through `matrix` (B, 2, 3)."""
        return self._replace(landmarks=_warp(self.landmarks, matrix))

    def select(self, indices) -> "Labels":
        """Only the landmarks `indices`."""
        return _select(self, indices)

    def to(self, device) -> "Labels":
        """On another device."""
        return Labels(*(None if part is None else part.to(device, non_blocking=True) for part in self))

    def trainable(self) -> Tensor:
        """(B, N) float: the weight, zero where a landmark is invisible or not finite."""
        weight = torch.isfinite(self.landmarks).all(-1).to(self.landmarks.dtype)
        if self.visible is not None:
            weight = weight * self.visible
        return weight if self.weight is None else weight * self.weight


class Prediction(NamedTuple):
    """What a net says of a batch of crops, landmarks in the frame of the crop ([0, 1]).

    landmarks (B, N, 2), score (B, N): confidence in [0, 1] after clamping, sigma (B, N): expected error in units of the crop
    """
    landmarks: Tensor
    score: Tensor
    sigma: Tensor | None = None
    pose: Tensor | None = None
    states: Tensor | None = None

    def flip(self, layout) -> "Prediction":
        """The prediction for the mirrored crop; its own inverse."""
        return _flip(self, layout)

    def warp(self, matrix: Tensor) -> "Prediction":
        """Landmarks through `matrix` (B, 2, 3)."""
        return self._replace(landmarks=_warp(self.landmarks, matrix))

    def select(self, indices) -> "Prediction":
        """Only the landmarks `indices`."""
        return _select(self, indices)


PER_LANDMARK = ("landmarks", "visible", "weight", "score", "sigma")


def _select(values, indices):
    chosen = {name: getattr(values, name)[:, indices] for name in PER_LANDMARK if getattr(values, name, None) is not None}
    return values._replace(**chosen)


def _flip(values, layout):
    values = _select(values, list(layout.flip_index))
    landmarks = torch.stack([1 - values.landmarks[..., 0], values.landmarks[..., 1]], -1)
    values = values._replace(landmarks=landmarks)
    if values.pose is not None:  # pitch stays, yaw and roll change sign
        values = values._replace(pose=values.pose * values.pose.new_tensor([1, -1, -1]))
    if values.states is not None:
        values = values._replace(states=torch.cat([values.states[:, [1, 0]], values.states[:, 2:]], 1))
    return values


def _warp(landmarks: Tensor, matrix: Tensor) -> Tensor:
    return landmarks @ matrix[:, :, :2].transpose(1, 2) + matrix[:, None, :, 2]
