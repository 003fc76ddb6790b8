"""Time to render the embedded default's faces, and to prepare them: `python benchmarks/rendering.py`."""
import tempfile
import time
from pathlib import Path

from record import save

from utils import DataGenerator
from utils.data.synthetic import generate

TRAIN, TEST = 2000, 400

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        generate(Path(folder, "raw"), TRAIN, TEST)
        rendered = time.perf_counter()
        DataGenerator(Path(folder, "raw"), dataset="synthetic", out=Path(folder, "data")).run()
        prepared = time.perf_counter()
    save("rendering", "python benchmarks/rendering.py", 0, {
        "faces": TRAIN + TEST, "rendering_seconds": round(rendered - start, 1),
        "preparing_seconds": round(prepared - rendered, 1)})
