"""The whole net: picture in, landmarks out. Everything that must agree between training, test and export is one object."""
from typing import NamedTuple

import torch
from torch import Tensor, nn

from nets.labels import Labels, Prediction
from nets.losses import harder
from nets.stages.auxiliary import Multi
from nets.stages.refiner import STRIDE, Refiner


class Seen(NamedTuple):
    """What a net makes of pictures: the map that its head sees (B, C, H, W), and that of stride 8 where it refines."""
    features: Tensor
    fine: Tensor | None


class Net(nn.Module):
    """preprocess -> backbone -> neck -> head. `spec` (plain values) is all that is needed to build it again."""

    def __init__(self, backbone: nn.Module, neck: nn.Module, head: nn.Module, spec: dict):
        super().__init__()
        self.backbone, self.neck, self.head, self.spec = backbone, neck, head, spec
        self.others = Multi(neck.channels, spec.get("others", []))
        refines = spec.get("refine", False)
        self.refiner = Refiner(backbone.channels, neck.channels, head.num_lms, spec["input_size"]) if refines else None
        mean, std = (torch.tensor(spec["preprocess"][key], dtype=torch.float32).view(1, 3, 1, 1) for key in ("mean", "std"))
        self.register_buffer("scale", 1 / (255 * std), persistent=False)
        self.register_buffer("shift", -mean / std, persistent=False)

    @property
    def input_margin(self) -> float:
        """Pictures / their nominal crop."""
        return self.spec.get("input_margin", 1.0)

    @property
    def terms(self) -> dict[str, str]:
        """{term of the loss: the key of args.yaml that weighs it}."""
        return {**self.head.terms, **self.others.terms, **(self.refiner.terms if self.refiner else {})}

    def count(self, labels: Labels) -> dict[str, Tensor]:
        """{term: count}, what divides the sums of `loss`; known before the net has seen a picture."""
        refined = self.refiner.count(labels) if self.refiner else {}
        return {**self.head.count(labels), **self.others.count(labels), **refined}

    def preprocess(self, images: Tensor) -> Tensor:
        """uint8 BGR (B, S, S, 3), as OpenCV gives it, -> float (B, 3, S, S) in the channel order and range of the net's row."""
        if self.spec["preprocess"]["order"] == "RGB":
            images = images.flip(-1)
        return images.permute(0, 3, 1, 2).float() * self.scale + self.shift

    def see(self, images: Tensor) -> Seen:
        """uint8 BGR (B, S, S, 3) -> what the head and the refiner see."""
        pyramid = self.backbone(self.preprocess(images))
        return Seen(self.neck(pyramid), pyramid[STRIDE] if self.refiner else None)

    def features(self, images: Tensor) -> Tensor:
        """uint8 BGR (B, S, S, 3) -> what the head sees (B, C, H, W)."""
        return self.see(images).features

    def forward(self, images: Tensor):
        """uint8 BGR (B, S, S, 3) -> the head's maps."""
        return self.head(self.features(images))

    def reparameterized(self) -> "Net":
        """A copy that says the same with one convolution where a block has parallel branches (MobileOne, RepVGG); to infer."""
        from timm.utils import reparameterize_model

        return reparameterize_model(self)

    def loss(self, images: Tensor, labels: Labels) -> dict[str, Tensor]:
        """{term: sum} of a batch, to be divided by the `count` of all batches of a step."""
        seen = self.see(images)
        return self.losses(self.head(seen.features), seen, labels)

    def losses(self, maps, seen: Seen, labels: Labels) -> dict[str, Tensor]:
        """The terms of the head, whose maps were made of what is `seen`, and of all behind it; labels in the frame of these."""
        power = self.spec.get("hardness")
        found = self.head.decode(maps).landmarks.detach() if power or self.refiner else None
        if power:
            labels = harder(labels, found, power)
        targets = self.head.encode(labels, tuple(seen.features.shape[-2:]))
        refined = self.refiner.loss(found, *seen, labels) if self.refiner else {}
        return {**self.head.loss(maps, targets), **self.others.loss(seen.features, labels), **refined}

    def decode(self, maps, seen: Seen) -> Prediction:
        """What the head's maps and all behind it say, in the frame of what is seen. Landmarks are the refined ones, if any."""
        found = self.head.decode(maps)
        if self.refiner:
            found = found._replace(landmarks=self.refiner(found.landmarks, *seen))
        return self.others.add(found, seen.features)

    def predict(self, images: Tensor) -> Prediction:
        """uint8 BGR (B, S, S, 3) -> Prediction in the frame of the crop."""
        seen = self.see(images)
        return self.decode(self.head(seen.features), seen)
