"""What a run shows: the closing table, a row a face, and sheets of its best, median and worst faces."""
import csv
import io
import warnings
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import yaml

from pipnet.app.pose import head_pose, pose_points
from pipnet.draw import sheet, tile, write_image
from pipnet.errors import UserError
from pipnet.files import write_text
from pipnet.geometry import to_crop
from pipnet.layout import Layout
from utils.config import read_yaml
from utils.data.dataset import Faces
from utils.data.parsers import DATASETS
from utils.data.prepared_set import load_meta
from utils.test import metric
from utils.test.evaluate import Result, subset_rows
from utils.test.plot import Style, chart

TRUTH, FOUND = (80, 220, 80), (60, 60, 255)  # BGR


class Compared(NamedTuple):
    """Figures of another run on a set of M faces, in %."""
    run: str
    nme: np.ndarray
    crop_nme: np.ndarray

    @property
    def flicker(self) -> np.ndarray:
        """Reports do not keep it."""
        return np.full(len(self.nme), np.nan)


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


def score_rows(name: str, model: str, result: Result, faces: Faces, thresholds, missed: int = 0) -> list[list[str]]:
    """One row for the whole set and one for each of its subsets; missed: faces that a detector has not found."""
    rows = []
    for subset, mask in subset_rows(faces.subsets, faces.rank).items():
        scores = metric.summary(result.nme[mask], thresholds)
        count = f"{scores.faces}" + (f" (-{scores.left_out})" if scores.left_out else "")
        count += f", {missed} missed" if missed and subset == "full" else ""
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


def norm_header(thresholds) -> list[str]:
    """Column names of `norm_rows`."""
    return ["test set", "model", "subset", "norm", "frame", "usual", "NME %", *score_header(thresholds)[5:-1]]


def norm_rows(name: str, model: str, result: Result, faces: Faces, layout: Layout, thresholds, usual=()) -> list[list[str]]:
    """One row for each norm that the layout has, in px of the picture and in the frame of the crop, where PIPNet measures.

    usual: the norms of published figures for this set.
    """
    inside = to_crop(result.landmarks, faces.crop), faces.nominal.astype(np.float64)
    unit = np.tile([0.0, 0.0, 1.0, 1.0], (len(faces), 1))
    frames = {"image": (result.errors, faces.landmarks, faces.box), "crop": (metric.point_errors(*inside), inside[1], unit)}
    rows = []
    for kind in metric.NORMS:
        for frame, (errors, truth, box) in frames.items():
            if layout.interocular is None and kind == "interocular" or layout.pupils is None and kind == "interpupil" \
                    or frame == "crop" and kind in ("diagonal", "size"):  # there these are those of the box
                continue
            values = metric.nme(errors, metric.norms(truth, layout, kind, box))
            for subset, mask in subset_rows(faces.subsets, faces.rank).items():
                scores = metric.summary(values[mask], thresholds)
                mark = "yes" if kind in usual else ""
                rows.append([name, model, subset, kind, frame, mark, f"{scores.nme:.3f}", *_figures(scores)])
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


def extremes(values: np.ndarray, each: int = 8) -> dict[str, np.ndarray]:
    """Indices of the best, the median and the worst `each` faces by their NME (M,)."""
    order = np.argsort(values)
    order = order[np.isfinite(values[order])]
    each = min(each, len(order))
    middle = max((len(order) - each) // 2, 0)
    return {"best": order[:each], "median": order[middle:middle + each], "worst": order[len(order) - each:]}


def shown_face(faces: Faces, result: Result, layout: Layout, index: int, size: int = 224) -> np.ndarray:
    """The crop of a face: truth green, prediction red, NME below."""
    pair = [(faces.nominal[index], TRUTH), (to_crop(result.landmarks[index], faces.crop[index]), FOUND)]
    return tile(faces.nominal_crop(index), pair, layout, size, f"{result.nme[index]:.2f} %")


def reliability(result: Result, groups: int = 20) -> tuple[np.ndarray, np.ndarray]:
    """Landmarks in `groups` of equal size by expected error: (mean expected error, mean error) of each, in px of the picture."""
    known = np.isfinite(result.errors)
    expected, found = result.sigma[known], result.errors[known]
    parts = np.array_split(np.argsort(expected, kind="stable"), groups)
    return tuple(np.array([values[part].mean() for part in parts if len(part)]) for values in (expected, found))


CONDITIONS = ("yaw", "size", "sharpness")


def conditions(faces: Faces, layout: Layout) -> dict[str, np.ndarray]:
    """What may make a face hard, (M,) each: yaw in degrees, NaN where unknown; size of the box in px, the root of its area;
    sharpness of the crop, the variance of its Laplacian in grey levels squared."""
    grey = (cv2.cvtColor(faces.nominal_crop(i), cv2.COLOR_BGR2GRAY) for i in range(len(faces)))
    sharpness = np.array([cv2.Laplacian(image, cv2.CV_64F).var() for image in grey])
    return {"yaw": _yaw(faces, layout), "size": np.sqrt((faces.box[:, 2:] - faces.box[:, :2]).prod(1)), "sharpness": sharpness}


def _yaw(faces: Faces, layout: Layout) -> np.ndarray:
    """(M,) degrees, the set's own where it says, else by the landmarks; NaN where these do not tell."""
    yaw = np.full(len(faces), np.nan) if faces.pose is None else np.degrees(faces.pose[:, 1])  # kept in radians
    try:
        used = [i for _, ids in pose_points(layout) for i in ids]
    except UserError:
        return yaw
    known = np.isfinite(faces.landmarks[:, used]).all((1, 2))
    for i in np.flatnonzero(known & np.isnan(yaw)):
        with suppress(cv2.error):  # of landmarks that are no face
            yaw[i] = head_pose(faces.landmarks[i], layout, *faces.sizes[i].tolist())[1]
    return yaw


class Shown(NamedTuple):
    """What the page shows of one set in one kind of box: M faces, N landmarks."""
    name: str
    box: str
    nme: np.ndarray         # (M,) %
    parts: dict[str, float]  # % NME
    landmarks: np.ndarray   # (N,) % NME
    meanface: np.ndarray    # (N, 2) in [0, 1] of the crop
    edges: list[tuple[int, int]]
    conditions: dict[str, np.ndarray]
    reliability: tuple[np.ndarray, np.ndarray] | None
    faces: dict[str, list[tuple[str, float, np.ndarray]]]  # best, median, worst: file, % NME, picture
    compared: list[Compared]


class Report:
    """The figures of a test, set by set, and the files that they go to: `folder`/*."""

    def __init__(self, folder: Path, norm: str, thresholds: list[float]):
        self.folder, self.norm, self.thresholds = folder, norm, thresholds
        self.scores: list[list[str]] = []
        self.parts: list[list[str]] = []
        self.norms: list[list[str]] = []
        self.shown: list[Shown] = []
        self.files: dict[str, dict] = {}  # of faces_<name>.csv: what `read_compared` asks

    def add(self, folder: Path, names: tuple[str, str], model: str, box: str, faces: Faces, result: Result,
            layout: Layout, missed: int, compared: list[Compared]) -> None:
        """One set of faces in one kind of box. names: of the set in tables and in files; folder: the prepared set."""
        name, called = names[0], model if box == "true" else f"{model}, {box} boxes"
        usual = DATASETS[load_meta(folder)["dataset"]].norms
        self.scores += score_rows(name, called, result, faces, self.thresholds, missed)
        self.parts += part_rows(name, called, result, faces, self.thresholds)
        self.norms += norm_rows(name, called, result, faces, layout, self.thresholds, usual)
        if model != "torch":
            return
        for other in compared if box == "true" else []:
            self.scores += score_rows(name, f"run {other.run}", other, faces, self.thresholds)
        file = names[1] if box == "true" else f"{names[1]}_{box}"
        hard = conditions(faces, layout)
        chosen = {word: [(faces.names[i], float(result.nme[i]), shown_face(faces, result, layout, i)) for i in which]
                  for word, which in extremes(result.nme).items()}
        norms = result.errors / metric.norms(faces.landmarks, layout, self.norm, faces.box)[:, None]
        with warnings.catch_warnings(action="ignore"):  # a landmark that no face of the set has
            landmarks, meanface = 100 * np.nanmean(norms, 0), faces.meanface()
        parts = {part: metric.summary(values, ()).nme for part, values in result.parts.items()}
        curve = None if result.sigma is None else reliability(result)
        self.shown.append(Shown(name, box, result.nme, parts, landmarks, meanface, layout.edges(), hard, curve, chosen, compared))
        self._write_faces(file, faces, result, hard, [face[2] for row in chosen.values() for face in row], curve)
        self.files[file] = {"set": name, "box": box, "checksum": load_meta(folder)["checksum"],
                            "layout": layout.name}

    def _write_faces(self, name: str, faces: Faces, result: Result, hard: dict, pictures: list, curve) -> None:
        """faces_<name>.csv, a sheet of faces and, of a net that expects errors, sigma_<name>.svg."""
        self.folder.mkdir(exist_ok=True)
        figures = [values.round(4) for values in (result.nme, result.crop_nme, result.score.mean(1))]
        figures += [hard[key].round(1) for key in CONDITIONS]
        write_csv(self.folder / f"faces_{name}.csv", ["file", "subset", "nme", "crop_nme", "score", *CONDITIONS],
                  zip(faces.names, faces.subsets, *figures, strict=True))
        if pictures:
            write_image(self.folder / f"faces_{name}.jpg", sheet(pictures, len(pictures) // 3))
        if curve:
            write_text(self.folder / f"sigma_{name}.svg", sigma_chart(curve))

    def score_table(self) -> tuple[list[str], list[list[str]]]:
        """Header and rows of the scores."""
        return without_empty(score_header(self.thresholds), self.scores)

    def protocol_table(self, mark: str = "") -> tuple[list[str], list[list[str]]]:
        """Header and rows of all ways to measure, a row a set and subset: NME in each norm and frame, then in further kinds of
        boxes in the test's norm and the usual ones, which bear the mark, then failures and area in the test's norm."""
        torch = [row for row in self.norms if row[1].startswith("torch")]
        first, nme, figures = torch[0][1], {}, {}
        for name, model, subset, norm, frame, usual, value, *ced in torch:
            key = name, subset
            if model == first or frame == "image" and (usual or norm == self.norm):
                title = norm + f", {frame}" * (frame != "image") + model.removeprefix("torch")
                nme.setdefault(title, {})[key] = value + mark * bool(usual)
            if (model, norm, frame) == (first, self.norm, "image"):
                figures[key] = ced
        header = ["test set", "subset", *nme, *norm_header(self.thresholds)[7:]]
        return header, [[*key, *(column.get(key, "") for column in nme.values()), *ced] for key, ced in figures.items()]

    def write(self, flip_test: bool) -> str:
        """scores, parts, norms and protocols as .csv, and test.yaml, which says what they are of; the tables of the terminal."""
        header, scores = self.score_table()
        headers = header, part_header(self.thresholds), norm_header(self.thresholds)
        for name, header, rows in zip(("scores", "parts", "norms"), headers, (scores, self.parts, self.norms), strict=True):
            write_csv(self.folder / f"{name}.csv", header, rows)
        write_csv(self.folder / "protocols.csv", *self.protocol_table())
        about = {"norm": self.norm, "flip_test": flip_test, "files": self.files}
        write_text(self.folder / "test.yaml", yaml.safe_dump(about, sort_keys=False, allow_unicode=True))
        return f"{table(scores, headers[0])}\n\n{part_table(self.parts)}"


def sigma_chart(curve: tuple[np.ndarray, np.ndarray]) -> str:
    """Expected against true error, of `reliability`."""
    return chart({"landmarks, 20 groups of equal size": curve}, "expected error, px", "mean error, px",
                 Style(diagonal=True, dots=True))


def read_compared(run: Path, folder: Path, norm: str, layout: str) -> Compared:
    """What the report of another run says of a prepared set, in true boxes. UserError where it says nothing of just that."""
    again = f"test it first: python main.py --test --exp {run} --norm {norm} --test-data {folder}"
    if not (run / "report" / "test.yaml").is_file():
        raise UserError(f"--compare {run}: it holds no report; {again}")
    about, wanted = read_yaml(run / "report" / "test.yaml"), load_meta(folder)["checksum"]
    files = [file for file, of in about["files"].items() if (of["checksum"], of["box"]) == (wanted, "true")]
    if files and (other := about["files"][files[0]]["layout"]) != layout:
        raise UserError(f"--compare {run}: it was tested in layout {other}, not {layout}")
    if not files or about["norm"] != norm:
        why = f"is in {about['norm']} norm, not {norm}" if files else f"has no faces of {folder} in true boxes"
        raise UserError(f"--compare {run}: its report {why}; {again}")
    with open(run / "report" / f"faces_{files[0]}.csv", newline="", encoding="utf-8", errors="surrogateescape") as file:
        rows = list(csv.DictReader(file))
    nme, crop_nme = (np.array([float(row[key]) for row in rows]) for key in ("nme", "crop_nme"))
    return Compared(run.name, nme, crop_nme)


def closing(tables: str, how: str, run, root: Path, synthetic: list[bool], on_test: bool) -> str:
    """The last words of a run: the tables, how to take them, where the files lie, and what to try next."""
    def place(path: Path) -> str:
        return str(path.relative_to(root) if path.is_relative_to(root) else path)

    page = run.folder / "report" / "index.html"
    files = [path for path in (run.weights, run.onnx, run.folder / "step.csv", page) if path.exists()]
    lines = ["", tables, "", f"How:   {how}", "Files: " + ", ".join(map(place, files))]
    if on_test:
        lines += ["Note:  the epoch was picked on the test set (--val test), so these figures flatter the net"]
    if any(synthetic):
        lines += ["Note:  figures on synthetic faces say that everything works, not how good the net is on photographs"]
    if all(synthetic):
        lines += ["Next:  python main.py --train --test --dataset 300w --data-dir 300W   (own pictures: README, Your own data)"]
    else:
        lines += [f"Next:  open {place(page)} in a browser;",
                  f"       tensorboard --logdir {place(run.folder)}"]
    return "\n".join(lines)
