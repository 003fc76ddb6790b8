"""Landmark nets of runs, checkpoints and published files, in the form that pipnet's Landmarker expects."""
from pathlib import Path

import numpy as np
import torch

from nets import net_row
from nets.registry import resolve
from pipnet.landmarker import LandmarkNet, open_net
from utils.config import ROOT, read_defaults
from utils.test.detectors import prepare_torch
from utils.test.evaluate import torch_predictor
from utils.train import checkpoint, run_folder
from utils.train.make_net import state_names
from utils.train.published import description, graph_system, settings_of


def find_net(exp: str, threads: int = 0) -> LandmarkNet:
    """The landmark net that --exp means: of a run's id or folder, a file, or a name. UserError where there is none.

    An id, a folder or a name stands for the export where that exists and is not older than the weights.
    """
    run = run_folder.find(exp, ROOT / read_defaults().values["run_root"], train=False)
    return open_file(run.onnx if run.exported and exp != str(run.weights) else run.weights, threads)


def open_file(file: Path, threads: int = 0) -> LandmarkNet:
    """The landmark net of a file: ONNX files run in onnxruntime, others in torch. UserError where it cannot be loaded."""
    if file.suffix == ".onnx":
        return open_net(file, threads)
    device = prepare_torch(threads)
    net, _, stored = checkpoint.unpack(file)
    predict = torch_predictor(net, device)

    def predict_arrays(images: np.ndarray) -> dict[str, np.ndarray]:
        prediction = predict(torch.from_numpy(images))._asdict()
        return {name: value.float().cpu().numpy() for name, value in prediction.items() if value is not None}

    values = {"input_size": net.spec["input_size"], "input_margin": net.input_margin, "pose": "pose" in net.auxiliary,
              "states": state_names(stored["args"])}
    return LandmarkNet.of(predict_arrays, {**stored, **values}, file)


def published_net(file: Path, session) -> LandmarkNet:
    """The landmark net of a published graph, which `session` runs. UserError for graphs of no system that is known."""
    system = graph_system(file, session)
    settings, layout = settings_of(system, system.keys({}))
    row, read, port = net_row(settings.net.net), resolve(system.graph.read), session.get_inputs()[0].name
    mean, std = (255 * np.array(value, np.float32)[:, None, None] for value in (row.mean, row.std))

    def predict(images: np.ndarray) -> dict[str, np.ndarray]:
        images = images if row.order == "BGR" else images[..., ::-1]
        inputs = (images.transpose(0, 3, 1, 2).astype(np.float32) - mean) / std
        return read(np.concatenate([session.run(None, {port: one[None]})[0] for one in inputs]))

    values = {**description(settings, layout, {}), "input_size": settings.net.input_size, "pose": settings.loss.pose > 0,
              "states": state_names(vars(settings.loss))}
    return LandmarkNet.of(predict, values, file)
