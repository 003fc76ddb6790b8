"""What a run shows: the closing table, a row a face, and sheets of its best, median and worst faces."""
import csv
import io
from pathlib import Path

import numpy as np

from pipnet.draw import sheet, tile, write_image
from pipnet.files import write_text
from pipnet.geometry import to_crop
from pipnet.layout import Layout
from utils import metric
from utils.dataset import Faces
from utils.evaluate import Result, subset_rows
from utils.plot import chart

TRUTH, FOUND = (80, 220, 80), (60, 60, 255)  # BGR


def table(rows: list[list[str]], header: list[str]) -> str:
    """Text columns, numbers to the right, Markdown that reads well in a terminal."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]

    def line(cells: list[str]) -> str:
        padded = [f"{cell: {'<' if i < 2 else '>'}{width}}" for i, (cell, width) in enumerate(zip(cells, widths, strict=True))]
        return f"| {' | '.join(padded)} |"

    rule = "|" + "|".join("-" * (width + 2) if i < 2 else "-" * (width + 1) + ":" for i, width in enumerate(widths)) + "|"
    return "\n".join([line(header), rule, *map(line, rows)])


def score_header(thresholds) -> list[str]:
    """Column names of `score_rows`."""
    figures = [text for threshold in thresholds for text in (f"FR@{threshold:g} %", f"AUC@{threshold:g}")]
    return ["test set", "model", "faces", "NME %", "crop NME %", *figures, "flicker %"]


def score_rows(name: str, model: str, result: Result, faces: Faces, thresholds) -> list[list[str]]:
    """One row for the whole set and one for each of its subsets."""
    rows = []
    for subset, mask in subset_rows(faces.subsets, faces.rank).items():
        scores = metric.summary(result.nme[mask], thresholds)
        count = f"{scores.faces}" + (f" (-{scores.left_out})" if scores.left_out else "")
        crop_nme = metric.summary(result.crop_nme[mask], ()).nme
        rows.append([name if subset == "full" else f"  {subset}", model, count, f"{scores.nme:.3f}", f"{crop_nme:.3f}",
                     *_figures(scores), f"{np.nanmean(moving):.3f}" if np.isfinite(moving := result.flicker[mask]).any() else ""])
    return rows


def without_empty(header: list[str], rows: list[list[str]]) -> tuple[list[str], list[list[str]]]:
    """Header and rows without the columns that no row has anything in."""
    used = [place for place in range(len(header)) if any(row[place] for row in rows)]
    return [header[place] for place in used], [[row[place] for place in used] for row in rows]


def _figures(scores: metric.Scores) -> list[str]:
    return [text for fr, area in zip(scores.fr, scores.auc, strict=True) for text in (f"{fr:.2f}", f"{area:.4f}")]


def part_header(thresholds) -> list[str]:
    """Column names of `part_rows`."""
    return ["test set", "model", "subset", "part", "NME %", *score_header(thresholds)[5:-1]]


def part_rows(name: str, model: str, result: Result, faces: Faces, thresholds) -> list[list[str]]:
    """One row for each part of the face in the whole set and in each of its subsets."""
    rows = []
    for subset, mask in subset_rows(faces.subsets, faces.rank).items():
        for part, values in result.parts.items():
            scores = metric.summary(values[mask], thresholds)
            rows.append([name, model, subset, part, f"{scores.nme:.3f}", *_figures(scores)])
    return rows


def part_table(rows: list[list[str]]) -> str:
    """NME of each part (columns) in each whole test set (rows), of `part_rows`."""
    whole = [row for row in rows if row[2] == "full"]
    parts = list(dict.fromkeys(row[3] for row in whole))
    models = list(dict.fromkeys((row[0], row[1]) for row in whole))
    found = {(row[0], row[1], row[3]): row[4] for row in whole}
    cells = [[*key, *(found.get((*key, part), "") for part in parts)] for key in models]
    return table(cells, ["NME % of parts", "model", *parts])


def write_csv(file: Path, header: list[str], rows) -> None:
    """A whole CSV file or the old one."""
    text = io.StringIO()
    csv.writer(text).writerows([header, *rows])
    write_text(file, text.getvalue())


def write_sheet(file: Path, faces: Faces, result: Result, layout: Layout, size: int = 224, each: int = 8) -> None:
    """The best, the median and the worst `each` faces, a row of the picture each: truth green, prediction red, NME below."""
    order = np.argsort(result.nme)
    order = order[np.isfinite(result.nme[order])]
    each = min(each, len(order))
    middle = max((len(order) - each) // 2, 0)
    chosen = [*order[:each], *order[middle:middle + each], *order[len(order) - each:]]
    if chosen:
        pairs = [((faces.nominal[i], TRUTH), (to_crop(result.landmarks[i], faces.crop[i]), FOUND)) for i in chosen]
        tiles = [tile(faces[i][0], pair, layout, size, f"{result.nme[i]:.2f} %") for i, pair in zip(chosen, pairs, strict=True)]
        write_image(file, sheet(tiles, each))


def write_test(folder: Path, name: str, faces: Faces, result: Result, layout: Layout) -> None:
    """The files of one tested set: faces_<name>.csv, faces_<name>.jpg and, of a net that expects errors, sigma_<name>.svg."""
    folder.mkdir(exist_ok=True)
    figures = (values.round(4) for values in (result.nme, result.crop_nme, result.score.mean(1)))
    write_csv(folder / f"faces_{name}.csv", ["file", "subset", "nme", "crop_nme", "score"],
              zip(faces.names, faces.subsets, *figures, strict=True))
    write_sheet(folder / f"faces_{name}.jpg", faces, result, layout)
    if result.sigma is not None:
        expected, found = reliability(result)
        write_text(folder / f"sigma_{name}.svg", chart({"landmarks, 20 groups of equal size": (expected, found)},
                                                       "expected error, px", "mean error, px", diagonal=True, dots=True))


def reliability(result: Result, groups: int = 20) -> tuple[np.ndarray, np.ndarray]:
    """Landmarks in `groups` of equal size by expected error: (mean expected error, mean error) of each, in px of the picture."""
    known = np.isfinite(result.errors)
    expected, found = result.sigma[known], result.errors[known]
    parts = np.array_split(np.argsort(expected, kind="stable"), groups)
    return tuple(np.array([values[part].mean() for part in parts if len(part)]) for values in (expected, found))


def closing(tables: str, how: str, run, root: Path, synthetic: list[bool], on_test: bool) -> str:
    """The last words of a run: the tables, how to take them, where the files lie, and what to try next."""
    def place(path: Path) -> str:
        return str(path.relative_to(root) if path.is_relative_to(root) else path)

    files = [path for path in (run.weights, run.onnx, run.folder / "step.csv", run.folder / "report") if path.exists()]
    lines = ["", tables, "", f"How:   {how}", "Files: " + ", ".join(map(place, files))]
    if on_test:
        lines += ["Note:  the epoch was picked on the test set (--val test), so these figures flatter the net"]
    if any(synthetic):
        lines += ["Note:  figures on synthetic faces say that everything works, not how good the net is on photographs"]
    if all(synthetic):
        lines += ["Next:  python main.py --train --test --dataset 300w --data-dir 300W   (own pictures: README, Your own data)"]
    else:
        lines += [f"Next:  look at the best, median and worst faces in {place(run.folder / 'report')};",
                  f"       tensorboard --logdir {place(run.folder)}"]
    return "\n".join(lines)
