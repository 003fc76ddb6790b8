"""Does this card train, and how fast: `python benchmarks/gpu.py [paths] [speed] [train] [--minutes 7] [--data FOLDER]`.

`paths` runs main.py in every way that matters on a GPU, several at a time: status and output must be as expected. `speed`
measures steps, fed as in a training and fed from memory. `train` compares loss curves with and without graphs and device pixels,
then trains for at most two minutes and tests. All of it runs on a CPU too, without what needs a card. `--only NAME ...` takes
these paths and rows of the speed. `--data` is a prepared set; without one, rendered faces are trained on.
"""
import argparse
import gc
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from threading import Timer

import torch
from gpu_paths import ALIKE, DATA, PATHS, filled, python, run_all
from record import ROOT, chosen, save
from shown import markdown, rows_of

from pipnet.files import read_csv

SHARES = {"paths": 0.40, "speed": 0.36, "train": 0.24}  # of the minutes; what a part does not use is for the next ones
ROW_LIMIT = 90 if torch.cuda.is_available() else 600  # seconds
LARGE = ["--train", *ALIKE, "--input-size", "256"]
SHORT, PLAIN = ["--preset", "short"], ["--preset", "short", "--no-refine"]  # with and without the refiner
MOBILE = [*PLAIN, "--net", "timm:mobilenetv3_large_100"]
NETS = [("ResNet-18, short", 32, SHORT), ("ResNet-18, short", 128, SHORT),
        ("ResNet-50, short", 64, [*SHORT, "--net", "resnet50"]), ("ResNet-18", 32, PLAIN), ("ResNet-18", 128, PLAIN),
        ("ResNet-18, pipnet", 16, ["--preset", "pipnet"]),
        ("MobileNetV3", 32, MOBILE), ("MobileNetV3", 128, MOBILE), ("ResNet-50", 64, [*PLAIN, "--net", "resnet50"]),
        ("ResNet-18, short", 16, SHORT), ("ResNet-18", 16, PLAIN)]
BOTH = {"graph, device": [], "eager, host": ["--no-graph", "--pixels", "cpu"]}
MIXED = {"graph, host": ["--pixels", "cpu"], "eager, device": ["--no-graph"]}
ROWS = {f"{net} {batch}: {way}": [*LARGE, "--batch-size", str(batch), *flags, *more]
        for nets, ways in ((NETS[:1], BOTH | MIXED), (NETS[1:], BOTH), (NETS[1:2], MIXED))  # time may end before the last ones
        for net, batch, flags in nets for way, more in ways.items()}


def speed(work: Path, until: float, names: list[str]) -> dict[str, dict]:
    """Return {row: figures or {"error": why}}, as many as there is time for. A process measures row after row, up to an error."""
    left, found, log = list(names), {}, work / "rows.log"
    print(markdown([dict.fromkeys(row, "") for row in speed_rows({"": {}})]).rpartition("\n")[0], flush=True)
    while left and (rest := until - time.monotonic()) > 20:
        command = ["timeout", "-k", "5", str(round(rest)), sys.executable, __file__, "rows", str(work), *left]
        env = {**os.environ, "TEARDOWN_CUPTI": "0"}  # a profiler that ends must not break the graphs of the next row
        with open(log, "w") as out, \
                subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=out, text=True, env=env) as child:
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
    from speed import measure

    from pipnet.errors import one_line
    out, sys.stdout = sys.stdout, sys.stderr
    for name in names:
        try:
            row = measure(filled(ROWS[name], Path(work)), rounds=1)
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
    return rows_of(shown, (f"{card} net batch: steps, pixels".strip(), "name"), ("fed, images/s", "images_per_second", ",.0f"),
                 ("bare", "pure_compute", ",.0f"), ("fed / bare", "ratio", ".2f"), ("operators", "operators", "d"),
                 ("launches", "launches", "d"), ("kernels", "kernels", "d"), ("device ms", "device_ms", ".1f"),
                 ("GiB", "peak_gib", ".1f"))


def train(work: Path, until: float, images: float, data: Path) -> dict:
    """Return loss curves of 200 steps, {way and seed: means of 25 steps}, and what a training for the rest of the time reaches.

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
        jobs = {f"{way}, seed {seed}": pool.submit(curve, more, seed, f"curve{number}{seed}")
                for number, (way, more) in enumerate(BOTH.items()) for seed in (0, 1)}
    found: dict = {"curves": {name: job.result() for name, job in jobs.items()}}
    seconds = min(120, until - time.monotonic() - 35)  # it takes these 35 to start and to test
    steps = max(int(0.8 * seconds * images / batch / 10), 0)
    if not steps:
        return found
    rows, lines = trained("long", "--epochs", "10", "--epoch-steps", str(steps), "--test")
    faces, scores = re.search(r"(\d+) faces of ", "\n".join(lines)), work / "runs" / "long" / "report" / "scores.csv"
    times = read_csv(work / "runs" / "long" / "time.csv") or [{"seconds": 0, "images_per_second": 0}]
    return found | {"data": data.name if real else "rendered faces", "steps": steps * len(rows), "batch_size": batch,
                    "passes": round(steps * len(rows) * batch / int(faces[1]), 1) if faces else None,
                    "seconds": round(sum(float(row["seconds"]) for row in times), 1),
                    "images_per_second": round(median(float(row["images_per_second"]) for row in times)),
                    "nme": {row["test set"]: row["NME %"] for row in read_csv(scores)} if scores.is_file() else lines[-1]}


def report(figures: dict) -> str:
    """Return all figures in few lines."""
    paths, training = figures["paths"], dict(figures["train"])
    passed = [f"{name} {row['seconds']:.0f} s" for name, row in paths.items() if row["status"] == "ok"]
    lines = [f"{len(passed)} of {len(paths)} paths as expected: {'; '.join(passed)}"] if paths else []
    lines += [f"{row['status']}: {name}: {row['why']}" for name, row in paths.items() if row["why"]]
    lines += [markdown(figures["shown"])]
    lines += [f"loss of 200 steps, {name}: {means}" for name, means in training.pop("curves", {}).items()]
    return "\n".join([*lines, f"{training or ''}", f"{figures['minutes']} minutes"])


def main(argv: list[str]) -> dict:
    """Measure the parts that are asked for, print and save them, and return them."""
    begun, first = time.monotonic(), next(iter(ROWS))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(SHARES)}; without: all")
    parser.add_argument("--minutes", type=float, default=7)
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help=f"of: {'; '.join([*PATHS, *ROWS])}")
    parser.add_argument("--data", type=Path, default=ROOT / "data" / "300w", metavar="FOLDER", help="a prepared set, for `train`")
    given = parser.parse_args(argv)
    parts, only = chosen(SHARES, given.parts), chosen([*PATHS, *ROWS], given.only)
    figures: dict = {"paths": {}, "rows": {}, "train": {}}
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        status, lines = python(["main.py", "--prepare", *DATA], work, "prepare", 60 * given.minutes)
        if status:
            sys.exit(f"no data: {lines[-1]}")
        for place, part in enumerate(parts):
            now = time.monotonic()
            until = now + (begun + 60 * given.minutes - now) * SHARES[part] / sum(SHARES[other] for other in parts[place:])
            if part == "paths":
                figures["paths"] = run_all(work, until, [name for name in only if name in PATHS])
            elif part == "speed":
                figures["rows"] = speed(work, until, [name for name in only if name in ROWS])
            else:
                rows = figures["rows"] or speed(work, until, [first])
                images = next((row["images_per_second"] for row in rows.values() if "error" not in row), 0)
                figures["train"] = train(work, until, images, given.data)
    card = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    figures["shown"] = speed_rows(figures["rows"], card)
    figures["minutes"] = round((time.monotonic() - begun) / 60, 1)
    saved = save("gpu", " ".join(["python benchmarks/gpu.py", *argv]), 0, figures)
    print(report(json.loads(saved.read_text())), flush=True)
    return figures


if __name__ == "__main__":
    if sys.argv[1:2] == ["rows"]:
        print_rows(*sys.argv[2:])
    else:
        done = main(sys.argv[1:])
        sys.exit(any(row.get("status") == "failed" or "error" in row for row in (done["paths"] | done["rows"]).values()))
