"""Nets, heads, forms of the loss and datasets from outside of the checkout, which only a typed flag imports."""

import re
import subprocess
import sys

import pytest
import torch
from conftest import ROOT, SMALL, fails, refuses, spoilt, typed, works
from own_sets import FIVE, write_rows
from safetensors.torch import save_file

import utils
from extras.datasets import DATASETS
from nets import outside
from utils.data.paths import import_outside
from utils.train.weight_files import load_weights

CODE = """
from extras.datasets.tables import parse_csv
from nets.backbones.slim import ROWS
from nets.registry import HEADS, HeadRow

Small = ROWS["slim"].build

def read(archive):
    parse_csv(archive)

def half(error):
    return error / 2

def broken(**options):
    return None

points = HEADS["coordinate"]
unweighed = HeadRow("nets.heads.coordinate:CoordinateHead", (32,), ("error",), {"coordinate": "weight_of_mine"})
"""
NAMED = [
    "--net",
    "small_parts:Small",
    "--head",
    "small_parts:points",
    "--error",
    "small_parts:half",
    "--dataset",
    "small_parts:read",
]


@pytest.fixture
def parts(tmp_path, monkeypatch):
    """A folder with such code, from which Python imports."""
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "small_parts.py").write_text(CODE)
    monkeypatch.syspath_prepend(tmp_path / "code")
    monkeypatch.setattr(outside, "_typed", {})
    yield tmp_path / "code"
    sys.modules.pop("small_parts", None)
    DATASETS.pop("small_parts:read", None)


@pytest.mark.parametrize(
    ("path", "found"), [("$PWD", True), (".", True), ("/nowhere:$PWD", True), (":/nowhere", False)]
)
def test_the_current_folder_is_searched_where_the_user_names_it(tmp_path, path, found):
    """The usual way, standing in one's own project. What Python adds by itself, or for an empty part, is left out."""
    (tmp_path / "mine.py").write_text("Tiny = None\n")
    command = f"PYTHONPATH={path} {sys.executable} {ROOT}/main.py --train --net mine:Tiny --dataset nowhere"
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    assert re.search("'nowhere' is neither" if found else "'mine:Tiny' cannot be imported.*PYTHONPATH", done.stderr), (
        done.stderr
    )


def test_a_net_a_head_a_loss_and_a_dataset_of_a_package(parts, tmp_path, cli, monkeypatch):
    root = write_rows(tmp_path / "set", [FIVE + i for i in range(20)])
    roots = ["--data-root", tmp_path / "data", "--run-root", tmp_path / "runs"]
    small = [flag for flag in SMALL if flag not in SMALL[:2]]
    works(cli("--train", *NAMED, "--data-dir", root, "--test-split", ".3", "--epochs", "1", *small, *roots))
    for flags in (["--test", "--test-onnx"], ["--train", "--resume"]):
        monkeypatch.setattr(outside, "_typed", {})
        monkeypatch.delitem(DATASETS, "small_parts:read")
        sys.modules.pop("small_parts")
        fails(cli(*flags, "--exp", "000", *roots), "type " + " ".join(NAMED[:6]))
        refuses("--net small_parts:Small", utils.load, tmp_path / "runs" / "000" / "best.pt")
        assert "small_parts" not in sys.modules, "a checkpoint imports nothing"
        works(cli(*flags, "--exp", "000", *NAMED, *roots))
    works(cli("--train", *NAMED[6:], "--data-dir", root, "--test-split", ".3", "--epochs", "1", *SMALL, *roots))
    compared = ["--compare", "001", "000", "--test-data", write_rows(tmp_path / "more", [FIVE]), *roots]
    works(cli(*compared, *NAMED[:6]))  # here they only permit the import
    monkeypatch.setattr(outside, "_typed", {})
    fails(cli(*compared), "type " + " ".join(NAMED[:6]))


@pytest.mark.parametrize(
    ("name", "fault"),
    [("small_parts:Tall", "Tall"), ("none_such:Net", "none_such"), ("small_parts:broken", "no backbone")],
)
def test_what_cannot_be_a_net_is_named(parts, name, fault, tmp_path, cli, recipe):
    fails(cli("--train", *recipe, "--net", name), f"{name}.*{fault}")


@pytest.mark.parametrize(("name", "fault"), [("half", "no head.*HeadRow"), ("unweighed", "weight_of_mine.*no key")])
def test_what_cannot_be_a_head_is_named(parts, name, fault):
    refuses(f"small_parts:{name}.*{fault}", import_outside, typed(f"--head small_parts:{name}"))


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("small_parts:Tall", "correct its code, or the name"),
        ("needs_more:Net", "install nets.backbones.none_such, which its code imports"),
        ("none_such.more:Net", "install its package, or put its folder into PYTHONPATH"),
    ],
)
def test_what_cannot_be_imported_has_a_remedy(parts, name, remedy):
    (parts / "needs_more.py").write_text("import nets.backbones.none_such\n")
    refuses(f"{name}' cannot be imported .*; {remedy}$", import_outside, typed(f"--net {name}"))


def test_an_entry_point_of_an_installed_package_has_a_short_name(parts):
    info = parts / "small-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: small\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[pipnet.losses]\nhalf = small_parts:half\n")
    assert outside.code_of("losses", "half")(4.0) == 2.0 and outside.code_of("nets", "half") is None
    refuses("none_such", import_outside, typed("--error none_such:half"))


def test_a_shipped_net_as_a_module_and_its_tensors_as_safetensors(tmp_path):
    net, file = utils.load("landmarks"), tmp_path / "own.safetensors"
    assert net.spec["input_size"] == 192 and not net.training
    save_file(net.state_dict(), file)
    tensors, known = load_weights(file)
    assert not known and all(torch.equal(tensors[name], value) for name, value in net.state_dict().items())
    spoilt(file, b"damaged", "own.safetensors", load_weights, file)
