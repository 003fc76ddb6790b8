"""Result files of the benchmarks: figures, and the command, commit, date, seed and machine that they come from."""

import json
import platform
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULTS = Path(__file__).resolve().parent / "results"
sys.path.insert(0, str(ROOT))

from pipnet.cores import cores  # noqa: E402
from utils.settings.machine import commit, processor  # noqa: E402


def machine() -> dict:
    """Return what figures of speed depend on: processor with its vector instructions, cores, GPU and versions."""
    import torch

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    names = {"torch": "torch", "torchvision": "torchvision", "opencv": "cv2", "onnxruntime": "onnxruntime"}
    versions = {
        "python": platform.python_version(),
        **{name: import_module(module).__version__ for name, module in names.items() if find_spec(module)},
    }
    return {
        "cpu": f"{processor()}, {torch.backends.cpu.get_cpu_capability()}",
        "cores": cores(),
        "gpu": gpu,
        **versions,
    }


def chosen(rows: Iterable[str], names: Sequence[str]) -> list[str]:
    """Return the names, all rows if there are none. Stop with a message if one is not a row."""
    if unknown := [name for name in names if name not in rows]:
        sys.exit(f"unknown: {', '.join(unknown)} (there are: {', '.join(rows)})")
    return list(names) or list(rows)


COMMIT = commit("benchmarks/results", "README.md", "docs")  # read before anything is measured; figures need a clean one


def save(name: str, command: str, seed: int, figures: dict) -> Path:
    """Write results/<name>.json, print it, and return its path. A `report` among the figures is printed in its place."""
    date, report = datetime.now(UTC).date().isoformat(), figures.pop("report", None)
    values = {"command": command, "commit": COMMIT, "date": date, "seed": seed, "machine": machine(), **figures}
    RESULTS.mkdir(exist_ok=True)
    file = RESULTS / f"{name}.json"
    file.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    print(report or file.read_text())
    return file


def updated(name: str, rows: Iterable[dict], keys: Sequence[str]) -> list[dict]:
    """Return the rows of results/NAME.json, updated by `rows`. A row with the same keys gets the new cells."""
    found = {tuple(row[key] for key in keys): row for row in result(name).get("rows", [])}
    for row in rows:
        found.setdefault(tuple(row[key] for key in keys), {}).update(row)
    return list(found.values())


def result(name: str) -> dict:
    """Return what benchmarks/results/NAME.json holds, nothing before it is measured."""
    file = RESULTS / f"{name}.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
