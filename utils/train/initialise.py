"""Starting a net from one that was trained on other landmarks: which of them are the same, and the head that follows."""
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from nets import Trainable, net_row
from nets.convert.published import from_published, is_classifier, is_ours
from nets.convert.transplant import nearest_sources, similarity
from nets.registry import resolve
from pipnet.errors import UserError
from pipnet.layout import Layout
from utils.train import checkpoint

ALIKE = 1.25  # ratio of the sizes of faces in two kinds of crops from which on a net of one is a poor start for the other
OF_LANDMARKS = ("head.", "refiner.identity", "refiner.move")  # parameters that have rows for landmarks


class Started(NamedTuple):
    """What a net was started from: words for the log; rows (tensor, shape, what became of it) of a report, or none."""
    words: str
    rows: list[tuple[str, str, str]]


def shared(new: Layout, old: Layout) -> dict[int, int]:
    """{landmark of `new`: the same landmark of `old`}: by a common stored layout, or by `same_as` in the row of either."""
    edited = new.name == old.name and (new.count, new.flip_index) != (old.count, old.flip_index)  # two layouts of one name

    def names(layout: Layout, landmark: int) -> set[tuple[str, int]]:
        own = {(layout.stored, layout.selected[landmark])} - ({(new.name, landmark)} if edited else set())
        return own | {(name, same[landmark]) for name, same in layout.same_as.items() if landmark in same}

    places = {name: landmark for landmark in range(old.count) for name in names(old, landmark)}
    found = {landmark: places[name] for landmark in range(new.count) for name in sorted(names(new, landmark)) if name in places}
    return found if len(set(found.values())) == len(found) else {}


def start(net: Trainable, file: Path, layout: Layout, meanface: np.ndarray, warn) -> Started:
    """Starts `net` from a checkpoint of ours, a published one, or a plain ImageNet net's; returns what was loaded, and what not.

    layout and meanface (N, 2), in [0, 1] of the crop, are the net's own. Where the checkpoint knows its layout, the head is made
    of the rows of the landmarks that both have; else, and for all other tensors, what has the same name and shape is taken.
    """
    read = [checkpoint.load_weights(Path(one)) for one in str(file).split(",")]  # DPR publishes its nets one by one
    tensors, known = {name: tensor for part, _ in read for name, tensor in part.items()}, read[0][1] if len(read) == 1 else {}
    stored, own = _renamed(tensors, net, meanface), net.state_dict()
    if hasattr(net.backbone, "own_names"):
        stored = net.backbone.own_names(stored)
    words, head = "", {}
    if known:
        head, words = _head(net, stored, known, layout, meanface, file, warn)
        if head is not None:
            stored = {name: tensor for name, tensor in stored.items() if not name.startswith(OF_LANDMARKS)} | head
        if (size := known["net"].get("input_size")) != net.spec["input_size"]:
            warn(f"{file} was trained at {size} px, this is {net.spec['input_size']}; --input-size {size} starts better")
    fitting = {name: tensor for name, tensor in stored.items() if name in own and own[name].shape == tensor.shape}
    if not any(torch.is_floating_point(tensor) for name, tensor in fitting.items() if not name.startswith("head.")):
        raise UserError(f"{file} holds no tensor that fits {net.spec['net']}; give a checkpoint of the same backbone")
    net.load_state_dict(fitting, strict=False)
    rows = [(name, _shape(tensor), _fate(name, tensor, stored, head or {})) for name, tensor in own.items()]
    others = {name: tensor for name, tensor in stored.items() if name not in own}
    rows += [(name, _shape(tensor), "left out: this net has no such tensor") for name, tensor in others.items()]
    if net_row(net.spec["net"]).published is None:
        rows += [(name, _shape(tensor), "left out: the classifier") for name, tensor in tensors.items() if is_classifier(name)]
    told = "; ".join(filter(None, (_named(rows, "new", "new"), _named(rows, "left out", "left out"))))
    return Started(f"{len(fitting)} of {len(own)} tensors of {file}{f' ({told})' if told else ''}{words}", rows)


def _shape(tensor: torch.Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "1"


def _fate(name: str, tensor: torch.Tensor, stored: dict, head: dict) -> str:
    """What became of a tensor of the net."""
    if name not in stored:
        return "new: not in the file"
    if stored[name].shape != tensor.shape:
        return f"new: {_shape(stored[name])} in the file"
    return "mapped" if name in head else "loaded"


def _named(rows: list[tuple[str, str, str]], kind: str, word: str) -> str:
    """'new: a, b, c, d ...' of the rows of that kind."""
    names = sorted(name for name, _, what in rows if what.startswith(kind))
    return f"{word}: {', '.join(names[:4])}{' ...' if len(names) > 4 else ''}" if names else ""


def _renamed(tensors: dict, net: Trainable, meanface: np.ndarray) -> dict:
    """Under our names, by the row of the net where the tensors are not ours."""
    published = net_row(net.spec["net"]).published
    if published is None or is_ours(tensors):
        return from_published(tensors)
    try:
        return resolve(published)(tensors, meanface)
    except (KeyError, IndexError, RuntimeError) as error:
        raise UserError(f"the weights are not those published for {net.spec['net']} ({type(error).__name__} {error})") from None


def _head(net: Trainable, stored: dict, known: dict, layout: Layout, meanface: np.ndarray, file: Path,
          warn) -> tuple[dict | None, str]:
    """(tensors that have rows for landmarks, words for the log). None instead of tensors: those of the checkpoint as they are."""
    try:
        spec, old = known["net"], Layout.from_dict(known["layout"])
        same = shared(layout, old)
        if spec["head"] != net.spec["head"] or not same:
            why = "its head is another" if same else f"layout {layout.name} shares no landmark with {old.name} (same_as)"
            return {}, f"; the backbone only: {why}"
        alike = layout.count == old.count and spec.get("neighbor_index") == net.spec.get("neighbor_index")
        if alike and same == {i: i for i in range(old.count)}:
            return None, ""
        parts = {name.removeprefix("head."): tensor for name, tensor in stored.items() if name.startswith("head.")}
        trained_on = np.reshape(known["meanface"], (-1, 2)) if "meanface" in known else None
        if trained_on is not None and len(same) > 1:
            scale = abs(similarity(trained_on[list(same.values())], meanface[list(same)])[0])
            if not 1 / ALIKE < scale < ALIKE:
                warn(f"faces are {scale:.2f} times as large in these crops as in those of {file}: another --protocol makes them "
                     "alike (inner: for points of eyes, nose and mouth only)")
        sources = nearest_sources(same, meanface, trained_on)
        grafted = net.head.grafted(parts, spec, net.spec, sources, meanface)
        made = {f"head.{name}": tensor for name, tensor in grafted.items()}
        made |= {name: stored[name][sources.landmark] for name in OF_LANDMARKS[1:] if name in stored}
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise UserError(f"{file} does not describe a net that can be started from ({type(error).__name__} {error})") from None
    rest = layout.count - len(same)
    words = f"; {len(same)} of {layout.count} landmarks mapped" + (f", {rest} from their nearest" if rest else "")
    return made, words
