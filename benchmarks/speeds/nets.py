"""Nets: their cost, and the shipped ones in every format."""

import tempfile
from pathlib import Path

import cv2
import numpy as np
import torch
from experiments import run
from photographs import labelled_sets, photographs, place_of, require
from record import ROOT, chosen, result
from shown import rows_of

from extras.runtimes.pipeline import write_pipeline
from extras.tools.zoo import measured_cost
from nets import NETS
from pipnet.detector import Detector
from pipnet.files import SHIPPED, read_csv, shipped
from pipnet.landmarker import Landmarker
from pipnet.runtimes import open_file
from utils.export.files import Source
from utils.settings.formats import TESTED

MORE = ("timm:convnext_atto", "timm:efficientnet_b0", "timm:repvgg_a0", "timm:fastvit_t8", "timm:hrnet_w18")
FACES, BOUND = 224, 0.2  # of each set; px
FLAGS = ["--train-data", "300W", "--test-data", "300W", "FACES68", "--allow-partial"]


def zoo(*nets: str) -> dict:
    """Return parameters, MACs and ONNX latency of nets with a PIP head, at their own input size; without names, of all.

    `16 faces` comes from `python tests/campaigns learning`.
    """
    torch.set_num_threads(1)
    learnt = {name: nme for name, (_, nme) in result("learning").get("learning", {}).items()}
    costs = {name: [round(figure, 3) for figure in measured_cost(name)] for name in chosen([*NETS, *MORE], nets)}
    costs = result("zoo").get("nets", {}) | costs
    rows = [
        {
            "name": f"`{name}`",
            "note": NETS[name].note if name in NETS else "",
            "after": learnt.get(name),
            **dict(zip(("parameters", "macs", "ms"), costs.get(name, ()), strict=False)),
        }
        for name in dict.fromkeys([*NETS, *costs])
    ]
    return {
        "nets": costs,
        "rows": rows_of(
            rows,
            ("`--net`", "name"),
            ("published NME %", "note"),
            ("parameters M", "parameters", ".1f"),
            ("MACs G", "macs", ".2f"),
            ("ONNX ms", "ms", ".1f"),
            ("16 faces", "after", ".2f"),
        ),
    }


def pipeline_figures(net: str) -> dict[str, float]:
    """Return how far the landmarks of the pipeline are from those of `Landmarker`, the largest distance of each face,
    in px.
    """
    detector, apart = shipped("detector.onnx"), []
    landmarker = Landmarker(shipped(f"{net}.onnx"), Detector(weights=detector, threads=1), threads=1, any_roll=False)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "best.pipeline.onnx"
        write_pipeline(Source(shipped(f"{net}.onnx"), lambda: (), detector=detector), file)
        pipeline = open_file(file, 1)
    for record in (record for name in labelled_sets() for record in photographs(name, "test", FACES)):
        image = cv2.imread(str(record.file))
        faces, found = landmarker(image), pipeline.run({"image": image})
        place = place_of(record, np.array([face.box for face in faces]))
        if place is not None and len(found["landmarks"]) == len(faces):
            apart.append(np.linalg.norm(faces[place].landmarks - found["landmarks"][place], axis=1).max())
    beyond = int((np.array(apart) > BOUND).sum())
    return {"faces": len(apart), "median_px": round(float(np.median(apart)), 4), f"beyond_{BOUND}_px": beyond}


def formats(*nets: str) -> dict:
    """Return errors and latencies of the shipped landmark nets in every format: `main.py --test-formats` on 300W and
    FACES68.

    8-bit numbers are calibrated on training faces of 300W. The pipeline is compared with `Landmarker` on the labelled
    faces of whole photographs. Nothing else may run on the machine meanwhile.
    """
    require("300W", "FACES68")
    pipelines, rows = {}, []
    for name in chosen([name for name in SHIPPED if name != "detector"], nets):
        run("--test-formats", *TESTED, "--exp", name, *FLAGS)
        for row in read_csv(ROOT / "weights" / "files" / name / "report" / "formats.csv"):
            times = {
                f"ms: {cores}, {count} crop{'s' * (count > 1)}": f"{row[f'ms, {cores}, batch {count}']} / "
                f"{row[f'p95, {cores[0]}, {count}']}"
                for cores in ("1 core", "2 cores")
                for count in (1, 16)
            }
            rows.append({"net": name, **row, **times})
        pipelines[name] = pipeline_figures(name)
    columns = {
        "net": "net",
        "format": "format",
        "MB": "MB",
        "NME apart, points": "figure apart",
        "landmarks apart, px: mean": "px apart, mean",
        "99.9 %": "99.9%",
        "largest": "largest",
        **{key: key for key in times},
    }
    return {"pipeline": pipelines, "rows": rows_of(rows, *columns.items())}
