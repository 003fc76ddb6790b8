"""Every net with every head: shapes, a training step, ONNX against torch, cost, and sixteen faces learnt by heart.

    python benchmarks/zoo.py                            # the nets' costs and every pair of net and head, at 64 px
    python benchmarks/zoo.py sizes | costs | matrix     # one of: parameters and MACs; these and latency; the pairs

Figures go to benchmarks/results/zoo.json and zoo_matrix.json; a row that is measured already is kept unless it is named:
`python benchmarks/zoo.py costs resnet18`.
"""
import json
import sys
import tempfile
from pathlib import Path

import torch
from record import RESULTS, save

from nets import HEADS, NETS, Labels
from utils.export import export_onnx, onnx_predictor
from utils.zoo import cost, make, overfit, size

MORE = ("timm:convnext_atto", "timm:efficientnet_b0", "timm:repvgg_a0", "timm:fastvit_t8", "timm:hrnet_w18")
SIZE, STEPS, LIMIT, AGREEMENT = 64, 300, 2.0, 1e-3


def kept(name: str, part: str) -> dict:
    """What an earlier measurement left of `part`."""
    file = RESULTS / f"{name}.json"
    return json.loads(file.read_text(encoding="utf-8")).get(part, {}) if file.is_file() else {}


def sizes(wanted: list[str]) -> None:
    """Parameters and MACs of every net with a PIP head, at the input size of its row; latencies that are known are kept."""
    found = kept("zoo", "nets")
    for name in [*NETS, *MORE]:
        if name in wanted or name not in found:
            found[name] = [*(round(figure, 3) for figure in size(name)[:2]), found.get(name, [None])[-1]]
    save("zoo", "python benchmarks/zoo.py", 0, {"nets": found})


def costs(wanted: list[str]) -> None:
    """The same and ONNX latency, net by net, on a machine that does nothing else."""
    found = kept("zoo", "nets")
    for name in [*NETS, *MORE]:
        if name in wanted or found.get(name, [None])[-1] is None:
            found[name] = [round(figure, 3) for figure in cost(name)]
            save("zoo", "python benchmarks/zoo.py", 0, {"nets": found})


def agreement(net: torch.nn.Module) -> float:
    """Share of landmarks for which the exported file says what torch says, to a thousandth of the crop."""
    images = torch.randint(0, 256, (4, SIZE, SIZE, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        export_onnx(net, Path(folder) / "net.onnx", {})
        apart = (onnx_predictor(Path(folder) / "net.onnx", 1)(images).landmarks - net.predict(images).landmarks).abs()
    return float((apart < AGREEMENT).float().mean())


def pair(name: str, head: str) -> dict:
    """Shapes, one step, the export, and the NME in % on faces learnt by heart."""
    torch.manual_seed(0)
    net = make(name, head, SIZE)
    images, labels = torch.randint(0, 256, (4, SIZE, SIZE, 3), dtype=torch.uint8), Labels(torch.rand(4, 68, 2))
    found = net.eval().predict(images)
    assert found.landmarks.shape == (4, 68, 2) and found.score.shape == (4, 68)
    sums, counts = net.train().loss(images, labels), net.head.count(labels)
    sum(total / counts[term] for term, total in sums.items()).backward()
    assert all(p.grad.isfinite().all() for p in net.parameters() if p.grad is not None)
    start, nme = overfit(name, head, SIZE, STEPS)
    return {"onnx_agrees": agreement(net.eval()), "meanface_nme": round(start, 2), "nme": round(nme, 2)}


def matrix(wanted: list[str]) -> None:
    """Every net with every head."""
    found = kept("zoo_matrix", "pairs")
    for name in [*NETS, *MORE]:
        for head in HEADS:
            if name in wanted or head not in found.get(name, {}):
                try:
                    row = pair(name, head)
                except ValueError as error:  # a pair that makes no sense says so
                    row = {"refused": str(error)}
                found.setdefault(name, {})[head] = row
                save("zoo_matrix", "python benchmarks/zoo.py matrix", 0, {
                    "size": SIZE, "steps": STEPS, "pairs": found,
                    "above_limit": [f"{net} {kind}" for net, heads in found.items() for kind, figures in heads.items()
                                    if figures.get("nme", 0) >= LIMIT]})


PARTS = {"sizes": sizes, "costs": costs, "matrix": matrix}

if __name__ == "__main__":
    parts = [sys.argv[1]] if len(sys.argv) > 1 else list(PARTS)
    if not set(parts) <= set(PARTS):
        sys.exit(f"usage: python benchmarks/zoo.py [{'|'.join(PARTS)} [NET ...]]")
    torch.set_num_threads(1)
    for part in parts:
        PARTS[part](sys.argv[2:])
