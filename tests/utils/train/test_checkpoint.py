"""Checkpoints: each file is whole or absent, holds no code, and describes a net that can be built."""

import io
import os
import pickle
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import LAYOUTS, ROOT, contents, refuses
from small_nets import net_of

from pipnet.errors import UserError
from pipnet.files import write_atomic
from pipnet.shipped import shipped
from utils.train import checkpoint, weight_files

LAYOUT = LAYOUTS.load("12")


@pytest.fixture(scope="module")
def packed() -> dict:
    """The values of a checkpoint of an untrained net."""
    net = net_of(meanface=np.random.default_rng(0).random((12, 2)), num_nb=3)
    return contents(net, LAYOUT, epoch=0, val_nme=5.0)


def test_what_is_saved_comes_back(packed, tmp_path):
    file = tmp_path / "best.pt"
    checkpoint.save(file, packed)
    assert [path.name for path in tmp_path.iterdir()] == ["best.pt"]
    net, layout, values = checkpoint.unpack(file)
    assert layout == LAYOUT and values["args"] == packed["args"] and net.spec == packed["net"]
    assert all(torch.equal(tensor, packed["model"][name]) for name, tensor in net.state_dict().items())


def test_an_interrupted_save_is_an_interrupt(packed, tmp_path, monkeypatch):
    """torch then fails to end its archive, and that error must not hide the interrupt."""

    class Interrupted(io.FileIO):
        def write(self, data):
            if self.tell() > 10_000:
                raise KeyboardInterrupt
            return super().write(data)

    monkeypatch.setattr(checkpoint, "open", Interrupted, raising=False)
    with pytest.raises(KeyboardInterrupt):
        checkpoint.save(tmp_path / "best.pt", packed)
    assert not list(tmp_path.iterdir())


def test_a_failed_save_leaves_the_old_file(packed, tmp_path):
    file = tmp_path / "best.pt"
    checkpoint.save(file, packed)
    before = file.read_bytes()

    def fail(path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError("disk full")

    refuses("best.pt.*disk full", write_atomic, file, fail)
    assert file.read_bytes() == before and [path.name for path in tmp_path.iterdir()] == ["best.pt"]


class Code:
    """An object that makes a folder when it is unpickled."""

    def __init__(self, file: Path):
        self.file = file

    def __reduce__(self):
        return os.mkdir, (str(self.file),)


@pytest.mark.parametrize("write", (torch.save, lambda values, file: file.write_bytes(pickle.dumps(values))))
def test_code_is_refused_and_not_run(packed, tmp_path, write):
    write({**packed, "more": Code(tmp_path / "harm")}, tmp_path / "best.pt")
    refuses("best.pt.*state_dict", checkpoint.load, tmp_path / "best.pt")
    assert not (tmp_path / "harm").exists()


def test_damaged_files_are_one_clear_line(packed, tmp_path):
    buffer = io.BytesIO()
    torch.save(packed, buffer)
    whole, file, rng = buffer.getvalue(), tmp_path / "best.pt", np.random.default_rng(0)
    damaged = [b"", b"hello", b"\x80", b"\x80\x02}q\x00.", b"PK\x03\x04"]
    damaged += [whole[:100], whole[: len(whole) // 2], whole[:-1], whole[100:]]
    damaged += [rng.bytes(count) for count in (1, 10, 1000)]
    names = whole.index(b"PK", len(whole) - 20000)
    for place in [*rng.integers(0, 3000, 25), *rng.integers(names, len(whole), 25)]:
        damaged.append(whole[:place] + rng.bytes(4) + whole[place + 4 :])
    refused = 0
    for data in damaged:
        file.write_bytes(data)
        try:
            checkpoint.unpack(file)
        except UserError as error:
            assert "best.pt" in str(error) and "\n" not in str(error)
            refused += 1
    assert refused > 12


def test_what_is_no_whole_checkpoint_is_one_line(packed, tmp_path):
    file = tmp_path / "best.pt"
    without = {name: value for name, value in packed.items() if name != "model"}
    changes = ({"format": 99}, {"model": {}}, {"model": None}, {"model": {"x": 3}})
    for values in (without, [1, 2], *({**packed, **change} for change in changes)):
        torch.save(values, file)
        assert "\n" not in refuses("best.pt", checkpoint.unpack, file)
    refuses("no checkpoint at", checkpoint.load, tmp_path / "none.pt")
    refuses("landmarks.onnx is not a checkpoint", checkpoint.load, shipped("landmarks.onnx"))
    shutil.copy(ROOT / "weights" / "detector.onnx", tmp_path / "net")
    refuses(r"net is .*\.onnx", checkpoint.load, tmp_path / "net")


@pytest.mark.parametrize("ours", [True, False])
@pytest.mark.parametrize(
    "tensor",
    [
        torch.zeros(1).half().expand(10**6, 10**6),
        torch.empty(10**6, 10**6, device="meta"),
        torch.eye(4).to_sparse(),
        torch.ones(4, dtype=torch.complex64),
    ],
)
def test_a_tensor_without_its_values_is_named(packed, tensor, ours, tmp_path):
    state = {**packed["model"], "backbone.odd": tensor}
    torch.save({**packed, "model": state} if ours else state, tmp_path / "net.pt")
    refuses(r"net.pt .*backbone\.odd", weight_files.load_weights, tmp_path / "net.pt")


def test_a_small_file_takes_little_memory(packed, tmp_path, monkeypatch):
    """A packed file, tensors that share their values, and the name of a net of 10^9 parameters."""
    torch.save({"a": torch.zeros(10**6)}, tmp_path / "whole.pt")
    with zipfile.ZipFile(tmp_path / "whole.pt") as whole:
        with zipfile.ZipFile(tmp_path / "net.pt", "w", zipfile.ZIP_DEFLATED) as net:
            for part in whole.infolist():
                net.writestr(part.filename, whole.read(part))
    refuses("net.pt is refused: .* unpack to 4,0", weight_files.load_weights, tmp_path / "net.pt")
    shared = torch.zeros(10**5)
    torch.save({str(number): shared for number in range(1000)}, tmp_path / "net.pt")
    refuses("net.pt has tensors that share their values", weight_files.load_weights, tmp_path / "net.pt")
    checkpoint.save(tmp_path / "net.pt", {**packed, "net": {**packed["net"], "net": "timm:vit_giant_patch14_224"}})
    monkeypatch.setattr(torch.nn.init, "trunc_normal_", lambda *_: pytest.fail("a net is filled"))
    refuses("net.pt .*its net is far larger than the", checkpoint.unpack, tmp_path / "net.pt")


def test_values_that_are_nested_deeply_are_one_line(packed, tmp_path):
    nested: list = []
    for _ in range(100_000):
        nested = [nested]
    values = {**packed, "layout": {**packed["layout"], "name": nested}}
    refuses("net.pt is not a whole checkpoint.*layout.name", weight_files._checked, tmp_path / "net.pt", values)
