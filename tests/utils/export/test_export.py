"""An exported file predicts what the net predicts, and its metadata hold what a user of the file needs."""

import json
import resource
import sys

import numpy as np
import onnx
import pytest
import torch
from conftest import DEFAULTS, LAYOUTS, NET, ROOT, contents, exported_predictor, mean_face, refuses, settings, slow
from small_nets import net_of, pictures, spread

from nets.registry import STATES
from pipnet.geometry import Protocol, crop_box, cut
from pipnet.landmark_net import open_net
from pipnet.landmarker import Landmarker
from utils.evaluate.evaluate import torch_predictor
from utils.export.files import export_onnx, folded
from utils.export.landmarks import write_landmark_net
from utils.task.find import find_net
from utils.train import checkpoint
from utils.train.run_folder import Run

SQUARE = DEFAULTS.protocols["square"]
L68 = LAYOUTS.load("68")


@pytest.mark.parametrize(
    ("num_nb", "stride", "size", "varied", "name"),
    [
        (0, 32, 64, True, NET),
        (2, 16, 96, True, NET),
        *slow((1, 8, 64, True, NET), (2, 16, 96, False, NET), (5, 64, 128, True, NET), (10, 128, 128, True, NET)),
        *slow((11, 32, 96, False, "irnet18")),
    ],
)
def test_an_untrained_net_agrees_with_its_export(tmp_path, num_nb, stride, size, varied, name):
    options = {"num_nb": num_nb, "stride": stride, "input_size": size, "head_options": {"sigma": varied}}
    net = net_of(net=name, meanface=mean_face()[36:48], **options).eval()
    if varied:
        spread(net)
    file = tmp_path / "net.onnx"
    plain = {key: tensor.clone() for key, tensor in net.state_dict().items()}
    export_onnx(net, file, {})
    assert all(torch.equal(tensor, plain[key]) for key, tensor in net.state_dict().items())
    exported, ours = exported_predictor(file, 1), torch_predictor(net, torch.device("cpu"))
    images = pictures(64, size)
    apart = []
    for begin, end in ((0, 1), (1, 6), (6, 64)):
        one, two = ours(images[begin:end]), exported(images[begin:end])
        assert (
            one.landmarks.shape == two.landmarks.shape == (end - begin, 12, 2) and two.landmarks.dtype == torch.float32
        )
        assert two.score.shape == (end - begin, 12) and 0 <= two.score.min() and two.score.max() <= 1
        assert not varied or (two.sigma.shape == one.sigma.shape and torch.allclose(one.sigma, two.sigma, rtol=1e-3))
        apart += (one.landmarks - two.landmarks).abs().amax((1, 2)).tolist()
    assert np.mean(np.array(apart) < 1e-4) >= 0.95, "more faces differ than an argmax that ties can explain"


def saved(run: Run, auxiliary: tuple[str, ...] = (), **given) -> Run:
    """Write the checkpoint of an untrained net of 68 landmarks and its export."""
    net = net_of(auxiliary=auxiliary)
    checkpoint.save(run.weights, contents(net, L68, args=settings(**given).flat(), epoch=3, val_nme=4.5))
    net, _, stored = checkpoint.unpack(run.weights)
    write_landmark_net(run, net, stored, Protocol(**DEFAULTS.protocols["square"]))
    return run


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Run:
    """Return a run with a checkpoint of 68 landmarks and its export."""
    folder = tmp_path_factory.mktemp("exported")
    return saved(Run(folder, folder / "best.pt"))


@pytest.mark.parametrize(
    ("eyes", "names"), [(0.8, list(STATES)), *slow((0.0, [None, None, "mouth_closed", "mouth_wide_open"]))]
)  # eyes of no weight are not trained
def test_the_file_names_the_states(tmp_path, eyes, names):
    run = saved(Run(tmp_path, tmp_path / "best.pt"), ("pose", "states"), eyes=eyes, mouth=0.5)
    meta = {entry.key: entry.value for entry in onnx.load(run.onnx).metadata_props}
    assert json.loads(meta["states"]) == names
    image, box = pictures(1, 96)[0].numpy(), np.array([[20.0, 20, 70, 70]])
    shown = [
        Landmarker(net, detector=lambda image: None).landmarks_of(image, box)[0]
        for net in (open_net(run.onnx, 1), find_net(str(run.weights), 1))
    ]
    crop = crop_box(box[0], Protocol(**SQUARE), 96, 96)
    plain = exported_predictor(run.onnx, 1)(torch.from_numpy(cut(image, crop, 64)[None]))
    for face in shown:
        assert np.allclose(face.pose, np.degrees(plain.pose[0].numpy()), atol=1e-3)
        assert list(face.states) == [name for name in names if name]
        kept = [name is not None for name in names]
        assert np.allclose(list(face.states.values()), plain.states[0].numpy()[kept], atol=1e-4)


def test_the_file_says_what_it_takes_and_gives(exported):
    model = onnx.load(exported.onnx)
    shapes = {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    }
    assert shapes == {"image": ["batch", 64, 64, 3], "landmarks": ["batch", 68, 2], "score": ["batch", 68]}
    types = {value.name: value.type.tensor_type.elem_type for value in (*model.graph.input, *model.graph.output)}
    assert types == {
        "image": onnx.TensorProto.UINT8,
        "landmarks": onnx.TensorProto.FLOAT,
        "score": onnx.TensorProto.FLOAT,
    }
    meta = {entry.key: entry.value for entry in model.metadata_props}
    layout = json.loads(meta["layout"])
    assert layout["count"] == 68 and layout["flip_index"] == list(L68.flip_index) and layout["interocular"] == [36, 45]
    assert json.loads(meta["protocol"]) == SQUARE
    assert (json.loads(meta["input_size"]), json.loads(meta["val_nme"])) == (64, 4.5)
    assert meta["channels"] == "BGR, uint8, not normalised"
    assert json.loads(meta["states"]) == []
    assert (meta["net"], meta["norm"], meta["frame"]) == (NET, "interocular", "[0, 1] of the nominal crop")
    assert [path.name for path in exported.folder.iterdir()] in (["best.pt", "best.onnx"], ["best.onnx", "best.pt"])


def test_normalisation_is_inside_the_file(exported):
    net = checkpoint.unpack(exported.weights)[0].eval()
    images, predict = pictures(2, 64), exported_predictor(exported.onnx, 1)
    mean, std = (torch.tensor(net.spec["preprocess"][key]) for key in ("mean", "std"))
    by_hand = ((images.flip(3) / 255 - mean) / std).permute(0, 3, 1, 2)  # BGR to RGB
    with torch.inference_mode():
        assert torch.allclose(net.preprocess(images), by_hand, atol=1e-5)
        expected = net.head.decode(net.head(net.neck(net.backbone(by_hand))))
    assert torch.allclose(predict(images).landmarks, expected.landmarks, atol=1e-4)


def test_a_file_that_is_no_export_is_named(tmp_path):
    refuses("none.onnx", exported_predictor, tmp_path / "none.onnx")
    (tmp_path / "bad.onnx").write_bytes(b"no graph")
    assert "\n" not in refuses("bad.onnx", exported_predictor, tmp_path / "bad.onnx")


def test_a_full_disk_for_temporary_files_is_named(exported, monkeypatch):
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # Python keeps a cut-off .pyc file, and then fails with it
    model, limits = onnx.load(exported.onnx), resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
        refuses("TMPDIR", folded, model)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_an_export_says_nothing_of_this_machine(exported):
    content = exported.onnx.read_bytes()
    assert str(ROOT).encode() not in content and b"site-packages" not in content
