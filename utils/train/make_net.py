"""A landmark net from the settings: which outputs, stages and parts of the face it has."""
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from nets import HEADS, NetOptions, Trainable, build_net, make_spec, net_row
from nets.stages.auxiliary import TERMS
from pipnet.layout import Layout


def head_options(net, loss) -> dict:
    """Return what the head is made with, beside its number of neighbors. net, loss: sections of the settings."""
    values, row = {**vars(net), **vars(loss)}, HEADS[net.head]
    options = {key: values[key] for key in row.options if key != "num_nb"}
    if "sigma" in row.weights:
        options["sigma"] = loss.sigma > 0
    return options


def auxiliary_outputs(loss) -> list[str]:
    """Return the outputs beside the landmarks: pose, states."""
    outputs = []
    if loss.pose > 0:
        outputs.append("pose")
    if loss.eyes + loss.mouth > 0:
        outputs.append("states")
    return outputs


def state_names(loss: Mapping[str, Any]) -> list[str | None]:
    """Return the names of the output `states` of a net trained with the weights `loss`, None for a state without weight."""
    names = [name if loss[key] > 0 else None for name, key in TERMS["states"].items()]
    return names if any(names) else []


def input_margin(net) -> float:
    """Return what the net sees / the nominal crop."""
    return net_row(net.net).input_margin if net.reinit or net.local_parts else 1.0


def make_net(net, loss, layout: Layout, meanface: np.ndarray) -> Trainable:
    """Return a net with random weights. net, loss: sections of the settings; meanface (N, 2) in [0, 1] of the crop.

    ValueError for choices that do not fit together.
    """
    groups = None
    if net.head == "parts":
        groups = list(facial_parts(layout).values())
        if rest := sorted(set(range(layout.count)) - {i for ids in groups for i in ids}):
            groups.append(rest)
    openings = layout.openings() if loss.openings > 0 else []
    if loss.openings > 0 and not net.refine:
        raise ValueError("openings is a loss term of the refiner; add --refine, or leave --openings out")
    if loss.openings > 0 and not openings:
        raise ValueError(f"layout {layout.name} has no rings eye_left, eye_right or lips_inner; leave --openings out")
    options = NetOptions(net.net, net.head, net.stride, net.input_size, net.act, net.num_nb, head_options(net, loss), net.reinit,
                         facial_parts(layout) if net.local_parts else None, tuple(auxiliary_outputs(loss)),
                         loss.hard_landmarks, net.refine, groups, openings)
    return build_net(make_spec(options, meanface))


def check_norms(forward: Callable[[torch.Tensor], object], side: int) -> None:
    """Raise ValueError if a batch of one picture leaves a batch norm with one value per channel, which it cannot normalise.

    forward: of a copy of the net that is training, since its norms take statistics. side: of the picture, in px.
    """
    try:
        with torch.no_grad():
            forward(torch.zeros(1, side, side, 3, dtype=torch.uint8))
    except ValueError as error:
        raise ValueError(f"{error}; give a larger --batch-size or --input-size") from None


def facial_parts(layout: Layout) -> dict[str, list[int]]:
    """Return {eye_left, eye_right, nose, mouth: landmarks}, eyes with brows and pupils. ValueError if no group is named so."""
    found: dict[str, list[int]] = {}
    for group, ids in layout.groups.items():
        kind, _, side = group.partition("_")
        name = {"brow": f"eye_{side}", "eye": f"eye_{side}", "pupil": f"eye_{side}", "nose": "nose", "lips": "mouth"}.get(kind)
        if name:
            found.setdefault(name, []).extend(ids)
    if not found:
        raise ValueError(f"layout {layout.name} has no groups eye_left, eye_right, nose... or lips..., which --local-parts and "
                         "--head parts need; name them in its row, or leave this out")
    return found
