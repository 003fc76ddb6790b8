"""Several sets as one training set of 68 landmarks: 300W and WFLW, as the IRNet fork trains; the sets of Peppa's tree."""

from pathlib import Path

from extras.datasets.archive import Archive
from extras.datasets.row import Dataset
from pipnet.errors import UserError
from utils.data.table import Table, complain, image_of
from utils.settings.conversion import conversion


def _within(root: Path, *signs: str) -> Path:
    """Return the folder that contains one of `signs` (lower case): root, or one directly below it."""
    below = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    for folder in (root, *below):
        if any(path.name.lower() in signs for path in folder.iterdir()):
            return folder
    raise UserError(f"{root}: no {signs[0]} in it or in a folder of it; put or link the unpacked 300W and WFLW there")


def _part(archive: Archive, row: Dataset, folder: Path, **options) -> tuple[Table, list[str]]:
    """Return the columns of a set in a folder of the archive, and a line for each missing part of it."""
    part, missing = row.read(folder, origin=archive.origin, **options)
    below = folder.relative_to(archive.root)
    files = [(below / file).as_posix() for file in part.columns["file"]]
    return part.columns | {"file": files}, [f"{row.title}, {line}" for line in missing]


def parse_merged(archive: Archive, w300: Dataset, wflw: Dataset, whole: bool = False) -> list[str]:
    """Add train, test: 300W, and in train WFLW's training faces converted to 68 landmarks, with their tight box.

    whole: train on WFLW's test faces too, as the fork does: 13148 faces. Such a net must not be tested on WFLW.
    """
    parts = []
    for row, signs in ((w300, ("afw", "helen", "lfpw", "ibug")), (wflw, ("wflw_annotations",))):
        with archive.checked():
            parts.append(_part(archive, row, _within(archive.root, *signs)))
    complain(archive.faults)
    (faces, missing), (others, more) = parts
    archive.extend(faces)
    convert = conversion("98", "68", archive.layouts)
    for row, file in enumerate(others["file"]):
        if others["split"][row] == "train" or whole:
            image, points = image_of(archive.root, file), convert(others["landmarks"][row])
            archive.add("train", image, "wflw", f"wflw/{others['identity'][row]}", points, str(image))
    return missing + more


def parse_merged_all(archive: Archive, w300: Dataset, wflw: Dataset) -> list[str]:
    """Add 300W and all faces of WFLW, see `parse_merged`."""
    return parse_merged(archive, w300, wflw, whole=True)


def parse_peppa(archive: Archive, *rows: Dataset, frame_step: int = 1) -> list[str]:
    """Add train: every face of Peppa's tree, those of test sets too, as there: 300W, its private test set, and 300VW in
    300VW/.

    A net trained on it must not be tested on any of these.
    """
    videos = next((path for path in sorted(archive.root.iterdir()) if path.name.lower() == "300vw"), None)
    missing = [] if videos else ["300VW: no folder"]
    for row, name in zip(rows, ("300w", "300w-private", "300vw"), strict=True):
        folder = videos if name == "300vw" else archive.root
        if folder is None:
            continue
        with archive.checked():
            columns, lines = _part(archive, row, folder, **({"frame_step": frame_step} if row.options else {}))
            own = [f"{name}/{identity}" for identity in columns.get("identity", ())]
            archive.extend(columns | {"split": ["train"] * len(own), "identity": own})
            missing += lines
    return missing
