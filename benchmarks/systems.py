"""Five published recipes and ours on the same faces for the same time: `python benchmarks/systems.py --minutes 40 [ROW ...]`.

Every row trains from random weights on the training faces of 300W and FACES68 at 128 px, as many epochs as fit into the minutes of
processor time (one thread; the first epoch is timed), with milestones and warm-up moved in proportion. All faces are trained on, and
the last epoch is tested. A finished row is kept, a killed one goes on; rows that are named are measured again.
"""
import argparse
import json
import resource
from pathlib import Path

from photographs import require
from record import COMMIT, RESULTS, chosen, rows, save
from runs import run, train

from utils.config import read_defaults
from utils.tools.zoo import latency, spent
from utils.train import checkpoint

DATA = ["--dataset", "300w", "--data-dir", "300W", "--allow-partial", "--train-data", "300w", "FACES68"]
TESTS = ["--test-data", "300w", "FACES68", "--allow-partial"]
NETS = {"ResNet-18": ["--net", "resnet18"], "MobileNetV3": ["--net", "mobilenetv3_large"], "IRNet-18": ["--net", "irnet18"],
        "IRNet-18, 12 eye points": ["--net", "irnet18", "--layout", "12"], "MobileNetV2": ["--net", "mobilenetv2"],
        "Slim": ["--net", "slim"], "DPR": ["--net", "dpr"]}
PUBLISHED = {"ResNet-18": ["--preset", "pipnet", "--weight-decay", "0.0005"],  # decay: no weights are pretrained
             "MobileNetV3": ["--preset", "pipnet", "--weight-decay", "0.0005", "--net", "mobilenetv3_large"],
             "IRNet-18": ["--preset", "irnet"], "IRNet-18, 12 eye points": ["--preset", "drowsiness"],
             "MobileNetV2": ["--preset", "coordinate"], "Slim": ["--preset", "slim"], "DPR": ["--preset", "dpr", "--layout", "68"]}
SHORT = ["--preset", "short", "--label-shift", "0.75", "1.2"]
ROWS = {f"{flags[1]}, {net}": flags for net, flags in PUBLISHED.items()} | {
    f"short, {net}": [*SHORT, *flags, *(["--num-nb", "5"] if "--layout" in flags else [])] for net, flags in NETS.items()}


def scaled(flags: list[str], epochs: int) -> list[str]:
    """Return the flags with the preset's milestones and warm-up in proportion to `epochs`."""
    defaults = read_defaults()
    recipe = defaults.values | defaults.presets[flags[flags.index("--preset") + 1]]
    share = epochs / recipe["epochs"]
    moved = ["--milestones", *(f"{share * epoch:.3f}" for epoch in recipe["milestones"])] if recipe["milestones"] else []
    return [*flags, "--epochs", str(epochs), "--warmup", f"{share * recipe['warmup']:.3f}", *moved]


def processor_minutes() -> float:
    """Return the processor time of all finished child processes."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (used.ru_utime + used.ru_stime) / 60


def measure(name: str, flags: list[str], row: dict, given: argparse.Namespace) -> dict:
    """Return the figures of a row whose `epochs` are known; train its net first, or the rest of it."""
    exp = "systems_" + "".join(c if c.isalnum() else "_" for c in name.lower())
    folder, before = train(exp, scaled(flags, row["epochs"])), processor_minutes()
    run("--exp", exp, "--test", "--test-onnx", *TESTS)
    spec = checkpoint.unpack(folder / "best.pt")[0].spec
    side = round(spec["input_size"] * spec.get("input_margin", 1.0))
    said = [line.split(", torch: ")[1] for line in (folder / "log.txt").read_text(encoding="utf-8").splitlines() if ", torch: " in line]
    times = rows(folder / "time.csv")
    return {"seconds": round(sum(float(time["seconds"]) for time in times)), "test_minutes": round(processor_minutes() - before, 2),
            "parameters_m": round(spent(spec).parameters, 2), "ms": round(latency(folder / "best.onnx", side), 2),
            "scores": [score for score in rows(folder / "report" / "scores.csv") if not score["test set"].startswith(" ")],
            "pose_and_states": said[-2:]}


def timed(flags: list[str], given: argparse.Namespace) -> dict:
    """Return the minutes of the first epoch, and how many epochs fit into those that are given."""
    before = processor_minutes()
    run("--train", "--overwrite", "--exp", "systems_timed", *flags, "--epochs", "1")
    minutes = processor_minutes() - before
    return {"minutes_of_an_epoch": round(minutes, 3), "epochs": max(int(given.minutes / minutes), 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"without: all of {'; '.join(ROWS)}")
    parser.add_argument("--minutes", type=float, default=40, help="of processor time, for each row")
    parser.add_argument("--input-size", type=int, default=128)
    given = parser.parse_args()
    wanted = chosen(ROWS, given.rows)
    require(*DATA)
    how = {"minutes": given.minutes, "input_size": given.input_size}
    file = RESULTS / "systems.json"
    stored = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    done = stored["rows"] if {key: stored.get(key) for key in how} == how else {}
    common = [*DATA, "--weights", "none", "--val", "none", "--input-size", str(given.input_size), "--threads", "1", "--workers", "0"]

    def keep() -> Path:
        return save("systems", f"python benchmarks/systems.py --minutes {given.minutes:g}", 0, {**how, "rows": done})

    for name in wanted:
        if "scores" in done.get(name, {}) and not given.rows:
            continue
        flags = [*common, *ROWS[name]]
        if "epochs" not in done.get(name, {}) or "scores" in done[name]:
            done[name] = {"flags": " ".join(ROWS[name]), **timed(flags, given)}
            keep()  # so that a killed row goes on with the same number of epochs
        done[name] |= {"commit": COMMIT, **measure(name, flags, done[name], given)}
        keep()


if __name__ == "__main__":
    main()
