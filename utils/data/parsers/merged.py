"""300W and WFLW as one training set of 68 landmarks, as the IRNet fork trains."""
from functools import partial
from pathlib import Path

from pipnet.errors import UserError
from utils.data.convert import conversion
from utils.data.parsers.records import Annotation, Splits, record
from utils.data.parsers.w300 import PARTS_300W, parse_300w
from utils.data.parsers.wflw import parse_wflw

MERGED = {part.subset: part.count for part in PARTS_300W.values()}


def _within(root: Path, *signs: str) -> Path:
    """Return the folder that contains one of `signs` (lower case): root, or one directly below it."""
    below = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    for folder in (root, *below):
        if any(path.name.lower() in signs for path in folder.iterdir()):
            return folder
    raise UserError(f"{root}: no {signs[0]} in it or in a folder of it; put or link the unpacked 300W and WFLW there")


def parse_merged(data_dir: Path, allow_partial: bool = False, count: int | None = 68, origin: float = 1.0,
                 whole: bool = False) -> Splits:
    """Return {train, test}: 300W, and in train WFLW's training faces converted to 68 landmarks, with their tight box.

    whole: train on WFLW's test faces too, as the fork does: 13148 faces. Such a net must not be tested on WFLW.
    """
    root, found, faults = Path(data_dir), [], []
    for parse, signs in ((partial(parse_300w, count=count, origin=origin), ("afw", "helen", "lfpw", "ibug")),
                         (parse_wflw, ("wflw_annotations",))):
        try:
            found.append(parse(_within(root, *signs), allow_partial))
        except UserError as error:  # one error names what is missing of both sets
            faults.append(str(error))
    if faults:
        raise UserError("\n".join(faults))
    splits, wflw = found
    convert = conversion("98", "68")
    for face in wflw["train"] + (wflw["test"] if whole else []):
        annotation = Annotation(convert(face.landmarks), 0.5, str(face.file))  # 0.5: these are continuous px already
        splits["train"].append(record(face.file, "wflw", f"wflw/{face.identity}", annotation))
    return splits
