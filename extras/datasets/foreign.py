"""Names the formats of labels that are not read, so that an error says what a file is and how to convert it."""

import re
from collections.abc import Iterable
from pathlib import Path

from pipnet.errors import UserError

BEGINNING = 1 << 16  # bytes of a file that tell its format
ROWS = "write a CSV with the header file,x0,y0,x1,y1,... and a line per face"
LABELME = rb'^\s*\{\s*"(version|flags|shapes|imagePath)"\s*:.*"shapes"\s*:\s*\['
VIA = rb'^\s*\{\s*("_via_\w+"\s*:|"[^"]*"\s*:\s*\{\s*"filename"\s*:)'
YOLO = rb"^\d+( +[01]?\.\d+){4}( +[\d.]+)+\s*(\n|$)"
# [(suffix, regular expression for the beginning of the file, format, where its points are)]
FORMATS = [
    (".json", LABELME, "LabelMe's JSON", "the points of each face are under shapes"),
    (".json", VIA, "JSON of VIA", "the points are cx, cy under shape_attributes"),
    (".csv", rb"^#?filename,file_size,", "a CSV of VIA", "the points are cx, cy in region_shape_attributes"),
    (".csv", rb"^scorer,", "a CSV of DeepLabCut", "its lines bodyparts and coords are the names nose_x,nose_y,..."),
    (".xml", rb"<dataset[\s>].*<images?[\s>]", "dlib's XML", "the points are x, y of each part"),
    (".txt", YOLO, "labels of YOLO", "multiply x by the width of the picture and y by its height"),
]


def complain_foreign(files: Iterable[Path]) -> None:
    """Raise UserError for the first file in a known format that is not read."""
    for file in files:
        for suffix, pattern, name, how in FORMATS:
            if file.suffix.lower() == suffix and re.search(pattern, _beginning(file), re.DOTALL):
                raise UserError(f"{file}: {name}, which is not read; {ROWS}: {how}")


def _beginning(file: Path) -> bytes:
    """Return the first bytes of a regular file, nothing if it cannot be read."""
    if not file.is_file():
        return b""
    try:
        with open(file, "rb") as content:
            return content.read(BEGINNING).removeprefix(b"\xef\xbb\xbf")
    except OSError:
        return b""
