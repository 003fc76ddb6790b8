"""Speed of trainings and of the demo: `python benchmarks/speed.py NAME ...`.

training [FLAG ...]: steps against their upper bound, with flags of main.py. gpu [ROW ...]: the same on a GPU, for as
many nets as --minutes allow. demo [NET ...], browser [NET.onnx ...]: from pictures to drawn faces. pipeline: the
exported graph beside `Landmarker`. `main.py --list-nets NAME ...` measures the cost of nets, `main.py --test-formats`
the time of exports.
"""

from record import main

SPEEDS = {name: f"speeds.{name}" for name in ("training", "gpu", "browser", "demo", "pipeline")}

if __name__ == "__main__":
    main(SPEEDS, __doc__)
