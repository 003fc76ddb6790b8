"""Every way of main.py that matters on a GPU, for a dozen steps, several at a time: `python tests/campaigns gpu [NAME
...]`.

Status and output must be as expected. All of it runs on a CPU too, without what needs a card.
"""

import re
import sys
import time
from argparse import Namespace
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import torch
from victims import Case

# isort: split
from speeds.gpu import ALIKE, DATA, PLACES, python

from pipnet.cores import cores
from pipnet.files import write_text

SAVED = "paths"  # in place of the name
FLAGS = {"minutes": {"type": float, "default": 60, "help": "what has not begun by then is skipped"}}
LIMIT = 150 if torch.cuda.is_available() else 600  # seconds of a path
ENDED = 124, 137  # status of what `timeout` has ended
SMALL = [*ALIKE, *"--epochs 1 --epoch-steps 14 --batch-size 8 --input-size 128 --threads 2 --workers 2".split()]
HALF = "--labelled-fraction 0.5"
DIVERGES = "--learning-rate 1e6 --weight-decay 1 --warmup 0 --epoch-steps 40"
DIVERGED = "loss is not finite.*lower --learning-rate"
RUN = "WORK/runs/short/best.pt"
MINE = "--dataset WORK/mine --layout WORK/mine.yaml --protocol inner --preset finetune"
LAYOUT = """mine: {count: 10, flip_index: [1, 0, 3, 2, 4, 6, 5, 7, 9, 8], interocular: [0, 1],
  same_as: {"68": {0: 36, 1: 45, 2: 39, 3: 42, 4: 30, 5: 48, 6: 54}}}
"""


class Job(NamedTuple):
    """A command that must end with `status` and print what the expression `says` matches.

    needs: a module, "cuda" or "two devices"; after: jobs that must have passed; script: what Python runs with the
    flags.
    """

    flags: list[str]
    says: str = ""
    status: int = 0
    needs: str = ""
    after: tuple[str, ...] = ()
    script: tuple[str, ...] = ("main.py",)


def trains(flags: str = "", says: str = "epoch 1/1", **more) -> Job:
    """Return a short training with some flags."""
    return Job(["--train", *SMALL, *flags.split()], says, **more)


def launcher(processes: str) -> tuple[str, ...]:
    """Return what starts main.py in several processes, as main.sh does."""
    return "-P", "-m", "utils.train.launch", "--standalone", "--nproc-per-node", processes, "--", "main.py"


KINDS = {  # those that others need, and those that take long, come first
    "short": trains("--preset short --epochs 2 --epoch-steps 12 --test", "epoch 2/2"),
    "compile": trains("--compile"),
    "gssl": trains(f"--semi gssl {HALF} --epoch-steps 5"),
    "sweep": trains("--sweep reg=1,2", "Best: "),
    "audit": Job(["--audit", "--folds", "2", *SMALL], "labels.csv"),
    "own points": Job(["WORK/mine", "12", "6"], script=("-m", "extras.synthetic.points")),
    "bf16": trains("--amp bf16", r"torch\.bfloat16"),
    "fp16": trains("--amp fp16", r"torch\.float16", needs="cuda"),
    "float32, deterministic": trains("--amp off --deterministic", "float32"),
    "no graph": trains("--no-graph"),
    **{f"pixels {where}": trains(f"--pixels {where}") for where in ("cpu", "device")},
    "accumulate": trains("--accumulate 2"),
    "profile": trains("--profile --epoch-steps 26", "a step takes"),
    **{f"head {head}": trains(f"--head {head}") for head in ("coordinate", "parts", "heatmap", "simcc")},
    "reinit": trains("--reinit"),
    "local parts": trains("--local-parts"),
    **{
        f"preset {name}": trains(f"--preset {name}")
        for name in ("pipnet", "irnet", "drowsiness", "slim", "dpr", "coordinate")
    },
    "freeze norms": trains("--freeze norms"),
    "mean teacher": trains(f"--semi mean-teacher {HALF}"),
    "detect": trains("--task detect --preset detect-quick --crops 64 --test"),
    "diverging, bf16": trains(f"{DIVERGES} --amp bf16", DIVERGED, status=1),
    "diverging, fp16": trains(f"{DIVERGES} --amp fp16", DIVERGED, status=1, needs="cuda"),
    "out of memory": trains(
        "--batch-size 256 --input-size 256",
        "out of memory.*--accumulate",
        status=1,
        needs="cuda",
        script=(__file__, "memory"),
    ),
    "a group of one": trains("--val none", "2 x ", script=(__file__, "group")),
    "too many processes": trains(
        says="processes, but .* GPUs here", status=1, needs="cuda", script=launcher("ONE_MORE")
    ),
    "two processes": trains(says="2 x ", needs="two devices", script=launcher("2")),
    "resumed": Job(
        [*PLACES, *"--train --resume --exp WORK/runs/bf16 --epochs 2".split()], "epoch 2/2", after=("bf16",)
    ),
    "freeze backbone": trains(f"--freeze backbone --weights {RUN}", after=("short",)),
    "teacher": trains(f"--teacher {RUN} --net timm:resnet10t", after=("short",)),
    "finetune": trains(f"{MINE} --weights {RUN} --test", "7 of 10 landmarks mapped", after=("short", "own points")),
    "flip test": Job([*PLACES, "--test", "--flip-test", "--exp", RUN], "NME", after=("short",)),
    "ONNX": Job([*PLACES, "--test-onnx", "--exp", RUN], "onnx", needs="onnxscript", after=("short",)),
}


def run(name: str, work: Path, until: float) -> dict:
    """Run a path. Return its status (ok, failed or skipped), seconds, and why it is not ok, or why its step is no
    graph.
    """
    job, begun = KINDS[name], time.monotonic()
    there = {"": True, "cuda": torch.cuda.is_available(), "two devices": torch.cuda.device_count() != 1}.get(job.needs)
    if not (find_spec(job.needs) if there is None else there) or until < begun + 15:
        return {"status": "skipped", "seconds": 0, "why": f"needs {job.needs or 'more time'}"}
    status, lines = python([*job.script, *job.flags], work, name, min(LIMIT, until - begun))
    if status in ENDED and time.monotonic() > until - 1:
        return {"status": "skipped", "seconds": round(time.monotonic() - begun, 1), "why": "needs more time"}
    text = "\n".join(lines)
    wrong = [
        words
        for words, is_so in (
            (f"status {status}", status != job.status),
            (f"no '{job.says}'", not re.search(job.says, text)),
            ("a traceback", "Traceback" in text),
            ("not one error", text.count("error: ") != (job.status != 0)),
        )
        if is_so
    ]
    why = (
        f"{', '.join(wrong)}; its last line: {lines[-1][:200]}"
        if wrong
        else "; ".join(sorted({line[9:170] for line in lines if "kernel by kernel" in line}))
    )
    return {"status": "failed" if wrong else "ok", "seconds": round(time.monotonic() - begun, 1), "why": why}


def run_all(work: Path, until: float, only: list[str]) -> dict[str, dict]:
    """Return {path: what `run` says}, several at a time; each is printed when it has ended.
    only: these, and what they need.
    """
    write_text(work / "mine.yaml", LAYOUT)
    wanted = {*only, *(other for name in only for other in KINDS[name].after)}
    jobs: dict = {}

    def done(name: str) -> dict:
        lost = [other for other in KINDS[name].after if jobs[other].result()["status"] != "ok"]
        found = {"status": "skipped", "seconds": 0, "why": f"needs {lost[0]}"} if lost else run(name, work, until)
        print(f"{found['status']:8}{found['seconds']:5} s  {name}  {found['why']}", flush=True)
        return found

    with ThreadPoolExecutor(min(max(cores() // 2, 1), 8)) as pool:
        for name in filter(wanted.__contains__, KINDS):  # a job waits for others that were begun before it
            jobs[name] = pool.submit(done, name)
    return {name: job.result() for name, job in jobs.items()}


def main_in(how: str) -> None:
    """Run main.py in 2 GiB of the card, or as the first of two processes, the other of which is not there."""
    import torch.distributed as dist

    import main
    from utils.settings.start import run_command
    from utils.train import ranks

    def alone(_timeout: float) -> ranks.Ranks:
        cuda, store = torch.cuda.is_available(), dist.HashStore()
        device = torch.device("cuda", 0) if cuda else torch.device("cpu")
        dist.init_process_group(
            "nccl" if cuda else "gloo", store=store, rank=0, world_size=1, device_id=device if cuda else None
        )
        return ranks.Ranks(0, 2, device, store, dist.new_group(backend="gloo"))

    if how == "memory":
        torch.cuda.set_per_process_memory_fraction(min(1.0, 2**31 / torch.cuda.get_device_properties(0).total_memory))
    else:
        ranks.start_ranks = alone
    run_command(main.main)


def cases(args: Namespace, names: list[str], root: Path, figures: dict) -> Iterator[Case]:
    until = time.monotonic() + 60 * args.minutes
    status, lines = python(["main.py", "--prepare", *DATA], root, "prepare", 60 * args.minutes)
    if status:
        sys.exit(f"no data: {lines[-1]}")
    figures["paths"] = run_all(root, until, names)
    for name, row in figures["paths"].items():
        yield Case(name, [row["why"]] if row["status"] == "failed" else [], row["status"], seconds=row["seconds"])


if __name__ == "__main__":  # a job of this campaign
    main_in(sys.argv.pop(1))
