"""--audit: finds doubtful labels by cross-validation: each face is predicted by a net that was not trained on it."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np

from extras.tools.settings import ToolSettings
from pipnet.draw import FOUND, TRUTH, WHITE, draw_circle, draw_line, sheet, tile
from pipnet.errors import UserError
from pipnet.files import write_csv
from pipnet.geometry import cut, to_crop
from pipnet.images import write_image
from pipnet.layout import Layout
from utils.data.faces import Faces
from utils.data.prepared_set import load_splits, name_hash
from utils.evaluate import metric
from utils.evaluate.evaluate import evaluate, face_norms, torch_predictor
from utils.evaluate.tables import markdown_table
from utils.settings.config import Settings
from utils.task.experiment import landmark_experiment
from utils.task.task_data import TaskData
from utils.train import checkpoint
from utils.train.history import resumable
from utils.train.loop import train
from utils.train.ranks import Ranks
from utils.train.run_folder import Run

DRAWN, TILE = 256, 288  # px: crops that pictures are made of, and a face in them
LIMIT = (
    3.0  # labels are trusted up to so many typical errors of a landmark and deviations of a face; 1 of 500 exceeds it
)
LEAST_DEVIATION = 0.1  # of the logarithm of the faces' errors; equal noise in 68 landmarks gives this value
DISPUTED = 0.5  # weight below which a label counts as disputed
ROUGH = 10.0  # % of the norm, median disagreement from which on the nets tell no offset of the labels
KEYS = ["set", "layout", "file"]
# fmt: off
COLUMNS = ["file", "subset", "identity", "fold", "nme", "relative", "disputed", "weight", "worst_landmark", "worst_group",
           "worst_error", "worst_relative"]
# fmt: on


def audit(task_data: TaskData, ranks: Ranks, run: Run) -> None:
    """Train a net without each fold. Write to EXP/audit how its predictions for this fold differ from the labels."""
    task_data, layout = replace(task_data, tested=[]), task_data.layout
    if layout.members:
        raise UserError(
            f"--audit compares the labels of one layout; leave out --layout {layout.name}, and audit the sets "
            "of each layout by themselves"
        )
    settings, splits = task_data.settings, task_data.splits("train", "val")
    test, folds = settings.test, settings.of(ToolSettings).folds
    faces = task_data.crops(splits)
    truth = faces["landmarks"][:]
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
            f"\n{text}\n\nFiles: {folder} (labels.csv: worst face first; faces.jpg, landmarks.jpg: the worst, label green, "
            "prediction red)\nNext:  look at the pictures; then correct the labels, or leave out the faces"
        )


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


def check_audit(settings: Settings) -> None:
    """Raise UserError if a setting would use the labels to be judged."""
    train = settings.train
    if settings.data.labelled_fraction < 1:
        raise UserError("--labelled-fraction hides labels that are to be judged; leave it out of --audit")
    if train.early_stop:
        raise UserError("--early-stop would pick an epoch on the labels that are judged; leave it out of --audit")
    if train.semi:
        raise UserError("--semi learns from further faces; leave it out of --audit")
    if train.teacher:
        raise UserError("a --teacher may have seen the labels that are judged; leave it out of --audit")


def disagreement(found: np.ndarray, faces: Faces, layout: Layout, norm: str) -> np.ndarray:
    """Return distances (M, N) of predictions `found` (M, N, 2), image px, from the labels, in % of the norm; NaN if
    unknown.
    """
    return 100 * metric.point_errors(found, faces["landmarks"][:]) / face_norms(faces, layout, norm)[:, None]


def weigh(errors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (relative (M, N), weight (M, N) in [0, 1]) of disagreements (M, N); NaN means no label, its weight is 1.

    relative: in units of the landmark's typical error, which is its median over all faces. weight: trust in the
    landmark times trust in the face, so that one wrong landmark does not affect the others. Trust in a landmark with
    relative error r: 1 up to LIMIT, then (LIMIT / r)^2, like Cauchy's weights, since these errors have a long tail.
    Trust in a face: the logarithm of its median r is about normal; at z robust standard deviations above the median it
    is exp((LIMIT^2 - z^2) / 2), 1 up to LIMIT.
    """
    relative = errors / np.maximum(_medians(errors.T), 1e-6)
    face = np.log(np.maximum(_medians(relative), 1e-6))
    middle = np.nanmedian(face) if np.isfinite(face).any() else 0.0
    away = np.abs(face - middle)[np.isfinite(face)]
    deviation = LEAST_DEVIATION
    if len(away):
        deviation = max(1.4826 * np.median(away), deviation)  # 1.4826: for a normal distribution
    beyond = np.maximum(np.nan_to_num((face - middle) / deviation), LIMIT)
    landmark = np.minimum(1.0, (LIMIT / np.maximum(np.nan_to_num(relative), LIMIT)) ** 2)
    weight = landmark * np.exp((LIMIT**2 - beyond**2) / 2)[:, None]
    return relative, np.where(np.isfinite(relative), weight, 1.0)


def _medians(values: np.ndarray) -> np.ndarray:
    """Return the median of the finite values in each row (M,), NaN if there are none."""
    return np.array([np.median(row[np.isfinite(row)]) if np.isfinite(row).any() else np.nan for row in values])


def write_audit(folder: Path, faces: Faces, found: np.ndarray, fold: np.ndarray, layout: Layout, norm: str) -> str:
    """Write labels.csv, errors.csv, weights.csv, faces.jpg and landmarks.jpg to `folder`. Return the summary as text.

    faces: all faces, each held out once, with crops of DRAWN px; found (M, N, 2) in px of the source images; fold (M,).
    """
    folder.mkdir(exist_ok=True)
    errors = disagreement(found, faces, layout, norm)
    relative, weight = weigh(errors)
    for name, values in (("errors.csv", errors), ("weights.csv", weight)):
        cells = ([f"{value:.4f}" for value in row] for row in values)
        write_csv(
            folder / name,
            [*KEYS, *map(str, layout.selected)],
            (
                [mark, layout.stored, file, *row]
                for mark, file, row in zip(faces["set"], faces["file"], cells, strict=True)
            ),
        )
    known = np.isfinite(errors).any(1)
    mean = np.full(len(faces), np.nan)
    mean[known] = np.nanmean(relative[known], 1)
    order = np.argsort(-np.nan_to_num(mean, nan=-1), kind="stable")
    group_of = {index: group for group, ids in layout.groups.items() for index in ids}
    rows = []
    for i in order:
        worst = int(np.nan_to_num(relative[i], nan=-1).argmax())
        nme = np.nanmean(errors[i]) if known[i] else np.nan
        rows.append(
            [
                *(faces[key][i] for key in ("file", "subset", "identity")),
                int(fold[i]),
                f"{nme:.3f}",
                f"{mean[i]:.2f}",
                int((weight[i] < DISPUTED).sum()),
                f"{weight[i].mean():.4f}",
                layout.selected[worst],
                group_of.get(worst, ""),
                f"{errors[i, worst]:.2f}",
                f"{relative[i, worst]:.2f}",
            ]
        )
    write_csv(folder / "labels.csv", COLUMNS, rows)
    tiles = [
        tile(
            faces.crops.plain(i, 0),
            [(faces.nominal(i), TRUTH), (to_crop(found[i], faces["crop"][i]), FOUND)],
            layout,
            TILE,
            f"{mean[i]:.1f}x {Path(faces['file'][i]).name}",
        )
        for i in order[known[order]][:20]
    ]
    write_image(folder / "faces.jpg", sheet(tiles, 5))
    _landmark_sheet(folder / "landmarks.jpg", faces, found, relative, weight, layout)
    return disagreement_table(errors, weight, layout, norm)


def disagreement_table(errors: np.ndarray, weight: np.ndarray, layout: Layout, norm: str) -> str:
    """Return a table of the disagreements (M, N) in % by group of landmarks, and a line on disputed labels."""

    def row(name: str, ids: list[int]) -> list[str]:
        values = errors[:, ids][np.isfinite(errors[:, ids])]
        share = 100 * np.mean(weight[:, ids][np.isfinite(errors[:, ids])] < DISPUTED)
        return [name, f"{len(values)}", *(f"{np.percentile(values, at):.2f}" for at in (50, 90, 99)), f"{share:.2f}"]

    groups = {"all": list(range(layout.count)), **{name: list(ids) for name, ids in layout.groups.items()}}
    rows = [row(name, ids) for name, ids in groups.items() if np.isfinite(errors[:, ids]).any()]
    faces, some = (weight.mean(1) < DISPUTED).sum(), (weight < DISPUTED).any(1).sum()
    header = ["group", "labels", "median %", "90th %", "99th %", "disputed %"]
    return (
        f"{markdown_table(rows, header)}\n\n{faces} of {len(weight)} faces are disputed as a whole, {some} in at least one "
        f"landmark (disagreement in % of the {norm} norm; disputed: weight below {DISPUTED})"
    )


def _landmark_sheet(
    file: Path, faces: Faces, found: np.ndarray, relative: np.ndarray, weight: np.ndarray, layout: Layout
) -> None:
    """Draw close-ups of the worst landmark of 20 faces that are not disputed as a whole; a white line joins label and
    prediction."""
    worst = np.where(np.isfinite(relative), relative, -1).argmax(1)
    value = np.nan_to_num(relative[np.arange(len(worst)), worst], nan=-1)
    whole = weight.mean(1) < DISPUTED
    order = [i for i in np.argsort(-np.where(whole, -1, value), kind="stable")[:20] if value[i] >= 0]
    tiles = []
    for i in order:
        pair = [faces.nominal(i), to_crop(found[i], faces["crop"][i])]
        ends = np.array([points[worst[i]] for points in pair])
        reach = max(0.5, 1.6 * float(np.abs(ends[0] - ends[1]).max()))  # of the crop
        around = np.concatenate([ends.mean(0) - reach / 2, ends.mean(0) + reach / 2])
        close = cut(faces.crops[i], around * faces.crops.size + faces.crops.border, TILE)
        image = tile(
            close,
            [(to_crop(points, around), colour) for points, colour in zip(pair, (TRUTH, FOUND), strict=True)],
            layout,
            TILE,
            f"{layout.selected[worst[i]]}: {value[i]:.0f}x {Path(faces['file'][i]).name}",
        )
        label, prediction = to_crop(ends, around) * TILE
        draw_line(image, label, prediction, WHITE)
        draw_circle(image, label, WHITE, 6)
        tiles.append(image)
    if tiles:
        write_image(file, sheet(tiles, 5))
