"""Labels whose noise is halved: `python weights/making/make.py steady_labels OUT [NET.pt]`.

People who label a landmark twice do not hit the same point twice. The shipped net `landmarks`, unless another one is
named, finds the landmarks of each training face in eight crops: in four boxes, and in the mirror image of each. Its
error in a training face is as large as in a test face, so it has not learnt the noise. OUT/300w and OUT/faces68 are
copies of the training faces of 300W and of LIDS/faces68 whose labels lie half way between the label and the mean of
these eight. Faces that main.py validates on keep their labels. (Liu et al., "Semantic Alignment", CVPR 2019, estimate
the points behind the labels during the training.)
"""

import shutil
from pathlib import Path

import numpy as np
import torch
from photographs import named, require, run
from record import ROOT

from extras.shared.pts import write_pts
from pipnet.errors import UserError
from utils.data.faces import Faces
from utils.data.prepared_set import PreparedSet, Split, load_splits
from utils.evaluate.boxes import reboxed
from utils.evaluate.evaluate import comparison_of, evaluate, torch_predictor
from utils.settings.config import read_defaults
from utils.train import checkpoint

SETS = {"300w": "300W", "faces68": "LIDS/faces68"}  # {folder of OUT: the set that it is a copy of}
DATA = ROOT / "data" / "steady"  # prepared sets of the labels as they are
BOXES, APART = 4, 0.06  # a box is moved by up to this share of its sides and resized by up to this share
SHARE = 0.5  # of the way from the label to what the net finds


def found(net: Path, prepared: PreparedSet) -> tuple[Faces, np.ndarray]:
    """Return the training faces and the landmarks (M, N, 2) that the net finds in them, in px of the source image.

    If the net has learnt several layouts, these are the landmarks of the set's own one.
    """
    model, layout, _ = checkpoint.unpack(net)
    way = comparison_of(layout, prepared.labelled, prepared.layouts)
    if not way:
        raise UserError(f"no rule relates the layout of {net} to that of {prepared.folder}")
    faces = load_splits([Split(prepared, "train")], way.layout, model.spec["input_size"], 0)
    predict, rng, results = way(torch_predictor(model, torch.device("cpu"))), np.random.default_rng(0), []
    centre, half = (
        (faces["box"][:, :2] + faces["box"][:, 2:]) / 2,
        (faces["box"][:, 2:] - faces["box"][:, :2]) / 2,
    )
    for number in range(BOXES):
        move, size = (rng.uniform(-APART, APART, (len(faces), count)) * (number > 0) for count in (2, 1))
        middle, reach = centre + 2 * half * move, half * (1 + size)
        view = reboxed(faces, np.concatenate([middle - reach, middle + reach], 1), 0)
        results.append(evaluate(predict, view, way.layout, "interocular", 64, flip_test=True).landmarks)
    return faces, np.mean(results, 0)


def main(folder: str, net: str = "weights/landmarks.pt") -> None:
    """Write both sets, and say how far the labels were moved."""
    require("300W", "LIDS")
    torch.set_num_threads(1)
    out = ROOT / folder
    for name, word in SETS.items():
        run(
            "--prepare",
            "--dataset",
            word,
            "--allow-partial",
            "--data-root",
            str(DATA),
            "--margin",
            "1.45",
            "--target-size",
            "224",
        )
        source = Path(named([word])[0])
        prepared = PreparedSet(next(DATA.glob(f"{source.name}-*")), read_defaults().layouts)
        shutil.copytree(source, out / name)
        faces, landmarks = found(ROOT / net, prepared)
        moved = SHARE * (landmarks - faces["landmarks"])
        for file, points in zip(faces["file"], faces["landmarks"] + moved, strict=True):
            write_pts((out / name / file).with_suffix(".pts"), points - 0.5 + prepared.meta["origin"])
        sides = np.sqrt(np.prod(faces["box"][:, 2:] - faces["box"][:, :2], 1))
        apart = 100 * np.nanmean(np.linalg.norm(moved, axis=-1) / sides[:, None])
        print(f"{name}: labels of {len(faces)} faces moved by {apart:.2f} % of the face's box")
