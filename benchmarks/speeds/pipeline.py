"""Time of the pipeline graphs beside that of `Landmarker`."""

import tempfile
from functools import partial
from pathlib import Path
from time import perf_counter

import cv2
from record import ROOT

from extras.runtimes.pipeline import write_pipeline, write_pipeline_int8
from pipnet.landmarker import Landmarker
from pipnet.session import open_session
from pipnet.shipped import shipped
from utils.export.files import Source

CALLS, SIDE = 200, 420  # calls of each; px of the picture


def pipeline() -> dict:
    """Return the least ms of CALLS calls on one core, for one face in a picture of SIDE x SIDE px.

    The calls take turns, so that other work on the machine slows all of them.
    """
    image = cv2.resize(cv2.imread(str(ROOT / "assets" / "astronaut.jpg")), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    source = Source(
        shipped("landmarks.onnx"), lambda: (), detector=shipped("detector.onnx"), int8=shipped("landmarks.int8.onnx")
    )
    calls = {}
    with tempfile.TemporaryDirectory() as folder:
        for bits, write in ((8, write_pipeline_int8), (32, write_pipeline)):
            file = Path(folder) / f"{bits}.onnx"
            write(source, file)
            graph, names = open_session(file, 1), ["landmarks"]
            calls["the graph", bits] = partial(graph.run, names, {"image": image})
            find = Landmarker(device="cpu", int8=bits == 8, any_roll=False, threads=1)
            calls["`Landmarker(any_roll=False)`", bits] = partial(find, image)
        times = {key: [] for key in calls}
        for _ in range(CALLS):
            for key, call in calls.items():
                start = perf_counter()
                call()
                times[key].append(1000 * (perf_counter() - start))
    rows = {}
    for (way, bits), found in times.items():
        rows.setdefault(way, {"ms of a picture": way})[f"{bits} bits"] = f"{min(found):.0f}"
    return {"rows": list(rows.values())}
