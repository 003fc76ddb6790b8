"""Tables of figures in README.md and docs/, made from benchmarks/results: `python benchmarks/tables.py` writes them.

A table stands between `<!-- figures: NAME -->` and `<!-- end -->`. No figure is typed: the function NAME makes the table.
"""
import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import recipe
from record import RESULTS, ROOT
from runs import RUNS

from nets import NETS

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SETS = {"300w": "300W, lfpw/testset", "faces68": "FACES68", "synthetic faces": "synthetic, common and challenge"}
BOXES = {"faceboxes": "FaceBoxesV2, published weights", "rfb320": "RFB-320", "mtcnn": "MTCNN", "shipped": "weights/detector.onnx"}
TOOLS = {"ours, weights/": "ours, `weights/landmarks.onnx`", "ours, ResNet-18 of real_256": "ours, ResNet-18 of run `real_256`"}
Value = str | Callable[[dict], object]


def found_rows(name: str) -> dict[str, dict]:
    """Return the rows of benchmarks/results/NAME.json, none before they are measured."""
    return result(name)["rows"] if (RESULTS / f"{name}.json").is_file() else {}


def result(name: str) -> dict:
    """Return what benchmarks/results/NAME.json holds."""
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def table(rows: Iterable[dict], *columns: tuple[str, Value] | tuple[str, Value, str]) -> str:
    """Return a Markdown table. A column is its title, a key or function of the row, and for numbers a format such as `.2f`.

    Numbers are aligned to the right; None gives an empty cell.
    """
    lines = [[title for title, *_ in columns], ["--:" if form else "---" for _, _, *form in columns]]
    for row in rows:
        values = [(value(row) if callable(value) else row.get(value), *form) for _, value, *form in columns]
        lines.append(["" if value is None else format(value, *form).replace("|", r"\|") for value, *form in values])
    return "\n".join("|" + "|".join(cells) + "|" if i == 1 else f"| {' | '.join(cells)} |" for i, cells in enumerate(lines))


def scores(name: str) -> list[dict]:
    """Return a row for each test set of a whole run: its scores as numbers, and by how much the ONNX file differs."""
    rows = [row for row in result(name)["scores"] if not row["test set"].startswith(" ")]
    exported = {row["test set"]: float(row["NME %"]) for row in rows if row["model"] == "onnx"}
    return [{"set": re.sub("-pipnet(-published)?$", "", row["test set"]), "faces": row["faces"], "nme": float(row["NME %"]),
             "fr": float(row["FR@10 %"]), "auc": float(row["AUC@10"]),
             "onnx": abs(exported[row["test set"]] - float(row["NME %"]))} for row in rows if row["model"] == "torch"]


def runs() -> str:
    rows = []
    for name, run in RUNS.items():
        for row in scores(name):
            again = bool(rows) and rows[-1]["name"] == name
            rows.append({**row, "name": name, "run": "" if again else f"`{name}`",
                         "trained on": "the same" if again else run.trained_on})
    return table(rows, ("run", "run"), ("trained on", "trained on"), ("tested on", lambda row: SETS.get(row["set"], row["set"])),
                 ("faces", "faces", ">"), ("NME %", "nme", ".2f"), ("FR@10 %", "fr", ".1f"), ("AUC@10", "auc", ".3f"),
                 ("ONNX", "onnx", ".3f"))


def sources() -> str:
    """Return the source of every figure. The command of a whole run is the one that repeats it today."""
    rows = []
    for file in sorted(RESULTS.glob("*.json")):
        name, row = file.stem, result(file.stem)
        command, seeds = row["command"], {str(row["seed"])}
        if name in RUNS:
            command = f"python benchmarks/runs.py {name} = python main.py {' '.join(RUNS[name].flags)}"
        elif not (ROOT / command.split()[1]).is_file():
            command = f"{command.split('/')[1]} at that commit"  # the script was removed since
        if name.startswith("recipe_"):
            seeds = {seed for one in row["rows"].values() for seed in one["seeds"]}
        rows.append({**row, "figures": f"[{name}](benchmarks/results/{name}.json)", "seed": ", ".join(sorted(seeds)),
                     "command": " = ".join(f"`{part.strip()}`" for part in command.split(" = ")),
                     "processor": row["machine"]["cpu"], "cores": row["machine"]["cores"]})
    return table(rows, *((key, key) for key in ("figures", "command", "seed", "commit", "date", "processor")),
                 ("cores", "cores", ""), ("minutes", "minutes", ".1f"), ("images/s", "images_per_second", ".0f"))


def peers() -> str:
    """One row per tool, photographs of two sets side by side."""
    rows: dict[str, dict] = {}
    for row in result("others")["rows"]:
        rows.setdefault(TOOLS.get(row["tool"], row["tool"]), {"trained on": row["trained_on"]})[row["set"]] = row

    def both(key: str, form: str):
        return lambda row: f"{row['300W'][key]:{form}} / {row['FACES68'][key]:{form}}"

    return table([{"tool": tool, **row} for tool, row in rows.items()], ("tool", "tool"), ("trained on", "trained on"),
                 *((f"{title}, {one}", lambda row, one=one, key=key: row[one][key], ".2f")
                   for title, key in (("NME %", "nme"), ("aligned", "habits_aside_nme")) for one in ("300W", "FACES68")),
                 ("ms a picture", both("ms", ".0f"), ">"), ("found, %", both("found_%", ".1f"), ">"))


def rolls() -> str:
    """Turned photographs: missed faces, and errors against those of the upright photographs."""
    rows = [{**row, "tool": TOOLS.get(row["tool"], row["tool"])} for row in result("rolls")["rows"]]
    return table(rows, ("tool", "tool"), ("photographs", lambda row: SETS[row["set"].lower()]),
                 ("turned by", lambda row: f"{row['roll']}°", ">"), ("faces", "faces", "d"), ("missed, %", "missed_%", ".1f"),
                 ("NME %", "nme", ".2f"), ("NME / upright", "of_upright", ".2f"))


def same_net() -> str:
    """One net and one training set under two recipes."""
    names = {"real_256": "preset `short` without its refiner", "pipnet_256": "preset `pipnet`: the PIPNet authors' recipe"}
    rows = [{"recipe": title, **{row["set"]: row["nme"] for row in scores(name)}} for name, title in names.items()]
    cost = result("zoo")["nets"]["resnet18"][2]
    return table(rows, ("recipe", "recipe"), ("NME %, 300W", "300w", ".2f"), ("NME %, FACES68", "faces68", ".2f"),
                 ("ms", lambda row: cost, ".0f"))


def boxes() -> str:
    found = result("face_boxes")["rows"]
    rows = {row["box"]: {"box": BOXES.get(row["box"], row["box"])} for row in found}
    for row in found:
        rows[row["box"]][row["set"]] = row
    columns = [(f"{one}, {title}", lambda row, one=one, key=key: row[one][key], ".2f") for one in ("300W", "FACES68")
               for title, key in (("one crop", "one_pass_nme"), ("two", "refined_nme"))]
    return table(rows.values(), ("box", "box"), *columns)


def text(values: list[float]) -> str:
    """Return the mean of some seeds, and their deviation."""
    return f"{np.mean(values):.2f}" + (f" ± {np.std(values):.2f}" if len(values) > 1 else "")


def tested(way: str, start: str) -> Value:
    """Return the column of the NME on a test set. way: test or flip_test."""
    return lambda row: text([nme for seed in row["seeds"].values() for name, nme in seed[way].items() if name.startswith(start)])


def pipnet() -> str:
    """Return the PIPNet authors' recipe with one of its steps changed."""
    rows = found_rows("recipe_pipnet_30_128")
    return table([{"name": name, **rows[name]} for name in recipe.STEPS if name in rows], ("recipe", "name"),
                 ("flags", lambda row: f"`{row['flags']}`"), ("lfpw/testset", tested("test", "300w"), ">"),
                 ("faces68/test", tested("test", "faces68"), ">"))


def measured_systems() -> list[dict]:
    """Return the finished rows of systems.py, each with its NME on both sets as numbers."""
    rows = found_rows("systems")
    return [{"name": name, **row, **{f"{kind}, {place}": float(score[kind]) for kind in ("NME %", "crop NME %")
                                     for place, score in zip(("300W", "FACES68"), row["scores"], strict=True)}}
            for name, row in rows.items() if "scores" in row]


def systems() -> str:
    titles = [f"{kind}, {place}" for kind in ("NME %", "crop NME %") for place in ("300W", "FACES68")]
    return table(measured_systems(), ("recipe, net", "name"), ("epochs", "epochs", ""),
                 *((title, title, ".2f") for title in titles), ("parameters M", "parameters_m", ".2f"), ("ms", "ms", ".1f"))


def system_states() -> str:
    """Return the errors of the head poses, and how often each state of eyes and mouth is found and wrongly found."""
    rows = [{"name": row["name"], "set": place, "pose": re.search(r"off by ([\d.]+)", words)[1],
             **{name: f"{hit} / {all_true}, {wrong} / {others}" for name, hit, all_true, wrong, others in re.findall(
                 r"; ([a-z ]+) found (\d+) of (\d+), wrongly (\d+) of (\d+)", words)}}
            for row in measured_systems() for place, words in zip(("300W", "FACES68"), row["pose_and_states"], strict=False)]
    names = ("left eye closed", "right eye closed", "mouth closed", "mouth wide open")
    return table(rows, ("recipe", "name"), ("set", "set"), ("pose, degrees", "pose", ">"), *((name, name, ">") for name in names))


def recipes() -> str:
    """Whole recipes: NME on validation faces, the difference from the first row, tests; mean and deviation over the seeds."""
    rows = result("recipe_recipes_12_128")["rows"]
    first = next(name for name in recipe.RECIPES if name in rows)
    return table([rows[name] for name in recipe.RECIPES if name in rows], ("recipe", lambda row: f"`{row['flags']}`"),
                 ("validation NME %", lambda row: text([seed["val"] for seed in row["seeds"].values()]), ">"),
                 ("difference", lambda row: row["val"][0] - rows[first]["val"][0], "+.2f"),
                 ("lfpw/testset", tested("test", "300w"), ">"), ("faces68/test", tested("test", "faces68"), ">"),
                 ("lfpw, flip test", tested("flip_test", "300w"), ">"),
                 ("faces68, flip test", tested("flip_test", "faces68"), ">"))


def ablation() -> str:
    """One change at a time: the difference of the validation NME from the first row, for each net measured."""
    nets = {"ResNet-10-T, 10 epochs": "10_128_timm_resnet10t", "ResNet-18, 20 epochs": "20_128"}
    found = {net: result(f"recipe_ablation_{file}")["rows"] for net, file in nets.items()}
    measured = {name: row["flags"] for rows in found.values() for name, row in rows.items()}
    names = [*(name for name in recipe.ABLATION if name in measured), *sorted(measured.keys() - recipe.ABLATION.keys())]

    def figure(net: str):
        def text(name: str) -> str | None:
            if name not in found[net]:
                return None
            nme, base = found[net][name]["val"][0], found[net]["base"]["val"][0]
            return f"{nme:.2f}" if name == "base" else f"{nme - base:+.2f}"
        return lambda row: text(row["name"])

    rows = [{"name": name, "flags": f"`{measured[name]}`" if measured[name] else "",
             "title": name if name in recipe.ABLATION else f"{name} (option removed)"} for name in names]
    return table(rows, ("row", "title"), ("flags", "flags"), *((net, figure(net), ">") for net in nets))


def detector() -> str:
    return table(result("detector")["rows"], ("detector", "detector"), ("scale", "scale", "g"), ("event", "event"),
                 ("faces", "faces", ""), ("AP", "AP", ".3f"), ("recall", "recall", ".3f"), ("masked", "recall, masked", ".3f"),
                 ("unmasked", "recall, unmasked", ".3f"), ("ms, 640x480", "ms", ".1f"))


def jitter() -> str:
    """Smoothing against known truth; each cell holds the figures at 15 / 30 / 60 frames/s."""
    def cell(form: str, figure: Callable[[dict], float], only: Callable[[str, dict], bool] = lambda motion, rate: True):
        return lambda row: " / ".join(format(figure(rate), form) for rate in row["rates"] if only(row["motion"], rate))

    def is_blink(motion: str, rate: dict) -> bool:
        return "frames_late" in rate

    rows = [{"motion": motion, "rates": list(rates.values())} for motion, rates in result("jitter")["rows"].items()]
    return table(
        rows, ("the face", "motion"),
        ("error left, %", cell(".0f", lambda rate: 100 * rate["smoothed_error_px"] / rate["error_px"]), ">"),
        ("jitter reduced by, times", cell(".1f", lambda rate: rate["movement_px"] / rate["smoothed_movement_px"],
                                          lambda motion, rate: motion == "still"), ">"),
        ("blink depth kept, %", cell(".0f", lambda rate: 100 * rate["amplitude_kept"], is_blink), ">"),
        ("frames late", cell(".1f", lambda rate: rate["frames_late"], is_blink), ">"))


def demo() -> str:
    rows = [{"faces": count, "way": way, **row} for count, ways in result("demo")["faces"].items() for way, row in ways.items()]
    return table(rows, ("faces", "faces"), ("way", "way"), ("frames/s", "frames_per_second", ".1f"),
                 ("CPU ms a frame", "cpu_ms_per_frame", ".0f"), ("detector's share", "detector_share", ".0%"),
                 ("NME %", "nme", ".2f"), ("faces found", "found", ".1%"))


def box_shift() -> str:
    rows = [{"net": name, **row["nme"]} for name, row in result("box_shift")["rows"].items()]
    return table(rows, ("net", "net"), *((case, case, ".2f") for case in rows[0] if case != "net"))


def zoo() -> str:
    """Return the cost of the nets, and the NME after overfitting 16 faces for one net of each kind."""
    costs, learnt = result("zoo")["nets"], result("zoo")["learning"]

    def cost(place: int):
        return lambda row: costs.get(row["name"], [None] * 3)[place]

    rows = [{"name": name, "note": NETS[name].note if name in NETS else ""} for name in dict.fromkeys([*NETS, *costs])]
    return table(rows, ("`--net`", lambda row: f"`{row['name']}`"), ("published NME %", "note"), ("parameters M", cost(0), ".1f"),
                 ("MACs G", cost(1), ".2f"), ("ONNX ms", cost(2), ".1f"),
                 ("16 faces", lambda row: learnt.get(row["name"], [None] * 2)[1], ".2f"))


def learning() -> str:
    rows = [{"name": name, "before": before, "after": after} for name, (before, after) in result("zoo")["learning"].items()
            if name not in result("zoo")["nets"]]
    return table(rows, ("head or stage", "name"), ("mean face", "before", ".1f"), ("net", "after", ".2f"))


def published() -> str:
    found = [{"net": title, **row} for title, row in result("published")["nets"].items()]
    columns = [(f"{name}, {words}", lambda row, name=name, box=box: float(row[name][box]), ".2f")
               for name in ("300W", "FACES68") for box, words in (("true", "labels' box"), ("detector", "detector"))]
    return table(found, ("published net", "net"), *columns, ("detector", "detector"))


def finetune() -> str:
    found, names = result("finetune"), {"synthetic": "synthetic faces", "real": "photographs of 300W"}
    return table([{"title": title, **found[kind]} for kind, title in names.items()], ("fifty faces", "title"),
                 ("fine-tuned from", lambda row: row["from"].removeprefix("bench_")),
                 *((f"{title}{key}", lambda row, way=way, key=key: float(row[way][key]), ".1f")
                   for title, way in (("", "fine-tuned"), ("from scratch: ", "from_scratch")) for key in ("NME %", "FR@10 %")),
                 ("minutes each", lambda row: row["fine-tuned"]["minutes"], ".1f"))


def label_noise() -> str:
    rows = [{"kind": kind, **row} for kind, row in result("label_noise")["planted"].items()]
    return table(rows, ("planted error", "kind"), ("faces", "faces", ""), ("labels disputed, %", "disputed_%", ".0f"),
                 *((title, lambda row, place=place: row["among_the_worst_%"][place], ".0f")
                   for place, title in enumerate(("among the worst faces by the mean, %", "by the worst landmark, %"))))


def label_shift() -> str:
    return table(result("label_shift")["rows"], ("set", "set"), ("part", "part"), ("faces", "faces", ""),
                 ("width, px", "width_px", ""), ("labels to the right by, px",
                                                 lambda row: f"{row['right_px']:+.2f} ± {row['error_px']:.2f}", ">"),
                 ("smaller half", "small_faces_px", "+.2f"), ("larger half", "large_faces_px", "+.2f"))


def campaigns() -> str:
    names = {"kills": "SIGKILLs", "signals": "signals", "disks": "disks in trouble", "files": "damaged files",
             "options": "combinations of options"}
    rows = [{"what": what, **result(name)} for name, what in names.items() if (RESULTS / f"{name}.json").is_file()]
    return table(rows, ("attack", "what"), ("cases", "count", "d"), ("faults", lambda row: len(row["faults"]), "d"),
                 ("minutes", "minutes", ".0f"), ("command", lambda row: f"`{row['command']}`"), ("commit", "commit"))


TABLES = {make.__name__: make for make in (
    peers, rolls, same_net, runs, systems, system_states, recipes, pipnet, ablation, boxes, box_shift, jitter, demo, detector,
    zoo, learning, published, finetune, label_noise, label_shift, campaigns, sources)}


def filled(text: str, page: Path) -> str:
    """Return the text of a page with every table made anew; links to the result files start at the page's folder."""
    up = "../" * (len(page.relative_to(ROOT).parts) - 1)

    def made(match: re.Match) -> str:
        return f"{match[1]}{TABLES[match[2]]().replace('](benchmarks/', f']({up}benchmarks/')}\n{match[3]}"

    return re.sub(r"(<!-- figures: (\w+) -->\n).*?(<!-- end -->)", made, text, flags=re.DOTALL)


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(filled(page.read_text(encoding="utf-8"), page), encoding="utf-8")
