"""The nets that come with the project: `python benchmarks/ship.py landmarks|detector` puts what runs.py trained into weights/.

The weights are stored in 16 bits and cast while the file is loaded: half the size, and the net still computes in float32.
`main.py --test-onnx` must find the file as good as the run before it takes the old one's place; weights/manifest.json says where
it is from.
"""
import hashlib
import json
import sys

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from record import COMMIT, ROOT, rows
from runs import run

from pipnet.files import write_atomic, write_text

WORTH = 256  # numbers in a tensor that is worth a cast
# what a file tells its users: the score at which precision and recall on validation crowds meet
TOLD = {"landmarks": {}, "detector": {"threshold": 0.85}}


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
    run("--test-onnx", "--exp", exp.name)  # exports
    model = halved(onnx.load(exp / "best.onnx"))
    for key, value in TOLD[name].items():
        model.metadata_props.add(key=key, value=json.dumps(value))
    data = model.SerializeToString()
    write_atomic(exp / "best.onnx", lambda path: path.write_bytes(data))
    run("--test", "--test-onnx", "--exp", exp.name)
    file, manifest = ROOT / "weights" / f"{name}.onnx", ROOT / "weights" / "manifest.json"
    write_atomic(file, lambda path: path.write_bytes(data))
    entries = json.loads(manifest.read_text(encoding="utf-8")) if manifest.is_file() else {}
    entries[file.name] = {"sha256": hashlib.sha256(data).hexdigest(), "trained": f"python benchmarks/runs.py {name}",
                          "commit": COMMIT, "scores": rows(exp / "report" / "scores.csv")}
    write_text(manifest, json.dumps(entries, indent=1) + "\n")


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] not in TOLD:
        sys.exit("usage: python benchmarks/ship.py landmarks|detector")
    ship(sys.argv[1])
