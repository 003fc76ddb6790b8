"""Tables of figures in README.md and docs/, made from benchmarks/results: `python benchmarks/tables.py` writes them.

A table stands between `<!-- figures: NAME -->` and `<!-- end -->`. No figure is typed: the function NAME makes the table.
"""
import re
from pathlib import Path

import gpu as card
import tables_nets
import tables_pictures
from markdown_table import table
from record import RESULTS, ROOT, found_rows, result
from runs import RUNS

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def sources() -> str:
    """Return the source of every figure. The command of a whole run is the one that repeats it today."""
    rows = []
    for file in sorted(RESULTS.glob("*.json")):
        name, row = file.stem, result(file.stem)
        command, seeds = row["command"], {str(row["seed"])}
        if name in RUNS:
            command = f"python benchmarks/runs.py {name} = python main.py {' '.join(RUNS[name].flags)}"
        elif not (ROOT / command.split()[1]).exists():
            command = f"{command.split('/')[1]} at that commit"  # the script was removed since
        if name.startswith("recipe_"):
            seeds = {seed for one in row["rows"].values() for seed in one["seeds"]}
        rows.append({**row, "figures": f"[{name}](benchmarks/results/{name}.json)", "seed": ", ".join(sorted(seeds)),
                     "command": " = ".join(f"`{part.strip()}`" for part in command.split(" = ")),
                     "processor": row["machine"]["cpu"], "cores": row["machine"]["cores"]})
    return table(rows, *((key, key) for key in ("figures", "command", "seed", "commit", "date", "processor")),
                 ("cores", "cores", ""), ("minutes", "minutes", ".1f"), ("images/s", "images_per_second", ".0f"))


def campaigns() -> str:
    names = {"kills": "SIGKILLs", "signals": "signals", "disks": "disks in trouble", "files": "damaged files",
             "values": "wrong values in whole files", "attacks": "foreign files and links", "options": "combinations of options"}
    rows = [{"what": what, **result(name)} for name, what in names.items() if (RESULTS / f"{name}.json").is_file()]
    return table(rows, ("attack", "what"), ("cases", "count", "d"), ("faults", lambda row: len(row["faults"]), "d"),
                 ("minutes", "minutes", ".0f"), ("command", lambda row: f"`{row['command']}`"), ("commit", "commit"))


def scale() -> str:
    """Return what sets of each size cost."""
    rows = []
    for name, figures in result("scale")["sets"].items():
        faces, processes = map(int, re.findall(r"\d+", name))
        rows.append({"faces": faces, "processes": processes, **figures})
    return table(rows, ("faces", "faces", ",d"), ("processes", "processes", "d"), ("s to open", "seconds_to_open", ".2f"),
                 ("s for an order", "seconds_of_an_order", ".2f"), ("s to the first step", "seconds_to_first_step", ".1f"),
                 ("of these, CPU", "cpu_seconds_to_first_step", ".1f"), ("s to resume", "seconds_to_resume", ".1f"),
                 ("images/s", "images_per_second", ".0f"), ("private MB", "private_mb", ".0f"))


def gpu() -> str:
    """Return the speed of training steps on the card that was measured last."""
    rows = found_rows("gpu")
    return card.speed_table(rows, result("gpu")["machine"]["gpu"] or "CPU" if rows else "")


TABLES = {make.__name__: make for make in (*tables_nets.TABLES, *tables_pictures.TABLES, campaigns, scale, gpu, sources)}


def filled(text: str, page: Path) -> str:
    """Return the text of a page with every table made anew; links to the result files start at the page's folder."""
    up = "../" * (len(page.relative_to(ROOT).parts) - 1)

    def made(match: re.Match) -> str:
        return f"{match[1]}{TABLES[match[2]]().replace('](benchmarks/', f']({up}benchmarks/')}\n{match[3]}"

    return re.sub(r"(<!-- figures: (\w+) -->\n).*?(<!-- end -->)", made, text, flags=re.DOTALL)


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(filled(page.read_text(encoding="utf-8"), page), encoding="utf-8")
