"""Five published recipes and ours on the same faces for the same time: `python benchmarks/systems.py --minutes 40 [ROW ...]`.

Each row trains from random weights on the training faces of 300W and FACES68, as many epochs as fit into the minutes of processor
time on one thread, with the recipe's milestones and warm-up in proportion. All faces are trained on, and the last epoch is
tested. First some steps of every row are timed, and its net, which needs a machine that does nothing else; then all are trained.
Finished rows are kept, a killed one goes on. Another number of minutes begins anew.
"""
import argparse
import json
import re
import resource
import shutil
import time
from itertools import product
from pathlib import Path

from photographs import require
from recipe import file_name
from record import COMMIT, RESULTS, ROOT, chosen, save
from runs import pose_and_states, run, train

from pipnet.files import read_csv
from utils.config import read_defaults
from utils.tools.zoo import cpu_ms, exported_to_temporary
from utils.train import checkpoint

DATA = ["--dataset", "300w", "--data-dir", "300W", "--allow-partial", "--train-data", "300w", "FACES68"]
ALIKE = ["--weights", "none", "--val", "none", "--threads", "1", "--workers", "0"]
TIMED = 1000  # images that tell how long an epoch takes
TESTS = ["--test-data", "300w", "FACES68", "--allow-partial"]
V3, EYES = ["--net", "mobilenetv3_large"], ["--layout", "12", "--num-nb", "5"]
PIPNET = ["--preset", "pipnet", "--weight-decay", "0.0005"]  # decay: no weights are pretrained
SHORT = ["--preset", "short", "--label-shift", "0.75", "1.2"]
ROWS = {
    "PIPNet, ResNet-18": PIPNET, "ours, ResNet-18": SHORT,
    "PIPNet, MobileNetV3": [*PIPNET, *V3], "ours, MobileNetV3": [*SHORT, *V3],
    "IRNet fork, IRNet-18": ["--preset", "irnet"], "ours, IRNet-18": [*SHORT, "--net", "irnet18"],
    "IRNet fork, 12 eye points": ["--preset", "drowsiness"], "ours, 12 eye points": [*SHORT, "--net", "irnet18", *EYES],
    "coordinates, MobileNetV2": ["--preset", "coordinate"], "ours, MobileNetV2": [*SHORT, "--net", "mobilenetv2"],
    "Peppa's Slim": ["--preset", "slim"], "ours, Slim": [*SHORT, "--net", "slim"],
    "DPR": ["--preset", "dpr", "--layout", "68"], "ours, DPR's net": [*SHORT, "--net", "dpr"],
}


def preset(flags: list[str]) -> dict:
    """Return the values of the preset that the flags name."""
    defaults = read_defaults()
    return defaults.values | defaults.presets[flags[flags.index("--preset") + 1]]


def scaled(flags: list[str], epochs: int) -> list[str]:
    """Return the flags with `epochs`, and the preset's milestones and warm-up in proportion."""
    recipe = preset(flags)
    share = epochs / recipe["epochs"]
    moved = ["--milestones", *(f"{share * epoch:.3f}" for epoch in recipe["milestones"])] if recipe["milestones"] else []
    return [*flags, "--epochs", str(epochs), "--warmup", f"{share * recipe['warmup']:.3f}", *moved]


def timed(folder: Path, flags: list[str], minutes: float) -> dict:
    """Return what an epoch costs, how many fit into `minutes`, and what the net costs. The run's folder is removed."""
    run("--prepare", *flags, *TESTS)
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    run("--train", "--overwrite", "--exp", folder.name, *flags, "--epochs", "1", "--warmup", "0", "--epoch-steps",
        str(TIMED // preset(flags)["batch_size"]))
    after, spent = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter() - start
    busy = (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / spent  # the rest of the time others worked
    faces = int(re.search(r" (\d+) faces of ", (folder / "log.txt").read_text(encoding="utf-8"))[1])
    epoch = busy * faces / float(read_csv(folder / "time.csv")[0]["images_per_second"]) / 60
    net = checkpoint.unpack(folder / "last.pt")[0].eval().reparameterized()
    with exported_to_temporary(net) as file:
        ms = cpu_ms(file, round(net.spec["input_size"] * net.input_margin))
    shutil.rmtree(folder)
    return {"minutes_of_an_epoch": round(epoch, 3), "epochs": max(int(minutes / epoch), 1), "ms": round(ms, 2),
            "parameters_m": round(sum(parameter.numel() for parameter in net.parameters()) / 1e6, 2)}


def figures(folder: Path) -> dict:
    """Test a trained net; return its scores, and what its log says of pose and states on each test set."""
    run("--exp", folder.name, "--test", *TESTS)
    scores = [row for row in read_csv(folder / "report" / "scores.csv") if not row["test set"].startswith(" ")]
    return {"scores": scores, "pose_and_states": pose_and_states(folder)[-2:]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"without: all of {'; '.join(ROWS)}")
    parser.add_argument("--minutes", type=float, default=40, help="processor time of each row")
    parser.add_argument("--input-size", type=int, default=128)
    given = parser.parse_args()
    wanted = chosen(ROWS, given.rows)
    require(*DATA)
    how, file = {"minutes": given.minutes, "input_size": given.input_size}, RESULTS / "systems.json"
    stored = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    done = stored["rows"] if {key: stored.get(key) for key in how} == how else {}
    for part, name in product(("epochs", "scores"), wanted):
        flags = [*DATA, *ALIKE, "--input-size", str(given.input_size), *ROWS[name]]
        folder = ROOT / "weights" / f"systems_{file_name(name)}"
        if part in done.setdefault(name, {"flags": " ".join(ROWS[name])}):
            continue
        if part == "scores":
            train(folder.name, scaled(flags, done[name]["epochs"]))
        found = timed(folder, flags, given.minutes) if part == "epochs" else figures(folder)
        done[name] |= {"commit": COMMIT, **found}
        save("systems", f"python benchmarks/systems.py --minutes {given.minutes:g} --input-size {given.input_size}", 0,
             {**how, "rows": done})


if __name__ == "__main__":
    main()
