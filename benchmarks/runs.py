"""Whole runs of main.py whose figures stand in the README: `python benchmarks/runs.py NAME ...`, or without names for the list.

Real faces are looked for in the folders named by FACES_300W (the official 300W tree, or a part of it), FACES68 (images with
68-point .pts in train/ and test/) and FACEBOXES (the WIDER layout; TEACHER: published FaceBoxesV2 weights); a run whose data is
absent is skipped, saying so.
"""
import os
import subprocess
import sys
import time
from typing import NamedTuple

from record import ROOT, rows, save

FACES = {"300W": os.environ.get("FACES_300W", "../shared/300w"), "FACES68": os.environ.get("FACES68", "../shared/faces68"),
         "FACEBOXES": os.environ.get("FACEBOXES", "../shared/faceboxes"),
         "TEACHER": os.environ.get("TEACHER", "../shared/reference/FaceBoxesV2.pth")}
REAL = ["--dataset", "300w", "--data-dir", "300W", "--allow-partial", "--test-data", "300w", "FACES68", "--weights", "none"]
SYNTHETIC = ["--dataset", "synthetic", "--synthetic-train", "6000", "--preset", "default", "--no-refine",
             "--allow-partial", "--test-data", "300W", "FACES68", "--weights", "none"]


class Run(NamedTuple):
    """flags of main.py; what the net is trained on, in words."""
    flags: list[str]
    trained_on: str


RUNS = {
    "default": Run(["--train", "--test", "--test-onnx", "--dataset", "synthetic"],
                   "1,800 synthetic faces, 20 epochs at 128 px (the main job)"),
    "synthetic_to_real": Run(["--train", "--test", "--test-onnx", *SYNTHETIC, "--input-size", "128", "--epochs", "24"],
                             "5,400 synthetic faces, 24 epochs at 128 px; no photograph seen"),
    "real_256": Run(["--train", "--test", "--test-onnx", *REAL, "--preset", "short", "--no-refine", "--epochs", "30",
                     "--val", "none"],
                    "2,012 photographs of 300W (part of it), preset `short` without the refiner for 30 epochs (256 px)"),
    "real_256_more": Run(["--train", "--test", "--test-onnx", *REAL, "--train-data", "300w", "FACES68", "--preset", "short",
                          "--label-shift", "0.75", "1.2", "--epochs", "12", "--val", "none"],
                         "these and 3,147 of faces68, preset `short` for 12 epochs (256 px)"),
    "pipnet_256": Run(["--train", "--test", "--test-onnx", *REAL, "--preset", "pipnet", "--epochs", "30", "--milestones", "15",
                       "25", "--weight-decay", "0.0005", "--amp", "auto", "--val", "none"],
                      "2,012 photographs of 300W, preset `pipnet` for 30 epochs (256 px)"),
    "landmarks": Run(["--train", "--test", "--test-onnx", *REAL, "--train-data", "300w", "FACES68", "--net", "timm:resnet10t",
                      "--input-size", "192", "--preset", "robust", "--epochs", "44", "--label-shift", "0.75", "1.2"],
                     "4,613 photographs of 300W and faces68, ResNet-10-T at 192 px, preset `robust` for 44 epochs: "
                     "`weights/landmarks.onnx`"),
}
DETECT = ["--task", "detect", "--train", "--test", "--test-onnx", "--allow-partial", "--margin", "2",
          "--data-root", "data/detector", "--test-data", "FACEBOXES", "--partial-events", "1--people", "--teacher", "TEACHER"]
ALL = ["--train-data", "FACEBOXES", "300W", "FACES68"]
DETECTORS = {  # figures: benchmarks/detector.py
    "detector_start": Run([*DETECT, *ALL, "--epochs", "24"], "small faces first: what the detector starts from"),
    "detector_large": Run([*DETECT, *ALL, "--weights", "weights/bench_detector_start/best.pt", "--learning-rate", "0.0007",
                           "--epochs", "8", "--input-size", "640", "--batch-size", "8", "--crops", "2000", "--mosaic", "0.65",
                           "--pasted", "8", "--face-sides", "12", "600"], "on with large faces"),
    # the boxes of landmark sets are not quite those that people draw
    "detector": Run([*DETECT, "--train-data", "FACEBOXES", "--weights", "weights/bench_detector_large/best.onnx",
                     "--learning-rate", "0.0007", "--epochs", "10", "--input-size", "640", "--batch-size", "8",
                     "--crops", "2000", "--pasted", "0", "--face-sides", "12", "600"],
                    "on with the boxes that people drew alone: `weights/detector.onnx`"),
}


def skipped(flags: list[str]) -> str | None:
    """The folder that is missing, or None."""
    return next((f"{name} ({folder})" for name, folder in FACES.items() if name in flags and not (ROOT / folder).exists()), None)


def run(*flags: str) -> None:
    """main.py, or the end of this program where it fails."""
    if status := subprocess.run([sys.executable, "main.py", *flags], cwd=ROOT).returncode:
        sys.exit(f"main.py {' '.join(flags)} failed with status {status}")


def measure(name: str, flags: list[str]) -> None:
    """Runs main.py in its own experiment and saves its scores, minutes and images/s."""
    start = time.perf_counter()
    run(*(FACES.get(flag, flag) for flag in flags), "--exp", f"bench_{name}", "--overwrite")
    minutes = (time.perf_counter() - start) / 60
    folder = ROOT / "weights" / f"bench_{name}"
    times = rows(folder / "time.csv")
    speed = sorted(float(row["images_per_second"]) for row in times)[len(times) // 2]
    waiting = sum(float(row["waiting"]) for row in times) / sum(float(row["seconds"]) for row in times)
    save(name, "python " + " ".join(["main.py", *flags]), 0, {
        "minutes": round(minutes, 2), "images_per_second": round(speed, 1), "waiting_for_data": round(waiting, 4),
        "scores": rows(folder / "report" / "scores.csv")})


if __name__ == "__main__":
    wanted, known = sys.argv[1:], RUNS | DETECTORS
    if not wanted or not set(wanted) <= set(known):
        sys.exit(f"usage: python benchmarks/runs.py NAME ... (there are: {', '.join(known)})")
    for name in wanted:
        if missing := skipped(known[name].flags):
            print(f"{name} skipped: no {missing}")
        else:
            measure(name, known[name].flags)
