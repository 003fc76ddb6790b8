"""Published weights and exported files, described by the values of a checkpoint that tests and predictions need."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from extras.systems.convert.published import from_published, is_classifier
from extras.systems.convert.systems import SYSTEMS, PublishedGraph, System, system_of
from nets import Trainable
from pipnet.card import LandmarkCard
from pipnet.errors import UserError
from pipnet.landmark_net import LandmarkNet
from pipnet.layout import Layout
from pipnet.runtimes import Opened
from utils.data.sets import read_meanface
from utils.settings.config import Defaults, Settings, check_values, load_protocol, preset_values, read_defaults
from utils.train.make_net import make_net, state_names
from utils.train.weight_files import first_three, weights_and_mean_face


class Renamed(NamedTuple):
    """A published state dict under our names.

    title: the system's; None for a plain backbone
    needs_meanface: where the mean face is that the weights do not hold, in words; empty if they need none
    left_out: tensors of the file that our nets do not have
    """

    tensors: dict[str, Tensor]
    title: str | None
    needs_meanface: str
    left_out: list[str]


def settings_in(tensors: dict[str, Tensor], defaults: Defaults) -> dict[str, Any]:
    """Return the settings of the published net that holds these tensors; {} for a plain backbone or another net."""
    system = system_of(tensors)
    try:
        return vars(settings_of(system, system.keys(tensors), defaults)[0].net) if system else {}
    except (KeyError, ValueError, ZeroDivisionError):  # other landmarks, or tensors are missing: the rest may still fit
        return {}


def settings_of(
    system: System, keys: dict[str, Any], defaults: Defaults, meanface: np.ndarray | None = None
) -> tuple[Settings, Layout]:
    """Return (settings that a published system was trained with, its layout).
    keys: settings that its preset does not hold.
    """
    preset = system.preset if system.crops is None or meanface is None else system.crops(meanface)
    keys = check_values(keys, system.title)
    datasets = [keys["dataset"]] if "dataset" in keys else []
    settings = Settings.of(defaults, preset_values(preset, keys, defaults, datasets), keys)
    return settings, settings.layouts.load(str(settings.data.layout))


def description(settings: Settings, layout: Layout, net: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values that a checkpoint of a published net would hold, without its weights. net: its spec."""
    return {
        "net": net,
        "layout": layout.to_dict(),
        "args": {**settings.flat(), "val": "none", "weights": "none"},
        "protocol": load_protocol(settings.protocols, str(settings.data.protocol))._asdict(),
    }


def checkpoint_values(text: Path | str, tensors: dict[str, Tensor], defaults: Defaults) -> dict[str, Any]:
    """Return the values of a checkpoint for the `tensors` of published files.
    UserError for unknown or incomplete files.
    """
    system, (files, mean) = system_of(tensors), weights_and_mean_face(text)
    if system is None:
        titles = ", ".join(system.title for system in SYSTEMS.values())
        raise UserError(
            f"{text} is neither a checkpoint of this project nor a published landmark net ({titles}); weights of a "
            "backbone alone start a training: --weights"
        )
    try:
        keys = system.keys(tensors)
    except (KeyError, ValueError, ZeroDivisionError) as error:
        raise UserError(f"{text} is no net of {system.title} that can be run: {error}") from None
    face = None
    if system.meanface:
        mean = mean or files[0].with_name(system.meanface[0])
        if not mean.is_file():
            raise UserError(
                f"{text} does not hold the mean face that it needs: put {' in '.join(system.meanface)} beside it, or "
                "add that file behind a comma: FILE,MEANFACE"
            )
        face = read_meanface(mean)
    settings, layout = settings_of(system, keys, defaults, face)
    face = np.full((layout.count, 2), 0.5) if face is None else face
    if layout.stored != layout.name and len(face) == defaults.layouts.load(layout.stored).count:
        face = face[list(layout.selected)]  # the mean face of the layout that this one is a part of
    if len(face) != layout.count:
        raise UserError(f"{mean} has {len(face)} landmarks, the net in {text} {layout.count}; give its own mean face")
    net = make_net(settings.net, settings.loss, layout, face)
    values = description(settings, layout, net.spec)
    if "neighbor_index" in net.spec:  # a mean face in the frame of the crop; DPR's is in a frame of its own
        values["meanface"] = face.tolist()
    own, model = net.state_dict(), renamed(tensors, net, face).tensors
    if missing := sorted(own.keys() - model.keys()):
        raise UserError(
            f"{text} lacks tensors of {system.title} ({first_three(missing)}); join all its files by commas: A,B"
        )
    if foreign := [
        name
        for name, tensor in sorted(model.items())
        if not name.startswith(system.unused) and (name not in own or tensor.shape != own[name].shape)
    ]:
        raise UserError(
            f"{text} holds tensors that {settings.net.net} of {system.title} does not have so "
            f"({first_three(foreign)}): it is another net, which this version cannot run"
        )
    return {**values, "model": {name: model[name] for name in own}, "system": system.title}


def renamed(tensors: dict[str, Tensor], net: Trainable, meanface: np.ndarray) -> Renamed:
    """Return published tensors under our names. meanface (N, 2): used if the spec of `net` has no mean face."""
    system = system_of(tensors)
    whose = system.title if system else "a backbone"
    try:
        if not system:
            left_out = [name for name in tensors if is_classifier(name)]
            return Renamed(from_published(tensors), None, "", left_out)
        stored = system.convert(tensors, net.spec.get("meanface", meanface))
    except ValueError as error:
        raise UserError(f"the weights are not all of those of {whose}: {error}") from None
    except (KeyError, IndexError, RuntimeError) as error:
        raise UserError(f"the weights are not those published for {whose} ({type(error).__name__} {error})") from None
    return Renamed(stored, system.title, " in ".join(system.meanface), [])


def graph_values(file: Path, opened: Opened, defaults: Defaults) -> dict[str, Any]:
    """Return the values of a checkpoint, without weights, for a published graph. UserError for an unknown one."""
    known = graph_of(file, opened, defaults)
    options = {**vars(known.settings.net), "net": known.graph.net}
    return {**description(known.settings, known.layout, options), "system": known.title}


def open_graph(file: Path | str, opened: Opened) -> LandmarkNet:
    """Return the landmark net of a published graph. UserError for an unknown graph."""
    known = graph_of(file, opened, read_defaults())
    values = {
        **description(known.settings, known.layout, {}),
        "input_size": known.settings.net.input_size,
        "outputs": {"pose": []} if known.settings.loss.pose > 0 else {},
        "states": state_names(vars(known.settings.loss)),
    }
    return LandmarkNet.of(partial(known.graph.read, known.opened), LandmarkCard.of(values))


class KnownGraph(NamedTuple):
    """A published graph: the title of its system, its row, its settings and layout, and the file with its weights'
    shapes.
    """

    title: str
    graph: PublishedGraph
    settings: Settings
    layout: Layout
    opened: Opened


def graph_of(file: Path | str, opened: Opened, defaults: Defaults) -> KnownGraph:
    """Return which published graph a file is. UserError for an unknown one."""
    if Path(file).suffix == ".onnx":
        opened = opened._replace(values={**opened.values, "weights": weight_shapes(file)})
    for system in SYSTEMS.values():
        for graph in system.graphs:
            if graph.fits(opened):
                settings, layout = settings_of(system, graph.keys(opened), defaults)
                return KnownGraph(system.title, graph, settings, layout, opened)
    names = ", ".join(f"{graph.net} of {system.title}" for system in SYSTEMS.values() for graph in system.graphs)
    raise UserError(
        f"{file} is no landmark net of ours, which has the input image and the outputs landmarks and score, and no "
        f"published one that is known ({names}); give one that `main.py --export` has exported"
    )


def weight_shapes(file: Path | str) -> set[tuple[int, ...]]:
    """Return the shapes of the tensors that an ONNX file holds, also those in nodes."""
    import onnx  # takes a while to import, and only unknown graphs need it

    graph = onnx.load(file, load_external_data=False).graph
    constants = [
        part.t for node in graph.node if node.op_type == "Constant" for part in node.attribute if part.HasField("t")
    ]
    return {tuple(tensor.dims) for tensor in [*graph.initializer, *constants]}
