"""--teacher of a landmark net: which checkpoint may teach it, and what is learnt from it."""
import hashlib
from pathlib import Path
from types import SimpleNamespace

import torch

from nets import Trainable
from nets.stages.distillation import Distillation, Shares
from pipnet.errors import UserError
from pipnet.layout import Layout
from utils.train import checkpoint
from utils.train import initialise as finetune
from utils.train import run_folder as run

KINDS = ("landmarks", "maps", "features")


def taught(net: Trainable, args: SimpleNamespace, layout: Layout, protocol: dict, device: torch.device) -> tuple[Trainable, str]:
    """(`net` with the losses of `args.teacher`, words for the log). layout and protocol are those of the faces to train on.

    UserError for a file that is no landmark net of ours, or one of other landmarks or crops.
    """
    file = Path(args.teacher)
    if checkpoint.load(file)["args"].get("task") == "detect":
        raise UserError(f"--teacher {file} finds faces; a landmark net learns from a checkpoint of a landmark net")
    teacher, there, stored = run.unpack(file)
    same = finetune.shared(layout, there)
    if len(same) < layout.count:
        raise UserError(f"--teacher {file} is of layout {there.name}, which has {len(same)} of the {layout.count} landmarks of "
                        f"layout {layout.name}; give a teacher that knows them all")
    if stored["protocol"] != protocol:
        raise UserError(f"--teacher {file} was trained on crops of protocol {stored['protocol']}, these are of {protocol}; give "
                        "a teacher of the same --protocol")
    if net.moves_crop or teacher.moves_crop:
        who = "a teacher of those" if teacher.moves_crop else "--teacher"
        raise UserError("--reinit and --local-parts make a crop of their own, in which two nets cannot be compared; leave out "
                        f"these or {who}")
    shares = Shares(*(getattr(args, f"teacher_{kind}") for kind in KINDS))
    teacher = teacher.to(device, memory_format=torch.channels_last)
    whole = Distillation(net.to(device), teacher, [same[landmark] for landmark in range(layout.count)], shares)
    left = {kind: why for kind, why in whole.compares.items() if why and getattr(shares, kind)}
    used = [kind for kind in KINDS if getattr(shares, kind) and kind not in left]
    if not used:
        raise UserError(f"nothing is learnt from --teacher {file}: {'; '.join(f'{kind} {why}' for kind, why in left.items())}"
                        f"{'; ' if left else ''}give --teacher-landmarks above 0")
    words = "".join(f"; {kind} left out: {why}" for kind, why in left.items())
    return whole, f"taught by {file} ({stored['net']['net']}, {stored['net']['input_size']} px): {', '.join(used)}{words}"


def checksums(file: str | None) -> list[str]:
    """Of the teacher, if any: a resumed run must have the same."""
    if file is None:
        return []
    try:
        return [hashlib.sha256(Path(file).read_bytes()).hexdigest()]
    except OSError:
        raise UserError(f"no checkpoint at {file}") from None
