"""What a wrong box costs: NME against the box's shift and scale, for PIP, PIP behind a re-initialisation, and DPR's GSR.

`python benchmarks/box_shift.py [--epochs 20] [--input-size 64] [NET ...]` trains each net on the synthetic faces (some minutes
on a core), goes on where one was killed, repeats none that is whole, and tests all of them on the same boxes: the tight box of
the landmarks, moved by a share of its sides in a direction of each face's own, or grown about its centre.
"""
import argparse
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from record import ROOT, rows, save

from pipnet.geometry import Protocol, crop_box, cut, to_image
from utils.data.prepared_set import load_meta, load_split, read_image
from utils.test import metric
from utils.test.evaluate import torch_predictor
from utils.train import run_folder as run

PIP, WIDE = ["--net", "timm:resnet10t", "--stride", "16"], ["--translation", "0.25", "--scale", "0.3"]
NETS = {
    "PIP": PIP,
    "PIP, boxes off in training": [*PIP, *WIDE],
    "Reinit(PIP), boxes off in training": [*PIP, "--reinit", *WIDE],
    "GSR, boxes off in training": ["--reinit", "--net", "dpr", "--head", "coordinate", "--hard-landmarks", "1", "--amp", "off",
                                   *WIDE],
}
PATIENCE = {"GSR, boxes off in training": 5}  # times the epochs: a small net from random weights, its coordinates from one cell
SHIFTS, SCALES = (0.0, 0.1, 0.2, 0.3, 0.4), (0.6, 0.8, 1.25, 1.6)


def train(name: str, epochs: int, size: int) -> Path:
    """The folder of a net's run, trained unless it is whole; a run that was killed goes on."""
    epochs *= PATIENCE.get(name, 1)
    folder = ROOT / "weights" / "_".join(["bench_box", *re.findall(r"\w+", name.lower()), str(size), str(epochs)])
    if len(rows(folder / "step.csv")) < epochs:
        how = "--resume" if (folder / "last.pt").is_file() else "--overwrite"
        flags = ["--train", how, "--exp", folder.name, "--dataset", "synthetic", "--preset", "quick", "--epochs", str(epochs)]
        done = subprocess.run([sys.executable, "main.py", *flags, "--input-size", str(size), *NETS[name]], cwd=ROOT)
        if done.returncode:
            sys.exit(f"{name} failed with status {done.returncode}")
    return folder


def boxes(true: np.ndarray, shift: float, scale: float) -> np.ndarray:
    """Boxes (M, 4) off by a share of their sides, each in a direction of its own, and grown about their centres."""
    angle = np.random.default_rng(0).uniform(0, 2 * np.pi, len(true))
    side = true[:, 2:] - true[:, :2]
    centre = (true[:, :2] + true[:, 2:]) / 2 + shift * side * np.column_stack([np.cos(angle), np.sin(angle)])
    return np.concatenate([centre - scale * side / 2, centre + scale * side / 2], 1)


def errors(net, layout, protocol: Protocol, folder: Path, shift: float, scale: float, faces: int) -> float:
    """NME in % of the first `faces` test faces, cut from their pictures by such boxes."""
    table, source = load_split(folder, "test"), Path(load_meta(folder)["source"])
    predict, size = torch_predictor(net, torch.device("cpu")), net.spec["input_size"]
    found = []
    for start in range(0, min(faces, len(table.files)), 50):
        part = range(start, min(start + 50, faces, len(table.files)))
        crops, images = [], []
        for index, box in zip(part, boxes(table.box[part], shift, scale), strict=True):
            picture = read_image(source / table.files[index].partition("#")[0])
            crops.append(crop_box(box, protocol, picture.shape[1], picture.shape[0]))
            images.append(cut(picture, crops[-1], size, net.input_margin, protocol.border))
        landmarks = predict(torch.from_numpy(np.stack(images))).landmarks.double().numpy()
        found.append(to_image(landmarks, np.stack(crops)))
    found = np.concatenate(found)
    truth = table.landmarks[:len(found)]
    norms = metric.norms(truth, layout, "interocular", table.box[:len(found)])
    return float(np.nanmean(metric.nme(metric.point_errors(found, truth), norms)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("nets", nargs="*", metavar="NET", help=f"all unless named: {', '.join(NETS)}")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--input-size", type=int, default=64)
    parser.add_argument("--faces", type=int, default=400)
    given = parser.parse_args()
    if unknown := set(given.nets) - set(NETS):
        sys.exit(f"no net {', '.join(unknown)} (there are: {', '.join(NETS)})")
    found = {}
    for name in given.nets or NETS:
        net, layout, stored = run.unpack(train(name, given.epochs, given.input_size) / "best.pt")
        folder, protocol = ROOT / "data" / "synthetic", Protocol(**stored["protocol"])
        cases = {f"shift {shift:g}": (shift, 1.0) for shift in SHIFTS} | {f"scale {scale:g}": (0.0, scale) for scale in SCALES}
        found[name] = {"flags": " ".join(NETS[name]), "epochs": given.epochs * PATIENCE.get(name, 1), "nme": {
            case: round(errors(net, layout, protocol, folder, *how, given.faces), 3) for case, how in cases.items()}}
        print(name, found[name]["nme"], flush=True)
    save("box_shift", "python benchmarks/box_shift.py " + " ".join(sys.argv[1:]), 0, {
        "faces": given.faces, "input_size": given.input_size, "rows": found})


if __name__ == "__main__":
    main()
