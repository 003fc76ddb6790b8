"""The README's picture: synthetic test faces with what the net of `benchmarks/runs.py default` finds on them."""
import torch
from record import ROOT

from utils import report, run, sets
from utils.config import defaults
from utils.dataset import Faces, collate
from utils.evaluate import torch_predictor

ROWS, COLUMNS, SIZE = 3, 8, 144


def main() -> None:
    net, layout, _ = run.unpack(ROOT / "weights" / "bench_default" / "best.pt")
    faces = Faces([(sets.prepare(sets.SYNTHETIC, defaults()), "test")], layout, net.spec["input_size"], 1.0)
    chosen = range(0, len(faces), len(faces) // (ROWS * COLUMNS))[:ROWS * COLUMNS]
    found = torch_predictor(net, torch.device("cpu"))(collate([faces[i] for i in chosen]).images).landmarks.numpy()
    pairs = zip(chosen, found, strict=True)
    tiles = [report.tile(faces[i][0], [(landmarks, report.TRUTH)], layout, SIZE) for i, landmarks in pairs]
    report.write_image(ROOT / "assets" / "faces.jpg", report.sheet(tiles, COLUMNS))


if __name__ == "__main__":
    main()
