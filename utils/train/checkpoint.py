"""Files of a run: checkpoints that are whole or not there, and the lock that keeps two runs out of one folder."""
import fcntl
import os
import pickle
import shutil
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from pipnet.errors import UserError
from pipnet.files import write_atomic

FORMAT = 1
LOG = "log.txt"
REQUIRED = {"format": int, "net": dict, "layout": dict, "protocol": dict, "args": dict, "model": dict}


def save(file: Path, values: dict[str, Any]) -> None:
    """Tensors and plain values only, so that `load` needs no pickled code."""
    write_atomic(file, lambda path: torch.save(values, path))


def load(file: Path) -> dict[str, Any]:
    """A checkpoint of ours on the CPU. UserError for anything else: missing, damaged, foreign, or holding code."""
    values = _read(file)
    if not isinstance(values, dict) or any(not isinstance(values.get(key), kind) for key, kind in REQUIRED.items()):
        raise UserError(f"{file} is not a checkpoint of this project, which holds {', '.join(REQUIRED)}")
    if values["format"] != FORMAT:
        raise UserError(f"{file} has checkpoint format {values['format']}, this version reads {FORMAT}")
    return values


def load_weights(file: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """(tensors by name, all of the checkpoint); the second is empty for a file that is not ours. UserError as for `load`."""
    values = _read(file)
    known = values if isinstance(values, dict) and REQUIRED.keys() <= values.keys() else {}
    for key in ("model", "state_dict"):
        if isinstance(values, dict) and isinstance(values.get(key), dict):
            values = values[key]
    if not isinstance(values, dict) or not values or not all(isinstance(value, torch.Tensor) for value in values.values()):
        raise UserError(f"{file} holds no tensors by name, as a checkpoint or a state dict does")
    return values, known


def _read(file: Path):
    if not Path(file).is_file():
        raise UserError(f"no checkpoint at {file}")
    try:
        with warnings.catch_warnings(action="ignore"):
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise UserError(f"{file} is refused: it holds more than tensors and plain values, loading it could run code") from None
    except Exception as error:  # a damaged file makes the reader raise whatever comes up
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{file} is not a readable checkpoint ({reason})") from None


@contextmanager
def turn(file: Path):
    """Waits until no other process holds `file`, then holds it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with open(file, "a+") as handle:
        fcntl.lockf(handle, fcntl.LOCK_EX)
        try:
            yield
        finally:
            if [path.name for path in file.parent.iterdir()] == [file.name]:  # nothing came of it
                shutil.rmtree(file.parent)


@contextmanager
def lock(folder: Path):
    """Holds `folder` for this process; UserError when another one has it. The system frees it when the process ends, however.

    What a killed process had half written goes away; so does a folder into which nothing but a log was written.
    """
    file, parent_is_new = folder / ".lock", not folder.parent.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = open(file, "a+")
    except OSError as error:
        raise UserError(f"{folder} cannot be written to ({error.strerror}); give another --exp or --run-root") from None
    with handle:
        try:
            # not flock, which the loader processes of a killed run would hold for some seconds more
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not file.exists() or not os.path.samestat(os.fstat(handle.fileno()), file.stat()):
                raise BlockingIOError  # the last holder has just removed what was opened here
        except OSError:
            handle.seek(0)
            owner = handle.read().strip() or "?"
            raise UserError(f"{folder} is in use by process {owner}; wait for it or give another --exp") from None
        handle.truncate(0)
        handle.write(str(os.getpid()))
        handle.flush()
        for partial in folder.glob(".*.partial-*"):
            partial.unlink()
        try:
            yield
        finally:
            if {path.name for path in folder.iterdir()} <= {file.name, LOG}:  # nothing came of it: the id is free again
                shutil.rmtree(folder)
                if parent_is_new and not any(folder.parent.iterdir()):
                    folder.parent.rmdir()
