"""Time to render the synthetic set, and to prepare sets: `python benchmarks/preparation.py [preparation] [rendering]`.

preparation: faces a second of photographs of 500 px, crops of 256 px with margin. rendering: the default synthetic set.
"""
import shutil
import sys
import tempfile
import time
from pathlib import Path

from record import chosen, save

from utils import DataGenerator
from utils.synthetic import generate

FACES, COPIES = 100, 10
TRAIN, TEST = 2000, 400


def preparation(place: Path) -> dict:
    generate(place / "raw", FACES, 0, size=500)
    train = place / "set" / "train"
    train.mkdir(parents=True)
    for file in sorted(path for path in (place / "raw").rglob("*") if path.suffix in (".jpg", ".pts")):
        for copy in range(COPIES):
            shutil.copy(file, train / f"{file.stem} {copy}{file.suffix}")
    start, busy, count = time.perf_counter(), time.process_time(), FACES * COPIES
    DataGenerator(place / "set", 256, out=place / "data").run()
    seconds, core_seconds = time.perf_counter() - start, time.process_time() - busy
    return {"faces": count, "seconds": round(seconds, 2), "core_seconds": round(core_seconds, 2),
            "faces_per_second": round(count / seconds, 1), "faces_per_core_second": round(count / core_seconds, 1)}


def rendering(place: Path) -> dict:
    start = time.perf_counter()
    generate(place / "raw", TRAIN, TEST)
    rendered = time.perf_counter()
    DataGenerator(place / "raw", dataset="synthetic", out=place / "data").run()
    return {"faces": TRAIN + TEST, "rendering_seconds": round(rendered - start, 1),
            "preparing_seconds": round(time.perf_counter() - rendered, 1)}


MEASURES = {"preparation": preparation, "rendering": rendering}

if __name__ == "__main__":
    for name in chosen(MEASURES, sys.argv[1:]):
        with tempfile.TemporaryDirectory() as folder:
            save(name, f"python benchmarks/preparation.py {name}", 0, MEASURES[name](Path(folder)))
