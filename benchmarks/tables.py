"""Tables of figures in README.md and docs/, made from benchmarks/results: `python benchmarks/tables.py` writes them.

A table stands between `<!-- figures: NAME ... -->` and `<!-- end -->`. It has the rows of results/NAME.json, one file
after another (NAME/KEY: another list of rows in it), and says how each file was measured. `nets` tells the shipped nets
apart, `front` compares tools in one row each. assets/tools.svg is the chart of the rows of results/others.json.
"""

import argparse
import re
from pathlib import Path

from record import ROOT, markdown, result

from extras.report.plot import Style, chart
from pipnet.files import write_text
from pipnet.runtimes import open_file

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
NETS = ("landmarks", "landmarks-fast", "landmarks-open")
SETS = ("300W", "FACES68")
FRONT = {"mediapipe": "MediaPipe Face Mesh", "dlib": "dlib"}  # {column of false_faces: row of others}
OLDER = ("gpu",)  # results whose command takes other flags today


def how(name: str) -> str:
    """Return how the figures of a result file were measured."""
    values = result(name)
    machine = values["machine"]
    command = "An earlier version of the command" if name in OLDER else f"`{values['command']}`"
    cores = f"{machine['cores']} core" + "s" * (machine["cores"] > 1)
    return f"{command}, commit {values['commit']}, {values['date']}, {machine['cpu']}, {cores}."


def first(cell: str) -> str:
    """Return the first figure of a cell `A / B / ...`."""
    return cell.partition(" / ")[0]


def span(name: str) -> str:
    """Return the least and largest average precision with which a net finds hidden landmarks, and how many are hidden."""
    rows = result("visible")["rows"]
    found = sorted(float(first(row[name])) for row in rows)
    hidden = sorted(float(row["hidden"]) for row in rows)
    return f"{found[0]:.0f} to {found[-1]:.0f} % where {hidden[0]:.0f} to {hidden[-1]:.0f} % are hidden"


def facts(name: str) -> dict[str, str]:
    """Return what tells a shipped landmark net apart."""
    files = [ROOT / "weights" / f"{name}{end}" for end in (".int8.onnx", ".onnx")]
    opened, title = open_file(files[1], 1), f"ours, `{name}`"
    layout = opened.values["layout"]
    own = {
        file: {row["tool"]: row for row in result(file)["rows"]}.get(title, {})
        for file in ("others", "turns", "turns_avx2")
    }
    changed = {row["photographs"]: row[title] for row in result("changed")["rows"]}
    missed = {
        f"{kind}: missed %, 300W / FACES68": " / ".join(first(changed[f"{kind}, {one}"]) for one in SETS)
        for kind in ("turned by 180°", "dark, noisy", "half in black shadow")
    }
    times = [own["turns"][one].split(" / ") for one in SETS]
    return {
        "trained on": own["others"]["trained on"],
        "use": own["others"]["use"],
        "input, px": f"{opened.values['input_size']}",
        "file in 8 bits / 32 bits, MB": " / ".join(f"{file.stat().st_size / 1e6:.1f}" for file in files),
        "layouts": ", ".join(layout.get("members", [layout["name"]])),
        "outputs": ", ".join(opened.outputs),
        "NME %, 300W / FACES68": " / ".join(own["others"][f"NME %, {one}"] for one in SETS),
        **missed,
        "hidden landmarks: average precision": span(name),
        "ms a picture, AVX-512 and VNNI": times[0][0],
        "that time as a multiple of MediaPipe's": " / ".join(time[-1] for time in times),
        "ms a picture, AVX2 alone": first(own["turns_avx2"].get("300W", "not measured")),
    }


def nets() -> str:
    """Return the table that tells the shipped landmark nets apart, a row for each fact."""
    columns = {name: facts(name) for name in NETS}
    titles = columns[NETS[0]]
    return markdown([{"fact": fact, **{f"`{name}`": columns[name][fact] for name in NETS}} for fact in titles])


def front() -> str:
    """Return the table of tools on the front page: what a user asks first, one figure a cell."""
    false = next(row for row in result("false_faces")["rows"] if "held out" in row["photographs"])
    rows = []
    for one in result("others")["rows"]:
        title = one["tool"]
        name = next((name for name in (*FRONT, *NETS) if title in (FRONT.get(name), f"ours, `{name}`")), None)
        if name:
            rows.append(
                {
                    "tool": title,
                    "error, %": one["aligned, FACES68"],
                    "ms": one["ms a picture"].split("/")[-1].strip(),
                    "false faces in 100 pictures": false[name].rpartition("/ ")[2],
                    "products may use it": "yes" if one["use"] == "any" else "no: research",
                }
            )
    return "\n\n".join([markdown(rows), how("others"), how("false_faces")])


def table(names: str) -> str:
    """Return the table of `NAME ...`, in Markdown, and below it how its figures were measured."""
    if names == "nets":
        return nets()
    if names == "front":
        return front()
    parts = [name.partition("/") for name in names.split()]
    rows = [row for name, _, key in parts for row in result(name)[key or "rows"]]
    return "\n\n".join([markdown(rows), *(how(name) for name, _, _ in parts)])


def filled(text: str) -> str:
    """Return the text of a page with every table made anew."""
    return re.sub(
        r"(<!-- figures: (.+?) -->\n).*?(<!-- end -->)",
        lambda match: f"{match[1]}{table(match[2])}\n{match[3]}",
        text,
        flags=re.DOTALL,
    )


def write_chart(file: Path) -> None:
    """Write the error of each tool against its time, on the photographs that no tool has seen."""
    points = {
        row["tool"].replace("`", ""): ([float(row["ms a picture"].split("/")[-1])], [float(row["aligned, FACES68"])])
        for row in result("others")["rows"]
    }
    write_text(file, chart(points, "ms a picture, one core", "aligned NME %, FACES68", Style(dots=True)))


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()
    for page in PAGES:
        page.write_text(filled(page.read_text(encoding="utf-8")), encoding="utf-8")
    write_chart(ROOT / "assets" / "tools.svg")
