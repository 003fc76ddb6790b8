"""Tables of faces in whole pictures and videos: other tools, turned photographs, boxes, the detector, smoothing, speed."""
from collections.abc import Callable

from markdown_table import SETS, table
from record import result

from pipnet.files import SHIPPED

BOXES = {"faceboxes": "FaceBoxesV2, published weights", "rfb320": "RFB-320", "mtcnn": "MTCNN", "shipped": "weights/detector.onnx"}
TOOLS = {f"ours, {net}": f"ours, `{net}`" for net in SHIPPED[:2]}


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


def changed() -> str:
    """Changed photographs: missed faces, and errors against those of the same photographs as taken."""
    rows: dict[tuple, dict] = {}
    for row in result("changed")["rows"]:
        both = rows.setdefault((row["tool"], row["photographs"]), {**row, "tool": TOOLS.get(row["tool"], row["tool"])})
        both[row["set"]] = row
    return table(rows.values(), ("tool", "tool"), ("photographs", "photographs"),
                 *((f"{title}, {one}", lambda row, one=one, key=key: row[one][key], form) for one in ("300W", "FACES68")
                   for title, key, form in (("faces", "faces", "d"), ("missed, %", "missed_%", ".1f"), ("NME %", "nme", ".2f"),
                                            ("NME / as taken", "of_plain", ".2f"))))


def boxes() -> str:
    found = result("face_boxes")["rows"]
    rows = {row["box"]: {"box": BOXES.get(row["box"], row["box"])} for row in found}
    for row in found:
        rows[row["box"]][row["set"]] = row
    columns = [(f"{one}, {title}", lambda row, one=one, key=key: row[one][key], ".2f") for one in ("300W", "FACES68")
               for title, key in (("one crop", "one_pass_nme"), ("two", "refined_nme"), ("coarse net", "coarse_nme"))]
    return table(rows.values(), ("box", "box"), *columns)


def box_shift() -> str:
    rows = [{"net": name, **row["nme"]} for name, row in result("box_shift")["rows"].items()]
    return table(rows, ("net", "net"), *((case, case, ".2f") for case in rows[0] if case != "net"))


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
    rows = [{"net": f"`{net}`", "faces": count, "way": way, **row} for net, counts in result("demo")["nets"].items()
            for count, ways in counts.items() for way, row in ways.items()]
    return table(rows, ("net", "net"), ("faces", "faces"), ("way", "way"), ("frames/s", "frames_per_second", ".1f"),
                 ("CPU ms a frame", "cpu_ms_per_frame", ".0f"), ("detector's share", "detector_share", ".0%"),
                 ("NME %", "nme", ".2f"), ("faces found", "found", ".1%"))


def detector() -> str:
    return table(result("detector")["rows"], ("detector", "detector"), ("scale", "scale", "g"), ("event", "event"),
                 ("faces", "faces", ""), ("AP", "AP", ".3f"), ("recall", "recall", ".3f"), ("masked", "recall, masked", ".3f"),
                 ("unmasked", "recall, unmasked", ".3f"), ("ms, 640x480", "ms", ".1f"))


def kinds() -> str:
    """Errors of the shipped landmark nets by kind of photograph, of both sets."""
    return kinds_of({net: net for net in SHIPPED[:2]})


def unlabelled() -> str:
    """The same of `landmarks` before its last stages, and after further epochs in three ways."""
    runs = {"labels": "labels only", "unlabelled": "mean teacher", "dark": "pseudo-labels"}
    nets = {f"weights/bench_landmarks_{run}/best.onnx": title for run, title in runs.items()}
    return kinds_of({"weights/bench_landmarks_mean/best.onnx": "before", **nets})


def kinds_of(nets: dict[str, str]) -> str:
    """Return the table of {net: its title}."""
    rows = result("kinds")["rows"]
    found = {title: {name: figures for name, figures in rows[net].items() if name != "commit"} for net, title in nets.items()}
    first = next(iter(found.values()))
    names = dict.fromkeys(kind for kinds in first.values() for kind in kinds)

    def cell(net: str, place: str, key: str):
        return lambda row: found[net][place].get(row["kind"], {}).get(key)

    columns = [(f"{net}, {place}", cell(net, place, "nme"), ".2f") for net in found for place in first]
    faces = [(f"faces, {place}", cell(next(iter(found)), place, "faces"), "d") for place in first]
    return table([{"kind": kind} for kind in names], ("photographs", "kind"), *faces, *columns)


def traits() -> str:
    """Errors of the shipped landmark nets on rendered people, by what is known of these."""
    rows, before = result("traits")["rows"], f"`{SHIPPED[0]}` before `landmarks_wild`"
    nets = {SHIPPED[0]: SHIPPED[0], before: "weights/bench_landmarks_mean/best.onnx", SHIPPED[1]: SHIPPED[1]}
    names = [name for name in rows[SHIPPED[0]] if name != "commit"]
    return table([{"faces": name, **{title: rows[net][name] for title, net in nets.items()}} for name in names],
                 ("faces", "faces"), *((title, title, ".1f") for title in nets))


def blinks() -> str:
    """How nets draw shut eyes in videos and open eyes in photographs."""
    before, found = {"weights/bench_landmarks_last/best.onnx": f"`{SHIPPED[0]}` before `landmarks_lids`"}, result("blinks")
    rows = [{"eyes": f"{kind}, {place}", "net": before.get(net, f"`{net}`"), "number": row[count], **row}
            for kind, places, count in (("shut", found["videos"], "blinks"), ("open", found["open"], "faces"))
            for place, nets in places.items() for net, row in nets.items()]
    return table(rows, ("eyes", "eyes"), ("net", "net"), ("blinks or faces", "number", "d"), ("height, %", "height_%", ".0f"))


def face_sizes() -> str:
    rows = [{**row, "set": SETS[row["set"].lower()]} for row in result("face_sizes")["rows"]]
    return table(rows, ("faces", "case"), ("photographs", "set"), ("number", "faces", "d"),
                 ("found, %, scale 1", "scale 1", ".1f"), ("scale 2", "scale 2", ".1f"))


TABLES = (peers, changed, boxes, box_shift, jitter, demo, detector, kinds, unlabelled, traits, blinks, face_sizes)
