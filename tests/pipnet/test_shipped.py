"""The files that come with the project."""

import shutil

import pytest
from conftest import ROOT, refuses

from pipnet import shipped


def test_a_shipped_file_that_has_changed_is_named(tmp_path, monkeypatch):
    shutil.copytree(ROOT / "weights", tmp_path / "weights", ignore=lambda *_: ["landmarks.pt", "landmarks.onnx"])
    monkeypatch.setattr(shipped, "__file__", str(tmp_path / "pipnet" / "shipped.py"))
    assert shipped.shipped("detector.onnx") == tmp_path / "weights" / "detector.onnx"
    with open(tmp_path / "weights" / "detector.onnx", "ab") as file:
        file.write(b"\0")
    refuses("detector.onnx", shipped.shipped, "detector.onnx")
    (tmp_path / "weights" / "manifest.json").unlink()  # of other nets nothing is known
    assert shipped.shipped("detector.onnx").is_file()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        b'{"detector.onnx": 5}',
        b'{"detector.onnx": {}}',
        b'{"detector.onnx": {"sha256": 5}}',
        b'{"detector.onnx": {"sha256": "a", "bytes": "b"}}',
        b"[" * 100_000,
        None,
    ],
)
def test_a_damaged_manifest_is_one_line(tmp_path, content):
    file = tmp_path / "manifest.json"
    if content is None:
        file.mkdir()
    else:
        file.write_bytes(content)
    text = refuses("manifest.json", shipped.read_manifest, tmp_path, "fetch it again")
    assert "\n" not in text
