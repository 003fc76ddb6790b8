"""Label noise of a set, and whether training gains from weighing disputed labels less: `python benchmarks/label_noise.py`.

An audit (main.py --audit), and the same audit with the weights that the first one wrote: each fold's net is trained twice, on the
same faces in the same order, once on all labels alike and once on weighed ones. All nets are compared on the validation faces,
which none of them has seen: by all labels, and without the labels that the mean of all nets, of both kinds, disputes.
Errors that are planted into the training labels tell what an audit at this level of noise would find.
FACES68 names the raw folder (images with 68-point .pts in train/ and test/), else data/faces68 is taken where it is prepared.
Flags go on to main.py: --resume after an interruption, --data-root, --run-root, --epochs, ...
"""
import copy
import subprocess
import sys
from collections import Counter

import numpy as np
import torch
from record import ROOT, rows, save
from runs import FACES
from utils.data.label_weights import DISPUTED, weigh

from pipnet.geometry import to_crop, to_image
from utils.config import DEFAULT_FILE, parse, read_yaml, resolve
from utils.data import sets
from utils.data.dataset import Faces
from utils.test.evaluate import evaluate, torch_predictor
from utils.test.metric import nme
from utils.tools import audit
from utils.train import run_folder as run

SET = ROOT / FACES["FACES68"]
RECIPE = ["--preset", "quick", "--input-size", "96", "--epochs", "8", "--rotation", "15", "--occlusion", "0.25"]
JUDGED = "box"  # norm of the disagreement: the eyes of a turned face are close together, which would make it look wrong
PLAIN, WEIGHED = "bench_label_noise", "bench_label_noise_weighed"


def judge(exp: str, *flags: str) -> None:
    """main.py --audit in its own experiment."""
    command = [sys.executable, "main.py", "--audit", *RECIPE, "--norm", JUDGED, *flags, "--exp", exp]
    done = subprocess.run(command if "--resume" in flags else [*command, "--overwrite"], cwd=ROOT)
    if done.returncode:
        sys.exit(f"{exp} failed with status {done.returncode}")


def validate(folders: list[run.Run], faces: Faces, layout, args) -> list[np.ndarray]:
    """Predictions (M, N, 2) in image px of each net."""
    nets = [run.unpack(one.last)[0] for one in folders]
    return [evaluate(torch_predictor(net, torch.device("cpu")), faces, layout, JUDGED, args.test_batch_size).landmarks
            for net in nets]


def held_out(nets: list[run.Run], faces: Faces, layout, args) -> np.ndarray:
    """(M, N, 2) in image px: what is said of each training face by the net that has not seen it."""
    fold, found = audit.fold_of(faces.identities, args.folds, args.seed), np.empty_like(faces.landmarks)
    for number, one in enumerate(nets):
        found[fold == number] = validate([one], faces.only(np.flatnonzero(fold == number)), layout, args)[0]
    return found


def planted(faces: Faces, found: np.ndarray, layout) -> dict:
    """2 % of the faces for each kind of planted error: the share of its labels that are disputed, their mean weight, and the
    share of its faces among the worst (as many as are planted), by the mean over the face or by its worst landmark."""
    rng = np.random.default_rng(0)
    each = max(len(faces) // 50, 1)
    chosen = rng.permutation(len(faces))[:4 * each].reshape(4, each)
    wrong = copy.copy(faces)
    wrong.landmarks = labels = faces.landmarks.copy()
    side = np.sqrt((faces.box[:, 2:] - faces.box[:, :2]).prod(1))
    angle = rng.uniform(0, 2 * np.pi, len(faces))
    step = np.column_stack([np.cos(angle), np.sin(angle)]) * side[:, None]
    eyes = [i for part in ("eye_left", "eye_right") for i in layout.groups[part]]
    single = rng.integers(layout.count, size=each)
    labels[chosen[0]] += 0.1 * step[chosen[0], None]
    others = np.roll(chosen[1], 1)
    labels[chosen[1]] = to_image(to_crop(faces.landmarks[others], faces.box[others]), faces.box[chosen[1]])
    labels[chosen[2][:, None], eyes] = labels[chosen[2][:, None], eyes[len(eyes) // 2:] + eyes[:len(eyes) // 2]]
    labels[chosen[3], single] += 0.15 * step[chosen[3]]
    relative, weight = weigh(audit.disagreement(found, wrong, layout, JUDGED))
    ranks = [(-values).argsort().argsort() for values in (np.nanmean(relative, 1), np.nanmax(relative, 1))]
    touched = {"shifted by 10 % of the box": (chosen[0][:, None], range(layout.count)),
               "label of another face in this one's box": (chosen[1][:, None], range(layout.count)),
               "eyes exchanged": (chosen[2][:, None], eyes), "one landmark moved by 15 % of the box": (chosen[3], single)}
    return {kind: {"faces": each, "disputed_%": round(100 * float((weight[place] < DISPUTED).mean()), 1),
                   "mean_weight": round(float(weight[place].mean()), 3),
                   "among_the_worst_%": [round(100 * float((rank[rows] < chosen.size).mean()), 1) for rank in ranks]}
            for (kind, place), rows in zip(touched.items(), chosen, strict=True)}


def main(flags: list[str]) -> None:
    resume = ["--resume"] if "--resume" in flags else []
    flags = [flag for flag in flags if flag != "--resume"]
    source = str(SET) if SET.is_dir() and "--data-root" not in flags else "faces68"
    _, given = parse([*RECIPE, *flags], lambda parser: None)
    args = resolve(given, read_yaml(DEFAULT_FILE), "quick")
    runs = {exp: ROOT / args.run_root / exp for exp in (PLAIN, WEIGHED)}
    judge(PLAIN, "--train-data", source, *flags, *resume)
    weights = runs[PLAIN] / "audit" / "weights.csv"
    again = resume if (runs[WEIGHED] / "fold0" / "last.pt").is_file() else []
    judge(WEIGHED, "--train-data", source, "--label-weights", str(weights), *flags, *again)

    kinds = {exp: audit.fold_runs(run.Run(folder, folder), args.folds) for exp, folder in runs.items()}
    layout = run.unpack(kinds[PLAIN][0].last)[1]
    folder = sets.prepare(source, args)
    faces = Faces([(folder, "val")], layout, args.input_size, 1.0)
    found = {exp: validate(nets, faces, layout, args) for exp, nets in kinds.items()}
    everyone = np.mean([each for kind in found.values() for each in kind], 0)
    disputed = weigh(audit.disagreement(everyone, faces, layout, JUDGED))[1] < DISPUTED
    figures = {}
    for exp, predictions in found.items():
        errors = [audit.disagreement(each, faces, layout, "interocular") for each in predictions]
        figures[exp] = {"nme": [round(float(np.nanmean(each)), 3) for each in errors],
                        "undisputed_nme": [round(float(np.nanmean(nme(np.where(disputed, np.nan, each) / 100,
                                                                      np.ones(len(each))))), 3) for each in errors],
                        "median": [round(float(np.nanmedian(each)), 3) for each in errors]}
    trained = Faces([(folder, "train")], layout, args.input_size, 0)
    found_planted = planted(trained, held_out(kinds[PLAIN], trained, layout, args), layout)
    worst = rows(runs[PLAIN] / "audit" / "labels.csv")
    weight = np.array([list(row.values())[2:] for row in rows(weights)], float)
    parts = {part: round(100 * float((weight[:, list(ids)] < DISPUTED).mean()), 2) for part, ids in layout.groups.items()}
    save("label_noise", " ".join(["python benchmarks/label_noise.py", *flags]), 0, {
        "recipe": " ".join(RECIPE), "folds": args.folds, "training_faces": len(weight), "validation_faces": len(faces),
        "median_disagreement_box_%": float(np.median([float(row["nme"]) for row in worst])),
        "disputed_labels_%": round(100 * float((weight < DISPUTED).mean()), 2), "disputed_by_part_%": parts,
        "disputed_faces": int((weight.mean(1) < DISPUTED).sum()),
        "disputed_validation_labels_%": round(100 * float(disputed.mean()), 2),
        "planted": found_planted, "plain": figures[PLAIN], "weighed": figures[WEIGHED],
        "worst_faces": [{key: row[key] for key in ("file", "nme", "relative", "weight")} for row in worst[:20]],
        "worst_identities": Counter(row["identity"] for row in worst[:100]).most_common(8)})


if __name__ == "__main__":
    if not SET.is_dir() and not (ROOT / "data" / "faces68" / "meta.yaml").is_file() and "--data-root" not in sys.argv:
        sys.exit(f"skipped: no {SET}")
    main(sys.argv[1:])
