"""Backbones: strides, tensor names and outputs equal to the published nets; pretrained weights without a network."""

import json
import socket
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import DEFAULTS, LAYOUTS, exported_predictor, formula_weights, mean_face, to_published
from torch import nn

from extras.systems.convert.published import from_published
from extras.systems.convert.systems import SYSTEMS
from extras.systems.published import checkpoint_values
from nets import NetOptions, build_net, make_spec, net_row
from nets.backbones import irnet, mobilenet, resnet, slim
from nets.backbones.timm_net import TimmNet, timm_row
from nets.net import by_name
from utils.export.files import export_onnx
from utils.train.imagenet import load_imagenet
from utils.train.initialise import BACKBONES, initialise
from utils.train.weight_files import unwrapped

ROWS = resnet.ROWS | irnet.ROWS | mobilenet.ROWS | slim.ROWS
LIGHT = [
    "mobilenetv3_small",
    "regnetx_200mf",
    "hrnet_w18_small_v2",
    "timm:mobilenetv4_conv_small",
    "timm:convnext_atto.d2_in1k",
    "timm:swin_tiny_patch4_window7_224",
]
PUBLISHED = {  # {name in the reference file: row}
    "pipnet_resnet18": "resnet18",
    "pipnet_resnet50": "resnet50",
    "pipnet_resnet101": "resnet101",
    "pipnet_mobilenetv2": "mobilenetv2",
    "pipnet_mobilenetv3": "mobilenetv3_large",
    "irnet18": "irnet18",
    "irnet50": "irnet50",
    "irnet100": "irnet100",
}


def check_features(net: nn.Module, height: int, width: int) -> None:
    net.eval()
    with torch.no_grad(), torch.device("meta"):
        features = net(torch.zeros(2, 3, height, width))
    assert {4, 8, 16, 32} <= features.keys() == net.channels.keys()
    for stride, feature in features.items():
        assert feature.shape == (2, net.channels[stride], height // stride, width // stride)


@pytest.mark.parametrize("name", [*ROWS, *LIGHT])
def test_strides_and_channels(name: str) -> None:
    with torch.device("meta"):
        net = net_row(name).build()
    assert net.training
    check_features(net, 64, 64)
    check_features(net, 96, 160)


@pytest.mark.parametrize("name", ["resnet18", "irnet18", "mobilenetv2", "mobilenetv3_large"])
def test_every_parameter_learns_from_stride_32(name: str) -> None:
    """In-place activations must not overwrite a tensor that the backward pass or another stride needs."""
    net = ROWS[name].build()
    features = net(torch.randn(2, 3, 64, 64))
    sum(feature.square().mean() for feature in features.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


def test_irnet_activation_is_an_option() -> None:
    with torch.device("meta"):
        net = irnet.ROWS["irnet18"].build(act="relu")
    assert not any(isinstance(module, nn.PReLU) for module in net.modules())
    check_features(net, 64, 64)


@pytest.mark.parametrize("published", PUBLISHED)
def test_the_published_nets_are_recognised_and_give_their_outputs(reference: Path, tmp_path, published: str) -> None:
    state = formula_weights(json.loads((reference / "architectures_keys.json").read_text())[published], variance=0.1)
    (tmp_path / "mean.txt").write_text(" ".join(map(str, mean_face().ravel())))
    values = checkpoint_values(f"snapshot.pth,{tmp_path / 'mean.txt'}", state, DEFAULTS)
    assert values["net"]["net"] == PUBLISHED[published]
    net = build_net(values["net"]).eval()
    net.load_state_dict(values["model"])
    assert len(values["model"]) == len(state)
    image = torch.from_numpy(np.sin(0.01 * np.arange(3 * 256 * 256)).astype(np.float32)).reshape(1, 3, 256, 256)
    with torch.no_grad():
        maps = by_name(net.head(net.neck(net.backbone(image))))
    with np.load(reference / "architectures.npz") as stored:
        for part, output in maps.items():
            channels = slice(None, None, 7 if part.startswith("neighbor") else None)
            expected = stored[f"{published}_{part}"]
            np.testing.assert_allclose(output[0, channels].numpy(), expected, rtol=0, atol=1e-5, err_msg=part)


def published_shapes(name: str, system: str, act: str | None = None, **options) -> dict[str, torch.Tensor]:
    """The tensors of a snapshot, without values."""
    with torch.device("meta"):
        net = build_net(make_spec(NetOptions(name, act=act, **options), mean_face()))
    return to_published(net.state_dict(), system)


@pytest.mark.parametrize(("system", "name"), [(system, name) for system, names in BACKBONES.items() for name in names])
def test_a_snapshot_tells_its_backbone_by_all_its_tensors(system: str, name: str) -> None:
    """Some hold all tensors of a smaller net: resnet34 those of resnet18."""
    for stride in (32, 16) if name in ("resnet18", "irnet50") else (32,):
        state = published_shapes(name, system, stride=stride)
        told = SYSTEMS[system].keys(state)
        assert (told["net"], told["stride"], told["num_nb"]) == (name, stride, 10) and "act" not in told
        last = list(state)[40]
        for changed in ({**state, "layer3.99.conv1.weight": state[last]}, {**state, "fc.weight": state[last]}):
            with pytest.raises(ValueError, match=f"{name}.*1 more"):
                SYSTEMS[system].keys(changed)
        with pytest.raises(ValueError, match=f"is none of|is {name[:5]}.* more tensors"):
            SYSTEMS[system].keys({key: tensor for key, tensor in state.items() if key != last})


def test_published_names_refuse_what_has_no_name() -> None:
    zero = torch.zeros(1)
    assert from_published({"conv1.weight": zero, "fc.weight": zero}).keys() == {"backbone.conv1.weight"}
    with pytest.raises(ValueError, match="head.score.weight twice"):
        from_published({"cls_layer.weight": zero, "score.weight": zero})
    with pytest.raises(ValueError, match="prefix"):
        unwrapped({"module.conv1.weight": zero, "conv1.weight": zero})


def test_a_row_of_timm_has_the_values_of_its_weights() -> None:
    row = timm_row("timm:resnetv2_50x1_bit")
    assert row.imagenet == "timm:resnetv2_50x1_bit" and row.mean == (0.5, 0.5, 0.5)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet81", r"no net 'resnet81'; the nearest are .*resnet"),
        ("resnet18.imagenet", r"no weights 'imagenet' for resnet18; it has .*a1_in1k"),
        ("vit_tiny_patch16_224", r"no feature map of stride 32, only \[16"),
        ("inception_v3", r"cannot be a backbone: .*64x96"),
    ],
)
def test_timm_errors_name_the_net_and_the_remedy(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        timm_row(name)
        TimmNet(name)
    assert "\n" not in str(error.value)


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Cut the network off; return the folder of an empty torch.hub cache."""

    def refuse(*args: object, **kwargs: object) -> None:
        raise socket.gaierror("no network in this test")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    for proxy in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(proxy, raising=False)
        monkeypatch.delenv(proxy.upper(), raising=False)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *args, **kwargs: None)
    (tmp_path / "checkpoints").mkdir()
    return tmp_path / "checkpoints"


@pytest.mark.parametrize("name", ["resnet18", "irnet18", "mobilenetv2", "mobilenetv3_large", "timm:convnext_atto"])
def test_imagenet_weights_fail_fast_without_network(name: str, offline: Path) -> None:
    row = timm_row(name) if name.startswith("timm:") else ROWS[name]
    net = row.build()
    start = time.monotonic()
    with pytest.raises(OSError, match="ImageNet weights") as error:
        load_imagenet(net, row)
    assert time.monotonic() - start < 8 and "\n" not in str(error.value)


def test_imagenet_weights_come_from_the_cache(offline: Path) -> None:
    row = ROWS["mobilenetv3_large"]
    source, net = row.build(), row.build()
    cached = offline / "mobilenetv3-large-1cd25616.pth"
    torch.save(source.state_dict() | {"classifier.0.weight": torch.zeros(1280, 960)}, cached)
    load_imagenet(net, row)
    assert all(torch.equal(a, b) for a, b in zip(source.state_dict().values(), net.state_dict().values(), strict=True))

    torch.save({"features.0.0.weight": torch.zeros(16, 3, 3, 3)}, cached)
    with pytest.raises(OSError, match="MobileNetV3Large"):
        load_imagenet(net, row)
    cached.write_bytes(b"no checkpoint")
    with pytest.raises(OSError, match="remove .*mobilenetv3-large"):
        load_imagenet(net, row)


def test_timm_weights_come_from_the_cache(offline: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import timm

    source = timm.create_model("resnet18")
    cached = offline / "pytorch_model.bin"
    torch.save(source.state_dict(), cached)
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *args, **kwargs: str(cached))
    row = timm_row("resnet18")
    net = row.build()
    load_imagenet(net, row)
    assert torch.equal(net.net.layer4[1].conv2.weight, source.layer4[1].conv2.weight)


def test_parallel_branches_are_exported_as_one_convolution(tmp_path: Path) -> None:
    import onnx

    torch.manual_seed(0)
    net = build_net(
        make_spec(NetOptions("mobileone_s0", "coordinate", None, 64), np.random.default_rng(0).random((5, 2)))
    ).eval()
    nn.init.normal_(net.head.output.weight, std=0.02)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.0)
            module.momentum = None  # running statistics become those of the next batch
    images = torch.randint(0, 256, (4, 64, 64, 3), dtype=torch.uint8)
    with torch.no_grad():
        net.train()(images)
        one = net.eval().reparameterized()
        plain, merged = net.predict(images).landmarks, one.predict(images).landmarks
    assert (plain - merged).abs().max() < 1e-4 < plain.std(0).max()
    before, after = (sum(isinstance(module, nn.Conv2d) for module in part.modules()) for part in (net, one))
    assert before > 4 * after and not any(isinstance(module, nn.BatchNorm2d) for module in one.modules())
    export_onnx(net, tmp_path / "net.onnx", {})
    nodes = onnx.load(tmp_path / "net.onnx").graph.node
    assert sum(node.op_type == "Conv" for node in nodes) == after
    assert (exported_predictor(tmp_path / "net.onnx", 1)(images).landmarks - plain).abs().max() < 1e-4


def test_a_local_file_of_an_imagenet_net_is_loaded_and_reported(tmp_path: Path) -> None:
    import timm

    source = timm.create_model("test_efficientnet")
    torch.save({"state_dict": source.state_dict() | {"extra.weight": torch.zeros(3)}}, tmp_path / "net.pth")
    face = mean_face()
    net = build_net(make_spec(NetOptions("timm:test_efficientnet", "pip", 32, 64, num_nb=3), face))
    started = initialise(net, str(tmp_path / "net.pth"), LAYOUTS.load("68"), face, print, DEFAULTS)
    assert torch.equal(net.backbone.net.conv_stem.weight, source.conv_stem.weight)
    kinds = {name: what for name, _, what in started.rows}
    assert kinds["backbone.net.conv_stem.weight"] == "loaded" and kinds["head.score.weight"] == "new: not in the file"
    assert kinds["backbone.extra.weight"] == "left out: this net has no such tensor"
    assert kinds["classifier.weight"] == "left out: the classifier"
    assert {what for name, what in kinds.items() if name.startswith("backbone.net.")} == {"loaded"}
    assert "new: head.neighbor_x.bias" in started.words and "left out: backbone.bn2.bias" in started.words
