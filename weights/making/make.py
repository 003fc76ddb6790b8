"""How the shipped nets are made: `python weights/making/make.py STEP ...`. README.md has the order of the steps.

A step is one or more stages of stages.yaml, which are trained in weights/bench_STAGE, or one of these with its
arguments.
"""

import re
import sys
from importlib import import_module
from pathlib import Path

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
from photographs import run  # noqa: E402
from record import chosen  # noqa: E402

STEPS = {
    "pseudo_labels": "PICTURES OUT [NET.onnx]",
    "rare_faces": "OUT COUNT",
    "open_faces": "OUT TRAIN TEST",
    "open_backgrounds": "OUT COUNT",
    "lids": "OUT SHIFT_ALL_AGES SHIFT_DIVERSE",
    "steady_labels": "OUT [NET.pt]",
    "early_stem": "NET.pt OUT.pt",
    "average": "FIRST SECOND SHARE EXP",
    "ship": "NAME",
}


def stages() -> dict[str, dict]:
    """Return the sections of stages.yaml: flags, stages, nets."""
    return yaml.safe_load(Path(__file__).with_name("stages.yaml").read_text(encoding="utf-8"))


def filled_in(words: str, lines: dict[str, str]) -> list[str]:
    """Return the flags of a text in which {NAME} stands for one of the lines."""
    while "{" in words:
        words = re.sub(r"{(\w+)}", lambda name: lines[name[1]], words)
    return words.split()


def train(names: list[str]) -> None:
    """Train the stages of these names."""
    known = stages()
    for name in chosen(known["stages"], names):
        run(*filled_in(known["stages"][name]["flags"], known["flags"]), "--exp", f"bench_{name}", "--overwrite")


if __name__ == "__main__":
    step, *given = sys.argv[1:] or ["--help"]
    if step == "--help":
        print(__doc__, *(f"  {name} {words}" for name, words in STEPS.items()), *stages()["stages"], sep="\n")
    elif step in STEPS:
        words = STEPS[step].split()
        if not sum("[" not in word for word in words) <= len(given) <= len(words):
            sys.exit(f"usage: python weights/making/make.py {step} {STEPS[step]}")
        import_module(step).main(*given)
    else:
        train([step, *given])
