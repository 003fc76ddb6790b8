"""Whole containers that hold a wrong value: checkpoints, metadata of exports, and the text files of runs and prepared
sets.
"""

import contextlib
import io
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import yaml
from file_formats import Format, make_prepared, one_folder
from victims import ROOT, TINY

WRONG = (None, -1, 0, 10**9, float("nan"), float("inf"), "text", "", [], {}, True, [1, 2], {"a": 1})
# fmt: off
DEEP = ("net", "layout", "protocol", "args", "head_options", "preprocess", "groups", "solver", "optimizer", "figures", "outputs",
        "best.pt", "best.onnx", "landmarks.onnx", "splits", "counts", "expected", "found")
# fmt: on


def places(values: dict, before: tuple = ()) -> Iterator[tuple]:
    """Yield the place of every value in a tree of tables; tables whose names are data are not entered."""
    for name, value in values.items():
        yield *before, name
        if isinstance(value, dict) and name in DEEP:
            yield from places(value, (*before, name))


def spoilt(values: dict, rng: np.random.Generator, wrong: tuple = WRONG) -> dict:
    """Return a tree with one value removed or replaced."""
    every = list(places(values))
    *path, name = every[rng.integers(len(every))]
    choice, table = rng.integers(len(wrong) + 1), values
    for part in path:
        table = table[part]
    if choice == len(wrong):
        del table[name]
    else:
        table[name] = wrong[choice]
    return values


def checkpoint_value(data: bytes, rng: np.random.Generator) -> bytes:
    import torch

    out = io.BytesIO()
    torch.save(spoilt(torch.load(io.BytesIO(data), weights_only=True), rng, (*WRONG, b"bytes", (1, 2))), out)
    return out.getvalue()


def onnx_value(data: bytes, rng: np.random.Generator) -> bytes:
    import onnx

    model = onnx.load_from_string(data)
    values = {}
    for entry in model.metadata_props:
        try:
            values[entry.key] = json.loads(entry.value)
        except ValueError:
            values[entry.key] = entry.value
    values = spoilt(values, rng)
    del model.metadata_props[:]
    for key, value in values.items():
        model.metadata_props.add(key=key, value=value if isinstance(value, str) else json.dumps(value))
    return model.SerializeToString()


def json_value(data: bytes, rng: np.random.Generator) -> bytes:
    return json.dumps(spoilt(json.loads(data), rng)).encode()


def yaml_value(data: bytes, rng: np.random.Generator) -> bytes:
    return yaml.safe_dump(spoilt(yaml.safe_load(data), rng), allow_unicode=True).encode()


def csv_value(data: bytes, rng: np.random.Generator) -> bytes:
    """Replace one cell of a CSV file, or drop one."""
    rows = [line.split(",") for line in data.decode().splitlines()]
    row = rows[rng.integers(len(rows))]
    place, wrong = rng.integers(len(row)), ("nan", "-1", "text", "", "1e999", "[]", "\x00", None)[rng.integers(8)]
    row[place : place + 1] = [] if wrong is None else [wrong]
    return "\n".join(map(",".join, rows)).encode()


def _main(*words: object) -> None:
    import main

    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        main.main([*map(str, words)])


def _trained(folder: Path, *more: str) -> Path:
    """Train and test a small net; return its folder. folder: for data/ and runs/."""
    roots = ("--data-root", folder / "data", "--run-root", folder / "runs", "--exp", "run", "--workers", 0)
    _main("--train", "--test", *roots, *TINY, "--epochs", 2, *more)
    return folder / "runs" / "run"


def _in_run(name: str, *more: str) -> Callable[[Path], list[tuple[Path, str]]]:
    def make(folder: Path) -> list[tuple[Path, str]]:
        _trained(folder, *more)
        return [(folder, f"runs/run/{name}")]

    return make


def read_run(file: Path) -> None:
    """Test a run and resume it, each with its checkpoint changed; what is refused changes nothing."""
    from pipnet.errors import UserError

    run, root, refused = file.parent, file.parents[2], None
    if file.name == "last.pt":
        import torch

        state = ("solver", "rows", "times", "best")
        values = torch.load(file, weights_only=True)
        torch.save({key: value for key, value in values.items() if key not in state}, run / "best.pt")
    roots = ("--data-root", root / "data", "--exp", run, "--workers", 0, "--threads", 1)
    for words in (("--test", "--export", "onnx"), ("--train", "--resume", "--epochs", 3)):
        before = file.read_bytes()
        try:
            _main(*words, *roots)
        except UserError as error:
            refused = error
            assert file.read_bytes() == before, f"{words[0]} is refused, and {file.name} has changed"
    if refused:
        raise refused


def read_tested(file: Path) -> None:
    """Test a run, whose report shows its tables."""
    _main("--test", "--data-root", file.parents[2] / "data", "--exp", file.parent, "--workers", 0, "--threads", 1)


def _exported(kind: str, name: str) -> Callable[[Path], list[tuple[Path, str]]]:
    """Return a function that exports a small net to a format; name: of the file whose values are changed."""

    def make(folder: Path) -> list[tuple[Path, str]]:
        run = _trained(folder / "made")
        _main("--export", kind, "--exp", run, "--threads", 1)
        kept = folder / "net"
        kept.mkdir()
        for path in run.glob("best.*"):
            if path.suffix != ".pt":
                shutil.copy(path, kept)
        return [(kept, name)]

    return make


def read_export(file: Path) -> None:
    """Find faces with an exported net."""
    from pipnet.app import demo

    net = file.with_suffix("") if file.suffix == ".json" else file
    words = ["--source", ROOT / "assets/astronaut.jpg", "--exp", net, "--json", file.parent / "out.jsonl"]
    demo.main([*map(str, words), "--threads", "1", "--upright"])


def read_detector(file: Path) -> None:
    from pipnet import Detector

    Detector("faceboxes", file, threads=1)(np.zeros((64, 64, 3), np.uint8))


def make_detector(folder: Path) -> list[tuple[Path, str]]:
    return one_folder(
        folder, {name: (ROOT / "weights" / name).read_bytes() for name in ("detector.onnx", "detector.pt")}
    )


def detector_value(data: bytes, rng: np.random.Generator) -> bytes:
    return (checkpoint_value if data.startswith(b"PK") else onnx_value)(data, rng)


def make_meta(folder: Path) -> list[tuple[Path, str]]:
    return [made for made in make_prepared(folder) if made[1] == "meta.yaml"]


def read_prepared(file: Path) -> None:
    """Draw the faces of a prepared set."""
    _main("--show-data", 2, "--dataset", file.parent, "--data-root", file.parent.parent / "data", "--threads", 1)


def read_with_manifest(file: Path) -> None:
    _main("--export", "onnx", "--exp", file.parent, "--threads", 1)


VALUES: dict[str, Format] = {
    "value of a checkpoint": Format(_in_run("last.pt"), read_run, (checkpoint_value,)),
    "value in ONNX": Format(_exported("onnx", "best.onnx"), read_export, (onnx_value,)),
    "value beside MNN": Format(_exported("mnn", "best.mnn.json"), read_export, (json_value,)),
    "value of a detector": Format(make_detector, read_detector, (detector_value,)),
    "value of a manifest": Format(_in_run("manifest.json", "--export", "onnx"), read_with_manifest, (json_value,)),
    "value of args.yaml": Format(_in_run("args.yaml"), read_tested, (yaml_value,)),
    "value of step.csv": Format(_in_run("step.csv"), read_tested, (csv_value,)),
    "value of time.csv": Format(_in_run("time.csv"), read_tested, (csv_value,)),
    "value of meta.yaml": Format(make_meta, read_prepared, (yaml_value,)),
}
