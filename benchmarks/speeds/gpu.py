"""Speed on a GPU, with and without graphs and pixels on the device."""

import json
import os
import subprocess
import sys
import tempfile
import time

import torch
from photographs import run
from record import ROOT, chosen, markdown
from speeds.training import training

FACES = "--dataset synthetic --synthetic-train 800 --synthetic-test 60".split()
LIMIT = 90 if torch.cuda.is_available() else 600  # seconds of a row
SHORT, PLAIN = "--preset short", "--preset short --no-refine"  # with and without the refiner
NETS = (
    ("ResNet-18, short", 32, SHORT),
    ("ResNet-18, short", 128, SHORT),
    ("ResNet-50, short", 64, f"{SHORT} --net resnet50"),
    ("ResNet-18", 32, PLAIN),
    ("ResNet-18", 128, PLAIN),
    ("ResNet-18, pipnet", 16, "--preset pipnet"),
    ("MobileNetV3", 32, f"{PLAIN} --net timm:mobilenetv3_large_100"),
    ("MobileNetV3", 128, f"{PLAIN} --net timm:mobilenetv3_large_100"),
    ("ResNet-50", 64, f"{PLAIN} --net resnet50"),
    ("ResNet-18, short", 16, SHORT),
    ("ResNet-18", 16, PLAIN),
)
BOTH = {"graph, device": "", "eager, host": "--no-graph --pixels cpu"}
MIXED = {"graph, host": "--pixels cpu", "eager, device": "--no-graph"}
ROWS = {
    f"{net} {batch}: {way}": f"{flags} --batch-size {batch} --input-size 256 --weights none {more}".split()
    for ways in (BOTH, MIXED)  # time may end before the last ones
    for net, batch, flags in NETS
    for way, more in ways.items()
}
COLUMNS = {
    "images_per_second": ("fed, images/s", ",.0f"),
    "pure_compute": ("bare", ",.0f"),
    "ratio": ("fed / bare", ".2f"),
    "operators": ("operators", "d"),
    "launches": ("launches", "d"),
    "kernels": ("kernels", "d"),
    "device_ms": ("device ms", ".1f"),
    "peak_gib": ("GiB", ".1f"),
}


def measured(flags: list[str], seconds: float) -> dict:
    """Return the figures of a row, or {"error": why}. It has its own process, since an error may spoil the device."""
    folders = os.pathsep.join([str(ROOT), str(ROOT / "benchmarks")])
    environment = {**os.environ, "PYTHONPATH": folders, "OMP_NUM_THREADS": "2"}
    command = [sys.executable, "-m", "speeds.gpu", *flags]
    try:
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        return {"error": f"more than {seconds:.0f} s"}
    if done.returncode:
        return {"error": done.stderr.strip()[-200:]}
    return json.loads(done.stdout.splitlines()[-1])


def shown(rows: dict[str, dict], card: str = "") -> list[dict[str, str]]:
    """Return the rows as they are shown."""
    first = f"{card} net batch: steps, pixels".strip()
    return [
        {first: f"{name} {row.get('error', '')}".strip()}
        | {title: format(row[key], form) for key, (title, form) in COLUMNS.items() if key in row}
        for name, row in rows.items()
    ]


def gpu(*rows: str, minutes: float = 4.2) -> dict:
    """Return how fast a GPU trains, in as many ROWS as fit into so many minutes; without names, the first ones.

    Steps are fed as in a training, and fed from memory. It runs on a CPU too.
    """
    begun, found = time.monotonic(), {}
    with tempfile.TemporaryDirectory() as folder:
        data = ["--data-root", f"{folder}/data", "--run-root", f"{folder}/runs", *FACES]
        run("--prepare", *data)
        for name in chosen(ROWS, rows):
            if (left := begun + 60 * minutes - time.monotonic()) > 20:
                found[name] = measured([*data, *ROWS[name]], min(left, LIMIT))
                print(markdown(shown({name: found[name]})), flush=True)
    table = shown(found, torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU")
    return {
        "rows": found,
        "shown": table,
        "minutes": round((time.monotonic() - begun) / 60, 1),
        "failed": sum("error" in row for row in found.values()),
        "report": markdown(table),
    }


if __name__ == "__main__":
    print(json.dumps(training(*sys.argv[1:], rounds=1)))
