"""The lock of a folder that is prepared: one process at a time, free as soon as that process ends."""

import fcntl
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from loguru import logger

from pipnet.errors import UserError
from utils.data.locks import waiting


def hold(folder: Path) -> subprocess.Popen:
    """Start another process, which holds the lock of `folder` and has a child."""
    code = (
        f"import os, sys, time; sys.path.insert(0, {str(ROOT)!r})\nfrom pathlib import Path\n"
        "from utils.data.locks import waiting\n"
        f"with waiting(Path({str(folder)!r}) / '.lock'):\n    os.fork()\n    print('held', flush=True)\n    time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, start_new_session=True)
    process.stdout.readline()
    return process


def test_an_empty_folder_of_sets_stays(tmp_path):
    with waiting(tmp_path / ".lock"):
        pass
    assert not list(tmp_path.iterdir())


def test_a_lock_of_others_is_not_taken(tmp_path):
    victim, file = tmp_path / "victim", tmp_path / "run" / ".lock"
    file.parent.mkdir()
    victim.write_text("mine")
    file.symlink_to(victim)
    with pytest.raises(UserError, match=r"\.lock.*a link"), waiting(file):
        pass
    file.unlink()
    os.link(victim, file)
    with (
        pytest.raises(UserError, match=r"\.lock.*no lock"),
        waiting(file),
    ):
        pass
    assert victim.read_text() == "mine"
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(UserError, match=r"\.lock.*regular"), waiting(file):
        pass


@pytest.mark.slow
def test_a_lock_that_a_dead_process_left_is_taken_over(tmp_path):
    (tmp_path / ".lock").write_text("123 on elsewhere")
    said = []
    handler = logger.add(said.append, format="{message}")
    try:
        with waiting(tmp_path / ".lock"):
            assert (tmp_path / ".lock").read_text() == f"{os.getpid()} on {socket.gethostname()}"
            (tmp_path / "made").touch()
        with waiting(tmp_path / ".lock"):
            pass
    finally:
        logger.remove(handler)
    assert said == [f"process 123 on elsewhere ended before it had finished {tmp_path}\n"]


def test_waiting_names_the_other_process(tmp_path):
    process, said = hold(tmp_path / "000"), []

    def end(message) -> None:
        said.append(message)
        process.kill()

    handler = logger.add(end, format="{message}")
    try:
        with waiting(tmp_path / "000" / ".lock"):
            pass
    finally:
        logger.remove(handler)
        os.killpg(process.pid, 9)
    assert said[0].startswith(f"waiting for process {process.pid} on {socket.gethostname()}, which prepares ")


def test_a_file_system_without_locks(tmp_path, monkeypatch):
    def unsupported(*_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", unsupported)
    with (
        pytest.raises(UserError, match="No locks available"),
        waiting(tmp_path / "0"),
    ):
        pass
