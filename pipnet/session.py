"""ONNX files in onnxruntime."""
import json
import os
from pathlib import Path
from typing import Any

from pipnet.errors import UserError, one_line
from pipnet.files import shipped_net


def usable_cores() -> int:
    """Number of CPU cores that this process may use; threads beyond it make the others wait."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def shipped_onnx(name: str, int8: bool | None = None) -> Path:
    """ONNX file of a net of SHIPPED, in 8 bits if `int8` and there is one, else in 32. None: in 8 bits on a CPU.

    UserError if none came with this version.
    """
    import onnxruntime
    if int8 is None:
        int8 = "CUDAExecutionProvider" not in onnxruntime.get_available_providers()
    return shipped_net(name, ".int8.onnx", ".onnx") if int8 else shipped_net(name, ".onnx")


def open_session(file: Path | str, threads: int, remedy: str = "name another file"):
    """onnxruntime session of a file, on CUDA where onnxruntime has it, else on the CPU. threads: 0 takes all cores.

    UserError for a file that is missing or cannot be loaded; `remedy` says what to do about a missing one.
    """
    import onnxruntime
    if not Path(file).is_file():
        raise UserError(f"no file at {file}; {remedy}")
    options = onnxruntime.SessionOptions()
    limited = usable_cores() < (os.cpu_count() or 1)  # onnxruntime's own choice counts the cores of the machine
    options.intra_op_num_threads = threads or (usable_cores() if limited else 0)
    # a thread that waits in a loop for the next operator takes its core from those that decode and draw
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    wanted = ("CUDAExecutionProvider", "CPUExecutionProvider")
    providers = [name for name in wanted if name in onnxruntime.get_available_providers()]
    try:
        fallback = len(providers) > 1  # from CUDA to the CPU; from the CPU alone it would only print that it tries again
        return onnxruntime.InferenceSession(str(file), options, providers, enable_fallback=fallback)
    except Exception as error:  # onnxruntime's exceptions share no base class
        raise UserError(f"{file} is not an ONNX file that onnxruntime can run ({one_line(error)})") from None


def metadata(session) -> dict[str, Any]:
    """Values that an export stored in the file, by name. Text that is not JSON stays text."""
    values: dict[str, Any] = {}
    for name, text in session.get_modelmeta().custom_metadata_map.items():
        try:
            values[name] = json.loads(text)
        except ValueError:
            values[name] = text
    return values
