"""Files of labels that list the faces of many pictures: which ones a user's set has, and the picture that a name means."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from extras.datasets.archive import Archive
from extras.datasets.naming import SPLITS, cleaned, composed, split_of
from extras.datasets.own_layout import own_order
from extras.shared.lists import path_inside
from pipnet.errors import UserError, one_line
from pipnet.files import parse_json, read_bytes, unreadable
from pipnet.images import SUFFIXES
from utils.settings.layouts import normalised

ANEW = "; write its points to a CSV: file,x0,y0,x1,y1,..."
FOREIGN = {
    (
        "image_path",
        "keypoints",
    ): "a list that Peppa trains on, made from .pts files; give their folder: --dataset peppa",
    ("image_id", "keypoints"): "COCO's format of results, without images; give the file of annotations",
    ("shapes", "imagePath"): f"a file of labelme, which is not read{ANEW}",
    ("_via_img_metadata",): f"a project of VIA, which is not read{ANEW}",
}  # {keys of a JSON file, or of the first row of its list: what it is, and the remedy}
SLOW = 2  # s; reading that takes longer shows its progress
PLACES = ("", "images/", "images/default/")  # of pictures; the last is CVAT's, of a task without subsets


def split_files(archive: Archive, patterns: tuple[str, ...], what: str) -> list[tuple[str | None, Path]]:
    """Return (split that it says, file), train first: files at the top, else one in each of the folders of the splits.

    At the top the word train, val or test in a name is the split; a single file may say none.
    """
    root = archive.root
    files = [root / archive.annotation] if archive.annotation else _visible(root, patterns)
    groups = [[(split_of(path.stem), path) for path in files]]
    if not files:
        groups = [[(split, path) for path in _visible(at, patterns)] for at, split in archive.split_folders.items()]
    named = sum(groups, [])
    clear = all(len({split for split, _ in group}) == len(group) for group in groups)
    if not named or not clear or (len(named) > 1 and any(split is None for split, _ in named)):
        for _, path in named[:3]:
            if path.suffix.lower() == ".json":
                read_json(path)  # it may be of a format that is not read
        there = ", ".join(path.relative_to(root).as_posix() for _, path in named[:3]) or "none"
        there += f" and {len(named) - 3} more" * (len(named) > 3)
        raise UserError(
            f"{root}: one {what}, or one each with train, val or test in its name or folder, belongs there, not {there}; "
            f"name the one to read: --dataset {root}/FILE"
        )
    for _, path in named:
        path_inside(root, path.relative_to(root).as_posix(), str(root))
    archive.splits += [split for split, _ in named if split]
    return sorted(named, key=lambda pair: [*SPLITS].index(pair[0] or "train"))  # training sets give points their order


def _visible(folder: Path, patterns: tuple[str, ...]) -> list[Path]:
    return [path for pattern in patterns for path in sorted(folder.glob(pattern)) if not path.name.startswith(".")]


def read_json(file: Path, smaller: Callable[[dict], Any] = lambda values: values) -> Any:
    """Return the contents of a JSON file; smaller: see `parse_json`. UserError for one of a known format that is not read."""
    try:
        content = parse_json(read_bytes(file), smaller)
    except OSError as error:
        raise unreadable(file, error) from None
    except ValueError as error:
        raise UserError(f"{file}: not a JSON file that can be read ({one_line(error, 80)})") from None
    first = content[0] if isinstance(content, list) and content else content
    keys = first.keys() if isinstance(first, dict) else ()
    for there, name in FOREIGN.items():
        if all(key in keys for key in there):
            raise UserError(f"{file} is {name}")
    return content


def places_of(archive: Archive, names: list[str], where: str) -> list[int]:
    """Return where each point of the set, in its order, is among the names of a face's points. The first names of a set
    tell its order. UserError if they differ.
    """
    own, wanted = (list(map(normalised, given)) for given in (names, archive.names or own_order(archive, names)))
    if set(own) != set(wanted):
        other = next((name for name in own if name not in wanted), own[0])
        raise UserError(f"{where}: a keypoint is named {other[:40]!r}, which no other category has")
    return list(map(own.index, wanted))


# -------------------------------------------------------------------------------------------------------------- pictures
def find_image(
    archive: Archive, names: list[str], table: Path, where: str, said: str | None, uploaded: bool = False
) -> Path:
    """Return the first image of these names, beside the file that lists them, in the folder, in their images/, or in the
    folders of the split that the list `said`.

    A name matches in any of Unicode's forms, and without its ending if one picture fits. uploaded: also as Label Studio
    cleans it, if only one file matches. Raise UserError if there is none.
    """
    folders = [folder.relative_to(archive.root).as_posix() for folder in (table.parent, archive.root)]
    places = dict.fromkeys(f"{folder}/{below}" for folder in folders for below in PLACES)
    for name in names:
        listed = {below: composed(os.path.normpath(f"{below}{name}")) for below in places}
        for below in places:
            path = path_inside(archive.root, name, where, below)
            image = path if path.is_file() else archive.images.get(listed[below])
            if image:
                return image
        if Path(name).suffix.lower() not in SUFFIXES:
            found = next(filter(None, (archive.without_ending.get(path) for path in listed.values())), [])
            if len(found) > 1:
                raise UserError(f"{where}: {found[0].name} and {found[1].name} both fit {name[:80]}; give its ending")
            if found:
                return found[0]
    return _elsewhere(archive, names, where, said, uploaded)


def _elsewhere(archive: Archive, names: list[str], where: str, said: str | None, uploaded: bool) -> Path:
    """Return the only image of these names anywhere below the folder, see `find_image`."""
    listed = names[0].replace("\\", "/")
    fitting = [path for name in names if uploaded for path in archive.uploaded.get(composed(name), ())]
    fitting = list(dict.fromkeys(fitting))
    alike = fitting or archive.uploaded.get(next(iter(cleaned(Path(listed).name))), [])
    own = [
        path
        for path in alike
        if (folder := archive.split_folder(path))
        and archive.split_folders[folder] == said
        and (fitting or composed(path.as_posix()).endswith(composed(f"/{listed}")))
    ]
    fitting = own if len(own) == 1 else fitting
    if len(fitting) == 1:
        return fitting[0]
    others = " and ".join(path.relative_to(archive.root).as_posix() for path in alike[:3])
    if fitting:
        raise UserError(f"{where}: {others} fit {names[-1]}; rename them, or list them with their folder")
    advice = f", but {others}; list it {'by that name' if len(alike) == 1 else 'with its folder'}" if alike else ""
    raise UserError(f"{where}: no image {names[0][:80]} below {archive.root}{advice}")
