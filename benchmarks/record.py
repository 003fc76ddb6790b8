"""The command line of the benchmarks, and their result files: figures, and the command, commit, date, seed and machine
that they come from.
"""

import argparse
import inspect
import json
import platform
import re
import shlex
import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULTS = Path(__file__).resolve().parent / "results"
sys.path.insert(0, str(ROOT))

from pipnet.cores import cores  # noqa: E402
from utils.settings.machine import commit, processor  # noqa: E402

COMMIT = commit("benchmarks/results", "README.md", "docs")  # read before anything is measured; figures need a clean one
OPTIONS = {"into": str, "split": str, "faces": int, "minutes": float}  # flags of the benchmarks; `into` is for all


def machine() -> dict:
    """Return what figures of speed depend on: processor with its vector instructions, cores, GPU and versions."""
    import torch

    names = {"torch": "torch", "torchvision": "torchvision", "opencv": "cv2", "onnxruntime": "onnxruntime"}
    return {
        "cpu": f"{processor()}, {torch.backends.cpu.get_cpu_capability()}",
        "cores": cores(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        **{name: import_module(module).__version__ for name, module in names.items() if find_spec(module)},
    }


def chosen(rows: Iterable[str], names: Sequence[str]) -> list[str]:
    """Return the names, all rows if there are none. Stop with a message if one is not a row."""
    if unknown := [name for name in names if name not in rows]:
        sys.exit(f"unknown: {', '.join(unknown)} (there are: {', '.join(rows)})")
    return list(names) or list(rows)


def result(name: str) -> dict:
    """Return what benchmarks/results/NAME.json holds, nothing before it is measured."""
    file = RESULTS / f"{name}.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def updated(name: str, rows: Iterable[dict]) -> list[dict]:
    """Return the rows of results/NAME.json, updated by `rows`. A row with the same first cell gets the new cells."""
    found = {next(iter(row.values())): row for row in result(name).get("rows", [])}
    for row in rows:
        found.setdefault(next(iter(row.values())), {}).update(row)
    return list(found.values())


def markdown(rows: list[dict[str, str]]) -> str:
    """Return the rows as a Markdown table, with columns of numbers aligned to the right."""
    titles = list(dict.fromkeys(title for row in rows for title in row))
    cells = [[str(row.get(title, "")) for title in titles] for row in rows]
    numbers = [all(re.match(r"[-+]?\d|$", cell) for cell in column) for column in zip(*cells, strict=True)]
    lines = [f"| {' | '.join(line)} |" for line in (titles, *cells)]
    lines.insert(1, f"|{'|'.join('--:' if number else '---' for number in numbers)}|")
    return "\n".join(lines)


def parse(modules: dict[str, str], argv: list[str], text: str) -> tuple[str, Callable]:
    """Return the result file, and the call of the function whose name is typed.

    modules: {name: module of the function}. The words of the command line are the function's arguments. A function whose
    arguments are `flags` also gets words that begin with `--`.
    """
    parser = argparse.ArgumentParser(
        description=text, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("name", choices=modules)
    for option, kind in OPTIONS.items():
        parser.add_argument(f"--{option}", type=kind)
    given, words = parser.parse_known_args(argv)
    options = {option: value for option in OPTIONS if (value := getattr(given, option)) is not None}
    into = options.pop("into", given.name)
    function = getattr(import_module(modules[given.name]), given.name)
    known = inspect.signature(function).parameters
    unknown = [f"--{option}" for option in options if option not in known]
    unknown += [word for word in words if word.startswith("--") and "flags" not in known]
    if unknown:
        parser.error(f"{given.name} has no {unknown[0]}")
    return into, partial(function, *words, **options)


def main(modules: dict[str, str], text: str) -> None:
    """Run the command line and save its figures: a function returns them, or yields rows.

    Rows that are not made stay in the file. A `report` among the figures is printed in place of the file. The status is 1
    if a figure `failed` is not 0.
    """
    into, call = parse(modules, sys.argv[1:], text)
    figures = call()
    if not isinstance(figures, dict):
        figures = {"rows": updated(into, figures)}
    if not figures.get("rows", True):
        sys.exit("nothing was measured; the result file stays as it is")
    words = [re.sub("(?<![^=])/.*/", "", word) for word in sys.argv[1:]]  # without folders of this machine
    values = {
        "command": f"python benchmarks/{Path(sys.argv[0]).name} {shlex.join(words)}",
        "commit": COMMIT,
        "date": datetime.now(UTC).date().isoformat(),
        "seed": 0,
        "machine": machine(),
    }
    report = figures.pop("report", None)
    text = json.dumps(values | figures, indent=1) + "\n"
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{into}.json").write_text(text, encoding="utf-8")
    print(report or text)
    sys.exit(bool(figures.get("failed")))
