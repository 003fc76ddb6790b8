"""A refiner behind any head: it moves all landmarks together, once more, by the feature map of stride 8 around each of them.

In the spirit of SLPT (Xia et al., CVPR 2022) and DTLD (Li et al., CVPR 2022). A landmark is described by a patch of the stride 8
map around the head's result, by the head's own map there, by its place and by its identity. One attention unit connects the
landmarks; then each gets its own displacement.
"""
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nets.heads.simcc import GatedAttention
from nets.labels import Labels

STRIDE = 8  # px of the input that one cell of the fine map covers
LATERAL = 32  # channels of a sampled cell
WIDTH = 64  # of the description of a landmark


class Refiner(nn.Module):
    """channels: {stride: channels} of the backbone; coarse: channels of the head's feature map; count: landmarks.

    At first it moves nothing. It passes no gradient to the landmarks it starts from: the head learns them by its own loss, the
    refiner learns what is left. Raises ValueError for a backbone without a map of stride 8.
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

    def forward(self, landmarks: Tensor, coarse: Tensor, fine: Tensor) -> Tensor:
        """Return moved landmarks (B, N, 2) in [0, 1] of the crop; coarse, fine: maps (B, C, H, W) of the head and of stride 8."""
        start = landmarks.detach()
        places = start[:, :, None] + self.patch
        cells = torch.cat([sample(self.fine(fine), places), sample(self.coarse(coarse), start[:, :, None])], 2)
        described = self.describe(cells.flatten(2)) + self.place(start - 0.5) + self.identity
        read = self.norm(self.attention(described)).float()
        return landmarks + self.cell * (read[..., None] * self.move).sum(2)  # no matrix product: autocast would round it

    def count(self, labels: Labels) -> dict[str, Tensor]:
        """Return {term: count}, the divisors of the sums of `loss`."""
        return {"refine": labels.trainable().sum()}

    def loss(self, landmarks: Tensor, coarse: Tensor, fine: Tensor, labels: Labels) -> dict[str, Tensor]:
        """Return {term: sum} of mean absolute errors of x and y in cells of the fine map, after moving the head's landmarks."""
        errors = (self(landmarks, coarse, fine) - labels.filled().landmarks).abs().mean(-1) / self.cell
        return {"refine": (labels.trainable() * errors).sum()}


def sample(maps: Tensor, places: Tensor) -> Tensor:
    """Return float32 (B, N, P, C), maps (B, C, H, W) at places (B, N, P, 2) in [0, 1] of the crop; outside, its border."""
    grid = 2 * places.float() - 1
    if torch.is_grad_enabled():  # the backward pass of grid_sample reads foreign memory at NaN
        grid = grid.nan_to_num(0)
    return F.grid_sample(maps.float(), grid, padding_mode="border", align_corners=False).permute(0, 2, 3, 1)
