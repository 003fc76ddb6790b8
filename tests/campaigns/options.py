"""Random combinations of options: `python tests/campaigns options --count 280 --jobs 2`. Each runs, or is refused.

Every pair of values of two options is drawn at least once, with some others. A combination trains one epoch on tiny
data, is tested and exported, or stops before anything is written with one line that names what does not fit. An option
that this line names is dropped then, until the rest runs: so each pair is either refused or has been run.
"""

import re
import shlex
import shutil
import threading
from argparse import Namespace
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations
from pathlib import Path

import numpy as np
from victims import Case, Done, call, fresh, trained

from utils.settings.config import read_defaults

DEFAULTS = read_defaults()
DATA = (
    "--data-root {root}/data --dataset synthetic --synthetic-train 12 --synthetic-test 3 --target-size 64 --epochs 1 "
    "--threads 1 --workers 0"
)
MODES = "--train --test --test-onnx"  # without the option `modes`
VALUES = {  # option: what may be typed for it; it is left out where none is drawn
    "modes": ("--train", "--train --test", "--train --test", "--train --show-data 2", "--train --export onnx"),
    "net": (
        "--net timm:test_efficientnet",
        "--net slim",
        "--net dpr",
        "--net mobileone_s0",
        "--net irnet18",
        "--net mobilenetv3_small",
        "--net regnetx_200mf",
    ),
    "head": tuple(f"--head {head}" for head in ("pip", "coordinate", "parts", "heatmap", "simcc")),
    "stride": tuple(f"--stride {stride}" for stride in (4, 8, 16, 32, 64, 128)),
    "preset": tuple(f"--preset {name}" for name in DEFAULTS.presets),
    "task": ("--task detect",),
    "input-size": ("--input-size 32", "--input-size 64", "--input-size 96", "--input-size 100"),
    "num-nb": ("--num-nb 0", "--num-nb 3", "--num-nb 67", "--num-nb 68"),
    "pool": ("--pool depthwise",),
    "excite": ("--excite",),
    "score-width": ("--score-width 1.5",),
    "act": ("--act relu", "--act prelu"),
    "refine": ("--refine",),
    "reinit": ("--reinit",),
    "local-parts": ("--local-parts",),
    "layout": ("--layout 12", "--layout 98"),
    "error": ("--error l2",),
    "protocol": tuple(f"--protocol {name}" for name in DEFAULTS.protocols),
    "labels": ("--labels published",),
    "sigma": ("--sigma 0", "--sigma 1"),
    "hard-landmarks": ("--hard-landmarks 1",),
    "pose": ("--pose 1",),
    "eyes": ("--eyes 1",),
    "mouth": ("--mouth 1",),
    "alignment": ("--alignment 2", "--alignment 0"),
    "cls": ("--cls 1",),
    "reg": ("--reg 2",),
    "teacher": ("--teacher {root}/runs/teacher/best.pt",),
    "teacher-weight": ("--teacher-weight 2",),
    "weights": ("--weights none", "--weights none", "--weights {root}/runs/teacher/best.pt"),
    "meanface": ("--meanface {root}/meanface.txt",),
    "batch-size": ("--batch-size 4", "--batch-size 2", "--batch-size 1", "--batch-size 64"),
    "accumulate": ("--accumulate 2",),
    "optimizer": ("--optimizer adam",),
    "schedule": ("--schedule steps --milestones 0.5", "--schedule steps"),
    "clip": ("--clip 0",),
    "ema": ("--ema 0",),
    "amp": ("--amp bf16", "--amp off", "--amp fp16"),
    "deterministic": ("--deterministic",),
    "warmup": ("--warmup 0", "--warmup 5"),
    "early-stop": ("--early-stop 1",),
    "val": ("--val none", "--val test", "--val 0.5"),
    "balance": ("--balance",),
    "least-box": ("--least-box 20", "--least-box 9999"),
    "label-shift": ("--label-shift 0.5", "--label-shift 1 2"),
    "roll-prob": ("--roll-prob 1",),
    "rotation": ("--rotation 0",),
    "fill": ("--fill black",),
    "occlusion": ("--occlusion 1",),
    "interpolation": ("--interpolation random",),
    "infrared": ("--infrared 1",),
    "shear": ("--shear 0.2",),
    "steps": ("--steps rotation flip blur", "--steps sides shear padding --sides 0.4 0.6 0.4 0.6", "--steps sides"),
    "padding": ("--padding 0.2", "--padding 0.2 --padding-prob 0.3"),
    "cache": ("--cache 0",),
    "flip-test": ("--flip-test",),
    "norm": ("--norm box", "--norm interpupil"),
    "box": ("--box perturbed", "--box true perturbed", "--box detector"),
    "thresholds": ("--thresholds 8 10",),
    "crops": ("--crops 6",),
    "mosaic": ("--mosaic 1",),
    "pasted": ("--pasted 2",),
    "touching": ("--touching 1",),
}
MOST = 14  # options in a combination
KINDS, COUNT = (), 280
FLAGS = {"jobs": {"type": int, "default": 1, "help": "combinations at the same time"}}
Row = dict[str, str]


def pairs_of(row: Row) -> set[tuple]:
    """Return the pairs of values in a combination."""
    return set(combinations(sorted(row.items()), 2))


def draw(missing: set[tuple], rng: np.random.Generator) -> Row:
    """Return a combination of missing pairs that fit together; of random values where none is missing."""
    row: Row = {}
    ordered = sorted(missing)
    for place in rng.permutation(len(ordered)):
        row |= (
            dict(ordered[place])
            if len(row) < MOST and all(row.get(*item) == item[1] for item in ordered[place])
            else {}
        )
    for option in rng.permutation(list(VALUES))[: max(MOST - len(row), 0)]:
        row.setdefault(str(option), str(rng.choice(VALUES[option])))
    return row


def command(row: Row, root: Path, name: str) -> list[str]:
    """Return the command line of a combination; small values where it says nothing."""
    flags = [MODES if "modes" not in row else "", DATA, f"--run-root {{root}}/runs/{name} --exp run", *row.values()]
    detects = "task" in row or row.get("preset", "").startswith("--preset detect")
    usual = {"weights": "none", "batch-size": 4} | (
        {"input-size": 128, "crops": 6} if detects else {"input-size": 64, "net": "timm:test_efficientnet"}
    )
    flags += [f"--{option} {value}" for option, value in usual.items() if option not in row]
    return ["main.py", *shlex.split(" ".join(flags).format(root=root))]


def judge(row: Row, done: Done, run: Path) -> tuple[str, list[str]]:
    """Return (ran, refused or what is wrong, the options that the message names)."""
    if done.status == 0:
        exports = "--test-onnx" in row.get("modes", MODES) or "--export" in row.get("modes", MODES)
        lacks = [name for name in ("best.pt", "last.pt", *["best.onnx"] * exports) if not (run / name).is_file()]
        return (f"lacks {lacks}" if lacks else "ran"), []
    said = [line for line in done.text.splitlines() if line.startswith("error: ")]
    if done.status != 1 or "Traceback" in done.text or len(said) != 1 or done.line != said[0]:
        return f"status {done.status}: {done.line[:300]}", []
    message = said[0].lower()
    named = [
        option
        for option, text in row.items()
        if option in message
        or option.replace("-", "_") in message
        or any(word.lstrip("-") in re.findall(r"[\w.:/]+", message) for word in text.split()[1:])
    ]
    if run.exists():
        return f"refused after it had begun: {said[0][:300]}", named
    return ("refused" if named else f"names nothing that was given: {said[0][:300]}"), named


class Campaign:
    """The pairs that are still to be drawn; combinations may run at the same time."""

    def __init__(self, seed: int, root: Path):
        self.rng, self.root, self.guard = np.random.default_rng(seed), root, threading.Lock()
        values = [[(option, value) for value in dict.fromkeys(texts)] for option, texts in VALUES.items()]
        self.missing = {tuple(sorted((a, b))) for one, two in combinations(values, 2) for a in one for b in two}
        self.total, self.messages, self.ran = len(self.missing), Counter(), set()

    def run(self, number: int) -> list[Case]:
        """Draw a combination, and drop what is refused until the rest runs. Return a case for each attempt."""
        with self.guard:
            row = draw(self.missing, self.rng)
            self.missing -= pairs_of(row)
        cases = []
        for attempt in range(len(row) + 1):
            name = f"{number}-{attempt}"
            run = self.root / "runs" / name / "run"
            try:
                done = call(command(row, self.root, name), self.root / f"output-{name}")
                outcome, named = judge(row, done, run)
            except TimeoutError as error:
                outcome, named = str(error), []
            fresh(run.parent).rmdir()
            wrong = [] if outcome in ("ran", "refused") else [outcome]
            cases.append(Case("combinations", wrong, outcome, {"options": " ".join(row.values())}))
            with self.guard:
                if outcome == "ran":
                    self.ran |= pairs_of(row)
                if outcome != "refused":
                    break
                self.messages[re.sub(r"/\S+", "PATH", done.line)] += 1
                drop = str(self.rng.choice(named))
            row = {option: text for option, text in row.items() if option != drop}
        return cases


def cases(args: Namespace, _kinds: list[str], root: Path, figures: dict) -> Iterator[Case]:
    words = [*command({"modes": "--train"}, root, "x"), "--run-root", root / "runs", "--exp", "teacher"]
    trained(shlex.join(map(str, words)), root)
    shutil.copy(next((root / "data").glob("synthetic-*/meanface.txt")), root)
    run = Campaign(args.seed, root)
    with ThreadPoolExecutor(args.jobs) as pool:
        for found in pool.map(run.run, range(args.count)):
            yield from found
    figures["pairs"] = {"all": run.total, "drawn": run.total - len(run.missing), "run": len(run.ran)}
    figures |= {"drawn": args.count, "messages": dict(run.messages.most_common())}
    print(figures["pairs"])
