"""A PIP head for other landmarks, made of the rows of a trained one.

Every row of the five convolutions answers one question: where, seen from the cell of one landmark, is another (or itself)? A head
for other landmarks asks other questions; each is answered by the old row that comes nearest, plus what the meanface says of the
rest of the way, in the bias.
"""
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

PARTS = ("score", "offset_x", "offset_y", "neighbor_x", "neighbor_y")


class Sources(NamedTuple):
    """landmark: the old one that stands for each of N new landmarks; place (N, 2): where that one is on the new meanface."""
    landmark: list[int]
    place: np.ndarray


def similarity(points: np.ndarray, onto: np.ndarray) -> tuple[complex, complex]:
    """(a, b) for which a * points + b is nearest `onto`, (M, 2) both, as complex numbers; |a| is the scale. Not all one point."""
    here, there = (values @ (1, 1j) for values in (points, onto))
    centred = here - here.mean()
    a = (centred.conj() * there).sum() / (np.abs(centred) ** 2).sum()
    return a, there.mean() - a * here.mean()


def nearest_sources(shared: dict[int, int], meanface: np.ndarray, old_meanface: np.ndarray | None = None) -> Sources:
    """Old landmarks for all landmarks of `meanface` (N, 2): the same one where {new: old} `shared` has it, else the nearest.

    The nearest of all old landmarks where their meanface (N', 2) is known and two or more are shared, else of the shared ones.
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
    """Tensors of a head with neighbors `new_index` (N, K) from `state`, those of a head with `old_index` (N', K').

    sources.place and meanface (N, 2) are in cells. Each landmark takes the rows of its source, moved by the way from there to
    itself; for a neighbor whose source was a neighbor of that source, the row that predicted it. Where every landmark is its own
    source, and every neighbor was one, nothing is changed. Raises ValueError where `state` is not of a head
    with `old_index`.
    """
    count, num_nb = len(old_index), len(old_index[0])
    parts = PARTS if num_nb else PARTS[:3]
    if any(len(state[f"{part}.{leaf}"]) != count * (num_nb if "neighbor" in part else 1)
           for part in parts for leaf in ("weight", "bias")):
        raise ValueError(f"the head has not the {count} landmarks and {num_nb} neighbors that its neighbor_index says")

    def seen(cell: int, landmark: int) -> tuple[int, np.ndarray]:
        """The old row (offsets before neighbors) that places `landmark` seen from the cell of `cell`, and the way from there."""
        here, there = sources.landmark[cell], sources.landmark[landmark]
        if there == here:
            return here, meanface[landmark] - sources.place[landmark]
        if there in old_index[here]:
            return count + here * num_nb + old_index[here].index(there), meanface[landmark] - sources.place[landmark]
        return here, meanface[landmark] - sources.place[cell]

    asked = {"offset": [seen(landmark, landmark) for landmark in range(len(new_index))],
             "neighbor": [seen(cell, landmark) for cell, neighbors in enumerate(new_index) for landmark in neighbors]}
    made = {f"score.{leaf}": state[f"score.{leaf}"][sources.landmark] for leaf in ("weight", "bias")}
    for part, answers in asked.items():
        rows, ways = [row for row, _ in answers], torch.tensor(np.array([way for _, way in answers])).reshape(-1, 2)
        for axis, name in enumerate("xy" if answers else ""):
            old = [f"{kind}_{name}" for kind in ("offset", "neighbor") if f"{kind}_{name}" in parts]
            weight, bias = (torch.cat([state[f"{conv}.{leaf}"] for conv in old]) for leaf in ("weight", "bias"))
            made |= {f"{part}_{name}.weight": weight[rows], f"{part}_{name}.bias": bias[rows] + ways[:, axis].to(bias)}
    if "spread.weight" in state:  # how far off each of these is; a landmark's own stands before those of its neighbors
        each = len(new_index[0])
        rows = [row for i, own in enumerate(asked["offset"]) for row, _ in (own, *asked["neighbor"][i * each:(i + 1) * each])]
        rows = [row * (1 + num_nb) if row < count else row - count + (row - count) // num_nb + 1 for row in rows]
        made |= {f"spread.{leaf}": state[f"spread.{leaf}"][rows] for leaf in ("weight", "bias")}
    return made
