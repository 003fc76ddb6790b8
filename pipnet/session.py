"""ONNX files in onnxruntime."""

import ctypes
import os
import weakref
from pathlib import Path
from typing import Any

from pipnet.cores import cores
from pipnet.device import on_device, onnxruntime_package, providers, wanted_device
from pipnet.errors import UserError, one_line
from pipnet.files import parse_json

_sessions: weakref.WeakSet["Session"] = weakref.WeakSet()


def open_session(file: Path | str, threads: int, remedy: str = "name another file") -> "Session":
    """Return the session of a file.
    UserError if it cannot be loaded, or if it is missing: `remedy` says what to do then.
    """
    if not Path(file).is_file():
        raise UserError(f"no file at {file}; {remedy}")
    return Session(Path(file), threads)


class Session:
    """An onnxruntime session of a file, on the device that `on_device` says. threads: 0 takes all cores.

    A child made by fork opens the file again at its first run, since the threads of a session stay with the parent.
    UserError for a file that cannot be loaded, and if its graph fails.
    """

    def __init__(self, file: Path, threads: int):
        self.file, self.threads, self._device = file.absolute(), threads, wanted_device()
        self._native = _native_session(file, threads)
        _sessions.add(self)

    def run(self, names: list[str] | None, feeds: dict[str, Any]) -> list[Any]:
        """Return the outputs of these names; None: all."""
        try:
            return list(self.native.run(names, feeds))
        except Exception as error:  # onnxruntime's exceptions share no base class
            raise UserError(
                f"onnxruntime cannot run {self.file} ({one_line(error)}); export the net again, or name another file"
            ) from None

    @property
    def native(self) -> Any:
        """Return the session of onnxruntime."""
        if self._native is None:
            with on_device(self._device):
                self._native = _native_session(self.file, self.threads)
        return self._native

    def forget(self) -> None:
        """Drop the native session without freeing it, which would wait for threads that this process does not have."""
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._native))
        self._native = None


def _forget_sessions() -> None:
    for session in list(_sessions):
        session.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_sessions)


def _native_session(file: Path, threads: int) -> Any:
    onnxruntime = onnxruntime_package()
    options = onnxruntime.SessionOptions()
    limited = cores() < (os.cpu_count() or 1)  # onnxruntime's own choice counts the cores of the machine
    options.intra_op_num_threads = threads or (cores() if limited else 0)
    # threads that wait actively for the next operator would take cores from those that decode and draw
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    chosen = providers()
    try:
        # from CUDA to the CPU; from the CPU alone it would only print that it tries again
        return onnxruntime.InferenceSession(str(file), options, chosen, enable_fallback=len(chosen) > 1)
    except Exception as error:  # onnxruntime's exceptions share no base class
        raise UserError(f"{file} is not an ONNX file that onnxruntime can run ({one_line(error)})") from None


def metadata(session: Session) -> dict[str, Any]:
    """Return {name: value} of the values that an export stored in the file. Text that is not JSON stays text."""
    values: dict[str, Any] = {}
    for name, text in session.native.get_modelmeta().custom_metadata_map.items():
        try:
            values[name] = parse_json(text)
        except ValueError:
            values[name] = text
    return values
