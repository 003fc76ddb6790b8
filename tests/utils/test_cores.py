"""How many threads a training takes beside other load, and what it does with freed memory."""

import platform
import subprocess
import sys

import pytest
import torch
from conftest import ROOT, driver, works

from pipnet import cores
from utils.train import checkpoint, ranks

STAT = "cpu  9 9 9 9 9 0 0 0 0 0\ncpu0 {} 0 0 {} 0 0 0 0 0 0\ncpu1 0 {} 50 {} 10 0 0 0 0 0\nintr 1 2 3\n"


def test_idle_cores_and_those_of_work_that_makes_way(tmp_path, monkeypatch):
    file = tmp_path / "stat"
    monkeypatch.setattr(cores, "STAT", file)
    monkeypatch.setattr(cores, "_usable", lambda: {0, 1})
    for nice, free in ((0, 0.25 + 1.0), (10, 0.25 + 0.4)):
        file.write_text(STAT.format(0, 0, 0, 0))
        monkeypatch.setattr(cores.os, "nice", lambda more, nice=nice: nice)
        monkeypatch.setattr(cores.time, "sleep", lambda _: file.write_text(STAT.format(75, 25, 60, 40)))
        assert cores.free_cores() == pytest.approx(free)
    monkeypatch.setattr(cores, "STAT", tmp_path / "none")  # no Linux
    monkeypatch.setattr(cores.os, "getloadavg", lambda: (0.5, 9.0, 9.0))
    assert cores.free_cores() == 1.5


@pytest.mark.parametrize(("free", "processes", "wanted"), [(8.0, 1, 8), (2.6, 1, 3), (0.1, 1, 1), (6.0, 2, 3)])
def test_threads_are_those_of_the_free_cores(monkeypatch, free, processes, wanted):
    before, chosen = torch.get_num_threads(), []
    monkeypatch.setattr(ranks, "cores", lambda: 8)
    monkeypatch.setattr(ranks, "free_cores", lambda: free)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
    monkeypatch.setattr(torch, "set_num_threads", chosen.append)
    ranks.set_threads(0, False)
    ranks.set_threads(5, False)
    assert chosen == [wanted, 5] and torch.get_num_threads() == before


@pytest.mark.slow
def test_beside_other_load_a_training_takes_fewer_threads_and_a_resumed_one_the_same(cli, recipe, tmp_path):
    text = "from utils.train import loop, ranks\nranks.cores = loop.cores = lambda: 2\nranks.free_cores = lambda: "
    loaded, free = (driver(tmp_path, name, f"{text}{cores}") for name, cores in (("loaded", 0.2), ("free", 2.0)))
    flags = recipe[: recipe.index("--threads")] + recipe[recipe.index("--threads") + 2 :]
    done = works(cli("--train", *flags, script=loaded))
    assert "CPU threads: 1 per process, because 0.2 of 2 cores are free" in done.stderr
    stored = checkpoint.load(tmp_path / "runs" / "000" / "last.pt")
    assert stored["threads"] == 1 and stored["args"]["threads"] == 0
    again = works(cli("--train --resume --run-root", tmp_path / "runs", "--epochs 2", script=free))
    assert "1 CPU threads, as before" in again.stderr
    again = works(cli("--train --resume --run-root", tmp_path / "runs", "--epochs 3 --threads 1", script=free))
    assert "CPU threads" not in again.stderr
    assert "preparing" not in again.stderr  # a resumed run, too, names the data root of its sets


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc alone gives memory back")
def test_a_training_keeps_the_memory_of_freed_tensors():
    faults = []
    for call in ("", "ranks.keep_memory()"):
        done = subprocess.run(
            [
                sys.executable,
                "-c",
                f"""
import resource, torch
from utils.train import ranks
{call}
faults = []
for _ in range(20):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(16, 1024, 1024)  # 64 MB
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(min(faults[10:]))""",
            ],
            capture_output=True,
            text=True,
            cwd=ROOT,
        )
        assert done.returncode == 0, done.stderr
        faults.append(int(done.stdout))
    assert faults[0] > 100 > faults[1]  # pages that a tensor has from the system, once the heap is settled
