"""Tables of figures in README.md and docs/, made from benchmarks/results: `python benchmarks/tables.py` writes them.

A table stands between `<!-- figures: NAME ... -->` and `<!-- end -->` and has the rows that results/NAME.json holds as
they are shown, one file after another; NAME/KEY means another list of rows in it. MADE are tables of several files.
assets/tools.svg is the chart of the rows of results/others.json.
"""

import argparse
import re
from pathlib import Path

from experiments import flags_of, read
from record import RESULTS, ROOT, result
from shown import SETS, markdown, rows_of

from extras.report.plot import Style, chart
from pipnet.files import write_text
from pipnet.runtimes import open_file

OLDER = (
    "box_shift",
    "gpu",
    "preparation",
    "rendering",
    "scale",
    "semi",
    "soak",
    "systems",
    "unions",
)  # results whose commands were removed or changed
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def sources() -> list[dict]:
    """Return the source of every figure. The command of a whole run is the one that repeats it today."""
    rows, made = [], read(ROOT / "weights" / "making" / "stages.yaml")
    runs = {name: (f"python weights/making/make.py {name}", row, made) for name, row in made["stages"].items()}
    runs |= {
        name: (f"python benchmarks/experiments.py runs {name}", row, read()) for name, row in read()["runs"].items()
    }
    for file in sorted(RESULTS.glob("*.json")):
        name, row = file.stem, result(file.stem)
        command, seeds = row["command"], {str(row["seed"])}
        if name in runs:
            typed, run, known = runs[name]
            command = f"{typed} = python main.py {' '.join(flags_of(run['flags'], known['flags']))}"
        elif name in OLDER or not (ROOT / command.split()[1]).exists():
            command = f"{command.split('/')[1]} at that commit"  # the script was removed since
        if "measured" in row:
            seeds = {seed for one in row["measured"].values() for seed in one["seeds"]}
        rows.append(
            {
                **row,
                "figures": f"[{name}](benchmarks/results/{name}.json)",
                "seed": ", ".join(sorted(seeds)),
                "command": " = ".join(f"`{part.strip()}`" for part in command.split(" = ")),
                "processor": row["machine"]["cpu"],
                "cores": row["machine"]["cores"],
            }
        )
    return rows_of(
        rows,
        *((key, key) for key in ("figures", "command", "seed", "commit", "date", "processor")),
        ("cores", "cores"),
        ("minutes", "minutes", ".1f"),
        ("images/s", "images_per_second", ".0f"),
    )


def same_net() -> list[dict]:
    """Return two recipes of one net on one training set: rows of two whole runs, and the ms of the net."""
    titles = {
        "real_256": "preset `short` without its refiner",
        "pipnet_256": "preset `pipnet`: the PIPNet authors' recipe",
    }
    ms = next(row["ONNX ms"] for row in result("zoo")["rows"] if row["`--net`"] == "`resnet18`")
    return [
        {
            "recipe": title,
            **{
                f"NME %, {place}": row["NME %"]
                for place, row in zip(("300W", "FACES68"), result(name)["rows"], strict=True)
            },
            "ms": f"{float(ms):.0f}",
        }
        for name, title in titles.items()
    ]


def nets() -> list[dict]:
    """Return what tells the shipped landmark nets apart, a row for each fact."""
    columns = {}
    for name in ("landmarks", "landmarks-fast", "landmarks-open"):
        files = [ROOT / "weights" / f"{name}{end}" for end in (".int8.onnx", ".onnx")]
        opened = open_file(files[1], 1)
        layout = opened.values["layout"]
        found = {
            file: [row for row in result(file)["rows"] if row.get("tool") == f"ours, `{name}`"]
            for file in ("others", "turns", "turns_avx2", "changed")
        }
        (other,), lost = found["others"], {row["photographs"]: row for row in found["changed"]}
        columns[name] = {
            "trained on": other["trained on"],
            "use": other["use"],
            "input, px": f"{opened.values['input_size']}",
            "file in 8 bits / 32 bits, MB": " / ".join(f"{file.stat().st_size / 1e6:.1f}" for file in files),
            "layouts": ", ".join(layout.get("members", [layout["name"]])),
            "outputs": ", ".join(opened.outputs),
            "NME %, 300W / FACES68": f"{other['NME %, 300W']} / {other['NME %, FACES68']}",
            **{
                f"{kind}: missed %, 300W / FACES68": f"{lost[kind]['missed, %, 300W']} / {lost[kind]['missed, %, FACES68']}"
                for kind in ("turned by 180°", "dark, noisy", "half in black shadow")
            },
            "hidden landmarks: average precision": span(result("visible")["rows"], name),
            "ms a picture, AVX-512 and VNNI": f"{found['turns'][0]['ms, median']}",
            "that time as a multiple of MediaPipe's": " / ".join(
                row["ratio"] for row in found["turns"] if row["photographs"] in SETS.values()
            ),
            "ms a picture, AVX2 alone": next((row["ms, median"] for row in found["turns_avx2"]), "not measured"),
        }
    facts = next(iter(columns.values()))
    return [{"fact": fact, **{f"`{name}`": rows[fact] for name, rows in columns.items()}} for fact in facts]


def span(rows: list[dict], net: str) -> str:
    """Return the least and the largest average precision of a net over kinds of covers, in %, and the prevalence."""
    precision, hidden = (
        sorted(float(row[key]) for row in rows if row["net"] == net and row[key]) for key in ("AP", "hidden")
    )
    return f"{precision[0]:.0f} to {precision[-1]:.0f} % where {hidden[0]:.0f} to {hidden[-1]:.0f} % are hidden"


MADE = {"sources": sources, "same_net": same_net, "nets": nets}


def table(names: str) -> str:
    """Return the table of `NAME ...`, in Markdown."""
    rows = []
    for name in names.split():
        file, _, key = name.partition("/")
        rows += MADE[name]() if name in MADE else result(file)[key or "rows"]
    return markdown(rows)


def filled(text: str, page: Path) -> str:
    """Return the text of a page with every table made anew; links to the result files start at the page's folder."""
    up = "../" * (len(page.relative_to(ROOT).parts) - 1)

    def made(match: re.Match) -> str:
        return f"{match[1]}{table(match[2]).replace('](benchmarks/', f']({up}benchmarks/')}\n{match[3]}"

    return re.sub(r"(<!-- figures: (.+?) -->\n).*?(<!-- end -->)", made, text, flags=re.DOTALL)


def write_chart() -> None:
    """Write the error of each tool against its time, on the photographs that no tool has seen."""
    points = {
        row["tool"].replace("`", ""): ([float(row["ms a picture"].split("/")[-1])], [float(row["aligned, FACES68"])])
        for row in result("others")["rows"]
    }
    text = chart(points, "ms a picture, one core", "aligned NME %, FACES68", Style(dots=True))
    write_text(ROOT / "assets" / "tools.svg", text)


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()
    for page in PAGES:
        page.write_text(filled(page.read_text(encoding="utf-8"), page), encoding="utf-8")
    write_chart()
