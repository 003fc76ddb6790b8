"""The streams of a command, its working folder, and packages that do not load."""

import errno
import os
import subprocess
import sys
from unittest import mock

import numpy as np
import pytest
from conftest import ROOT, refuses

from pipnet.app import demo
from pipnet.console import load_failure
from pipnet.errors import UserError, limit_reached
from pipnet.packages import import_package
from utils.data import disk
from utils.data.new_folder import new_folder

WORK = """import os, sys
from pipnet.console import open_console
open_console()
kept = open("kept.txt", "w")
print("out", flush=True)
print("told", file=sys.stderr, flush=True)
os.write(1, b"out")
kept.write("whole")"""


def shell(command: str, cwd, **env) -> subprocess.CompletedProcess:
    """Run a line of a shell in which $P is Python."""
    values = {**os.environ, "P": sys.executable, "PYTHONPATH": str(ROOT), **env}
    return subprocess.run(["bash", "-c", command], cwd=cwd, env=values, capture_output=True, text=True)


@pytest.mark.parametrize("streams", [">&-", "2>&-", "<&-", ">&- 2>&- <&-", "2>/dev/full"])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_work_is_done_without_streams(streams, unbuffered, tmp_path):
    done = shell(f"exec $P -c '{WORK}' {streams}", tmp_path, PYTHONUNBUFFERED=unbuffered)
    assert (tmp_path / "kept.txt").read_text() == "whole"
    assert done.returncode == 0 and "Traceback" not in done.stderr


@pytest.mark.parametrize("command", ["demo.py", "main.py", "-m pipnet"])
def test_an_output_that_cannot_be_written_is_one_line(command):
    done = shell(f"$P {command} --help > /dev/full", ROOT)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1) and "No space left on device" in done.stderr


def test_pictures_are_read_without_streams(tmp_path):
    picture = ROOT / "assets" / "astronaut.jpg"
    done = shell(f"exec $P {ROOT}/demo.py {picture} --json found.jsonl --exp landmarks-fast >&- 2>&- <&-", tmp_path)
    assert done.returncode == 0 and b'"score"' in (tmp_path / "found.jsonl").read_bytes()
    done = shell(f"exec $P {ROOT}/demo.py {picture} --json - --exp landmarks-fast > /dev/full", tmp_path)
    assert done.returncode == 1 and "Traceback" not in done.stderr and "No space left" in done.stderr


WINDOWS = """import os, sys, http.server, subprocess, tempfile
import cv2, numpy, onnxruntime, tqdm
for name in "fork getloadavg getuid mkfifo nice register_at_fork sched_getaffinity set_blocking".split():
    delattr(os, name)
for name in "O_CLOEXEC O_DIRECTORY O_NOFOLLOW O_NONBLOCK".split():
    delattr(os, name)
sys.modules.update(dict.fromkeys(["fcntl", "grp", "pwd", "resource", "termios"]))
from pipnet.__main__ import command
command()"""


@pytest.mark.skipif(sys.platform != "linux", reason="the names are those of Linux")
def test_inference_needs_nothing_that_windows_lacks(tmp_path):
    picture = ROOT / "assets" / "astronaut.jpg"
    done = shell(f"$P -c '{WINDOWS}' {picture} --json o.jsonl --save o.jpg --exp landmarks-fast", tmp_path)
    assert done.returncode == 0 and b'"score"' in (tmp_path / "o.jsonl").read_bytes(), done.stderr
    assert (tmp_path / "o.jpg").is_file()


@pytest.mark.parametrize("command", ["-m pipnet", f"{ROOT}/demo.py", f"{ROOT}/main.py"])
def test_a_library_that_does_not_load_is_one_line(command, tmp_path):
    (tmp_path / "cv2.py").write_text("raise ImportError('libGL.so.1: cannot open shared object file')")
    done = shell(f"$P {command} face.jpg", ROOT, PYTHONPATH=f"{tmp_path}:{ROOT}")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "libGL.so.1" in done.stderr and "opencv-python-headless" in done.stderr


@pytest.mark.parametrize("name", ["utils/__init__.py", "utils.py", "nets/__init__.py", "extras/__init__.py"])
def test_a_package_of_the_user_with_a_name_of_ours_is_one_line(name, tmp_path):
    """Python imports first from the folder of the script, here one that imports main.py."""
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.touch()
    (tmp_path / "study.py").write_text("import main\nmain.main(['--list-nets', 'resnet18'])\n")
    done = shell("$P study.py", tmp_path)
    place = file.parent if file.parent != tmp_path else file
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    assert f"{place} is found in the place of {ROOT / name.split('/')[0].removesuffix('.py')};" in done.stderr


@pytest.mark.parametrize("error", [ImportError, OSError])
def test_a_runtime_that_does_not_load_is_named(error, tmp_path, monkeypatch):
    (tmp_path / "onnxruntime.py").write_text(f"raise {error.__name__}('libfoo.so.1: cannot open shared object file')")
    (tmp_path / "emptied").mkdir()
    monkeypatch.delitem(sys.modules, "onnxruntime", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    refuses(
        r"onnxruntime.*libfoo.so.1.*pip install --force-reinstall onnxruntime",
        demo.main,
        [str(ROOT / "assets" / "astronaut.jpg"), "--json", "-"],
    )
    refuses("the package emptied: pip install emptied", import_package, "emptied", "files need")


@pytest.mark.parametrize("command", ["-m pipnet", f"{ROOT}/demo.py", f"{ROOT}/main.py"])
def test_a_deleted_working_folder_is_one_line(command, tmp_path):
    (tmp_path / "gone").mkdir()
    done = shell(f"cd gone; rmdir ../gone; exec $P {command} face.jpg", tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1) and "working folder" in done.stderr


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (OSError(errno.EMFILE, "Too many open files"), "ulimit -n"),
        (OSError(errno.ENFILE, "Too many open files in system"), "close other programs"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "no memory left"),
        (MemoryError(), "no memory left"),
        (ImportError("libtorch_cpu.so: failed to map segment: Cannot allocate memory"), "no memory left"),
        (ImportError("/usr/lib/libgomp.so.1: cannot open shared object file: Too many open files"), "ulimit -n"),
    ],
)
def test_limits_of_the_system_are_named(error, says, tmp_path):
    """Nobody is told to install or to prepare anything again."""
    assert says in limit_reached(error)
    if isinstance(error, ImportError):
        assert says in load_failure(error) and "install it again" not in load_failure(error)
    np.save(tmp_path / "size.npy", np.zeros((2, 2)))
    with mock.patch("numpy.lib.format.open_memmap", side_effect=error if isinstance(error, OSError) else MemoryError):
        with pytest.raises((UserError, MemoryError)) as caught:
            disk._array(tmp_path / "size.npy")
    assert "--overwrite" not in str(caught.value)


def test_other_errors_are_no_limits(tmp_path):
    assert limit_reached(OSError(errno.ENOENT, "No such file")) is None and limit_reached(ValueError("x")) is None
    assert "install it again" in load_failure(ImportError("undefined symbol: _ZN3c10"))
    with pytest.raises(OSError) as caught, new_folder(tmp_path / "set"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert caught.value.filename == str(tmp_path / "set") and not any(tmp_path.iterdir())
