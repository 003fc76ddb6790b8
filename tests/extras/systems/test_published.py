"""Labels as PIPNet's authors prepare them, against their preparation in numpy; and annotations as they are released."""

import shutil

import archives
import cv2
import numpy as np
import pytest
from archives import annotated, parse, write_cofw
from conftest import DEFAULTS, LAYOUTS, REFERENCE, SMALL, fails, load_split, made_in, refuses, settings, write_faces
from scipy.io import savemat

from extras.datasets.w300 import PARTS
from extras.shared.pts import read_pts
from pipnet.geometry import to_crop
from utils.data.prepare import DataGenerator
from utils.data.prepared_set import read_meta


def as_published(points: np.ndarray, width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the crop (4,) and the landmarks (68, 2) in [0, 1] of it: the authors' preparation of 300W of a file's
    numbers.
    """
    whole = np.array([[int(x), int(y)] for x, y in points])
    (left, top), (right, bottom) = whole.min(0), whole.max(0)
    w, h = right - left, bottom - top
    left, top = max(left - int(0.05 * w), 0), max(top - int(0.05 * h), 0)
    w, h = min(int(1.1 * w), width - left - 1), min(int(1.1 * h), height - top - 1)
    return np.array([left, top, left + w, top + h]), (whole - (left, top)) / (w, h)


@pytest.mark.parametrize("name", ["300w", "points"])
def test_the_labels_of_300w_as_published(name, tmp_path):
    root = tmp_path / "raw"
    for part in PARTS:
        for number in range(2):
            annotated(root / part / f"{part.replace('/', '')}{number}_1.png", 68, 171, 133)
    how = {
        "dataset": name,
        "out": tmp_path / "data",
        "protocol": "pipnet",
        "allow_partial": True,
        "val": 0,
        "workers": 1,
    }
    folder = DataGenerator(root, 64, labels="published", **how).run()
    assert read_meta(folder)["labels"] == "published"
    table = load_split(folder, "train")
    assert len(table) == {"300w": 6, "points": 4}[name]  # as own points, afw is in no folder of a split
    for file, crop, landmarks in zip(table["file"], table["crop"], table["landmarks"], strict=True):
        wanted, inside = as_published(read_pts((root / file).with_suffix(".pts")), 171, 133)
        assert np.array_equal(crop, wanted) and np.allclose(to_crop(landmarks, crop), inside)
    exact = load_split(DataGenerator(root, 64, name="exact", **how).run(), "train")
    origin = {"300w": 0.5, "points": -0.5}[name]  # of continuous px to the file's
    for file, landmarks in zip(exact["file"], exact["landmarks"], strict=True):
        assert np.allclose(landmarks + origin, read_pts((root / file).with_suffix(".pts")), atol=1e-3)


def test_the_labels_of_wflw_as_published(tmp_path):
    root, lists = archives.wflw(tmp_path)
    points, _, flags, name = lists["train"][0]
    points[:2] = (-3.25, 40), (50, 300)  # outside a picture of 160 x 120 px
    lines = [
        archives.wflw_line(*face) for face in ((points, (30.5, 20.25, 120.75, 100), flags, name), *lists["train"][1:])
    ]
    file = root / "WFLW_annotations/list_98pt_rect_attr_train_test/list_98pt_rect_attr_train.txt"
    file.write_text("\n".join(lines))
    folder = archives.prepared("wflw", root, tmp_path / "data", protocol="wflw", labels="published", margin=1.0)
    table = load_split(folder, "train")
    assert np.allclose(table["landmarks"][0], np.clip(points, 0, (160, 120)), atol=1e-4)
    crop = np.array([30.5 - 9.025, 20.25 - 7.975, 120.75 + 9.025, 100 + 7.975])  # a tenth of each side more
    assert np.allclose(table["crop"][0], crop)
    image, (x1, y1, x2, y2) = cv2.imread(str(root / "WFLW_images" / name)), crop.astype(int)
    shown = cv2.resize(image[y1:y2, x1:x2], (32, 32), interpolation=cv2.INTER_AREA)
    assert np.abs(shown.astype(float) - table.crop(0)).mean() < 4


def test_labels_of_cofw_and_of_continuous_sets_as_published(tmp_path):
    root, sets = archives.cofw(tmp_path)
    table = load_split(archives.prepared("cofw", root, tmp_path / "data", protocol="box", labels="published"), "test")
    assert np.allclose(table["landmarks"][..., 0], sets["test"][2][:, :29], atol=1e-4)  # MATLAB's numbers
    root, _ = archives.lmk(tmp_path)  # shares of a crop, which the fork has truncated before
    exact, published = (
        load_split(archives.prepared("lmk", root, tmp_path / name, protocol="pipnet", labels=name), "train")
        for name in ("exact", "published")
    )
    assert np.array_equal(exact["landmarks"], published["landmarks"])


def test_the_published_presets_prepare_so():
    for preset in ("pipnet", "irnet", "drowsiness"):
        assert (settings(preset).data.labels, settings(preset).data.val) == ("published", "none")
    assert settings("default").data.labels == settings("dpr").data.labels == "exact"


# ------------------------------------------------------------------------------------------------- as they are released
def test_the_release_of_cofw68(tmp_path):
    data = REFERENCE / "COFW68_Data"
    if not data.is_dir():
        pytest.skip(f"no annotation of COFW-68 at {data}")
    (tmp_path / "COFW68_Data").symlink_to(data)
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (40, 30, 3), dtype=np.uint8)] * 507  # the release holds no images
    write_cofw(
        tmp_path / "COFW_test_color.mat",
        "T",
        images,
        np.tile([1.0, 1, 20, 20], (507, 1)),
        rng.uniform(1, 20, (507, 87)),
    )
    refuses("through a link", parse, "cofw68", tmp_path)
    (tmp_path / "COFW68_Data").unlink()
    shutil.copytree(data, tmp_path / "COFW68_Data")
    (records,) = parse("cofw68", tmp_path).values()
    assert len(records) == 507 and [record.image.name for record in records[:2]] == ["0001", "0002"]
    layout, hidden = LAYOUTS.load("68"), np.array([~record.visible for record in records])
    eyes = np.array([np.linalg.norm(np.diff(record.landmarks[list(layout.interocular)], axis=0)) for record in records])
    sides = np.array([record.box[2:] - record.box[:2] for record in records])
    assert 0.15 < hidden.mean() < 0.35 and (eyes > 5).all() and (np.median(sides / eyes[:, None], 0) < 4).all()
    inside = [np.mean((record.landmarks > record.box[:2]) & (record.landmarks < record.box[2:])) for record in records]
    assert np.mean(inside) > 0.8  # the boxes belong to the landmarks


def test_small_faces_are_left_out(tmp_path, cli):
    """Peppa trains on no box under 50 px."""
    for size in (60, 160):
        write_faces(tmp_path / f"raw/train/{size}", 12, size=size, seed=size)
    places = ["--train-data", tmp_path / "raw", "--data-root", tmp_path / "data"]
    flags = ["--train", *places, "--val", "none", *SMALL, "--epochs", "1"]
    done = cli(*flags, "--least-box 50 --run-root", tmp_path)
    table = load_split(made_in(tmp_path / "data", "raw"), "train")
    large = ((table["box"][:, 2:] - table["box"][:, :2]).min(1) >= 50).sum()
    assert done.returncode == 0 and 0 < large < 24 and f"; {large} faces of" in done.stderr, done.stderr
    fails(
        cli(*flags, "--least-box 500 --run-root", tmp_path),
        "least_box 500",
    )


# ------------------------------------------------------------------------------------- crops of sets with boxes by `gssl`
BORDER = 5.0, 20.0, 100.0, 80.0  # x y w h of a box whose crop ends at the left edge of a picture of 160 x 120 px


def edges(box, left: float, top: float, right: float, bottom: float) -> list[float]:
    """Return the authors' crop of x1 y1 x2 y2: each side moved out by a share of the box's w, h, and clipped by itself.

    box: x1, y1, x2, y2, w, h.
    """
    x1, y1, x2, y2, w, h = box
    return [max(x1 - w * left, 0), max(y1 - h * top, 0), min(x2 + w * right, 159), min(y2 + h * bottom, 119)]


def of_xywh(x, y, w, h) -> tuple[float, ...]:
    return x, y, x + w - 1, y + h - 1, w, h


def gssl_set(name: str, root, tmp_path, split: str = "train"):
    folder = archives.prepared(name, root, tmp_path / "data", protocol="gssl", labels="published")
    return folder, load_split(folder, split)


@pytest.mark.parametrize("name", ["cofw", "cofw68"])
def test_gssl_crops_of_cofw(name, tmp_path):
    root = getattr(archives, name)(tmp_path)[0]
    for split, end in (("train", "Tr"), ("test", "T")):
        images = [np.full((120, 160, 3), 9, np.uint8)] * 3
        boxes = np.array([BORDER, (37, 20, 61, 53), (90, 50, 60, 66)], float)
        phis = np.full((3, 87), 60.25)
        write_cofw(root / f"COFW_{split}_color.mat", end, images, boxes, phis)
    if name == "cofw68":
        savemat(root / "COFW68_Data/cofw68_test_bboxes.mat", {"bboxes": boxes})
    folder, table = gssl_set(name, root, tmp_path, "test")
    wanted = [edges(of_xywh(*box), 0.15, 0.15, 0.15, 0.15) for box in boxes]
    assert wanted[0] == [0, 8, 119, 111]  # 300W's rule would make it wider on the right by what is missing on the left
    assert np.allclose(table["crop"], wanted, atol=1e-3)
    if name == "cofw":
        assert np.allclose(table["landmarks"], 60.25, atol=1e-4)  # not truncated
    assert read_meta(folder)["protocol"] == DEFAULTS.protocols["gssl"]  # a net has one protocol for all sets


def test_gssl_crops_of_wflw(tmp_path):
    root, lists = archives.wflw(tmp_path)
    file = root / "WFLW_annotations/list_98pt_rect_attr_train_test/list_98pt_rect_attr_train.txt"
    boxes = [(5, 20, 105, 100), (37, 21, 98, 74), (90, 50, 150, 117)]
    faces = zip(lists["train"], boxes, strict=True)
    file.write_text("\n".join(archives.wflw_line(face[0], box, *face[2:]) for face, box in faces))
    _, table = gssl_set("wflw", root, tmp_path)
    wanted = [edges((*box, box[2] - box[0], box[3] - box[1]), 0.1, -0.1, 0.1, 0.1) for box in boxes]
    assert np.allclose(table["crop"], wanted, atol=1e-3)


def test_gssl_crops_of_celeba_and_its_list_of_boxes(tmp_path):
    root, _ = archives.celeba(tmp_path)
    _, table = gssl_set("celeba-wild", root, tmp_path)
    assert np.allclose(table["crop"][0], edges(of_xywh(20, 10, 100, 90), 0.1, -0.15, 0.1, 0.1), atol=1e-3)
    (root / "celeba_bboxes.txt").write_text("000001.jpg 5 20 104 99\n")  # image, x1, y1, x2, y2: of a detector
    _, table = gssl_set("celeba-wild", root, tmp_path)
    assert np.allclose(table["crop"][0], edges((5, 20, 104, 99, 100, 80), 0.1, -0.15, 0.1, 0.1), atol=1e-3)
    others = parse("celeba-wild", root, allow_partial=True)
    assert others["test"][0].box.tolist() == [21.5, 11.5, 120.5, 100.5]  # a face that the detector's list lacks
    (root / "Anno/list_bbox_celeba.txt").unlink()
    assert parse("celeba-wild", root, allow_partial=True)["train"][0].box.tolist() == [5.5, 20.5, 104.5, 99.5]
    (root / "celeba_bboxes.txt").write_text("000001.jpg 5 20 104\n")
    refuses("celeba_bboxes.txt, line 1: 4 words where a name and 4 values", parse, "celeba-wild", root)
