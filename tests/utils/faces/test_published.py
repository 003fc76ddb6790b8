"""Labels as PIPNet's authors prepare them, against their preparation in numpy; and annotations as they are released."""

import shutil

import archives
import cv2
import numpy as np
import pytest
from archives import annotated, parse, picture, write_cofw
from conftest import DEFAULTS, LAYOUTS, REFERENCE, SMALL, fails, load_split, refuses, settings, write_faces

from pipnet.errors import UserError
from pipnet.geometry import crop_box, to_crop
from utils.config import load_protocol
from utils.faces.archives import PARTS_300W, read_pts
from utils.faces.prepare import GSSL_BOXES, DataGenerator
from utils.faces.prepared_set import read_meta


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
    for part in PARTS_300W:
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
    assert len(table) >= 6
    for file, crop, landmarks in zip(table["file"], table["crop"][:], table["landmarks"][:], strict=True):
        wanted, inside = as_published(read_pts((root / file).with_suffix(".pts")), 171, 133)
        assert np.array_equal(crop, wanted) and np.allclose(to_crop(landmarks, crop), inside)
    exact = load_split(DataGenerator(root, 64, name="exact", **how).run(), "train")
    origin = {"300w": 0.5, "points": -0.5}[name]  # of continuous px to the file's
    for file, landmarks in zip(exact["file"], exact["landmarks"][:], strict=True):
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
    assert np.abs(shown.astype(float) - table.crops[0]).mean() < 4


def test_labels_of_cofw_and_of_continuous_sets_as_published(tmp_path):
    root, sets = archives.cofw(tmp_path)
    table = load_split(archives.prepared("cofw", root, tmp_path / "data", protocol="box", labels="published"), "test")
    assert np.allclose(table["landmarks"][:][..., 0], sets["test"][2][:, :29], atol=1e-4)  # MATLAB's numbers
    root, _ = archives.lmk(tmp_path)  # shares of a crop, which the fork has truncated before
    exact, published = (
        load_split(archives.prepared("lmk", root, tmp_path / name, protocol="pipnet", labels=name), "train")
        for name in ("exact", "published")
    )
    assert np.array_equal(exact["landmarks"][:], published["landmarks"])


def test_labels_must_be_a_choice(tmp_path):
    with pytest.raises(UserError, match="labels.*'truncated'"):
        DataGenerator(tmp_path, 64, labels="truncated").run()


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


def test_a_line_of_wflw_as_released(tmp_path):
    """196 coordinates, the rect's corners, attributes pose, expression, illumination, make-up, occlusion and blur, the
    image.
    """
    rng = np.random.default_rng(0)
    coordinates = rng.uniform(183.3, 432.9, 196)
    line = " ".join(
        [
            *(f"{value:.6f}" for value in coordinates),
            "182",
            "268",
            "438",
            "522",
            "1",
            "0",
            "0",
            "1",
            "0",
            "1",
            "37--Soccer/37_Soccer_soccer_ball_37_45.jpg",
        ]
    )
    picture(tmp_path / "WFLW_images/37--Soccer/37_Soccer_soccer_ball_37_45.jpg", 640, 600)
    for split in ("train", "test"):
        file = tmp_path / f"WFLW_annotations/list_98pt_rect_attr_train_test/list_98pt_rect_attr_{split}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(line + "\n")
    (record,) = parse("wflw", tmp_path, allow_partial=True)["train"]
    assert np.allclose(record.landmarks.ravel(), coordinates + 0.5, atol=1e-6) and record.landmarks.shape == (98, 2)
    assert record.box.tolist() == [182.5, 268.5, 438.5, 522.5] and record.states.tolist() == [1, 0, 0, 1, 0, 1]
    assert record.image == tmp_path / "WFLW_images/37--Soccer/37_Soccer_soccer_ball_37_45.jpg"


def test_small_faces_are_left_out(tmp_path, cli):
    """Peppa trains on no box under 50 px."""
    for size in (60, 160):
        write_faces(tmp_path / f"raw/train/{size}", 12, size=size, seed=size)
    places = ["--train-data", tmp_path / "raw", "--data-root", tmp_path / "data"]
    flags = ["--train", *places, "--val", "none", *SMALL, "--epochs", "1"]
    done = cli(*flags, "--least-box", "50", "--run-root", tmp_path)
    table = load_split(tmp_path / "data/raw-64", "train")
    large = ((table["box"][:][:, 2:] - table["box"][:][:, :2]).min(1) >= 50).sum()
    assert done.returncode == 0 and 0 < large < 24 and f"; {large} faces of" in done.stderr, done.stderr
    fails(
        cli(*flags, "--least-box", "500", "--run-root", tmp_path),
        "least_box 500",
    )


@pytest.mark.parametrize(("dataset", "top"), [("wflw", 110), ("celeba-wild", 115)])
def test_crops_for_unlabelled_faces_leave_out_what_is_above_the_brows(dataset, top):
    """The authors of PIPNet widen the box by a tenth on three sides and move its top down."""
    protocol = load_protocol(DEFAULTS.protocols, "gssl")._replace(rounding="float")
    box = GSSL_BOXES[dataset](np.array([100.0, 100, 300, 200]))
    assert np.allclose(crop_box(box, protocol, 1000, 1000), [80, top, 320, 210])
