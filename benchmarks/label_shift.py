"""How many px labels lie to the right of what they mark: `python benchmarks/label_shift.py RUN SET [SET ...]`.

RUN is the .pt of a net that has never seen these labels, such as synthetic_to_real of runs.py; SET are prepared sets in data/. A
net that is trained with mirrored pictures has no preference for right or left, so the mean distance of the labels to the right of
its landmarks is an offset of the labels. It is given for each subset of the training faces, and for its smaller and its larger
half: an offset that is the same px in both is no share of the face.
"""
import sys
from pathlib import Path

import numpy as np
import torch
from record import ROOT, save

from pipnet.errors import UserError
from utils.config import read_defaults
from utils.evaluate.evaluate import evaluate, torch_predictor
from utils.faces.prepared_set import PreparedSet, Split, load
from utils.train import checkpoint

MOST, WORST = 1500, 12.0  # faces of a set; NME in % from which a face is left out


def measure(net, layout, folder: Path) -> list[dict]:
    """Return a row for each subset of a set's training faces."""
    split = Split(PreparedSet(folder, read_defaults().layouts), "train")
    faces = load([split], layout, net.spec["input_size"], 0, input_margin=net.input_margin)
    faces = faces.only(np.unique(np.linspace(0, len(faces) - 1, MOST).astype(int)))
    result = evaluate(torch_predictor(net, torch.device("cpu")), faces, layout, "interocular", 64)
    right = np.nanmean(faces["landmarks"][:][..., 0] - result.landmarks[..., 0], 1)
    side, subsets = faces["box"][:][:, 2] - faces["box"][:][:, 0], np.array(faces["subset"])
    rows = []
    for subset in dict.fromkeys(faces["subset"]):
        used = (subsets == subset) & (result.nme < WORST) & np.isfinite(right)
        small = used & (side < np.median(side[used]))
        rows.append({"set": folder.name, "part": subset, "faces": int(used.sum()),
                     "width_px": round(float(np.median(side[used]))),
                     "right_px": round(float(right[used].mean()), 3),
                     "error_px": round(float(right[used].std() / used.sum() ** 0.5), 3),
                     "small_faces_px": round(float(right[small].mean()), 3),
                     "large_faces_px": round(float(right[used & ~small].mean()), 3)})
    return rows


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit("usage: python benchmarks/label_shift.py RUN SET [SET ...]")
    try:
        net, layout, _ = checkpoint.unpack(Path(sys.argv[1]))
        rows = [row for name in sys.argv[2:] for row in measure(net, layout, ROOT / "data" / name)]
    except UserError as error:
        sys.exit(f"error: {error}")
    save("label_shift", " ".join(["python benchmarks/label_shift.py", *sys.argv[1:]]), 0, {"rows": rows})
