"""The folders of runs: the next id, and which run --exp means."""
import os

import pytest

from pipnet.errors import UserError
from utils.train.run_folder import find, next_id


def test_the_next_free_id(tmp_path):
    assert next_id(tmp_path / "none") == next_id(tmp_path) == "000"
    for name in ("003", "010", "notes", "12", "7x"):
        (tmp_path / name).mkdir()
    assert next_id(tmp_path) == "011"
    (tmp_path / "999").mkdir()
    assert next_id(tmp_path) == "1000"
    (tmp_path / "1000").mkdir()
    assert find(None, tmp_path, train=True).folder == tmp_path / "1001"


def test_the_newest_run_is_tested_without_exp(tmp_path):
    for stamp, name in ((200, "000"), (300, "004"), (100, "005")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "best.pt").touch()
        os.utime(tmp_path / name / "best.pt", (stamp, stamp))
    found = find(None, tmp_path, train=False)
    assert found == find("004", tmp_path, train=False) == find(str(tmp_path / "004"), tmp_path / "x", train=False)
    assert (found.last.name, found.onnx.name) == ("last.pt", "best.onnx")
    with pytest.raises(UserError, match="there are: 000, 004, 005.*did you mean '004'"):
        find("04", tmp_path, train=False)
    with pytest.raises(UserError, match="nothing is trained yet"):
        find(None, tmp_path / "x", train=False)
    (tmp_path / "lonely.onnx").touch()
    with pytest.raises(UserError, match="has no lonely.pt beside it"):
        find(str(tmp_path / "lonely.onnx"), tmp_path, train=False)
