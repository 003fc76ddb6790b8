"""Faces a second that preparation makes of JPEGs of 500 px, crops of 256 px with margin: `python benchmarks/preparation.py`."""
import shutil
import tempfile
import time
from pathlib import Path

from record import save

from utils import DataGenerator
from utils.data.synthetic import generate

FACES, COPIES = 100, 10

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder, "raw"), FACES, 0, size=500)
        for file in sorted(path for path in Path(folder, "raw").rglob("*") if path.suffix in (".jpg", ".pts")):
            for copy in range(COPIES):
                name = f"{file.stem} {copy}{file.suffix}"
                Path(folder, "set", "train").mkdir(parents=True, exist_ok=True)
                shutil.copy(file, Path(folder, "set", "train", name))
        start, busy = time.perf_counter(), time.process_time()
        DataGenerator(Path(folder, "set"), 256, out=Path(folder, "data")).run()
        seconds, core_seconds = time.perf_counter() - start, time.process_time() - busy
    save("preparation", "python benchmarks/preparation.py", 0, {
        "faces": FACES * COPIES, "seconds": round(seconds, 2), "core_seconds": round(core_seconds, 2),
        "faces_per_second": round(FACES * COPIES / seconds, 1),
        "faces_per_core_second": round(FACES * COPIES / core_seconds, 1)})
