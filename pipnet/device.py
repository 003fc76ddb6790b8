"""The device on which nets run: CUDA or the CPU."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from types import ModuleType
from typing import Literal, get_args

from pipnet.errors import UserError
from pipnet.packages import import_package

# onnxruntime would send usage data to its makers. It reads this variable when it is imported, so it must be set before
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
# an ONNX file of one node, y = Identity(x), with which a session tells what it runs on
IDENTITY = (
    b'\x08\x08:7\n\x10\n\x01x\x12\x01y"\x08Identity\x12\x01gZ\x0f\n\x01x'
    b"\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01b\x0f\n\x01y\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01B\x04\n\x00\x10\r"
)
Device = Literal["auto", "cpu", "cuda"]  # auto: CUDA if it works, else the CPU
DEVICES = get_args(Device)
_device: ContextVar[Device] = ContextVar("device", default="auto")


@contextmanager
def on_device(name: Device) -> Iterator[None]:
    """Let nets that are opened inside of the block run on a device of DEVICES. UserError for another name."""
    if name not in DEVICES:
        raise UserError(f"device is {name!r}; it must be one of {', '.join(DEVICES)}")
    token = _device.set(name)
    try:
        yield
    finally:
        _device.reset(token)


def wanted_device() -> Device:
    """Return the device on which nets are opened now, see `on_device`."""
    return _device.get()


def refuse_cuda(what: object) -> None:
    """Raise UserError if a net that runs on the CPU only is opened for CUDA. what: its file."""
    if wanted_device() == "cuda":
        raise UserError(f"{what} runs on the CPU only; leave device cuda out, or give an ONNX file")


def onnxruntime_package() -> ModuleType:
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
    onnxruntime = onnxruntime_package()
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
