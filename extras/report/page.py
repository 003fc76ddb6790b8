"""Writes report/index.html: all results of a test on one page, without scripts or downloads, in a light and a dark
scheme.
"""

import base64
import os
import platform
import shlex
import sys
from itertools import groupby, pairwise
from pathlib import Path

import cv2
import numpy as np
import torch
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from extras.report.plot import Style, bars, chart, face_map
from extras.report.report import Shown, sigma_chart
from pipnet.cores import cores
from pipnet.files import write_text
from utils.evaluate import metric
from utils.evaluate.report import Report
from utils.settings.csv_files import read_csv
from utils.settings.machine import commit, processor
from utils.settings.union import layout_of, members_of
from utils.train.checkpoint import about
from utils.train.make_net import figure_of

PAGES = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined)
ANGLES = (0, 10, 20, 30, 45, 60, 181)  # degrees of yaw
GROUPS = 4  # bins of equal size, for face size and sharpness
CURVES = {  # {title of a chart: column of step.csv}
    "Validation NME, %": "val_nme",
    "False faces in validation, %": "val_false",
    "Loss": "loss",
    "Learning rate": "lr",
}


def write_report_page(run, report: Report, stored: dict, how: str) -> None:
    """Write index.html in the report's folder. stored: the checkpoint; how: norm, flip test and boxes in words."""
    net, changed = stored["net"], run.folder / "pseudo_labels" / "changed.jpg"
    rounds = {name: (np.arange(len(values)), np.array(values)) for name, values in report.rounds.items()}
    layout = layout_of(stored["layout"])
    learnt = [name for name, member in members_of(layout).items() if member.sets] or [layout.name]
    text = PAGES.get_template("page.html").render(
        title=f"{run.folder.resolve().name}: {net['net']}, {net['input_size']} px, layout {' and '.join(learnt)}",
        about=_about(run, stored, how),
        norm=report.norm,
        scores=(*report.score_table(), 2, is_whole),
        pastes=_pastes(report, net),
        protocols=_protocols(report),
        starred=any(row["usual"] for row in report.norms),
        sets=[(shown, _figures(shown, report)) for shown in report.shown],
        rounds=rounds and (*report.rounds_table(), 1),
        rounds_chart=rounds and chart(rounds, "round", "", Style(dots=True)),
        face=_face(stored),
        changed=_address(changed.read_bytes()) if changed.is_file() else "",
        jpeg=_jpeg,
        training=training_charts({"": run.folder}, figure_of(stored["args"])),
        environment=environment(),
        keys="\n".join(f"{key}: {value}" for key, value in stored["args"].items()),
    )
    write_text(report.folder / "index.html", text + "\n")


def _about(run, stored: dict, how: str) -> str:
    nme = stored.get("val_nme")
    validated = f", validation NME {nme:.3f} %" if nme is not None and np.isfinite(nme) else ""
    if np.isfinite(false := stored.get("val_false", np.nan)):
        validated += f", {false:.2f} % of the validation crops without a face pass if 99.9 % of the faces do"
    on_test = (
        "; the epoch was picked on the test set, which flatters the net" if stored["args"]["val"] == "test" else ""
    )
    names = ", ".join(Path(name).name for name in stored["args"].get("train_data") or ())
    trained = f" Trained on {names}." if names else ""
    return f"{about(run.weights, stored)}{validated}{on_test}.{trained} {how[0].upper()}{how[1:]}."


def _protocols(report: Report) -> list[tuple[str, list[str], list[list[str]]]]:
    """Return (test set, header, rows) of all ways to measure: a row for each way, a column for each subset."""
    header, table = report.protocol_table("*")
    found = []
    for title, rows in groupby(table, lambda row: row[0]):
        _, subsets, *figures = zip(*rows, strict=True)
        ways = [[name, *cells] for name, cells in zip(header[2:], figures, strict=True) if any(cells)]
        found.append((title, ["norm", *subsets], ways))
    return found


def is_whole(row: list[str]) -> bool:
    """Return whether a row of scores is of a whole set, not of a subset."""
    return row[0][:1] != " "


def _pastes(report: Report, net: dict) -> list[tuple[str, str, str]]:
    """Return (name, row in Markdown, row in LaTeX) of each set: NME of the set and of its subsets, then its other
    figures.
    """
    (head, scores), sets, parts = report.score_table(), [], []
    nme = head.index("NME %")
    for row in scores:
        if row[0][:1] != " ":
            sets.append([])
        sets[-1].append(row)
    for own in sets:
        row = own[0]
        if not row[1].startswith(report.model):
            continue
        columns = [f"{r[0].strip()} NME %" for r in own] + head[nme + 2 :]
        method = "PIPNet" if net["head"] == "pip" else f"{net['head']} head"
        cells = [f"{method}, {net['net']}, {net['input_size']} px{row[1].removeprefix(report.model)}"]
        cells += [f"{float(r[nme]):.2f}" for r in own] + row[nme + 2 :]
        header = ["method", *columns]
        latex = [" & ".join(map(_latex, line)) + r" \\" for line in (header, cells)]
        markdown = [f"| {' | '.join(line)} |" for line in (header, ["---", *["--:"] * len(columns)], cells)]
        parts.append((row[0], "\n".join(markdown), "\n".join(latex)))
    return parts


def _latex(text: str) -> str:
    return "".join({"\\": r"\textbackslash{}"}.get(c, f"\\{c}" if c in "&%$#_{}" else c) for c in text)


def _figures(shown: Shown, report: Report) -> list[tuple[str, ...]]:
    """Return (title, SVG, note if any) of each chart of one set in one kind of box; empty if no face has an NME."""
    if not np.isfinite(shown.nme).any():
        return []
    figures = [
        _cumulative(shown, report),
        (
            "By landmark, on the mean face",
            face_map(shown.meanface, shown.landmarks, shown.layout, "%"),
            "Point at a landmark for its number and NME.",
        ),
    ]
    if 1 < len(shown.groups) < shown.landmarks.size:
        figures.append(("By group of landmarks", bars([(group, nme, "") for group, nme in shown.groups.items()], "%")))
    figures += _by_condition(shown)
    if shown.reliability:
        figures.append(("Expected against true error", sigma_chart(shown.reliability)))
    return figures


def _cumulative(shown: Shown, report: Report) -> tuple[str, ...]:
    """Return the CED of a set in one kind of box; for true boxes, with those of its other boxes."""
    rows = {f"this run, {shown.box} boxes": shown.nme}
    if shown.box == "true":
        rows |= {f"this run, {other.box} boxes": other.nme for other in report.shown if other.name == shown.name}
    curves = {}
    for name, values in rows.items():
        grid, share = metric.cumulative(values[np.isfinite(values)], max(report.thresholds))
        curves[name] = grid[::5], 100 * share[::5]
    return "Faces below an error (CED)", chart(curves, "NME, %", "share of faces, %", Style(top=100))


def _by_condition(shown: Shown) -> list[tuple[str, ...]]:
    """Return charts of the NME in bins of yaw, face size and sharpness."""
    yaw = np.abs(shown.conditions["yaw"])
    figures: list[tuple[str, ...]] = []
    if np.isfinite(yaw).any():
        bins = [
            (f"{low} to {high}°" if high < 181 else f"over {low}°", (low <= yaw) & (yaw < high))
            for low, high in pairwise(ANGLES)
        ]
        bins = [(name, mask) for name, mask in bins if mask.any()] + [("unknown", ~np.isfinite(yaw))]
        figures.append(
            (
                "By yaw of the head, either side",
                _bars(shown.nme, bins),
                "Estimated from the true landmarks and a rigid head model: a ranking, not a measurement.",
            )
        )
    else:
        figures.append(("By yaw of the head", "", "This layout lacks the landmarks from which yaw is estimated."))
    for key, title, unit in (
        ("size", "By size of the face's box", " px"),
        ("sharpness", "By sharpness of the crop", ""),
    ):
        values = shown.conditions[key]
        groups = [group for group in np.array_split(np.argsort(values, kind="stable"), GROUPS) if len(group)]
        bins = [(f"{values[group].min():.0f} to {values[group].max():.0f}{unit}", group) for group in groups]
        note = "Variance of the Laplacian of the crop; low is blurred." if key == "sharpness" else ""
        figures.append((title, _bars(shown.nme, bins), note))
    return figures


def _bars(nme: np.ndarray, bins: list[tuple[str, np.ndarray]]) -> str:
    rows = []
    for name, which in bins:
        values = nme[which]
        values = values[np.isfinite(values)]
        if len(values):
            rows.append((name, float(values.mean()), f"{len(values)} face{'s' * (len(values) > 1)}"))
    return bars(rows, "%")


def _face(stored: dict) -> list:
    """Return the table (header, rows, words) of the output `face` on the validation crops, and its chart; [] without it."""
    if not (groups := stored.get("face_reliability")):
        return []
    rows = [[f"{100 * predicted:.1f}", f"{100 * true:.1f}", str(int(count))] for predicted, true, count in groups]
    predicted, true, _ = 100 * np.array(groups).T
    curve = {"crops in tenths of the probability": (predicted, true)}
    drawn = chart(curve, "predicted probability, %", "share of faces, %", Style(diagonal=True, dots=True, top=100))
    return [(["predicted probability %", "share of faces %", "crops"], rows, 0), drawn]


def training_charts(runs: dict[str, Path], figure: str = "") -> list[tuple[str, str]]:
    """Return (title, SVG) of each chart of step.csv, with a line of each run.

    runs: {name: folder}; figure: the column that picks the best epoch, to show its best value so far too.
    """
    numbers = ("epoch", "val_nme", "best", "loss", "lr")
    tables = {name: read_csv(folder / "step.csv", numbers) for name, folder in runs.items()}
    figures = []
    for title, key in CURVES.items():
        series = {}
        for name, rows in tables.items():
            for column in (key, *["best"] * (key == figure)):
                values = np.array([float(row.get(column, np.nan)) for row in rows])
                if np.isfinite(values).any():
                    label = "best" if column == "best" else name or key
                    series[label] = np.array([row["epoch"] + 1 for row in rows]), values
        if series:
            few = max(len(epochs) for epochs, _ in series.values()) < 3
            figures.append((title, chart(series, "epoch", "", Style(dots=few))))
    return figures


def environment() -> str:
    """Return command, commit, versions and machine, with which the test can be repeated."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    processes = os.environ.get("WORLD_SIZE", "1")
    start = "python main.py" if processes == "1" else f"bash main.sh {processes}"
    rows = [
        ("command", f"{start} {shlex.join(sys.argv[1:])}"),
        ("commit", commit() or "unknown"),
        (
            "versions",
            f"Python {platform.python_version()}, torch {torch.__version__}, OpenCV {cv2.__version__}, "
            f"numpy {np.__version__}",
        ),
        ("machine", f"{platform.system()} {platform.machine()}, {processor()}, {cores()} cores; GPU: {gpu}"),
    ]
    return "\n".join(f"{key + ':':<10}{value}" for key, value in rows)


def _jpeg(picture: np.ndarray) -> str:
    """Return a picture (H, W, 3) as a data URL, so that the page itself contains it."""
    return _address(cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 80])[1].tobytes())


def _address(data: bytes) -> str:
    """Return a JPEG file as a data URL, so that the page itself contains it."""
    return f"data:image/jpeg;base64,{base64.b64encode(data).decode('ascii')}"
