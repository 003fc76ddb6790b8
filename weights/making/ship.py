"""Makes a shipped net from a trained one: `python weights/making/make.py ship NAME`, a name of SHIPPED.

A net is NAME.onnx, NAME.int8.onnx, and the checkpoint NAME.pt without the state of its training and the paths of this
machine. Weights of NAME.onnx are stored in 16 bits, which halves its size, and are cast to float32 when the file is
loaded. The files replace the old ones only if `main.py --test-formats` finds them as good as the run.
weights/manifest.json says what they were made from. The limits of a landmark net's scores are measured here and stored.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import torch
from experiments import read, run
from measures.detectors import face_score
from onnx import TensorProto, helper, numpy_helper
from photographs import PLACES, require
from record import COMMIT, ROOT

from pipnet.files import checksum, read_csv, write_atomic, write_text
from utils.evaluate.evaluate import DOUBT
from utils.train import checkpoint

# with a lower threshold, the landmarks confirm more background than faces in validation crowds. The detector of drawn scenes
# has never seen what is no face in a photograph, so the landmarks do not trust it
FOUND = {"detector": {"threshold": 0.3}, "detector-open": {"threshold": 0.4, "trust": 0.0}}
WORTH = 256  # numbers in a tensor from which it is halved


def landmark_limits(exp: Path) -> dict[str, float]:
    """Return the limits of a landmark net's mean landmark score."""
    measured = face_score(str(exp / "best.onnx"), f"faceboxes={PLACES['FACEBOXES_V2']}")
    print(f"face score: {measured}")
    return {"face_limit": measured["limit"], "face_least": round(DOUBT * measured["limit"], 3)}


def without(members: dict[str, dict], measured: dict[str, float]) -> dict[str, dict]:
    """Return the limits of each layout without those that were measured, which hold for all."""
    return {name: {key: one for key, one in limits.items() if key not in measured} for name, limits in members.items()}


def halved(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the graph with its large float32 constants stored as float16 and cast back."""
    graph, casts = model.graph, []
    for tensor in graph.initializer:
        values = numpy_helper.to_array(tensor)
        if (
            tensor.data_type == TensorProto.FLOAT
            and values.size >= WORTH
            and np.abs(values).max() < np.finfo(np.float16).max
        ):
            casts.append(helper.make_node("Cast", [f"{tensor.name}_half"], [tensor.name], to=TensorProto.FLOAT))
            tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{tensor.name}_half"))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.checker.check_model(model)
    return model


def worded(text: str) -> str:
    """Return the text with the names of photographs.py in place of this machine's paths."""
    for word, place in PLACES.items():
        text = text.replace(str(place), word)
    return text.replace(f"{ROOT}/", "")


def slim(values: dict, measured: dict[str, float]) -> dict:
    """Return the values of a checkpoint with 16-bit tensors, the measured limits, and names in place of paths."""

    def plain(value):
        if isinstance(value, list):
            return [plain(item) for item in value]
        if not isinstance(value, str):
            return value
        text = worded(value)
        return Path(text).name if Path(text).is_absolute() else text

    model = {
        name: tensor.half() if torch.is_floating_point(tensor) else tensor for name, tensor in values["model"].items()
    }
    told = {key: worded(value) for key, value in values.items() if isinstance(value, str)}
    members = {"member_limits": without(values["member_limits"], measured)} if "member_limits" in values else {}
    return {
        **values,
        **members,
        **measured,
        **told,
        "model": model,
        "args": {key: plain(value) for key, value in values["args"].items()},
    }


def main(name: str) -> None:
    """Write the files of a net in weights/, and their entries in the manifest."""
    steps = read(Path(__file__).with_name("stages.yaml"))["nets"][name]
    detects, open_data = name in FOUND, name.endswith("-open")
    require(*["FACEBOXES"] if detects else ["300W", "FACES68"], *[] if detects or open_data else ["FACEBOXES_V2"])
    last = steps[-1].split()
    exp = ROOT / "weights" / (last[-1] if last[0] == "average" else f"bench_{last[-1]}")
    (exp / "best.onnx").unlink(missing_ok=True)  # it may be halved already
    run("--test-onnx", "--exp", exp.name)  # exports the net
    model = halved(onnx.load(exp / "best.onnx"))
    values = {entry.key: entry.value for entry in model.metadata_props}
    # an open net has seen no photograph, so its limits are those of its training
    measured = FOUND[name] if detects else {} if open_data else landmark_limits(exp)
    if "member_limits" in values:
        values["member_limits"] = json.dumps(without(json.loads(values["member_limits"]), measured))
    values |= {key: json.dumps(value) for key, value in measured.items()}
    helper.set_model_props(model, {key: worded(value) for key, value in values.items()})
    data = model.SerializeToString()
    write_atomic(exp / "best.onnx", lambda path: path.write_bytes(data))
    (exp / "best.int8.onnx").unlink(missing_ok=True)
    # on all its training sets, the finder differs by 0.067 in 8 bits; on 300W by 0.028. With rendered faces and pictures
    # without labels among them, landmark nets find more faces in background
    photographs = {"finder": ["--train-data", "300W"]}.get(name, ["--train-data", "300W", "FACES68"])
    sets = [] if detects or open_data else photographs
    calibrated = [] if detects else [*sets, "--test-data", "300W", "FACES68", "--allow-partial"]
    run("--test", "--test-formats", "onnx", "int8", "--exp", exp.name, *calibrated)
    file, manifest = ROOT / "weights" / f"{name}.onnx", ROOT / "weights" / "manifest.json"
    write_atomic(file, lambda path: path.write_bytes(data))
    files = [file, file.with_suffix(".pt"), file.with_suffix(".int8.onnx")]
    write_atomic(files[-1], lambda path: shutil.copyfile(exp / "best.int8.onnx", path))
    checkpoint.save(file.with_suffix(".pt"), slim(checkpoint.load(exp / "best.pt"), measured))
    entries = json.loads(manifest.read_text(encoding="utf-8")) if manifest.is_file() else {}
    for one in files:
        entries[one.name] = {
            "sha256": checksum(one),
            "commit": COMMIT,
            "trained": "; ".join(f"python weights/making/make.py {step}" for step in steps),
            "scores": read_csv(exp / "report" / "scores.csv"),
        }
    write_text(manifest, json.dumps(entries, indent=1) + "\n")
