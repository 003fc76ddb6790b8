"""The landmark net that the settings describe: its head, outputs, stages and parts of the face."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from nets import NetOptions, Trainable, make_spec, net_row
from nets import build_net as build_with
from nets.registry import SWITCHES, TERMS
from pipnet.layout import EYES, INNER_LIPS, Layout, opposite
from utils.settings.heads import HEADS, STAGES
from utils.settings.sections import LossSettings, NetSettings
from utils.settings.union import members_of

# {first word of a group of landmarks: the part of the face to which it belongs}
PARTS = {"brow": "eye_{}", "eye": "eye_{}", "pupil": "eye_{}", "nose": "nose", "lips": "mouth"}


def build_net(spec: dict) -> Trainable:
    """Return a net with random weights, see `nets.build_net`, which may have the heads and stages of rooms of extras."""
    return build_with(spec, HEADS, STAGES)


def new_net(options: NetOptions, meanface: np.ndarray, labelled: np.ndarray | None = None) -> Trainable:
    """Return a net with random weights. meanface, labelled: see `make_net`."""
    return build_net(make_spec(options, meanface, labelled, HEADS))


def head_options(net: NetSettings, loss: LossSettings) -> dict:
    """Return the keyword arguments of the head's class."""
    values, row = {**vars(net), **vars(loss)}, HEADS[net.head]
    options = {key: values[key] for key in row.options if key != "num_nb"}
    return options | {key: values[key] > 0 for key in SWITCHES if key in row.weights}


def auxiliary_outputs(loss: Mapping[str, Any]) -> list[str]:
    """Return the outputs beside the landmarks, the keys of `TERMS`, that have a loss weight above 0.

    loss: {key of args.yaml: weight of the loss term}.
    """
    return [output for output, terms in TERMS.items() if any(loss.get(key, 0) > 0 for key in terms.values())]


def figure_of(args: Mapping[str, Any]) -> str:
    """Return the validation figure, a column of step.csv, that picks the best epoch of a landmark net: the false faces if
    only the output `face` is trained, else the NME. args: {key of args.yaml: value}.
    """
    alone = args.get("freeze") == "landmarks" and auxiliary_outputs(args) == ["face"]
    return "val_false" if alone else "val_nme"


def lid_openings(layout: Layout) -> list[tuple[int, int, int, int]]:
    """Return opposite landmarks of the lids and inner lips: (upper, lower, one corner, the other corner)."""
    found = []
    for member in members_of(layout).values():
        for name in (*EYES, INNER_LIPS):
            ring = [member.index[i] for i in member.layout.ring(name) or ()]
            found += [(upper, lower, ring[0], ring[len(ring) // 2]) for upper, lower in opposite(ring)]
    return list(dict.fromkeys(found))


def state_names(loss: Mapping[str, Any]) -> list[str | None]:
    """Return the names of the net's output `states`, None for a state that was not trained; [] without such an output.

    loss: {key of args.yaml: weight of the loss term}.
    """
    names = [name if loss[key] > 0 else None for name, key in TERMS["states"].items()]
    return names if any(names) else []


def trained_states(stored: Mapping[str, Any]) -> list[str | None]:
    """Return `state_names` of a checkpoint's values. A net whose landmarks were frozen may have those of its origin."""
    return stored["net"].get("states") or state_names(stored["args"])


def input_margin(net: NetSettings) -> float:
    """Return side of the net's input picture / side of the nominal crop."""
    return net_row(net.net).input_margin if net.reinit or net.local_parts else 1.0


def make_net(
    net: NetSettings,
    loss: LossSettings,
    layout: Layout,
    meanface: np.ndarray,
    labelled: np.ndarray | None = None,
) -> Trainable:
    """Return a net with random weights. meanface (N, 2) in [0, 1] of the crop.

    labelled (S, N) bool: which landmarks each training set labels; None: all sets label the same.
    ValueError for choices that do not fit together.
    """
    groups = None
    if net.head == "parts":
        groups = list(facial_parts(layout).values())
        if rest := sorted(set(range(layout.count)) - {i for ids in groups for i in ids}):
            groups.append(rest)
    openings = lid_openings(layout) if loss.openings > 0 else []
    if loss.openings > 0 and not openings:
        raise ValueError(f"layout {layout.name} has no rings eye_left, eye_right or lips_inner; leave --openings out")
    options = NetOptions(
        net.net,
        net.head,
        net.stride,
        net.input_size,
        net.act,
        net.num_nb,
        head_options(net, loss),
        net.reinit,
        facial_parts(layout) if net.local_parts else None,
        tuple(auxiliary_outputs(vars(loss))),
        loss.hard_landmarks,
        net.refine,
        groups,
        openings,
    )
    return new_net(options, meanface, labelled)


def facial_parts(layout: Layout) -> dict[str, list[int]]:
    """Return {eye_left, eye_right, nose, mouth: landmarks} of a layout. Brows and pupils belong to the eyes.

    ValueError if no group of the layout has such a name.
    """
    found: dict[str, list[int]] = {}
    for group, ids in layout.groups.items():
        kind, _, side = group.partition("_")
        if kind in PARTS:
            found.setdefault(PARTS[kind].format(side), []).extend(ids)
    if not found:
        raise ValueError(
            f"layout {layout.name} has no groups eye_left, eye_right, nose... or lips..., which --local-parts and "
            "--head parts need; name them in its row, or leave this out"
        )
    return found
