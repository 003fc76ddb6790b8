"""Reading of text files that list faces: their lines, numbers, and the names of pictures."""

import codecs
import os
from collections.abc import Collection, Iterable, Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np

from pipnet import files
from pipnet.errors import UserError

UTF16 = {codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}  # {mark: encoding}
WIDE = 1000  # bytes of a text that tell whether it is UTF-16


@lru_cache(maxsize=16)  # a list may name a hundred thousand files of one folder
def _real(folder: Path) -> str:
    return os.path.realpath(folder)


def is_listable(name: str) -> bool:
    """Return whether a name in a list can be that of a file: not blank, without tabs, line breaks and half characters."""
    half = any("\ud800" <= c < "\udc80" or "\udcff" < c <= "\udfff" for c in name)  # of a character that takes two
    return bool(name.strip()) and not half and not any(c in name for c in "\0\t\n\r")


def path_inside(root: Path, name: str, where: str, below: str = "") -> Path:
    """Return root/below/name for a name from a list.
    Raise UserError when it leaves root: absolute, by .., or by a link.
    """
    name = name.replace("\\", "/")
    if not is_listable(name):
        raise UserError(f"{where}: {name[:80]!r} cannot be the name of a file")
    if name.startswith("/") or ".." in name.split("/") or name[1:3] == ":/":
        raise UserError(f"{where}: '{name[:80]}' leads out of {root / below}; names in a list must stay below it")
    path = root / below / name
    if os.path.commonpath([_real(root), os.path.realpath(path)]) != _real(root):
        raise UserError(f"{where}: '{name[:80]}' leads through a link out of {root}; copy its target into the folder")
    return path


def decoded(data: bytes) -> tuple[str, str]:
    """Return the text of a file and its encoding: UTF-8, UTF-16, or cp1252, that of Windows in western countries.

    UTF-16 has a mark at its beginning, or zeros in every other byte.
    """
    for mark, encoding in UTF16.items():
        if data.startswith(mark):
            return data[len(mark) :].decode(encoding, "replace"), encoding
    zeros = [data[place:WIDE:2].count(0) for place in (0, 1)]
    if max(zeros) > len(data[:WIDE]) / 4:
        encoding = "utf-16-be" if zeros[0] > zeros[1] else "utf-16-le"
        return data.decode(encoding, "replace"), encoding
    try:
        return data.decode("utf-8-sig"), "utf-8"
    except UnicodeDecodeError:
        return data.decode("cp1252", "surrogateescape"), "cp1252"


def read_lines(file: Path, errors: str = "surrogateescape") -> list[str]:
    """Return the lines of a text file, with bytes that are not UTF-8 as in file names.
    Raise UserError if it is unreadable.
    """
    try:
        data = files.read_bytes(file)
        text, encoding = decoded(data)
        return (data.decode("utf-8-sig", errors) if encoding == "cp1252" else text).splitlines()
    except OSError as error:
        raise files.unreadable(file, error) from None


def numbered(file: Path, optional: bool = False, errors: str = "surrogateescape") -> list[tuple[str, str]]:
    """Return ("FILE, line N", text) for each line that is not blank; nothing for a missing file that is `optional`."""
    if optional and not file.is_file():
        return []
    return [(f"{file}, line {number}", line) for number, line in enumerate(read_lines(file, errors), 1) if line.strip()]


def walk(
    folder: Path, recursive: bool = True, without: Collection[Path] = (), left: list[str] | None = None
) -> Iterator[tuple[Path, bool]]:
    """Yield (path, whether it is a folder) of everything below a folder, by name, except hidden files, the folders
    `without`, and those of systems, which `left` gets.
    """
    for base, folders, names in files.walk_shown(folder, left):
        folders[:] = sorted(name for name in folders if recursive and Path(base, name) not in without)
        yield from ((Path(base, name), name in folders) for name in (*folders, *sorted(names)))


def floats(words: Iterable[str]) -> np.ndarray:
    """Return words as float64 (n,). ValueError unless all are decimal numbers: float() also takes 1_0 for 10."""
    words = list(words)
    if "_" in "".join(words) or not "".join(words).isascii():
        raise ValueError("no decimal number")
    return np.array(words, dtype=np.float64)


def numbers(words: Iterable[str], where: str) -> np.ndarray:
    """Return words as float64 (n,). Raise UserError unless all are finite numbers."""
    try:
        values = floats(words)
    except ValueError:
        values = np.array([np.nan])
    if not (np.abs(values) < 1e9).all():
        raise UserError(f"{where}: not a coordinate where one belongs")
    return values
