"""The folders of runs: the next id, and which run --exp means."""

import os

from conftest import ROOT, refuses, settings

from pipnet import shipped
from utils.train.run_folder import find_run, next_id


def test_the_next_free_id(tmp_path):
    assert next_id(tmp_path / "none") == next_id(tmp_path) == "000"
    for name in ("003", "010", "notes", "12", "7x"):
        (tmp_path / name).mkdir()
    assert next_id(tmp_path) == "011"
    (tmp_path / "999").mkdir()
    assert next_id(tmp_path) == "1000"
    (tmp_path / "1000").mkdir()
    assert find_run(None, tmp_path, train=True).folder == tmp_path / "1001"


def test_the_newest_run_is_tested_without_exp(tmp_path):
    for stamp, name in ((200, "000"), (300, "004"), (100, "005")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "best.pt").touch()
        os.utime(tmp_path / name / "best.pt", (stamp, stamp))
    found = find_run(None, tmp_path, train=False)
    assert (
        found == find_run("004", tmp_path, train=False) == find_run(str(tmp_path / "004"), tmp_path / "x", train=False)
    )
    assert (found.last.name, found.onnx.name) == ("last.pt", "best.onnx")
    refuses("000, 004, 005.*'004'", find_run, "04", tmp_path, train=False)
    refuses("nothing is trained", find_run, None, tmp_path / "x", train=False)


def test_a_file_is_its_own_run_and_leaves_results_below_the_root(tmp_path):
    root, lonely = tmp_path / "runs", tmp_path / "lonely.onnx"
    lonely.touch()
    (tmp_path / "a.pth.tar").touch()
    found = find_run(str(lonely), root, train=False)
    assert (
        found[:3] == (root / "files" / "lonely-onnx-e3b0c442", lonely, (lonely,))
        and found.exported
        and found.model == "onnx"
    )
    assert (
        found.keeps("onnx")
        and not found._replace(anew=("onnx",)).keeps("onnx")
        and found.anew == ("pipeline", "pipeline-int8")
    )
    found = find_run(str(tmp_path / "a.pth.tar"), root, train=False)
    assert (found.folder, found.onnx) == (root / "files" / "a-pth-tar-e3b0c442", found.folder / "best.onnx")
    assert found.alone and not found.exported
    run = root / "003"
    run.mkdir(parents=True)
    for name in ("args.yaml", "best.pt", "best.onnx", "last.pt"):
        (run / name).touch()
    (run / "args.yaml").write_text("learning_rate: 0.1\n")  # of another program: nothing of ours is written beside it
    assert find_run(str(run / "last.pt"), root, train=False).folder.parent == root / "files"
    (run / "args.yaml").write_text(settings().dump())
    assert find_run(str(run / "last.pt"), root, train=False)[:3] == (run, run / "last.pt", ())
    assert find_run(str(run / "best.onnx"), root, train=False)[:3] == (run, run / "best.onnx", (run / "best.onnx",))
    refuses("is a file.*--weights", find_run, str(lonely), root, train=True)
    refuses("no file .*gone.pth", find_run, f"{tmp_path / 'a.pth.tar'},{tmp_path / 'gone.pth'}", root, train=False)


def test_files_of_one_name_are_told_apart_by_their_content(tmp_path):
    """So is the mean face beside a published net, and the metadata beside an exported one."""
    folders = []
    for number in range(4):
        place = tmp_path / str(number)
        place.mkdir()
        (place / "epoch59.pth").write_bytes(b"first" if number < 3 else b"second")
        (place / "meanface.txt").write_text("0.5" if number < 2 else "0.6")
        folders.append(find_run(str(place / "epoch59.pth"), tmp_path / "runs", train=False).folder.name)
        (place / "net.mnn").touch()
        (place / "net.mnn.json").write_bytes(bytes([number]))
        folders.append(find_run(str(place / "net.mnn"), tmp_path / "runs", train=False).folder.name)
    assert folders[0] == folders[2] and len({*folders[::2]}) == 3 and len({*folders[1::2]}) == 4
    long = tmp_path / f"{'x' * 250}.pth"
    long.touch()
    assert len(find_run(str(long), tmp_path / "runs", train=False).folder.name) < 120


def test_shipped_nets_have_names(tmp_path, monkeypatch):
    found = find_run("landmarks", tmp_path, train=False)
    assert found.folder == tmp_path / "files" / "landmarks" and found.weights.parent.samefile(ROOT / "weights")
    assert found.fastest.name == "landmarks.onnx" and found.exported
    other = found._replace(view="68-faces68")  # the checkpoint alone has it
    assert not other.exported and other.fastest == found.weights
    refuses("--exp detector", find_run, "detector", tmp_path, train=True)
    monkeypatch.setattr(shipped, "shipped", lambda name: tmp_path / name)
    refuses("'landmarks-fast'", find_run, "landmarks-fast", tmp_path, train=False)
