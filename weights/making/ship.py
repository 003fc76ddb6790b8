"""Makes a shipped net from a trained one: `python weights/making/make.py ship NAME`, a name of SHIPPED.

A net is NAME.onnx, NAME.int8.onnx, and the checkpoint NAME.pt without the state of its training and the paths of this
machine. Of a net that has learnt several layouts, the exported files have that of its first set. Weights of
NAME.onnx are stored in 16 bits, which halves its size, and are cast to float32 when the file is loaded. The files
replace the old ones only if `main.py --test-formats` finds them as good as the run.
weights/manifest.json says what they were made from.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import torch
from make import stages
from onnx import TensorProto, helper, numpy_helper
from photographs import PLACES, require, run
from record import COMMIT, ROOT

import extras  # noqa: F401 fills the tables of the core
from pipnet.files import write_atomic, write_text
from pipnet.shipped import checksum
from utils.settings.csv_files import read_csv
from utils.train import checkpoint

THRESHOLDS = {"detector": 0.3, "detector-open": 0.4}  # chosen on validation crowds
WORTH = 256  # numbers in a tensor from which it is halved


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


def slim(values: dict, own: dict[str, float]) -> dict:
    """Return the values of a checkpoint with 16-bit tensors, `own` values, and names in place of paths."""

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
    return {
        **values,
        **own,
        **told,
        "model": model,
        "args": {key: plain(value) for key, value in values["args"].items()},
    }


def main(name: str) -> None:
    """Write the files of a net in weights/, and their entries in the manifest."""
    steps = stages()["nets"][name]
    detects, open_data = name in THRESHOLDS, name.endswith("-open")
    require(*["FACEBOXES"] if detects else ["300W", "FACES68"])
    own = {"threshold": THRESHOLDS[name]} if detects else {}
    last = steps[-1].split()
    exp = ROOT / "weights" / (last[-1] if last[0] == "average" else f"bench_{last[-1]}")
    made = exp / "best.onnx"
    made.unlink(missing_ok=True)  # it may be halved already
    run("--test-onnx", "--exp", exp.name)  # exports the net
    model = halved(onnx.load(made))
    values = {entry.key: entry.value for entry in model.metadata_props}
    values |= {key: json.dumps(value) for key, value in own.items()}
    helper.set_model_props(model, {key: worded(value) for key, value in values.items()})
    data = model.SerializeToString()
    write_atomic(made, lambda path: path.write_bytes(data))
    int8 = made.with_suffix(".int8.onnx")
    int8.unlink(missing_ok=True)
    # calibrated on 300W and FACES68, the finder differs by 0.105 in 8 bits, on these by 0.033. With rendered faces and
    # pictures without labels among them, landmark nets find more faces in background
    photographs = ["--train-data", "300W", "ALL_AGES" if name == "finder" else "FACES68"]
    sets = [] if detects or open_data else photographs
    tested = [] if detects else ["--test-data", "300W", "FACES68", "--allow-partial"]
    run("--test-formats", "onnx", "int8", "--exp", exp.name, *sets, *tested)
    run("--test", "--exp", exp.name, *tested)  # each set in a layout of its own
    file, manifest = ROOT / "weights" / f"{name}.onnx", ROOT / "weights" / "manifest.json"
    write_atomic(file, lambda path: path.write_bytes(data))
    files = [file, file.with_suffix(".pt"), file.with_suffix(".int8.onnx")]
    write_atomic(files[-1], lambda path: shutil.copyfile(int8, path))
    checkpoint.save(file.with_suffix(".pt"), slim(checkpoint.load(exp / "best.pt"), own))
    entries = json.loads(manifest.read_text(encoding="utf-8")) if manifest.is_file() else {}
    for one in files:
        entries[one.name] = {
            "sha256": checksum(one),
            "commit": COMMIT,
            "trained": "; ".join(f"python weights/making/make.py {step}" for step in steps),
            "scores": read_csv(exp / "report" / "scores.csv"),
        }
    write_text(manifest, json.dumps(entries, indent=1) + "\n")
