"""Several sets as one training set of 68 landmarks: 300W and WFLW, as the IRNet fork trains; the sets of Peppa's tree."""

from pathlib import Path

from extras.datasets.archive import Archive
from extras.datasets.w300 import PARTS_300W, PRIVATE
from extras.datasets.w300vw import W300VW
from pipnet.errors import UserError
from utils.data.table import Table, complain, image_of
from utils.settings.conversion import conversion

MERGED = {part.subset: part.count for part in PARTS_300W.values()}
PEPPA = {**MERGED, **{part.subset: part.count for part in PRIVATE.values()}, **W300VW}


def _within(root: Path, *signs: str) -> Path:
    """Return the folder that contains one of `signs` (lower case): root, or one directly below it."""
    below = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    for folder in (root, *below):
        if any(path.name.lower() in signs for path in folder.iterdir()):
            return folder
    raise UserError(f"{root}: no {signs[0]} in it or in a folder of it; put or link the unpacked 300W and WFLW there")


def _part(archive: Archive, name: str, folder: Path, **options) -> tuple[Table, list[str]]:
    """Return the columns of a row of DATASETS in a folder of the archive, and a line for each missing part of it."""
    from extras.datasets import DATASETS  # imported here, since the table imports this module

    part, missing = DATASETS[name].read(folder, origin=archive.origin, **options)
    place, columns = folder.relative_to(archive.root), part.columns
    files = [(place / file).as_posix() for file in columns["file"]]
    return columns | {"file": files}, [f"{DATASETS[name].title}, {line}" for line in missing]


def parse_merged(archive: Archive, whole: bool = False) -> list[str]:
    """Add train, test: 300W, and in train WFLW's training faces converted to 68 landmarks, with their tight box.

    whole: train on WFLW's test faces too, as the fork does: 13148 faces. Such a net must not be tested on WFLW.
    """
    parts = []
    for name, signs in (("300w", ("afw", "helen", "lfpw", "ibug")), ("wflw", ("wflw_annotations",))):
        with archive.checked():
            parts.append(_part(archive, name, _within(archive.root, *signs)))
    complain(archive.faults)
    (faces, missing), (wflw, more) = parts
    archive.extend(faces)
    convert = conversion("98", "68", archive.layouts)
    for row, file in enumerate(wflw["file"]):
        if wflw["split"][row] == "train" or whole:
            image, points = image_of(archive.root, file), convert(wflw["landmarks"][row])
            archive.add("train", image, "wflw", f"wflw/{wflw['identity'][row]}", points, str(image))
    return missing + more


def parse_peppa(archive: Archive, frame_step: int = 1) -> list[str]:
    """Add train: every face of Peppa's tree, those of test sets too, as there: 300W, its private test set, and 300VW in
    300VW/.

    A net trained on it must not be tested on any of these.
    """
    videos = next((path for path in sorted(archive.root.iterdir()) if path.name.lower() == "300vw"), None)
    parts = [("300w", archive.root, {}), ("300w-private", archive.root, {})]
    parts += [("300vw", videos, {"frame_step": frame_step})] if videos else []
    missing = [] if videos else ["300VW: no folder"]
    for name, folder, options in parts:
        with archive.checked():
            columns, lines = _part(archive, name, folder, **options)
            own = [f"{name}/{identity}" for identity in columns.get("identity", ())]
            archive.extend(columns | {"split": ["train"] * len(own), "identity": own})
            missing += lines
    return missing
