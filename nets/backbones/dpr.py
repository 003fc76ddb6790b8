"""The regressor of DPR: a small MobileNetV2 down to one 128th of the picture (Shao et al., TPAMI 2021; MIT)."""
import numpy as np
import torch
from torch import Tensor, nn

from nets.backbones.row import Row
from nets.heads.coordinate import UNIT
from nets.stages.spatial_transformer import CALM

# expansion, width, repeats, stride of the first
STEPS = [(1, 8, 1, 1), (6, 12, 2, 2), (6, 16, 2, 2), (6, 24, 3, 2), (6, 32, 3, 2), (6, 48, 3, 2), (6, 64, 2, 2), (6, 80, 1, 1)]
STEM, WIDTH = 8, 64
FEW = 2  # cells in a row, so few that float32 costs nothing


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]


class InvertedResidual(nn.Module):
    """1x1 expansion (unless it is 1), depthwise convolution, linear 1x1; the sum with x where shapes allow (MobileNetV2)."""

    def __init__(self, inputs: int, expansion: int, outputs: int, stride: int) -> None:
        super().__init__()
        inner = inputs * expansion
        expand = _conv(inputs, inner, 1) if expansion > 1 else []
        self.conv = nn.Sequential(*expand, *_conv(inner, inner, 3, stride, inner), *_conv(inner, outputs, 1)[:2])
        self.identity = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.identity else self.conv(x)


class Dense(nn.Module):
    """{128: (B, 64, cells, cells)} -> (B, channels, 1, 1): all cells through two linear layers."""

    def __init__(self, cells: int, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.layers = nn.Sequential(nn.Linear(WIDTH * cells**2, channels), nn.PReLU(), nn.Linear(channels, channels), nn.PReLU())

    def forward(self, pyramid: dict[int, Tensor]) -> Tensor:
        return self.layers(pyramid[128].flatten(1))[:, :, None, None]


class SmallMobileNetV2(nn.Module):
    """x (B, 3, H, W) -> {2 ... 128: (B, C, H/stride, W/stride)}."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Sequential(*_conv(3, STEM, 3, 2))]
        inputs, stride, self.taps = STEM, 2, {}
        for expansion, outputs, repeats, first in STEPS:
            for step in [first] + [1] * (repeats - 1):
                layers.append(InvertedResidual(inputs, expansion, outputs, step))
                inputs, stride = outputs, stride * step
                self.taps[stride] = len(layers) - 1
        layers.append(nn.Sequential(*_conv(inputs, WIDTH, 1)))
        self.taps[stride] = len(layers) - 1
        self.features = nn.Sequential(*layers)
        self.channels = {2: 8, 4: 12, 8: 16, 16: 24, 32: 32, 64: 48, 128: WIDTH}

    def vector(self, input_size: int) -> nn.Module:
        """What a head sees that wants no map but a vector."""
        return Dense(-(-input_size // 128), 256)

    def forward(self, x: Tensor) -> dict[int, Tensor]:
        outputs = []
        for layer in self.features:
            # oneDNN's gradients of depthwise filters over a single cell read foreign memory in bf16: NaN now and then
            few = x.shape[-1] <= FEW
            with torch.autocast("cpu", enabled=not few and torch.is_autocast_enabled("cpu")):
                x = layer(x.float() if few else x)
            outputs.append(x)
        return {stride: outputs[index] for stride, index in self.taps.items()}


# our place of a part -> its name there
PLACES = {"eye_left": "left_eye_net", "eye_right": "right_eye_net", "nose": "nose_net", "mouth": "mouth_net"}


def from_dpr(state: dict[str, Tensor], _meanface: np.ndarray) -> dict[str, Tensor]:
    """The state dicts of DPR's three files, one or several joined, under our names.

    Its pixels are integers at their centres, and its frames are of 128 (box and parts) and 256 px (face); ours are [0, 1]. The
    mean shape is not in its files: the head adds what it gives to the net's own.
    """
    state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    found = {f"frame.{name}": tensor for name, tensor in state.items() if name.startswith(("localization.", "fc_loc."))}
    found |= {f"backbone.{name}": tensor for name, tensor in state.items() if name.startswith("features.")}
    dense = {name.removeprefix("pts_net."): tensor for name, tensor in state.items() if name.startswith("pts_net.")}
    found |= {f"neck.layers.{name}": tensor for name, tensor in dense.items() if name[0] != "4"}
    if "pts_net.4.weight" in state:  # half the output is in units of the face's frame
        found["head.output.weight"] = state["pts_net.4.weight"][:, :, None, None] / (2 * UNIT)
        found["head.output.bias"] = state["pts_net.4.bias"] / (2 * UNIT) + 0.5 / 256 / UNIT
    if "fc_loc.2.weight" in state:
        _to_unit_frames(found, "frame.fc_loc.2", 1.0, 0.5 / 256)
    for ours, theirs in PLACES.items():
        if f"{theirs}.0.weight" in state:
            found |= {f"places.{ours}.{name.removeprefix(f'{theirs}.')}": tensor for name, tensor in state.items()
                      if name.startswith(f"{theirs}.")}
            first = f"places.{ours}.0"  # it is given px of 256
            found[f"{first}.bias"] = found[f"{first}.bias"] - 0.5 * found[f"{first}.weight"].sum(1)
            found[f"{first}.weight"] = 256 * found[f"{first}.weight"]
            _to_unit_frames(found, f"places.{ours}.4", 2.0, 0.5 / 128)
    return found


def _to_unit_frames(state: dict[str, Tensor], layer: str, scale: float, shift: float) -> None:
    """A layer that gives a map between frames of pixels, shifted in units of 128 px, for frames of [0, 1].

    scale: of the sides, first frame over second and over that unit; shift: half a px of the second frame. Our map is
    CALM times what the layer gives.
    """
    for leaf, constant in (("weight", 0.0), ("bias", shift)):
        rows = state[f"{layer}.{leaf}"]
        a, b, x, c, d, y = rows.unbind(0)
        x, y = x - 0.5 / 128 * (a + b) + constant, y - 0.5 / 128 * (c + d) + constant
        state[f"{layer}.{leaf}"] = torch.stack([scale * a, scale * b, x, scale * c, scale * d, y]) / CALM


ROWS = {"dpr": Row(build=SmallMobileNetV2, mean=(0.5,) * 3, std=(0.5,) * 3, order="BGR", published=from_dpr,
                   note="DPR's regressor (--preset dpr re-initialises): WFLW 5.35, with the local stage 5.08")}
