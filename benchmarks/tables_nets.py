"""Tables of trained nets: whole runs, recipes, one change at a time, cost, fine-tuning, labels."""
import re

import numpy as np
import recipe
from markdown_table import SETS, Value, table, text
from record import RESULTS, found_rows, result
from runs import RUNS

from nets import NETS


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
        for row in scores(name) if (RESULTS / f"{name}.json").is_file() else []:
            again = bool(rows) and rows[-1]["name"] == name
            rows.append({**row, "name": name, "run": "" if again else f"`{name}`",
                         "trained on": "the same" if again else run.trained_on})
    return table(rows, ("run", "run"), ("trained on", "trained on"), ("tested on", lambda row: SETS.get(row["set"], row["set"])),
                 ("faces", "faces", ">"), ("NME %", "nme", ".2f"), ("FR@10 %", "fr", ".1f"), ("AUC@10", "auc", ".3f"),
                 ("ONNX", "onnx", ".3f"))


def same_net() -> str:
    """One net and one training set under two recipes."""
    names = {"real_256": "preset `short` without its refiner", "pipnet_256": "preset `pipnet`: the PIPNet authors' recipe"}
    rows = [{"recipe": title, **{row["set"]: row["nme"] for row in scores(name)}} for name, title in names.items()]
    cost = result("zoo")["nets"]["resnet18"][2]
    return table(rows, ("recipe", "recipe"), ("NME %, 300W", "300w", ".2f"), ("NME %, FACES68", "faces68", ".2f"),
                 ("ms", lambda row: cost, ".0f"))


def tested(way: str, start: str) -> Value:
    """Return the column of the NME on a test set, of the seeds that have it. way: test or flip_test; `, crop`: in the crop."""
    def cell(row: dict) -> str | None:
        found = [nme for seed in row["seeds"].values() for name, nme in seed.get(way, {}).items() if name.startswith(start)]
        return text(found) if found else None
    return cell


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


def pipnet() -> str:
    """Return the PIPNet authors' recipe with one of its steps changed."""
    rows = found_rows("recipe_pipnet_30_128")
    return table([{"name": name, **rows[name]} for name in recipe.STEPS if name in rows], ("recipe", "name"),
                 ("flags", lambda row: f"`{row['flags']}`"), ("lfpw/testset", tested("test", "300w"), ">"),
                 ("faces68/test", tested("test", "faces68"), ">"), ("lfpw, crop", tested("test, crop", "300w"), ">"),
                 ("faces68, crop", tested("test, crop", "faces68"), ">"),
                 ("lfpw, crop, flip test", tested("flip_test, crop", "300w"), ">"),
                 ("faces68, crop, flip test", tested("flip_test, crop", "faces68"), ">"))


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
    nets = [(row["name"], dict(zip(("300W", "FACES68"), row["pose_and_states"], strict=False))) for row in measured_systems()]
    nets += [(f"{name}, as published", {place: row[place]["states"] for place in ("300W", "FACES68") if "states" in row[place]})
             for name, row in result("published")["nets"].items()]
    rows = [{"name": net, "set": place, "pose": re.search(r"off by ([\d.]+)", words)[1],
             **{name: f"{hit} / {all_true}, {wrong} / {others}" for name, hit, all_true, wrong, others in re.findall(
                 r"; ([a-z ]+) found (\d+) of (\d+), wrongly (\d+) of (\d+)", words)}}
            for net, found in nets for place, words in found.items()]
    names = ("left eye closed", "right eye closed", "mouth closed", "mouth wide open")
    return table(rows, ("recipe", "name"), ("set", "set"), ("pose, degrees", "pose", ">"), *((name, name, ">") for name in names))


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


def formats() -> str:
    """Differences of each format from torch in NME and px, and its latencies: median / 95th percentile."""
    rows = [{"net": name, **row} for name, net in result("formats")["nets"].items() for row in net["rows"]]
    calls = [(threads, count) for threads in ("1 core", "2 cores") for count in (1, 16)]

    def latency(threads: str, count: int) -> Value:
        return lambda row: f"{row[f'ms, {threads}, batch {count}']} / {row[f'p95, {threads[0]}, {count}']}"

    return table(rows, ("net", "net"), ("format", "format"), ("MB", "MB", ">"), ("NME apart, points", "figure apart", ">"),
                 ("landmarks apart, px: mean", "px apart, mean", ">"), ("99.9 %", "99.9%", ">"), ("largest", "largest", ">"),
                 *((f"ms: {threads}, {count} crop{'s' * (count > 1)}", latency(threads, count), ">") for threads, count in calls))


def semi() -> str:
    """Learning from unlabelled faces: errors by row and setting, and the share of the gap to all labels that a row closes."""
    kinds = {f"{title}, {place}": (place, title) for place in ("300w", "faces68") for title in ("NME %", "without offsets")}
    rows = []
    for file in sorted(RESULTS.glob("semi_*.json")):
        errors = {name: {kind: [seed["errors"][place][title] for seed in row["seeds"].values()]
                         for kind, (place, title) in kinds.items()} for name, row in result(file.stem)["rows"].items()}
        setting, epochs = file.stem.split("_")[1:3]
        for name, found in errors.items():
            rows.append({"setting": setting, "epochs": epochs, "row": name, **{kind: text(found[kind]) for kind in kinds}})
            if {"labels only", "all labels"} <= errors.keys() - {name}:
                for kind in kinds:
                    few, some, many = (np.mean(errors[row][kind]) for row in ("labels only", name, "all labels"))
                    if many < few:
                        rows[-1][f"gap: {kind}"] = (few - some) / (few - many)
    return table(rows, ("setting", "setting"), ("epochs", "epochs", ">"), ("row", "row"),
                 *((kind, kind, ">") for kind in kinds),
                 *((f"gap: {kind}", f"gap: {kind}", ".0%") for kind in kinds))


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


TABLES = (same_net, runs, systems, system_states, recipes, pipnet, ablation, zoo, learning, published, finetune, formats,
          semi, label_noise, label_shift)
