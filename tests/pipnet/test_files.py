"""The files that come with the project."""
import shutil

import pytest
from conftest import ROOT

from pipnet import files
from pipnet.errors import UserError


def test_a_shipped_file_that_has_changed_is_named(tmp_path, monkeypatch):
    shutil.copytree(ROOT / "weights", tmp_path / "weights", ignore=lambda *_: ["landmarks.pt", "landmarks.onnx"])
    monkeypatch.setattr(files, "__file__", str(tmp_path / "pipnet" / "files.py"))
    assert files.shipped("detector.onnx") == tmp_path / "weights" / "detector.onnx"
    with open(tmp_path / "weights" / "detector.onnx", "ab") as file:
        file.write(b"\0")
    with pytest.raises(UserError, match="detector.onnx is not the file that came with this version .*; fetch the project again"):
        files.shipped("detector.onnx")
    (tmp_path / "weights" / "manifest.json").unlink()  # of other nets nothing is known
    assert files.shipped("detector.onnx").is_file()
