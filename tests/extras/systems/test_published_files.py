"""Published files without a training: the snapshot, graph or checkpoint alone says layout, crop, preprocessing and mean
face.
"""

import json
import re
import shutil
from collections import OrderedDict
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from conftest import (
    DEFAULTS,
    LAYOUTS,
    NET,
    fails,
    formula_weights,
    mean_face,
    new_settings,
    refuses,
    rows,
    settings,
    slow,
    table,
    to_published,
    works,
)
from onnx import helper, numpy_helper
from small_nets import net_of
from torch import nn
from torchvision.models import mobilenet_v2

from nets.backbones.slim import Slim
from nets.build import net_row
from pipnet.landmark_net import open_net
from utils.settings.config import ROOT
from utils.train import checkpoint
from utils.train.initialise import initialise
from utils.train.make_net import make_net


def images(size: int, count: int = 2) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


@pytest.fixture
def slim(tmp_path) -> Path:
    """A file with the tensors of Peppa's Slim, random ones."""
    torch.manual_seed(0)
    last = {f"fc.{name}": tensor for name, tensor in nn.Linear(448, 143).state_dict().items()}
    torch.save(Slim().state_dict() | last, tmp_path / "slim.pth")
    return tmp_path / "slim.pth"


def snapshot(file: Path, preset: str, **keys) -> nn.Module:
    """Write a net of the preset under published names behind the prefix of DataParallel; return it."""
    torch.manual_seed(0)
    chosen = settings(preset, layout="68", **keys)
    net = make_net(chosen.net, chosen.loss, LAYOUTS.load("68"), mean_face_in(1.1)).eval()
    torch.save({f"module.{name}": tensor for name, tensor in to_published(net.state_dict(), preset).items()}, file)
    return net


def mean_face_in(scale: float) -> np.ndarray:
    """The mean face in crops that are `scale` times as wide as the face."""
    return (mean_face() - 0.5) / (scale * np.ptp(mean_face(), axis=0).mean()) + 0.5


@pytest.mark.parametrize(
    ("preset", "keys"),
    [
        ("pipnet", {"net": "resnet18", "stride": 16, "num_nb": 5}),
        ("pipnet", {"net": "mobilenetv2"}),
        ("pipnet", {"net": "resnet34"}),
        ("irnet", {"net": "irnet50"}),
        ("irnet", {"net": "irnet18", "act": "relu"}),
    ],
    ids=str,
)
def test_a_snapshot_of_pipnet_is_a_whole_net(tmp_path, preset, keys):
    file = tmp_path / "epoch59.pth"
    net = snapshot(file, preset, **keys)
    refuses("meanface.txt", checkpoint.load, file, DEFAULTS)
    (tmp_path / "meanface.txt").write_text(" ".join(map(str, mean_face_in(1.1).ravel())))
    found, layout, values = checkpoint.unpack(file, DEFAULTS)
    assert (found.spec["net"], found.spec["stride"], layout.name) == (keys["net"], keys.get("stride", 32), "68")
    assert (
        values["protocol"] == DEFAULTS.protocols["pipnet"]
        and found.spec["neighbor_index"] == net.spec["neighbor_index"]
    )
    with torch.inference_mode():
        pair = [one.eval().predict(torch.from_numpy(images(256))).landmarks for one in (net, found)]
    assert torch.equal(*pair)


def test_the_mean_face_tells_the_crops_of_a_snapshot(tmp_path):
    """Snapshots of semi-supervision have the tensors of the others, but their faces are smaller in the crop."""
    snapshot(tmp_path / "epoch59.pth", "pipnet")
    for scale, protocol in ((1.1, "pipnet"), (1.3, "gssl")):
        (tmp_path / "meanface.txt").write_text(" ".join(map(str, mean_face_in(scale).ravel())))
        values = checkpoint.load(tmp_path / "epoch59.pth", DEFAULTS)
        assert values["protocol"] == DEFAULTS.protocols[protocol] and values["args"]["protocol"] == protocol


@pytest.mark.parametrize("prefix", ("module.", "_orig_mod.module."))
def test_prefixes_of_wrappers_are_dropped_from_any_file(tmp_path, slim, prefix):
    plain = checkpoint.load(slim, DEFAULTS)
    torch.save(
        {f"{prefix}{name}": tensor for name, tensor in torch.load(slim, weights_only=True).items()}, tmp_path / "w.pth"
    )
    wrapped = checkpoint.load(tmp_path / "w.pth", DEFAULTS)
    assert plain["model"].keys() == wrapped["model"].keys() and plain["net"] == wrapped["net"]
    torch.save({"module.conv13.4.weight": torch.zeros(1), "conv13.4.weight": torch.zeros(1)}, tmp_path / "two.pth")
    refuses("two.pth", checkpoint.load, tmp_path / "two.pth", DEFAULTS)


def test_weights_of_another_depth_do_not_start_a_net(tmp_path):
    """All tensors of resnet18 fit resnet34, so a part of the file could be trained without a word."""
    nets = {name: net_of(net=name, num_nb=10) for name in ("resnet18", "resnet34")}
    plain = {
        name.removeprefix("backbone."): tensor
        for name, tensor in nets["resnet34"].state_dict().items()
        if name.startswith("backbone.")
    }
    torch.save({**plain, "fc.weight": torch.zeros(1000, 512)}, tmp_path / "imagenet.pth")
    torch.save(
        {f"module.{name}": tensor for name, tensor in to_published(nets["resnet34"].state_dict(), "pipnet").items()},
        tmp_path / "epoch59.pth",
    )
    torch.save({**plain, "layer3.6.conv1.weight": torch.zeros(2)}, tmp_path / "deeper.pth")
    torch.save(
        {name.replace("backbone.", ""): tensor for name, tensor in nets["resnet18"].state_dict().items()},
        tmp_path / "shallow.pth",
    )
    begin = [LAYOUTS.load("68"), mean_face() + 0.01, pytest.fail]
    for name in ("imagenet", "epoch59"):
        refuses(
            f"{name}.pth.*--net resnet34", initialise, nets["resnet18"], str(tmp_path / f"{name}.pth"), *begin, DEFAULTS
        )
        words = initialise(nets["resnet34"], str(tmp_path / f"{name}.pth"), *begin, DEFAULTS).words
        assert re.search(
            rf"tensors of .*{name}.pth, resnet34{' of PIPNet' * (name == 'epoch59')}, \d\d.\d\d M parameters", words
        )
    refuses("shallow.pth.*resnet34", initialise, nets["resnet34"], str(tmp_path / "shallow.pth"), *begin, DEFAULTS)
    refuses("deeper.pth.*layer3.6.conv1", initialise, nets["resnet34"], str(tmp_path / "deeper.pth"), *begin, DEFAULTS)


def test_what_a_published_file_lacks_is_one_line(tmp_path, slim):
    torch.save({"fc.weight": torch.zeros(2, 2), "conv1.weight": torch.zeros(2)}, tmp_path / "r.pth")
    refuses("neither a checkpoint", checkpoint.load, tmp_path / "r.pth", DEFAULTS)
    whole = torch.load(slim, weights_only=True)
    state = dict(whole)
    del state["conv5.0.weight"]
    torch.save(state, slim)
    refuses("conv5.0.weight", checkpoint.load, slim, DEFAULTS)
    for name, count, message in (
        ("conv14.0.weight", 2, "holds tensors that slim of Peppa's Slim does not .*conv14"),
        ("fc.bias", 203, "no net of Peppa's Slim .*: it has 203 outputs; one with 143"),
        ("conv5.1.bias", 3, "does not have so .backbone.conv5.1.bias.: it is another"),
    ):
        torch.save({**whole, name: torch.zeros(count)}, slim)
        refuses(message, checkpoint.load, slim, DEFAULTS)
    snapshot(tmp_path / "p.pth", "pipnet")
    (tmp_path / "five.txt").write_text("0.5 " * 10)
    refuses("five.txt.*68", checkpoint.load, f"{tmp_path / 'p.pth'},{tmp_path / 'five.txt'}", DEFAULTS)


@pytest.fixture
def places(data_root, tmp_path) -> tuple:
    return "--data-root", data_root, "--run-root", tmp_path / "runs", "--threads", "1"


@pytest.mark.parametrize("protocol", ("gssl", *slow("slim", "box")))
def test_a_published_file_is_tested_in_any_protocol_and_leaves_nothing_beside_it(
    slim, raw, places, cli, tmp_path, protocol
):
    done = works(cli("--test --test-onnx --exp", slim, "--test-data", raw, "--protocol", protocol, *places))
    assert f"crops {protocol}\n" in done.stdout
    torch_row, onnx_row = table(done.stdout)
    assert torch_row[1:3] == ["torch", "8"] and onnx_row[1] == "onnx"
    (folder,) = (tmp_path / "runs" / "files").glob("slim-pth-*")
    assert open_net(folder / "best.onnx").protocol._asdict() == DEFAULTS.protocols[protocol]  # the export follows too
    assert (folder / "report" / "index.html").is_file()
    assert "Net:   slim.pth: slim of Peppa's Slim, 0.23 M parameters" in done.stdout
    assert {path.name for path in tmp_path.iterdir()} <= {"slim.pth", "runs", "output"}


def test_the_faces_of_a_published_file_are_named(slim, raw, places, cli, tmp_path):
    fails(cli("--test --exp", slim, *places), "slim.pth.*--test-data")
    fails(cli("--test --exp", slim, "--dataset auto", *places), "slim.pth.*--test-data")
    named = [works(cli("--test --exp", slim, where, raw, *places)) for where in ("--dataset", "--data-dir")]
    one, other = (table(done.stdout) for done in named)
    assert one == other and one[0][1:3] == ["torch", "8"]
    out = tmp_path / "out.csv"
    works(cli("--predict", raw / "test", "--exp", slim, "--protocol box --out", out, *places))
    assert out.is_file()


@pytest.mark.parametrize("name", ("meanface.txt", "mean_98_face.npy"))
def test_a_mean_face_alone_is_no_net(raw, places, cli, demo, tmp_path, name):
    np.savetxt(tmp_path / "meanface.txt", mean_face().reshape(1, -1))
    np.save(tmp_path / "mean_98_face.npy", mean_face())
    file, message = tmp_path / name, f"{name} is no net.*mean faces.*name the net's file"
    fails(cli("--test --exp", file, "--test-data", raw, *places), message)
    fails(cli("--train --weights", file, "--train-data", raw, *places), message)
    fails(demo("--source", ROOT / "assets" / "astronaut.jpg", "--exp", file), message)


def test_an_exported_file_is_tested_by_itself(trained, raw, data_root, cli, tmp_path):
    alone = tmp_path / "mine.onnx"
    shutil.copy(trained.folder / "best.onnx", alone)
    places = ("--data-root", data_root, "--run-root", tmp_path / "runs")
    done = works(cli("--test --exp", alone, "--test-data", raw, *places, "--thresholds 50 100"))
    ((_, model, count, error, *_),) = table(done.stdout)
    assert (model, count) == ("onnx", "8") and float(error) == pytest.approx(
        float(table(trained.done.stdout)[1][3]), rel=0.05
    )
    assert rows(next((tmp_path / "runs" / "files").glob("mine-onnx-*")) / "report" / "scores.csv")
    run = tmp_path / "000"
    shutil.copytree(trained.folder, run)
    (run / "best.pt").write_bytes((run / "last.pt").read_bytes())  # whatever lies beside the file
    done = works(cli("--test --exp", run / "best.onnx", "--data-root", data_root))
    assert [row[1] for row in table(done.stdout)] == ["onnx"]


# ---------------------------------------------------------------------------------------------------------- --weights
def chosen(*argv) -> object:
    """The settings of a training with these flags."""
    return new_settings(*argv)


def test_a_training_takes_the_net_of_its_weights(trained, slim, faces, tmp_path):
    for words in (
        ["--weights", trained.folder],
        ["--weights", "000", "--run-root", trained.root],
        ["--weights", trained.folder / "best.pt", "--preset", "finetune"],
    ):
        net = chosen("--train-data", faces, *words).net
        assert (net.net, net.head, net.input_size) == (NET, "pip", 64) and net.weights == str(
            trained.folder / "best.pt"
        )
    net = chosen("--train-data", faces, "--weights", slim).net
    assert (net.net, net.head, net.input_size) == ("slim", "coordinate", 160)
    net = chosen("--train-data", faces, "--weights", trained.folder, "--net", "resnet18", "--input-size", "96").net
    assert (net.net, net.input_size) == ("resnet18", 96)
    torch.save({"conv1.weight": torch.zeros(64, 3, 7, 7)}, tmp_path / "resnet18.pth")  # a backbone alone says nothing
    assert chosen("--train-data", faces, "--weights", tmp_path / "resnet18.pth").net.net == DEFAULTS.values["net"]
    refuses("--task detect", chosen, "--train-data", faces, "--weights", "detector")


def test_a_net_and_weights_that_do_not_fit_are_one_line(trained, recipe, cli):
    net = ["--net", "mobilenetv2"] + recipe[recipe.index(NET) + 1 :]
    fails(cli("--train", *recipe[: recipe.index("--net")], *net, "--weights", trained.folder), f"best.pt.*--net {NET}")


def test_shipped_nets_start_teach_and_predict_by_name(faces, raw, cli, tmp_path):
    given = chosen("--train-data", faces, "--weights", "landmarks", "--teacher", "landmarks")
    assert given.net.weights == given.train.teacher and Path(given.train.teacher).name == "landmarks.pt"
    assert (given.net.net, given.net.input_size, given.net.refine) == ("resnet10t_early", 192, True)
    works(cli("--predict", raw / "test", "--run-root", tmp_path / "runs", "--detector none --threads 1"))
    assert (tmp_path / "runs" / "files" / "landmarks" / "predicted" / "test" / "uncertain.csv").is_file()
    nowhere = tmp_path / "file"  # with --out nothing else is written, not even a log
    nowhere.touch()
    works(cli("--predict", raw / "test", "--run-root", nowhere, "--out", tmp_path / "out.csv", "--detector none"))
    assert (tmp_path / "out.csv").is_file()
    fails(cli("--train --exp landmarks --run-root", tmp_path), "--exp landmarks")


@pytest.mark.parametrize(
    ("name", "size"), [("MobileNet_GDConv", 224), ("MobileNet_GDConv_56", 56), ("MobileNet_GDConv_SE", 224)]
)
def test_mobilenets_of_pytorch_face_landmark(reference, tmp_path, name, size):
    names = json.loads((reference / "foreign_keys.json").read_text())[name]
    torch.save({"state_dict": formula_weights(names)}, tmp_path / "net.pth.tar")
    net, layout, values = checkpoint.unpack(tmp_path / "net.pth.tar", DEFAULTS)
    assert (net.spec["input_size"], layout.name) == (size, "68")
    assert values["protocol"] == DEFAULTS.protocols["cunjian" if size == 224 else "cunjian_camera"]
    x = torch.sin(0.013 * torch.arange(3 * size * size, dtype=torch.float64)).float().view(1, 3, size, size)
    with torch.inference_mode():
        found = net.eval().head(net.neck(net.backbone(x))).landmarks.flatten()
    with np.load(reference / "foreign_outputs.npz") as outputs:
        assert np.abs(found.numpy() - outputs[name][0]).max() < 1e-5


class WholeMapFilter(nn.Module):
    """MobileNetV2, squeeze-excite if asked for, one filter over the last map per channel, a map to landmarks."""

    def __init__(self, cells: int, points: int, excite: bool):
        super().__init__()

        def unit(outputs: int, kernel: int, groups: int) -> nn.Module:
            conv = nn.Conv2d(1280, outputs, kernel, groups=groups, bias=False)
            return nn.Sequential(OrderedDict(conv=conv, bn=nn.BatchNorm2d(outputs)))

        self.pretrain_net = mobilenet_v2()
        self.linear7, self.linear1 = unit(1280, cells, 1280), unit(2 * points, 1, 1)
        gates = {"fc1": nn.Conv2d(1280, 160, 1, bias=False), "fc2": nn.Conv2d(160, 1280, 1, bias=False)}
        self.attention = nn.ModuleDict(gates if excite else {})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.pretrain_net.features(x)
        if len(self.attention):
            pooled = self.attention["fc1"](x.mean((2, 3), keepdim=True)).relu()
            x = x * self.attention["fc2"](pooled).sigmoid()
        return self.linear1(self.linear7(x)).flatten(1)


@pytest.mark.parametrize(
    ("size", "cells", "points", "excite", "names"),
    [
        (56, 2, 68, False, {}),
        (56, 2, 39, True, {"input_names": ["input"], "dynamic_axes": {"input": {0: "batch"}}}),
        (112, 4, 68, True, {}),
    ],
    ids=str,
)
def test_an_exported_mobilenet_of_any_size_is_known_by_its_weights(demo, tmp_path, size, cells, points, excite, names):
    """It gives what its state dict gives in torch, in the same crops; a state dict does not tell other sizes."""
    torch.manual_seed(0)
    net = WholeMapFilter(cells, points, excite).eval()
    for norm in (part for part in net.modules() if isinstance(part, nn.BatchNorm2d)):
        nn.init.normal_(norm.running_mean, std=0.1)
    file = tmp_path / "landmarks.onnx"
    torch.onnx.export(net, (torch.zeros(1, 3, size, size),), str(file), dynamo=False, **names)
    found, crops = open_net(str(file)), images(size)
    assert (found.size, found.layout.count, found.protocol._asdict()) == (
        size,
        points,
        DEFAULTS.protocols["cunjian_camera"],
    )
    row = net_row("mobilenetv2")
    x = (crops[..., ::-1] / 255 - row.mean) / row.std
    with torch.inference_mode():
        expected = net(torch.from_numpy(x.transpose(0, 3, 1, 2)).float()).view(len(crops), -1, 2)
    assert np.abs(found.predict(crops)["landmarks"] - expected.numpy()).max() < 1e-5
    state = {name: tensor for name, tensor in net.state_dict().items() if excite or "attention" not in name}
    torch.save({"state_dict": state}, tmp_path / "net.pth.tar")
    if size == 56:
        in_torch, layout, values = checkpoint.unpack(tmp_path / "net.pth.tar", DEFAULTS)
        assert values["protocol"] == found.protocol._asdict() and layout.name == found.layout.name
        with torch.inference_mode():
            assert (in_torch.eval().predict(torch.from_numpy(crops)).landmarks - expected).abs().max() < 1e-5
    else:
        refuses("net.pth.tar.*4 x 4 cells.*ONNX", checkpoint.load, tmp_path / "net.pth.tar", DEFAULTS)
    if points == 68:
        works(demo("--exp", file, "--source", ROOT / "assets" / "astronaut.jpg", "--json -"))


def test_graphs_in_pflds_size_are_told_apart(tmp_path):
    pfld_graph(tmp_path / "pfld.onnx", 1)
    model = onnx.load(tmp_path / "pfld.onnx")
    assert checkpoint.load(tmp_path / "pfld.onnx", DEFAULTS)["net"]["net"] == "PFLD"
    filters = numpy_helper.from_array(np.zeros((512, 1, 7, 7), np.float32), "filters")
    model.graph.initializer.append(filters)
    onnx.save(model, tmp_path / "mobilefacenet.onnx")
    values = checkpoint.load(tmp_path / "mobilefacenet.onnx", DEFAULTS)
    assert values["net"]["net"] == "MobileFaceNet" and values["args"]["protocol"] == "cunjian_camera"


@pytest.mark.parametrize("suffix", [".xml", ".param", ".tflite"])
def test_a_foreign_file_of_another_runtime_names_the_onnx_file(tmp_path, suffix):
    (tmp_path / f"mobilefacenet{suffix}").write_text('<?xml version="1.0"?><net name="mobilefacenet" version="10"/>')
    refuses(
        f"mobilefacenet{suffix} is (a file of|no export of this project).*mobilefacenet.onnx",
        open_net,
        tmp_path / f"mobilefacenet{suffix}",
    )


def test_the_forks_net_of_the_eyes_takes_the_mean_face_of_68(tmp_path):
    torch.manual_seed(0)
    chosen, layout = settings("drowsiness"), LAYOUTS.load("12")
    net = make_net(chosen.net, chosen.loss, layout, mean_face_in(1.1)[list(layout.selected)]).eval()
    torch.save(to_published(net.state_dict(), "irnet"), tmp_path / "state.pt")
    (tmp_path / "meanface.txt").write_text(" ".join(map(str, mean_face_in(1.1).ravel())))
    found, there, _ = checkpoint.unpack(tmp_path / "state.pt", DEFAULTS)
    assert there.name == "12" and found.spec["neighbor_index"] == net.spec["neighbor_index"]


def pfld_graph(file: Path, batch: int | str) -> tuple[np.ndarray, np.ndarray]:
    """Write a graph with PFLD's ports, pose as another output; return the weights (48, 136) and bias of its one layer."""
    weight = np.sin(0.37 * np.arange(48 * 136)).reshape(48, 136).astype(np.float32) / 8
    bias = (0.5 + 0.1 * np.sin(np.arange(136))).astype(np.float32)
    nodes = [
        helper.make_node("AveragePool", ["picture"], ["pooled"], kernel_shape=[28, 28], strides=[28, 28]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("ReduceMean", ["pooled"], ["pose"], axes=[2, 3], keepdims=0),
        helper.make_node("Gemm", ["flat", "weight", "bias"], ["points"]),
    ]
    shapes = {"picture": [batch, 3, 112, 112], "pose": [batch, 3], "points": [batch, 136]}
    picture, *outputs = (helper.make_tensor_value_info(name, 1, shape) for name, shape in shapes.items())
    tensors = [numpy_helper.from_array(weight, "weight"), numpy_helper.from_array(bias, "bias")]
    graph = helper.make_graph(nodes, "pfld", [picture], outputs, tensors)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), file)
    return weight, bias


@pytest.mark.parametrize("batch", [1, "N"])
def test_pfld_is_known_by_its_shapes(raw, data_root, cli, demo, tmp_path, batch):
    """Whatever its ports are called; its input is the crop in BGR by 255."""
    file = tmp_path / "pfld.onnx"
    weight, bias = pfld_graph(file, batch)
    net, crops = open_net(file), np.random.default_rng(0).integers(0, 256, (3, 112, 112, 3), dtype=np.uint8)
    pooled = (crops / 255).transpose(0, 3, 1, 2).reshape(3, 3, 4, 28, 4, 28).mean((3, 5))
    found = net.predict(crops)["landmarks"]
    assert np.abs(found.reshape(3, -1) - (pooled.reshape(3, -1) @ weight + bias)).max() < 1e-5
    assert net.protocol._asdict() == DEFAULTS.protocols["cunjian_camera"] and net.meanface is None
    if batch != 1:
        return
    places = ("--data-root", data_root, "--run-root", tmp_path / "runs", "--threads", "1")
    done = works(cli("--test --exp", file, "--test-data", raw, *places))
    assert "PFLD of pytorch_face_landmark" in done.stdout
    done = works(
        cli("--predict", raw / "test", "--exp", file, "--out", tmp_path / "out.csv", "--detector none", *places)
    )
    assert (tmp_path / "out.csv").is_file()
    works(demo("--exp", file, "--source", ROOT / "assets" / "astronaut.jpg", "--json -"))
