"""report/index.html: all results of a test on one page, without scripts or downloads, in the reader's light or dark scheme."""
import base64
import os
import platform
import shlex
import sys
from html import escape
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import torch

from pipnet.cores import cores
from pipnet.files import read_csv, write_text
from utils.evaluate import metric
from utils.evaluate.plot import Style, bars, chart, face_map
from utils.evaluate.report import Report, Shown, sigma_chart
from utils.machine import commit, processor
from utils.train.checkpoint import about

STYLE = """
:root{color-scheme:light dark;--back:#fff;--front:#222;--line:#8884;--shade:#8881}
@media(prefers-color-scheme:dark){:root{--back:#16181c;--front:#ddd}}
body{background:var(--back);color:var(--front);font:15px/1.5 system-ui,sans-serif;max-width:1080px;margin:0 auto;
padding:12px 16px}
h1{font-size:1.5em;margin:.4em 0}h2{margin:1.6em 0 .4em;border-bottom:1px solid var(--line)}h3{font-size:1em;margin:.8em 0 .3em}
p{margin:.4em 0}
.scroll{overflow-x:auto;background:linear-gradient(to left,var(--back) 20px,#0000) right/40px 100% no-repeat local,
linear-gradient(to left,#8888,#0000) right/10px 100% no-repeat scroll}
.scroll th:first-child,.scroll td:first-child{position:sticky;left:0;background:var(--back)}
table{border-collapse:collapse;font-size:.92em;font-variant-numeric:tabular-nums}
th,td{padding:3px 7px;text-align:right;border-bottom:1px solid var(--line)}td{white-space:nowrap}th{vertical-align:bottom}
.words{text-align:left;white-space:nowrap}tr.whole td{font-weight:600}
.charts{columns:2 340px;column-gap:24px}figure{margin:0;min-width:0}.charts figure{break-inside:avoid;padding-bottom:10px}
figcaption{font-weight:600}figure svg{width:100%;max-width:520px;height:auto}
.faces{display:grid;grid-template-columns:repeat(auto-fill,minmax(120px,1fr));gap:6px;font-size:.85em}
.faces img{width:100%;display:block}
pre{overflow-x:auto;background:var(--shade);padding:8px;font-size:.85em;margin:.3em 0}summary{cursor:pointer}
"""
WHOLE = ' class="whole"'
ANGLES = (0, 10, 20, 30, 45, 60, 181)  # degrees of yaw
GROUPS = 4  # bins of equal size, for face size and sharpness


def write(run, report: Report, stored: dict, how: str, compared: list[Path]) -> None:
    """Write index.html in the report's folder. stored: the checkpoint; how: norm, flip test and boxes in words."""
    net = stored["net"]
    title = f"{run.folder.resolve().name}: {net['net']}, {net['input_size']} px, layout {stored['layout']['name']}"
    body = [f"<h1>{escape(title)}</h1>", f"<p>{escape(_about(run, stored, how, compared))}</p>", "<h2>Scores</h2>",
            _table(*report.score_table(), 2, lambda row: row[0][:1] != " "),
            _paste(report, net), _protocols(report), *(_set(shown, report) for shown in report.shown),
            _rounds(run.folder, report), _training(run.folder),
            _environment(stored)]
    text = ('<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, '
            f'initial-scale=1"><title>{escape(title)}</title><style>{STYLE}</style></head>\n<body>\n')
    write_text(report.folder / "index.html", text + "\n".join(body) + "\n</body></html>\n")


def _about(run, stored: dict, how: str, compared: list[Path]) -> str:
    nme = stored.get("val_nme")
    validated = f", validation NME {nme:.3f} %" if nme is not None and np.isfinite(nme) else ""
    on_test = "; the epoch was picked on the test set, which flatters the net" if stored["args"]["val"] == "test" else ""
    against = f". Compared with {', '.join(folder.resolve().name for folder in compared)}" if compared else ""
    names = ", ".join(Path(name).name for name in stored["args"].get("train_data") or ())
    trained = f" Trained on {names}." if names else ""
    return f"{about(run.weights, stored)}{validated}{on_test}.{trained} {how.capitalize()}{against}."


def _table(header: list[str], rows: list[list[str]], words: int = 2, whole=lambda row: False) -> str:
    """Return an HTML table whose first `words` columns are text."""
    def cells(row: list[str], tag: str) -> str:
        kinds = (' class="words"' if i < words else "" for i in range(len(row)))
        return "".join(f"<{tag}{kind}>{escape(cell)}</{tag}>" for kind, cell in zip(kinds, row, strict=True))

    header = [cell.replace(" %", "\u00a0%") for cell in header]
    lines = [f"<tr{WHOLE if whole(row) else ''}>{cells(row, 'td')}</tr>" for row in rows]
    return f'<div class="scroll"><table><tr>{cells(header, "th")}</tr>\n' + "\n".join(lines) + "</table></div>"


def _figure(title: str, svg: str, note: str = "") -> str:
    return f"<figure><figcaption>{escape(title)}</figcaption>{svg}{f'<p>{escape(note)}</p>' if note else ''}</figure>"


def _paste(report: Report, net: dict) -> str:
    """Return a Markdown and a LaTeX row per set: NME of the set and of its subsets, then its other figures."""
    (head, scores), sets, parts = report.score_table(), [], []
    for row in scores:
        if row[0][:1] != " ":
            sets.append([])
        sets[-1].append(row)
    for own in sets:
        row = own[0]
        if not row[1].startswith(report.model):
            continue
        columns = [f"{r[0].strip()} NME %" for r in own] + head[5:]
        method = "PIPNet" if net["head"] == "pip" else f"{net['head']} head"
        cells = [f"{method}, {net['net']}, {net['input_size']} px{row[1].removeprefix(report.model)}"]
        cells += [f"{float(r[3]):.2f}" for r in own] + row[5:]
        header = ["method", *columns]
        latex = [" & ".join(map(_latex, line)) + r" \\" for line in (header, cells)]
        markdown = [f"| {' | '.join(line)} |" for line in (header, ["---", *["--:"] * len(columns)], cells)]
        parts.append(f"<h3>{escape(row[0])}</h3><pre>{escape(chr(10).join(markdown))}</pre><pre>{escape(chr(10).join(latex))}</pre>")
    return f"<details><summary>Rows to paste: Markdown, LaTeX</summary>{''.join(parts)}</details>"


def _latex(text: str) -> str:
    return "".join({"\\": r"\textbackslash{}"}.get(c, f"\\{c}" if c in "&%$#_{}" else c) for c in text)


def _set(shown: Shown, report: Report) -> str:
    """Return the charts and faces of one set in one kind of box."""
    known = shown.nme[np.isfinite(shown.nme)]
    boxes = "" if shown.box == "true" else f", {shown.box} boxes"
    parts = [f"<h2>{escape(shown.name + boxes)}</h2>"]
    if not len(known):
        return parts[0] + "<p>No face has an NME.</p>"
    figures = [_cumulative(shown, report),
               _figure("By landmark, on the mean face", face_map(shown.meanface, shown.landmarks, shown.edges, "%"),
                       "Point at a landmark for its number and NME.")]
    if 1 < len(shown.groups) < shown.landmarks.size:
        figures.append(_figure("By group of landmarks", bars([(group, nme, "") for group, nme in shown.groups.items()], "%")))
    figures += _by_condition(shown)
    if shown.reliability:
        figures.append(_figure("Expected against true error", sigma_chart(shown.reliability)))
    parts.append(f'<div class="charts">{"".join(figures)}</div>')
    parts.append("<p>Truth green, prediction red. The NME of each face stands below it, its file name in the tooltip.</p>")
    for word, pictures in shown.faces.items():
        images = (f'<figure title="{escape(face)}"><img alt="{escape(face)}" src="data:image/jpeg;base64,{_jpeg(picture)}">'
                  f"{nme:.2f} %</figure>" for face, nme, picture in pictures)
        parts.append(f'<h3>{word.capitalize()}</h3><div class="faces">{"".join(images)}</div>')
    return "\n".join(parts)


def _cumulative(shown: Shown, report: Report) -> str:
    """Return the CED of a set in one kind of box; for true boxes, with those of its other boxes and of other runs."""
    rows = {f"this run, {shown.box} boxes": shown.nme}
    if shown.box == "true":
        rows |= {f"run {other.run}": other.nme for other in shown.compared}
        rows |= {f"this run, {other.box} boxes": other.nme for other in report.shown if other.name == shown.name}
    curves = {}
    for name, values in rows.items():
        grid, share = metric.cumulative(values[np.isfinite(values)], max(report.thresholds))
        curves[name] = grid[::5], 100 * share[::5]
    return _figure("Faces below an error (CED)", chart(curves, "NME, %", "share of faces, %", Style(top=100)))


def _by_condition(shown: Shown) -> list[str]:
    """Return charts of the NME in bins of yaw, face size and sharpness."""
    yaw, figures = np.abs(shown.conditions["yaw"]), []
    if np.isfinite(yaw).any():
        bins = [(f"{low} to {high}°" if high < 181 else f"over {low}°", (low <= yaw) & (yaw < high))
                for low, high in pairwise(ANGLES)]
        bins = [(name, mask) for name, mask in bins if mask.any()] + [("unknown", ~np.isfinite(yaw))]
        figures.append(_figure("By yaw of the head, either side", _bars(shown.nme, bins),
                               "Estimated from the true landmarks and a rigid head model: a ranking, not a measurement."))
    else:
        figures.append(_figure("By yaw of the head", "", "This layout lacks the landmarks from which yaw is estimated."))
    for key, title, unit in (("size", "By size of the face's box", " px"), ("sharpness", "By sharpness of the crop", "")):
        values = shown.conditions[key]
        groups = [group for group in np.array_split(np.argsort(values, kind="stable"), GROUPS) if len(group)]
        bins = [(f"{values[group].min():.0f} to {values[group].max():.0f}{unit}", group) for group in groups]
        note = "Variance of the Laplacian of the crop; low is blurred." if key == "sharpness" else ""
        figures.append(_figure(title, _bars(shown.nme, bins), note))
    return figures


def _bars(nme: np.ndarray, bins: list[tuple[str, np.ndarray]]) -> str:
    rows = []
    for name, which in bins:
        values = nme[which]
        values = values[np.isfinite(values)]
        if len(values):
            rows.append((name, float(values.mean()), f"{len(values)} face{'s' * (len(values) > 1)}"))
    return bars(rows, "%")


def _protocols(report: Report) -> str:
    """Return one table of all norms, frames and boxes."""
    note = ("NME in %. The figures of a paper are comparable in its norm, frame and boxes only; * marks the norms that are usual "
            "for the set. Crop: errors in the crop's [0, 1], as PIPNet measures them, not in px of the picture. FR and AUC are "
            f"of the curves below, in the {report.norm} norm.")
    table = _table(*report.protocol_table("*"), 2, lambda row: row[1] == "full")
    return f"<h2>Norms, frames and boxes</h2>\n<p>{note}</p>\n{table}"


def _rounds(folder: Path, report: Report) -> str:
    """Return the NME by round of --semi, and the faces whose pseudo-labels changed most."""
    if not report.rounds:
        return ""
    series = {name: (np.arange(len(values)), np.array(values)) for name, values in report.rounds.items()}
    parts = ["<h2>Rounds of pseudo-labels</h2>", _table(*report.rounds_table(), 1),
             _figure("NME by round, %", chart(series, "round", "", Style(dots=True)))]
    if (file := folder / "pseudo_labels" / "changed.jpg").is_file():
        data = base64.b64encode(file.read_bytes()).decode("ascii")
        parts.append("<h3>Unlabelled faces whose pseudo-labels changed most</h3><p>First round green, last one red.</p>"
                     f'<img alt="faces" style="width:100%" src="data:image/jpeg;base64,{data}">')
    return "\n".join(parts)


def _training(folder: Path) -> str:
    """Return the curves of step.csv."""
    rows = read_csv(folder / "step.csv", ("epoch", "val_nme", "best", "loss", "lr"))
    epochs, figures = np.array([row["epoch"] + 1 for row in rows]), []
    for title, keys in (("Validation NME, %", ("val_nme", "best")), ("Loss", ("loss",)), ("Learning rate", ("lr",))):
        series = {key: (epochs, np.array([row[key] for row in rows])) for key in keys if rows}
        series = {key: line for key, line in series.items() if np.isfinite(line[1]).any()}
        if series:
            figures.append(_figure(title, chart(series, "epoch", "", Style(dots=len(rows) < 3))))
    return f'<h2>Training</h2>\n<div class="charts">{"".join(figures)}</div>' if figures else ""


def _environment(stored: dict) -> str:
    """Return what repeats the test: command, commit, versions, machine; all keys of the training."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    processes = os.environ.get("WORLD_SIZE", "1")
    start = "python main.py" if processes == "1" else f"bash main.sh {processes}"
    rows = [("command", f"{start} {shlex.join(sys.argv[1:])}"),
            ("commit", commit() or "unknown"),
            ("versions", f"Python {platform.python_version()}, torch {torch.__version__}, OpenCV {cv2.__version__}, "
                         f"numpy {np.__version__}"),
            ("machine", f"{platform.system()} {platform.machine()}, {processor()}, {cores()} cores; GPU: {gpu}")]
    lines = "\n".join(f"{key + ':':<10}{value}" for key, value in rows)
    keys = "\n".join(f"{key}: {value}" for key, value in stored["args"].items())
    return (f"<h2>Command and environment</h2>\n<pre>{escape(lines)}</pre>\n"
            f"<details><summary>Keys of the training</summary><pre>{escape(keys)}</pre></details>")


def _jpeg(picture: np.ndarray) -> str:
    data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 80])[1]
    return base64.b64encode(data.tobytes()).decode("ascii")
