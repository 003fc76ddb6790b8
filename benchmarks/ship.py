"""The nets that come with the project: `python benchmarks/ship.py landmarks|detector` puts what runs.py trained into weights/.

The weights are stored in 16 bits and cast while the file is loaded: half the size, and the net still computes in float32.
`main.py --test-onnx` must find the file as good as the run before it takes the old one's place; weights/manifest.json says where
it is from. The limits that the files tell their users are measured on the way, with the data that runs.py names (and that of
detector.py): of the landmark net the face score's, of the detector the score at which precision and recall are the same.
"""
import hashlib
import json
import os
import sys
from pathlib import Path

import face_score
import numpy as np
import onnx
from detector import PARTIAL, PUBLISHED
from onnx import TensorProto, helper, numpy_helper
from record import COMMIT, ROOT, rows
from runs import FACES, run

from pipnet.detector import Detector
from pipnet.files import write_atomic, write_text
from pipnet.landmarker import Landmarker
from utils.config import read_yaml
from utils.data.prepared_set import read_image
from utils.data.wider import divide, read_wider
from utils.test import detection_metric as metric
from utils.test.find_faces import find, onnx_detector

WORTH = 256  # numbers in a tensor that is worth a cast
DOUBT = 0.8  # of the face score's limit: few faces have so little, but half of what detectors take for one by mistake


def landmark_limits(exp: Path) -> dict[str, float]:
    """What a landmark net tells of its scores."""
    os.environ.setdefault("FACES_300W", str(ROOT / FACES["300W"]))
    measured = face_score.measure(exp / "best.onnx", Detector("faceboxes", PUBLISHED, threshold=0.2, scale=1.0))
    print(f"face score: {measured}")
    return {"face_limit": measured["limit"], "face_least": round(DOUBT * measured["limit"], 3)}


def detector_limits(exp: Path) -> dict[str, float]:
    """What a detector tells of its scores: where precision and recall meet on the crowds that it was validated on, among the
    faces that the landmarks of the shipped net bear out."""
    landmarker = Landmarker(detector=Detector(weights=exp / "best.onnx"))
    pictures = read_wider(ROOT / FACES["FACEBOXES"], "train", PARTIAL)
    args = read_yaml(exp / "args.yaml")
    crowds = [picture for picture in divide(pictures, args["val"], args["seed"])[1] if picture.whole]
    matches, scores, faces = [], [], 0
    for (boxes, values), picture in zip(find(onnx_detector(exp / "best.onnx"), crowds, 1.0), crowds, strict=True):
        match, counted = metric.matched(boxes, picture)
        image = read_image(picture.file)
        found = landmarker.landmarks_of(image, landmarker.detector.face_box(boxes)) if len(boxes) else []
        sure = np.array([landmarker.is_face(face) for face in landmarker.crop_again(image, found)], bool) & (match != -2)
        matches.append(match[sure] >= 0)
        scores.append(values[sure])
        faces += counted.sum()
    order = np.argsort(-np.concatenate(scores), kind="stable")
    right = np.cumsum(np.concatenate(matches)[order])
    even = min(faces, len(order)) - 1  # as many boxes as there are faces
    print(f"detector: {right[even] / faces:.3f} is precision and recall on {len(crowds)} crowds")
    return {"threshold": round(float(np.concatenate(scores)[order][even]), 3)}


TRAINED = {"landmarks": "landmarks",
           "detector": "detector_start detector_large detector"}  # by which runs
LIMITS = {"landmarks": landmark_limits, "detector": detector_limits}


def halved(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph with large float32 constants stored as float16 and cast back."""
    graph, casts = model.graph, []
    for tensor in graph.initializer:
        values = numpy_helper.to_array(tensor)
        if tensor.data_type == TensorProto.FLOAT and values.size >= WORTH and np.abs(values).max() < np.finfo(np.float16).max:
            casts.append(helper.make_node("Cast", [f"{tensor.name}_half"], [tensor.name], to=TensorProto.FLOAT))
            tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{tensor.name}_half"))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.checker.check_model(model)
    return model


def ship(name: str) -> None:
    """weights/NAME.onnx and its entry in the manifest, from the run weights/bench_NAME."""
    exp = ROOT / "weights" / f"bench_{name}"
    (exp / "best.onnx").unlink(missing_ok=True)  # one that was shipped is halved already
    run("--test-onnx", "--exp", exp.name)  # exports
    model = halved(onnx.load(exp / "best.onnx"))
    told = {entry.key: entry.value for entry in model.metadata_props}
    told |= {key: json.dumps(value) for key, value in LIMITS[name](exp).items()}
    for word, folder in FACES.items():  # as runs.py has them, not where they lie here
        told = {key: value.replace(folder, word) for key, value in told.items()}
    helper.set_model_props(model, told)
    data = model.SerializeToString()
    write_atomic(exp / "best.onnx", lambda path: path.write_bytes(data))
    run("--test", "--test-onnx", "--exp", exp.name)
    file, manifest = ROOT / "weights" / f"{name}.onnx", ROOT / "weights" / "manifest.json"
    write_atomic(file, lambda path: path.write_bytes(data))
    entries = json.loads(manifest.read_text(encoding="utf-8")) if manifest.is_file() else {}
    entries[file.name] = {"sha256": hashlib.sha256(data).hexdigest(), "trained": f"python benchmarks/runs.py {TRAINED[name]}",
                          "commit": COMMIT, "scores": rows(exp / "report" / "scores.csv")}
    write_text(manifest, json.dumps(entries, indent=1) + "\n")


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] not in LIMITS:
        sys.exit("usage: python benchmarks/ship.py landmarks|detector")
    ship(sys.argv[1])
