"""Labels and predictions of faces. True labels, pseudo-labels and a teacher's landmarks have the same form."""
from typing import NamedTuple

import torch
from torch import Tensor

PER_LANDMARK = ("landmarks", "visible", "weight", "score", "sigma")


def select(values, indices):
    """Return labels or a prediction of the landmarks `indices` only."""
    chosen = {name: getattr(values, name)[:, indices] for name in PER_LANDMARK if getattr(values, name, None) is not None}
    return values._replace(**chosen)


def flip(values, layout):
    """Return labels or a prediction for the mirrored crop. This is its own inverse."""
    values = select(values, list(layout.flip_index))
    landmarks = torch.stack([1 - values.landmarks[..., 0], values.landmarks[..., 1]], -1)
    values = values._replace(landmarks=landmarks)
    if values.pose is not None:  # pitch stays, yaw and roll change sign
        values = values._replace(pose=values.pose * values.pose.new_tensor([1, -1, -1]))
    if values.states is not None:
        values = values._replace(states=torch.cat([values.states[:, [1, 0]], values.states[:, 2:]], 1))
    return values


def warp(values, matrix: Tensor):
    """Return labels or a prediction for pictures that went through the affine maps `matrix` (B, 2, 3)."""
    # no matrix product: autocast would round it to 16 bits
    landmarks = (values.landmarks[:, :, None] * matrix[:, None, :, :2]).sum(3) + matrix[:, None, :, 2]
    values = values._replace(landmarks=landmarks)
    if values.pose is not None:
        angle = torch.atan2(matrix[:, 1, 0] - matrix[:, 0, 1], matrix[:, 0, 0] + matrix[:, 1, 1])  # nearest rotation
        values = values._replace(pose=turned(values.pose, angle))
    return values


def turned(pose: Tensor, angle: Tensor) -> Tensor:
    """Return the pose (B, 3) in radians of faces whose pictures are turned clockwise by `angle` (B,).

    Pitch, yaw, roll are those of 300W-LP: the head is turned by Rx(pitch) Ry(yaw) Rz(roll), with y upwards.
    """
    angles = torch.stack([*pose.unbind(1), angle])
    (sp, sy, sr, sa), (cp, cy, cr, ca) = angles.sin(), angles.cos()
    top = torch.stack([cy * cr, cy * sr, -sy], 1)
    middle = torch.stack([sp * sy * cr - cp * sr, sp * sy * sr + cp * cr, sp * cy], 1)
    top, middle = ca[:, None] * top + sa[:, None] * middle, ca[:, None] * middle - sa[:, None] * top
    pitch = torch.atan2(middle[:, 2], cp * cy)
    return torch.stack([pitch, -torch.asin(top[:, 2].clamp(-1, 1)), torch.atan2(top[:, 1], top[:, 0])], 1)


class Weak(NamedTuple):
    """Weakly augmented crops of the last U pictures of a batch, which have no labels, for a teacher to label.

    images (U, S, S, 3) uint8 BGR; matrix (U, 2, 3): from [0, 1] of that crop to [0, 1] of the picture in the batch, with a
    negative determinant where that is mirrored
    """
    images: Tensor
    matrix: Tensor

    def to(self, device, non_blocking: bool = False) -> "Weak":
        """Return the crops on another device."""
        return Weak(*(part.to(device, non_blocking=non_blocking) for part in self))


class Labels(NamedTuple):
    """A batch of labels, landmarks in the frame of the crop ([0, 1] across its width and height).

    landmarks (B, N, 2), NaN where unknown
    visible   (B, N) bool; an invisible landmark is not trained
    weight    (B, N) float, 1 by default
    pose      (B, 3) pitch, yaw, roll in radians, NaN where unknown
    states    (B, k) 0 or 1, NaN where unknown; `flip` takes the first two for the left and the right eye
    level     (B,) int, 0 by default: all terms are trained; 1 or 2: only the score map of that `PIPHead.levels`
    weak      of pictures that follow the labelled ones in the batch, for `MeanTeacher`
    """
    landmarks: Tensor
    visible: Tensor | None = None
    weight: Tensor | None = None
    pose: Tensor | None = None
    states: Tensor | None = None
    level: Tensor | None = None
    weak: Weak | None = None

    flip, warp, select = flip, warp, select

    def to(self, device) -> "Labels":
        """Return the labels on another device."""
        return Labels(*(None if part is None else part.to(device, non_blocking=True) for part in self))

    def trainable(self) -> Tensor:
        """Return (B, N) float: the weight, 0 where a landmark is invisible or not finite."""
        weight = torch.isfinite(self.landmarks).all(-1).to(self.landmarks.dtype)
        if self.visible is not None:
            weight = weight * self.visible
        return weight if self.weight is None else weight * self.weight

    def whole(self) -> "Labels":
        """Return the labels in which samples that train a coarse score map only have no weight."""
        if self.level is None:
            return self
        return self._replace(weight=self.trainable() * (self.level == 0)[:, None])

    def filled(self) -> "Labels":
        """Return the labels without NaN, which would spoil gradients even at weight 0; landmarks with one become invisible."""
        finite = torch.isfinite(self.landmarks).all(-1)
        return self._replace(landmarks=torch.nan_to_num(self.landmarks, nan=0.5, posinf=0.5, neginf=0.5),
                             visible=finite if self.visible is None else finite & self.visible)


class Prediction(NamedTuple):
    """Predictions for a batch of crops, landmarks in the frame of the crop ([0, 1]).

    landmarks (B, N, 2), score (B, N): confidence in [0, 1], sigma (B, N): expected error in units of the crop,
    pose (B, 3) in radians, states (B, k): probabilities
    """
    landmarks: Tensor
    score: Tensor
    sigma: Tensor | None = None
    pose: Tensor | None = None
    states: Tensor | None = None

    flip, warp, select = flip, warp, select
