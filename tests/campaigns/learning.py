"""Every net with every head: `python tests/campaigns learning [NAME ...]`, half an hour on a core without names.

Shapes and a training step of each pair; overfitting of 16 faces by each kind of net, head and stage, and the agreement
of its export. Rows of benchmarks/results/learning.json that are not named stay.
"""

from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

import torch
from victims import Case, result

# isort: split
from overfitting import memorable, overfit
from shown import rows_of
from speeds.nets import MORE

from extras.tools.zoo import exported_to_temporary, random_net
from nets import HEADS, NETS, Labels
from pipnet.runtimes import open_file
from utils.export.files import from_arrays

SMALL, SIZE, STEPS, AGREEMENT = "timm:test_efficientnet", 64, 150, 1e-3
PARTS_68 = {
    "eye_left": [*range(17, 22), *range(36, 42)],
    "eye_right": [*range(22, 27), *range(42, 48)],
    "nose": [*range(27, 36)],
    "mouth": [*range(48, 68)],
}
# the smallest net of each family with a PIP head, then each head and stage on a small net
FAMILIES = (
    "resnet18",
    "resnet50",
    "irnet18",
    "mobilenetv2",
    "mobilenetv3_small",
    "slim",
    "dpr",
    "mobileone_s0",
    "regnetx_200mf",
    "res2net50",
    "hrnet_w18_small_v2",
    *MORE[:4],
)
LEARNERS = {
    **{name: {"name": name} for name in FAMILIES},
    **{f"head {head}": {"name": SMALL, "head": head} for head in HEADS},
    "head heatmap": {"name": SMALL, "head": "heatmap", "stride": 8, "score_width": 1.0, "steps": 300},
    **{f"stride {stride}": {"name": SMALL, "stride": stride, "steps": 300} for stride in (8, 16)},
    "stride 64": {"name": SMALL, "stride": 64, "steps": 300, "size": 128},  # at 64 px the map would be one cell
    "refine": {"name": SMALL, "stages": {"refine": True}},
    "reinit": {"name": SMALL, "stages": {"reinit": True}},
    "GSR": {"name": "dpr", "head": "coordinate", "stages": {"reinit": True}, "steps": 300},
    "G&LSR": {"name": "dpr", "head": "coordinate", "stages": {"local_parts": PARTS_68}, "steps": 300},
}
KINDS = dict.fromkeys([*NETS, *MORE, *LEARNERS])


def pair(name: str, head: str) -> str:
    """Check shapes and one step of a pair.
    Return `learns`, why the pair is refused, or `wrong` with the check that fails.
    """
    torch.manual_seed(0)
    try:
        net = random_net(name, head, SIZE)
    except ValueError as error:
        return str(error)
    images, labels = torch.randint(0, 256, (4, SIZE, SIZE, 3), dtype=torch.uint8), Labels.pack(torch.rand(4, 68, 2))
    found = net.eval().predict(images)
    sums, counts = net.train().loss(images, labels), net.denominators(labels)
    sum(total / counts[term] for term, total in sums.items()).backward()
    checks = {
        "shapes": found.landmarks.shape == (4, 68, 2) and found.score.shape == (4, 68),
        "finite gradients": all(p.grad.isfinite().all() for p in net.parameters() if p.grad is not None),
        "gradients": all((p.grad != 0).any() for p in net.head.parameters() if p.grad is not None and p.ndim > 1),
    }
    return next((f"wrong {check}" for check, right in checks.items() if not right), "learns")


def agreement(net: torch.nn.Module, file: Path) -> float:
    """Return the share of landmarks for which an export agrees with torch to a thousandth of the crop, on the
    overfitted faces.

    An untrained net would be no test: many of its cells have almost equal scores, and either may win.
    """
    run = open_file(file, 1).run
    images = memorable(16, net.spec["input_size"], net.input_margin)[0]
    with torch.inference_mode():
        apart = (
            from_arrays(lambda images: run({"image": images}))(images).landmarks - net.predict(images).landmarks
        ).abs()
    return float((apart < AGREEMENT).float().mean())


def learning(how: dict) -> tuple[list[float], float]:
    """Return the NME in % of the mean face and of the net on 16 faces, and the agreement of its export.

    how: a row of LEARNERS.
    """
    start, nme, net = overfit(**{"head": "pip", "size": SIZE, "steps": STEPS, **how})
    with exported_to_temporary(net.eval()) as file:
        return [round(start, 2), round(nme, 2)], round(agreement(net, file), 4)


def cases(_args: Namespace, names: list[str], _root: Path, figures: dict) -> Iterator[Case]:
    torch.set_num_threads(1)
    stored = result("learning")
    figures |= {part: stored.get(part, {}) for part in ("pairs", "learning", "onnx_agrees")}
    for name in names:
        wrong = []
        if name not in LEARNERS or name in FAMILIES:
            figures["pairs"][name] = {head: pair(name, head) for head in HEADS}
            wrong += [f"{head}: {said}" for head, said in figures["pairs"][name].items() if said.startswith("wrong ")]
        if name in LEARNERS:
            (before, after), agrees = learning(LEARNERS[name])
            figures["learning"][name], figures["onnx_agrees"][name] = [before, after], agrees
            if not after < 2 < 20 < before or agrees <= 0.95:
                wrong.append(f"{before}, {after}, {agrees}")
        yield Case(name, wrong)
    heads = [
        {"name": name, "before": before, "after": after}
        for name, (before, after) in figures["learning"].items()
        if name not in FAMILIES
    ]
    shown = rows_of(heads, ("head or stage", "name"), ("mean face", "before", ".1f"), ("net", "after", ".2f"))
    figures |= {"size": SIZE, "steps": STEPS, "heads": shown}
