"""What is not ours is neither removed nor written through: folders of others, links in a run's folder, names that forge
a log.
"""

import os
import shutil
from pathlib import Path

import pytest
from conftest import DEFAULTS, ROOT, fails, make_settings, refuses

from extras.tools import audit
from utils.train import own_files
from utils.train.own_files import check_place, tidy
from utils.train.run_folder import Run
from utils.train.run_lock import log_to


def fill(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("mine")
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """Return {name: what stands in it} of all files, and of empty folders."""
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b"" for path in folder.rglob("*")}


@pytest.mark.parametrize(
    ("flags", "names"),
    [
        (
            ["--train"],
            ["report/index.html", "events/party.txt", "args.yaml", "best.onnx", "step.csv", ".draft.partial-me"],
        ),
        (["--train"], ["log.txt"]),
        (["--train", "--overwrite"], ["args.yaml", "best.pt", "last.pt", "report/scores.csv"]),
        (
            ["--train", "--semi", "self-training", "--labelled-fraction", "0.5"],
            ["pseudo_labels/a.csv", "round10stuff/best.pt"],
        ),
        (["--audit"], ["audit/notes.txt"]),
        (["--audit", "--overwrite"], ["fold0/last.pt", "audit/labels.csv"]),
        (["--train", "--sweep", "reg=1,2"], ["sweep.csv"]),
    ],
)
def test_nothing_is_trained_among_the_files_of_others(cli, recipe, tmp_path, flags, names):
    mine = fill(tmp_path / "mine", *names)
    before = contents(mine)
    done = cli(*flags, *recipe, "--exp", mine)
    fails(done, f"{mine} holds")
    assert contents(mine) == before


def test_the_folders_of_the_project_are_no_runs(tmp_path):
    root = tmp_path / "runs"
    for folder, kept in (
        (ROOT, []),
        (ROOT / "weights", []),
        (ROOT / "docs" / "..", [ROOT]),
        (ROOT.parent, [ROOT]),
        (root, [root]),
    ):
        refuses("--exp|no run of this project", check_place, folder, kept)


def test_what_a_killed_training_leaves_may_be_trained_in(tmp_path, trained):
    line = "2026-01-01 00:00:00 INFO training on x\n"
    for name, files in {
        "empty": {},
        "begun": {".lock": "12 on x", "log.txt": line},
        "no line": {".lock": "", "log.txt": ""},
        "half": {".lock": "", ".args.yaml.partial-0a1b2c3d": "data:"},
        "round": {"round0/.best.pt.partial-12": ""},
        "args": {"args.yaml": make_settings({}, DEFAULTS, None).dump(), "notes.txt": "mine"},
    }.items():
        (tmp_path / name).mkdir()
        for file, text in files.items():
            (tmp_path / name / file).parent.mkdir(exist_ok=True)
            (tmp_path / name / file).write_text(text)
        check_place(tmp_path / name, [])
    (tmp_path / "weights only").mkdir()
    shutil.copy(trained.folder / "best.pt", tmp_path / "weights only")
    check_place(tmp_path / "weights only", [])


def test_only_files_with_our_names_are_removed(tmp_path):
    ours = [
        "best.pt",
        "best.int8.onnx",
        "best.xml",
        "best.bin",
        "step.csv",
        "args.yaml",
        "initialisation.csv",
        "trace.json",
        "report/scores.csv",
        "report/faces_a.jpg",
        "events/events.out.tfevents.1.x",
        "pseudo_labels/round1.csv",
        "round0/best.pt",
        "round0/events/events.out.tfevents.2.x",
        "round12/last.pt",
        "fold0/last.pt",
        "audit/labels.csv",
    ]
    mine = [
        "notes.txt",
        "best.txt",
        "report/notes.txt",
        "events/party.txt",
        "pseudo_labels/notes.txt",
        "round10stuff/best.pt",
        "round0/notes.txt",
        "fold1x/last.pt",
        "audit/notes.txt",
        ".talk.mp4.partial-0a1b2c3d.mp4",
    ]
    fill(tmp_path / "run", *ours, *mine)
    fill(tmp_path / "elsewhere", "best.pt")
    (tmp_path / "run" / "round3").symlink_to(tmp_path / "elsewhere")
    run = Run(tmp_path / "run", tmp_path / "run" / "best.pt")
    own_files.clear(run.folder)
    own_files.clear_rounds(run.folder)
    audit.clear_audit(run)
    left = {name for name in contents(run.folder) if (run.folder / name).is_file()}
    assert left == set(mine) and not (run.folder / "fold0").exists() and (tmp_path / "elsewhere" / "best.pt").is_file()


def test_half_written_files_are_removed_and_nothing_else(tmp_path):
    stumps = [
        ".last.pt.partial-4711",
        ".best.onnx.partial-0a1b2c3d",
        "report/.faces_a.csv.partial-0a1b2c3d",
        "round0/.last.pt.partial-0a1b2c3d",
        "predicted/some/.a.pts.partial-0a1b2c3d",
    ]
    mine = [
        "best.pt",
        ".draft.txt.partial-12",
        "notes/.last.pt.partial-12",
        ".best.pt.partial-me",
        ".web.partial-12/index.html",
        "report/.partial-12",
    ]
    fill(tmp_path, *stumps, *mine)
    tidy(tmp_path)
    assert {name for name in contents(tmp_path) if (tmp_path / name).is_file()} == set(mine)


# --------------------------------------------------------------------------------------------------------------- links
@pytest.mark.parametrize("name", ("report", "events", "audit", "predicted", "round0/events", "predicted/pictures"))
def test_links_to_folders_are_refused(tmp_path, name):
    victim, run = fill(tmp_path / "victim", ".last.pt.partial-12"), tmp_path / "run"
    (run / name).parent.mkdir(parents=True)
    (run / name).symlink_to(victim)
    refuses(f"{name} is a link", tidy, run)
    assert contents(victim)[".last.pt.partial-12"] == b"mine"


def test_a_run_of_somebody_else_writes_nowhere_else(trained, cli, tmp_path):
    for name in (".lock", "log.txt", "report"):
        victim = fill(tmp_path / f"victim {name}", "scores.csv")
        target = victim if name == "report" else victim / "scores.csv"
        run = tmp_path / f"run{name}"
        shutil.copytree(trained.folder, run)
        shutil.rmtree(run / name) if name == "report" else (run / name).unlink()
        (run / name).symlink_to(target)
        fails(cli("--test", "--exp", run, "--thresholds", "5"), f"{name} .*is a link.*")
        assert contents(victim) == {"scores.csv": b"mine"} and (run / name).is_symlink()


def test_a_log_is_a_plain_file_of_its_own(tmp_path):
    log, other = tmp_path / "log.txt", fill(tmp_path, "other") / "other"
    os.link(other, log)
    log_to(log)("line\n")
    assert other.read_text() == "mine" and log.read_text() == "mineline\n"
    log.unlink()
    write = log_to(log)
    log.symlink_to(other)  # later
    write("line\n")
    assert other.read_text() == "mine"
    log.unlink()
    os.mkfifo(log)
    refuses("log.txt", log_to, log)


def test_names_of_others_forge_no_line(trained, cli, recipe, tmp_path):
    shutil.copytree(trained.folder, tmp_path / "run")
    name = "$(touch x)\n2026-01-01 00:00:00 INFO forged\x1b[2J"
    fill(tmp_path / name, "train/a.txt")
    done = cli("--train", "--overwrite", *recipe, "--exp", tmp_path / "run", "--train-data", tmp_path / name)
    assert done.returncode == 1 and done.error
    for text in (done.stderr, (tmp_path / "run" / "log.txt").read_text()):
        assert (
            r"\n2026-01-01 00:00:00 INFO forged\x1b[2J" in text and "\n2026-01-01" not in text and "\x1b[2J" not in text
        )
