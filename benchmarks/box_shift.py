"""NME against an error of the box: PIP, PIP with a re-initialisation, and DPR's GSR.

`python benchmarks/box_shift.py [--epochs 20] [--input-size 64] [NET ...]` trains each net on the synthetic set, which takes some
minutes on a core, and tests all nets on the same boxes: the tight boxes of the landmarks, moved by a share of their sides in a
direction that differs from face to face, or resized about their centres. A complete run is not repeated.
"""
import argparse
import re
import sys
from pathlib import Path

import numpy as np
import torch
from record import ROOT, chosen, save
from runs import train

from utils.config import read_defaults
from utils.evaluate.boxes import reboxed
from utils.evaluate.evaluate import evaluate, torch_predictor
from utils.faces.prepared_set import PreparedSet, Split, load_splits
from utils.train import checkpoint

PIP, WIDE = ["--net", "timm:resnet10t", "--stride", "16"], ["--translation", "0.25", "--scale", "0.3"]
NETS = {
    "PIP": PIP,
    "PIP, boxes off in training": [*PIP, *WIDE],
    "Reinit(PIP), boxes off in training": [*PIP, "--reinit", *WIDE],
    "GSR, boxes off in training": ["--reinit", "--net", "dpr", "--head", "coordinate", "--hard-landmarks", "1", "--amp", "off",
                                   *WIDE],
}
PATIENCE = {"GSR, boxes off in training": 5}  # times --epochs: this small net learns slowly
SHIFTS, SCALES = (0.0, 0.1, 0.2, 0.3, 0.4), (0.6, 0.8, 1.25, 1.6)
FACES, DIRECTIONS = 400, 50  # test faces; directions of the shifts, which repeat


def boxes(true: np.ndarray, shift: float, scale: float) -> np.ndarray:
    """Return boxes (M, 4) moved by a share of their sides and resized about their centres."""
    angle = np.resize(np.random.default_rng(0).uniform(0, 2 * np.pi, DIRECTIONS), len(true))
    side = true[:, 2:] - true[:, :2]
    centre = (true[:, :2] + true[:, 2:]) / 2 + shift * side * np.column_stack([np.cos(angle), np.sin(angle)])
    return np.concatenate([centre - scale * side / 2, centre + scale * side / 2], 1)


def measure(weights: Path, faces: int) -> dict[str, float]:
    """Return {case: NME in % of the first test faces}."""
    net, layout, _ = checkpoint.unpack(weights)
    split = Split(PreparedSet(ROOT / "data" / "synthetic", read_defaults().layouts), "test")
    own = load_splits([split], layout, net.spec["input_size"], 0, input_margin=net.input_margin)
    own = own.only(np.arange(min(faces, len(own))))
    predict = torch_predictor(net, torch.device("cpu"))

    def nme(shift: float, scale: float) -> float:
        moved = reboxed(own, boxes(own["box"][:], shift, scale), 1.0)
        return round(float(np.nanmean(evaluate(predict, moved, layout, "interocular", 50).nme)), 3)

    found = {f"shift {shift:g}": nme(shift, 1.0) for shift in SHIFTS}
    return found | {f"scale {scale:g}": nme(0.0, scale) for scale in SCALES}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("nets", nargs="*", metavar="NET", help=f"without: all, {', '.join(NETS)}")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--input-size", type=int, default=64)
    parser.add_argument("--faces", type=int, default=FACES)
    given = parser.parse_args()
    found, size = {}, str(given.input_size)
    for name in chosen(NETS, given.nets):
        epochs = given.epochs * PATIENCE.get(name, 1)
        exp = "_".join(["bench_box", *re.findall(r"\w+", name.lower()), size, str(epochs)])
        folder = train(exp, ["--dataset", "synthetic", "--preset", "quick", "--epochs", str(epochs), "--input-size", size,
                             *NETS[name]])
        found[name] = {"flags": " ".join(NETS[name]), "epochs": epochs, "nme": measure(folder / "best.pt", given.faces)}
        print(name, found[name]["nme"], flush=True)
    save("box_shift", " ".join(["python benchmarks/box_shift.py", *sys.argv[1:]]), 0, {
        "faces": given.faces, "input_size": given.input_size, "rows": found})


if __name__ == "__main__":
    main()
