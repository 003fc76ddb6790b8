"""Whole runs of main.py whose figures stand in the README: `python benchmarks/runs.py NAME ...`, or without names for the list.

Real faces are looked for in the folders named by FACES_300W (the official 300W tree, or a part of it) and FACES68 (images with
68-point .pts in train/ and test/); a run whose data is absent is skipped, saying so.
"""
import csv
import os
import subprocess
import sys
import time

from record import ROOT, save

FACES = {"300W": os.environ.get("FACES_300W", "../shared/300w"), "FACES68": os.environ.get("FACES68", "../shared/faces68")}
REAL = ["--dataset", "300w", "--data-dir", "300W", "--allow-partial", "--test-data", "300w", "FACES68", "--weights", "none"]
SYNTHETIC = ["--dataset", "synthetic", "--synthetic-train", "6000", "--preset", "default",
             "--allow-partial", "--test-data", "300W", "FACES68", "--weights", "none"]

RUNS = {
    "default": ["--train", "--test", "--test-onnx", "--dataset", "synthetic"],
    "real_128": ["--train", "--test", "--test-onnx", *REAL, "--input-size", "128", "--epochs", "30"],
    "synthetic_to_real": ["--train", "--test", "--test-onnx", *SYNTHETIC, "--input-size", "128", "--epochs", "24"],
}


def skipped(flags: list[str]) -> str | None:
    """The folder that is missing, or None."""
    return next((f"{name} ({folder})" for name, folder in FACES.items() if name in flags and not (ROOT / folder).is_dir()), None)


def measure(name: str, flags: list[str]) -> None:
    """Runs main.py in its own experiment and saves its scores, minutes and images/s."""
    command = ["main.py", *(FACES.get(flag, flag) for flag in flags), "--exp", f"bench_{name}", "--overwrite"]
    start = time.perf_counter()
    done = subprocess.run([sys.executable, *command], cwd=ROOT)
    if done.returncode:
        sys.exit(f"{name} failed with status {done.returncode}")
    minutes = (time.perf_counter() - start) / 60
    folder = ROOT / "weights" / f"bench_{name}"
    scores = list(csv.DictReader(open(folder / "report" / "scores.csv", encoding="utf-8")))
    times = list(csv.DictReader(open(folder / "time.csv", encoding="utf-8")))
    speed = sorted(float(row["images_per_second"]) for row in times)[len(times) // 2]
    waiting = sum(float(row["waiting"]) for row in times) / sum(float(row["seconds"]) for row in times)
    save(name, "python " + " ".join(["main.py", *flags]), 0, {
        "minutes": round(minutes, 2), "images_per_second": round(speed, 1), "waiting_for_data": round(waiting, 4),
        "scores": scores})


if __name__ == "__main__":
    wanted = sys.argv[1:]
    if not wanted or not set(wanted) <= set(RUNS):
        sys.exit(f"usage: python benchmarks/runs.py NAME ... (there are: {', '.join(RUNS)})")
    for name in wanted:
        if missing := skipped(RUNS[name]):
            print(f"{name} skipped: no {missing}")
        else:
            measure(name, RUNS[name])
