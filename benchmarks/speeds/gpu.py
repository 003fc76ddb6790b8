"""Speed on a GPU, with and without graphs and pixels on the device."""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from record import ROOT, chosen
from shown import markdown, rows_of
from speeds.training import training

FACES = 800, 60  # rendered, to train and to test
PLACES = ["--data-root", "WORK/data", "--run-root", "WORK/runs"]  # `filled` fills in what is in capitals
DATA = [*PLACES, "--dataset", "synthetic", "--synthetic-train", "TRAIN_FACES", "--synthetic-test", "TEST_FACES"]
ALIKE = [*DATA, "--weights", "none", "--exp", "NAME"]
ROW_LIMIT = 90 if torch.cuda.is_available() else 600  # seconds
LARGE = ["--train", *ALIKE, "--input-size", "256"]
SHORT, PLAIN = ["--preset", "short"], ["--preset", "short", "--no-refine"]  # with and without the refiner
MOBILE = [*PLAIN, "--net", "timm:mobilenetv3_large_100"]
NETS = [
    ("ResNet-18, short", 32, SHORT),
    ("ResNet-18, short", 128, SHORT),
    ("ResNet-50, short", 64, [*SHORT, "--net", "resnet50"]),
    ("ResNet-18", 32, PLAIN),
    ("ResNet-18", 128, PLAIN),
    ("ResNet-18, pipnet", 16, ["--preset", "pipnet"]),
    ("MobileNetV3", 32, MOBILE),
    ("MobileNetV3", 128, MOBILE),
    ("ResNet-50", 64, [*PLAIN, "--net", "resnet50"]),
    ("ResNet-18, short", 16, SHORT),
    ("ResNet-18", 16, PLAIN),
]
BOTH = {"graph, device": [], "eager, host": ["--no-graph", "--pixels", "cpu"]}
MIXED = {"graph, host": ["--pixels", "cpu"], "eager, device": ["--no-graph"]}
ROWS = {
    f"{net} {batch}: {way}": [*LARGE, "--batch-size", str(batch), *flags, *more]
    for nets, ways in (
        (NETS[:1], BOTH | MIXED),
        (NETS[1:], BOTH),
        (NETS[1:2], MIXED),
    )  # time may end before the last ones
    for net, batch, flags in nets
    for way, more in ways.items()
}


def filled(words, work: Path, name: str = "") -> list[str]:
    """Return words of a command with the folder of all files, and the name of a run, where they belong."""
    places = {
        "WORK": str(work),
        "NAME": re.sub(r"\W+", "-", name),
        "TRAIN_FACES": str(FACES[0]),
        "TEST_FACES": str(FACES[1]),
        "ONE_MORE": str(torch.cuda.device_count() + 1),
    }
    return [re.sub("|".join(places), lambda match: places[match[0]], word) for word in words]


def python(command: list[str], work: Path, name: str, seconds: float) -> tuple[int, list[str]]:
    """Run Python; return its status and all lines that it prints.
    After too many seconds it ends with its children: 124.
    """
    log, path = work / f"{name}.log", os.pathsep.join([str(ROOT), str(ROOT / "benchmarks")])
    command = ["timeout", "-k", "5", str(max(round(seconds), 1)), sys.executable, *filled(command, work, name)]
    with open(log, "w") as out:
        status = subprocess.run(
            command,
            cwd=ROOT,
            stdout=out,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "2"},
        ).returncode
    return status, re.split(r"[\r\n]+", log.read_text(encoding="utf-8", errors="replace").strip())


def measured(work: Path, name: str, seconds: float) -> dict:
    """Return the figures of a row, or {"error": why}. It has its own process, since an error may spoil the device."""
    status, lines = python(["-m", "speeds.gpu", str(work), name], work, "row", min(seconds, ROW_LIMIT))
    if status:
        return {"error": lines[-1][-200:]}
    return json.loads(next(line for line in reversed(lines) if line.startswith("{")))


def speed_rows(rows: dict[str, dict], card: str = "") -> list[dict[str, str]]:
    """Return the rows as they are shown."""
    shown = [{"name": f"{name} {row.get('error', '')}".strip(), **row} for name, row in rows.items()]
    return rows_of(
        shown,
        (f"{card} net batch: steps, pixels".strip(), "name"),
        ("fed, images/s", "images_per_second", ",.0f"),
        ("bare", "pure_compute", ",.0f"),
        ("fed / bare", "ratio", ".2f"),
        ("operators", "operators", "d"),
        ("launches", "launches", "d"),
        ("kernels", "kernels", "d"),
        ("device ms", "device_ms", ".1f"),
        ("GiB", "peak_gib", ".1f"),
    )


def gpu(*rows: str, minutes: float = 4.2) -> dict:
    """Return how fast a GPU trains, in as many ROWS as fit into so many minutes; without names, the first ones.

    Steps are fed as in a training, and fed from memory. It runs on a CPU too. `python tests/campaigns gpu` tests what
    main.py does on a GPU.
    """
    begun, found = time.monotonic(), {}
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        status, lines = python(["main.py", "--prepare", *DATA], work, "prepare", 60 * minutes)
        if status:
            sys.exit(f"no data: {lines[-1]}")
        for name in chosen(ROWS, rows):
            if (left := begun + 60 * minutes - time.monotonic()) > 20:
                found[name] = measured(work, name, left)
                print(markdown(speed_rows({name: found[name]})), flush=True)
    shown = speed_rows(found, torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU")
    return {
        "rows": found,
        "shown": shown,
        "minutes": round((time.monotonic() - begun) / 60, 1),
        "failed": sum("error" in row for row in found.values()),
        "report": markdown(shown),
    }


if __name__ == "__main__":
    _, place, row = sys.argv
    print(json.dumps(training(*filled(ROWS[row], Path(place), row), rounds=1)))
