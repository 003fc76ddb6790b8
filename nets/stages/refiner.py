"""A light refiner behind any head: what lies round each landmark on a fine map, all landmarks together, moves them once more.

In the spirit of SLPT (Xia et al., CVPR 2022) and DTLD (Li et al., CVPR 2022): a landmark is described by a patch of the
backbone's map of stride 8 round where the head has put it, by what the head itself saw there, by its place and by which landmark
it is; one attention unit lets the landmarks look at each other; each then reads its own displacement.
"""
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nets.heads.simcc import GatedAttention
from nets.labels import Labels

STRIDE = 8  # px of the input a cell of the fine map covers
LATERAL = 32  # channels of a sampled cell
WIDTH = 64  # of what describes a landmark


class Refiner(nn.Module):
    """channels: of the backbone's maps {stride: channels}; coarse: of the map that the head sees; count: landmarks.

    It begins by moving nothing. The landmarks that it starts from hand no gradient back to the head: the head learns by its own
    loss to find them, the refiner what is left; through the sampled places it would only learn the slope between four cells.
    Raises ValueError for a backbone without a map of stride 8.
    """

    terms = {"refine": "reg"}

    def __init__(self, channels: dict[int, int], coarse: int, count: int, input_size: int):
        super().__init__()
        if STRIDE not in channels:
            raise ValueError(f"refine needs a feature map of stride {STRIDE}, this backbone has {', '.join(map(str, channels))}; "
                             "add --no-refine")
        self.cell = STRIDE / input_size  # in [0, 1] of the crop
        self.fine, self.coarse = nn.Conv2d(channels[STRIDE], LATERAL, 1), nn.Conv2d(coarse, LATERAL, 1)
        steps = torch.tensor([-1.0, 0.0, 1.0])
        self.register_buffer("patch", self.cell * torch.cartesian_prod(steps, steps), persistent=False)  # (9, 2)
        self.describe, self.place = nn.Linear((len(self.patch) + 1) * LATERAL, WIDTH), nn.Linear(2, WIDTH)
        self.identity = nn.Parameter(0.5 * torch.randn(count, WIDTH))
        self.attention, self.norm = GatedAttention(WIDTH, WIDTH // 2), nn.LayerNorm(WIDTH)
        self.move = nn.Parameter(torch.zeros(count, WIDTH, 2))

    def forward(self, landmarks: Tensor, features: Tensor, fine: Tensor) -> Tensor:
        """landmarks (B, N, 2) in [0, 1] of the crop, maps (B, C, H, W) of the head and of stride 8 -> landmarks, moved."""
        start = landmarks.detach()
        places = start[:, :, None] + self.patch
        cells = torch.cat([sampled(self.fine(fine), places), sampled(self.coarse(features), start[:, :, None])], 2)
        described = self.describe(cells.flatten(2)) + self.place(start - 0.5) + self.identity
        read = self.norm(self.attention(described)).float()
        return landmarks + self.cell * (read[..., None] * self.move).sum(2)  # no matrix product, which autocast would round

    def count(self, labels: Labels) -> dict[str, Tensor]:
        """{term: count}, what divides the sums of `loss`."""
        return {"refine": labels.trainable().sum()}

    def loss(self, landmarks: Tensor, features: Tensor, fine: Tensor, labels: Labels) -> dict[str, Tensor]:
        """{term: sum}: mean absolute error of x and y in cells of the fine map, from where the head's landmarks are."""
        found = self(landmarks, features, fine)
        errors = (found - torch.nan_to_num(labels.landmarks, nan=0.5, posinf=0.5, neginf=0.5)).abs().mean(-1) / self.cell
        return {"refine": (labels.trainable() * errors).sum()}


def sampled(maps: Tensor, places: Tensor) -> Tensor:
    """Maps (B, C, H, W) at places (B, N, P, 2) in [0, 1] of the crop, its border beyond -> (B, N, P, C) float32."""
    grid = (2 * places.float() - 1).nan_to_num(0)  # grid_sample's backward reads beyond its memory for NaN
    return F.grid_sample(maps.float(), grid, padding_mode="border", align_corners=False).permute(0, 2, 3, 1)
