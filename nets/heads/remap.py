"""A PIP head for other landmarks, built from the rows of a trained one.

Every row of its convolutions predicts the place of one landmark relative to the cell of another (or of itself). A row
of the new head starts as the old row for the nearest pair of landmarks; its bias adds the remaining distance on the
meanface.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

PARTS = ("score", "offset_x", "offset_y", "neighbor_x", "neighbor_y")


class Origins(NamedTuple):
    """Old landmarks that N new ones start from.
    landmark: their indices; place (N, 2): their places on the new meanface.
    """

    landmark: list[int]
    place: np.ndarray


def remap(
    state: dict[str, Tensor],
    old_index: list[list[int]],
    new_index: list[list[int]],
    origins: Origins,
    meanface: np.ndarray,
) -> dict[str, Tensor]:
    """Return tensors of a head with neighbors `new_index` (N, K) from `state`, those of a head with `old_index` (N',
    K').

    origins.place and meanface (N, 2) are in cells. Each landmark takes the rows of its source, shifted from there to
    itself. A neighbor takes the row that predicted its source, if that was a neighbor of the landmark's source. Nothing
    changes where all landmarks and neighbors stay. Raises ValueError where `state` is not that of a head with
    `old_index`.
    """
    count, num_nb = len(old_index), len(old_index[0])
    parts = PARTS if num_nb else PARTS[:3]
    if any(
        len(state[f"{part}.{leaf}"]) != count * (num_nb if "neighbor" in part else 1)
        for part in parts
        for leaf in ("weight", "bias")
    ):
        raise ValueError(f"the head does not have the {count} landmarks and {num_nb} neighbors of its neighbor_index")

    def candidate(cell: int, landmark: int) -> tuple[int, np.ndarray]:
        """Return the old candidate for `landmark` relative to `cell`, and the way from its place to the landmark's.

        The candidates of an old landmark are its own place, then those of its neighbors.
        """
        here, there = origins.landmark[cell], origins.landmark[landmark]
        known = [here, *old_index[here]]
        slot, origin = (known.index(there), landmark) if there in known else (0, cell)
        return here * len(known) + slot, meanface[landmark] - origins.place[origin]

    asked = [[candidate(cell, landmark) for landmark in (cell, *neighbors)] for cell, neighbors in enumerate(new_index)]
    rows = torch.tensor([[row for row, _ in answers] for answers in asked])  # (N, 1 + K)
    ways = torch.tensor(np.array([[way for _, way in answers] for answers in asked]))  # (N, 1 + K, 2)
    made = {}
    for leaf in ("weight", "bias"):
        made[f"score.{leaf}"] = state[f"score.{leaf}"][origins.landmark]
        for axis, name in enumerate("xy"):
            old = [state[f"{part}.{leaf}"].unflatten(0, (count, -1)) for part in parts if part.endswith(f"_{name}")]
            new = torch.cat(old, 1).flatten(0, 1)[rows]
            new = new + ways[..., axis].to(new) if leaf == "bias" else new
            made[f"offset_{name}.{leaf}"] = new[:, 0]
            if rows.shape[1] > 1:
                made[f"neighbor_{name}.{leaf}"] = new[:, 1:].flatten(0, 1)
        if f"log_scale.{leaf}" in state:  # the expected errors, of all candidates
            made[f"log_scale.{leaf}"] = state[f"log_scale.{leaf}"][rows.flatten()]
    return made
