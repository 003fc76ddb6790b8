"""Checkpoints of nets: writes them completely or not at all, reads them, and describes what they hold."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch

from nets import Trainable, no_larger
from pipnet.card import LandmarkCard
from pipnet.errors import UserError, one_line
from pipnet.files import write_atomic
from pipnet.landmark_net import DETECTS, LandmarkNet
from pipnet.layout import Layout
from pipnet.runtimes import RUNTIMES, open_file
from utils.settings import rooms
from utils.settings.config import Defaults, check_values
from utils.settings.union import Member, Union, layout_of
from utils.train.make_net import build_net, trained_states
from utils.train.schema import FORMAT
from utils.train.weight_files import are_our_names, load_weights, weights_and_mean_face

STRUCTURE = ("net", "head", "stride", "input_size", "act", "pool", "excite", "score_width")
STAGES = ("refine", "reinit", "local_parts")
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")  # of batch norms


def save(file: Path, values: dict[str, Any]) -> None:
    """Write tensors and plain values, so that `load` needs no pickled code."""

    def write(path: Path) -> None:
        try:
            with open(path, "wb") as handle:  # with a path, torch does not say that the disk is full
                torch.save(values, handle)
        except RuntimeError as error:  # torch could not end the file, which hides what interrupted it
            cause = error.__context__
            raise cause if isinstance(cause, (OSError, KeyboardInterrupt)) else error from None

    write_atomic(file, write)


def unpack(file: Path | str, defaults: Defaults | None = None) -> tuple[Trainable, Layout, dict[str, Any]]:
    """Return (landmark net with its weights, layout, the whole checkpoint).
    UserError if net and weights do not fit together.

    defaults: see `load`.
    """
    if Path(file).suffix in RUNTIMES:
        raise no_weights(file)
    values = load(file, defaults)
    if values["args"].get("task") == "detect":
        raise UserError(f"{file} {DETECTS}")
    return built(file, values), layout_of(values["layout"]), values


def no_weights(file: Path | str) -> UserError:
    """Return the error for an exported file where a checkpoint is needed."""
    return UserError(f"{file} cannot be loaded with torch; give the .pt that it was exported from")


def built(file: Path | str, values: dict[str, Any]) -> Trainable:
    """Return the net of a checkpoint's values, with its weights.
    UserError if they do not fit together; nothing is made of a net that is far larger than its weights.
    """
    try:
        with no_larger(sum(tensor.numel() for tensor in values["model"].values())):
            net = build_net(values["net"])
        net.load_state_dict(values["model"])
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RuntimeError) as error:
        raise UserError(f"{file} does not describe a net that this version can build ({one_line(error)})") from None
    return net


def described(net: Trainable, stored: dict[str, Any]) -> LandmarkNet:
    """Return the `LandmarkNet` that a checkpoint describes, of all its landmarks; its `predict` is None."""
    values = {
        "input_size": net.spec["input_size"],
        "input_margin": net.input_margin,
        "outputs": {name: [] for name in net.spec["auxiliary"]},
        "states": trained_states(stored),
    }
    plain = {name: value for name, value in stored["layout"].items() if name != "members"}
    card = LandmarkCard.of({**stored, **values, "layout": plain})
    return replace(LandmarkNet.of(None, card), layout=layout_of(stored["layout"]))


def in_layout(stored: dict[str, Any], member: Member) -> dict[str, Any]:
    """Return the values of a checkpoint with the layout and the mean face of one member of its union alone."""
    union = cast(Union, layout_of(stored["layout"]))
    points = stored.get("meanface") and [stored["meanface"][i] for i in member.index]
    own = {key: value for key, value in stored.items() if key != "layouts"}
    return {**own, "layout": union.alone(member).to_dict(), "meanface": points}


def load(file: Path | str, defaults: Defaults | None = None) -> dict[str, Any]:
    """Return the values of a checkpoint, on the CPU.
    A published file gives the same values; an exported one has no weights.

    file: a path, or the paths of several published files of one net, joined by commas. defaults: args.yaml, whose
    presets and tables describe published and exported landmark nets; without it only our own checkpoints are read.
    UserError if a file is missing, damaged, unknown, or holds code.
    """
    if Path(file).suffix in RUNTIMES:
        return {"format": FORMAT, "model": {}, **_export_values(Path(file), defaults)}
    tensors, known = load_weights(file)
    if not known and defaults is None:
        raise UserError(f"{file} is not a checkpoint of this project")
    return known or {"format": FORMAT, **rooms.systems.checkpoint_values(file, tensors, defaults)}


def _export_values(file: Path, defaults: Defaults | None) -> dict[str, Any]:
    """Return the values of a checkpoint, without weights, for an exported file. UserError for unknown files.

    defaults: args.yaml, by which published files are described; None is enough for a detector.
    """
    opened = open_file(file, 1)
    values = opened.values
    if {*opened.outputs} == {"boxes", "scores"}:
        from pipnet.detector import exported_card

        exported_card(values, file)
        args = {
            "task": "detect",
            "val": values.get("figures", {}).get("val", "none"),
            "train_data": values.get("train_data"),
        }
        args = check_values(args, str(file))
        return {**values, "layout": {}, "protocol": {}, "args": args, "net": {"net": values.get("net", "faceboxes")}}
    if not {"landmarks", "score"} <= {*opened.outputs}:
        return rooms.systems.graph_values(file, opened, defaults)
    if defaults is None:
        raise UserError(f"{file} is not a checkpoint of this project")
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


def structure(tensors: dict[str, torch.Tensor], known: dict[str, Any], defaults: Defaults) -> dict[str, Any]:
    """Return the keys of args.yaml that a net takes over from the trained landmark net in a file; {} for a backbone.

    tensors, known: see `load_weights`. A stage that the file lacks is not among the keys, since it can be added.
    """
    if known:
        values = {**known["args"], **known["net"]}
    else:
        values = {} if are_our_names(tensors) else rooms.systems.settings_in(tensors, defaults)
    return {key: values[key] for key in STRUCTURE if key in values} | {key: True for key in STAGES if values.get(key)}


def about(file: Path, stored: dict[str, Any]) -> str:
    """Return a description of a tested file: its name, the epoch if it is known, the net and its number of parameters."""
    epoch = stored.get("epoch")
    names = ", ".join(one.name for one in weights_and_mean_face(file)[0])
    return f"{names}{'' if epoch is None else f' of epoch {epoch + 1}'}: {in_words(stored['model'], stored)}"


def in_words(tensors: Mapping[str, torch.Tensor], values: Mapping[str, Any]) -> str:
    """Return the net's name, its published system and its number of parameters, in words. values: of its checkpoint."""
    counted = (tensor for name, tensor in tensors.items() if not name.endswith(STATISTICS))
    whose = f" of {values['system']}" if "system" in values else ""
    size = sum(tensor.numel() for tensor in counted) / 1e6
    return f"{values['net'].get('net') or 'a net'}{whose}{f', {size:.2f} M parameters' if size else ''}"
