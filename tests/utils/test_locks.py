"""The lock of a run's folder: one process at a time, free as soon as that process ends."""
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from pipnet.errors import UserError
from utils.locks import lock


def hold(folder: Path) -> subprocess.Popen:
    """Start another process, which holds the lock of `folder` and has a child."""
    code = (f"import os, sys, time; sys.path.insert(0, {str(ROOT)!r})\nfrom pathlib import Path\n"
            "from utils.locks import lock\n"
            f"with lock(Path({str(folder)!r})):\n    os.fork()\n    print('held', flush=True)\n    time.sleep(60)")
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, start_new_session=True)
    process.stdout.readline()
    return process


def test_the_lock_ends_with_its_process_although_a_child_lives_on(tmp_path):
    folder = tmp_path / "000"
    process = hold(folder)
    try:
        with pytest.raises(UserError, match=f"in use by process {process.pid}"), lock(folder):
            pass
        process.kill()
        process.wait()
        with lock(folder):
            (folder / "written").touch()
    finally:
        os.killpg(process.pid, 9)  # its child
    assert sorted(path.name for path in folder.iterdir()) == [".lock", "written"]


def test_a_folder_into_which_nothing_was_written_is_removed(tmp_path):
    with pytest.raises(UserError, match="wrong"), lock(tmp_path / "deep" / "000"):
        raise UserError("wrong")
    assert not (tmp_path / "deep" / "000").exists()
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written to"), lock(tmp_path / "file" / "000"):
        pass
