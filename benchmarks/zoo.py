"""Every net with every head: shapes, a training step, cost, agreement of the export; and overfitting of 16 faces.

    python benchmarks/zoo.py                            # everything, half an hour on a core
    python benchmarks/zoo.py costs                      # parameters, MACs, ONNX latency of the nets
    python benchmarks/zoo.py pairs | learning           # net x head; overfitting and its export

Results go to benchmarks/results/zoo.json row by row. Rows that are there are kept; rows that are named are measured again, and
only these: `python benchmarks/zoo.py costs resnet18 "head simcc"`.
"""
import sys
from pathlib import Path

import torch
from overfitting import memorable, overfit
from record import chosen, result, save
from shown import rows_of

from nets import HEADS, NETS, Labels
from utils.export.files import exported_predictor
from utils.tools.zoo import exported_to_temporary, make, measured_cost

MORE = ("timm:convnext_atto", "timm:efficientnet_b0", "timm:repvgg_a0", "timm:fastvit_t8", "timm:hrnet_w18")
SMALL, SIZE, STEPS, AGREEMENT = "timm:test_efficientnet", 64, 150, 1e-3
PARTS_68 = {"eye_left": [*range(17, 22), *range(36, 42)], "eye_right": [*range(22, 27), *range(42, 48)],
            "nose": [*range(27, 36)], "mouth": [*range(48, 68)]}
# the smallest net of each family with a PIP head, then each head and stage on a small net
FAMILIES = ("resnet18", "resnet50", "irnet18", "mobilenetv2", "mobilenetv3_small", "slim", "dpr", "mobileone_s0", "regnetx_200mf",
            "res2net50", "hrnet_w18_small_v2", *MORE[:4])
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


class Figures:
    """Rows of benchmarks/results/zoo.json, in parts; every added row is saved at once."""

    def __init__(self, wanted: list[str]):
        self.wanted, stored = wanted, result("zoo")
        self.parts = {part: stored.get(part, {}) for part in ("nets", "onnx_agrees", "pairs", "learning")}

    def missing(self, part: str, name: str) -> bool:
        """Return whether to measure a row."""
        return name in self.wanted if self.wanted else name not in self.parts[part]

    def add(self, **rows: dict) -> None:
        """Add rows {name: figures} to parts."""
        for part, row in rows.items():
            self.parts[part] |= row
        save("zoo", "python benchmarks/zoo.py", 0, {"size": SIZE, "steps": STEPS, **self.parts, **self.shown()})

    def shown(self) -> dict[str, list[dict[str, str]]]:
        """Return the rows of the table of nets, and of that of heads and stages."""
        costs, learnt = self.parts["nets"], self.parts["learning"]
        nets = [{"name": f"`{name}`", "note": NETS[name].note if name in NETS else "",
                 **dict(zip(("parameters", "macs", "ms"), costs.get(name, ()), strict=False)),
                 "after": learnt[name][1] if name in learnt else None} for name in dict.fromkeys([*NETS, *costs])]
        heads = [{"name": name, "before": before, "after": after} for name, (before, after) in learnt.items()
                 if name not in costs]
        return {"rows": rows_of(nets, ("`--net`", "name"), ("published NME %", "note"), ("parameters M", "parameters", ".1f"),
                                ("MACs G", "macs", ".2f"), ("ONNX ms", "ms", ".1f"), ("16 faces", "after", ".2f")),
                "heads": rows_of(heads, ("head or stage", "name"), ("mean face", "before", ".1f"), ("net", "after", ".2f"))}


def costs(figures: Figures) -> None:
    """Add parameters, MACs and ONNX latency of every net with a PIP head, at its own input size."""
    for name in [*NETS, *MORE]:
        if figures.missing("nets", name):
            figures.add(nets={name: [round(figure, 3) for figure in measured_cost(name)]})


def pair(name: str, head: str) -> str:
    """Check shapes and one step of a pair. Return `learns`, or why the pair is refused. AssertionError for a fault."""
    torch.manual_seed(0)
    try:
        net = make(name, head, SIZE)
    except ValueError as error:
        return str(error)
    images, labels = torch.randint(0, 256, (4, SIZE, SIZE, 3), dtype=torch.uint8), Labels.pack(torch.rand(4, 68, 2))
    found = net.eval().predict(images)
    assert found.landmarks.shape == (4, 68, 2) and found.score.shape == (4, 68)
    sums, counts = net.train().loss(images, labels), net.count(labels)
    sum(total / counts[term] for term, total in sums.items()).backward()
    assert all(p.grad.isfinite().all() for p in net.parameters() if p.grad is not None)
    assert all((p.grad != 0).any() for p in net.head.parameters() if p.grad is not None and p.ndim > 1)
    return "learns"


def pairs(figures: Figures) -> None:
    """Add every net with every head."""
    for name in [*NETS, *MORE]:
        if figures.missing("pairs", name):
            figures.add(pairs={name: {head: pair(name, head) for head in HEADS}})


def agreement(net: torch.nn.Module, file: Path) -> float:
    """Return the share of landmarks for which an export agrees with torch to a thousandth of the crop, on the overfitted faces.

    An untrained net would be no test: many of its cells have almost equal scores, and either may win.
    """
    images = memorable(16, net.spec["input_size"], net.input_margin)[0]
    with torch.inference_mode():
        apart = (exported_predictor(file, 1)(images).landmarks - net.predict(images).landmarks).abs()
    return float((apart < AGREEMENT).float().mean())


def learning(figures: Figures) -> None:
    """Add the NME in % of the mean face and of the net on 16 faces, and the agreement of its export, for each of LEARNERS."""
    for name, how in LEARNERS.items():
        if figures.missing("learning", name):
            start, nme, net = overfit(**{"head": "pip", "size": SIZE, "steps": STEPS, **how})
            with exported_to_temporary(net.eval()) as file:
                figures.add(learning={name: [round(start, 2), round(nme, 2)]}, onnx_agrees={name: round(agreement(net, file), 4)})


PARTS = {"costs": costs, "pairs": pairs, "learning": learning}

if __name__ == "__main__":
    parts = [sys.argv[1]] if len(sys.argv) > 1 else list(PARTS)
    if not set(parts) <= set(PARTS):
        sys.exit(f"usage: python benchmarks/zoo.py [{'|'.join(PARTS)} [NAME ...]]")
    chosen({**NETS, **dict.fromkeys(MORE), **LEARNERS}, sys.argv[2:])
    torch.set_num_threads(1)
    for part in parts:
        PARTS[part](Figures(sys.argv[2:]))
