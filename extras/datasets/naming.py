"""Reads from file names: the split, the photograph of which a picture is a copy, the picture that a list means, and
which faces of a user's own set are of one person or clip.
"""

import re
import unicodedata
from collections import Counter
from functools import lru_cache
from itertools import islice
from os.path import commonprefix
from pathlib import Path, PurePosixPath

from pipnet.errors import UserError
from pipnet.files import walk_shown

SPLITS = {
    "train": ("train", "training", "trainset", "trainval"),
    "val": ("val", "valid", "validation", "valset"),
    "test": ("test", "testing", "testset"),
}  # {split: words that mean it}
SPLIT_OF = {word: split for split, words in SPLITS.items() for word in words}
WORD = re.compile(r"[^\W\d_]+")  # test is one in test2017, but not in latest
# words that may be beside that of a split in the name of a folder; a person may be named Val
PLAIN = {
    "data",
    "dataset",
    "face",
    "faces",
    "frames",
    "image",
    "images",
    "img",
    "imgs",
    "photos",
    "pictures",
    "set",
    "split",
}
# what is added to the name of a picture for its mirror image, or for a copy by Roboflow: such pictures are of one
# identity
CONTAINERS = {"images", "default"}  # folders of pictures that tools make; they name no person
MOST = 2 / 3  # share of the pictures that may be of one identity: most begin with IMG_ because a camera names them so
RULES = {
    "folder": "the folders of their pictures",
    "name": "the names of their pictures without the last number",
    "picture": "their pictures",
}  # {--identity: what tells the identities}
COPY = re.compile(r"[_-](mirror(ed)?|flip(ped)?)$|[._](jpe?g|png)\.rf\.[0-9A-Za-z]{8,}$", re.IGNORECASE)
# of a picture in its series: 091_07b, clip_0007, "clip (7)"
NUMBER = re.compile(r"(?<=\d)_\d+[a-z]$|[\s_.()-]*\d+[\s)]*$")


@lru_cache(maxsize=4096)
def split_of(name: str, folder: bool = False) -> str | None:
    """Return the split that a word in the name of a list says; train for train_val, None for train_test.

    folder: it is the name of a folder, in which other words than PLAIN ones say none.
    """
    words = set(WORD.findall(re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower()))
    found = {SPLIT_OF[word] for word in words & SPLIT_OF.keys()}
    if folder and words - SPLIT_OF.keys() - PLAIN:
        return None
    return next((split for split in SPLITS if found in ({split}, {split, "val"})), None)


def split_folders(root: Path) -> dict[Path, str]:
    """Return {folder: its split}, train first: the folders below root whose names say a split, at the highest level that
    has any. Where one is named by the word alone, such as test/, others of that level, such as test2/, are no such split.

    UserError for two names of one split in one folder, such as val/ and valid/.
    """
    level = [root]
    while level:
        below = [Path(base, name) for one in level for base, names in _folders(one) for name in names]
        found = {path: split for path in below if (split := split_of(path.name, folder=True))}
        alone = {path: split for path, split in found.items() if path.name.lower() in SPLIT_OF}
        first: dict[tuple[Path, str], Path] = {}
        for path, split in alone.items():
            if (other := first.setdefault((path.parent, split), path)) != path:
                raise UserError(f"{path.parent}: both {other.name} and {path.name} are the split {split}; merge them")
        if found:
            chosen = {path: split for path, split in found.items() if path in alone or split not in alone.values()}
            return {path: split for wanted in SPLITS for path, split in chosen.items() if split == wanted}
        level = [path for path in below if not path.is_symlink()]
    return {}


def _folders(folder: Path) -> list[tuple[str, list[str]]]:
    """Return [(folder, names of the folders in it)], without hidden ones; [] if it is gone."""
    return [(base, sorted(names)) for base, names, _ in islice(walk_shown(folder), 1)]


def photograph(stem: str, numbers: int = 1) -> str:
    """Return the name of a face's photograph: NAME for NAME_1, NAME_2, ..., which end in at most `numbers` such
    numbers.

    LFPW's image_0001 is a photograph's own name: a face's number has one or two digits. dlib's 300W also has its mirror
    image, NAME_mirror.
    """
    return re.sub(rf"(\s*_\d{{1,2}}){{1,{numbers}}}$", "", original(stem))


def original(stem: str) -> str:
    """Return the stem of the picture of which this one is a copy: NAME for NAME_mirror, or for Roboflow's
    NAME_jpg.rf.HASH.
    """
    return COPY.sub("", stem)


def identities(names: list[str], rule: str = "auto") -> tuple[list[str], str]:
    """Return the identity of the faces of each picture, and what tells it (a key of RULES).

    names: paths of the pictures, below the set. A picture and its copies have one identity. rule: that of --identity.
    `folder`: the first folder in which the paths differ. `name`: the folder and the name without its last number.
    `auto`: by folder if no folder has more than MOST of the pictures, else by name, where a name that more than MOST of
    a folder's pictures have tells nothing.
    """
    paths = [PurePosixPath(name) for name in names]
    pictures = [path.with_name(original(path.stem)) for path in paths]
    parents = [tuple(part for part in path.parts[:-1] if part not in CONTAINERS) for path in paths]
    depth = len(commonprefix(parents)) + 1
    folders = ["/".join(parent[:depth]) or "." for parent in parents]
    if rule == "auto":
        most = Counter(dict(zip(pictures, folders, strict=True)).values()).most_common(1)
        rule = "folder" if most and most[0][1] <= MOST * len(set(pictures)) else "name"
        telling = MOST
    else:
        telling = 1.0
    if rule == "folder":
        return folders, rule
    if rule == "picture":
        return list(map(str, pictures)), rule
    found = {picture: str(picture.with_name(NUMBER.sub("", picture.name) or "-")) for picture in set(pictures)}
    groups = Counter(found.values())
    sizes = Counter(picture.parent for picture in found)
    for picture, name in found.items():
        if groups[name] > telling * sizes[picture.parent]:
            found[picture] = str(picture)
    return [found[picture] for picture in pictures], rule


def composed(name: str) -> str:
    """Return a name in Unicode's composed form: file systems and lists hold an umlaut as one character or as two."""
    return unicodedata.normalize("NFC", name)


def cleaned(name: str) -> set[str]:
    """Return a file's name as Label Studio keeps it when it is uploaded: IMG_0_2.jpg for "IMG 0 (2).jpg".

    Of an umlaut in two characters, one of Unicode's forms, it keeps the letter alone.
    """
    forms = (unicodedata.normalize(form, name).strip().replace(" ", "_") for form in ("NFC", "NFD"))
    return {re.sub(r"[^-\w.]", "", form) for form in forms}
