"""The task `detect`: boxes in the WIDER layout, crops with pasted faces, the metric, and whole runs with their export."""
from pathlib import Path

import cv2
import hypothesis
import numpy as np
import onnxruntime
import pytest
import torch
from conftest import DEFAULTS, LAYOUTS, draw_face, driver, fails, rows, run, settings, split_of, write_faces
from hypothesis import strategies as st

import main
from nets.detectors.faceboxes import FaceBoxesV2, anchors, decode
from pipnet.errors import UserError
from pipnet.geometry import iou, transform, turn_about, turned_boxes
from utils.config import parse
from utils.data.prepare import DataGenerator
from utils.data.scene_sources import Cutouts, backgrounds, decoded, face_boxes, portraits
from utils.data.scenes import Material, Scene, Scenes, targets
from utils.data.wider import Picture, divide, read_wider
from utils.tasks.detect import Detect
from utils.test import detection_metric as metric
from utils.test.detectors import weights_of
from utils.test.find_faces import completed, exported_detector, torch_detector
from utils.train import checkpoint
from utils.train.ranks import Ranks

ONE = Ranks(0, 1, torch.device("cpu"))
LAYOUT = LAYOUTS.load("68")
SMALL = ["--input-size", "64", "--crops", "16", "--batch-size", "8", "--epochs", "2", "--workers", "1", "--threads", "1",
         "--face-sides", "12", "40", "--warmup", "0.5", "--val", "0.1"]


def write_wider(folder: Path, split: str, pictures: dict[str, list[list[int]]], shape=(96, 96)) -> None:
    """Write a split of black photographs, {EVENT/NAME.jpg: rows of ten numbers}, in the official form."""
    lines = []
    for name, faces in pictures.items():
        file = folder / f"WIDER_{split}" / "images" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(cv2.imencode(".jpg", np.zeros((*shape, 3), np.uint8))[1].tobytes())
        lines += [name, str(len(faces)), *(" ".join(map(str, face)) + " " for face in faces or [[0] * 10])]
    (folder / "wider_face_split").mkdir(exist_ok=True)
    (folder / "wider_face_split" / f"wider_face_{split}_bbx_gt.txt").write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="session")
def wider(tmp_path_factory) -> Path:
    """20 + 6 photographs of one drawn face each, of two events; one without a face."""
    folder = tmp_path_factory.mktemp("wider") / "faces"
    for split, count, seed in (("train", 20, 0), ("val", 6, 1)):
        made = {}
        for index in range(count):
            image, landmarks = draw_face(np.random.default_rng([seed, index]), 96)
            x1, y1, x2, y2 = np.round(np.concatenate([landmarks.min(0), landmarks.max(0)])).astype(int).tolist()
            name = f"{index % 2}--event/{index}.jpg"
            made[name] = image, [[x1, y1, x2 - x1, y2 - y1, 0, 0, 0, 0, index % 3 % 2, 0]] * (index != 3)
        write_wider(folder, split, {name: faces for name, (_, faces) in made.items()})
        for name, (image, _) in made.items():
            (folder / f"WIDER_{split}" / "images" / name).write_bytes(cv2.imencode(".jpg", image)[1].tobytes())
    return folder


# ------------------------------------------------------------------------------------------------------- the WIDER layout
FACE = st.tuples(*[st.integers(-5, 500)] * 2, *[st.integers(0, 300)] * 2, *[st.integers(0, 1)] * 6).map(list)


@hypothesis.settings(max_examples=25, deadline=None)
@hypothesis.given(st.lists(st.lists(FACE, max_size=4), min_size=1, max_size=5))
def test_boxes_are_read_as_written(tmp_path_factory, pictures):
    folder = tmp_path_factory.mktemp("boxes")
    write_wider(folder, "train", {f"{index % 2}--e/{index}.jpg": faces for index, faces in enumerate(pictures)}, (4, 4))
    found = read_wider(folder, "train", ("1--e",))
    assert [picture.event for picture in found] == [f"{index % 2}--e" for index in range(len(pictures))]
    for picture, faces in zip(found, pictures, strict=True):
        values = np.array(faces).reshape(-1, 10)
        assert np.array_equal(picture.boxes, np.column_stack([values[:, :2], values[:, :2] + values[:, 2:4]]))
        assert np.array_equal(picture.ignored, (values[:, 7] == 1) | (values[:, 2:4] == 0).any(1))
        assert np.array_equal(picture.covered, values[:, 8] == 1) and picture.whole == (picture.event != "1--e")


def test_a_photograph_without_faces_may_have_a_line_of_zeros(tmp_path):
    write_wider(tmp_path, "val", {"a/1.jpg": [], "a/2.jpg": [[1, 2, 30, 40] + [0] * 6]})
    file = tmp_path / "wider_face_split" / "wider_face_val_bbx_gt.txt"
    for text in (file.read_text(), file.read_text().replace("0 0 0 0 0 0 0 0 0 0 \n", "")):
        file.write_text(text)
        assert [len(picture.boxes) for picture in read_wider(tmp_path, "val")] == [0, 1]


@pytest.mark.parametrize(("text", "message"), [
    ("a/1.jpg\n2\n1 2 3 4 0 0 0 0 0 0\n", "line 1: 2 faces are announced, but the list ends after 1"),
    ("a/1.jpg\n1\n1 2 x 4 0 0 0 0 0 0\n", "line 3: not a coordinate"),
    ("a/1.jpg\n1\n1 2 3\n", "line 3: a face is x y w h"), ("a/1.jpg\n1\n1 2 -3 4\n", "line 3: a face is x y w h"),
    ("a/gone.jpg\n0\n", "line 1: no image .*a/gone.jpg; complete the download"), ("../a.jpg\n0\n", "line 1: .*leads out of"),
    ("1 2 3 4\n1\n", "line 1: EVENT/NAME.jpg belongs here"), ("a/1.jpg\n", "line 1: EVENT/NAME.jpg belongs here"),
    ("", "lists no photograph"),
])
def test_a_wrong_list_is_one_line(tmp_path, text, message):
    write_wider(tmp_path, "train", {"a/1.jpg": []})
    (tmp_path / "wider_face_split" / "wider_face_train_bbx_gt.txt").write_text(text)
    with pytest.raises(UserError, match=message) as raised:
        read_wider(tmp_path, "train")
    assert "\n" not in str(raised.value)


def test_validation_is_a_share_of_each_event(wider):
    pictures = read_wider(wider, "train")
    train, val = divide(pictures, 0.2, 0)
    assert len(val) == 4 and {picture.event for picture in val} == {"0--event", "1--event"}
    assert {picture.file for picture in train} | {picture.file for picture in val} == {picture.file for picture in pictures}
    assert not divide(pictures, 0.0, 0)[1] and divide(pictures, 0.2, 1)[1] != val


# ------------------------------------------------------------------------------------------------------------- metric
def picture(boxes, whole: bool = True, covered=None, ignored=None) -> Picture:
    boxes = np.array(boxes, float).reshape(-1, 4)
    none = np.zeros(len(boxes), bool)
    return Picture(Path("x.jpg"), "e", boxes, none if ignored is None else np.array(ignored),
                   none if covered is None else np.array(covered), whole)


def found(*boxes) -> tuple[np.ndarray, np.ndarray]:
    """Return (boxes, scores) of rows x1 y1 x2 y2 score."""
    values = np.array(boxes, float).reshape(-1, 5)
    return values[:, :4], values[:, 4]


def test_average_precision_by_hand():
    one, two = picture([[0, 0, 20, 20], [50, 50, 80, 80]], covered=[True, False]), picture([[10, 10, 40, 40]])
    scores = metric.score([found([0, 0, 20, 20, 0.9], [0, 0, 20, 19, 0.8]), found([10, 10, 40, 38, 0.7])], [one, two])
    # hit, a second box for the same face, hit; of three faces
    assert scores.ap == pytest.approx(1 / 3 + 1 / 3 * 2 / 3) and scores.recall == pytest.approx(2 / 3) and scores.faces == 3
    assert scores.covered == 1 and scores.plain == 0.5


def test_small_and_ignored_faces_are_neither_hits_nor_misses():
    one = picture([[0, 0, 15, 40], [50, 50, 80, 80], [100, 0, 130, 30]], ignored=[False, False, True])
    perfect = found([0, 0, 15, 40, 0.9], [100, 0, 130, 30, 0.8], [50, 50, 80, 80, 0.7])
    assert metric.score([perfect], [one])[:2] == (1, 1) and metric.score([perfect], [one]).faces == 1


def test_detections_are_no_mistakes_where_not_every_face_has_a_box():
    one = picture([[0, 0, 20, 20]], whole=False)
    scores = metric.score([found([50, 50, 80, 80, 0.9], [0, 0, 20, 20, 0.5])], [one])
    assert np.isnan(scores.ap) and scores.recall == 1
    assert np.isnan(metric.score([found()], [picture([])]).recall)


# -------------------------------------------------------------------------------------------------------------- crops
def make_scenes(pictures: list[Picture], count: int, cutouts: Cutouts | None = None, alone: tuple = (), **given) -> Scenes:
    """Crops of 128 px with the colours of their pictures, but for the given settings. alone: portraits."""
    plain = dict.fromkeys(("brightness", "contrast", "saturation", "hue", "colour_prob", "grayscale", "blur", "noise"), 0.0)
    found = settings("detect", **{"input_size": 128, "face_sides": [14.0, 60.0], **plain, **given})
    material = Material(pictures, cutouts or Cutouts([]), list(alone))
    return Scenes(material, found.detect, found.augment, found.net.input_size, found.train.seed, count)


def white_faces(count: int) -> list[Picture]:
    """Black photographs with white faces."""
    made = []
    for index in range(count):
        rng = np.random.default_rng(index)
        image, corner = np.zeros((120, 160, 3), np.uint8), rng.integers(0, 60, 2)
        end = corner + rng.integers(20, 60, 2)
        image[corner[1]:end[1], corner[0]:end[0]] = 255
        made.append(picture([[*corner, *end]])._replace(image=image))
    return made


@pytest.mark.parametrize(("size", "mosaic"), [(128, 0.5), (512, 1.0)])
def test_boxes_go_with_the_pixels(size, mosaic):
    """In crops of one photograph, of four, and of four times four."""
    scenes = make_scenes(white_faces(8), 40, input_size=size, mosaic=mosaic)
    counted, wrong = 0, []
    for index in range(40 * 128 // size):
        image, boxes, unknown = scenes.scene(0, index)
        expected = np.zeros((size, size), bool)
        x, y = np.meshgrid(np.arange(size) + 0.5, np.arange(size) + 0.5)
        for x1, y1, x2, y2 in [*boxes, *unknown]:
            expected |= (x > x1) & (x < x2) & (y > y1) & (y < y2)
        wrong.append((expected != (image[..., 0] > 127)).mean())
        counted += len(boxes)
        assert (boxes >= 0).all() and (boxes <= size).all()
    # edges of a px differ, and in a few crops up to a tenth of a face at the border of a part
    assert counted > 30 and np.median(wrong) < 0.01 and np.mean(wrong) < 0.02


def test_turned_photographs_and_their_boxes():
    """Boxes hold the white ellipses of turned photographs tightly; the rest of the crop is drawn as without turns."""
    pictures = white_faces(8)
    for one in pictures:
        x1, y1, x2, y2 = one.boxes[0]
        one.image[:] = 0
        cv2.ellipse(one.image, (((x1 + x2 - 1) / 2, (y1 + y2 - 1) / 2), (x2 - x1, y2 - y1), 0), (255,) * 3, -1, cv2.LINE_AA)
    upright, turned = (make_scenes(pictures, 40, mosaic=0.0, flip=0.0, roll_prob=share) for share in (0.0, 1.0))
    tried, missed = 0, []
    for index in range(40):
        image, boxes, unknown = turned.scene(0, index)
        for box in boxes:
            if (box > 0).all() and (box < 128).all():
                y, x = np.nonzero(image[..., 0] > 127)
                missed.append(np.abs(np.array([x.min(), y.min(), x.max() + 1, y.max() + 1]) - box).max())
        tried += not np.array_equal(image, upright.scene(0, index).image)
    assert tried > 30 and len(missed) > 12 and max(missed) < 3 and np.median(missed) < 1.2


def test_the_forehead_is_in_the_box_of_a_turned_face():
    landmarks = np.array([[x, y] for x in (40, 60, 100) for y in (40.0, 120)])
    boxes = []
    for angle in (0, 90, 180, 270):
        matrix = turn_about(np.full(2, 70.0), np.radians(angle))
        box = face_boxes(transform(np.tile(landmarks, (12, 1))[:68], matrix)[None], LAYOUT, angle)
        boxes.append(turned_boxes(box, turn_about(np.full(2, 70.0), -np.radians(angle)))[0])
    assert np.allclose(boxes, [[40, 20, 100, 120]] * 4)


def test_a_crop_is_a_function_of_its_key(faces):
    scenes = make_scenes(backgrounds(128, 0, 4), 8, Cutouts([split_of(faces)]), pasted=3, blur=0.5, noise=0.5)
    one, again, other = scenes.scene(1, 2), scenes.scene(1, 2), scenes.scene(2, 2)
    assert all(np.array_equal(a, b) for a, b in zip(one, again, strict=True)) and not np.array_equal(one.image, other.image)


@pytest.mark.parametrize("roll_prob", [0.0, 1.0])
def test_pasted_faces_do_not_overlap_and_lie_in_their_boxes(faces, roll_prob):
    """On black, the middle of a box is lit and everything outside the pasted patch is not."""
    black = [picture([])._replace(image=np.zeros((200, 200, 3), np.uint8))]
    scenes, several = make_scenes(black, 30, Cutouts([split_of(faces)]), pasted=4, mosaic=0.0, roll_prob=roll_prob), 0
    for index in range(30):
        image, boxes, unknown = scenes.scene(0, index)
        assert not len(unknown) and (boxes >= -1e-6).all() and (boxes <= 128 + 1e-6).all()
        lit = image.max(-1) > 30
        for x1, y1, x2, y2 in boxes:
            middle = lit[int(0.6 * y1 + 0.4 * y2):int(0.3 * y1 + 0.7 * y2), int(0.7 * x1 + 0.3 * x2):int(0.3 * x1 + 0.7 * x2)]
            assert middle.mean() > 0.8
        for x1, y1, x2, y2 in boxes:
            w, h = x2 - x1, y2 - y1
            lit[max(int(y1 - h), 0):int(y2 + h) + 1, max(int(x1 - w), 0):int(x2 + w) + 1] = False
        assert not lit.any() and (len(boxes) < 2 or np.triu(iou(boxes, boxes), 1).max() == 0)
        several += len(boxes) > 1
    assert several > 3


def test_pictures_of_landmark_sets_serve_as_photographs(faces, raw, tmp_path):
    """They show the margin that was prepared; faces to paste have the same margin whatever was prepared."""
    wide = DataGenerator(raw, 64, "points", "wide", tmp_path, margin=2.0).run()
    pictures = portraits([split_of(faces), split_of(wide)])
    near, far = pictures[:36], pictures[36:]
    assert len(far) == 36 and not any(picture.whole or picture.ignored.any() for picture in pictures)
    for one, other in zip(near, far, strict=True):
        assert one.read().shape == (80, 80, 3) and other.read().shape == (128, 128, 3)
        middle = one.boxes + 24  # 64 px of face in the middle of both
        inside = ((one.boxes > 0) & (one.boxes < 80)).all()
        assert not inside or np.allclose(middle, other.boxes, atol=0.5)
        x1, y1, x2, y2 = other.boxes[0].astype(int)
        assert 20 < x2 - x1 < 100 and 20 < y2 - y1 < 100
    one, other = (Cutouts([split_of(folder)]) for folder in (faces, wide))
    assert np.allclose(one.landmarks, other.landmarks, atol=1e-3)
    assert np.mean([np.abs(a.astype(int) - b).mean() for a, b in zip(one.images, other.images, strict=True)]) < 6
    scenes = make_scenes(white_faces(2), 40, alone=near, mosaic=0.0)
    colourful = [np.ptp(scenes.scene(0, index).image.astype(int), 2).max() > 20 for index in range(40)]
    assert 4 < sum(colourful) < 30  # about a third are portraits


def test_portraits_take_part_in_the_validation(wider, raw, data_root):
    """A detector that finds the faces of photographs but none in portraits misses more than one that finds both."""
    task = Detect(settings("detect", train_data=[str(wider), str(raw)], data_root=str(data_root), target_size=64, scales=[1.0]),
                  DEFAULTS, ONE)
    task.prepare()
    task.load()
    alone = [picture for picture in task.held if picture.event not in ("0--event", "1--event")]
    assert 0 < len(alone) < len(task.held) and all(picture.whole and len(picture.boxes) == 1 for picture in alone)
    known = {picture.read().tobytes(): picture.boxes for picture in task.held}
    missed = []
    for blind in (False, True):
        def find(image, *_, blind=blind):
            boxes = known[image.tobytes()][:0 if blind and len(image) != 96 else None]
            return boxes, np.ones(len(boxes))
        missed.append(task.miss(find))
    assert missed[0] == 0 and missed[1] == pytest.approx(50)


def test_some_crops_of_a_photograph_with_a_face_show_none():
    one = white_faces(1)[0]._replace(image=np.zeros((400, 400, 3), np.uint8))
    scenes = make_scenes([one], 60, mosaic=0.0)
    assert 3 < sum(not len(scenes.scene(0, index).boxes) for index in range(60)) < 20


def test_the_box_of_landmarks_reaches_above_the_brows():
    landmarks = np.zeros((1, 68, 2))
    landmarks[0, :, 0], landmarks[0, :, 1] = np.linspace(10, 50, 68), np.linspace(40, 80, 68)
    landmarks[0, 5] = np.nan
    assert np.allclose(face_boxes(landmarks, LAYOUT), [[10, 30, 50, 80]])
    eyes = LAYOUTS.load("12")
    with pytest.raises(UserError, match="layout 12 has no jaw and brows"):
        face_boxes(landmarks[:, :12], eyes)


def test_small_faces_train_several_anchors_and_unknown_regions_none():
    anchor = anchors(128, 128)
    boxes = np.array([[40.0, 40, 54, 56], [70, 70, 110, 118]])
    offsets, label = targets(Scene(np.zeros(0), boxes, np.zeros((0, 4))), anchor)
    decoded_boxes = decode(offsets, anchor)[label == 1].numpy().astype(float)
    overlap = iou(decoded_boxes, boxes)
    assert overlap.max(1).min() > 0.999 and (overlap.argmax(1) == 0).sum() >= 3
    hidden = targets(Scene(np.zeros(0), boxes, np.array([[0.0, 0, 128, 128]])), anchor)[1]
    assert torch.equal(hidden == 1, label == 1) and (hidden == -1).sum() > (hidden == 0).sum() > 0
    tiny = targets(Scene(np.zeros(0), boxes[:0], np.array([[90.0, 20, 94, 25]])), anchor)[1]
    assert set(anchor[tiny == -1][:, 2].tolist()) >= {32.0} and 0 < (tiny == -1).sum() < 30


def test_images_beyond_the_cache_are_read_from_disk(wider):
    pictures = read_wider(wider, "train")
    some = decoded(pictures, 5 * 96 * 96 * 3 / 2**30)
    assert sum(one.image is not None for one in some) == 5
    one, other = (make_scenes(several, 20) for several in (some, decoded(pictures, 1.0)))
    assert all(np.array_equal(one.scene(0, i).image, other.scene(0, i).image) for i in range(20))


def test_a_teacher_adds_boxes_to_incomplete_photographs_only():
    def teacher(image):
        return np.array([[0, 0, 20, 20], [41, 40, 60, 60], [80, 80, 99, 99]], np.float32) * len(image) / 100, \
            np.array([0.9, 0.8, 0.3], np.float32)

    image = np.zeros((100, 100, 3), np.uint8)
    known, alone = (picture([[40, 40, 60, 60]], whole)._replace(image=image) for whole in (True, False))
    one, two = completed(teacher, [known, alone], ONE)
    assert one is known and two.whole and len(two.boxes) == len(two.covered) == 3
    assert two.ignored.tolist() == [False, False, True] and np.allclose(two.boxes[1], [0, 0, 20, 20])


# --------------------------------------------------------------------------------------------------------- whole runs
@pytest.fixture(scope="session")
def detector(wider, raw, data_root, tmp_path_factory) -> Path:
    """A run of two epochs on photographs and pasted faces, tested and exported."""
    root = tmp_path_factory.mktemp("detector")
    done = run("python", "main.py", "--task", "detect", "--train", "--test", "--test-onnx", *flags(wider, raw, data_root, root),
               OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr
    (root / "said").write_text(done.stdout)
    return root / "000"


def flags(wider: Path, raw: Path, data_root: Path, root: Path) -> list[str]:
    places = ("--train-data", wider, raw, "--test-data", wider, "--data-root", data_root, "--run-root", root, "--target-size", 64)
    return [*map(str, places), "--partial-events", "1--event", *SMALL]


def test_the_files_and_tables_of_a_run(detector):
    assert {"args.yaml", "best.pt", "best.onnx", "last.pt", "log.txt", "report", "step.csv", "time.csv"} <= \
        {file.name for file in detector.iterdir()}
    steps, scores = rows(detector / "step.csv"), rows(detector / "report" / "scores.csv")
    assert len(steps) == 2 and {"conf", "loc", "loss", "val_miss"} <= steps[0].keys()
    assert 0 <= float(steps[-1]["best"]) <= 100
    assert [(row["test set"].strip(), row["model"], row["scale"]) for row in scores] == [
        (name, model, scale) for scale in "12" for model in ("torch", "onnx") for name in ("faces", "0--event", "1--event")]
    assert scores[0]["faces"] == "5" and scores[2]["AP"] == "" and scores[1]["AP"]
    assert (detector / "report" / "pictures_faces.jpg").is_file()
    said = (detector.parent / "said").read_text()
    assert "| faces" in said and "AP where every face has a box" in said


def test_the_export_takes_pictures_of_any_size(detector):
    stored = checkpoint.load(detector / "best.pt")
    assert stored["net"] == {"net": "faceboxes"} and stored["args"]["task"] == "detect"
    net = weights_of(detector / "best.pt").eval()
    one, two = torch_detector(net, ONE.device, 0.3), exported_detector(detector / "best.onnx", 1, 0.3)
    several = 0
    for index, (height, width) in enumerate([(1, 1), (33, 20), (64, 128), (150, 257), (300, 90)]):
        image = np.random.default_rng(index).integers(0, 256, (height, width, 3), dtype=np.uint8)
        (boxes, scores), (same, equal) = one(image), two(image)
        assert same.shape == boxes.shape and same.dtype == equal.dtype == np.float32 and (np.diff(equal) <= 0).all()
        assert np.allclose(scores, equal, atol=1e-4) and np.allclose(boxes, same, atol=1e-2)
        several += len(boxes)
    assert several > 5
    session = onnxruntime.InferenceSession(str(detector / "best.onnx"))
    assert [port.name for port in session.get_inputs()] == ["image", "threshold", "overlap"]
    assert [port.name for port in session.get_outputs()] == ["boxes", "scores"]
    about = session.get_modelmeta().custom_metadata_map
    assert about["task"] == "detect" and "--task detect" in about["command"] and "validation" in about["figures"]
    none = session.run(None, {"image": np.zeros((64, 64, 3), np.uint8), "threshold": np.array(1, np.float32),
                              "overlap": np.array(0.3, np.float32)})
    assert [part.shape for part in none] == [(0, 4), (0,)]


def test_training_starts_from_an_export(cli, detector, wider, raw, data_root, tmp_path):
    file = detector / "best.onnx"
    images = torch.randint(0, 256, (2, 64, 96, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        trained, net = (weights_of(path).eval()(images) for path in (detector / "best.pt", file))
    assert all(torch.allclose(one, two, atol=1e-2) for one, two in zip(trained, net, strict=True))  # the file holds float16
    done = cli("--task", "detect", "--train", *flags(wider, raw, data_root, tmp_path), "--exp", "on", "--weights", file,
               "--learning-rate", "1e-9", "--epochs", "1")
    assert done.returncode == 0, done.stderr
    on, before = rows(tmp_path / "on" / "step.csv")[0], rows(detector / "step.csv")
    assert float(on["loss"]) < float(before[0]["loss"])  # with batch norms in training mode too, the net is the trained one
    assert float(on["val_miss"]) == pytest.approx(min(float(row["val_miss"]) for row in before), abs=1)


def test_measured_batch_norms_do_not_change_the_output():
    torch.manual_seed(0)
    net, images = FaceBoxesV2().eval(), torch.randint(0, 256, (4, 128, 128, 3), dtype=torch.uint8)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(), module.running_var.uniform_(0.5, 2), module.bias.data.normal_()
    before = net(images)
    net.measure_norms(images)
    after, training = net(images), net.train()(images)
    for one, two, three in zip(before, after, training, strict=True):
        assert torch.allclose(one, two, atol=1e-4) and torch.allclose(one, three, atol=1e-3)


def test_a_run_is_tested_without_naming_its_task(cli, detector, wider):
    done = cli("--test", "--exp", detector, "--test-data", wider, "--scales", "1.5")
    assert done.returncode == 0 and "| 1.5" in done.stdout.replace("   1.5", " 1.5"), done.stderr


def test_resume_is_exact(cli, detector, wider, raw, data_root, tmp_path):
    stopped = driver(tmp_path, "stopped", """
step = solver.Solver.train_step
def short(self, batches):
    if self.step == 3:
        os._exit(9)
    return step(self, batches)
solver.Solver.train_step = short""")
    again = flags(wider, raw, data_root, tmp_path)
    assert cli("--task", "detect", "--train", *again, "--exp", "run", script=stopped).returncode == 9
    assert len(rows(tmp_path / "run" / "step.csv")) == 1
    resume = ("--train", "--resume", "--run-root", tmp_path, "--exp", "run")
    fails(cli(*resume, "--pasted", "0"), "--pasted belongs to a new training")
    done = cli(*resume)
    assert done.returncode == 0, done.stderr
    whole, parts = (checkpoint.load(folder / "last.pt")["solver"] for folder in (detector, tmp_path / "run"))
    assert all(torch.equal(whole["net"][name], parts["net"][name]) for name in whole["net"])
    columns = ("epoch", "loss", "val_miss")
    assert [[row[key] for key in columns] for row in rows(detector / "step.csv")] == \
        [[row[key] for key in columns] for row in rows(tmp_path / "run" / "step.csv")]


def test_two_processes_train_like_one(cli, wider, raw, data_root, tmp_path):
    teacher = tmp_path / "teacher.pt"
    torch.manual_seed(0)
    torch.save(FaceBoxesV2().state_dict(), teacher)
    common = [*flags(wider, raw, data_root, tmp_path), "--teacher", str(teacher), "--amp", "off"]
    assert cli("--task", "detect", "--train", *common, "--exp", "one").returncode == 0
    two = ("--task", "detect", "--train", *common, "--exp", "two", "--batch-size", "4")
    done = run("bash", "main.sh", "2", *two, OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr
    for one, two in zip(*(rows(tmp_path / name / "step.csv") for name in ("one", "two")), strict=True):
        for column in ("conf", "loc", "loss"):
            assert float(two[column]) == pytest.approx(float(one[column]), rel=1e-3), column


def test_without_photographs_faces_are_pasted_on_drawn_backgrounds(cli, raw, data_root, tmp_path):
    places = ("--train-data", raw, "--data-root", data_root, "--target-size", 64, "--run-root", tmp_path)
    done = cli("--task", "detect", "--train", "--test", "--show-data", "6", *places, *SMALL, "--epochs", "1")
    assert done.returncode == 0, done.stderr
    assert "drawn-64, composites" in done.stdout and (data_root / "detect" / "show" / "samples.jpg").is_file()


def test_prepare_makes_the_test_sets_too(cli, raw, data_root, tmp_path):
    other = write_faces(tmp_path / "other" / "test", 2).parent
    flags = ("--task", "detect", "--prepare", "--train-data", raw, "--data-root", tmp_path / "data", "--target-size", 64)
    done = cli(*flags, "--test-data", other)
    assert done.returncode == 0, done.stderr
    assert all((tmp_path / "data" / name / "meta.yaml").is_file() for name in ("drawn-64", "other-64"))
    fails(cli(*flags, "--test-data", tmp_path / "nothing"), "'.*nothing' is neither a dataset")


@pytest.mark.parametrize(("more", "message"), [
    (["--partial-events", "9--none"], "partial_events names 9--none; the events of the photographs are 0--event, 1--event"),
    (["--teacher", "gone.pth"], "no checkpoint at gone.pth"), (["--weights", "imagenet"], "no ImageNet weights of a detector"),
    (["--val", "none", "--early-stop", "2"], "early_stop needs pictures"),
])
def test_wrong_data_is_one_line(wider, more, message):
    typed = ["--task", "detect", "--train-data", str(wider), "--partial-events", "1--event", "--crops", "16", *more]
    task = Detect(settings("detect", **parse(typed, main.add_modes, DEFAULTS)[1]), DEFAULTS, ONE)
    with pytest.raises(UserError, match=message):
        task.prepare()
        task.training_data()
        task.make_net(resume=False)


@pytest.mark.parametrize(("more", "message"), [
    (["--face-sides", "40", "12"], "face_sides must be the least and the largest"), (["--scales", "0"], "scales must be factors"),
    (["--sweep", "reg=1,2"], "--sweep compares landmark nets"), (["--sweep", "preset=quick,detect"], "--sweep compares"),
])
def test_wrong_flags_are_one_line(more, message):
    with pytest.raises(UserError, match=message):
        main.main(["--task", "detect", "--train", *more])


def test_nets_of_another_task_are_refused(cli, detector, trained, tmp_path):
    fails(cli("--test", "--exp", detector, "--task", "landmarks"), "--task belongs to a new training, this run has detect")
    fails(cli("--audit", "--task", "detect", "--exp", tmp_path / "audit"), "--audit judges landmarks")
    fails(cli("--predict", tmp_path, "--exp", detector), "--predict is for landmark nets")
    fails(cli("--test", "--exp", detector, "--compare", detector), "--compare is for landmark nets")
    with pytest.raises(UserError, match="does not fit FaceBoxesV2"):
        weights_of(trained.folder / "best.pt")
