"""Speed of trainings, nets and the demo: `python benchmarks/speed.py NAME ...`.

training [FLAG ...]: steps against their upper bound, with flags of main.py. gpu [ROW ...]: the same on a GPU, for many
nets. zoo [NET ...], formats [NET ...]: cost of every net; the shipped nets in every format. demo [NET ...], browser
[NET.onnx ...]: from pictures to drawn faces.
"""

from commands import Command, main

SPEEDS = {
    "training": Command("speeds.training"),
    "gpu": Command("speeds.gpu"),
    "browser": Command("speeds.browser"),
    **{name: Command("speeds.nets") for name in ("zoo", "formats")},
    "demo": Command("speeds.demo"),
}

if __name__ == "__main__":
    main(SPEEDS, __doc__)
