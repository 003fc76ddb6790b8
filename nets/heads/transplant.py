"""A PIP head for other landmarks, built from the rows of a trained one.

Every row of its convolutions predicts the place of one landmark relative to the cell of another (or of itself). A row of the new
head starts as the old row for the nearest pair of landmarks; its bias adds the remaining distance on the meanface.
"""
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

PARTS = ("score", "offset_x", "offset_y", "neighbor_x", "neighbor_y")


class Sources(NamedTuple):
    """landmark: the old landmark from which each of N new ones starts; place (N, 2): its place on the new meanface."""
    landmark: list[int]
    place: np.ndarray


def similarity(points: np.ndarray, onto: np.ndarray) -> tuple[complex, complex]:
    """Return complex (a, b) for which a * points + b is nearest `onto`, both (M, 2); |a| is the scale. Points must differ."""
    here, there = (values @ (1, 1j) for values in (points, onto))
    centred = here - here.mean()
    a = (centred.conj() * there).sum() / (np.abs(centred) ** 2).sum()
    return a, there.mean() - a * here.mean()


def nearest_sources(shared: dict[int, int], meanface: np.ndarray, old_meanface: np.ndarray | None = None) -> Sources:
    """Return old landmarks for all landmarks of `meanface` (N, 2): the same one if {new: old} `shared` has it, else the nearest.

    Nearest among all old landmarks if their meanface (N', 2) is known and two or more are shared, else among the shared ones.
    """
    places = {}
    new, old = list(shared), list(shared.values())
    if old_meanface is not None and len(np.unique(old_meanface[old], axis=0)) > 1:
        a, b = similarity(old_meanface[old], meanface[new])
        fitted = a * (old_meanface @ (1, 1j)) + b
        places = dict(enumerate(np.column_stack([fitted.real, fitted.imag])))
    places |= {shared[landmark]: meanface[landmark] for landmark in shared}
    known, where = list(places), np.array(list(places.values()))
    nearest = np.linalg.norm(meanface[:, None] - where, axis=-1).argmin(1)
    source = [shared.get(landmark, known[nearest[landmark]]) for landmark in range(len(meanface))]
    return Sources(source, np.array([places[landmark] for landmark in source]))


def transplant(state: dict[str, Tensor], old_index: list[list[int]], new_index: list[list[int]], sources: Sources,
               meanface: np.ndarray) -> dict[str, Tensor]:
    """Return tensors of a head with neighbors `new_index` (N, K) from `state`, those of a head with `old_index` (N', K').

    sources.place and meanface (N, 2) are in cells. Each landmark takes the rows of its source, shifted from there to itself. A
    neighbor takes the row that predicted its source, if that was a neighbor of the landmark's source. Nothing changes where all
    landmarks and neighbors stay. Raises ValueError where `state` is not that of a head with `old_index`.
    """
    count, num_nb = len(old_index), len(old_index[0])
    parts = PARTS if num_nb else PARTS[:3]
    if any(len(state[f"{part}.{leaf}"]) != count * (num_nb if "neighbor" in part else 1)
           for part in parts for leaf in ("weight", "bias")):
        raise ValueError(f"the head does not have the {count} landmarks and {num_nb} neighbors of its neighbor_index")

    def nearest_row(cell: int, landmark: int) -> tuple[int, np.ndarray]:
        """Return the old row (offsets before neighbors) for `landmark` relative to `cell`, and the shift from its prediction."""
        here, there = sources.landmark[cell], sources.landmark[landmark]
        if there == here:
            return here, meanface[landmark] - sources.place[landmark]
        if there in old_index[here]:
            return count + here * num_nb + old_index[here].index(there), meanface[landmark] - sources.place[landmark]
        return here, meanface[landmark] - sources.place[cell]

    asked = {"offset": [nearest_row(landmark, landmark) for landmark in range(len(new_index))],
             "neighbor": [nearest_row(cell, landmark) for cell, neighbors in enumerate(new_index) for landmark in neighbors]}
    made = {f"score.{leaf}": state[f"score.{leaf}"][sources.landmark] for leaf in ("weight", "bias")}
    for part, answers in asked.items():
        rows, ways = [row for row, _ in answers], torch.tensor(np.array([way for _, way in answers])).reshape(-1, 2)
        if not answers:
            continue
        for axis, name in enumerate("xy"):
            old = [f"{kind}_{name}" for kind in ("offset", "neighbor") if f"{kind}_{name}" in parts]
            weight, bias = (torch.cat([state[f"{conv}.{leaf}"] for conv in old]) for leaf in ("weight", "bias"))
            made |= {f"{part}_{name}.weight": weight[rows], f"{part}_{name}.bias": bias[rows] + ways[:, axis].to(bias)}
    if "log_scale.weight" in state:  # the expected errors; a landmark's own comes before those of its neighbors
        each = len(new_index[0])
        rows = [row for i, own in enumerate(asked["offset"]) for row, _ in (own, *asked["neighbor"][i * each:(i + 1) * each])]
        rows = [row * (1 + num_nb) if row < count else row - count + (row - count) // num_nb + 1 for row in rows]
        made |= {f"log_scale.{leaf}": state[f"log_scale.{leaf}"][rows] for leaf in ("weight", "bias")}
    return made
