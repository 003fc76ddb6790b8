"""Whole runs of main.py for docs/experiments.md: `python benchmarks/runs.py NAME ...`, or without names for the list.

photographs.py says where real faces come from. A run whose data is missing is skipped with a message.
"""
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from photographs import missing, named
from record import ROOT, save

from pipnet.files import read_csv

TEST = ["--train", "--test", "--test-onnx"]
REAL = ["--dataset", "300w", "--data-dir", "300W", "--allow-partial", "--test-data", "300w", "FACES68", "--weights", "none"]
SYNTHETIC = ["--dataset", "synthetic", "--synthetic-train", "6000", "--preset", "default", "--no-refine",
             "--allow-partial", "--test-data", "300W", "FACES68", "--weights", "none"]
SHIPPED = ["--net", "timm:resnet10t", "--input-size", "192", "--preset", "robust", "--train-data"]
FAST = ["--net", "timm:mobilenetv4_conv_small", "--input-size", "128", "--margin", "1.45", "--target-size", "144", "--preset",
        "robust", "--train-data"]
EVERY, SHIFTS = ["300w", "FACES68", "ALL_AGES", "DIVERSE"], ["0.75", "1.2", "0.94", "1.3"]
RELABELLED = [*SHIFTS[:2], "0.81", "1.16"]  # what pseudo_labels.py says when the net of landmarks_hard labels them
LIDS, LID_SHIFTS = ["300w", "LIDS/faces68", "LIDS/all_ages", "LIDS/diverse", "LIDS/shut"], ["0.75", "1.2", "0.85", "1.28", "0"]
NEW_SHIFTS = ["0.75", "1.2", "0.77", "1.04", "0"]  # when the net of landmarks_labeller labels them
LAST_SHIFTS = ["0.75", "1.2", "0.51", "0.87", "0"]  # the same for the net of landmarks_fine
STEADY = ["STEADY/300w", "STEADY/faces68", *LIDS[2:]]
STEADY_SHIFTS = ["0.75", "1.2", "0.47", "0.81", "0"]  # the same for the net of landmarks_shut
WIDE = ["--margin", "1.45", "--target-size", "224"]
# blur up to a thirtieth of the face's width, half of a side hidden, grain and light of bad cameras
HARD = ["--blur", "0.3", "--blur-sigma", "8", "--noise", "0.3", "--noise-sigma", "25", "--occlusion", "0.35", "--occlusion-size",
        "0.55", "--brightness", "0.3", "--contrast", "0.4", "--colour-prob", "0.7", "--roll-prob", "0.15"]
DARK = [*HARD, "--gamma", "3", "--noise", "0.5", "--noise-size", "5"]  # and dark ones, whose small faces are enlarged
# few faces in a batch are clean with the flags above, most are with these, as in photographs
CALM = ["--rotation", "15", "--scale", "0.1", "--translation", "0.05", "--roll-prob", "0.15", "--blur", "0.15", "--blur-sigma",
        "6", "--noise", "0.2", "--noise-sigma", "25", "--noise-size", "5", "--occlusion-size", "0.5", "--gamma", "2",
        "--brightness", "0.3", "--contrast", "0.3", "--colour-prob", "0.6", "--openings", "2", "--epoch-steps", "480", "--warmup",
        "0.1"]
# crops as exact as those round landmarks already found
EXACT = ["--preset", "short", "--roll-prob", "0.1", "--blur-sigma", "6", "--noise-sigma", "25", "--noise-size", "5", "--gamma",
         "1.5", "--openings", "2", "--epochs", "4", "--epoch-steps", "480", "--warmup", "0.1"]
TRUE = ["300w", "LIDS/faces68", "LIDS/shut", "RENDERED_FEW"]  # no set that a net labelled; LIDS/shut has faces of such
SURE = ["300w", "LIDS/faces68", "LIDS/shut_few", "RENDERED_FEW"]  # a quarter of the shut eyes
TRUE_SHIFTS = ["--label-shift", *SHIFTS[:2], "0", "0"]
ONE_LENGTH = ["--epochs", "2", "--epoch-steps", "480", "--learning-rate", "0.0003", "--warmup", "0.1"]
MEAN = "weights/bench_landmarks_mean/best.pt"  # of the nets of landmarks and landmarks_hard
TWO = ["300w", "FACES68", "--weights", MEAN, *DARK, *WIDE, "--label-shift", *SHIFTS[:2], *ONE_LENGTH]


class Run(NamedTuple):
    """flags: of main.py; trained_on: the training data in words, for the tables."""
    flags: list[str]
    trained_on: str


RUNS = {
    "default": Run([*TEST, "--dataset", "synthetic"], "1,800 synthetic faces, 20 epochs at 128 px (the command in README.md)"),
    "synthetic_to_real": Run([*TEST, *SYNTHETIC, "--input-size", "128", "--epochs", "24"],
                             "5,400 synthetic faces, 24 epochs at 128 px; no photograph seen"),
    "real_256": Run([*TEST, *REAL, "--preset", "short", "--no-refine", "--epochs", "30", "--val", "none"],
                    "2,012 photographs of 300W (part of it), preset `short` without the refiner for 30 epochs (256 px)"),
    "real_256_more": Run([*TEST, *REAL, "--train-data", "300w", "FACES68", "--preset", "short", "--label-shift", "0.75", "1.2",
                          "--epochs", "12", "--val", "none"],
                         "these and 3,147 of faces68, preset `short` for 12 epochs (256 px)"),
    "pipnet_256": Run([*TEST, *REAL, "--preset", "pipnet", "--epochs", "30", "--milestones", "15", "25", "--weight-decay",
                       "0.0005", "--amp", "auto", "--val", "none"],
                      "2,012 photographs of 300W, preset `pipnet` for 30 epochs (256 px)"),
    "landmarks_start": Run([*TEST, *REAL, *SHIPPED, "300w", "FACES68", "--epochs", "44", "--label-shift", "0.75", "1.2"],
                           "4,613 photographs of 300W and faces68, ResNet-10-T at 192 px, preset `robust` for 44 epochs"),
    # stored crops with a wide margin, so that turned ones show real pixels in their corners
    "landmarks_roll": Run([*TEST, *REAL, *SHIPPED, *EVERY, "synthetic", "--synthetic-train", "1000", "--synthetic-test", "50",
                           "--weights", "weights/bench_landmarks_start/best.pt", "--roll-prob", "0.4", *WIDE, "--label-shift",
                           *SHIFTS, "0", "--epochs", "15", "--learning-rate", "0.0004", "--warmup", "0.5", "--brightness", "0.3",
                           "--contrast", "0.3", "--colour-prob", "0.7"],
                          "then these, 2,054 pseudo-labelled photographs and 900 synthetic faces at any roll, 15 epochs"),
    "landmarks": Run([*TEST, *REAL, *SHIPPED, *EVERY, "--weights", "weights/bench_landmarks_roll/best.pt", "--roll-prob", "0.15",
                      *WIDE, "--label-shift", *SHIFTS, "--epochs", "3", "--learning-rate", "0.0002", "--warmup", "0.1"],
                     "then the photographs, 3 epochs"),
    "landmarks_hard": Run([*TEST, *REAL, *SHIPPED, *EVERY, "--weights", "weights/bench_landmarks/best.pt", *HARD, *WIDE,
                           "--label-shift", *SHIFTS, "--epochs", "4", "--learning-rate", "0.0003", "--warmup", "0.1"],
                          "then the photographs, blurred and hidden, 4 epochs"),
    # the same steps on labels only, with these photographs unlabelled, and with landmarks that the net before found in them
    "landmarks_labels": Run([*TEST, *REAL, *SHIPPED, *TWO], "then 300W and FACES68, dark and grainy too, 2 epochs of 480 steps"),
    "landmarks_unlabelled": Run([*TEST, *REAL, *SHIPPED, *TWO, "--semi", "mean-teacher", "--unlabelled", "UNLABELLED"],
                                "the same, half of each batch unlabelled photographs, with a mean teacher"),
    "landmarks_dark": Run([*TEST, *REAL, *SHIPPED, *EVERY, "--weights", MEAN, *DARK, *WIDE, "--label-shift", *RELABELLED,
                           *ONE_LENGTH],
                          "the same, with 2,528 pseudo-labelled photographs in place of these"),
    # from the mean again, longer
    "landmarks_wild": Run([*TEST, *REAL, *SHIPPED, *EVERY, "RENDERED", "--weights", MEAN, *DARK, "--roll-prob", "0.3", *WIDE,
                           "--label-shift", *SHIFTS, "0", "--epochs", "6", "--epoch-steps", "480", "--learning-rate", "0.0004",
                           "--warmup", "0.1"],
                          "the photographs, dark and grainy too, and 2,000 rendered faces with shut eyes or turned, 6 epochs of "
                          "480 steps"),
    "landmarks_last": Run([*TEST, *REAL, *SHIPPED, *EVERY, "RENDERED_FEW", "--weights", "weights/bench_landmarks_wild/best.pt",
                           *DARK, "--blur-sigma", "6", "--noise", "0.35", "--gamma", "2", "--roll-prob", "0.2", *WIDE,
                           "--label-shift", *SHIFTS, "0", "--epochs", "8", "--epoch-steps", "480", "--learning-rate", "0.0003",
                           "--warmup", "0.1"],
                          "the photographs and 1,000 rendered faces, less dark and grainy, 8 epochs of 480 steps"),
    "landmarks_lids": Run([*TEST, *REAL, *SHIPPED, *LIDS, "RENDERED_FEW", "--weights", "weights/bench_landmarks_last/best.pt",
                           "--openings", "2", *DARK, "--blur-sigma", "6", "--noise", "0.4", "--gamma", "2.5", "--roll-prob",
                           "0.2", *WIDE, "--label-shift", *LID_SHIFTS, "0", "--epochs", "10", "--epoch-steps", "480",
                           "--learning-rate", "0.0004", "--warmup", "0.1"],
                          "the same, faces with shut eyes and a loss of how open eyes and lips are, 10 epochs of 480 steps"),
    # weak augmentation, only faces with labels; this net labels the photographs of the stages below anew
    "landmarks_labeller": Run([*TEST, *REAL, *SHIPPED, "300w", "FACES68", "--preset", "short", "--weights",
                               "weights/bench_landmarks_lids/best.pt", *WIDE, "--label-shift", "0.75", "1.2", "--epochs", "4",
                               "--learning-rate", "0.0005", "--warmup", "0.1"],
                              "then 300W and FACES68, weak augmentation, 4 epochs"),
    "landmarks_calm": Run([*TEST, *REAL, *SHIPPED, *LIDS, "RENDERED_FEW", "--weights",
                           "weights/bench_landmarks_labeller/best.pt", *CALM, *WIDE, "--label-shift", *NEW_SHIFTS, "0",
                           "--epochs", "12", "--learning-rate", "0.0006"],
                          "then the faces of `landmarks_lids` with labels of `landmarks_labeller`, most of them clean and "
                          "nearly upright, 12 epochs of 480 steps"),
    "landmarks_exact": Run([*TEST, *REAL, *SHIPPED, *TRUE, "--weights", "weights/bench_landmarks_calm/best.pt", *EXACT, *WIDE,
                            *TRUE_SHIFTS, "--learning-rate", "0.0005"],
                           "then without pseudo-labels, weak augmentation, 4 epochs of 480 steps"),
    "landmarks_fine": Run([*TEST, *REAL, *SHIPPED, *TRUE, "--weights", "weights/bench_landmarks_exact/best.pt", *EXACT, *WIDE,
                           *TRUE_SHIFTS, "--learning-rate", "0.0006", "--epochs", "12"],
                          "the same, 12 epochs more"),
    # with what lids.py makes of FACES68 since it asks the net of landmarks_fine: real shut eyes that the labels say are open
    "landmarks_shut": Run([*TEST, *REAL, *SHIPPED, *TRUE, "--weights", "weights/bench_landmarks_fine/best.pt", *EXACT, *WIDE,
                           *TRUE_SHIFTS, "--learning-rate", "0.0005"],
                          "the same with corrected labels of shut eyes in FACES68, 4 epochs"),
    "landmarks_steady": Run([*TEST, *REAL, *SHIPPED, *STEADY, "RENDERED_FEW", "--weights", "weights/bench_landmarks_shut/best.pt",
                             *EXACT, *WIDE, "--label-shift", *STEADY_SHIFTS, "0", "--learning-rate", "0.0008", "--epochs", "15"],
                            "with labels half way to what `landmarks_shut` finds in eight crops, and its pseudo-labels, 15 "
                            "epochs"),
    "landmarks_sure": Run([*TEST, *REAL, *SHIPPED, *SURE, "--weights", "weights/bench_landmarks_steady/best.pt", *EXACT, *WIDE,
                           *TRUE_SHIFTS, "--learning-rate", "0.0006", "--epochs", "7"],
                          "then the sets of `landmarks_shut` with a quarter of the shut eyes, 7 epochs"),
    "landmarks_again": Run([*TEST, *REAL, *SHIPPED, *LIDS, "RENDERED_FEW", "--weights", "weights/bench_landmarks_fine/best.pt",
                            *EXACT, *WIDE, "--label-shift", *LAST_SHIFTS, "0", "--learning-rate", "0.0006", "--epochs", "10"],
                           "`landmarks_fine`, then with its pseudo-labels too, 10 epochs"),
    "landmarks_224": Run([*TEST, *REAL, *SHIPPED, *TRUE, "--weights", "weights/bench_landmarks_exact/best.pt", *EXACT, *WIDE,
                          *TRUE_SHIFTS, "--learning-rate", "0.0006", "--epochs", "9",
                          "--input-size", "224"],
                         "the same instead, at 224 px, 9 epochs"),
    "landmarks-fast": Run([*TEST, *REAL, *FAST, *EVERY, "--roll-prob", "0.15",
                           "--label-shift", *SHIFTS, "--epochs", "50", "--brightness", "0.3", "--colour-prob", "0.7"],
                          "all photographs, MobileNetV4-conv-small at 128 px, preset `robust` for 50 epochs"),
    "landmarks-fast_hard": Run([*TEST, *REAL, *FAST, *EVERY, "--weights", "weights/bench_landmarks-fast/best.pt", *HARD,
                                "--label-shift", *SHIFTS, "--epochs", "6", "--learning-rate", "0.0004", "--warmup", "0.1"],
                               "then the photographs, blurred and hidden, 6 epochs"),
    "landmarks-fast_lids": Run([*TEST, *REAL, *FAST, *LIDS, "RENDERED_FEW", "--weights",
                                "weights/bench_landmarks-fast_mean/best.pt", "--openings", "2", *HARD, "--label-shift",
                                *LID_SHIFTS, "0", "--epochs", "6", "--epoch-steps", "480", "--learning-rate", "0.0004",
                                "--warmup", "0.1"],
                               "then, from the mean of both, faces with shut eyes and 1,000 rendered ones too, 6 epochs of 480 "
                               "steps"),
    "landmarks-fast_calm": Run([*TEST, *REAL, *FAST, *LIDS, "RENDERED_FEW", "--weights",
                                "weights/bench_landmarks-fast_lids/best.pt", *CALM, "--label-shift", *NEW_SHIFTS, "0",
                                "--epochs", "16", "--learning-rate", "0.0008"],
                               "the faces of `landmarks_calm`, most of them clean and nearly upright, 16 epochs of 480 steps"),
    "landmarks-fast_exact": Run([*TEST, *REAL, *FAST, *TRUE, "--weights", "weights/bench_landmarks-fast_calm/best.pt", *EXACT,
                                 *TRUE_SHIFTS, "--learning-rate", "0.0006"],
                                "then without pseudo-labels, weak augmentation, 4 epochs of 480 steps"),
    "landmarks-fast_fine": Run([*TEST, *REAL, *FAST, *TRUE, "--weights", "weights/bench_landmarks-fast_exact/best.pt", *EXACT,
                                *TRUE_SHIFTS, "--learning-rate", "0.0008", "--epochs", "16"],
                               "the same, 16 epochs more"),
    "landmarks-fast_again": Run([*TEST, *REAL, *FAST, *LIDS, "RENDERED_FEW", "--weights",
                                 "weights/bench_landmarks-fast_fine/best.pt", *EXACT, "--label-shift", *LAST_SHIFTS, "0",
                                 "--learning-rate", "0.0008", "--epochs", "16"],
                                "then with pseudo-labels of `landmarks_fine` too, 16 epochs"),
    "landmarks-fast_shut": Run([*TEST, *REAL, *FAST, *LIDS, "RENDERED_FEW", "--weights",
                                "weights/bench_landmarks-fast_again/best.pt", *EXACT, "--label-shift", *LAST_SHIFTS, "0",
                                "--learning-rate", "0.0008", "--epochs", "14"],
                               "the same with corrected labels of shut eyes in FACES68, 14 epochs"),
    "landmarks-fast_steady": Run([*TEST, *REAL, *FAST, *STEADY, "RENDERED_FEW", "--weights",
                                  "weights/bench_landmarks-fast_shut/best.pt", *EXACT, "--label-shift", *STEADY_SHIFTS, "0",
                                  "--learning-rate", "0.001", "--epochs", "18"],
                                 "then the labels of `landmarks_steady`, 18 epochs"),
}
DETECT = ["--task", "detect", *TEST, "--allow-partial", "--margin", "2", "--data-root", "data/detector",
          "--test-data", "FACEBOXES", "--partial-events", "1--people", "--teacher", "FACEBOXES_V2"]
ALL = ["--train-data", "FACEBOXES", "300W", "FACES68"]
LARGE = ["--learning-rate", "0.0007", "--input-size", "640", "--batch-size", "8", "--crops", "2000",
         "--face-sides", "12", "600"]
DETECTORS = {  # benchmarks/detector.py measures what they find
    "detector_start": Run([*DETECT, *ALL, "--epochs", "24"], "small faces: the first stage"),
    "detector_large": Run([*DETECT, *ALL, *LARGE, "--weights", "weights/bench_detector_start/best.pt", "--epochs", "8",
                           "--mosaic", "0.65", "--pasted", "8"], "large faces: the second stage"),
    # landmark sets give boxes that differ a little from those that people draw, so this stage goes without them
    "detector_crowds": Run([*DETECT, *LARGE, "--train-data", "FACEBOXES", "--weights", "weights/bench_detector_large/best.onnx",
                            "--epochs", "10", "--pasted", "0"], "boxes that people drew, only these"),
    "detector_roll": Run([*DETECT, *LARGE, *ALL, "ALL_AGES", "DIVERSE", "--weights", "weights/bench_detector_crowds/best.onnx",
                     "--epochs", "7", "--mosaic", "0.6", "--pasted", "4", "--roll-prob", "0.3", "--brightness", "0.3"],
                    "portraits again, and faces at any roll"),
}


def run(*flags: str) -> None:
    """Run main.py. Stop this program if it fails."""
    if status := subprocess.run([sys.executable, "main.py", *named(list(flags))], cwd=ROOT).returncode:
        sys.exit(f"main.py {' '.join(flags)} failed with status {status}")


def train(exp: str, flags: list[str]) -> Path:
    """Train weights/EXP unless it is complete; continue a run that was killed. Return its folder. flags: with --epochs."""
    folder, epochs = ROOT / "weights" / exp, int(flags[flags.index("--epochs") + 1])
    if len(read_csv(folder / "step.csv")) < epochs:
        how = "--resume" if any((folder / name).is_file() for name in ("last.pt", "round0/last.pt")) else "--overwrite"
        run("--train", how, "--exp", exp, *flags)
    return folder


def pose_and_states(folder: Path) -> list[str]:
    """Return what a run's log says of pose and states, once for each test of the net in torch."""
    log = (folder / "log.txt").read_text(encoding="utf-8").splitlines()
    return [line.partition(", torch: ")[2] for line in log if ", torch: pose" in line]


def measure(name: str, flags: list[str]) -> None:
    """Run main.py in weights/bench_NAME and save its scores, minutes and images/s."""
    start = time.perf_counter()
    run(*flags, "--exp", f"bench_{name}", "--overwrite")
    minutes = (time.perf_counter() - start) / 60
    folder = ROOT / "weights" / f"bench_{name}"
    times = read_csv(folder / "time.csv")
    speed = sorted(float(row["images_per_second"]) for row in times)[len(times) // 2]
    waiting = sum(float(row["waiting"]) for row in times) / sum(float(row["seconds"]) for row in times)
    save(name, "python " + " ".join(["main.py", *flags]), 0, {
        "minutes": round(minutes, 2), "images_per_second": round(speed, 1), "waiting_for_data": round(waiting, 4),
        "scores": read_csv(folder / "report" / "scores.csv")})


if __name__ == "__main__":
    wanted, known = sys.argv[1:], RUNS | DETECTORS
    if not wanted or not set(wanted) <= set(known):
        sys.exit(f"usage: python benchmarks/runs.py NAME ... (there are: {', '.join(known)})")
    for name in wanted:
        if why := missing(known[name].flags):
            print(f"{name} skipped: {why}")
        else:
            measure(name, known[name].flags)
