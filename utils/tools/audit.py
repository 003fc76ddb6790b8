"""Cross-validated label noise: what nets say of faces that they have not seen, held against the labels of these."""
import hashlib
import shutil
from collections import Counter
from pathlib import Path

import numpy as np

from pipnet.draw import WHITE, line, ring, sheet, tile
from pipnet.errors import UserError
from pipnet.geometry import cut, to_crop
from pipnet.images import write_image
from pipnet.layout import Layout
from utils.data import label_weights
from utils.data.dataset import Faces
from utils.data.label_weights import DISPUTED
from utils.test import metric
from utils.test.evaluate import face_norms
from utils.test.report import FOUND, TRUTH, table, write_csv
from utils.train import run_folder as run

DRAWN, TILE = 256, 288  # px: crops that pictures are made of, and a face in them
COLUMNS = ["file", "subset", "identity", "fold", "nme", "relative", "disputed", "weight", "worst_landmark", "worst_part",
           "worst_error", "worst_relative"]


def fold_runs(here: run.Run, folds: int) -> list[run.Run]:
    """The ordinary runs in the audit's folder, each trained without one fold."""
    folders = [here.folder / f"fold{number}" for number in range(folds)]
    return [run.Run(folder, folder / "last.pt") for folder in folders]  # the last epoch: nothing is picked on the held-out labels


def clear(here: run.Run) -> None:
    """Removes what an earlier audit left."""
    for folder in here.folder.glob("fold[0-9]*"):
        run.clear(run.Run(folder, folder / "last.pt"))
        if not any(folder.iterdir()):
            folder.rmdir()
    shutil.rmtree(here.folder / "audit", ignore_errors=True)


def check(here: run.Run, early_stop: int, teacher: str | None) -> None:
    """An audit is a run of its own, and every net of it trains to the end. UserError otherwise."""
    if here.last.is_file() or (here.folder / "best.pt").is_file():
        raise UserError(f"{here.folder} holds a trained net; an audit wants a folder of its own: another --exp")
    if early_stop:
        raise UserError("--early-stop would pick an epoch on the labels that are judged; leave it out of --audit")
    if teacher:
        raise UserError("a --teacher may have seen the labels that are judged; leave it out of --audit")


def fold_of(identities: list[str], folds: int, seed: int) -> np.ndarray:
    """(M,) fold of each face: whole identities, in the order of a hash, each into the fold that is smallest so far."""
    faces = Counter(identities)
    if len(faces) < folds:
        raise UserError(f"{len(faces)} identities cannot be divided into {folds} folds; lower --folds")
    size, fold = np.zeros(folds, int), {}
    for name in sorted(faces, key=lambda name: hashlib.sha256(f"{seed}/fold/{name}".encode(errors="surrogateescape")).digest()):
        fold[name] = int(size.argmin())
        size[fold[name]] += faces[name]
    return np.array([fold[name] for name in identities])


def divide(faces: Faces, folds: int, seed: int, number: int) -> tuple[Faces, Faces]:
    """(faces to train, faces of fold `number`, which is held out)."""
    held = fold_of(faces.identities, folds, seed) == number
    return faces.only(np.flatnonzero(~held)), faces.only(np.flatnonzero(held))


def disagreement(found: np.ndarray, faces: Faces, layout: Layout, norm: str) -> np.ndarray:
    """(M, N) distance of predictions `found` (M, N, 2) in image px from the labels in % of the face's norm, NaN without."""
    return 100 * metric.point_errors(found, faces.landmarks) / face_norms(faces, layout, norm)[:, None]


def write(folder: Path, faces: Faces, found: np.ndarray, fold: np.ndarray, layout: Layout, norm: str,
          mirrored: bool = True) -> str:
    """labels.csv, errors.csv, weights.csv, faces.jpg and landmarks.jpg in `folder`; the summary as text.

    faces: all that were held out once, with crops of DRAWN px; found (M, N, 2) in px of the source images; fold (M,). mirrored:
    the nets know no right and left, so that they tell how far the labels lie to the right.
    """
    folder.mkdir(exist_ok=True)
    errors = disagreement(found, faces, layout, norm)
    relative, weight = label_weights.weigh(errors)
    for name, values in (("errors.csv", errors), ("weights.csv", weight)):
        cells = ([f"{value:.4f}" for value in row] for row in values)
        write_csv(folder / name, [*label_weights.KEYS, *map(str, layout.selected)],
                  ([mark, layout.stored, file, *row] for mark, file, row in zip(faces.sets, faces.names, cells, strict=True)))
    known = np.isfinite(errors).any(1)
    mean = np.full(len(faces), np.nan)
    mean[known] = np.nanmean(relative[known], 1)
    order = np.argsort(-np.nan_to_num(mean, nan=-1), kind="stable")
    part_of = {index: part for part, ids in layout.groups.items() for index in ids}
    rows = []
    for i in order:
        worst = int(np.nan_to_num(relative[i], nan=-1).argmax())
        nme = np.nanmean(errors[i]) if known[i] else np.nan
        rows.append([faces.names[i], faces.subsets[i], faces.identities[i], int(fold[i]), f"{nme:.3f}", f"{mean[i]:.2f}",
                     int((weight[i] < DISPUTED).sum()), f"{weight[i].mean():.4f}", layout.selected[worst], part_of.get(worst, ""),
                     f"{errors[i, worst]:.2f}", f"{relative[i, worst]:.2f}"])
    write_csv(folder / "labels.csv", COLUMNS, rows)
    _face_sheet(folder / "faces.jpg", faces, found, mean, order[known[order]][:20], layout)
    _landmark_sheet(folder / "landmarks.jpg", faces, found, relative, weight, layout)
    text, right = summary(errors, weight, layout, norm), np.nanmedian(faces.landmarks[..., 0] - found[..., 0])
    habit = f"\nLabels lie {right:+.2f} px to the right of where the nets put them: what --label-shift wants"
    return text + habit * mirrored


def summary(errors: np.ndarray, weight: np.ndarray, layout: Layout, norm: str) -> str:
    """What the disagreements (M, N) in % say, as a table of the parts and a line."""
    def row(name: str, ids: list[int]) -> list[str]:
        values = errors[:, ids][np.isfinite(errors[:, ids])]
        share = 100 * np.mean(weight[:, ids][np.isfinite(errors[:, ids])] < DISPUTED)
        return [name, f"{len(values)}", *(f"{np.percentile(values, at):.2f}" for at in (50, 90, 99)), f"{share:.2f}"]

    parts = {"all": list(range(layout.count)), **{name: list(ids) for name, ids in layout.groups.items()}}
    rows = [row(name, ids) for name, ids in parts.items() if np.isfinite(errors[:, ids]).any()]
    faces, some = (weight.mean(1) < DISPUTED).sum(), (weight < DISPUTED).any(1).sum()
    header = ["part", "labels", "median %", "90th %", "99th %", "disputed %"]
    return (f"{table(rows, header)}\n\n{faces} of {len(weight)} faces are disputed as a whole, {some} in at least one landmark "
            f"(disagreement in % of the {norm} norm; disputed: weight below {DISPUTED})")


def closing(here: run.Run) -> str:
    """Where the files lie and what to do with them."""
    folder = here.folder / "audit"
    return (f"Files: {folder} (labels.csv: worst face first; faces.jpg, landmarks.jpg: the worst, label green, net red)\n"
            f"Next:  look at the pictures; then correct the labels, or train with --label-weights {folder / 'weights.csv'}")


def _face_sheet(file: Path, faces: Faces, found: np.ndarray, mean: np.ndarray, chosen, layout: Layout) -> None:
    """The faces `chosen`: label green, prediction red; below, relative error and file."""
    tiles = []
    for i in chosen:
        drawn = [(faces.nominal[i], TRUTH), (to_crop(found[i], faces.crop[i]), FOUND)]
        tiles.append(tile(faces[i][0], drawn, layout, TILE, f"{mean[i]:.1f}x {Path(faces.names[i]).name}"))
    write_image(file, sheet(tiles, 5))


def _landmark_sheet(file: Path, faces: Faces, found: np.ndarray, relative: np.ndarray, weight: np.ndarray,
                    layout: Layout) -> None:
    """The worst landmark of each of 20 faces that are not disputed as a whole, close up; white: from label to prediction."""
    worst = np.where(np.isfinite(relative), relative, -1).argmax(1)
    value = np.nan_to_num(relative[np.arange(len(worst)), worst], nan=-1)
    whole = weight.mean(1) < DISPUTED
    order = [i for i in np.argsort(-np.where(whole, -1, value), kind="stable")[:20] if value[i] >= 0]
    tiles = []
    for i in order:
        pair = [faces.nominal[i], to_crop(found[i], faces.crop[i])]
        ends = np.array([points[worst[i]] for points in pair])
        reach = max(0.5, 1.6 * float(np.abs(ends[0] - ends[1]).max()))  # of the crop
        around = np.concatenate([ends.mean(0) - reach / 2, ends.mean(0) + reach / 2])
        close = cut(faces.picture(i), around * faces.size + faces.border, TILE)
        image = tile(close, [(to_crop(points, around), colour) for points, colour in zip(pair, (TRUTH, FOUND), strict=True)],
                     layout, TILE, f"{layout.selected[worst[i]]}: {value[i]:.0f}x {Path(faces.names[i]).name}")
        label, prediction = to_crop(ends, around) * TILE
        line(image, label, prediction, WHITE)
        ring(image, label, WHITE, 6)
        tiles.append(image)
    if tiles:
        write_image(file, sheet(tiles, 5))
