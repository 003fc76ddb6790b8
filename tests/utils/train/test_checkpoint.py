"""Checkpoints that are whole or not there, hold no code, and fit themselves; the lock; the folders of runs."""
import io
import os
import pickle
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import NET, ROOT

from nets import NetOptions, build_net, make_spec
from pipnet.errors import UserError
from pipnet.files import write_atomic
from utils.config import defaults, load_layout
from utils.train import checkpoint
from utils.train import run_folder as run

LAYOUT = load_layout(defaults().tables["layouts"], "12")


@pytest.fixture(scope="module")
def packed() -> dict:
    """An untrained net as a checkpoint."""
    spec = make_spec(NetOptions(NET, "pip", 32, 64, num_nb=3), np.random.default_rng(0).random((12, 2)))
    return run.pack(spec, LAYOUT, {"scale_x": 1.2}, defaults(), build_net(spec).state_dict(), epoch=0, val_nme=5.0)


def test_what_is_saved_comes_back(packed, tmp_path):
    file = tmp_path / "best.pt"
    checkpoint.save(file, packed)
    assert [path.name for path in tmp_path.iterdir()] == ["best.pt"]
    net, layout, values = run.unpack(file)
    assert layout == LAYOUT and values["args"] == packed["args"] and net.spec == packed["net"]
    assert all(torch.equal(tensor, packed["model"][name]) for name, tensor in net.state_dict().items())


def test_a_failed_save_leaves_the_old_file(packed, tmp_path):
    file = tmp_path / "best.pt"
    checkpoint.save(file, packed)
    before = file.read_bytes()

    def fail(path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_atomic(file, fail)
    assert file.read_bytes() == before and [path.name for path in tmp_path.iterdir()] == ["best.pt"]


def test_kills_while_saving_leave_a_whole_file(packed, tmp_path):
    file = tmp_path / "last.pt"
    checkpoint.save(file, packed)
    torch.save(packed, tmp_path / "values.pt")
    code = (f"import sys; sys.path.insert(0, {str(ROOT)!r})\nimport torch\nfrom utils.train import checkpoint\n"
            f"values = torch.load({str(tmp_path / 'values.pt')!r})\nprint('ready', flush=True)\n"
            f"while True: checkpoint.save({str(file)!r}, values)")
    rng = np.random.default_rng(0)
    saving = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    saving.stdout.readline()
    time.sleep(0.3 + rng.random() / 50)
    saving.kill()
    saving.wait()
    assert file.stat().st_mtime > (tmp_path / "values.pt").stat().st_mtime, "nothing was saved before the kill"
    run.unpack(file)
    with checkpoint.lock(tmp_path):
        assert not list(tmp_path.glob(".*.partial-*")), "what the killed process had half written stays"
        assert file.is_file()


class Code:
    """Unpickled, it makes a file."""

    def __init__(self, file: Path):
        self.file = file

    def __reduce__(self):
        return os.mkdir, (str(self.file),)


@pytest.mark.parametrize("write", (torch.save, lambda values, file: file.write_bytes(pickle.dumps(values))))
def test_code_is_refused_and_not_run(packed, tmp_path, write):
    write({**packed, "more": Code(tmp_path / "harm")}, tmp_path / "best.pt")
    with pytest.raises(UserError, match="best.pt is refused: it holds more than tensors"):
        checkpoint.load(tmp_path / "best.pt")
    assert not (tmp_path / "harm").exists()


def test_damaged_files_are_one_clear_line(packed, tmp_path):
    buffer = io.BytesIO()
    torch.save(packed, buffer)
    whole, file, rng = buffer.getvalue(), tmp_path / "best.pt", np.random.default_rng(0)
    damaged = [b"", b"hello", b"\x80", b"\x80\x02}q\x00.", b"PK\x03\x04"]
    damaged += [whole[:100], whole[:len(whole) // 2], whole[:-1], whole[100:]]
    damaged += [rng.bytes(count) for count in (1, 10, 1000)]
    names = whole.index(b"PK", len(whole) - 20000)
    for place in [*rng.integers(0, 3000, 60), *rng.integers(names, len(whole), 60)]:
        damaged.append(whole[:place] + rng.bytes(4) + whole[place + 4:])
    refused = 0
    for data in damaged:
        file.write_bytes(data)
        try:
            run.unpack(file)
        except UserError as error:
            assert "best.pt" in str(error) and "\n" not in str(error)
            refused += 1
    assert refused > 12


@pytest.mark.parametrize("change", [
    {"format": 99}, {"net": None}, {"net": {}}, {"net": 5}, {"layout": {}}, {"layout": {"parts": 3}}, {"layout": []},
    {"model": {}}, {"model": None}, {"model": {"x": 3}}, {"args": None}, "format", "args", "model",
])
def test_a_checkpoint_that_does_not_fit_itself(packed, tmp_path, change):
    values = dict(packed)
    if isinstance(change, str):
        del values[change]
    else:
        values.update(change)
    checkpoint.save(tmp_path / "best.pt", values)
    with pytest.raises(UserError, match="best.pt") as caught:
        run.unpack(tmp_path / "best.pt")
    assert "\n" not in str(caught.value)


def test_a_list_is_no_checkpoint(tmp_path):
    torch.save([1, 2], tmp_path / "best.pt")
    with pytest.raises(UserError, match="not a checkpoint of this project"):
        checkpoint.load(tmp_path / "best.pt")
    with pytest.raises(UserError, match="no checkpoint at"):
        checkpoint.load(tmp_path / "none.pt")


# ---------------------------------------------------------------------------------------------------------------- lock
def hold(folder: Path) -> subprocess.Popen:
    """Another process that holds the lock of `folder` and has a child of its own."""
    code = (f"import os, sys, time; sys.path.insert(0, {str(ROOT)!r})\nfrom pathlib import Path\n"
            "from utils.train import checkpoint\n"
            f"with checkpoint.lock(Path({str(folder)!r})):\n    os.fork()\n    print('held', flush=True)\n    time.sleep(60)")
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, start_new_session=True)
    process.stdout.readline()
    return process


def test_the_lock_ends_with_its_process_even_when_children_live_on(tmp_path):
    folder = tmp_path / "000"
    process = hold(folder)
    try:
        with pytest.raises(UserError, match=f"in use by process {process.pid}"), checkpoint.lock(folder):
            pass
        process.kill()
        process.wait()
        with checkpoint.lock(folder):
            (folder / "kept").touch()
    finally:
        os.killpg(process.pid, 9)  # its child
    assert sorted(path.name for path in folder.iterdir()) == [".lock", "kept"]


def test_a_folder_into_which_nothing_was_written_goes_away(tmp_path):
    with pytest.raises(UserError, match="wrong"), checkpoint.lock(tmp_path / "deep" / "000"):
        raise UserError("wrong")
    assert not (tmp_path / "deep" / "000").exists()
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written to"), checkpoint.lock(tmp_path / "file" / "000"):
        pass


# ---------------------------------------------------------------------------------------------------------------- runs
def test_the_next_free_id(tmp_path):
    assert run.next_id(tmp_path / "none") == run.next_id(tmp_path) == "000"
    for name in ("003", "010", "notes", "12", "7x"):
        (tmp_path / name).mkdir()
    assert run.next_id(tmp_path) == "011"
    (tmp_path / "999").mkdir()
    assert run.next_id(tmp_path) == "1000"
    (tmp_path / "1000").mkdir()
    assert run.find(None, tmp_path, train=True).folder == tmp_path / "1001"


def test_the_newest_run_is_tested_without_exp(tmp_path):
    for stamp, name in ((200, "000"), (300, "004"), (100, "005")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "best.pt").touch()
        os.utime(tmp_path / name / "best.pt", (stamp, stamp))
    found = run.find(None, tmp_path, train=False)
    assert found == run.find("004", tmp_path, train=False) == run.find(str(tmp_path / "004"), tmp_path / "x", train=False)
    assert (found.last.name, found.onnx.name) == ("last.pt", "best.onnx")
    with pytest.raises(UserError, match="there are: 000, 004, 005.*did you mean '004'"):
        run.find("04", tmp_path, train=False)
    with pytest.raises(UserError, match="nothing is trained yet"):
        run.find(None, tmp_path / "x", train=False)
    (tmp_path / "lonely.onnx").touch()
    with pytest.raises(UserError, match="has no lonely.pt beside it"):
        run.find(str(tmp_path / "lonely.onnx"), tmp_path, train=False)


def test_weights_of_another_head_start_the_backbone(packed, tmp_path):
    checkpoint.save(tmp_path / "best.pt", packed)
    spec = make_spec(NetOptions(NET, "pip", 32, 64, num_nb=0), np.random.default_rng(0).random((5, 2)))
    net, said = build_net(spec), []
    five, face = load_layout(defaults().tables["layouts"], "5"), np.random.default_rng(0).random((5, 2))
    words = run.initialise(net, str(tmp_path / "best.pt"), five, face, said.append).words
    assert "new: head." in words and "backbone only: layout 5 shares no landmark" in words and not said
    name = next(iter(net.backbone.state_dict()))
    assert torch.equal(net.backbone.state_dict()[name], packed["model"][f"backbone.{name}"])
    other = build_net(make_spec(NetOptions("irnet18", "pip", 32, 64, num_nb=0), np.random.default_rng(0).random((5, 2))))
    with pytest.raises(UserError, match="no tensor that fits irnet18"):
        run.initialise(other, str(tmp_path / "best.pt"), five, face, said.append)
    lost = SimpleNamespace(spec={"net": "irnet18"}, backbone=other.backbone)
    assert run.initialise(lost, "imagenet", five, face, said.append).words == "random weights" and "random weights" in said[0]
