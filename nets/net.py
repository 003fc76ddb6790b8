"""The whole net: picture in, landmarks out. Everything that must agree between training, test and export is one object."""
import torch
from torch import Tensor, nn

from nets.labels import Labels, Prediction
from nets.losses import harder
from nets.multi import Multi


class Net(nn.Module):
    """preprocess -> backbone -> neck -> head. `spec` (plain values) is all that is needed to build it again."""

    def __init__(self, backbone: nn.Module, neck: nn.Module, head: nn.Module, spec: dict):
        super().__init__()
        self.backbone, self.neck, self.head, self.spec = backbone, neck, head, spec
        self.others = Multi(neck.channels, spec.get("others", []))
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
        return {**self.head.terms, **self.others.terms}

    def count(self, labels: Labels) -> dict[str, Tensor]:
        """{term: count}, what divides the sums of `loss`; known before the net has seen a picture."""
        return {**self.head.count(labels), **self.others.count(labels)}

    def preprocess(self, images: Tensor) -> Tensor:
        """uint8 BGR (B, S, S, 3), as OpenCV gives it, -> float (B, 3, S, S) in the channel order and range of the net's row."""
        if self.spec["preprocess"]["order"] == "RGB":
            images = images.flip(-1)
        return images.permute(0, 3, 1, 2).float() * self.scale + self.shift

    def features(self, images: Tensor) -> Tensor:
        """uint8 BGR (B, S, S, 3) -> what the head sees (B, C, H, W)."""
        return self.neck(self.backbone(self.preprocess(images)))

    def forward(self, images: Tensor):
        """uint8 BGR (B, S, S, 3) -> the head's maps."""
        return self.head(self.features(images))

    def reparameterized(self) -> "Net":
        """A copy that says the same with one convolution where a block has parallel branches (MobileOne, RepVGG); to infer."""
        from timm.utils import reparameterize_model

        return reparameterize_model(self)

    def loss(self, images: Tensor, labels: Labels) -> dict[str, Tensor]:
        """{term: sum} of a batch, to be divided by the `count` of all batches of a step."""
        features = self.features(images)
        return self.losses(self.head(features), features, labels)

    def losses(self, maps, features: Tensor, labels: Labels) -> dict[str, Tensor]:
        """The terms of the head, whose maps were made of `features`, and of the other outputs; labels in the frame of these."""
        if power := self.spec.get("hardness"):
            labels = harder(labels, self.head.decode(maps).landmarks.detach(), power)
        targets = self.head.encode(labels, tuple(features.shape[-2:]))
        return {**self.head.loss(maps, targets), **self.others.loss(features, labels)}

    def decode(self, maps, features: Tensor) -> Prediction:
        """What the head's maps and the other outputs say, in the frame of the features."""
        return self.others.add(self.head.decode(maps), features)

    def predict(self, images: Tensor) -> Prediction:
        """uint8 BGR (B, S, S, 3) -> Prediction in the frame of the crop."""
        features = self.features(images)
        return self.decode(self.head(features), features)
