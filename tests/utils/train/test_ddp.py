"""Several processes and nodes: they train as one process does, test each face once, and report an error in one line."""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import LAYOUTS, ROOT, SMALL, driver, free_port, refuses, rewrite, rows, run, split_of, works
from torch.distributed.run import parse_args

from nets import Prediction
from utils.data.batches import Share, Shuffle
from utils.data.prepared_set import load_splits
from utils.evaluate.evaluate import evaluate
from utils.settings.command import parser
from utils.settings.config import read_defaults
from utils.train import checkpoint
from utils.train.ranks import Ranks, _short

LAYOUT = LAYOUTS.load("68")


@pytest.fixture
def gaps(faces, tmp_path) -> list[str]:
    """Flags of a run on `faces`; every third face lacks half of its landmarks."""
    folder = tmp_path / "data" / "gaps"
    shutil.copytree(faces, folder)
    landmarks = np.load(folder / "train" / "landmarks.npy")
    landmarks[::3, :34] = np.nan
    rewrite(folder, "train", landmarks=landmarks)
    places = ("--train-data", "gaps", "--data-root", tmp_path / "data", "--run-root", tmp_path / "runs")
    return [*map(str, places), *SMALL, "--amp", "off", "--epochs", "3"]


def nodes(count: int, *flags: str, last: list[str] | None = None) -> list[subprocess.CompletedProcess]:
    """Run main.sh on `count` nodes of one process each, all on this machine. last: more flags of the last node."""
    where = {
        **os.environ,
        "NNODES": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": free_port(),
        "OMP_NUM_THREADS": "1",
    }
    begun = [
        subprocess.Popen(
            ["bash", "main.sh", "1", *flags, *(last or [] if node == count - 1 else [])],
            cwd=ROOT,
            env={**where, "NODE_RANK": str(node)},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for node in range(count)
    ]
    try:
        ended = [(process, process.communicate(timeout=200)) for process in begun]
    finally:
        for process in begun:
            process.kill()
    return [subprocess.CompletedProcess(process.args, process.returncode, *texts) for process, texts in ended]


@pytest.mark.slow
@pytest.mark.parametrize(("head", "apart"), [("pip", {"abs": 1}), ("coordinate", {"rel": 1e-3})])
def test_two_nodes_train_like_one_process(cli, gaps, tmp_path, head, apart):
    """The same global batches: 12 faces of one process, or 6 of each node."""
    gaps += ["--head", head]
    works(cli("--train", *gaps, "--exp one --batch-size 12"))
    several = nodes(2, "--train", *gaps, "--exp", "two", "--batch-size", "6")
    assert [done.returncode for done in several] == [0, 0], several
    assert "2 x cpu" in several[0].stderr and "x cpu" not in several[1].stderr
    one, two = (rows(tmp_path / "runs" / name / "step.csv") for name in ("one", "two"))
    assert len(one) == len(two) == 3
    for mine, other in zip(one, two, strict=True):
        for column in mine.keys() - {"val_nme", "best"}:
            assert float(other[column]) == pytest.approx(float(mine[column]), rel=1e-4), column
        # pip takes the best cell: of 272 landmarks, one whose best cells nearly tie moves the mean by a quarter of a
        # point
        assert float(other["val_nme"]) == pytest.approx(float(mine["val_nme"]), **apart)


@pytest.mark.slow
def test_a_loss_that_is_not_finite_names_the_samples_of_all_processes(gaps, tmp_path):
    wild = ("--exp", "wild", "--learning-rate", "1e6", "--warmup", "0", "--clip", "0", "--face", "0")
    done = run("bash", "main.sh", "2", "--train", *gaps, "--batch-size", "2", *wild, OMP_NUM_THREADS="1")
    assert done.returncode == 1 and "Traceback" not in done.stderr and done.stderr.count("error: ") == 1, done.stderr
    said = re.search(
        r"error: the loss is not finite in epoch 1, step (\d+) \(score .*\); samples: (.*); lower", done.stderr
    )
    assert said, done.stderr
    faces, step = load_splits([split_of(tmp_path / "data" / "gaps")], LAYOUT, 64, 0.0), int(said[1])
    # of one process: the batches of both, in the same order
    order = Shuffle((Share(0, len(faces), 4),), len(faces) // 4, 0)
    batch = list(order.epochs(0, 1))[step][1].tolist()
    assert said[2].split(", ") == [faces["file"][index] for index in batch]
    assert not list((tmp_path / "runs").rglob("*.pt")) and not list((tmp_path / "runs").rglob("step.csv"))


# --------------------------------------------------------------------------------------------------------------- tests
def by_brightness(images: torch.Tensor) -> Prediction:
    """Predict other landmarks for each picture."""
    mean = images.float().mean((1, 2, 3)) / 255
    return Prediction(mean[:, None, None].expand(-1, 68, 2), mean[:, None].expand(-1, 68))


@pytest.mark.slow
def test_nodes_with_other_settings_are_told_which_key(gaps):
    """Other epochs waited for half an hour; another learning rate trained on without a word."""
    base = ["--train", *gaps, "--exp", "apart"]
    for more, key in ((["--learning-rate", "0.5"], "learning_rate"), (["--test"], "test")):
        done = nodes(2, *base, last=more)
        for one in done:
            assert one.returncode == 1 and "Traceback" not in one.stderr, one.stderr
        assert re.search(f"error: {key} is .* process 0 .* process 1", done[0].stderr), done[0].stderr


def test_other_data_is_told_and_equal_facts_are_not(monkeypatch):
    ranks = Ranks(0, 2, torch.device("cpu"))
    facts = {"seed": 0, "data": ["a" * 70]}
    for other, key in (({"data": ["b" * 70]}, "data"), ({"more": 1}, "more"), ({"seed": 1}, "seed"), ({}, None)):
        both = [facts, facts | other]
        monkeypatch.setattr(Ranks, "gather", lambda _, value, both=both: [(value[0], _texts(one)) for one in both])
        if key:
            refuses(f"^{key} is", ranks.check_alike, facts)
        else:
            ranks.check_alike(facts)


def _texts(facts: dict) -> dict:
    return {key: _short(value) for key, value in facts.items()}


def test_a_port_that_is_in_use_is_one_line():
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        where = ["--nnodes", "1", "--master-addr", "127.0.0.1", "--master-port", str(taken.getsockname()[1])]
        launch = ["python", "-m", "utils.train.launch", *where, "--nproc-per-node", "2", "--", "main.py", "--version"]
        done = run(*launch)
    assert done.returncode == 1 and re.fullmatch("error: .*MASTER_PORT.*in use.*\n", done.stderr), done.stderr


def test_the_launcher_takes_no_flag_of_main_py_for_its_own():
    """torchrun's parser looks for prefixes of its flags behind the script too: --log may stand for three of them."""
    known = [flag for action in parser(read_defaults())._actions for flag in action.option_strings]
    flags = [*(word for flag in known for word in (flag, "csv")), *(f"{flag}=csv" for flag in known), "--", "-x", "--"]
    args = parse_args(["--standalone", "--nproc-per-node", "2", "--", "main.py", *flags])
    assert "--log" in flags and (args.training_script, args.training_script_args) == ("main.py", flags)


def test_processes_end_when_their_launcher_is_killed(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        f"import os, sys, time\nsys.path.insert(0, {str(ROOT)!r})\nfrom utils.settings import start\nstart.begin_loading()\n"
        f"open({str(tmp_path)!r} + '/' + os.environ['RANK'], 'w').write(str(os.getpid()))\nstart.end_loading()\n"
        "start.run_command(lambda argv: time.sleep(100))\n"
    )
    launch = [sys.executable, "-m", "utils.train.launch", "--standalone", "--nproc-per-node", "2", "--", str(script)]
    process = subprocess.Popen(launch, cwd=ROOT, stderr=subprocess.DEVNULL)
    files = [tmp_path / "0", tmp_path / "1"]
    wait_for(lambda: all(file.is_file() and file.read_text() for file in files))
    process.kill()
    process.wait()
    wait_for(lambda: not any(Path(f"/proc/{file.read_text()}").exists() for file in files))


def wait_for(happened, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.1)


# -------------------------------------------------------------------------------------------------------------- memory
@pytest.mark.slow
def test_too_little_memory_in_a_later_epoch_can_be_resumed(cli, recipe, tmp_path):
    late = driver(
        tmp_path,
        "driver",
        """
import resource
step = solver.Solver.train_step
def short(self, batches):
    if self.step == 5:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
    return step(self, batches)
solver.Solver.train_step = short""",
    )
    done = cli("--train", *recipe, "--epochs 2 --exp late", script=late)
    advice = "--batch-size 4 --accumulate 2; with --resume --exp (.*) it goes on from epoch 1$"
    assert done.returncode == 1 and (said := re.search(advice, done.error)), done.stderr
    assert checkpoint.load(tmp_path / "runs" / "late" / "last.pt")["epoch"] == 0
    done = works(cli("--train --resume --exp", said[1], "--batch-size 4 --accumulate 2"))
    assert len(rows(tmp_path / "runs" / "late" / "step.csv")) == 2


def test_too_little_memory_for_a_test(faces):
    most, sizes = 3, []

    def short(images: torch.Tensor) -> Prediction:
        if len(images) > most:
            raise RuntimeError(
                "[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory: you tried to ..."
            )
        sizes.append(len(images))
        return by_brightness(images)

    several = load_splits([split_of(faces, "test")], LAYOUT, 64, 4.0)
    found = evaluate(short, several, LAYOUT, "interocular", 8)
    assert sizes == [2, 2, 2, 2] and (found.nme == evaluate(by_brightness, several, LAYOUT, "interocular", 8).nme).all()
    most = 0
    refuses("64 px", evaluate, short, several, LAYOUT, "interocular", 8)


@pytest.mark.slow
def test_a_process_that_is_killed_is_named(gaps, tmp_path):
    """The other processes print nothing; the launcher ends them."""
    file = driver(
        tmp_path,
        "driver",
        """
import resource
step = solver.Solver.train_step
def short(self, batches):
    if self.step == 1 and self.ranks.rank == 1:
        os.kill(os.getpid(), 9)
    return step(self, batches)
solver.Solver.train_step = short""",
    )
    launch = ("python", "-m", "utils.train.launch", "--standalone", "--nproc-per-node", "2", "--", str(file))
    done = run(*launch, "--train", *gaps, "--batch-size", "4", OMP_NUM_THREADS="1")
    assert done.returncode == 9 and "error: process 1 was ended by SIGKILL" in done.stderr, done.stderr
    assert "Traceback" not in done.stderr and done.stderr.count("error: ") == 1


@pytest.mark.slow
def test_a_process_that_hangs_ends_the_others_and_the_job_is_restarted(cli, gaps, tmp_path):
    """The restart goes on from the last epoch, without a hand; then one process goes on where two were."""
    file = driver(
        tmp_path,
        "driver",
        """
import resource
step = solver.Solver.train_step
from datetime import timedelta
import time, types
from utils.train import ranks
ranks.TIMEOUT = timedelta(seconds=4)
ranks.time = types.SimpleNamespace(sleep=lambda seconds: time.sleep(seconds / 10))
from torch.distributed.elastic.multiprocessing import api
api.PContext.close.__defaults__ = None, 2
def short(self, batches):
    if self.step == 6 and self.ranks.rank == 1 and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
        os.kill(os.getpid(), 19)
    return step(self, batches)
solver.Solver.train_step = short""",
    )
    launch = "python -m utils.train.launch --standalone --nproc-per-node 2 --max-restarts 1 --".split()
    flags = ("--batch-size", "6", "--exp", "hung")
    done = works(run(*launch, file, "--train", *gaps, *flags, OMP_NUM_THREADS="1"))
    assert "Traceback" not in done.stderr
    (said,) = re.findall("error: (.*)", done.stderr)
    assert "has not answered for" in said and "go on with --resume" in said
    assert len(rows(tmp_path / "runs" / "hung" / "step.csv")) == 3
    done = works(cli("--train --resume --exp", tmp_path / "runs" / "hung", "--epochs 4 --batch-size 12"))
    assert len(rows(tmp_path / "runs" / "hung" / "step.csv")) == 4
