"""--audit: finds doubtful labels by cross-validation: each face is predicted by a net that was not trained on it."""

import warnings
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np

from extras.tools import label_check
from extras.tools.settings import ToolSettings
from extras.tools.suspects import write_suspects
from pipnet.errors import UserError
from pipnet.layout import Layout
from utils.data.faces import Faces
from utils.data.prepared_set import load_splits, name_hash
from utils.evaluate import metric
from utils.evaluate.evaluate import evaluate, face_norms, torch_predictor
from utils.evaluate.tables import markdown_table
from utils.settings.csv_files import write_csv
from utils.task.experiment import landmark_experiment
from utils.task.job import Figures, Job
from utils.train import checkpoint
from utils.train.history import resumable
from utils.train.loop import train
from utils.train.run_folder import Run

DRAWN = 256  # px: crops that pictures are made of
ROUGH = 10.0  # % of the norm, median disagreement from which on the nets tell no offset of the labels
KEYS = ["set", "layout", "file"]


def audit(job: Job) -> Figures:
    """Train a net without each fold. Write to EXP/audit how its predictions for this fold differ from the labels."""
    task_data, ranks, run = replace(job.task_data, tested=[]), job.ranks, job.run
    layout = task_data.layout
    assert run
    settings, splits = task_data.settings, task_data.splits("train", "val")
    test, folds = settings.test, settings.room(ToolSettings).folds
    faces = task_data.crops(splits)
    truth = faces["landmarks"]
    fold, found = fold_of(faces["identity"], folds, settings.train.seed), np.empty_like(truth)
    face_norms(faces, layout, test.norm)
    for number, one in enumerate(fold_runs(run, folds)):
        if one.epochs < settings.train.epochs:
            train(landmark_experiment(task_data, ranks, apart=fold == number), one, ranks, one.last.is_file())
        else:  # its labels may have been corrected since
            resumable(one, {"layout": layout.to_dict(), "data": task_data.learnt_from()}, task_data.sets.root)
        held, predict = np.flatnonzero(fold == number), torch_predictor(checkpoint.unpack(one.last)[0], ranks.device)
        found[held] = evaluate(predict, faces.only(held), layout, test.norm, ranks=ranks).landmarks
    if ranks.first:
        text = write_audit(run.folder / "audit", load_splits(splits, layout, DRAWN, 0), found, fold, layout, test.norm)
        if settings.augment.flip > 0 and not any(task_data.label_shifts()):
            # nets trained on mirrored faces have no offset to one side, so an offset comes from the labels
            right = np.nanmedian(truth[..., 0] - found[..., 0])
            if (apart := np.nanmedian(disagreement(found, faces, layout, test.norm))) < ROUGH:
                text += f"\nLabels lie {right:+.2f} px right of the predictions: the value for --label-shift"
            else:
                text += (
                    f"\nThe nets are too inaccurate to tell an offset of the labels (median disagreement {apart:.0f} %)"
                )
        folder = run.folder / "audit"
        print(
            f"\n{text}\n\nFiles: {folder} (labels.csv: worst face first; faces.jpg: the worst, with a line from a label to its "
            "prediction)\nNext:  look at the pictures; then correct the labels, or leave out the faces"
        )
    return job.figures("audit")


def fold_of(identities: Iterable[str], folds: int, seed: int) -> np.ndarray:
    """Return the fold (M,) of each face. All faces of an identity are in one fold.

    Identities are taken in the order of a hash, and each goes to the fold that has the fewest faces so far.
    """
    faces = Counter(identities)
    if len(faces) < folds:
        raise UserError(f"{len(faces)} identities cannot be divided into {folds} folds; lower --folds")
    size, fold = np.zeros(folds, int), {}
    for name in sorted(faces, key=lambda name: name_hash(f"{seed}/fold/{name}")):
        fold[name] = int(size.argmin())
        size[fold[name]] += faces[name]
    return np.array([fold[name] for name in identities])


def fold_runs(run: Run, folds: int) -> list[Run]:
    """Return the runs in the audit's folder, one without each fold.

    Their last epoch is used, so that no label selects an epoch.
    """
    folders = [run.folder / f"fold{number}" for number in range(folds)]
    return [Run(folder, folder / "last.pt") for folder in folders]


def disagreement(found: np.ndarray, faces: Faces, layout: Layout, norm: str) -> np.ndarray:
    """Return distances (M, N) of predictions `found` (M, N, 2), image px, from the labels, in % of the norm; NaN if
    unknown.
    """
    return 100 * metric.point_errors(found, faces["landmarks"]) / face_norms(faces, layout, norm)[:, None]


def write_audit(folder: Path, faces: Faces, found: np.ndarray, fold: np.ndarray, layout: Layout, norm: str) -> str:
    """Write labels.csv, errors.csv and faces.jpg to `folder`. Return the summary as text.

    faces: all faces, each held out once, with crops of DRAWN px; found (M, N, 2) in px of the source images; fold (M,).
    """
    folder.mkdir(exist_ok=True)
    errors, columns = disagreement(found, faces, layout, norm), faces.read("set", "file", "subset", "identity")
    rows = (
        [mark, layout.stored, file, *(f"{value:.4f}" for value in row)]
        for mark, file, row in zip(columns["set"], columns["file"], errors, strict=True)
    )
    write_csv(folder / "errors.csv", [*KEYS, *map(str, layout.selected)], rows)
    findings = label_check.examine(faces["landmarks"], found, layout, columns["file"])
    with warnings.catch_warnings(action="ignore", category=RuntimeWarning):  # for a face without a label
        nme = [f"{value:.3f}" for value in np.nanmean(errors, 1)]
    more = {"nme": nme, "subset": columns["subset"], "identity": columns["identity"], "fold": fold.tolist()}
    text = write_suspects(folder / "labels.csv", folder / "faces.jpg", faces, findings, layout, found, more)
    return f"{disagreement_table(errors, layout, norm)}\n\n{text}"


def disagreement_table(errors: np.ndarray, layout: Layout, norm: str) -> str:
    """Return a table of the disagreements (M, N) in % by group of landmarks."""
    groups = {"all": list(range(layout.count)), **{name: list(ids) for name, ids in layout.groups.items()}}
    rows = []
    for name, ids in groups.items():
        values = errors[:, ids][np.isfinite(errors[:, ids])]
        if len(values):
            rows.append([name, f"{len(values)}", *(f"{np.percentile(values, at):.2f}" for at in (50, 90, 99))])
    table = markdown_table(rows, ["group", "labels", "median %", "90th %", "99th %"])
    return f"{table}\n\nDisagreement of labels and nets in % of the {norm} norm"
