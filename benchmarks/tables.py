"""The README's tables of figures, made of benchmarks/results: `python benchmarks/tables.py` writes them into README.md.

A table stands between `<!-- figures: NAME -->` and `<!-- end -->`; its text is made here alone, so that no figure is typed.
"""
import json
import re

import numpy as np
import recipe
from record import RESULTS, ROOT
from runs import RUNS

from nets import NETS

SETS = {"300w": "300W, lfpw/testset", "faces68": "faces68: small faces, other label habits",
        "synthetic faces": "synthetic, common and challenge"}


def result(name: str) -> dict | None:
    """What benchmarks/results holds of that name."""
    file = RESULTS / f"{name}.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None


def lines(header: str, align: str, rows: list[list[str]]) -> str:
    """A Markdown table, or that there is none yet. align: l or r for each column."""
    if not rows:
        return "Not measured yet: the command above does it."
    rule = "|".join("--:" if side == "r" else "---" for side in align)
    return "\n".join([f"| {header} |", f"|{rule}|", *(f"| {' | '.join(row)} |" for row in rows)])


def runs() -> str:
    """Accuracy of whole runs."""
    rows = []
    for name, run in RUNS.items():
        scores = [row for row in (result(name) or {"scores": []})["scores"] if not row["test set"].startswith(" ")]
        told = run.trained_on
        exported = {row["test set"]: float(row["NME %"]) for row in scores if row["model"] == "onnx"}
        for row in (row for row in scores if row["model"] == "torch"):
            apart = abs(exported[row["test set"]] - float(row["NME %"]))
            tested = row["test set"].removesuffix("-pipnet")
            rows.append([told, SETS.get(tested, tested), row["faces"], f"{float(row['NME %']):.2f}",
                         f"{float(row['FR@10 %']):.1f}", f"{float(row['AUC@10']):.3f}", f"{apart:.3f}"])
            told = "the same"
    return lines("trained on | tested on | faces | NME % | FR@10 % | AUC@10 | ONNX", "llrrrrr", rows)


def commands() -> str:
    """How each of these runs is repeated, and what it took."""
    rows = []
    for name, run in RUNS.items():
        if found := result(name):
            again = f"`python benchmarks/runs.py {name}` = `python main.py {' '.join(run.flags)}`"
            cores = found["machine"]["cores"]
            spent = f"{found['minutes']:.1f} min on {cores} core{'s' * (cores > 1)}"
            rows.append([f"[{name}](benchmarks/results/{name}.json)", again, found["commit"], spent,
                         f"{found['images_per_second']:.0f}"])
    return lines("figures | command | commit | time | images/s", "lllrr", rows)


def boxes() -> str:
    """What the box of a face costs, by where it comes from: NME in one look at the face and in two."""
    names = {"faceboxes": "FaceBoxesV2, published weights", "rfb320": "RFB-320", "mtcnn": "MTCNN",
             "shipped": "weights/detector.onnx"}
    looks = {"one look": "one_pass_nme", "two": "refined_nme"}
    found = (result("face_boxes") or {"rows": []})["rows"]
    sets = list(dict.fromkeys(row["set"] for row in found))
    rows = []
    for box in dict.fromkeys(row["box"] for row in found):
        part = {row["set"]: row for row in found if row["box"] == box}
        rows.append([names.get(box, box), *(f"{part[one][look]:.2f}" for one in sets for look in looks.values())])
    header = " | ".join(["box", *(f"{one}, {look}" for one in sets for look in looks)])
    return lines(header, "l" + "rr" * len(sets), rows)


def recipes() -> str:
    """Whole recipes: NME on validation faces, against that of the first, and on the tests; mean and deviation over the seeds."""
    def told(values: list[float]) -> str:
        return f"{np.mean(values):.2f}" + (f" ± {np.std(values):.2f}" if len(values) > 1 else "")

    part = (result("recipe_recipes_12_128") or {"rows": {}})["rows"]
    named, rows = [name for name in recipe.RECIPES if name in part], []
    for name in named:
        row, seeds, apart = part[name], list(part[name]["seeds"].values()), part[name]["val"][0] - part[named[0]]["val"][0]
        tests = [[figure for seed in seeds for tested, figure in seed[how].items() if tested.startswith(one)]
                 for how in ("test", "flip_test") for one in ("300w", "faces68")]
        rows.append([f"`{row['flags']}`", told([seed["val"] for seed in seeds]), f"{apart:+.2f}", *map(told, tests)])
    header = "recipe | validation NME % | difference | lfpw/testset | faces68/test | lfpw, flip test | faces68, flip test"
    return lines(header, "lrrrrrr", rows)


def ablation() -> str:
    """One change at a time: by how much the NME on validation faces differs from that of the first row, for each net measured."""
    found = [(result(f"recipe_ablation_{name}") or {"rows": {}})["rows"] for name in ("10_128_timm_resnet10t", "20_128")]
    rows = []
    for name, flags in recipe.ABLATION.items():
        figures = [f"{part[name]['val'][0]:.2f}" if name == "base" else f"{part[name]['val'][0] - part['base']['val'][0]:+.2f}"
                   if name in part else "" for part in found]
        if any(figures):
            rows.append([name, f"`{' '.join(flags)}`" if flags else "", *figures])
    return lines("row | flags | ResNet-10-T, 10 epochs | ResNet-18, 20 epochs", "llrr", rows)


def detector() -> str:
    """Detectors on photographs: each at each scale and event. An empty cell: there are no such faces, or too few boxes for it."""
    def text(value: float | None, digits: int = 3) -> str:
        return "" if value is None else f"{value:.{digits}f}"

    rows = [[row["detector"], f"{row['scale']:g}", row["event"], str(row["faces"]),
             *(text(row[key]) for key in ("AP", "recall", "recall, masked", "recall, unmasked")), text(row["ms"], 1)]
            for row in (result("detector") or {"rows": []})["rows"]]
    return lines("detector | scale | event | faces | AP | recall | of masked | of unmasked | ms, 640x480", "lrlrrrrrr", rows)


def jitter() -> str:
    """Smoothing against known truth: what is left of error and movement, and of blinks."""
    rows = []
    for motion, rates in (result("jitter") or {"rows": {}})["rows"].items():
        left = [f"{100 * row['smoothed_error_px'] / row['error_px']:.0f}" for row in rates.values()]
        calmer = [f"{row['movement_px'] / row['smoothed_movement_px']:.1f}" for row in rates.values() if motion == "still"]
        blinks = [row for row in rates.values() if "frames_late" in row]
        kept, late = [f"{100 * row['amplitude_kept']:.0f}" for row in blinks], [f"{row['frames_late']:.1f}" for row in blinks]
        rows.append([motion, *(" / ".join(cells) for cells in (left, calmer, kept, late))])
    return lines("the face | error left, % | trembling down by | depth of blinks kept, % | frames late", "lrrrr", rows)


def demo() -> str:
    """Speed and error on rendered clips."""
    rows = []
    for count, ways in (result("demo") or {"faces": {}})["faces"].items():
        for way, row in ways.items():
            rows.append([count, way, f"{row['frames_per_second']:.1f}", f"{row['cpu_ms_per_frame']:.0f}",
                         f"{100 * row['detector_share']:.0f} %", f"{row['nme']:.2f}", f"{100 * row['found']:.1f} %"])
    return lines("faces | | frames/s | CPU ms a frame | of it the detector | NME % | faces found", "llrrrrr", rows)


def box_shift() -> str:
    """NME against the box's error (benchmarks/box_shift.py)."""
    found = (result("box_shift") or {"rows": {}})["rows"]
    cases = list(next(iter(found.values()), {"nme": {}})["nme"])
    rows = [[name, *(f"{row['nme'][case]:.2f}" for case in cases)] for name, row in found.items()]
    return lines(" | ".join(["net", *cases]), "l" + "r" * len(cases), rows)


def zoo() -> str:
    """What the nets cost, and how well one of each kind learns sixteen faces by heart; columns without a figure are left out."""
    found = result("zoo") or {}
    costs, learnt = found.get("nets", {}), found.get("learning", {})
    names = [*NETS, *(other for other in costs if other not in NETS)]
    columns = [("`--net`", "l", [f"`{name}`" for name in names]),
               ("published NME %", "l", [NETS[name].note if name in NETS else "" for name in names])]
    for place, (title, digits) in enumerate((("parameters M", 1), ("MACs G", 2), ("ONNX ms", 1))):
        figures = [(costs.get(name) or [None] * 3)[place] for name in names]
        columns.append((title, "r", ["" if figure is None else f"{figure:.{digits}f}" for figure in figures]))
    columns.append(("by heart", "r", [f"{learnt[name][1]:.2f}" if name in learnt else "" for name in names]))
    columns = [column for column in columns if any(column[2])]
    titles, sides, cells = zip(*columns, strict=True)
    return lines(" | ".join(titles), "".join(sides), list(zip(*cells, strict=True)))


def learning() -> str:
    """How well each head and stage, on a small net, learns sixteen faces by heart."""
    found = result("zoo") or {}
    rows = [[name, f"{before:.1f}", f"{after:.2f}"] for name, (before, after) in found.get("learning", {}).items()
            if name not in found["nets"]]
    return lines("head or stage | mean face | net", "lrr", rows)


def others() -> str:
    """The shipped nets beside other tools."""
    rows = [[row["set"], row["tool"], row["trained_on"], f"{row['found_%']:.1f}", *("" if row[key] is None else f"{row[key]:.2f}"
             for key in ("nme", "habits_aside_nme")), f"{row['ms']:.0f}"] for row in (result("others") or {"rows": []})["rows"]]
    return lines("photographs | tool | trained on | found, % | NME % | habits aside | ms", "lllrrrr", rows)


def finetune() -> str:
    """Fifty faces with own points."""
    names = {"synthetic": "drawn", "real": "photographs of 300W"}
    rows = []
    for kind, title in names.items():
        if found := (result("finetune") or {}).get(kind):
            figures = [f"{float(found[way][key]):.1f}" for way in ("fine-tuned", "from_scratch") for key in ("NME %", "FR@10 %")]
            rows.append([title, found["from"].removeprefix("bench_"), *figures, f"{found['fine-tuned']['minutes']:.1f}"])
    header = "fifty faces | fine-tuned from | NME % | FR@10 % | from scratch: NME % | FR@10 % | minutes each"
    return lines(header, "llrrrrr", rows)


def label_noise() -> str:
    """What an audit finds of errors that were planted."""
    rows = [[kind, str(found["faces"]), f"{found['disputed_%']:.0f}", *(f"{share:.0f}" for share in found["among_the_worst_%"])]
            for kind, found in (result("label_noise") or {"planted": {}})["planted"].items()]
    header = "planted error | faces | labels disputed, % | among the worst faces by the mean, % | by the worst landmark, %"
    return lines(header, "lrrrr", rows)


def label_shift() -> str:
    """How far labels lie to the right."""
    rows = [[row["set"], row["part"], str(row["faces"]), str(row["width_px"]), f"{row['right_px']:+.2f} ± {row['error_px']:.2f}",
             *(f"{row[f'{half}_faces_px']:+.2f}" for half in ("small", "large"))]
            for row in (result("label_shift") or {"rows": []})["rows"]]
    return lines("set | part | faces | width, px | labels to the right by, px | smaller half | larger half", "llrrrrr", rows)


TABLES = {"runs": runs, "commands": commands, "others": others, "boxes": boxes, "box_shift": box_shift, "jitter": jitter,
          "demo": demo, "detector": detector, "zoo": zoo, "learning": learning, "ablation": ablation,
          "recipes": recipes, "finetune": finetune,
          "label_noise": label_noise, "label_shift": label_shift}


def filled(text: str) -> str:
    """`text` with every table made anew."""
    place = re.compile(r"(<!-- figures: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
    return place.sub(lambda match: f"{match[1]}{TABLES[match[2]]()}\n{match[3]}", text)


if __name__ == "__main__":
    readme = ROOT / "README.md"
    readme.write_text(filled(readme.read_text(encoding="utf-8")), encoding="utf-8")
