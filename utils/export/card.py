"""Writes card.md of a run: a page about the net for those who get its files, made from the metadata of its ONNX file."""

from pipnet.errors import printable
from pipnet.files import write_text
from pipnet.runtimes import open_file
from pipnet.shipped import read_manifest, shipped
from utils.evaluate.tables import TEST, markdown_table
from utils.export.files import known_exports
from utils.settings.csv_files import read_csv
from utils.settings.formats import SOURCE
from utils.settings.yaml_files import read_yaml

FACTS = {
    "net": "backbone",
    "head": "head",
    "input_size": "input, px",
    "input_margin": "side of the picture / side of the crop",
    "channels": "channels",
    "frame": "frame of the outputs",
    "box": "box of a face",
    "protocol": "crop of a box",
    "face_box": "box of the landmarks: down, wide, high",
    "threshold": "least score of a detection",
    "overlap": "IoU of two detections",
    "face_limit": "least mean landmark score of a face",
    "norm": "norm of the errors",
    "val_nme": "NME of the validation faces, %",
    "val_false": "validation crops without a face that pass if 99.9 % of the faces do, %",
    "epoch": "epoch, from 0",
    "trained": "trained with",
    "command": "command",
    "commit": "commit",
}
LICENCE = """The code is under the MIT licence. Weights may be bound by the terms of the pictures and labels that they were
trained on; read these before the net becomes part of a product. Trained on:
"""


def write_card(run) -> None:
    """Write card.md beside the manifest of a run: facts, scores of the last test, files with checksums, origin of the
    labels.
    """
    project = shipped("manifest.json").parent
    ours = run.weights.parent.resolve() == project.resolve()
    known = read_manifest(project, "fetch the project again").get(run.weights.name, {}) if ours else {}
    opened, entries = open_file(run.onnx, 1), known_exports(run.folder)
    values = {**opened.values, **known}
    layout = values.get("layout")
    facts = [["task", "find faces" if layout is None else f"{layout['count']} landmarks, layout {layout['name']}"]]
    facts += [[title, _plain(values[key])] for key, title in FACTS.items() if values.get(key) not in (None, [], "")]
    facts += [[f"output {name}", _plain(shape) or "a number"] for name, shape in opened.values["outputs"].items()]
    report = run.folder / "report"
    # the scores of these very weights
    tested = (report / TEST).is_file() and read_yaml(report / TEST).get("weights") == run.source[SOURCE]
    scores = read_csv(report / "scores.csv") if tested else known.get("scores", [])
    files = [
        [name, f"{entry['bytes'] / 1e6:.2f}", f"`{entry['sha256']}`"]
        for name, entry in sorted(entries.items())
        if "bytes" in entry
    ]
    sets = [f"- {_plain(name)}" for name in values.get("train_data") or ["not known"]]
    if start := values.get("weights"):
        sets.append(f"- what {_plain(start)} was trained on, from which it started")
    text = "\n".join(
        [
            f"# {run.folder.resolve().name}",
            "",
            markdown_table(facts, ["fact", "value"]),
            "",
            *(
                ["## Scores", markdown_table([list(row.values()) for row in scores], list(scores[0])), ""]
                if scores
                else []
            ),
            "## Files",
            markdown_table(files, ["file", "MB", "SHA-256"]),
            "",
            "## Licence and labels",
            LICENCE,
            *sets,
            "",
        ]
    )
    write_text(run.folder / "card.md", text.replace("<", "&lt;"))  # what comes from files is text, not HTML


def _plain(value) -> str:
    """Return a value as the text of a table's cell."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {_plain(item)}" for name, item in value.items())
    if isinstance(value, float):
        return f"{value:.4g}"
    return ", ".join(map(_plain, value)) if isinstance(value, list) else printable(str(value)).replace("|", r"\|")
