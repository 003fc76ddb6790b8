"""Errors and latencies of the shipped landmark nets in every format: `python benchmarks/formats.py [NET ...]`.

It runs `main.py --test-formats` on the test faces of 300W and FACES68 (photographs.py says where they come from); 8-bit numbers
are calibrated on training faces of 300W. The pipeline is compared with `Landmarker` on the labelled faces of whole photographs.
Nothing else may run on the machine meanwhile.
"""
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np
from experiments import run
from photographs import labelled_sets, photographs, place_of, require
from record import ROOT, chosen, save
from shown import rows_of

from pipnet.files import SHIPPED, read_csv, shipped
from pipnet.landmarker import Landmarker
from pipnet.runtimes import open_file
from utils.export.files import Source
from utils.export.pipeline import write_pipeline
from utils.formats import TESTED

FACES, BOUND = 224, 0.2  # of each set; px
FLAGS = ["--train-data", "300W", "--test-data", "300W", "FACES68", "--allow-partial"]


def pipeline_figures(net: str) -> dict[str, float]:
    """Return how far the landmarks of the pipeline are from those of `Landmarker`, the largest distance of each face, in px."""
    landmarker, apart = Landmarker(shipped(f"{net}.onnx"), threads=1, any_roll=False), []
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "best.pipeline.onnx"
        write_pipeline(Source(shipped(f"{net}.onnx"), lambda: (), detector=shipped("detector.onnx")), file)
        pipeline = open_file(file, 1)
    for record in (record for name in labelled_sets() for record in photographs(name, "test", FACES)):
        image = cv2.imread(str(record.file))
        faces, found = landmarker(image), pipeline.run({"image": image})
        place = place_of(record, np.array([face.box for face in faces]))
        if place is not None and len(found["landmarks"]) == len(faces):
            apart.append(np.linalg.norm(faces[place].landmarks - found["landmarks"][place], axis=1).max())
    beyond = int((np.array(apart) > BOUND).sum())
    return {"faces": len(apart), "median_px": round(float(np.median(apart)), 4), f"beyond_{BOUND}_px": beyond}


if __name__ == "__main__":
    names = chosen([name for name in SHIPPED if name != "detector"], sys.argv[1:])
    require("300W", "FACES68")
    pipelines, rows = {}, []
    for name in names:
        run("--test-formats", *TESTED, "--exp", name, *FLAGS)
        for row in read_csv(ROOT / "weights" / "files" / name / "report" / "formats.csv"):
            times = {f"ms: {cores}, {count} crop{'s' * (count > 1)}": f"{row[f'ms, {cores}, batch {count}']} / "
                     f"{row[f'p95, {cores[0]}, {count}']}" for cores in ("1 core", "2 cores") for count in (1, 16)}
            rows.append({"net": name, **row, **times})
        pipelines[name] = pipeline_figures(name)
    columns = {"net": "net", "format": "format", "MB": "MB", "NME apart, points": "figure apart",
               "landmarks apart, px: mean": "px apart, mean", "99.9 %": "99.9%", "largest": "largest",
               **{key: key for key in times}}
    save("formats", " ".join(["python benchmarks/formats.py", *sys.argv[1:]]), 0, {
        "pipeline": pipelines, "rows": rows_of(rows, *columns.items())})
