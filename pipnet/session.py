"""ONNX files in onnxruntime."""

import ctypes
import importlib
import logging
import os
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

from pipnet.cores import cores
from pipnet.errors import UserError, limit_reached, one_line
from pipnet.files import parse_json, shipped_net

# onnxruntime would send usage data to its makers. It reads this variable when it is imported, so it must be set before
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
# an ONNX file of one node, y = Identity(x), with which a session tells what it runs on
IDENTITY = (
    b'\x08\x08:7\n\x10\n\x01x\x12\x01y"\x08Identity\x12\x01gZ\x0f\n\x01x'
    b"\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01b\x0f\n\x01y\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01B\x04\n\x00\x10\r"
)
DEVICES = ("auto", "cpu", "cuda")  # auto: CUDA if it works, else the CPU
_sessions: weakref.WeakSet = weakref.WeakSet()
_device = ContextVar("device", default="auto")


@contextmanager
def on_device(name: str) -> Iterator[None]:
    """Let nets that are opened inside of the block run on a device of DEVICES. UserError for another name."""
    if name not in DEVICES:
        raise UserError(f"device is {name!r}; it must be one of {', '.join(DEVICES)}")
    token = _device.set(name)
    try:
        yield
    finally:
        _device.reset(token)


def wanted_device() -> str:
    """Return the device on which nets are opened now, see `on_device`."""
    return _device.get()


def refuse_cuda(what: object) -> None:
    """Raise UserError if a net that runs on the CPU only is opened for CUDA. what: its file."""
    if wanted_device() == "cuda":
        raise UserError(f"{what} runs on the CPU only; leave device cuda out, or give an ONNX file")


def import_package(name: str, needed: str) -> ModuleType:
    """Import a package. UserError where it is missing or does not load. needed: words for what needs it."""
    try:
        package = importlib.import_module(name)
        if hasattr(package, "__path__") and getattr(package, "__file__", None) is None:  # an empty folder
            raise ModuleNotFoundError(name=name)
    except ModuleNotFoundError:
        raise UserError(f"{needed} the package {name}: pip install {name}") from None
    except (ImportError, OSError) as error:
        remedy = limit_reached(error) or f"install it again: pip install --force-reinstall {name}"
        raise UserError(f"{needed} the package {name}, which does not load ({one_line(error)}); {remedy}") from None
    return package


def _runtime() -> ModuleType:
    """Return the package onnxruntime. UserError if it is missing or does not load."""
    return import_package("onnxruntime", "ONNX files need")


def providers() -> list[str]:
    """Return the execution providers of a session that is opened now, see `on_device`.

    UserError if CUDA is wanted and does not work on this machine.
    """
    device = wanted_device()
    found = [CPU] if device == "cpu" else _working_providers()
    if device == "cuda" and CUDA not in found:
        raise UserError(
            "device cuda: onnxruntime cannot use CUDA here; pip install onnxruntime-gpu in place of onnxruntime, with "
            "the CUDA and cuDNN that it needs, or leave device out"
        )
    return found


@lru_cache
def _working_providers() -> list[str]:
    """Return the execution providers that work on this machine: CUDA before the CPU.

    onnxruntime-gpu lists CUDA also where its libraries or a GPU are missing; its sessions then run on the CPU.
    """
    onnxruntime = _runtime()
    if CUDA not in onnxruntime.get_available_providers():
        return [CPU]
    onnxruntime.set_default_logger_severity(4)  # it would print that CUDA is missing
    try:
        if CUDA in onnxruntime.InferenceSession(IDENTITY, providers=[CUDA, CPU]).get_providers():
            return [CUDA, CPU]
    except Exception:  # onnxruntime's exceptions share no base class
        pass
    finally:
        onnxruntime.set_default_logger_severity(2)
    logging.getLogger("pipnet").warning(
        "onnxruntime-gpu cannot use CUDA here, so the nets run on the CPU, in 8 bits where there is such a file; "
        "install the CUDA and cuDNN that it needs, or the package onnxruntime in its place"
    )
    return [CPU]


def shipped_onnx(name: str, int8: bool | None = None) -> Path:
    """Return the ONNX file of a net of SHIPPED, in 8 bits if `int8` and if there is such a file, else in 32 bits.

    int8: None means 8 bits on a CPU, 32 on a GPU. UserError if no file came with this version.
    """
    int8 = providers() == [CPU] if int8 is None else int8
    return shipped_net(name, ".int8.onnx", ".onnx") if int8 else shipped_net(name, ".onnx")


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

    def run(self, names: list[str], feeds: dict[str, Any]) -> list:
        """Return the outputs of these names."""
        try:
            return self.native.run(names, feeds)
        except Exception as error:  # onnxruntime's exceptions share no base class
            raise UserError(
                f"onnxruntime cannot run {self.file} ({one_line(error)}); export the net again, or name another file"
            ) from None

    @property
    def native(self):
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


def _native_session(file: Path, threads: int):
    onnxruntime = _runtime()
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
