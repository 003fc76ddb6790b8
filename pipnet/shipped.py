"""The nets that come with the project, and checksums of files."""

import hashlib
import os
from functools import lru_cache
from pathlib import Path
from typing import Any

from pipnet.device import CPU, providers
from pipnet.errors import UserError, one_line
from pipnet.files import parse_json, read_bytes

# weights/NAME.onnx, and NAME.pt in the checkout
SHIPPED = ("landmarks", "landmarks-fast", "detector", "finder", "landmarks-open", "detector-open")
LANDMARK_NETS = tuple(name for name in SHIPPED if not name.startswith("detector"))
# {landmark net that has seen drawn faces only: its detector, which has seen no others either}
OPEN = {"landmarks-open": "detector-open"}


def has_finder(*nets: Path | str) -> bool:
    """Return whether the finder works with a landmark net and a detector: with all but those of OPEN, which products use.

    nets: names or files
    """
    return not {Path(net).name.partition(".")[0] for net in nets} & {*OPEN, *OPEN.values()}


def shipped(name: str) -> Path:
    """Return the path of a file of weights/, in the installed package or the checkout.
    UserError if the file has been changed.
    """
    installed = Path(__file__).parent / "weights" / name
    file = installed if installed.is_file() else Path(__file__).parent.parent / "weights" / name
    if file.is_file():
        _verify(file, file.stat().st_mtime_ns)
    return file


@lru_cache
def _verify(file: Path, _changed: int) -> None:
    """Raise UserError for a file whose checksum is not that of the manifest beside it."""
    wanted = read_manifest(file.parent, "fetch the project again").get(file.name, {}).get("sha256")
    if wanted and checksum(file) != wanted:
        raise UserError(
            f"{file} is not the file that came with this version (its checksum differs from manifest.json); fetch "
            "the project again, or keep your own net under another name"
        )


def read_manifest(folder: Path, remedy: str) -> dict[str, Any]:
    """Return {file: facts} from a folder's manifest.json, {} without that file. UserError for a damaged one."""
    file = folder / "manifest.json"
    if not file.exists():
        return {}
    try:
        entries: dict[str, Any] = parse_json(read_bytes(file).decode("utf-8"))
        for entry in entries.values():
            if not (isinstance(entry["sha256"], str) and isinstance(entry.get("bytes", 0), int)):
                raise ValueError("a checksum or a size has another type")
    except OSError as error:
        raise UserError(f"{file} cannot be read ({error.strerror}); {remedy}") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{file} is damaged ({type(error).__name__}: {one_line(error)}); {remedy}") from None
    return entries


def checksum(file: Path) -> str:
    """Return the SHA-256 of a file's content. UserError if it cannot be read."""
    try:
        with open(file, "rb") as handle:
            return hashlib.file_digest(handle, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{file} cannot be read ({error.strerror})") from None


def shipped_net(name: str, *suffixes: str) -> Path:
    """Return the path of a net of SHIPPED, the first of its files with these suffixes.

    UserError if none came with this version.
    """
    files = [shipped(name + suffix) for suffix in suffixes]
    if there := [file for file in files if file.is_file()]:
        return there[0]
    others = ", ".join(other for other in SHIPPED if any(shipped(other + suffix).is_file() for suffix in suffixes))
    raise UserError(
        f"no file {files[-1]}: the net '{name}' is not part of this version (there are: {others or 'none'}); name "
        "another, or fetch the project again"
    )


def lasting(given: Any) -> Any:
    """Return the path of a file or folder so that it leads there from any working folder.

    Names of nets and runs, and what is no path, are returned as they are.
    """
    path = isinstance(given, (str, Path)) and str(given) not in SHIPPED and os.path.exists(given)
    if not path or (os.path.isdir(given) and os.sep not in str(given)):  # the id of a run
        return given
    return type(given)(os.path.abspath(given))


def shipped_onnx(name: str, int8: bool | None = None) -> Path:
    """Return the ONNX file of a net of SHIPPED, in 8 bits if `int8` and if there is such a file, else in 32 bits.

    int8: None means 8 bits on a CPU, 32 on a GPU. UserError if no file came with this version.
    """
    int8 = providers() == [CPU] if int8 is None else int8
    return shipped_net(name, ".int8.onnx", ".onnx") if int8 else shipped_net(name, ".onnx")
