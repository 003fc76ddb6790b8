"""--teacher: checks which checkpoint may teach a landmark net, and adds the losses of the teacher."""

from pathlib import Path

import torch

from nets import Trainable
from nets.wrappers.distillation import Distillation
from pipnet.errors import UserError
from pipnet.layout import Layout
from utils.settings.config import Defaults
from utils.train import checkpoint, initialise


def add_teacher(
    net: Trainable, file: Path, weight: float, layout: Layout, protocol: dict, defaults: Defaults
) -> tuple[Trainable, str]:
    """Return (`net` with the losses of the teacher in `file`, words for the log). `net` is on its device already.

    layout and protocol: those of the training faces. UserError if the file is not our landmark net, or if its landmarks
    or crops differ from those of the training faces.
    """
    teacher, there, stored = checkpoint.unpack(file, defaults)
    same = initialise.shared_landmarks(layout, there)
    if len(same) < layout.count:
        raise UserError(
            f"--teacher {file} is of layout {there.name}, which has {len(same)} of the {layout.count} landmarks of "
            f"layout {layout.name}; give a teacher that knows them all"
        )
    if stored["protocol"] != protocol:
        raise UserError(
            f"--teacher {file} was trained on crops of protocol {stored['protocol']}, these are of {protocol}; give "
            "a teacher of the same --protocol"
        )
    if teacher.spec.get("reinit"):
        raise UserError(
            f"--teacher {file} was trained with --reinit or --local-parts, which make a crop of their own, in which two "
            "nets cannot be compared; give another teacher"
        )
    teacher = teacher.to(next(net.parameters()).device, memory_format=torch.channels_last)
    whole = Distillation(net, teacher, [same[landmark] for landmark in range(layout.count)], weight)
    used = ["landmarks", *(kind for kind, why in whole.compares.items() if not why)]
    left_out = "".join(f"; {kind} left out: {why}" for kind, why in whole.compares.items() if why)
    size = f"{stored['net']['net']}, {stored['net']['input_size']} px"
    return whole, f"taught by {file} ({size}): {', '.join(used)}{left_out}"
