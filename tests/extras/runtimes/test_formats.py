"""Exports for other runtimes give what the net gives; 8-bit ones almost; `--test-formats` measures it."""

import csv
import hashlib
import json
import re
import resource
import shutil
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from conftest import (
    NET,
    ROOT,
    exported_predictor,
    fails,
    mean_face,
    refuses,
    slow,
    unfolded,
    works,
    write_faces,
)
from PIL import Image
from small_nets import net_of, pictures, spread

from extras.runtimes import runtimes
from extras.runtimes.runtimes import write_tflite
from extras.synthetic import VERSION, generate
from nets import Prediction, build_net
from nets.wrappers.affine import inverse
from pipnet.detections import suppress
from pipnet.detector import load_exported
from pipnet.landmark_net import open_net
from pipnet.landmarker import Landmarker
from pipnet.runtimes import open_file, stored_values
from utils.evaluate.evaluate import torch_predictor
from utils.export.files import Source, deployed, example_for, export_onnx, write_format
from utils.settings.formats import FORMATS
from utils.train import checkpoint
from utils.train.run_folder import find_run

PACKAGES = {
    "mnn": ["MNN"],
    "tflite": ["litert_torch"],
    "int8": [],
}
SIGMA = {"head_options": {"sigma": True}}
HEADS = {"pip": SIGMA, "coordinate": SIGMA, "simcc": {}, "heatmap": {"stride": 8}}
EYES = mean_face()[36:48]


def source_of(net: torch.nn.Module, folder: Path) -> Source:
    """Return what formats are made from, with the net's ONNX file in `folder`."""
    export_onnx(net, folder / "net.onnx", {"net": "of a test"})
    return Source(
        folder / "net.onnx",
        lambda: ({"image": one[None].numpy()} for one in pictures(8)),
        deployed(net),
        example_for(net.spec["input_size"], net.input_margin),
    )


def import_packages(name: str) -> None:
    for package in PACKAGES.get(name, ()):
        if find_spec(package) is None:
            pytest.skip(f"the package {package} is not installed")


@pytest.fixture(scope="module", params=[*HEADS, "local parts"])
def refined(request, tmp_path_factory) -> tuple[torch.nn.Module, Source]:
    """A net with a refiner, of each head, or one with local parts, which re-initialises too; and its source."""
    if request.param == "local parts":
        eyes = {"eye_left": [*range(6)], "eye_right": [*range(6, 12)]}
        net = net_of("coordinate", meanface=EYES, local_parts=eyes).eval()
    else:
        net = spread(net_of(request.param, meanface=EYES, refine=True, **HEADS[request.param]))
    return net, source_of(net, tmp_path_factory.mktemp("refined"))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mnn", "tflite"])
def test_a_net_agrees_with_its_exports(tmp_path, monkeypatch, refined, name):
    import_packages(name)
    (net, source), file = refined, tmp_path / f"net{FORMATS[name].suffix}"
    monkeypatch.chdir(source.onnx.parent)
    if name == "tflite" and net.spec["reinit"]:  # with local parts
        refuses("LiteRT cannot run this net", write_format, name, source, file)
        return
    write_format(name, source._replace(onnx=Path("net.onnx")), file)
    exported, ours = exported_predictor(file, 1), torch_predictor(net, torch.device("cpu"))
    for count in (1, 5):
        images = pictures(count, source.example.shape[1])
        one, two = ours(images), exported(images)
        for part, other in zip(one, two, strict=True):
            assert (part is None) == (other is None)
            if part is not None:
                assert part.shape == other.shape and other.dtype == torch.float32
                assert (part - other).abs().max() < 1e-4
    assert stored_values(file)["net"] == "of a test"


@pytest.fixture(scope="module", params=["small", "shipped"])
def telling(request, tmp_path_factory) -> tuple[torch.nn.Module, Source]:
    """A net with the output `face`, small or shipped but for the last layer of that output, and its source."""
    torch.manual_seed(0)
    if request.param == "small":
        net = spread(net_of(meanface=EYES, refine=True, auxiliary=("face",)))
    else:
        known = checkpoint.load(ROOT / "weights" / "landmarks-fast.pt")
        net = build_net(known["net"]).eval()
        net.load_state_dict(known["model"])
    torch.nn.init.normal_(net.face.read.weight, std=0.5 if request.param == "small" else 0.02)
    torch.nn.init.zeros_(net.face.read.bias)
    return net, source_of(net, tmp_path_factory.mktemp("telling"))


@pytest.mark.parametrize(
    ("telling", "name"),
    [("small", "onnx"), ("small", "int8"), *slow(*(("shipped", name) for name in (*PACKAGES, "onnx")))],
    indirect=["telling"],
)
def test_the_output_face_is_exported(tmp_path, telling, name):
    import_packages(name)
    (net, source), file = telling, tmp_path / f"net{FORMATS[name].suffix}"
    images = pictures(5, net.spec["input_size"])
    source = source._replace(feeds=lambda: ({"image": one[None].numpy()} for one in images))
    if name == "onnx":
        file = source.onnx
    else:
        write_format(name, source, file)
    one, two = torch_predictor(net, torch.device("cpu"))(images), exported_predictor(file, 1)(images)
    assert one.face.shape == two.face.shape == (5,) and two.face.dtype == torch.float32
    assert (one.face - two.face).abs().max() < (0.1 if name == "int8" else 1e-3) and one.face.std() > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mnn"])
@pytest.mark.parametrize("refined", ["pip"], indirect=True)
def test_some_landmarks_of_a_net_are_exported(tmp_path, refined, name):
    import_packages(name)
    (net, source), file, index = refined, tmp_path / f"net{FORMATS[name].suffix}", (7, 2, 3)
    export_onnx(net, tmp_path / "net.onnx", {}, index)
    write_format(name, source._replace(onnx=tmp_path / "net.onnx", index=index), file)
    images = pictures(2, source.example.shape[1])
    one, two = (
        torch_predictor(net, torch.device("cpu"))(images).select(list(index)),
        exported_predictor(file, 1)(images),
    )
    for part, other in zip(one[:3], two[:3], strict=True):
        assert (part - other).abs().max() < 1e-4


def test_a_missing_converter_is_named_before_anything_is_made(tmp_path, monkeypatch, cli):
    monkeypatch.setattr("utils.settings.formats._installed", lambda package: package != "litert_torch")
    says = "the package '?litert_torch'?.*an environment of its own: .*pip install -r requirements.txt litert-torch"
    refuses(says, write_tflite, Source(tmp_path / "gone.onnx", lambda: ()), tmp_path / "net.tflite")
    monkeypatch.setattr("utils.settings.start.os.execv", lambda *command: None)
    assert re.search(says, cli("--export tflite --exp landmarks").returncode)  # what sys.exit got


@pytest.mark.parametrize("name", ["mnn", "tflite"])
@pytest.mark.parametrize("shipped", ["landmarks", "landmarks-fast"])
def test_a_shipped_net_agrees_with_its_exports(tmp_path, shipped, name):
    import_packages(name)
    weights = ROOT / "weights"
    net, layout, _ = checkpoint.unpack(weights / f"{shipped}.pt")
    net, file = net.eval(), tmp_path / f"net{FORMATS[name].suffix}"
    size, sheet = net.spec["input_size"], cv2.imread(str(ROOT / "assets" / "demo.jpg"))
    crops = torch.from_numpy(np.stack([cv2.resize(sheet[:, x : x + 400], (size, size)) for x in range(0, 1600, 400)]))
    index = layout.members["68"].index
    source = Source(weights / f"{shipped}.onnx", tuple, deployed(net), example_for(size, 1), index=index)
    write_format(name, source, file)
    one = torch_predictor(net, torch.device("cpu"))(crops).select(list(index))
    two = exported_predictor(file, 1)(crops)
    assert size * (one.landmarks - two.landmarks).abs().max() < 0.5  # px; the weights of the ONNX file are of 16 bits
    assert (one.score - two.score).abs().max() < 0.01 and (one.sigma - two.sigma).abs().max() < 0.001
    assert open_net(file, 1).predict(crops[:0].numpy())["landmarks"].shape == (0, *one.landmarks.shape[1:])


@pytest.mark.parametrize("name", ["tflite", *slow("coreml")])
def test_the_shipped_detector_is_exported_for_phones(tmp_path, name, cli):
    import_packages(name)
    if name == "coreml":
        pytest.importorskip("coremltools", reason="the package coremltools is not installed")
    works(cli("--export", name, "--exp detector --run-root", tmp_path))
    file = tmp_path / "files" / "detector" / f"best{FORMATS[name].suffix}"
    if name == "coreml":
        assert zipfile.ZipFile(file).testzip() is None
        return
    image = np.zeros((640, 640, 3), np.uint8)
    image[:160] = cv2.resize(cv2.imread(str(ROOT / "assets" / "demo.jpg")), (640, 160))
    found = open_file(file, 1).run({"image": image[None]})
    boxes, scores = found["boxes"][0], found["scores"][0]
    order = np.argsort(-scores)[: (scores > 0.3).sum()]
    kept = order[suppress(boxes[order], 0.3)]
    wanted = load_exported(ROOT / "weights" / "detector.onnx", 1).find(image, 0.3, 0.3)
    assert boxes.shape == (8525, 4) and boxes[kept].shape == wanted.boxes.shape and len(kept) >= 3
    assert np.abs(boxes[kept] - wanted.boxes).max() < 0.5  # px; the weights of the ONNX file are of 16 bits
    assert np.abs(scores[kept] - wanted.scores).max() < 0.01


@pytest.mark.slow
def test_a_net_is_converted_to_core_ml_and_agrees_on_a_mac(tmp_path, refined):
    coremltools = pytest.importorskip("coremltools", reason="the package coremltools is not installed")
    (net, source), file = refined, tmp_path / "net.mlpackage.zip"
    write_format("coreml", source, file)
    zipfile.ZipFile(file).extractall(tmp_path)
    made = coremltools.models.MLModel(str(tmp_path / "net.mlpackage"))
    port = made.get_spec().description.input[0]
    size = source.example.shape[1]
    assert port.name == "image" and port.type.imageType.width == port.type.imageType.height == size
    assert [one.name for one in made.get_spec().description.output] == open_file(source.onnx).outputs
    assert made.user_defined_metadata["net"] == "of a test"
    if sys.platform != "darwin":
        pytest.skip("Core ML predicts on macOS only; the conversion is tested")
    image = pictures(1, size)
    found = made.predict({"image": Image.fromarray(image[0].numpy()[..., ::-1])})
    ours = torch_predictor(net, torch.device("cpu"))(image)
    assert np.abs(found["landmarks"] - ours.landmarks.numpy()).max() < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("refined", ["pip"], indirect=True)
@pytest.mark.parametrize("name", PACKAGES)
def test_a_full_disk_for_temporary_files_is_named(tmp_path, refined, name, monkeypatch):
    import_packages(name)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # Python keeps a cut-off .pyc file, and then fails with it
    limits, before = resource.getrlimit(resource.RLIMIT_FSIZE), set(tmp_path.iterdir())
    for room in (10_000, 200_000):  # at once, and in the middle of the weights
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))
            refuses("TMPDIR", write_format, name, refined[1], tmp_path / f"net{FORMATS[name].suffix}")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert set(tmp_path.iterdir()) == before


def test_eight_bits_change_the_landmarks_little_and_need_no_other_tool(tmp_path):
    net = spread(net_of(meanface=EYES))
    source, file = source_of(net, tmp_path), tmp_path / "net.int8.onnx"
    write_format("int8", source, file)
    exact, coarse = (exported_predictor(path, 1)(pictures(20)).landmarks for path in (source.onnx, file))
    assert 0 < (exact - coarse).abs().median() < 0.05
    model = onnx.load(file)
    reader = next(node for node in model.graph.node if "image" in node.input)  # no float is made of the image before
    while reader.op_type == "Transpose":
        reader = next(node for node in model.graph.node if reader.output[0] in node.input)
    assert reader.op_type == "DequantizeLinear"
    assert next(node for node in model.graph.node if reader.output[0] in node.input).op_type == "Conv"
    onnx.checker.check_model(model)
    # the oldest onnxruntime of the requirements reads IR version 10 and operators of version 22
    assert model.ir_version <= 10 and all(entry.version <= 22 for entry in model.opset_import if not entry.domain)
    kept = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Conv":  # its weights are of 7 bits, with a scale for each output channel
            scales = next(other for other in model.graph.node if node.input[1] in other.output)
            values, each = (onnx.numpy_helper.to_array(kept[name]) for name in scales.input[:2])
            assert values.dtype == np.int8 and np.abs(values.astype(int)).max() <= 64 and each.shape == (len(values),)
    assert {entry.key: entry.value for entry in model.metadata_props}["net"] == "of a test"
    assert str(tmp_path).encode() not in file.read_bytes()


def test_eight_bits_take_a_batch_without_crops(tmp_path):
    """As 32 bits do; a shipped net, because its first convolutions read blocks of pixels."""
    onnx_file, file = ROOT / "weights" / "finder.onnx", tmp_path / "net.int8.onnx"
    write_format("int8", Source(onnx_file, lambda: ({"image": one[None].numpy()} for one in pictures(2))), file)
    assert "block_channels" in {name for node in onnx.load(file).graph.node for name in node.output}
    images = pictures(3).numpy()
    several, none = (onnxruntime.InferenceSession(file).run(None, {"image": part}) for part in (images, images[:0]))
    assert [values.shape for values in none] == [(0, *values.shape[1:]) for values in several]


@pytest.mark.parametrize("head", ["pip", *slow("coordinate", "simcc", "heatmap", "parts")])
def test_raw_maps_decode_to_what_the_net_predicts(tmp_path, head):
    net = spread(net_of(head, meanface=EYES, **HEADS.get(head, {})))
    source, file = source_of(net, tmp_path), tmp_path / "net.raw.onnx"
    write_format("raw", source, file)
    opened = open_file(file, 1)
    found = {name: torch.from_numpy(value) for name, value in opened.run({"image": pictures(3).numpy()}).items()}
    maps = net(pictures(3))
    assert list(found) == opened.outputs == list(net.maps(pictures(3)))
    decoded = net.head.decode(found["score"] if torch.is_tensor(maps) else maps._replace(**found))
    assert (decoded.landmarks - torch_predictor(net, torch.device("cpu"))(pictures(3)).landmarks).abs().max() < 1e-4
    assert opened.values["net"] == "of a test" and int(opened.values["stride"]) == net.spec["stride"]
    for one in (source.onnx, file):
        model = onnx.load(one)
        onnx.checker.check_model(model, full_check=True)
        # the oldest onnxruntime of the requirements, 1.20, reads IR version 10 and operators of version 21
        assert model.ir_version <= 10 and [(entry.domain, entry.version <= 21) for entry in model.opset_import] == [
            ("", True)
        ]
        assert not unfolded(one) and len(list(tmp_path.glob("net.*"))) == 2  # one file each


@pytest.mark.slow
def test_raw_maps_of_a_net_that_moves_the_crop_come_with_the_way_there(tmp_path):
    net = net_of("coordinate", meanface=EYES, reinit=True).eval()
    source = source_of(net, tmp_path)
    write_format("raw", source, tmp_path / "net.raw.onnx")
    found = open_file(tmp_path / "net.raw.onnx", 1).run({"image": source.example.numpy()})
    theta, inner = (torch.from_numpy(found[name]) for name in ("theta", "landmarks"))
    outer = Prediction(inner, inner[..., 0]).warp(inverse(theta)).landmarks
    assert (outer - torch_predictor(net, torch.device("cpu"))(source.example).landmarks).abs().max() < 1e-4
    assert not unfolded(source.onnx)


def test_an_export_without_its_package_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "MNN", None)
    file = tmp_path / "net.mnn"  # in a folder that nobody knows
    refuses("^net.mnn needs the package MNN: pip install", runtimes.write_mnn, None, file)


def test_a_missing_package_or_a_damaged_file_is_one_line(tmp_path, monkeypatch):
    file = tmp_path / "net.mnn"
    refuses("no file.*net.mnn", open_net, file)
    file.write_bytes(b"junk" * 100)
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "MNN", None)
        refuses("net.mnn.*pip install MNN$", open_net, file)
    pytest.importorskip("MNN", reason="the package MNN is not installed")
    refuses("net.mnn.*export", open_net, file)
    refuses("net.pb", open_file, tmp_path / "net.pb")


@pytest.mark.parametrize(
    ("suffix", "runtime"), [(".xml", "OpenVINO"), (".param", "ncnn"), (".torchscript", "TorchScript")]
)
def test_a_file_of_a_runtime_that_gets_the_net_otherwise_is_named(tmp_path, suffix, runtime):
    file = tmp_path / f"net{suffix}"
    file.write_bytes(b"junk")
    refuses(f"net{suffix} is a file of {runtime}.*ONNX", Landmarker, file)


@pytest.mark.parametrize("suffix", ["mnn", "onnx"])
def test_peppas_published_files_run(reference, suffix):
    if suffix == "mnn":
        pytest.importorskip("MNN", reason="the package MNN is not installed")
    net = open_net(reference / f"slim_160_latest.{suffix}", 1)
    landmarker = Landmarker(net, detector=lambda image: None)
    with np.load(reference / "slim.npz") as stored:
        crops = np.stack([stored[f"i{face}_onnx_crop_bgr"] for face in range(8)])
        raw = np.concatenate([stored[f"i{face}_onnx_raw143"] for face in range(8)])
    assert net.predict(crops[:0])["landmarks"].shape == (0, 68, 2)
    found = net.predict(crops)
    assert np.abs(found["landmarks"].reshape(8, -1) - raw[:, :136]).max() < 1e-5
    assert np.allclose(np.degrees(found["pose"]), raw[:, 136:139] * 90 * [-1, 1, 1], atol=1e-3)
    assert np.allclose(found["states"], 1 / (1 + np.exp(-raw[:, 139:])), atol=1e-5)
    (face,) = landmarker.landmarks_of(crops[0], np.array([[30.0, 30, 130, 130]]))
    assert face.landmarks.shape == (68, 2) and list(face.states)[0] == "left_eye_closed" and face.pose.shape == (3,)


@pytest.mark.slow
def test_formats_are_tested_as_the_net_is(cli, trained, tmp_path):
    """A net of two epochs is so rough that its 8-bit file may be beyond its bound; then the command must say so."""
    run = shutil.copytree(trained.folder, tmp_path / "run")
    done = cli("--test-formats onnx int8 --exp", run)
    rows = {row["format"]: row for row in csv.DictReader(open(run / "report" / "formats.csv"))}
    assert list(rows) == ["torch", "onnx", "int8"] and float(rows["onnx"]["figure apart"]) <= 0.01
    assert done.returncode == (float(rows["int8"]["figure apart"]) > 0.05), done.stderr
    assert "p95" in done.stdout and (done.returncode == 0 or "best.int8.onnx differs from torch by" in done.error)
    manifest = json.loads((run / "manifest.json").read_text())
    for name in ("best.onnx", "best.int8.onnx"):
        assert manifest[name]["sha256"] == hashlib.sha256((run / name).read_bytes()).hexdigest()
    card = (run / "card.md").read_text()
    told = (
        NET,
        "68 landmarks, layout 68",
        "scale_x 1.2",
        manifest["best.onnx"]["sha256"],
        "drawn",
        "| onnx",
        "MIT licence",
    )
    assert not [words for words in told if words not in card]
    stored = checkpoint.load(run / "best.pt")
    stored["args"]["train_data"] = ["a<script>alert(1)\n# b"]
    checkpoint.save(run / "best.pt", stored)
    works(cli("--export onnx --exp", run, "--out", tmp_path / "there"))
    assert sorted(file.name for file in (tmp_path / "there").iterdir()) == ["best.onnx"]
    fails(cli("--export onnx --exp", run, "--out", tmp_path / "there"), "--out: .*best.onnx exists; give --overwrite")
    foreign = (run / "card.md").read_text()
    assert "a&lt;script>" in foreign and "<script>" not in foreign and "\n# b" not in foreign
    assert cli("--export onix --exp", run).error.startswith("argument --export: invalid choice: 'onix'")


@pytest.mark.slow
def test_other_faces_than_those_of_the_training_calibrate_a_net(cli, raw, tmp_path):
    """The shipped net was trained on four sets, each with its own --label-shift."""
    places = ("--run-root", tmp_path / "runs", "--data-root", tmp_path / "data")
    for faces in (raw, write_faces(tmp_path / "more" / "train", 6, seed=9).parent):  # each time anew
        done = works(cli("--export int8 --exp landmarks-fast --train-data", faces, *places))
        assert f"8-bit numbers are calibrated on faces of {faces}" in done.stderr
    assert find_run("landmarks-fast", tmp_path / "runs", train=False).has("int8")


@pytest.mark.slow
def test_formats_of_a_shipped_net_without_any_data(cli, tmp_path):
    """They are compared on synthetic faces; `--test` asks for real ones. The files are the shipped ones."""
    places = ("--run-root", tmp_path / "runs", "--data-root", tmp_path / "data")
    generate(tmp_path / "data" / f"synthetic-raw{VERSION}-2000-400", 12, 3)  # instead of so many
    done = cli("--test-formats onnx int8 --exp landmarks-fast --layout 68", *places)
    assert "calibrated on" not in done.stderr and "| synthetic faces" in done.stdout, done.stderr
    assert "landmarks-fast.int8.onnx" in done.stdout
    single = ("--layout 68", *places[:2], "--data-root", tmp_path / "none")
    done = works(cli("--export int8 onnx --exp landmarks-fast", *single))
    assert not (tmp_path / "none").exists()
    assert "weights/landmarks-fast.int8.onnx" in done.stderr + done.stdout
    fails(cli("--test --exp landmarks-fast", *places), "--test-data")


@pytest.mark.slow
def test_another_layout_of_a_shipped_net_comes_from_its_checkpoint(cli, tmp_path):
    places = ("--run-root", tmp_path, "--data-root", tmp_path / "none")
    works(cli("--export onnx --exp landmarks-fast --layout faces68", *places))
    image, file = ROOT / "assets" / "astronaut.jpg", tmp_path / "files" / "landmarks-fast" / "best.68-faces68.onnx"
    (one,), (usual,) = Landmarker(file, threads=1)(image), Landmarker("landmarks-fast", threads=1)(image)
    (other,) = Landmarker(ROOT / "weights" / "landmarks-fast.pt", threads=1, layout="faces68")(image)
    assert np.abs(one.landmarks - other.landmarks).max() < 0.02 * np.ptp(one.landmarks[:, 0])
    assert np.abs(one.landmarks - usual.landmarks)[:17].mean() > 1  # the jaw is another one
    works(cli("--predict", image, "--exp landmarks-fast --layout faces68 --out", tmp_path / "found.csv", *places))
