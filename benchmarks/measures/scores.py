"""A training with its tests, as a user runs it."""

import time

from photographs import run
from record import ROOT

from utils.settings.csv_files import read_csv


def scores(name: str, *flags: str) -> dict:
    """Return the scores, minutes and images/s of main.py with these flags, in weights/bench_NAME."""
    start, folder = time.perf_counter(), ROOT / "weights" / f"bench_{name}"
    run(*flags, "--exp", folder.name, "--overwrite")
    minutes = (time.perf_counter() - start) / 60
    speeds = sorted(float(epoch["images_per_second"]) for epoch in read_csv(folder / "time.csv"))
    rows = read_csv(folder / "report" / "scores.csv")
    whole = [row for row in rows if row["model"] == "torch" and not row["test set"].startswith(" ")]  # no subsets
    shown = {f"NME %, {row['test set'].split('-')[0]}": f"{float(row['NME %']):.2f}" for row in whole}
    return {
        "minutes": round(minutes, 2),
        "images_per_second": speeds[len(speeds) // 2],
        "scores": rows,
        "rows": [{"run": f"`{name}`", **shown}],
    }
