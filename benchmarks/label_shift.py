"""By how many px labels lie to the right of what they mark: `python benchmarks/label_shift.py RUN SET [SET ...]`.

RUN is a .pt, best of a net that has never seen these labels, such as runs.py's synthetic_to_real; SET are prepared sets below
data/. A net whose training mirrors pictures knows no right and left: on average it puts landmarks in the middle, whatever labels
it was taught. So the mean distance of labels to the right of where it finds them is a habit of the labels. It is given for each
part of the training faces, and for the smaller and larger half of these: px that stay the same there are no share of the face.
"""
import sys
from pathlib import Path

import numpy as np
import torch
from record import ROOT, save

from pipnet.errors import UserError
from utils.data.dataset import Faces
from utils.test.evaluate import evaluate, torch_predictor
from utils.train import run_folder as run

MOST, WORST = 1500, 12.0  # faces of a set; NME in % from which a face is left out


def measure(net, layout, folder: Path) -> list[dict]:
    """A row for each part of a set's training faces."""
    faces = Faces([(folder, "train")], layout, net.spec["input_size"], 0, input_margin=net.input_margin)
    faces = faces.only(np.unique(np.linspace(0, len(faces) - 1, MOST).astype(int)))
    result = evaluate(torch_predictor(net, torch.device("cpu")), faces, layout, "interocular", 64)
    right = np.nanmean(faces.landmarks[..., 0] - result.landmarks[..., 0], 1)
    side, parts = faces.box[:, 2] - faces.box[:, 0], np.array(faces.subsets)
    rows = []
    for part in dict.fromkeys(faces.subsets):
        here = (parts == part) & (result.nme < WORST) & np.isfinite(right)
        small = here & (side < np.median(side[here]))
        rows.append({"set": folder.name, "part": part, "faces": int(here.sum()), "width_px": round(float(np.median(side[here]))),
                     "right_px": round(float(right[here].mean()), 3),
                     "error_px": round(float(right[here].std() / here.sum() ** 0.5), 3),
                     **{f"{name}_px": round(float(right[some].mean()), 3) for name, some in
                        (("small_faces", small), ("large_faces", here & ~small))}})
    return rows


def main(file: str, *sets: str) -> None:
    net, layout, _ = run.unpack(Path(file))
    rows = [row for name in sets for row in measure(net, layout, ROOT / "data" / name)]
    save("label_shift", " ".join(["python benchmarks/label_shift.py", file, *sets]), 0, {"rows": rows})


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit("usage: python benchmarks/label_shift.py RUN SET [SET ...]")
    try:
        main(*sys.argv[1:])
    except UserError as error:
        sys.exit(f"error: {error}")
