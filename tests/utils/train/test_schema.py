"""What a checkpoint holds: a value that is missing or of another kind is named where the file is opened."""

import copy
import json

import numpy as np
import pytest
from conftest import DEFAULTS, LAYOUTS, contents, fails, refuses
from small_nets import net_of

from pipnet.card import LandmarkCard
from pipnet.errors import UserError
from utils.settings.config import Settings
from utils.train import checkpoint
from utils.train.schema import checked

WRONG = (None, -1, 0, 10**9, float("nan"), float("inf"), "text", [], {}, True, b"bytes", (1, 2), [1], {"a": 1})
INNER = ("net", "layout", "protocol", "head_options", "preprocess", "groups", "solver", "optimizer")


def places(values: dict, before: tuple = ()):
    """Yield the place of every value in the tables of a checkpoint."""
    for name, value in values.items():
        yield *before, name
        if name in INNER and isinstance(value, dict):
            yield from places(value, (*before, name))


@pytest.fixture(scope="module")
def whole() -> dict:
    """The values of the last checkpoint of a training of two epochs."""
    face = np.random.default_rng(0).random((12, 2))
    net = net_of(meanface=face, num_nb=3)
    rows = [{"epoch": epoch, "lr": 0.1, "loss": 1.0, "val_nme": 6.0 - epoch, "best": 6.0 - epoch} for epoch in range(2)]
    moments = {
        place: {"step": one.new_tensor(8.0), "exp_avg": one.detach()} for place, one in enumerate(net.parameters())
    }
    solver = {
        "net": net.state_dict(),
        "optimizer": {"state": moments, "param_groups": [{}, {}]},
        "scaler": {},
        "average": None,
        "step": 8,
    }
    return contents(
        net,
        LAYOUTS.load("12"),
        epoch=1,
        val_nme=5.0,
        best=5.0,
        data=["c0ffee"],
        meanface=face.tolist(),
        threads=1,
        layouts={"12": DEFAULTS.layouts.rows["12"]},
        rows=rows,
        times=[{"epoch": 0}, {"epoch": 1}],
        solver=solver,
    )


def test_every_wrong_value_is_named_or_harmless(whole):
    checked(whole)
    refused = passed = 0
    keys = (("args", key) for key in ("task", "val", "epochs", "norm"))  # others are checked alike
    for place in (*places({key: value for key, value in whole.items() if key != "model"}), *keys):
        for wrong in (*WRONG, "removed"):
            values = {
                **whole,
                "solver": {**whole["solver"], "optimizer": dict(whole["solver"]["optimizer"])},
                **{key: copy.deepcopy(whole[key]) for key in ("net", "layout", "protocol", "args")},
            }
            table = values
            for name in place[:-1]:
                table = table[name]
            if place[:2] == ("solver", "net") and len(place) > 2:
                continue  # tensors by name: one is like the other
            if wrong == "removed":
                del table[place[-1]]
            else:
                table[place[-1]] = wrong
            try:
                checked(values)
            except ValueError as error:
                assert "\n" not in str(error) and str(place[-1]) in str(error), (place, wrong, str(error))
                refused += 1
                continue
            passed += 1
            try:  # whoever reads the file
                Settings.of(DEFAULTS, values["args"])
            except UserError:
                pass
    assert refused > 4 * passed


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": []}, "rows must be a list of at least 1"),
        ({"epoch": 5}, "rows and times hold 2 and 2 epochs, epoch 5"),
        ({"best": 1.0}, "best is 1.0, the last row has 5.0"),
        ({"meanface": [[0.5, 0.5]]}, "meanface must be null or a list of 12"),
        ({"layouts": {"12": {"count": 3}}}, "layouts.12: .*flip_index"),
        ({"threads": "many"}, "threads must be a whole number"),
        ({"solver": {}}, "solver.net is missing"),
    ],
)
def test_what_contradicts_itself_is_refused(whole, change, message):
    with pytest.raises(ValueError, match=message):
        checked({**whole, **change})


def test_settings_are_brought_to_their_types(whole):
    values = {**whole, "args": {**whole["args"], "train_data": "mine", "epochs": 3, "flip": 1}}
    args = checked(values)["args"]
    assert args["train_data"] == ["mine"] and isinstance(args["flip"], float) and isinstance(args["epochs"], int)


def test_the_commands_name_the_file_and_the_value(trained, faces, cli, tmp_path):
    stored = checkpoint.load(trained.folder / "best.pt")
    checkpoint.save(tmp_path / "best.pt", {**stored, "args": {**stored["args"], "norm": 5}})
    fails(cli("--test --exp", tmp_path / "best.pt", "--test-data", faces), r"best\.pt .*args: norm")
    fails(
        cli("--train", *trained.flags, "--run-root", tmp_path / "runs", "--weights", tmp_path / "best.pt"),
        r"best\.pt .*args: norm",
    )


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("layout", {"count": 3}, "layout.name is missing"),
        ("protocol", None, "protocol must be a table"),
        ("input_size", 10**6, "input_size must be a whole number from 1 to 2048"),
        ("input_size", 4096, "input_size must be a whole number from 1 to 2048"),
        ("face_limit", "high", "face_limit must be"),
        ("states", 5, "states must be null or a list"),
        ("meanface", [[0, 1]], "meanface has 1 landmarks, 12 belong there"),
    ],
)
def test_wrong_metadata_of_an_export_are_named(place, value, message):
    values = {
        "layout": LAYOUTS.load("12").to_dict(),
        "protocol": DEFAULTS.protocols["square"],
        "input_size": 64,
        "outputs": {"landmarks": [12, 2], "score": [12]},
    }
    LandmarkCard.read(json.loads(json.dumps(values)), "net.onnx")
    refuses(f"net.onnx.*{message}", LandmarkCard.read, {**values, place: value}, "net.onnx")
