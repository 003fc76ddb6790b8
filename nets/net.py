"""The whole net: picture in, landmarks out. Everything that must agree between training, test and export is one object."""
import torch
from torch import Tensor, nn

from nets.labels import Labels, Prediction


class Net(nn.Module):
    """preprocess -> backbone -> neck -> head. `spec` (plain values) is all that is needed to build it again."""

    def __init__(self, backbone: nn.Module, neck: nn.Module, head: nn.Module, spec: dict):
        super().__init__()
        self.backbone, self.neck, self.head, self.spec = backbone, neck, head, spec
        mean, std = (torch.tensor(spec["preprocess"][key], dtype=torch.float32).view(1, 3, 1, 1) for key in ("mean", "std"))
        self.register_buffer("scale", 1 / (255 * std), persistent=False)
        self.register_buffer("shift", -mean / std, persistent=False)

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
        """{term: sum} of a batch, to be divided by the head's `count` of all batches of a step."""
        features = self.features(images)
        return self.head.loss(self.head(features), self.head.encode(labels, tuple(features.shape[-2:])))

    def predict(self, images: Tensor) -> Prediction:
        """uint8 BGR (B, S, S, 3) -> Prediction in the frame of the crop."""
        return self.head.decode(self(images))
