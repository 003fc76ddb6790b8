"""Reading of files that may be damaged or no files at all, and writing of files, completely or not at all."""

import errno
import json
import os
import re
import secrets
import shutil
import socket
import stat
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

from pipnet.bounds import MOST_BYTES
from pipnet.errors import Unreadable, UserError

# of files that are opened: no link is followed, no pipe waited for. Windows lacks these, and has one for bytes as they are
CAREFUL = sum(getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_BINARY"))
TEMPORARY = re.compile(r"\.(\d+)@([\w.-]+)\.partial-[0-9a-f]+")  # process and host of a folder that is being written
DAY = 24 * 3600  # seconds
PARTIAL = re.compile(r"\..+\.partial-[0-9a-f]+(\.\w+)?", re.DOTALL)  # names of files that are being written
# of files that are missing, no regular ones, too large, or named so
FAULTS = errno.ENOENT, errno.ENOTDIR, errno.EINVAL, errno.EFBIG, errno.ENAMETOOLONG, errno.ELOOP
# folders, in lower case, in which systems keep thumbnails, deleted files and earlier states: macOS, Synology, QNAP, Windows
SYSTEM = {"__macosx", "@eadir", "#recycle", "#snapshot", "@recycle", "@recently-snapshot", "$recycle.bin"}
SYSTEM |= {"system volume information", "lost+found", ".thumbnails"}


def names_folder(path: Path | str) -> bool:
    """Return whether a path means a folder: it exists, ends with a slash, or has no suffix such as .mp4."""
    return (
        os.path.isdir(path)
        or str(path).endswith(os.sep)
        or not re.fullmatch(r"\.\d*[A-Za-z]\w{0,4}", Path(path).suffix)
    )


def read_bytes(file: Path | str, most: int = MOST_BYTES) -> bytes:
    """Return the content of a file. OSError also for one of more than `most` bytes.

    OSError also for pipes and devices: reading a pipe could block, and a device may never end.
    """
    if Path(file).exists() and not Path(file).is_file():
        raise OSError(errno.EINVAL, "it is no regular file", str(file))
    if Path(file).stat().st_size > most:
        raise OSError(errno.EFBIG, f"it has more than {most:,} bytes", str(file))
    return Path(file).read_bytes()


def is_shown(name: str) -> bool:
    """Return whether a name is neither hidden nor that of a folder in which a system keeps thumbnails or deleted files."""
    return not name.startswith(".") and name.lower() not in SYSTEM


def walk(folder: Path | str) -> Iterator[tuple[str, list[str], list[str]]]:
    """Return os.walk of a folder. Unreadable for a folder below it that cannot be listed, which that passes over."""
    return os.walk(folder, onerror=_stop)


def walk_shown(folder: Path | str, left: list[str] | None = None) -> Iterator[tuple[str, list[str], list[str]]]:
    """Return `walk` of a folder without hidden files and folders, and without those of SYSTEM, which `left` gets."""
    for base, folders, names in walk(folder):
        if left is not None:
            left += [os.path.join(base, name) for name in folders if name.lower() in SYSTEM]
        folders[:] = filter(is_shown, folders)
        yield base, folders, [*filter(is_shown, names)]


def _stop(error: OSError) -> None:
    if error.errno not in FAULTS:
        raise unreadable(error.filename, error)


def unreadable(file: Path | str, error: OSError | ValueError) -> UserError:
    """Return the error for a file that cannot be read: `Unreadable` unless the file or its name is at fault."""
    reason = getattr(error, "strerror", None) or error
    own = isinstance(error, ValueError) or error.errno in FAULTS
    return UserError(f"{file}: cannot be read ({reason})") if own else Unreadable(f"{file}: cannot be read ({reason})")


def parse_json(text: str | bytes, smaller: Callable[[dict[str, Any]], Any] = lambda values: values) -> Any:
    """Return the value of a JSON text. ValueError for a damaged one, one that is nested too deeply, and a key that is
    there twice, of which Python would keep the last.

    smaller: called with each object as soon as it is read; its result takes the place of the object.
    """
    if isinstance(text, bytes):
        text = text.decode(json.detect_encoding(text), "surrogatepass")  # in its place, so that it is held once
    try:
        return json.loads(text, object_pairs_hook=lambda pairs: smaller(_object(pairs)))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"the key {twice[:40]!r} is there twice in one object; remove one")
    return values


def partial_name(file: Path, suffix: str = "", word: str = "partial") -> Path:
    """Return an unpredictable name beside `file`, for a file that will be renamed to it.
    suffix: the one that a writer needs.

    word: marks the name. Commands remove files marked `partial`, as left by a process that was killed; other words
    protect them.
    """
    return file.with_name(f".{file.name}.{word}-{secrets.token_hex(4)}{suffix}")


def partial_file(file: Path, suffix: str = "", word: str = "partial") -> Path:
    """Make an empty file with a new `partial_name` and return its path. It opens no existing file or link.
    OSError otherwise.
    """
    while True:
        path = partial_name(file, suffix, word)
        try:
            os.close(open_regular(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
            return path
        except FileExistsError:
            continue


def partial_folder(target: Path) -> Path:
    """Return an unpredictable name beside `target`, for a folder that will be renamed to it. It tells the process."""
    return partial_name(target.with_name(f"{os.getpid()}@{socket.gethostname()}"))


def remove_abandoned(parent: Path) -> None:
    """Remove what killed processes have left of their new folders in `parent`.

    A folder is left if its process was of this host and has ended, or if nothing in it was written for a day.
    """
    for folder in parent.glob(".*.partial-*"):
        owner = TEMPORARY.fullmatch(folder.name)
        if owner and folder.is_dir() and not folder.is_symlink() and _is_abandoned(folder, int(owner[1]), owner[2]):
            shutil.rmtree(folder, ignore_errors=True)


def _is_abandoned(folder: Path, process: int, host: str) -> bool:
    if host == socket.gethostname() and hasattr(os, "fork"):  # on Windows, kill ends a process in any case
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return True
        except (PermissionError, OverflowError):
            pass
    written = 0.0
    for path in (folder, *folder.rglob("*")):
        with suppress(FileNotFoundError):  # its process goes on
            written = max(written, path.lstat().st_mtime)
    return time.time() - written > DAY


def is_partial(path: Path) -> bool:
    """Return whether a name is a `partial_name`."""
    return PARTIAL.fullmatch(path.name) is not None


def open_regular(file: Path, flags: int) -> int:
    """Return the descriptor of a file opened with `flags`.
    OSError for a link, a pipe or a device, which could lead anywhere.
    """
    try:
        descriptor = os.open(file, flags | CAREFUL, 0o666)
    except OSError as error:
        raise OSError(error.errno, "it is a link", str(file)) if error.errno == errno.ELOOP else error from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is no regular file", str(file))
    return descriptor


def own_folder(base: Path, *names: str) -> Path:
    """Make the folder base/name/name/... and return it.
    UserError if one of the names is a link, which could lead anywhere.
    """
    for name in names:
        base = base / name
        if base.is_symlink():
            raise UserError(f"{base} is a link, and nothing is written through it; remove it")
        base.mkdir(parents=True, exist_ok=True)
    return base


def set_aside(path: Path) -> Path:
    """Move a file or folder to a dated name beside it, such as runs/018-20261129-084500, and return the new path."""
    stem, suffix = (path.name, "") if path.is_dir() else (path.stem, path.suffix)
    name = f"{stem}-{time.strftime('%Y%m%d-%H%M%S')}"
    aside = path.with_name(name + suffix)
    for number in count(2):
        if not os.path.lexists(aside):
            break
        aside = path.with_name(f"{name}-{number}{suffix}")
    os.rename(path, aside)
    return aside


def sync(path: Path) -> None:
    """Flush a file, or a folder's list of files, to the disk. On Windows nothing is done: it opens no folder."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_atomic(file: Path, write: Callable[[Path], Any]) -> None:
    """Call `write(path)` on a temporary file, flush it to disk and rename it to `file`, so that `file` is always whole.

    UserError if the disk is full or cannot be written to; the older file then stays.
    """
    file, partial = Path(file), None
    try:
        partial = partial_file(file)
        write(partial)
        sync(partial)
        os.replace(partial, file)
        sync(file.parent)  # the rename too, so that it survives a power cut
    except OSError as error:
        kept = "what stood there before is kept" if file.parent.is_dir() else "its folder was moved or removed"
        raise UserError(f"{file} cannot be written ({error.strerror or error}); {kept}") from None
    finally:
        if partial:
            partial.unlink(missing_ok=True)


def write_text(file: Path, text: str) -> None:
    """Replace a text file as `write_atomic` does. Names of files in it need not be UTF-8."""
    write_atomic(file, lambda path: path.write_text(text, encoding="utf-8", errors="surrogateescape"))
