"""The faces of a landmark test: a row per face, and sheets of the best, median and worst."""

import warnings
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from extras.report.plot import Style, chart
from pipnet.draw import sheet
from pipnet.errors import UserError
from pipnet.files import write_text
from pipnet.images import write_image
from pipnet.layout import Layout
from pipnet.pose import head_pose, pose_points
from utils.data.faces import Faces
from utils.data.pixels import sharpness
from utils.evaluate import metric
from utils.evaluate.evaluate import Result
from utils.evaluate.pictures import extremes, shown_face
from utils.evaluate.tables import Case
from utils.settings.csv_files import write_csv

CONDITIONS = ("yaw", "size", "sharpness")


def reliability(sigma: np.ndarray, errors: np.ndarray, groups: int = 20) -> tuple[np.ndarray, np.ndarray]:
    """Return (mean predicted error, mean error) in px of the picture, of `groups` of landmarks with similar predicted
    errors.
    """
    known = np.isfinite(errors)
    expected, found = sigma[known], errors[known]
    parts = np.array_split(np.argsort(expected, kind="stable"), groups)
    mean, error = (np.array([values[part].mean() for part in parts if len(part)]) for values in (expected, found))
    return mean, error


def conditions(faces: Faces, layout: Layout) -> dict[str, np.ndarray]:
    """Return {name: values (M,)} of conditions that may make a face hard.

    yaw: degrees, NaN where unknown; size: root of the box's area, px; sharpness: variance of the crop's Laplacian, grey
    levels^2.
    """
    grey = (cv2.cvtColor(faces.nominal_crop(i), cv2.COLOR_BGR2GRAY) for i in range(len(faces)))
    sharp, box = np.array([sharpness(image) for image in grey]), faces["box"]
    return {"yaw": _yaw(faces, layout), "size": np.sqrt((box[:, 2:] - box[:, :2]).prod(1)), "sharpness": sharp}


def _yaw(faces: Faces, layout: Layout) -> np.ndarray:
    """Return yaw (M,) in degrees: the set's own if it has one, else estimated from the landmarks; NaN if these do not
    suffice.
    """
    yaw = np.degrees(faces["pose"][:, 1]) if "pose" in faces else np.full(len(faces), np.nan)  # stored in radians
    try:
        used = [i for _, ids in pose_points(layout) for i in ids]
    except UserError:
        return yaw
    landmarks = faces["landmarks"]
    known = np.isfinite(landmarks[:, used]).all((1, 2))
    for i in np.flatnonzero(known & np.isnan(yaw)):
        with suppress(cv2.error):  # landmarks that form no face
            yaw[i] = head_pose(landmarks[i], layout)[1]
    return yaw


class Shown(NamedTuple):
    """Contents of the page for one case: M faces, N landmarks. file: in the names of its files."""

    name: str
    box: str
    file: str
    nme: np.ndarray  # (M,) %
    groups: dict[str, float]  # % NME
    landmarks: np.ndarray  # (N,) % NME
    meanface: np.ndarray  # (N, 2) in [0, 1] of the crop
    layout: Layout
    conditions: dict[str, np.ndarray]
    reliability: tuple[np.ndarray, np.ndarray] | None
    faces: dict[str, list[tuple[str, float, np.ndarray]]]  # best, median, worst, or all: file, % NME, picture


def show_case(folder: Path, case: Case, result: Result, norm: str) -> Shown:
    """Write a row per face, pictures of the best, median and worst faces, and the chart of the predicted errors.

    folder: of the report. Return what the page shows.
    """
    faces, layout = case.faces, case.comparison.layout
    file = case.file if case.box == "true" else f"{case.file}_{case.box}"
    hard, files = conditions(faces, layout), faces["file"]
    chosen = {
        word: [(files[i], float(result.nme[i]), shown_face(faces, i, result, layout)) for i in which]
        for word, which in extremes(result.nme).items()
    }
    shares = result.errors / metric.norms(faces["landmarks"], layout, norm, faces["box"])[:, None]
    with warnings.catch_warnings(action="ignore"):  # a landmark that no face of the set has
        landmarks, meanface = 100 * np.nanmean(shares, 0), faces.meanface()
    curve = None if result.sigma is None else reliability(result.sigma, result.errors)
    folder.mkdir(exist_ok=True)
    figures = [values.round(4) for values in (result.nme, result.crop_nme, result.score.mean(1))]
    figures += [hard[key].round(1) for key in CONDITIONS]
    write_csv(
        folder / f"faces_{file}.csv",
        ["file", "subset", "nme", "crop_nme", "score", *CONDITIONS],
        zip(files, faces["subset"], *figures, strict=True),
    )
    if pictures := [face[2] for row in chosen.values() for face in row]:
        write_image(folder / f"faces_{file}.jpg", sheet(pictures, max(map(len, chosen.values()))))
    if curve:
        write_text(folder / f"sigma_{file}.svg", sigma_chart(curve))
    return Shown(
        case.title,
        case.box,
        file,
        result.nme,
        {group: metric.summary(values, ()).nme for group, values in result.groups.items()},
        landmarks,
        meanface,
        layout,
        hard,
        curve,
        chosen,
    )


def sigma_chart(curve: tuple[np.ndarray, np.ndarray]) -> str:
    """Return a chart of the predicted against the true error. curve: of `reliability`."""
    return chart(
        {"landmarks, 20 groups of equal size": curve},
        "expected error, px",
        "mean error, px",
        Style(diagonal=True, dots=True),
    )
