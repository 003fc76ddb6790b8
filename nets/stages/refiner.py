"""A refiner behind any head: it corrects the landmarks with patches of the feature map of stride 8.

It is similar to SLPT (Xia et al., CVPR 2022) and DTLD (Li et al., CVPR 2022). A landmark is described by a patch of the
stride-8 map around the head's result, by the head's own feature map there, by its place and by its identity. One
attention unit relates the landmarks; then each gets its own displacement.
"""

import torch
from torch import Tensor, nn

from nets.blocks import GatedAttention, in_full
from nets.labels import Labels

STRIDE = 8  # px of the input that one cell of the fine map covers
NARROW = 0.2  # an eye or mouth with this height / width has half the weight of a shut one
LATERAL = 32  # channels of a sampled cell
PATCH = 10 * LATERAL  # values of a patch: 3 x 3 cells of the stride-8 map, one of the head's map
WIDTH = 64  # of the description of a landmark


class Refiner(nn.Module):
    """channels: {stride: channels} of the backbone; coarse: channels of the head's feature map; count: landmarks.

    openings: opposite landmarks whose distance is a loss term of its own, see `Layout.openings`.

    An untrained refiner moves nothing. It passes no gradient to the landmarks that it starts from: the head learns them
    by its own loss, the refiner learns the remaining error. Raises ValueError for a backbone without a map of stride 8.
    """

    steps: Tensor
    openings: Tensor

    def __init__(
        self,
        channels: dict[int, int],
        coarse: int,
        count: int,
        input_size: int,
        openings: list[tuple[int, int, int, int]],
    ):
        super().__init__()
        if STRIDE not in channels:
            raise ValueError(
                f"refine needs a feature map of stride {STRIDE}, this backbone has {', '.join(map(str, channels))}; "
                "add --no-refine"
            )
        self.cell = STRIDE / input_size  # in [0, 1] of the crop
        self.fine, self.coarse = nn.Conv2d(channels[STRIDE], LATERAL, 1), nn.Conv2d(coarse, LATERAL, 1)
        # steps of a patch, in x and in y
        self.register_buffer("steps", self.cell * torch.tensor([-1.0, 0.0, 1.0]), persistent=False)
        self.register_buffer("openings", torch.tensor(openings, dtype=torch.long).view(-1, 4), persistent=False)
        self.describe, self.place = nn.Linear(PATCH, WIDTH), nn.Linear(2, WIDTH)
        self.identity = nn.Parameter(0.5 * torch.randn(count, WIDTH))
        self.attention, self.norm = GatedAttention(WIDTH, WIDTH // 2), nn.LayerNorm(WIDTH)
        self.move = nn.Parameter(torch.zeros(count, WIDTH, 2))

    @property
    def terms(self) -> dict[str, str]:
        return {"refine": "reg", **({"openings": "openings"} if len(self.openings) else {})}

    def forward(self, landmarks: Tensor, coarse: Tensor, fine: Tensor) -> Tensor:
        """Return the displacements (B, N, 2) of landmarks, in [0, 1] of the crop.

        coarse, fine: feature maps (B, C, H, W), that of the head and that of stride 8.
        """
        return self.displacements(landmarks, self.patches(landmarks, coarse, fine))

    def patches(self, landmarks: Tensor, coarse: Tensor, fine: Tensor) -> Tensor:
        """Return what both maps hold around landmarks, (B, N, PATCH)."""
        start = landmarks.detach()
        cells = [sample(self.fine(fine), start, self.steps), sample(self.coarse(coarse), start, self.steps[1:2])]
        return torch.cat(cells, 2).flatten(2)

    def displacements(self, landmarks: Tensor, patches: Tensor) -> Tensor:
        """Return the displacements (B, N, 2) of landmarks with these patches."""
        described = self.describe(patches) + self.place(landmarks.detach() - 0.5) + self.identity
        return self._moves(self.attention(described), self.move)

    def _moves(self, read: Tensor, move: Tensor) -> Tensor:
        """Return the displacements (B, N, 2) of landmarks from what the attention gives for them (B, N, WIDTH)."""
        # no matrix product: autocast would round it. Sums along the last axis are the fastest ones in exports
        return self.cell * (self.norm(read).float()[:, :, None] * move.transpose(1, 2)).sum(3)

    def beside(
        self, points: Tensor, identity: Tensor, move: Tensor, landmarks: Tensor, coarse: Tensor, fine: Tensor
    ) -> Tensor:
        """Return the displacements (B, N, 2) of other points (B, N, 2), which look at the landmarks (B, K, 2) too.

        identity (N, WIDTH), move (N, WIDTH, 2): of these points. coarse, fine: see `forward`.
        """
        places = torch.cat([landmarks, points], 1).detach()
        described = self.describe(self.patches(places, coarse, fine)) + self.place(places - 0.5)
        read = self.attention(described + torch.cat([self.identity, identity]))
        return self._moves(read[:, landmarks.shape[1] :], move)

    def denominators(self, labels: Labels) -> dict[str, Tensor]:
        """Return {term: count}, the divisors of the sums of `loss`."""
        weight = labels.weight_of(0)
        return {"refine": weight.sum(), **({"openings": self._of_pairs(weight).sum()} if len(self.openings) else {})}

    def loss(self, moved: Tensor, labels: Labels) -> dict[str, Tensor]:
        """Return {term: sum} of mean absolute errors of x and y in cells of the fine map, of moved landmarks (B, N, 2)."""
        truth, weight = labels.landmarks, labels.weight_of(0)
        errors = (moved - truth) / self.cell
        terms = {"refine": (weight * errors.abs().mean(-1)).sum()}
        if len(self.openings):
            upper, lower, *corners = self.openings.T
            height, width = ((truth[:, i] - truth[:, j]).norm(dim=-1) for i, j in ((upper, lower), corners))
            # narrow openings get more weight, since an error of one pixel matters most in a shut eye
            share = self._of_pairs(weight) * NARROW / (height / width.clamp(min=self.cell) + NARROW)
            terms["openings"] = (share * (errors[:, upper] - errors[:, lower]).abs().mean(-1)).sum()
        return terms

    def _of_pairs(self, weight: Tensor) -> Tensor:
        """Return the weights (B, K) of the openings from those of the landmarks (B, N)."""
        return torch.minimum(weight[:, self.openings[:, 0]], weight[:, self.openings[:, 1]])


def sample(maps: Tensor, places: Tensor, steps: Tensor) -> Tensor:
    """Return float32 (B, N, K * K, C): maps (B, C, S, S) in a patch around each place (B, N, 2), K steps in x by K
    steps in y.

    Places and steps are in [0, 1] of the crop. Values are interpolated linearly between the centres of cells; outside
    they are those of the border. In onnxruntime this takes a third of the time of `grid_sample`, whose backward pass
    reads foreign memory at NaN.
    """
    (batch, channels, side, _), count, width = maps.shape, places.shape[1], len(steps)
    with in_full(maps):  # 16 bits would round the places
        x, y = linear_weights(places.float().transpose(1, 2)[..., None] + steps, side).unbind(1)  # (B, N, K, S)
        if width == 1:  # one product with the weights of all cells
            return (y[..., None] * x[..., None, :]).flatten(3) @ maps.float().flatten(2).transpose(1, 2)[:, None]
        # interpolated in x: (B, N * K, S * C)
        columns = x.flatten(1, 2).bmm(maps.float().permute(0, 3, 2, 1).flatten(2))
        y = y[:, :, None].expand(-1, -1, width, -1, -1).flatten(1, 2)
        return (y @ columns.view(batch, count * width, side, channels)).view(batch, count, width**2, channels)


def linear_weights(places: Tensor, cells: int) -> Tensor:
    """Return the weights (..., cells) of a row of cells for linear interpolation at places (...) in [0, 1]."""
    position = (cells * places - 0.5).clamp(0, cells - 1)  # from the centre of the first cell, in cells
    return (1 - (position[..., None] - torch.arange(cells, device=places.device)).abs()).relu()
