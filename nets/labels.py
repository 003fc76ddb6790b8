"""Labels and predictions of faces. True labels, pseudo-labels and a teacher's landmarks have the same form."""

from typing import NamedTuple

import torch
from torch import Tensor

PER_LANDMARK = ("landmarks", "weight", "score", "sigma", "visible", "visible_weight")


def select(values, indices):
    """Return labels or a prediction with the landmarks `indices` only. indices: a list or a tensor."""
    chosen = {
        name: getattr(values, name)[:, indices] for name in PER_LANDMARK if getattr(values, name, None) is not None
    }
    return values.replace(**chosen)


def flip(values, layout):
    """Return labels or a prediction for the mirrored crop. This is its own inverse."""
    values = select(values, list(layout.flip_index))
    changed = {"landmarks": mirror(values.landmarks)}
    if values.pose is not None:  # pitch stays, yaw and roll change sign
        changed["pose"] = torch.cat([values.pose[:, :1], -values.pose[:, 1:]], 1)
    for name in ("states", "states_weight"):
        if (states := getattr(values, name, None)) is not None:
            changed[name] = torch.cat([states[:, 1:2], states[:, :1], states[:, 2:]], 1)
    return values.replace(**changed)


def warp(values, matrix: Tensor):
    """Return labels or a prediction for pictures that went through the affine maps `matrix` (B, 2, 3)."""
    changed = {"landmarks": move(values.landmarks, matrix)}
    if values.pose is not None:
        angle = torch.atan2(matrix[:, 1, 0] - matrix[:, 0, 1], matrix[:, 0, 0] + matrix[:, 1, 1])  # nearest rotation
        changed["pose"] = turned(values.pose, angle)
    return values.replace(**changed)


def mirror(points: Tensor) -> Tensor:
    """Return points (..., 2), in [0, 1] of the crop, as they lie in its mirror image."""
    return torch.stack([1 - points[..., 0], points[..., 1]], -1)


def move(points: Tensor, matrix: Tensor) -> Tensor:
    """Return points (B, N, 2) moved by affine maps `matrix` (B, 2, 3)."""
    # no matrix product: autocast would round it to 16 bits
    return (points[:, :, None] * matrix[:, None, :, :2]).sum(3) + matrix[:, None, :, 2]


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
    """Weakly augmented crops for a teacher to label, of the last U pictures of a batch, which have no labels.

    images (U, S, S, 3) uint8 BGR
    matrix (U, 2, 3): from [0, 1] of this crop to [0, 1] of the picture in the batch; if one of these is mirrored, the
        determinant is negative
    """

    images: Tensor
    matrix: Tensor

    def to(self, device, non_blocking: bool = False) -> "Weak":
        """Return the crops on another device."""
        return Weak(*(part.to(device, non_blocking=non_blocking) for part in self))


class Labels(NamedTuple):
    """A batch of labels in one finite tensor, made by `pack`.
    So a loss needs no masks, and one copy moves it to a device.

    packed (B, W) float32; form {field: number of columns}, in order; weak: weak crops of the unlabelled pictures, which
    come after the labelled ones in the batch, for `MeanTeacher`. Fields are views of `packed`; all but the first two may be
    None:

    - landmarks (B, N, 2) in [0, 1] of the crop; weight (B, N), 0 where unknown or not trained
    - pose (B, 3) pitch, yaw, roll in radians; pose_weight (B, 1), 0 where unknown
    - states (B, k) 0 or 1; states_weight (B, k), 0 where unknown; `flip` takes the first two for the left and the right
      eye
    - level (B, 1): 0: all terms are trained; 1 or 2: only the score map of that `PIPHead.levels`
    - visible (B, N): probability that the landmark is seen; visible_weight (B, N), 0 where unknown
    - face (B, 1): 1 where the crop shows a face in its place, see `nets.stages.face`; face_weight (B, 1), 0 where unknown
    """

    packed: Tensor
    form: dict[str, int]
    weak: Weak | None = None

    landmarks = property(lambda self: self.field("landmarks").unflatten(1, (-1, 2)))
    weight = property(lambda self: self.field("weight"))
    pose = property(lambda self: self.field("pose"))
    pose_weight = property(lambda self: self.field("pose_weight"))
    states = property(lambda self: self.field("states"))
    states_weight = property(lambda self: self.field("states_weight"))
    level = property(lambda self: self.field("level"))
    visible = property(lambda self: self.field("visible"))
    visible_weight = property(lambda self: self.field("visible_weight"))
    face = property(lambda self: self.field("face"))
    face_weight = property(lambda self: self.field("face_weight"))

    def flip(self, layout) -> "Labels":
        return flip(self, layout)

    def warp(self, matrix: Tensor) -> "Labels":
        return warp(self, matrix)

    def select(self, indices) -> "Labels":
        return select(self, indices)

    @classmethod
    def pack(cls, landmarks, weight=None, pose=None, states=None, level=None, visible=None, face=None) -> "Labels":
        """Return labels from arrays or tensors, in which NaN and infinity mean unknown. Without `weight` all weigh 1."""
        landmarks, known = _finite(landmarks)
        fields = {"landmarks": landmarks, "weight": known.all(-1).float()}
        if weight is not None:
            fields["weight"] = fields["weight"] * torch.as_tensor(weight, dtype=torch.float32).nan_to_num(0, 0, 0)
        if level is not None:
            fields["level"] = torch.as_tensor(level, dtype=torch.float32)[:, None]
        for name, values in (("pose", pose), ("states", states), ("visible", visible), ("face", face)):
            if values is not None:
                fields[name], known = _finite(values)
                # a pose is known as a whole
                fields[f"{name}_weight"] = (known.all(1, keepdim=True) if name == "pose" else known).float()
        return _join(fields)

    def field(self, name: str) -> Tensor | None:
        """Return the columns (B, k) of a field, None if there are none."""
        start = 0
        for other, width in self.form.items():
            if other == name:
                return self.packed[:, start : start + width]
            start += width
        return None

    def known(self, name: str, width: int) -> tuple[Tensor, Tensor]:
        """Return the values (B, width) of a field and their weights (B, width or 1); zeros if no label has it."""
        values, weight = self.field(name), self.field(f"{name}_weight")
        if values is None or weight is None:
            values = weight = self.packed.new_zeros(len(self.packed), width)
        return values, weight

    def replace(self, **fields: Tensor) -> "Labels":
        """Return the labels with other, finite values in some fields.
        Those of landmarks may have fewer of them.
        """
        return _join({name: fields.get(name, self.field(name)) for name in self.form})._replace(weak=self.weak)

    def weight_of(self, level: int) -> Tensor:
        """Return the weights (B, N) in the terms of that level, 0 for samples of another level."""
        return self.weight if self.level is None else self.weight * (self.level == level)

    def to(self, device) -> "Labels":
        """Return the labels on another device."""
        return self._replace(
            packed=self.packed.to(device, non_blocking=True), weak=self.weak and self.weak.to(device, True)
        )


def _finite(values) -> tuple[Tensor, Tensor]:
    """Return (values as float32 with 0.5 in place of NaN and infinity, bool of the same shape: whether they were
    finite). A vector (B,) becomes (B, 1).
    """
    values = torch.as_tensor(values, dtype=torch.float32)
    values = values[:, None] if values.ndim == 1 else values
    known = torch.isfinite(values)
    return torch.where(known, values, 0.5), known


def _join(fields: dict[str, Tensor]) -> Labels:
    """Return labels with these fields (B, ...)."""
    columns = {name: values.flatten(1) for name, values in fields.items()}
    return Labels(torch.cat(list(columns.values()), 1), {name: values.shape[1] for name, values in columns.items()})


class Prediction(NamedTuple):
    """Predictions for a batch of crops, landmarks in the frame of the crop ([0, 1]).

    - landmarks (B, N, 2); score (B, N): confidence in [0, 1]; sigma (B, N): expected error in units of the crop
    - pose (B, 3): pitch, yaw, roll in radians; states (B, k): probabilities
    - visible (B, N): probability that a landmark is seen
    - face (B,): probability that the crop shows a face in its place
    """

    landmarks: Tensor
    score: Tensor
    sigma: Tensor | None = None
    pose: Tensor | None = None
    states: Tensor | None = None
    visible: Tensor | None = None
    face: Tensor | None = None

    def flip(self, layout) -> "Prediction":
        return flip(self, layout)

    def warp(self, matrix: Tensor) -> "Prediction":
        return warp(self, matrix)

    def select(self, indices) -> "Prediction":
        return select(self, indices)

    def replace(self, **fields: Tensor) -> "Prediction":
        """Return the prediction with other values in some fields."""
        return self._replace(**fields)
