"""Export of a whole net to ONNX: normalisation, decode and merge are in the graph; its metadata say how to cut the crop."""
import json
import logging
import warnings
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from nets import Prediction
from pipnet.files import write_atomic
from pipnet.geometry import border_px
from pipnet.session import open_session
from utils.test.evaluate import Predict

OPSET = 18


class _Exported(nn.Module):
    """The exported module: image uint8 (B, S, S, 3) BGR -> landmarks (B, N, 2) in [0, 1] of the crop, score (B, N), ..."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(part for part in self.net.predict(image) if part is not None)


@contextmanager
def quiet():
    """Silence the exporter's progress and version notes; its errors are exceptions."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def export_onnx(net: nn.Module, file: Path, metadata: dict) -> None:
    """Write `file` whole or not at all. metadata: plain values, stored as JSON under their names."""
    side = net.spec["input_size"] + 2 * border_px(net.spec["input_size"], net.input_margin)
    module = _Exported(net.eval().reparameterized().float().cpu().to(memory_format=torch.contiguous_format)).eval()
    example = torch.randint(0, 256, (2, side, side, 3), dtype=torch.uint8)
    names = [name for name, part in zip(Prediction._fields, net.predict(example), strict=True) if part is not None]
    with quiet(), torch.inference_mode():
        program = torch.onnx.export(module, (example,), input_names=["image"], output_names=names, opset_version=OPSET,
                                    dynamo=True, dynamic_shapes={"image": {0: torch.export.Dim("batch", min=1)}}, verbose=False)
    write_onnx(program.model_proto, file, metadata)


def write_onnx(model, file: Path, metadata: dict) -> None:
    """Write a graph with `metadata`, whole or not at all, without the exporter's notes on files of this machine."""
    import onnx
    for part in (*model.graph.node, *model.graph.value_info, *model.graph.input, *model.graph.output, *model.graph.initializer):
        part.ClearField("metadata_props")
    for key, value in metadata.items():
        model.metadata_props.add(key=key, value=value if isinstance(value, str) else json.dumps(value))
    onnx.checker.check_model(model)
    write_atomic(file, lambda path: path.write_bytes(model.SerializeToString()))


def onnx_predictor(file: Path, threads: int = 0) -> Predict:
    """Return the predictor of an exported file. UserError if it cannot be loaded."""
    session = open_session(file, threads, "make it with --test-onnx")
    names = [output.name for output in session.get_outputs()]

    def predict(images: torch.Tensor) -> Prediction:
        outputs = dict(zip(names, map(torch.from_numpy, session.run(names, {"image": images.cpu().numpy()})), strict=True))
        return Prediction(**outputs)

    return predict
