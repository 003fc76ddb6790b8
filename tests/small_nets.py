"""Small nets with random weights, and pictures and labels for them."""

import numpy as np
import torch
from conftest import NET, mean_face

from nets import Labels, NetOptions
from utils.train.make_net import new_net

FACE = mean_face()
PARTS = {"eye_left": [*range(17, 22), *range(36, 42)], "mouth": list(range(48, 68))}


def net_of(head: str = "pip", levels: int = 1, meanface: np.ndarray = FACE, **options):
    """A net for crops of 64 px, the same every time. options: fields of `NetOptions`."""
    torch.manual_seed(0)
    chosen = NetOptions(**{"net": NET, "head": head, "input_size": 64, "num_nb": 5, **options})
    net = new_net(chosen, meanface)
    net.head.levels = levels
    return net


def spread(net, std: float = 0.1):
    """The net with weights that give each cell another score: with initial ones they are almost equal."""
    torch.manual_seed(1)
    for parameter in (*net.neck.parameters(), *net.head.parameters()):
        torch.nn.init.normal_(parameter, std=std)
    if net.refiner:
        torch.nn.init.normal_(net.refiner.move, std=std)
    return net.eval()


def pictures(count: int, side: int = 64) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (count, side, side, 3), dtype=np.uint8))


def some_labels(count: int = 4) -> Labels:
    """Mean faces whose landmarks are displaced by 0.05."""
    moved = 0.05 * torch.randn(count, 68, 2, generator=torch.Generator().manual_seed(0))
    return Labels.pack(torch.tensor(FACE).float() + moved)
