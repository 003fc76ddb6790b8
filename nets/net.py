"""The plain net: picture in, landmarks out. Training, tests and export share this object."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from nets.labels import Labels, Prediction
from nets.losses import hard_landmark_weights
from nets.registry import TERMS
from nets.stages.auxiliary import SIZES, AuxiliaryHeads, counts, decoded, losses
from nets.stages.face import FaceBranch
from nets.stages.refiner import STRIDE, Refiner
from nets.stages.visibility import Visibility
from nets.trainable import Trainable


class Features(NamedTuple):
    """Feature maps of pictures: `coarse` (B, C, H, W) for the head; `fine` with stride 8 for the refiner, None without
    one.
    """

    coarse: Tensor
    fine: Tensor | None


class Outputs(NamedTuple):
    """Features of pictures, and the head's maps of these, which a training step computes before it uses labels.

    start (B, N, 2): landmarks that the maps decode to, without gradient; moves (B, N, 2): what the refiner adds to
    them. Both are in [0, 1] of the crop, or None if nothing needs them. seen (B, N): logits of `Visibility`, or None.
    """

    features: Features
    maps: Any
    start: Tensor | None
    moves: Tensor | None
    seen: Tensor | None


def by_name(maps) -> dict[str, Tensor]:
    """Return the maps of a head as {name: tensor}. The single tensor of head heatmap is named `score`."""
    maps = {"score": maps} if isinstance(maps, Tensor) else maps._asdict()
    return {name: value for name, value in maps.items() if isinstance(value, Tensor) and value.numel()}


class Net(Trainable):
    """preprocess -> backbone -> neck -> head, then the auxiliary heads, the refiner, the visibility and the face branch."""

    refiner: Refiner | None
    visibility: Visibility | None
    face: FaceBranch | None
    scale: Tensor
    shift: Tensor

    def __init__(self, backbone: Any, neck: Any, head: Any, spec: dict, head_terms: dict[str, str]):
        super().__init__()
        self.backbone, self.neck, self.head, self.spec = backbone, neck, head, spec
        self.head_terms = head_terms
        self.auxiliary = AuxiliaryHeads(neck.channels, [name for name in spec["auxiliary"] if name in SIZES])
        self.refiner = (
            Refiner(backbone.channels, neck.channels, head.num_lms, spec["input_size"], spec.get("openings", []))
            if spec["refine"]
            else None
        )
        self.visibility = Visibility(head.num_lms) if "visible" in spec["auxiliary"] else None
        self.face = FaceBranch(neck.channels) if "face" in spec["auxiliary"] else None
        self.sizes = {**SIZES, "visible": head.num_lms, "face": 1}  # of the outputs beside the landmarks
        self.grid = (-(-spec["input_size"] // spec["stride"]),) * 2  # (H, W) in cells of the head's feature map
        mean, std = (
            torch.tensor(spec["preprocess"][key], dtype=torch.float32).view(1, 3, 1, 1) for key in ("mean", "std")
        )
        self.register_buffer("scale", 1 / (255 * std), persistent=False)
        self.register_buffer("shift", -mean / std, persistent=False)

    @property
    def landmark_terms(self) -> dict[str, str]:
        """Return the terms of the head and the refiner, which need landmarks only."""
        return {**self.head_terms, **(self.refiner.terms if self.refiner else {})}

    @property
    def terms(self) -> dict[str, str]:
        further = {term: key for name in self.spec["auxiliary"] for term, key in TERMS[name].items()}
        return {**self.landmark_terms, **further}

    def denominators(self, labels: Labels) -> dict[str, Tensor]:
        found = self.head.denominators(labels, self.grid)
        if self.refiner:
            found |= self.refiner.denominators(labels)
        for name in self.spec["auxiliary"]:
            found |= counts(name, labels, self.sizes[name])
        return found

    def preprocess(self, images: Tensor) -> Tensor:
        """Return images uint8 BGR (B, S, S, 3) as float (B, 3, S, S) in the channel order and range of the backbone's
        row.
        """
        if self.spec["preprocess"]["order"] == "RGB":
            images = images.flip(-1)
        return images.permute(0, 3, 1, 2).float() * self.scale + self.shift

    def extract(self, images: Tensor) -> Features:
        """Return the feature maps of pictures uint8 BGR (B, S, S, 3)."""
        pyramid = self.backbone(self.preprocess(images))
        return Features(self.neck(pyramid), pyramid[STRIDE] if self.refiner else None)

    def forward(self, images: Tensor):
        """Return the head's maps of pictures uint8 BGR (B, S, S, 3)."""
        return self.head(self.extract(images).coarse)

    def maps(self, images: Tensor) -> dict[str, Tensor]:
        return by_name(self(images))

    def run(self, features: Features) -> Outputs:
        """Return the outputs of a training step for pictures with these features."""
        maps, start = self.head(features.coarse), None
        if self.refiner or self.spec["hard_landmarks"]:
            with torch.no_grad():
                start = self.head.decode(maps).landmarks.detach()  # which may be the maps themselves
        return Outputs(features, maps, start, *self._around(start, features))

    def _around(self, start: Tensor | None, features: Features) -> tuple[Tensor | None, Tensor | None]:
        """Return `moves` and `seen` of `Outputs`, from what lies around the landmarks `start`."""
        if not self.refiner:
            return None, None
        assert start is not None and features.fine is not None
        patches = self.refiner.patches(start, features.coarse, features.fine)
        return self.refiner.displacements(start, patches), self.visibility(patches) if self.visibility else None

    def _beside(self, seen: Tensor | None, coarse: Tensor) -> dict[str, Tensor]:
        """Return the outputs beside the landmarks, see `auxiliary`. seen, coarse: of `Outputs` and its features."""
        found = self.auxiliary(coarse)
        if seen is not None:
            found["visible"] = seen
        if self.face:
            found["face"] = self.face(coarse)
        return found

    def loss(self, images: Tensor, labels: Labels) -> dict[str, Tensor]:
        return self.losses(self.run(self.extract(images)), labels)

    def losses(self, outputs: Outputs, labels: Labels) -> dict[str, Tensor]:
        """Return {term: sum over the batch}; labels in the frame of the features."""
        found = self.landmark_losses(outputs, labels)
        for name, out in self._beside(outputs.seen, outputs.features.coarse).items():
            found |= losses(name, out, labels)
        return found

    def landmark_losses(self, outputs: Outputs, labels: Labels) -> dict[str, Tensor]:
        """Return {term: sum over the batch} of the landmark terms."""
        refined, start = {}, outputs.start
        if start is not None and self.spec["hard_landmarks"]:
            labels = hard_landmark_weights(labels, start, self.spec["hard_landmarks"])
        targets = self.head.encode(labels, tuple(outputs.features.coarse.shape[-2:]))
        if self.refiner and start is not None and outputs.moves is not None:
            refined = self.refiner.loss(start + outputs.moves, labels)
        return {**self.head.loss(outputs.maps, targets), **refined}

    def decode(self, maps, features: Features) -> Prediction:
        """Return the Prediction of the head and all stages, in the frame of the features."""
        found = self.head.decode(maps)
        moves, seen = self._around(found.landmarks, features)
        if moves is not None:
            found = found._replace(landmarks=found.landmarks + moves)
        return found._replace(**decoded(self._beside(seen, features.coarse)))

    def predict(self, images: Tensor) -> Prediction:
        features = self.extract(images)
        return self.decode(self.head(features.coarse), features)
