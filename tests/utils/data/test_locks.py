"""The lock of a run's folder: one process at a time, free as soon as that process ends."""

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
from utils.data.locks import lock, waiting
from utils.train import run_lock
from utils.train.run_folder import Run


def hold(folder: Path) -> subprocess.Popen:
    """Start another process, which holds the lock of `folder` and has a child."""
    code = (
        f"import os, sys, time; sys.path.insert(0, {str(ROOT)!r})\nfrom pathlib import Path\n"
        "from utils.data.locks import lock\n"
        f"with lock(Path({str(folder)!r})):\n    os.fork()\n    print('held', flush=True)\n    time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, start_new_session=True)
    process.stdout.readline()
    return process


@pytest.mark.slow
def test_the_lock_ends_with_its_process_although_a_child_lives_on(tmp_path):
    folder = tmp_path / "000"
    process = hold(folder)
    try:
        with (
            pytest.raises(UserError, match=f"{process.pid} on {socket.gethostname()}"),
            lock(folder),
        ):
            pass
        process.kill()
        process.wait()
        with lock(folder):
            (folder / "written").touch()
    finally:
        os.killpg(process.pid, 9)  # its child
    assert sorted(path.name for path in folder.iterdir()) == [".lock", "written"]


def test_a_folder_that_nobody_asked_for_is_not_waited_for(tmp_path):
    """A training without --exp takes the next id, also where a run was finished meanwhile; results of a file get a
    number.
    """
    given = Run(tmp_path / "000", tmp_path / "000" / "best.pt")
    results = Run(tmp_path / "files" / "landmarks", ROOT / "weights" / "landmarks.pt")
    begun = [hold(given.folder), hold(results.folder)]
    try:
        (tmp_path / "001").mkdir()
        (tmp_path / "001" / "best.pt").touch()
        with run_lock.hold(given, new=True) as run:
            assert run == Run(tmp_path / "002", tmp_path / "002" / "best.pt")
        with run_lock.hold(results) as run:
            assert run == Run(tmp_path / "files" / "landmarks-2", results.weights)
        with pytest.raises(UserError, match="in use"), run_lock.hold(given):
            pass
    finally:
        for process in begun:
            os.killpg(process.pid, 9)
            process.wait()
    with run_lock.hold(results) as run:
        assert run == results
    with pytest.raises(UserError, match="mine"), run_lock.hold(given, new=True):
        raise UserError("mine")


def test_a_folder_into_which_nothing_was_written_is_removed(tmp_path):
    with pytest.raises(UserError, match="wrong"), lock(tmp_path / "deep" / "000"):
        raise UserError("wrong")
    assert not (tmp_path / "deep").exists()
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written to"), lock(tmp_path / "file" / "000"):
        pass


@pytest.mark.parametrize("names", ([], ["log.txt"], ["log.txt", ".lock"]))
def test_what_was_there_before_stays(tmp_path, names):
    for name in names:
        (tmp_path / name).touch()
    with pytest.raises(UserError, match="wrong"), lock(tmp_path):
        (tmp_path / "log.txt").touch()
        raise UserError("wrong")
    assert {path.name for path in tmp_path.iterdir()} == set(names)


def test_an_empty_folder_of_sets_stays(tmp_path):
    with waiting(tmp_path / ".lock"):
        pass
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("hold", (lock, lambda folder: waiting(folder / ".lock")))
def test_a_lock_of_others_is_not_taken(tmp_path, hold):
    victim, file = tmp_path / "victim", tmp_path / "run" / ".lock"
    file.parent.mkdir()
    victim.write_text("mine")
    file.symlink_to(victim)
    with pytest.raises(UserError, match=r"\.lock.*a link"), hold(file.parent):
        pass
    file.unlink()
    os.link(victim, file)
    with (
        pytest.raises(UserError, match=r"\.lock.*no lock"),
        hold(file.parent),
    ):
        pass
    assert victim.read_text() == "mine"
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(UserError, match=r"\.lock.*regular"), hold(file.parent):
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
        lock(tmp_path / "0"),
    ):
        pass
