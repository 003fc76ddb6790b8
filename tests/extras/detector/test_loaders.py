"""Detectors say what the published ones say; anchors, targets and loss of FaceBoxesV2 agree with each other."""

import cv2
import numpy as np
import onnx
import pytest
import torch
from conftest import ROOT, draw_face, refuses, works
from onnx import helper, numpy_helper
from torchvision.ops import box_iou, nms

from extras.detector.faceboxes import BoxTargets, FaceBoxesV2, anchors, best_boxes, decode, encode, multibox_loss
from extras.detector.loaders import weights_of
from extras.detector.mtcnn import MTCNN, nms_of_smaller
from pipnet.detections import suppress as suppress_boxes
from pipnet.detector import DETECTORS, Detector
from utils.train.weight_files import unwrapped

SIZES = [(1, 1), (1, 130), (33, 20), (128, 128), (150, 257)]
FILES = {"faceboxes": "FaceBoxesV2.pth", "rfb320": "version-RFB-320.onnx", "mtcnn": "mtcnn_weights.npz"}


def picture(array: np.ndarray) -> np.ndarray:
    return cv2.imdecode(array, cv2.IMREAD_COLOR)


def published(reference, name: str, scale: float | None = 1.0, **options) -> Detector:
    return Detector(name, reference / FILES[name], scale=scale, **options)


def untrained(seed: int = 0) -> FaceBoxesV2:
    """Random, with statistics as after training."""
    torch.manual_seed(seed)
    net = FaceBoxesV2()
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for tensor in (module.weight.data, module.running_var):
                torch.nn.init.uniform_(tensor, 0.5, 1.5)
            for tensor in (module.bias.data, module.running_mean):
                torch.nn.init.normal_(tensor, std=0.1)
    return net.eval()


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


# ---------------------------------------------------------------------------------------------------- published outputs
def test_faceboxes_gives_the_published_raw_outputs(reference):
    stored = np.load(reference / "faceboxesv2.npz")
    net = FaceBoxesV2().eval()
    state = torch.load(reference / FILES["faceboxes"], weights_only=True, map_location="cpu")
    net.load_state_dict(unwrapped(state))
    for index in (2, 4, 6):  # 1023x1024, 683x1024, 769x1024
        image = torch.from_numpy(picture(stored[f"i{index}_jpg_bytes"]))[None]
        height, width = image.shape[1:3]
        for form in (net, net.fused()):
            with torch.inference_mode():
                offsets, logits = form(image)
            assert np.abs(offsets[0].numpy() - stored[f"i{index}_s1_loc"]).max() < 1e-4
            assert np.abs(logits[0].softmax(-1).numpy() - stored[f"i{index}_s1_conf_softmax"]).max() < 1e-4
        priors = stored[f"i{index}_s1_priors_cxcywh"] * [width, height, width, height]
        assert np.abs(anchors(height, width).numpy() - priors).max() < 1e-3


@pytest.mark.parametrize(("mode", "scale"), [("s1", 1.0), ("auto", None)])
def test_faceboxes_finds_the_published_boxes(reference, mode, scale):
    stored, detector = np.load(reference / "faceboxesv2.npz"), published(reference, "faceboxes", scale=scale)
    for index in range(8):
        boxes, scores, points = detector(picture(stored[f"i{index}_jpg_bytes"]))
        theirs = torch.from_numpy(stored[f"i{index}_{mode}_dets_float"]).double()
        theirs[:, :4] /= float(stored[f"i{index}_{mode}_im_scale"])
        overlap, match = box_iou(theirs[:, :4], torch.from_numpy(boxes).double()).max(1)
        assert points is None and len(boxes) == len(theirs) == len(match.unique())
        assert overlap.min() > 0.99 and np.abs(scores[match] - theirs[:, 4].numpy()).max() < 1e-3


@pytest.mark.parametrize(("threshold", "key"), [(0.8, "boxes"), (0.5, "boxes_t0.5")])
def test_rfb320_finds_the_published_boxes(reference, threshold, key):
    stored, detector = np.load(reference / "rfb320.npz"), published(reference, "rfb320", threshold=threshold)
    for index in range(8):
        boxes, scores, points = detector(picture(stored[f"i{index}_file_bytes"]))
        theirs = stored[f"i{index}_{key}"]
        assert points is None and len(boxes) == len(theirs)
        assert np.abs(boxes - theirs[:, :4] - 0.5).max() < 0.51  # those are cut to whole px
        assert np.abs(scores - theirs[:, 4]).max() < 1e-3


def test_mtcnn_finds_the_published_boxes_and_points(reference):
    stored, detector = np.load(reference / "mtcnn.npz"), published(reference, "mtcnn")
    for index in range(3):
        boxes, scores, points = detector(picture(stored[f"i{index}_jpg_bytes"]))
        theirs = stored[f"i{index}_mtcnn_boxes"]
        apart = np.abs(boxes[:, None] - [0, 0, 1, 1] - theirs[None, :, :4]).max(2)  # scores tie: the order may differ
        match = apart.argmin(0)
        assert len(boxes) == len(theirs) == len(set(match.tolist()))
        assert apart.min(0).max() < 0.01 and np.abs(scores[match] - theirs[:, 4]).max() < 1e-4
        five = stored[f"i{index}_mtcnn_5pt_xxxxxyyyyy"].reshape(-1, 2, 5).swapaxes(1, 2)
        assert np.abs(points[match] - five).max() < 0.01


def test_the_default_scale_is_that_of_the_detector(tmp_path):
    """MTCNN builds a pyramid of the whole picture; ours see at most 600 px of the short side, and 160 px of the other."""
    torch.save(MTCNN().state_dict(), tmp_path / "mtcnn.pt")
    seen = []
    for detector in (
        Detector("mtcnn", tmp_path / "mtcnn.pt"),
        Detector("mtcnn", tmp_path / "mtcnn.pt", scale=0.5),
        Detector(),
    ):
        detector._find = lambda image, *limits: (seen.append(image.shape[:2]), (np.zeros((0, 4)), np.zeros(0), None))[1]
        detector(np.zeros((1200, 1000, 3), np.uint8))
    assert seen == [(1200, 1000), (600, 500), (160, 133), (720, 600)]


@pytest.mark.parametrize("name", ["faceboxes", "mtcnn"])
@pytest.mark.parametrize("scale", [0.7, 1.6, None])
def test_boxes_lie_in_the_frame_of_the_image(reference, name, scale):
    """On a larger canvas, at any scale, the best box goes with the picture."""
    image = picture(np.load(reference / "rfb320.npz")["i1_file_bytes"])
    canvas = np.zeros((480, 640, 3), np.uint8)
    canvas[150 : 150 + image.shape[0], 300 : 300 + image.shape[1]] = image
    one, two = published(reference, name)(image), published(reference, name, scale=scale)(canvas)
    moved = one.boxes[:1] + [300, 150, 300, 150]
    assert box_iou(torch.from_numpy(moved).double(), torch.from_numpy(two.boxes[:1]).double()) > 0.7
    if name == "mtcnn":
        assert np.abs(one.points[0] + [300, 150] - two.points[0]).max() < 10


@pytest.mark.parametrize("name", FILES)
def test_a_plain_picture_has_no_face(reference, name):
    detector = published(reference, name)
    for height, width in (*SIZES, (5, 3000)):
        for value in (0, 255):
            boxes, scores, points = detector(np.full((height, width, 3), value, np.uint8))
            assert boxes.shape == (0, 4) and scores.shape == (0,) and (points is None or points.shape == (0, 5, 2))


# --------------------------------------------------------------------------------------------------- FaceBoxesV2 itself
def test_a_batch_is_its_images_and_folding_changes_nothing():
    net = untrained()
    fused = net.fused()
    images = torch.from_numpy(np.stack([noise(70, 100, seed) for seed in range(3)]))
    for (boxes, scores), image in zip(fused.detect(images, 0.3), images, strict=True):
        alone, score = net.detect(image[None], 0.3)[0]
        assert len(alone) and torch.allclose(boxes, alone, atol=1e-3) and torch.allclose(scores, score, atol=1e-5)
    for one, folded in ((net, False), (fused, True)):  # the net itself can still be trained
        assert folded != any(isinstance(module, torch.nn.BatchNorm2d) for module in one.modules())


def random_boxes(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng([count, seed] if seed else count)
    corner = rng.uniform(0, 40, (count, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(1, 30, (count, 2))], 1).astype(np.float32)
    return boxes, rng.uniform(size=count).astype(np.float32)


def test_suppression_counts_whole_px_and_equality():
    boxes = torch.tensor([[0.0, 0, 9, 9], [0, 5, 9, 14], [0, 5, 9, 15]])  # 10x10 px each, the last 10x11
    assert len(best_boxes(boxes[:2], torch.tensor([0.9, 0.8]), 0.5, 1 / 3)[0]) == 1  # 50 of 150 px
    assert len(best_boxes(boxes[::2], torch.tensor([0.9, 0.8]), 0.5, 1 / 3)[0]) == 2  # 50 of 160
    many = torch.arange(1000.0)[:, None] * 10 + torch.tensor([0.0, 0, 5, 5])
    kept, scores = best_boxes(many, torch.linspace(0.1, 0.9, 1000), 0.15, 0.3)
    assert len(kept) == 750 and scores[0] == 0.9 and (scores.diff() < 0).all()


# ----------------------------------------------------------------------------------------------------- targets and loss
FACES = torch.tensor([[10.0, 12, 41, 50], [60, 20, 130, 100], [100, 90, 118, 108], [-20, 60, 90, 190]])


def encoded(*boxes: torch.Tensor, anchor: torch.Tensor) -> BoxTargets:
    return BoxTargets(torch.stack([encode(image, anchor) for image in boxes]))


def test_decode_undoes_encode():
    grid = anchors(200, 230)
    targets = encoded(FACES, FACES[:0], anchor=grid)
    found = targets.label == 1
    assert found[0].any() and not found[1].any() and (targets.offsets[~found] == 0).all()
    overlap, face = box_iou(decode(targets.offsets[0], grid)[found[0]], FACES).max(1)
    assert overlap.min() > 0.9999 and set(face.tolist()) == {0, 1, 2, 3}  # every face has an anchor, the small one too


def corners(grid: torch.Tensor) -> torch.Tensor:
    return torch.cat([grid[:, :2] - grid[:, 2:] / 2, grid[:, :2] + grid[:, 2:] / 2], 1)


def test_matching():
    grid = anchors(200, 230)
    label = encoded(FACES, anchor=grid).label[0]
    overlap = box_iou(corners(grid), FACES)
    assert (label[overlap.max(1).values >= 0.35] == 1).all()
    forced = (label == 1) & (overlap.max(1).values < 0.35)
    # only where a face has nothing better
    assert set(forced.nonzero()[:, 0].tolist()) <= set(overlap.argmax(0).tolist())
    assert not encode(torch.tensor([[50.0, 50, 54, 54], [20, 20, 20, 40]]), grid).any()  # too small, empty


def test_faces_that_share_their_nearest_anchor():
    grid = anchors(64, 64)
    near, far = torch.tensor([0.0, 0, 32, 32]), torch.tensor([-2.0, 2, 30, 28])
    for boxes in (torch.stack([near, far]), torch.stack([far, near])):
        targets = encoded(boxes, anchor=grid)
        nearest = box_iou(corners(grid), near[None]).argmax()
        assert torch.allclose(decode(targets.offsets[0], grid)[nearest], near, atol=1e-3)


def test_ignored_anchors_teach_nothing():
    grid = anchors(200, 230)
    targets = encoded(FACES, anchor=grid)
    quiet = (targets.label == 1) & (torch.arange(len(grid)) % 3 == 0)
    targets.label[quiet] = -1
    assert quiet.any() and (targets.label == 1).any()
    offsets = torch.zeros(1, len(grid), 4, requires_grad=True)
    logits = torch.zeros(1, len(grid), 2, requires_grad=True)
    loss = multibox_loss(offsets, logits, targets, negatives=1e6)
    (loss["loc"] + loss["conf"]).backward()
    assert (
        (logits.grad[quiet] == 0).all()
        and (logits.grad[~quiet] != 0).all()
        and (offsets.grad[targets.label != 1] == 0).all()
    )


def test_the_hardest_background_counts():
    offsets, logits = torch.zeros(2, 100, 4), torch.zeros(2, 100, 2)
    label = torch.zeros(2, 100, dtype=torch.long)
    label[0, :4], logits[:, :, 1] = 1, torch.arange(100.0) / 100
    logits.requires_grad_()
    targets = BoxTargets(torch.cat([torch.ones(2, 100, 4), label[..., None]], 2))
    loss = multibox_loss(offsets, logits, targets, negatives=7, least=5)
    loss["conf"].backward()
    counted = [(row != 0).any(1).nonzero()[:, 0].tolist() for row in logits.grad]
    assert counted == [[*range(4), *range(100 - 28, 100)], [*range(95, 100)]]  # the second image has no face
    assert loss["loc"] == 4 * 4 * 0.5
    perfect = torch.where(label[..., None] == 1, torch.tensor([-20.0, 20]), torch.tensor([20.0, -20]))
    assert multibox_loss(targets.offsets, perfect, targets)["conf"] < 1e-6


def test_it_learns_a_picture():
    image, landmarks = draw_face(np.random.default_rng(3), 96)
    box = torch.tensor(np.concatenate([landmarks.min(0), landmarks.max(0)])[None], dtype=torch.float32)
    images = torch.from_numpy(np.stack([image, noise(96, 96)]))
    targets = encoded(box, box[:0], anchor=anchors(96, 96))
    torch.manual_seed(0)
    net = FaceBoxesV2()
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    for _ in range(60):
        loss = multibox_loss(*net(images), targets)
        optimizer.zero_grad()
        ((2 * loss["loc"] + loss["conf"]) / (targets.label == 1).sum()).backward()
        optimizer.step()
    (found, scores), (nothing, _) = net.train().detect(images)
    assert len(found) == 1 and scores[0] > 0.9 and box_iou(found, box) > 0.8 and len(nothing) == 0


# ---------------------------------------------------------------------------------------------------------------- MTCNN
def test_suppression_by_the_smaller_box():
    boxes, scores = random_boxes(120)
    keep: list[int] = []
    for index in np.argsort(-scores, kind="stable"):
        corner = np.maximum(boxes[index, :2], boxes[keep, :2])
        common = (np.minimum(boxes[index, 2:], boxes[keep, 2:]) - corner).clip(min=0).prod(1)
        area = (boxes[:, 2:] - boxes[:, :2]).prod(1)
        if not (common > 0.7 * np.minimum(area[index], area[keep])).any():
            keep.append(int(index))
    assert nms_of_smaller(torch.from_numpy(boxes), torch.from_numpy(scores), 0.7).tolist() == keep


# ---------------------------------------------------------------------------------------------------- the one interface
@pytest.fixture
def weights(tmp_path):
    """Files with random weights."""
    torch.manual_seed(0)
    torch.save(
        {f"module.{name}": tensor for name, tensor in untrained().state_dict().items()}, tmp_path / "faceboxes.pth"
    )
    arrays = {name: tensor.numpy() for name, tensor in MTCNN().state_dict().items()}
    np.savez(tmp_path / "mtcnn.npz", **arrays)
    white_square_yunet(tmp_path / "yunet.onnx")
    return {"faceboxes": tmp_path / "faceboxes.pth", "mtcnn": tmp_path / "mtcnn.npz", "yunet": tmp_path / "yunet.onnx"}


def port(name: str, source: str, stride: int, bias: np.ndarray, gain: float, shape: list[int]) -> tuple[list, list]:
    """Return (nodes, tensors) of an output: means of the picture over cells of `stride` px, times `gain`, plus the bias
    (anchors of a cell, columns), as a table of this shape.
    """
    square = {"kernel_shape": [stride] * 2, "strides": [stride] * 2, "ceil_mode": 1}
    arrays = {"weight": np.full((bias.size, 3, 1, 1), gain), "bias": bias.ravel()}
    tensors = [numpy_helper.from_array(array.astype(np.float32), f"{name}.{key}") for key, array in arrays.items()]
    nodes = [
        helper.make_node("AveragePool", [source], [f"{name}.pool"], **square),
        helper.make_node("Conv", [f"{name}.pool", f"{name}.weight", f"{name}.bias"], [f"{name}.map"]),
        helper.make_node("Transpose", [f"{name}.map"], [f"{name}.last"], perm=[0, 2, 3, 1]),
        helper.make_node("Reshape", [f"{name}.last", f"{name}.shape"], [name]),
    ]
    return nodes, [*tensors, numpy_helper.from_array(np.array(shape), f"{name}.shape")]


def save_graph(file, nodes: list, image: tuple[str, list], outputs: dict[str, list], tensors: list = ()) -> None:
    """Write a graph of float ports, each with its shape."""
    ports = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, to) for name, to in outputs.items()]
    source = helper.make_tensor_value_info(image[0], onnx.TensorProto.FLOAT, [1, 3, *image[1]])
    graph = helper.make_graph(nodes, "detector", [source], ports, tensors)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), file)


def white_square_yunet(file) -> None:
    """The ports of a YuNet; what it takes for a face is a white cell of 32 px, the box is the cell, the points lie in
    it.
    """
    nodes, tensors, outputs = [], [], {}
    points = [0.2, 0.3, 0.8, 0.3, 0.5, 0.5, 0.3, 0.7, 0.7, 0.7]
    for stride in (8, 16, 32):
        for name, bias, gain in (
            ("cls", [-240.0 if stride == 32 else -900.0], 1 / 3),
            ("obj", [9.0], 0),
            ("kps", points, 0),
            ("bbox", [0.5, 0.5, 0.0, 0.0], 0),
        ):
            end, logit = f"{name}_{stride}", name in ("cls", "obj")
            made = port(f"{end}.logit" if logit else end, "input", stride, np.array([bias]), gain, [1, -1, len(bias)])
            nodes += made[0] + [helper.make_node("Sigmoid", [f"{end}.logit"], [end])] * logit
            tensors += made[1]
            outputs[end] = [1, None, len(bias)]
    save_graph(file, nodes, ("input", ["height", "width"]), outputs, tensors)


def test_yunet_speaks_as_the_others_do(weights):
    image = np.zeros((150, 200, 3), np.uint8)
    image[64:96, 32:64] = 255
    boxes, scores, points = Detector("yunet", weights["yunet"])(image)
    assert boxes.tolist() == [[32, 64, 64, 96]] and 0.9 < scores[0] <= 1
    assert np.allclose(points, [[[38.4, 73.6], [57.6, 73.6], [48, 80], [41.6, 86.4], [54.4, 86.4]]], atol=1e-3)
    large = cv2.resize(image, None, fx=2, fy=2, interpolation=cv2.INTER_NEAREST)
    assert np.allclose(Detector("yunet", weights["yunet"], scale=0.5)(large).boxes, [[64, 128, 128, 192]])


def test_huge_pictures_are_shrunk_first(weights, monkeypatch):
    image = np.zeros((300, 400, 3), np.uint8)
    image[128:192, 64:128] = 255
    detector = Detector("yunet", weights["yunet"], scale=4.0)
    monkeypatch.setattr("pipnet.detector.MOST_PIXELS", 150 * 200)
    assert np.allclose(detector(image).boxes, [[64, 128, 128, 192]])


@pytest.mark.parametrize("name", ["faceboxes", "mtcnn", "yunet"])
def test_any_picture_gives_arrays(weights, name):
    for scale in (1.0, 0.5, 2.0, None):
        detector = Detector(name, weights[name], threshold=0.2, scale=scale)
        for height, width in SIZES:
            boxes, scores, points = detector(noise(height, width))
            assert (
                boxes.shape == (len(scores), 4)
                and boxes.dtype == scores.dtype == np.float32
                and (np.diff(scores) <= 0).all()
            )
            assert (points is None) == (name == "faceboxes") and (points is None or points.shape == (len(scores), 5, 2))


@pytest.mark.parametrize(
    ("name", "file", "message"),
    [
        ("haar", None, r"no detector 'haar' \(there are: faceboxes, rfb320, mtcnn, yunet, scrfd"),
        *((name, None, f"detector '{name}' needs its weights .*github") for name in DETECTORS if name != "faceboxes"),
        *((name, "gone.bin", f"detector '{name}' needs its weights .*no file at .*gone.bin") for name in DETECTORS),
        *((name, "text.bin", r"text.bin (is|holds)") for name in DETECTORS),
        ("faceboxes", "text.onnx", "text.onnx is not an ONNX file"),
        ("faceboxes", "yunet.onnx", "is no detector of ours"),
        ("mtcnn", "text.npz", "text.npz is not a readable .npz of arrays"),
        ("mtcnn", "text.npy", "text.npy is a pickle of one of MTCNN's nets.*npz.*migration.md"),
        ("mtcnn", "faceboxes.pth", "faceboxes.pth does not fit MTCNN"),
        ("faceboxes", "mtcnn.npz", "mtcnn.npz is"),
        ("rfb320", "yunet.onnx", "yunet.onnx is not RFB-320"),
    ],
)
def test_wrong_weights_are_one_line(weights, name, file, message):
    folder = weights["yunet"].parent
    for text in ("text.bin", "text.npy", "text.npz", "text.onnx"):
        (folder / text).write_text("This is no model.\n" * 10)
    text = refuses(message, Detector, name, file and folder / file)
    assert "\n" not in text and len(text) < 500


def test_a_wrong_onnx_file_gives_no_weights(weights, tmp_path):
    (tmp_path / "text.onnx").write_text("This is no model.\n" * 10)
    for file, message in (
        (tmp_path / "text.onnx", "text.onnx is not a readable ONNX file"),
        (weights["yunet"], "does not fit FaceBoxesV2"),
    ):
        refuses(message, weights_of, file)


@pytest.mark.parametrize("count", [0, 1, 2, 150, 200])
@pytest.mark.parametrize("overlap", [0.0, 0.1, 0.3, 0.5])
def test_suppression_in_numpy_is_that_of_torchvision(count, overlap):
    for seed in range(20):
        boxes, scores = random_boxes(count, seed)
        boxes = boxes[np.argsort(-scores, kind="stable")]
        for some in (boxes, np.round(boxes), np.round(boxes / 8) / 4):  # rounded boxes overlap by exact fractions
            expected = nms(torch.from_numpy(some), torch.from_numpy(np.sort(scores)[::-1].copy()), overlap).tolist()
            assert suppress_boxes(some, overlap) == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold": 1.5}, "from 0 to 1"),
        ({"overlap": -0.1}, "from 0 to 1"),
        ({"scale": 0}, "above 0"),
        ({"scale": float("nan")}, "above 0"),
        ({"name": "rfb320", "scale": 2.0}, "rfb320.*scale"),
    ],
)
def test_wrong_options_are_one_line(options, message):
    refuses(message, Detector, **options)


def constant_graph(file, size: int, tables: list[np.ndarray]) -> None:
    """Write a graph of one picture whose outputs are the tables, whatever the picture."""
    named = {f"o{place}": table for place, table in enumerate(tables)}
    nodes = [
        helper.make_node("Constant", [], [name], value=numpy_helper.from_array(table)) for name, table in named.items()
    ]
    save_graph(file, nodes, ("input.1", [size, size]), {name: table.shape for name, table in named.items()})


def test_files_of_scrfd_and_retinaface_are_decoded(tmp_path):
    """A face at one anchor of stride 16, in a picture of 128 px for an input of 64 px: all lengths double."""
    scores, boxes, points = ([np.zeros((2 * (64 // s) ** 2, n), np.float32) for s in (8, 16, 32)] for n in (1, 4, 10))
    scores[1][2 * 5] = 0.9  # row 1, column 1 of 4: centre 16, 16
    boxes[1][2 * 5], points[1][2 * 5] = 0.5, 0.25
    constant_graph(tmp_path / "scrfd.onnx", 64, [*scores, *boxes, *points])
    found = Detector("scrfd", tmp_path / "scrfd.onnx", scale=1.0)(noise(128, 128))
    assert np.allclose(found.boxes, [[16, 16, 48, 48]]) and np.allclose(found.scores, 0.9)
    assert np.allclose(found.points, 40)
    loc, conf, five = (np.zeros((1, 168, n), np.float32) for n in (4, 2, 10))
    conf[0, 128 + 2 * 5, 1] = 0.9  # centre 24, 24, side 64
    constant_graph(tmp_path / "retina.onnx", 64, [loc, conf, five])
    found = Detector("retinaface", tmp_path / "retina.onnx", scale=1.0)(noise(128, 128))
    assert np.allclose(found.boxes, [[-16, -16, 112, 112]]) and np.allclose(found.points, 48)
    refuses("retina.onnx is not scrfd", Detector, "scrfd", tmp_path / "retina.onnx")


def test_files_of_faceboxes_v1_are_decoded(tmp_path):
    """Its anchors are those of FaceBoxesV2."""
    anchor = anchors(64, 64).numpy()
    loc, conf = (np.zeros((1, len(anchor), n), np.float32) for n in (4, 2))
    for place in (7, 18, 41, 62, len(anchor) - 1):
        conf[:] = 0
        conf[0, place, 1] = 0.9
        constant_graph(tmp_path / "v1.onnx", 64, [loc, conf])
        found = Detector("faceboxes-v1", tmp_path / "v1.onnx", scale=1.0)(noise(64, 64))
        x, y, side, _ = anchor[place]
        assert np.allclose(found.boxes, [[x - side / 2, y - side / 2, x + side / 2, y + side / 2]])
        assert found.points is None


def published_graph(file, name: str, size: int | None, columns: tuple[int, ...], gain: float = 0.0) -> None:
    """Write a graph with the outputs of a published detector; every cell of its coarsest map has a face.

    columns: of its tables. Size None: all sizes are open, also those of the outputs, as in exports with dynamic axes.
    gain: the score of one anchor of a cell of 32 px is 0.5 plus the mean of the input there times the gain.
    """
    strides = {8: 2, 16: 2, 32: 2} if name != "faceboxes-v1" else {32: 21, 64: 1, 128: 1}  # {stride: anchors of a cell}
    nodes, tensors, outputs = [], [], {}
    for width in columns:
        table = [-1, width] if name == "scrfd" else [1, -1, width]
        parts = []
        for stride, count in strides.items():
            bias = np.zeros((count, width))
            scored = bool(gain) and width in (1, 2) and stride == 32
            if scored:
                bias[:] = np.array([0.5, *[-9.0] * (count - 1)])[:, None]
            elif stride == max(strides) and not gain:
                bias[-1] = {1: 0.9, 2: (0.1, 0.9), 4: 3 if name == "scrfd" else 0, 10: 0}[width]
            parts.append(f"part{width}_{stride}")
            made = port(parts[-1], "image", stride, bias, gain * scored, table)
            nodes, tensors = nodes + made[0], tensors + made[1]
        if name != "scrfd":
            nodes.append(helper.make_node("Concat", parts, [f"table{width}"], axis=1))
            parts = [f"table{width}"]
        for part in parts:
            known = [None if side < 0 else side for side in table]
            outputs[part] = known if size else [f"{part}_{axis}" for axis in range(len(table))]
    save_graph(file, nodes, ("image", [size or "height", size or "width"]), outputs, tensors)


COLUMNS = {"scrfd": (1, 4, 10), "retinaface": (4, 2, 10), "faceboxes-v1": (4, 2)}


@pytest.mark.parametrize(("name", "size"), [("scrfd", 256), ("retinaface", 256), ("faceboxes-v1", None)])
def test_published_detectors_run_in_demo_and_test(raw, data_root, cli, demo, tmp_path, name, size):
    """With an input of one size, and with sizes that are open."""
    file = tmp_path / f"{name}.onnx"
    published_graph(file, name, size, COLUMNS[name])
    chosen = ("--detector", name, "--detector-weights", file)
    done = works(demo("--source", ROOT / "assets" / "astronaut.jpg", "--json -", *chosen))
    assert '"file": "astronaut.jpg"' in done.stdout
    places = ("--data-root", data_root, "--run-root", tmp_path / "runs", "--threads", "1")
    done = works(cli("--test --exp landmarks --test-data", raw, "--box detector", *chosen, *places))
    assert "detector" in done.stdout


AS_PUBLISHED = [  # (detector, image, what its authors' code resizes it to, input: width, height each)
    ("faceboxes-v1", (1300, 1000), (936, 720), (936, 720)),
    ("faceboxes-v1", (1500, 700), (1080, 504), (1080, 504)),
    ("faceboxes-v1", (211, 130), (211, 130), (211, 130)),
    ("retinaface", (1300, 1000), (1300, 1000), (1300, 1000)),
    ("scrfd", (900, 1300), (443, 640), (640, 640)),
    ("scrfd", (300, 201), (640, 428), (640, 640)),
]


def test_pictures_are_resized_and_padded_as_published(tmp_path):
    """The score of a cell of 32 px is the mean of the input there, so each value depends on what lies in the input.

    Sizes that 32 does not divide: nothing black may lie at the edge, except in SCRFD's square.
    """
    gain, file = 1 / 4096, tmp_path / "net.onnx"
    for name, (width, height), small, (wide, high) in AS_PUBLISHED:
        published_graph(file, name, None, COLUMNS[name], gain)
        image = noise(height, width)
        found = Detector(name, file, threshold=0.01, overlap=1.0)(image)
        canvas = np.zeros((high, wide, 3), np.float32)
        canvas[: small[1], : small[0]] = cv2.resize(image, small)
        x = (canvas - 127.5) / 128 if name == "scrfd" else canvas - (104, 117, 123)
        cells = [x[y : y + 32, left : left + 32] for y in range(0, high, 32) for left in range(0, wide, 32)]
        expected = np.sort([0.5 + gain * cell.mean((0, 1)).sum() for cell in cells])[::-1]
        assert np.abs(found.scores - expected).max() < 1e-5, name
        centre = (found.boxes[:, :2] + found.boxes[:, 2:]) / 2 * np.divide(small, (width, height))
        first = {"retinaface": 16, "scrfd": 0, "faceboxes-v1": 0}[name]  # of the first cell
        assert np.abs(centre[:, 0].max() - first - 32 * ((wide - 1) // 32)).max() < 0.01
    detector = Detector("scrfd", file, threshold=0.01, overlap=1.0, scale=3.0)
    assert len(detector(image).scores) == (-(-3 * 300 // 32)) * (-(-3 * 201 // 32))  # a scale is the user's
    published_graph(file, "retinaface", None, (4, 2))
    refuses("net.onnx is not retinaface", Detector, "retinaface", file)
    refuses("net.onnx is not faceboxes-v1", Detector("faceboxes-v1", file, scale=1.0), noise(64, 64))
