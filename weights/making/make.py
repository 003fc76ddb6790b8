"""How the shipped nets are made: `python weights/making/make.py STEP ...`. README.md has the order of the steps.

A step is one or more stages of stages.yaml, which are trained in weights/bench_STAGE, or one of these with its
arguments.
"""

import sys
from importlib import import_module
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
from experiments import read, whole_runs  # noqa: E402

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

if __name__ == "__main__":
    step, *given = sys.argv[1:] or ["--help"]
    stages = read(Path(__file__).with_name("stages.yaml"))
    if step == "--help":
        print(
            __doc__,
            *(f"  {name} {words}" for name, words in STEPS.items()),
            *map("  {}".format, stages["stages"]),
            sep="\n",
        )
    elif step in STEPS:
        words = STEPS[step].split()
        if not sum("[" not in word for word in words) <= len(given) <= len(words):
            sys.exit(f"usage: python weights/making/make.py {step} {STEPS[step]}")
        import_module(step).main(*given)
    else:
        whole_runs([step, *given], stages["stages"], stages["flags"])
