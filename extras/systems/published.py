"""Published weights and exported files, described by the values of a checkpoint that tests and predictions need."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from extras.systems.convert.published import from_published
from extras.systems.convert.systems import SYSTEMS, System, system_of
from nets import Trainable
from nets.registry import import_named
from pipnet.contents import check_export
from pipnet.errors import UserError
from pipnet.landmark_net import LandmarkNet
from pipnet.layout import Layout
from pipnet.runtimes import RUNTIMES, Opened, open_file
from utils.data.paths import MEANFACE_FILES
from utils.data.sets import read_meanface
from utils.settings.config import Defaults, Settings, check_values, load_protocol, make_settings, read_defaults
from utils.settings.formats import files_of
from utils.train.make_net import make_net, state_names

STRUCTURE = ("net", "head", "stride", "input_size", "act", "pool", "excite", "score_width")
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")  # of batch norms
STAGES = ("refine", "reinit", "local_parts")


def weights_and_mean_face(text: Path | str) -> tuple[list[Path], Path | None]:
    """Return (files of weights, file of their mean face or None). text: one path, or several joined by commas."""
    files = [Path(one) for one in ([text] if Path(text).is_file() else str(text).split(","))]
    means = [file for file in files if file.suffix in MEANFACE_FILES]
    return [file for file in files if file not in means], means[0] if means else None


def net_files(text: Path | str) -> list[Path]:
    """Return the files that a net consists of: the weights and their mean face, or the files of an export.

    text: see `weights_and_mean_face`; a mean face that is not named is looked for beside the weights.
    """
    files, mean = weights_and_mean_face(text)
    if files[0].suffix in RUNTIMES:
        return [file for file in files_of(files[0]) if file.is_file()]
    beside = dict.fromkeys(files[0].with_name(system.meanface[0]) for system in SYSTEMS.values() if system.meanface)
    return [*files, *([mean] if mean else filter(Path.is_file, beside))]


def structure(tensors: dict[str, Tensor], known: dict[str, Any], defaults: Defaults) -> dict[str, Any]:
    """Return the keys of args.yaml that a net takes over from the trained net in a file; {} for a backbone or a
    detector.

    tensors, known: see `checkpoint.load_weights`. A stage that the file lacks is not among the keys, since it can be
    added.
    """
    if system := system_of(tensors):
        try:
            settings, _ = settings_of(system, system.keys(tensors), defaults)
        except (
            KeyError,
            ValueError,
            ZeroDivisionError,
        ):  # other landmarks, or tensors are missing: the rest may still fit
            return {}
        values = vars(settings.net)
    elif known and known["args"].get("task") != "detect":
        values = {**known["args"], **known["net"]}
    else:
        return {}
    return {key: values[key] for key in STRUCTURE if key in values} | {key: True for key in STAGES if values.get(key)}


def settings_of(
    system: System, keys: dict[str, Any], defaults: Defaults, meanface: np.ndarray | None = None
) -> tuple[Settings, Layout]:
    """Return (settings that a published system was trained with, its layout).
    keys: settings that its preset does not hold.
    """
    preset = system.preset if system.crops is None or meanface is None else system.crops(meanface)
    keys = check_values(keys, system.title)
    settings = make_settings(keys, defaults, preset, datasets=[keys[key] for key in ("dataset",) if key in keys])
    return settings, settings.layouts.load(settings.data.layout)


def description(settings: Settings, layout: Layout, net: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values that a checkpoint of a published net would hold, without its weights. net: its spec."""
    return {
        "net": net,
        "layout": layout.to_dict(),
        "args": {**settings.flat(), "val": "none", "weights": "none"},
        "protocol": load_protocol(settings.protocols, settings.data.protocol)._asdict(),
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
    own, model = net.state_dict(), renamed(tensors, net, face)
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


def first_three(names: list[str]) -> str:
    """Return the first three names, joined by commas, and ' ...' if there are more."""
    return f"{', '.join(names[:3])}{' ...' if names[3:] else ''}"


def in_words(tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> str:
    """Return the net's name, its published system and its number of parameters, in words. values: of its checkpoint."""
    counted = (tensor for name, tensor in tensors.items() if not name.endswith(STATISTICS))
    whose = f" of {values['system']}" if "system" in values else ""
    size = sum(tensor.numel() for tensor in counted) / 1e6
    return f"{values['net'].get('net') or 'a net'}{whose}{f', {size:.2f} M parameters' if size else ''}"


def renamed(tensors: dict[str, Tensor], net: Trainable, meanface: np.ndarray) -> dict[str, Tensor]:
    """Return published tensors, or ours, under our names. meanface (N, 2): used if the spec of `net` has no mean face."""
    system = system_of(tensors)
    whose = system.title if system else "a net of ours or a backbone"
    try:
        stored = (
            import_named(system.convert)(tensors, net.spec.get("meanface", meanface))
            if system
            else from_published(tensors)
        )
    except ValueError as error:
        raise UserError(f"the weights are not all of those of {whose}: {error}") from None
    except (KeyError, IndexError, RuntimeError) as error:
        raise UserError(f"the weights are not those published for {whose} ({type(error).__name__} {error})") from None
    return net.backbone.own_names(stored) if hasattr(net.backbone, "own_names") else stored


def describe_export(file: Path, defaults: Defaults | None) -> dict[str, Any]:
    """Return the values of a checkpoint, without weights, for an exported file. UserError for unknown files.

    defaults: args.yaml, by which published files are described; None is enough for a detector.
    """
    opened = open_file(file, 1)
    values = opened.values
    if {*opened.outputs} == {"boxes", "scores"}:
        check_export(values, file, detector=True)
        args = {
            "task": "detect",
            "val": values.get("figures", {}).get("val", "none"),
            "train_data": values.get("train_data"),
        }
        args = check_values(args, str(file))
        return {**values, "layout": {}, "protocol": {}, "args": args, "net": {"net": values.get("net", "faceboxes")}}
    if not {"landmarks", "score"} <= {*opened.outputs}:
        system, settings, layout = graph_of(file, opened, defaults)
        options = {**vars(settings.net), "net": system.graph.net}
        return {**description(settings, layout, options), "system": system.title}
    net = LandmarkNet.of_export(opened, file)
    known = {**defaults.layouts.rows, **values.get("layouts", {})}
    name = net.layout.name if net.layout.name in known else net.layout.stored
    protocol = next((row for row, same in defaults.protocols.items() if same == values["protocol"]), file.stem)
    args = {
        "task": "landmarks",
        "layout": name,
        "protocol": protocol,
        "val": "none",
        **{key: values[key] for key in ("norm", "val", "train_data") if key in values},
    }
    return {
        **values,
        "layout": net.layout.to_dict(),
        "args": check_values(args, str(file)),
        "net": {"net": values.get("net"), "head": values.get("head", "pip"), "input_size": net.size},
    }


def open_graph(file: Path, opened: Opened) -> LandmarkNet:
    """Return the landmark net of a published graph. UserError for an unknown graph."""
    system, settings, layout = graph_of(file, opened, read_defaults())
    values = {
        **description(settings, layout, {}),
        "input_size": settings.net.input_size,
        "pose": settings.loss.pose > 0,
        "states": state_names(vars(settings.loss)),
    }
    return LandmarkNet.of(partial(import_named(system.graph.read), opened), values)


def graph_of(file: Path, opened: Opened, defaults: Defaults) -> tuple[System, Settings, Layout]:
    """Return the system that published a graph, its settings and its layout. UserError for an unknown graph."""
    for system in SYSTEMS.values():
        if system.graph and system.graph.fits(opened):
            return system, *settings_of(system, system.graph.keys, defaults)
    raise UserError(
        f"{file} is no landmark net of ours, which has the input image and the outputs landmarks and score, and no "
        "published one that is known; give one that `main.py --export` has exported"
    )
