"""What onnxruntime runs on, and which files are taken for it."""

import sys
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest
from conftest import refuses

from pipnet import device
from pipnet.device import CPU, CUDA, IDENTITY, on_device
from pipnet.landmarker import Landmarker
from pipnet.shipped import shipped_onnx


@pytest.fixture
def runtime(monkeypatch):
    """onnxruntime with a list of providers, on a machine where `works` of them work."""

    def choose(listed: list[str], works: list[str] | None) -> None:
        def open_session(*_, providers: list[str]) -> SimpleNamespace:
            if works is None:
                raise RuntimeError("no kernel image")
            return SimpleNamespace(get_providers=lambda: [name for name in providers if name in works])

        fake = SimpleNamespace(
            get_available_providers=lambda: listed,
            InferenceSession=open_session,
            set_default_logger_severity=lambda level: None,
        )
        monkeypatch.setitem(sys.modules, "onnxruntime", fake)

    device._working_providers.cache_clear()
    yield choose
    device._working_providers.cache_clear()


@pytest.mark.parametrize(
    ("listed", "works", "expected"),
    [
        ([CPU], [CPU], [CPU]),
        ([CUDA, CPU], [CUDA, CPU], [CUDA, CPU]),
        ([CUDA, CPU], [CPU], [CPU]),
        ([CUDA, CPU], None, [CPU]),
        (["TensorrtExecutionProvider", CUDA, CPU], [CPU], [CPU]),
    ],
)
def test_nets_are_those_of_the_provider_that_works(runtime, caplog, listed, works, expected):
    runtime(listed, works)
    found = [shipped_onnx("landmarks"), shipped_onnx("landmarks-fast"), shipped_onnx("detector")]
    assert [file.name.endswith(".int8.onnx") for file in found] == [expected == [CPU]] * 3
    assert device.providers() == expected
    assert len(caplog.records) == (CUDA in listed and expected == [CPU])
    assert not shipped_onnx("landmarks", False).name.endswith(".int8.onnx")
    with on_device("cpu"):
        assert shipped_onnx("landmarks").name.endswith(".int8.onnx") and device.providers() == [CPU]
    if expected == [CPU]:
        refuses("device cuda", Landmarker, device="cuda")
    refuses("device is 'gpu'", Landmarker, device="gpu")


def test_the_file_that_asks_is_one_that_onnxruntime_runs():
    (found,) = onnxruntime.InferenceSession(IDENTITY, providers=[CPU]).run(None, {"x": np.float32([3])})
    assert found == 3
