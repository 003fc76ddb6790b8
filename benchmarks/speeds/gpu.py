"""Speed on a GPU, and that graphs and pixels on the device learn alike."""

import gc
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from threading import Timer

import torch
from record import ROOT, chosen
from shown import markdown, rows_of

from pipnet.files import read_csv

FACES = 800, 60  # rendered, to train and to test
PLACES = ["--data-root", "WORK/data", "--run-root", "WORK/runs"]  # `filled` fills in what is in capitals
DATA = [*PLACES, "--dataset", "synthetic", "--synthetic-train", "TRAIN_FACES", "--synthetic-test", "TEST_FACES"]
ALIKE = [*DATA, "--weights", "none", "--exp", "NAME"]
SHARES = {"speed": 0.6, "train": 0.4}  # of the minutes; what a part does not use is for the next ones
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
    log, path = work / f"{name}.log", os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
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


def speed(work: Path, until: float, names: list[str]) -> dict[str, dict]:
    """Return {row: figures or {"error": why}}, as many as there is time for.
    A process measures row after row, up to an error.
    """
    left, found, log = list(names), {}, work / "rows.log"
    print(markdown([dict.fromkeys(row, "") for row in speed_rows({"": {}})]).rpartition("\n")[0], flush=True)
    while left and (rest := until - time.monotonic()) > 20:
        command = ["timeout", "-k", "5", str(round(rest)), sys.executable, "-m", "speeds.gpu", str(work), *left]
        env = {
            **os.environ,
            "PYTHONPATH": str(ROOT / "benchmarks"),
            "TEARDOWN_CUPTI": "0",
        }  # a profiler that ends must not break the graphs of the next row
        with (
            open(log, "w") as out,
            subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=out, text=True, env=env) as child,
        ):
            row: dict = {}
            while left and "error" not in row:
                timer = Timer(ROW_LIMIT, child.terminate)
                timer.start()
                line = child.stdout.readline()
                timer.cancel()
                if not line and time.monotonic() > until - 2:
                    break  # the time is over
                row = json.loads(line) if line else {"error": " ".join(log.read_text().split())[-200:]}
                found[left[0]] = row
                print(markdown(speed_rows({left.pop(0): row})).splitlines()[2], flush=True)
            child.terminate()
    return found


def print_rows(work: str, *names: str) -> None:
    """Print the figures of each row as a line of JSON. End after an error, after which the device may be unusable."""
    from speeds.training import training

    from pipnet.errors import one_line

    out, sys.stdout = sys.stdout, sys.stderr
    for name in names:
        try:
            row = training(*filled(ROWS[name], Path(work)), rounds=1)
        except Exception as error:
            row = {"error": f"{type(error).__name__}: {one_line(error)}"[:200]}
        print(json.dumps(row), file=out, flush=True)
        if "error" in row:
            os._exit(1)
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()


def speed_rows(rows: dict[str, dict], card: str = "") -> list[dict[str, str]]:
    """Return the rows of `speed` as they are shown."""
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


def train(work: Path, until: float, images: float, data: Path) -> dict:
    """Return loss curves of 200 steps, {way and seed: means of 25 steps}, and what a training for the rest of the time
    reaches.

    images: per second, as `speed` has measured it.
    """
    batch = NETS[0][1]
    flags = ["main.py", *LARGE, *SHORT, "--batch-size", str(batch), "--val", "none"]
    if real := (data / "meta.yaml").is_file():
        flags += ["--train-data", str(data.resolve())]

    def trained(name: str, *more: str) -> tuple[list[dict], list[str]]:
        """Return the rows of step.csv, and what the training has printed."""
        lines = python([*flags, *more], work, name, until - time.monotonic())[1]
        return read_csv(work / "runs" / name / "step.csv"), lines

    def curve(way: list[str], seed: int, name: str) -> list[float] | str:
        rows, lines = trained(name, "--epochs", "8", "--epoch-steps", "25", "--workers", "3", "--seed", str(seed), *way)
        return [round(float(row["loss"]), 3) for row in rows] or lines[-1]

    with ThreadPoolExecutor(4) as pool:
        jobs = {
            f"{way}, seed {seed}": pool.submit(curve, more, seed, f"curve{number}{seed}")
            for number, (way, more) in enumerate(BOTH.items())
            for seed in (0, 1)
        }
    found: dict = {"curves": {name: job.result() for name, job in jobs.items()}}
    seconds = min(120, until - time.monotonic() - 35)  # it takes these 35 to start and to test
    steps = max(int(0.8 * seconds * images / batch / 10), 0)
    if not steps:
        return found
    rows, lines = trained("long", "--epochs", "10", "--epoch-steps", str(steps), "--test")
    faces, scores = re.search(r"(\d+) faces of ", "\n".join(lines)), work / "runs" / "long" / "report" / "scores.csv"
    times = read_csv(work / "runs" / "long" / "time.csv") or [{"seconds": 0, "images_per_second": 0}]
    return found | {
        "data": data.name if real else "rendered faces",
        "steps": steps * len(rows),
        "batch_size": batch,
        "passes": round(steps * len(rows) * batch / int(faces[1]), 1) if faces else None,
        "seconds": round(sum(float(row["seconds"]) for row in times), 1),
        "images_per_second": round(median(float(row["images_per_second"]) for row in times)),
        "nme": {row["test set"]: row["NME %"] for row in read_csv(scores)} if scores.is_file() else lines[-1],
    }


def gpu(*parts: str, minutes: float = 4.2, only: Sequence[str] = (), data: Path = ROOT / "data" / "300w") -> dict:
    """Return how fast a GPU trains, in at most so many minutes.

    speed: steps, fed as in a training and fed from memory. train: loss curves with and without graphs and device
    pixels, then a training of at most two minutes and a test. All of it runs on a CPU too. only: names of rows of
    `speed`. data: a prepared set for `train`; without one, rendered faces are trained on. `python tests/campaigns gpu`
    tests what main.py does on a GPU.
    """
    begun, figures = time.monotonic(), {"rows": {}, "train": {}}
    parts, only = chosen(SHARES, parts), chosen(ROWS, only)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        status, lines = python(["main.py", "--prepare", *DATA], work, "prepare", 60 * minutes)
        if status:
            sys.exit(f"no data: {lines[-1]}")
        for place, part in enumerate(parts):
            now = time.monotonic()
            until = now + (begun + 60 * minutes - now) * SHARES[part] / sum(SHARES[other] for other in parts[place:])
            if part == "speed":
                figures["rows"] = speed(work, until, only)
            else:
                rows = figures["rows"] or speed(work, until, only[:1])
                images = next((row["images_per_second"] for row in rows.values() if "error" not in row), 0)
                figures["train"] = train(work, until, images, data)
    card = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    figures |= {
        "shown": speed_rows(figures["rows"], card),
        "minutes": round((time.monotonic() - begun) / 60, 1),
        "failed": sum("error" in row for row in figures["rows"].values()),
    }
    losses = [f"loss of 200 steps, {name}: {means}" for name, means in figures["train"].get("curves", {}).items()]
    reached = {name: value for name, value in figures["train"].items() if name != "curves"}
    return {
        **figures,
        "report": "\n".join([markdown(figures["shown"]), *losses, f"{reached}", f"{figures['minutes']} minutes"]),
    }


if __name__ == "__main__":
    print_rows(*sys.argv[1:])
