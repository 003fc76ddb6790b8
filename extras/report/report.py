"""The faces of a landmark test: a row per face, sheets of the best, median and worst, and comparisons between runs."""

import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from extras.report.plot import Style, chart
from pipnet.draw import sheet
from pipnet.errors import UserError
from pipnet.files import read_csv, write_csv, write_text
from pipnet.images import write_image
from pipnet.layout import Layout
from pipnet.pose import head_pose, pose_points
from utils.data.faces import Faces
from utils.data.pixels import sharpness
from utils.data.prepared_set import PreparedSet, Split
from utils.evaluate import metric
from utils.evaluate.evaluate import Result
from utils.evaluate.pictures import extremes, shown_face
from utils.evaluate.tables import TEST, Case, Compared
from utils.settings.formats import SOURCE
from utils.settings.sections import TestSettings
from utils.settings.yaml_files import read_yaml

CONDITIONS = ("yaw", "size", "sharpness")


def reliability(result: Result, groups: int = 20) -> tuple[np.ndarray, np.ndarray]:
    """Return (mean predicted error, mean error) in px of the picture, of `groups` of landmarks with similar predicted
    errors.
    """
    known = np.isfinite(result.errors)
    expected, found = result.sigma[known], result.errors[known]
    parts = np.array_split(np.argsort(expected, kind="stable"), groups)
    mean, error = (np.array([values[part].mean() for part in parts if len(part)]) for values in (expected, found))
    return mean, error


def conditions(faces: Faces, layout: Layout) -> dict[str, np.ndarray]:
    """Return {name: values (M,)} of conditions that may make a face hard.

    yaw: degrees, NaN where unknown; size: root of the box's area, px; sharpness: variance of the crop's Laplacian, grey
    levels^2.
    """
    grey = (cv2.cvtColor(faces.crops.plain(i, 0), cv2.COLOR_BGR2GRAY) for i in range(len(faces)))
    sharp, box = np.array([sharpness(image) for image in grey]), faces["box"][:]
    return {"yaw": _yaw(faces, layout), "size": np.sqrt((box[:, 2:] - box[:, :2]).prod(1)), "sharpness": sharp}


def _yaw(faces: Faces, layout: Layout) -> np.ndarray:
    """Return yaw (M,) in degrees: the set's own if it has one, else estimated from the landmarks; NaN if these do not
    suffice.
    """
    yaw = np.degrees(faces["pose"][:][:, 1]) if "pose" in faces else np.full(len(faces), np.nan)  # stored in radians
    try:
        used = [i for _, ids in pose_points(layout) for i in ids]
    except UserError:
        return yaw
    landmarks = faces["landmarks"][:]
    known = np.isfinite(landmarks[:, used]).all((1, 2))
    for i in np.flatnonzero(known & np.isnan(yaw)):
        with suppress(cv2.error):  # landmarks that form no face
            yaw[i] = head_pose(landmarks[i], layout)[1]
    return yaw


class Shown(NamedTuple):
    """Contents of the page for one case: M faces, N landmarks. file, about: names of its files, and what was tested."""

    name: str
    box: str
    file: str
    about: dict[str, Any]
    nme: np.ndarray  # (M,) %
    groups: dict[str, float]  # % NME
    landmarks: np.ndarray  # (N,) % NME
    meanface: np.ndarray  # (N, 2) in [0, 1] of the crop
    edges: list[tuple[int, int]]
    conditions: dict[str, np.ndarray]
    reliability: tuple[np.ndarray, np.ndarray] | None
    faces: dict[str, list[tuple[str, float, np.ndarray]]]  # best, median, worst: file, % NME, picture
    compared: tuple[Compared, ...]


def show_case(folder: Path, case: Case, result: Result, norm: str) -> Shown:
    """Write a row per face, pictures of the best, median and worst faces, and the chart of the predicted errors.

    folder: of the report. Return what the page shows.
    """
    faces, layout = case.faces, case.comparison.layout
    file = case.file if case.box == "true" else f"{case.file}_{case.box}"
    hard = conditions(faces, layout)
    chosen = {
        word: [(faces["file"][i], float(result.nme[i]), shown_face(faces, i, result, layout)) for i in which]
        for word, which in extremes(result.nme).items()
    }
    shares = result.errors / metric.norms(faces["landmarks"][:], layout, norm, faces["box"][:])[:, None]
    with warnings.catch_warnings(action="ignore"):  # a landmark that no face of the set has
        landmarks, meanface = 100 * np.nanmean(shares, 0), faces.meanface()
    curve = None if result.sigma is None else reliability(result)
    folder.mkdir(exist_ok=True)
    figures = [values.round(4) for values in (result.nme, result.crop_nme, result.score.mean(1))]
    figures += [hard[key].round(1) for key in CONDITIONS]
    write_csv(
        folder / f"faces_{file}.csv",
        ["file", "subset", "nme", "crop_nme", "score", *CONDITIONS],
        zip(faces["file"], faces["subset"], *figures, strict=True),
    )
    if pictures := [face[2] for row in chosen.values() for face in row]:
        write_image(folder / f"faces_{file}.jpg", sheet(pictures, len(pictures) // 3))
    if curve:
        write_text(folder / f"sigma_{file}.svg", sigma_chart(curve))
    about = {
        "set": case.title,
        "box": case.box,
        "checksum": case.set.checksum,
        "layout": layout.name,
        "selected": list(layout.selected),
        **{key: case.set.meta.get(key) for key in ("dataset", "fingerprint", "labels")},
    }
    return Shown(
        case.title,
        case.box,
        file,
        about,
        result.nme,
        {group: metric.summary(values, ()).nme for group, values in result.groups.items()},
        landmarks,
        meanface,
        layout.edges(),
        hard,
        curve,
        chosen,
        case.compared,
    )


def sigma_chart(curve: tuple[np.ndarray, np.ndarray]) -> str:
    """Return a chart of the predicted against the true error. curve: of `reliability`."""
    return chart(
        {"landmarks, 20 groups of equal size": curve},
        "expected error, px",
        "mean error, px",
        Style(diagonal=True, dots=True),
    )


def read_compared(run, name: str, split: Split, test: TestSettings, layout: Layout, flags: str) -> Compared:
    """Return the figures of another run on the faces of a split, in true boxes.
    UserError if its report is of another test.

    name: of the run in tables. flags: those that test a run on all sets of this test. The crops may be others. The
    labels may be read in another way (--labels): the name then says so.
    """
    one, found = split.set, run.folder / "report" / TEST
    flips = "--flip-test" if test.flip_test else "--no-flip-test"
    again = f"test it first: python main.py --test {run.flags} --norm {test.norm} {flips} --box true {flags}"
    if not found.is_file():
        raise UserError(f"--compare {run.folder}: it holds no report; {again}")
    about = read_yaml(found)
    try:
        same = {file: of for file, of in about["files"].items() if of["box"] == "true" and _of_set(of, one)}
        none: tuple[str, dict[str, Any]] = ("", {})
        file, of = min(same.items(), key=lambda pair: pair[1]["checksum"] != one.checksum, default=none)
        if of and (of["layout"], of["selected"]) != (layout.name, list(layout.selected)):
            what = (
                "on other landmarks" if of["layout"] == layout.name else f"in layout {of['layout']}, not {layout.name}"
            )
            raise UserError(f"--compare {run.folder}: it was tested {what}; leave it out")
        if of and about["norm"] != test.norm:
            raise UserError(f"--compare {run.folder}: its report is in {about['norm']} norm, not {test.norm}; {again}")
        if of and about["flip_test"] != test.flip_test:
            how = "with" if about["flip_test"] else "without"
            raise UserError(f"--compare {run.folder}: it was tested {how} --flip-test; {again}")
        if of and about["weights"] != run.source[SOURCE]:
            raise UserError(f"--compare {run.folder}: it was trained on since its report was written; {again}")
        rows = read_csv(run.folder / "report" / f"faces_{file}.csv", ("nme", "crop_nme"))
        if [row["file"] for row in rows] != list(one.read(split.name)["file"]):
            raise UserError(
                f"--compare {run.folder}: its report lacks the faces of {one.title}, or has others, in true boxes; "
                f"{again}"
            )
        nme, crop_nme = (np.array([row[key] for row in rows]) for key in ("nme", "crop_nme"))
    except (AttributeError, KeyError, TypeError, ValueError):
        raise UserError(f"--compare {run.folder}: its report is damaged or of another version; {again}") from None
    other = "" if of["checksum"] == one.checksum else f", labels {of['labels']}"
    return Compared(f"{name}{other}", nme, crop_nme, np.full(len(nme), np.nan))


def _of_set(of: dict, one: PreparedSet) -> bool:
    """Return whether the faces of a report are those of a prepared set. Crops may differ, and the way labels were read."""
    same = of.get("fingerprint") is not None and of["fingerprint"] == one.meta.get("fingerprint")
    return of["checksum"] == one.checksum or (same and of["dataset"] == one.meta["dataset"])
