"""Files that are whole or not there."""
import csv
import io
import os
from pathlib import Path


def write_atomic(file: Path, write) -> None:
    """Calls `write(path)` on a temporary file, fsyncs it and renames it to `file`: a kill leaves the old file or the new one."""
    file = Path(file)
    partial = file.with_name(f".{file.name}.partial-{os.getpid()}")
    try:
        write(partial)
        with open(partial, "rb") as handle:
            os.fsync(handle.fileno())
        os.replace(partial, file)
        folder = os.open(file.parent, os.O_RDONLY)  # the rename itself must survive a power cut
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    finally:
        partial.unlink(missing_ok=True)


def write_text(file: Path, text: str) -> None:
    """A whole text file or the old one."""
    write_atomic(file, lambda path: path.write_text(text, encoding="utf-8", errors="surrogateescape"))  # odd file names


def write_csv(file: Path, header: list[str], rows) -> None:
    """Write a whole CSV file, or leave the old one."""
    text = io.StringIO()
    csv.writer(text).writerows([header, *rows])
    write_text(file, text.getvalue())
