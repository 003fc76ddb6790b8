"""Sets of users that are named as a ZIP file: their pictures and labels are unpacked into the folder of prepared sets."""

import hashlib
import shutil
import zlib
from pathlib import Path, PurePosixPath
from zipfile import BadZipFile, ZipFile, ZipInfo

from loguru import logger

from extras.datasets.naming import CONTAINERS, split_of
from extras.shared.lists import path_inside
from pipnet.bounds import check_unpacked
from pipnet.errors import UserError, one_line
from pipnet.files import is_shown, own_folder
from pipnet.images import SUFFIXES
from utils.data.new_folder import new_folder

PLACE = "unpacked"  # below the folder of prepared sets
READ = (*SUFFIXES, ".pts", ".csv", ".json", ".xml", ".txt")  # other files stay packed
SPARE = 1 << 30  # bytes that stay free on the disk
KEPT = {*CONTAINERS, "annotations", ".."}  # a single folder of another name in a ZIP is left out of the paths


def unpack(file: Path, root: Path, made: list[Path] | None = None) -> Path:
    """Return the folder with the pictures and labels of a ZIP file, which is unpacked if that has not been done.

    made: list to which a folder is added that this call has made. UserError for a damaged or encrypted file, for names
    that lead out of the folder, and if the disk has no room.
    """
    state = file.stat()
    mark = hashlib.sha256(f"{file.resolve()}\0{state.st_size}\0{state.st_mtime_ns}".encode(errors="surrogateescape"))
    try:
        target = own_folder(root, PLACE, mark.hexdigest()[:8]) / (file.stem.strip(".") or "set")  # never "..", a folder
        if not target.is_dir():
            with new_folder(target) as unfinished:
                _extract(file, unfinished)
            if made is not None:
                made.append(target)
            logger.info(f"{file} is unpacked into {target}")
    except OSError as error:
        raise UserError(f"{error.filename or root}: {error.strerror or error}; unpack {file} yourself") from None
    return target


def _extract(file: Path, target: Path) -> None:
    """Unpack pictures and labels of a ZIP file into an empty folder."""
    try:
        with ZipFile(file) as packed:
            members = [one for one in packed.infolist() if _is_read(one)]
            size = sum(one.file_size for one in members)
            if not members:
                raise UserError(f"{file}: no picture or label in it")
            if any(one.flag_bits & 1 for one in members):
                raise UserError(f"{file} has a password; pack it again, without one")
            check_unpacked(file, {one.filename: one.file_size for one in members})
            if size + SPARE > shutil.disk_usage(target.parent).free:
                raise UserError(
                    f"{file}: unpacked it has {size / 2**30:.1f} GiB, for which {target.parent} has no room"
                )
            top = _top([one.filename for one in members])
            for one in members:
                name = one.filename.replace("\\", "/").removeprefix(top)
                path = path_inside(target, name, str(file))
                path.parent.mkdir(parents=True, exist_ok=True)
                with packed.open(one) as source, open(path, "xb") as copy:
                    shutil.copyfileobj(source, copy)
    except FileExistsError as error:
        raise UserError(f"{file}: two files in it are named {Path(str(error.filename)).name}; rename one") from None
    except (BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise UserError(
            f"{file}: it cannot be unpacked ({one_line(error, 80)}); pack it again, as a plain ZIP"
        ) from None


def _is_read(one: ZipInfo) -> bool:
    """Return whether a file of a ZIP is a picture or labels, and not hidden."""
    parts = PurePosixPath(one.filename.replace("\\", "/")).parts
    shown = all(is_shown(part) or part == ".." for part in parts)
    return bool(parts) and not one.is_dir() and shown and PurePosixPath(parts[-1]).suffix.lower() in READ


def _top(names: list[str]) -> str:
    """Return the one folder, with a slash, that all files of a ZIP are in and that means nothing; "" without one."""
    tops = {name.replace("\\", "/").partition("/")[::2] for name in names}
    first = {top for top, _ in tops}
    only = next(iter(first))
    alone = len(first) == 1 and all(rest for _, rest in tops) and only.lower() not in KEPT and not split_of(only, True)
    return f"{only}/" if alone and only else ""
