"""A run's folder: new or continued, of one process at a time; what was there is moved aside, and links lead nowhere."""

import os
import re
import shutil
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from conftest import ROOT, fails, refuses, settings

from pipnet.errors import UserError
from utils.train.run_folder import Run
from utils.train.run_lock import check_new, hold, locked, log_to


def fill(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("mine")
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """Return {name: what stands in it} of all files, and of empty folders."""
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b"" for path in folder.rglob("*")}


def run_in(folder: Path, *names: str) -> Run:
    """A run, which is there if it has files."""
    if names:
        (fill(folder, *names) / "args.yaml").write_text(settings().dump())
    return Run(folder, folder / "best.pt")


def begin(run: Run, **options) -> Path:
    """Begin a new run and write a file as a training does; return its folder."""
    with hold(run, new=True, **options) as held:
        run_in(held.folder, "last.pt")
    return held.folder


# ----------------------------------------------------------------------------------------------------------------- new
@pytest.mark.parametrize(
    ("flags", "names"),
    [
        (["--train"], ["report/index.html", "events/party.txt", "best.onnx", "step.csv", ".draft.partial-me"]),
        (["--train"], ["log.txt"]),
        (["--train"], ["args.yaml", "main.py"]),  # another project, or a checkout
        (["--train --overwrite"], ["args.yaml", "best.pt", "last.pt", ".lock"]),
        (["--train --overwrite"], ["round0/best.pt", "fold0/last.pt", "sweep.yaml"]),
        (["--train --overwrite"], ["notes.txt", "report/scores.csv"]),
        (["--train --semi self-training --labelled-fraction 0.5"], ["pseudo_labels/a.csv"]),
        (["--audit"], ["audit/notes.txt"]),
        (["--train --sweep reg=1,2"], ["sweep.csv"]),
    ],
)
def test_nothing_is_trained_among_the_files_of_others(cli, recipe, tmp_path, flags, names):
    mine = fill(tmp_path / "mine", *names)
    before = contents(mine)
    fails(cli(*flags, *recipe, "--exp", mine), f"{mine} ")
    assert contents(mine) == before


def test_the_folders_of_the_project_are_no_runs(tmp_path):
    root = tmp_path / "runs"
    places = [
        (ROOT, (ROOT,)),
        (ROOT / "weights", ()),
        (ROOT / "docs" / "..", (ROOT,)),
        (ROOT.parent, (ROOT,)),
        (root, (root,)),
    ]
    for folder, kept in places:
        refuses("--exp|no run", check_new, folder, True, kept)


def test_what_is_there_is_moved_aside_and_comes_back_if_nothing_is_written(tmp_path):
    run = run_in(tmp_path / "018", "last.pt", "round0/best.pt", "notes.txt")
    before = contents(run.folder)
    refuses("--resume.*--overwrite", begin, run)
    with pytest.raises(UserError, match="wrong"), hold(run, new=True, overwrite=True):
        assert {path.name for path in run.folder.iterdir()} == {".lock"}
        raise UserError("wrong")
    assert {name: data for name, data in contents(run.folder).items() if name != ".lock"} == before
    begin(run, overwrite=True)
    begin(run, overwrite=True)
    aside = sorted(path for path in tmp_path.iterdir() if path != run.folder)
    assert len(aside) == 2 and all(re.fullmatch(r"018-\d{8}-\d{6}(-2)?", path.name) for path in aside)
    assert before.items() <= contents(aside[0]).items() and not (run.folder / "notes.txt").exists()


def test_a_run_that_ended_in_its_first_epoch_is_moved_aside_if_nothing_else_is_there(tmp_path):
    left = (".lock", "log.txt", "initialisation.csv", "events/events.out.tfevents.1.a", ".args.yaml.partial-12ab34cd")
    assert begin(run_in(tmp_path / "early", *left)) == tmp_path / "early"
    assert len([*tmp_path.iterdir()]) == 2
    for name in ("notes.txt", "events/party.txt", "main.py", "round0/last.pt", "best.pt"):
        run = run_in(tmp_path / name.replace("/", "_"), *left, name)
        refuses(f"{run.folder} already holds a run.*--overwrite", begin, run)
        assert (run.folder / name).read_text() == "mine"


def test_what_shows_a_run(tmp_path):
    """Its settings, those of its first round or fold, or a sweep's record; or nothing but the log of ours."""
    runs = [run_in(tmp_path / "a" / part, "last.pt").folder for part in ("round0", "fold0")]
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "sweep.yaml").write_text("sweep: [reg]\ntests: []\nvalues: {}\n")
    fill(tmp_path / "c", ".lock", "log.txt")
    (tmp_path / "c" / "log.txt").write_text("2026-11-29 08:45:00 INFO prepared\n")
    for folder in (*runs, *(tmp_path / name for name in "abc")):
        check_new(folder, True)
    fill(tmp_path / "c", "notes.txt")
    (tmp_path / "b" / "sweep.yaml").write_text("program: train.py\nmethod: grid\n")
    for args in (settings().dump() + "presets: {}\n", "data: a\nnet: b\ntrain: c\n", "data: [", ""):
        run_in(tmp_path / "d", "last.pt")
        (tmp_path / "d" / "args.yaml").write_text(args)
        for name in "bcd":
            refuses(f"{tmp_path / name} holds .* and no run", check_new, tmp_path / name, True)


def test_a_folder_into_which_nothing_was_written_is_removed(tmp_path):
    with pytest.raises(UserError, match="wrong"), hold(run_in(tmp_path / "deep" / "000"), new=True) as run:
        (run.folder / "log.txt").touch()
        raise UserError("wrong")
    assert not (tmp_path / "deep").exists()
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="wrong"), hold(run_in(tmp_path / "empty"), new=True) as run:
        (run.folder / "log.txt").touch()
        raise UserError("wrong")
    assert contents(tmp_path / "empty") == {}
    (tmp_path / "file").touch()
    refuses("cannot be written to", begin, run_in(tmp_path / "file" / "000"))


def test_a_folder_that_nobody_asked_for_is_the_next_that_is_free(tmp_path):
    given = run_in(tmp_path / "000")
    (tmp_path / "000").mkdir()  # by another process, after the id was chosen
    assert begin(given, named=False) == tmp_path / "001" and begin(given, named=False) == tmp_path / "002"


# ---------------------------------------------------------------------------------------------------------------- lock
def holder(folder: Path) -> subprocess.Popen:
    """Start another process, which holds the lock of `folder` and has a child."""
    code = (
        f"import os, sys, time; sys.path.insert(0, {str(ROOT)!r})\nfrom pathlib import Path\n"
        "from utils.train.run_lock import locked\n"
        f"with locked(Path({str(folder)!r})):\n    os.fork()\n    print('held', flush=True)\n    time.sleep(60)"
    )
    folder.mkdir(exist_ok=True)
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, start_new_session=True)
    process.stdout.readline()
    return process


@pytest.mark.slow
def test_a_run_that_another_process_holds_is_neither_trained_nor_moved_aside(tmp_path, monkeypatch):
    monkeypatch.setattr("utils.train.run_lock.PATIENCE", 0.2)
    run = run_in(tmp_path / "000", "last.pt")
    process = holder(run.folder)
    try:
        for new, overwrite in ((False, False), (True, True)):
            with pytest.raises(UserError, match="in use"), hold(run, new, overwrite):
                pass
        assert [path.name for path in tmp_path.iterdir()] == ["000"]
        process.kill()  # its child lives on
        process.wait()
        with hold(run):
            pass
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, 9)
        process.wait()


def test_a_lock_of_others_is_not_taken(tmp_path):
    victim = fill(tmp_path, "victim") / "victim"
    for folder, make in (("link", Path.symlink_to), ("hard", Path.hardlink_to)):
        (tmp_path / folder).mkdir()
        make(tmp_path / folder / ".lock", victim)
        with suppress(UserError), locked(tmp_path / folder):
            pass
        assert victim.read_text() == "mine"
    (tmp_path / "folder" / ".lock").mkdir(parents=True)
    with pytest.raises(UserError, match=r"\.lock.*--exp"), locked(tmp_path / "folder"):
        pass


# --------------------------------------------------------------------------------------------------------------- links
def test_half_written_files_are_removed_and_nothing_else(tmp_path):
    stumps = [".last.pt.partial-4711", "report/.faces_a.csv.partial-0a1b2c3d", "round0/.last.pt.partial-0a1b2c3d"]
    mine = ["best.pt", ".best.pt.partial-me", ".talk.mp4.saving-0a1b2c3d.mp4", "report/.partial-12"]
    fill(tmp_path, *stumps, *mine)
    (tmp_path / f".{2**22 + 1}@{socket.gethostname()}.partial-0a1b2c3d").mkdir()  # a page
    with hold(run_in(tmp_path)):
        pass
    assert {name for name in contents(tmp_path) if (tmp_path / name).is_file()} == {*mine, ".lock"}
    assert not [*tmp_path.glob(".*@*")]


@pytest.mark.parametrize("name", ("report", "events", "round0/events", "predicted/pictures"))
def test_links_to_folders_are_refused(tmp_path, name):
    victim, run = fill(tmp_path / "victim", ".last.pt.partial-12"), tmp_path / "run"
    (run / name).parent.mkdir(parents=True)
    (run / name).symlink_to(victim)
    with pytest.raises(UserError, match=f"{name} is a link"), hold(run_in(run)):
        pass
    assert contents(victim)[".last.pt.partial-12"] == b"mine"


def test_a_run_of_somebody_else_writes_nowhere_else(trained, cli, tmp_path):
    for name in (".lock", "log.txt", "report"):
        victim = fill(tmp_path / f"victim {name}", "scores.csv")
        target = victim if name == "report" else victim / "scores.csv"
        run = tmp_path / f"run{name}"
        shutil.copytree(trained.folder, run)
        shutil.rmtree(run / name) if name == "report" else (run / name).unlink()
        (run / name).symlink_to(target)
        fails(cli("--test --exp", run, "--thresholds 5"), re.escape(name))
        assert contents(victim) == {"scores.csv": b"mine"} and (run / name).is_symlink()


def test_a_log_is_a_plain_file_of_its_own(tmp_path):
    log, other = tmp_path / "log.txt", fill(tmp_path, "other") / "other"
    write = log_to(log)
    write("line\n")
    assert log.read_text() == "line\n"
    log.unlink()
    log.symlink_to(other)  # later
    write("line\n")
    assert other.read_text() == "mine"
    log.unlink()
    os.mkfifo(log)
    refuses("log.txt", log_to, log)


def test_names_of_others_forge_no_line(trained, cli, recipe, tmp_path):
    run = shutil.copytree(trained.folder, tmp_path / "run")
    name = "$(touch x)\n2026-01-01 00:00:00 INFO forged\x1b[2J"
    fill(tmp_path / name, "train/a.txt")
    done = cli("--train --overwrite", *recipe, "--exp", run, "--train-data", tmp_path / name)
    assert done.returncode == 1 and done.error
    text = done.stderr
    assert r"\n2026-01-01 00:00:00 INFO forged\x1b[2J" in text and "\n2026-01-01" not in text and "\x1b[2J" not in text
    assert (run / "last.pt").is_file()  # nothing was trained, so it came back
