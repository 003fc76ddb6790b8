"""ONNX files in onnxruntime."""
import json
from pathlib import Path
from typing import Any

from pipnet.errors import UserError


def open_session(file: Path | str, threads: int, remedy: str):
    """onnxruntime's session of a file, CPU (or CUDA where onnxruntime has it). threads: 0 takes all cores.

    UserError where it cannot be loaded; `remedy` says what to do about a file that is not there.
    """
    import onnxruntime
    if not Path(file).is_file():
        raise UserError(f"no ONNX file at {file}; {remedy}")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    try:
        wanted = ("CUDAExecutionProvider", "CPUExecutionProvider")
        providers = [name for name in wanted if name in onnxruntime.get_available_providers()]
        return onnxruntime.InferenceSession(str(file), options, providers)
    except Exception as error:  # onnxruntime's own exceptions share no base class
        raise UserError(f"{file} is not an ONNX file that onnxruntime can run ({str(error).splitlines()[0]})") from None


def metadata(session) -> dict[str, Any]:
    """Plain values that an export of ours stored under their names; text that is no JSON stays text."""
    def value(text: str):
        try:
            return json.loads(text)
        except ValueError:
            return text

    return {name: value(text) for name, text in session.get_modelmeta().custom_metadata_map.items()}
