"""Speed of trainings, nets, the demo and sets: `python benchmarks/speed.py NAME ...`.

training [FLAG ...]: steps against their upper bound, with flags of main.py. gpu [speed] [train]: the same on a GPU, for
many nets. zoo [NET ...], formats [NET ...]: cost of every net; the shipped nets in every format. demo [NET ...],
browser [NET.onnx ...]: from pictures to drawn faces. soak [video] [pictures]: the demo for a long time. scale [FACES
...]: training on large sets. preparation, rendering: how long sets take to be made.
"""

from commands import Command, main

SPEEDS = {
    "training": Command("speeds.training"),
    "gpu": Command("speeds.gpu"),
    "browser": Command("speeds.browser"),
    **{name: Command("speeds.nets") for name in ("zoo", "formats")},
    **{name: Command("speeds.demo") for name in ("demo", "soak")},
    **{name: Command("speeds.sets") for name in ("scale", "preparation", "rendering")},
}

if __name__ == "__main__":
    main(SPEEDS, __doc__)
