"""Several sets as one training set of 68 landmarks: 300W and WFLW, as the IRNet fork trains; the sets of Peppa's tree."""
from pathlib import Path

from pipnet.errors import UserError
from utils.conversion import conversion
from utils.faces.archives.records import Annotation, Archive, complain, record
from utils.faces.archives.w300 import PARTS_300W, PRIVATE
from utils.faces.archives.w300vw import W300VW

MERGED = {part.subset: part.count for part in PARTS_300W.values()}
PEPPA = {**MERGED, **{part.subset: part.count for part in PRIVATE.values()}, **W300VW}


def _within(root: Path, *signs: str) -> Path:
    """Return the folder that contains one of `signs` (lower case): root, or one directly below it."""
    below = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    for folder in (root, *below):
        if any(path.name.lower() in signs for path in folder.iterdir()):
            return folder
    raise UserError(f"{root}: no {signs[0]} in it or in a folder of it; put or link the unpacked 300W and WFLW there")


def parse_merged(archive: Archive, whole: bool = False) -> list[str]:
    """Add train, test: 300W, and in train WFLW's training faces converted to 68 landmarks, with their tight box.

    whole: train on WFLW's test faces too, as the fork does: 13148 faces. Such a net must not be tested on WFLW.
    """
    from utils.faces.archives import DATASETS  # imported here, since the table imports this module
    found, missing = [], []
    for name, signs in (("300w", ("afw", "helen", "lfpw", "ibug")), ("wflw", ("wflw_annotations",))):
        with archive.checked():
            part, lines = DATASETS[name].read(_within(archive.root, *signs), origin=archive.origin)
            found.append(part.splits)
            missing += [f"{DATASETS[name].title}, {line}" for line in lines]
    complain(archive.faults)
    archive.splits, wflw = found
    convert = conversion("98", "68", archive.layouts)
    for face in wflw["train"] + (wflw["test"] if whole else []):
        annotation = Annotation(convert(face.landmarks), str(face.file))
        converted = record(face.file, "wflw", f"wflw/{face.identity}", annotation, origin=0.5)  # these are continuous px already
        archive.splits["train"].append(converted._replace(face=face.face))
    return missing


def parse_peppa(archive: Archive, frame_step: int = 1) -> list[str]:
    """Add train: every face of Peppa's tree, those of test sets too, as there: 300W, its private test set, and 300VW in 300VW/.

    A net trained on it must not be tested on any of these.
    """
    from utils.faces.archives import DATASETS
    videos = next((path for path in sorted(archive.root.iterdir()) if path.name.lower() == "300vw"), None)
    parts = [("300w", archive.root, {}), ("300w-private", archive.root, {})]
    missing = [] if videos else ["300VW: no folder"]
    if videos:
        parts.append(("300vw", videos, {"frame_step": frame_step}))
    for name, folder, options in parts:
        with archive.checked():
            part, lines = DATASETS[name].read(folder, origin=archive.origin, **options)
            archive.splits["train"] += [face._replace(identity=f"{name}/{face.identity}")
                                        for faces in part.splits.values() for face in faces]
            missing += [f"{DATASETS[name].title}, {line}" for line in lines]
    return missing
