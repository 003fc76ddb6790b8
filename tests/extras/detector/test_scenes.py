"""Training crops of a detector: photographs, turned ones, mosaics, pasted faces, and the targets of the anchors."""

import cv2
import numpy as np
import pytest
import torch
from conftest import LAYOUTS, boxed_picture, refuses, sets_of, settings, split_of

from extras.detector.experiment import GOLDEN, miss, prepare
from extras.detector.faceboxes import anchors, decode
from extras.detector.find_faces import completed, turned
from extras.detector.scene_sources import Cutouts, backgrounds, decoded, face_boxes, portraits
from extras.detector.scenes import Material, Scene, Scenes, targets
from extras.detector.settings import DetectSettings
from extras.detector.wider import Picture, read_wider
from pipnet.geometry import iou, transform, turn_about, turned_boxes
from utils.data.prepare import DataGenerator
from utils.train.ranks import Ranks

ONE = Ranks(0, 1, torch.device("cpu"))
LAYOUT = LAYOUTS.load("68")


def make_scenes(
    pictures: list[Picture], count: int, cutouts: Cutouts | None = None, alone: tuple = (), **given
) -> Scenes:
    """Crops of 128 px with the colours of their pictures, but for the given settings. alone: portraits."""
    plain = dict.fromkeys(
        ("brightness", "contrast", "saturation", "hue", "colour_prob", "grayscale", "blur", "noise"), 0.0
    )
    found = settings("detect", **{"input_size": 128, "face_sides": [14.0, 60.0], **plain, **given})
    material = Material(pictures, cutouts or Cutouts([]), list(alone))
    return Scenes(material, found.room(DetectSettings), found.augment, found.net.input_size, found.train.seed, count)


def white_faces(count: int) -> list[Picture]:
    """Black photographs with white faces."""
    made = []
    for index in range(count):
        rng = np.random.default_rng(index)
        image, corner = np.zeros((120, 160, 3), np.uint8), rng.integers(0, 60, 2)
        end = corner + rng.integers(20, 60, 2)
        image[corner[1] : end[1], corner[0] : end[0]] = 255
        made.append(boxed_picture([[*corner, *end]])._replace(image=image))
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


def test_parts_of_faces_are_background():
    """Crops from inside of a face are white, and have neither a box nor an unknown region."""
    scenes = make_scenes(white_faces(8), 60, mosaic=0.0, parts=1.0)
    made = [scenes.scene(0, index) for index in range(60)]
    assert not any(len(scene.boxes) + len(scene.unknown) for scene in made)
    assert all((scene.image > 127).mean() > 0.9 for scene in made)


def test_a_shadow_falls_on_a_part_of_a_face():
    """The edge of a shadow goes through a box of a white photograph; boxes and other crops stay as they are."""
    pictures = [boxed_picture([[50, 40, 90, 90]])._replace(image=np.full((120, 160, 3), 255, np.uint8))]
    lit, dark = (make_scenes(pictures, 40, mosaic=0.0, flip=0.0, shadow=share) for share in (0.0, 1.0))
    shares = []
    for index in range(40):
        before, after = lit.scene(0, index), dark.scene(0, index)
        assert np.array_equal(before.boxes, after.boxes) and np.array_equal(before.unknown, after.unknown)
        for x1, y1, x2, y2 in after.boxes.round().astype(int):
            shares.append((after.image < before.image)[y1:y2, x1:x2].any(-1).mean())
    assert len(shares) > 20 and 0.3 < np.mean(shares) < 0.9 and min(shares) > 0


def test_turned_photographs_and_their_boxes():
    """Boxes hold the white ellipses of turned photographs tightly; the rest of the crop is drawn as without turns."""
    pictures = white_faces(8)
    for one in pictures:
        x1, y1, x2, y2 = one.boxes[0]
        one.image[:] = 0
        cv2.ellipse(
            one.image, (((x1 + x2 - 1) / 2, (y1 + y2 - 1) / 2), (x2 - x1, y2 - y1), 0), (255,) * 3, -1, cv2.LINE_AA
        )
    upright, turned = (make_scenes(pictures, 40, mosaic=0.0, flip=0.0, roll_prob=share) for share in (0.0, 1.0))
    tried, missed = 0, []
    for index in range(40):
        image, boxes, _ = turned.scene(0, index)
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
    assert all(np.array_equal(a, b) for a, b in zip(one, again, strict=True)) and not np.array_equal(
        one.image, other.image
    )


@pytest.mark.parametrize("roll_prob", [0.0, 1.0])
def test_pasted_faces_do_not_overlap_and_lie_in_their_boxes(faces, roll_prob):
    """On black, the middle of a box is lit and everything outside the pasted patch is not."""
    black = [boxed_picture([])._replace(image=np.zeros((200, 200, 3), np.uint8))]
    scenes, several = make_scenes(black, 30, Cutouts([split_of(faces)]), pasted=4, mosaic=0.0, roll_prob=roll_prob), 0
    for index in range(30):
        image, boxes, unknown = scenes.scene(0, index)
        assert not len(unknown) and (boxes >= -1e-6).all() and (boxes <= 128 + 1e-6).all()
        lit = image.max(-1) > 30
        for x1, y1, x2, y2 in boxes:
            middle = lit[
                int(0.6 * y1 + 0.4 * y2) : int(0.3 * y1 + 0.7 * y2), int(0.7 * x1 + 0.3 * x2) : int(0.3 * x1 + 0.7 * x2)
            ]
            assert middle.mean() > 0.8
        for x1, y1, x2, y2 in boxes:
            w, h = x2 - x1, y2 - y1
            lit[max(int(y1 - h), 0) : int(y2 + h) + 1, max(int(x1 - w), 0) : int(x2 + w) + 1] = False
        assert not lit.any() and (len(boxes) < 2 or np.triu(iou(boxes, boxes), 1).max() == 0)
        several += len(boxes) > 1
    assert several > 3


def test_touching_faces_are_drawn_beside_a_face_and_cover_little_of_it(faces):
    """On a white face, whose box stays."""
    picture = boxed_picture([[80, 80, 120, 120]])._replace(image=np.full((200, 200, 3), 255, np.uint8))
    scenes, pairs = (
        make_scenes([picture], 40, Cutouts([split_of(faces)]), pasted=1, mosaic=0.0, touching=1.0, flip=0.0),
        0,
    )
    for index in range(40):
        image, boxes, _ = scenes.scene(0, index)
        if len(boxes) < 2:
            continue
        (x1, y1, x2, y2), pasted = boxes[0].round().astype(int), boxes[1]
        gap = max(pasted[0] - boxes[0, 2], boxes[0, 0] - pasted[2]) / min(x2 - x1, pasted[2] - pasted[0])
        assert -0.21 < gap < 0.11 and pasted[1] < boxes[0, 3] and boxes[0, 1] < pasted[3]
        covered = (image < 255).any(-1)
        assert covered.any() and covered[y1:y2, x1:x2].mean() < 0.25
        pairs += 1
    assert pairs > 10


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
    # without a cache there are faces to paste too
    one, other = Cutouts([split_of(faces)], cache=0), Cutouts([split_of(wide)])
    assert np.allclose(one.landmarks, other.landmarks, atol=1e-3)
    assert np.mean([np.abs(a.astype(int) - b).mean() for a, b in zip(one.images, other.images, strict=True)]) < 6
    scenes = make_scenes(white_faces(2), 40, alone=near, mosaic=0.0)
    colourful = [np.ptp(scenes.scene(0, index).image.astype(int), 2).max() > 20 for index in range(40)]
    assert 4 < sum(colourful) < 30  # about a third are portraits


def test_portraits_take_part_in_the_validation(wider, raw, data_root):
    """A detector that finds the faces of photographs but none in portraits misses more than one that finds both."""
    chosen = settings(
        "detect", train_data=[str(wider), str(raw)], data_root=str(data_root), target_size=64, scales=[1.0]
    )
    task_data = prepare(sets_of(chosen), ONE, True, False)
    _, held = task_data.loaded
    assert task_data.loaded is task_data.loaded  # --show-data and --train read the pictures once
    alone = [picture for picture in held if picture.event not in ("0--event", "1--event")]
    assert 0 < len(alone) < len(held) and all(picture.whole and len(picture.boxes) == 1 for picture in alone)
    turns = [turned(picture, GOLDEN * index) for index, picture in enumerate(held)]
    assert not any(picture.image is not None for picture in turns)  # they are made when they are read
    every = held + turns
    known = {picture.read().tobytes(): picture.boxes for picture in every}
    photographs = {picture.read().shape[:2] for picture in every if picture.event in ("0--event", "1--event")}
    missed = []
    for blind in (False, True):

        def find(image, *_, blind=blind):
            boxes = known[image.tobytes()][: 0 if blind and image.shape[:2] not in photographs else None]
            return boxes, np.ones(len(boxes))

        missed.append(miss(find, task_data, held, turns, ONE))
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
    refuses("layout 12.*jaw", face_boxes, landmarks[:, :12], eyes)


def test_small_faces_train_several_anchors_and_unknown_regions_none():
    anchor = anchors(128, 128)
    boxes = np.array([[40.0, 40, 54, 56], [70, 70, 110, 118]])
    offsets, label = targets(Scene(np.zeros(0), boxes, np.zeros((0, 4))), anchor).split((4, 1), 1)
    label = label[:, 0]
    decoded_boxes = decode(offsets, anchor)[label == 1].numpy().astype(float)
    overlap = iou(decoded_boxes, boxes)
    assert overlap.max(1).min() > 0.999 and (overlap.argmax(1) == 0).sum() >= 3
    hidden = targets(Scene(np.zeros(0), boxes, np.array([[0.0, 0, 128, 128]])), anchor)[:, 4]
    assert torch.equal(hidden == 1, label == 1) and (hidden == -1).sum() > (hidden == 0).sum() > 0
    tiny = targets(Scene(np.zeros(0), boxes[:0], np.array([[90.0, 20, 94, 25]])), anchor)[:, 4]
    assert set(anchor[tiny == -1][:, 2].tolist()) >= {32.0} and 0 < (tiny == -1).sum() < 30


def test_images_beyond_the_cache_are_read_from_disk(wider):
    pictures = read_wider(wider, "train")
    some = decoded(pictures, 5 * 96 * 96 * 3 / 2**30)
    assert sum(one.image is not None for one in some) == 5
    one, other = (make_scenes(several, 20) for several in (some, decoded(pictures, 1.0)))
    assert all(np.array_equal(one.scene(0, i).image, other.scene(0, i).image) for i in range(20))


def test_a_teacher_adds_boxes_to_incomplete_photographs_only():
    def teacher(image):
        return np.array([[0, 0, 20, 20], [41, 40, 60, 60], [80, 80, 99, 99]], np.float32) * len(image) / 100, np.array(
            [0.9, 0.8, 0.3], np.float32
        )

    image = np.zeros((100, 100, 3), np.uint8)
    known, alone = (boxed_picture([[40, 40, 60, 60]], whole)._replace(image=image) for whole in (True, False))
    one, two = completed(teacher, [known, alone], ONE)
    assert one is known and two.whole and len(two.boxes) == len(two.covered) == 3
    assert two.ignored.tolist() == [False, False, True] and np.allclose(two.boxes[1], [0, 0, 20, 20])
