"""--predict: landmarks for a folder of pictures, in formats that a preparation can read."""

import json
import os
import shutil
import signal
import time
from contextlib import closing

import cv2
import numpy as np
import pytest
from archives import parse
from conftest import (
    DEFAULTS,
    LAYOUTS,
    ROOT,
    detector_file,
    fails,
    known_file,
    refuses,
    rows,
    table,
    works,
)

from extras.datasets import DATASETS, infer
from extras.datasets.own_layout import layout_of
from extras.shared.pts import read_pts, write_pts
from extras.tools import modes
from extras.tools.predict import averaged, chosen_pictures, predict, whole_box
from extras.tools.results import FORMATS, PredictedFace, Results, check_out, setup_of, tables_of
from pipnet.face import Face
from pipnet.geometry import box_of, crop_box, mirrored
from pipnet.landmark_net import LandmarkNet
from pipnet.landmarker import Landmarker
from utils.settings.config import load_protocol


def write(found, out, kind, layout) -> None:
    """Write faces as --predict does."""
    with closing(Results(out, kind, layout)) as results:
        for one in found:
            results.add(one)
        results.finish()


@pytest.fixture
def pictures(raw, tmp_path):
    """Return a folder with the test pictures without their .pts, one of them in a subfolder."""
    folder = tmp_path / "pictures"
    shutil.copytree(raw / "test", folder, ignore=shutil.ignore_patterns("*.pts"))
    (folder / "more").mkdir()
    (folder / "face07.jpg").rename(folder / "more" / "face07.jpg")
    return folder


@pytest.fixture
def known(tmp_path) -> str:
    """Return a net that finds the mean face in every crop, further right the bluer it is."""
    return known_file(tmp_path / "known.onnx", right=0.1)


def test_a_folder_of_pictures(trained, cli, pictures, raw, tmp_path):
    (pictures / "broken.jpg").write_bytes((pictures / "face00.jpg").read_bytes()[:500])
    (pictures / "more" / "face07.jpg").unlink()
    cv2.imwrite(str(pictures / "more" / "face07.webp"), cv2.imread(str(raw / "test" / "face07.jpg")))
    (pictures / "empty.bmp").touch()
    os.mkfifo(pictures / "pipe.jpg")
    out = tmp_path / "made" / "points"
    flags = ("--predict", pictures, "--exp", trained.folder, "--detector none --out", out)
    done = works(cli(*flags))
    assert f"8 faces in 8 pictures -> {out}" in done.stdout and "predicted error, % of the box" in done.stdout
    assert "2 of 10 pictures are left out" in done.stderr
    assert "broken.jpg: not a readable image" in done.stderr and "empty.bmp: not a readable image" in done.stderr
    assert "8 pictures have no box" in done.stderr
    listed = rows(out / "uncertain.csv")
    order = [float(row["uncertainty"]) for row in listed]
    assert order == sorted(order, reverse=True) and len({*order}) > 1
    assert {row["points"] for row in listed} == {path.relative_to(out).as_posix() for path in out.rglob("*.pts")}
    assert "more/face07.pts" in {row["points"] for row in listed} and read_pts(out / "face00.pts").shape == (68, 2)
    fails(cli(*flags), "--out.*--overwrite")
    works(cli(*flags, "--overwrite"))


def test_all_its_nets_have_32_bits_unless_8_are_wanted(cli, tmp_path):
    found = []
    for name, flags in (("default", ()), ("32", ("--no-int8",)), ("8", ("--int8",))):
        works(cli("--predict", ROOT / "assets/astronaut.jpg", *flags, "--out", tmp_path / f"{name}.csv"))
        found.append((tmp_path / f"{name}.csv").read_text())
    assert found[0] == found[1] != found[2]


def test_with_the_boxes_of_labels_it_finds_what_the_test_finds(known, raw, data_root, cli, tmp_path):
    places = ("--data-root", data_root, "--run-root", tmp_path / "runs")
    tested = works(cli("--test --exp", known, "--test-data", raw, *places))
    works(cli("--predict", raw / "test", "--exp", known, "--out", tmp_path / "found.csv"))
    shutil.copytree(raw / "test", tmp_path / "images", ignore=shutil.ignore_patterns("*.pts"))
    errors = []
    for record in parse("csv", tmp_path)["train"]:
        truth = read_pts(raw / "test" / f"{record.image.stem}.pts") + 0.5
        errors.append(np.linalg.norm(record.landmarks - truth, axis=1).mean() / np.linalg.norm(truth[36] - truth[45]))
    assert 100 * np.mean(errors) == pytest.approx(float(table(tested.stdout)[0][3]), rel=0.01)


def test_it_reads_and_writes_files_that_count_pixels_from_1(trained, raw, cli, tmp_path):
    for origin in (0, 1):
        name, moved = "face00", tmp_path / str(origin)
        moved.mkdir()
        shutil.copy(raw / "test" / f"{name}.jpg", moved)
        write_pts(moved / f"{name}.pts", read_pts(raw / "test" / f"{name}.pts") + origin)
        works(
            cli(
                "--predict", moved, "--exp", trained.folder, "--first-pixel", origin, "--out", tmp_path / f"out{origin}"
            )
        )
    found = [read_pts(tmp_path / f"out{origin}" / f"{name}.pts") for origin in (0, 1)]
    assert np.allclose(found[1], found[0] + 1, atol=1e-3)


def test_the_mean_with_the_mirror_image_has_no_bias_to_a_side():
    layout, scores, truth = LAYOUTS.load("5"), np.arange(5, dtype=np.float32), np.array([(0.3, 0.2), (0.7, 0.6)])

    def predict(images: np.ndarray) -> dict[str, np.ndarray]:
        # right of the spot
        spots = np.array([np.argwhere(image[..., 0])[0][::-1] + 0.5 for image in images]) / 100 + (0.02, 0)
        return {
            "landmarks": np.repeat(spots[:, None], 5, 1).astype(np.float32),
            "score": np.tile(scores, (len(images), 1)),
            "pose": np.tile(np.float32([1, 2, 3]), (len(images), 1)),
            "states": np.tile(np.float32([0.2, 0.4, 0.9]), (len(images), 1)),
        }

    images = np.zeros((2, 100, 100, 3), np.uint8)
    images[0, 20, 30] = images[1, 60, 70] = 255
    found = averaged(LandmarkNet(predict, layout, load_protocol(DEFAULTS.protocols, "square"), 100, None)).predict(
        images
    )
    assert np.allclose(found["landmarks"], truth[:, None] + 0.005, atol=1e-6)
    assert np.allclose(found["score"], (scores + scores[list(layout.flip_index)]) / 2)
    assert np.allclose(found["pose"], [1, 0, 0]) and np.allclose(found["states"], [0.3, 0.3, 0.9])


def test_the_mean_with_the_mirror_image_is_that_of_both_pictures(known, raw, cli, tmp_path):
    """A mirrored picture gives the mirrored landmarks."""
    source, flip = tmp_path / "in", LAYOUTS.load("68").flip_index
    source.mkdir()
    for name, step in (("plain", 1), ("turned", -1)):
        points = read_pts(raw / "test" / "face03.pts") + 0.5
        image = cv2.imread(str(raw / "test" / "face03.jpg"))
        cv2.imwrite(str(source / f"{name}.png"), image[:, ::step])
        write_pts(source / f"{name}.pts", (points if step > 0 else mirrored(points, flip, image.shape[1])) - 0.5)
    found = {}
    for flag in ((), ("--flip-test",)):
        works(cli("--predict", source, "--exp", known, "--out", tmp_path / "out", "--overwrite", *flag))
        plain, turned = (read_pts(tmp_path / "out" / f"{name}.pts") + 0.5 for name in ("plain", "turned"))
        found[flag] = np.abs(mirrored(turned, flip, image.shape[1]) - plain).max()
    assert found[()] > 0.2 and found["--flip-test",] < 0.02


def test_pictures_that_differ_in_their_suffix_go_into_a_table(cli, trained, pictures, tmp_path, caplog):
    """A .pts file does not say of which picture it is. A clip beside the pictures is named, once."""
    (pictures / "VID_1.MOV").write_bytes(b"a video")
    cv2.imwrite(str(pictures / "face00.png"), cv2.imread(str(pictures / "face00.jpg")))
    flags = ("--predict", pictures, "--exp", trained.folder, "--detector none --out")
    fails(cli(*flags, tmp_path / "points"), "face00.png: shares its name with face00.jpg.*--out")
    for name in ("out.csv", "out.json"):
        caplog.clear()
        assert "9 faces in 9 pictures" in works(cli(*flags, tmp_path / name)).stdout
        assert len([line for line in caplog.messages if "VID_1.MOV" in line]) == 1
    files = [row["file"] for row in rows(tmp_path / "out.csv")]
    assert len(files) == 9 and {"face00.png", "face00.jpg"} <= {*files}


LAYOUT_OF_OWN = {
    "count": 5,
    "flip_index": [1, 0, 2, 4, 3],
    "groups": {"left eye": [0], "right eye": [1], "nose_tip": [2], "mouth": [3, 4]},
}


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("name", ["68", "98", "5", "own"])
def test_every_form_is_read_again(pictures, tmp_path, kind, name):
    """Each face of a picture comes back with its points, in the order of the layout that has their names."""
    layouts = LAYOUTS.with_rows({"own": LAYOUT_OF_OWN})
    layout, rng, several = layouts.load(name), np.random.default_rng(3), kind != "pts"
    names = ["face00.jpg", "more/face07.jpg", *["face03.jpg"] * (1 + several)]
    shutil.copy(pictures / "face02.jpg", pictures / "more" / "face00.jpg")  # a name that is there twice
    truth = rng.uniform(-3, 99, (len(names), layout.count, 2))
    found = [
        PredictedFace(file, 1 + names[:i].count(file), (96, 96), Face(box_of(points), 0.9, points, rng.random(3)), i)
        for i, (file, points) in enumerate(zip(names, truth, strict=True))
    ]
    out = pictures / f"found{FORMATS[kind].ending}" if several else pictures
    with closing(Results(out, kind, layout, origin=1, folder="pictures")) as results:
        for one in found:
            results.add(one)
        results.finish()
    if setup := FORMATS[kind].setup:
        text = setup_of(out).read_text()
        assert text == setup(layout.point_names()) and all(f'"{point}"' in text for point in layout.point_names())
    for file in pictures.rglob("*.jpg") if kind == "pts" else ():
        if not file.with_suffix(".pts").exists():
            file.unlink()
    (pictures / "uncertain.csv").unlink(missing_ok=True)
    archive = DATASETS[infer(pictures)].load(pictures, layouts=layouts)
    assert layout_of(archive, layout if kind == "pts" else None).name == name
    read = [
        (file.split("#")[0], points)
        for file, points in zip(archive.columns["file"], archive.columns["landmarks"], strict=True)
    ]
    for file, points in zip(names, truth, strict=True):
        assert any(other == file and points == pytest.approx(again, abs=1e-3) for other, again in read), file
    assert len(read) == len(names)


def test_faces_that_a_detector_finds(known, pictures, raw, tmp_path):
    boxes = {0: [[10, 10, 50, 60], [50, 50, 90, 95.0]], 1: []}
    seen = []

    def detector(image):
        seen.append(image.shape)
        found = np.array(boxes.get(len(seen) - 1, [[10, 10, 80, 90.0]])).reshape(-1, 4)
        return found, np.linspace(1, 0.8, len(found))

    net = Landmarker(known, detector, any_roll=False, finder="none")
    found = list(predict(pictures, net, True, True))
    assert len(seen) == 8 and len(found) == 8
    assert sorted((one.file, one.number) for one in found)[:3] == [
        ("face00.jpg", 1),
        ("face00.jpg", 2),
        ("face02.jpg", 1),
    ]
    write(found, tmp_path / "out", "pts", net.layout)
    assert (tmp_path / "out" / "face00_2.pts").is_file() and not (tmp_path / "out" / "face01.pts").exists()
    seen.clear()
    labelled = list(predict(raw / "test", net, True, False))  # they are cut by the boxes of their labels
    assert not seen and len(labelled) == 8
    one = next(one for one in labelled if one.file == "face03.jpg")
    assert one.face.box == pytest.approx(box_of(read_pts(raw / "test" / "face03.pts") + 0.5))
    assert len([*predict(pictures / "face03.jpg", net, True, True)]) == 2 and len(seen) == 1


@pytest.mark.parametrize("name", ("square", "pipnet", "wflw", "box", "inner"))
@pytest.mark.parametrize("size", ((120, 120), (90, 160)))
def test_a_whole_picture_is_a_crop(name, size):
    protocol = load_protocol(DEFAULTS.protocols, name)
    crop = crop_box(whole_box(*size, protocol), protocol, *size)
    middle = np.array(size) / 2
    if protocol.square == "no":
        # published crops have integer corners and leave out the last pixel
        assert crop == pytest.approx([0, 0, *size], abs=2)
    else:
        assert crop == pytest.approx([*(middle - max(size) / 2), *(middle + max(size) / 2)])


@pytest.mark.parametrize(
    ("flags", "fault"),
    [
        (("--detector mtcn",), "'mtcn'.*'mtcnn'"),
        (("--predict-format xml",), "--predict-format.*'xml'"),
        (("--out", "x.txt"), "--out.*x.txt"),
        (("--out out.csv --predict-format label-studio",), "--predict-format label-studio.*json"),
        (("--out out.csv --predict-format coco",), "--predict-format coco"),
        (("--detector yunet",), "'yunet'"),
    ],
)
def test_flags_that_cannot_be(trained, cli, pictures, flags, fault):
    fails(cli("--exp", trained.folder, "--predict", pictures, *flags), fault)
    assert not (trained.folder / "predicted").exists()


def test_what_cannot_be_predicted(trained, cli, tmp_path):
    (tmp_path / "empty").mkdir()
    for name, fault in (("nowhere", "--predict.*nowhere"), ("empty", "is no picture")):
        fails(cli("--exp", trained.folder, "--predict", tmp_path / name, "--out", tmp_path / "out.csv"), fault)
    assert not (tmp_path / "out.csv").exists()
    assert [*FORMATS] == [*modes.FORMATS]
    assert check_out(None, "csv", tmp_path / "faces", False) == (tmp_path / "faces.csv", "csv")


def test_two_faces_never_share_a_file_and_a_bad_picture_is_left_out(known, pictures, tmp_path):
    for name in ("face00_2", "face00__2"):
        shutil.copy(pictures / "face00.jpg", pictures / f"{name}.jpg")
    two = np.array([[10, 10, 50, 60], [50, 50, 90, 95.0]])

    def detector(image):
        detector.calls += 1
        if detector.calls == 3:
            raise RuntimeError("a library\ngives up")
        return two, np.array([1, 0.8])

    detector.calls = 0
    net = Landmarker(known, detector, threads=1, any_roll=False, finder="none")
    found = list(predict(pictures, net, True, True))
    stems = [one.file.removesuffix(".jpg") for one in found if one.number == 1]
    assert len(found) == 18 and len(stems) == 9
    with closing(Results(tmp_path / "out", "pts", net.layout, stems)) as results:
        for one in found:
            results.add(one)
        results.finish()
    names = [one.points for one in results.found]
    assert len({*names}) == 18 and {"face00.pts", "face00_2.pts", "face00__2.pts", "face00_2_2.pts"} <= {*names}
    for one in results.found:
        assert read_pts(tmp_path / "out" / one.points) + 0.5 == pytest.approx(one.face.landmarks, abs=1e-3)
        assert one.number > 1 or one.points == one.file.removesuffix("jpg") + "pts"


@pytest.mark.parametrize("name", ["points", "points.csv", "points.json"])
def test_a_stop_loses_nothing_that_was_found(trained, start, raw, tmp_path, name):
    out = tmp_path / name
    (tmp_path / "many").mkdir()
    for index in range(400):
        os.link(raw / "test" / "face00.jpg", tmp_path / "many" / f"{index}.jpg")
    command = start("--predict", tmp_path / "many", "--exp", trained.folder, "--detector none --out", out)
    table, part = tables_of(out, {"": "pts", ".csv": "csv", ".json": "coco"}[out.suffix])
    table, whole, until = part, table, time.monotonic() + 100
    while not (table.is_file() and table.stat().st_size):
        assert command.process.is_alive() and time.monotonic() < until, command.text(".err")
        time.sleep(0.01)
    os.kill(command.process.pid, signal.SIGKILL if name == "points" else signal.SIGTERM)
    command.process.join()
    assert not whole.exists()
    if name != "points":
        assert f"stopped; the faces found so far are in {table}" in command.text(".err")
    if name == "points.json":
        assert 0 < len(json.loads(table.read_text())["annotations"]) < 400
    else:
        assert 0 < len(rows(table)) < 400 and (name != "points" or 0 < len(list(out.glob("*.pts"))) < 400)


def test_an_earlier_prediction_is_moved_aside_and_nothing_else(trained, cli, pictures, tmp_path):
    out, flags = (
        tmp_path / "out",
        ("--predict", pictures, "--exp", trained.folder, "--detector none --overwrite --out"),
    )
    works(cli(*flags, out))
    (pictures / "face03.jpg").unlink()
    (out / "face04.pts").write_text("corrected by hand")
    works(cli(*flags, out))
    assert not (out / "face03.pts").exists() and read_pts(out / "face04.pts").shape == (68, 2)
    [aside] = [path for path in tmp_path.iterdir() if path.name.startswith("out-")]
    assert (aside / "face03.pts").is_file() and (aside / "face04.pts").read_text() == "corrected by hand"
    for name in ("found.csv", "found.csv"):
        works(cli(*flags, tmp_path / name))
    assert len(list(tmp_path.glob("found-*.csv"))) == 1
    fails(cli(*flags, pictures), "pictures.*--out")
    shutil.copy(out / "uncertain.csv", pictures)
    fails(cli(*flags, pictures), "pictures.*--out")


def test_the_flags_of_the_demo_choose_faces_here_too(trained, known, cli, tmp_path):
    """The picture shows a photographed face four times; the detector is sure enough of two of them."""
    picture, out = tmp_path / "four.png", tmp_path / "found.csv"
    face = cv2.resize(cv2.imread(str(ROOT / "assets" / "astronaut.jpg"))[40:240, 120:320], (80, 80))
    cv2.imwrite(str(picture), np.tile(face, (2, 2, 1)))
    boxes = [np.array([24, 16, 62, 58]) + (x, y) * 2 for x, y in ((0, 0), (80, 0), (0, 80))]
    file = detector_file(tmp_path / "detector.onnx", boxes, [0.9, 0.8, 0.3])
    flags = ("--predict", picture, "--exp", known, "--detector-weights", file, "--upright --overwrite --out", out)
    for given, count in (("--threads 1", 2), ("--threads 1 --threshold 0.85", 1), ("--threads 1 --max-faces 1", 1)):
        assert f"{count} faces in 1 pictures" in works(cli(*flags, given)).stdout
    fails(cli(*flags, "--max-faces 0"), "max_faces")


@pytest.mark.parametrize("name", ("out", "out.csv"))
def test_a_place_that_another_prediction_writes_to_is_refused(trained, pictures, tmp_path, name):
    net, kind = Landmarker(trained.folder / "best.onnx", lambda image: None), "csv" if "." in name else "pts"
    found = next(predict(pictures, net, False, False))
    both = [Results(tmp_path / name, kind, net.layout) for _ in range(2)]  # both have found the place free
    both[0].add(found)
    part = tables_of(tmp_path / name, kind)[1]
    before = part.read_bytes()
    refuses(f"{name} is written to by another", both[1].add, found)
    refuses("--overwrite", check_out, f"{tmp_path / name}{'' if kind == 'csv' else '/'}", kind, tmp_path, False)
    assert part.read_bytes() == before


def test_a_name_that_no_list_can_hold_is_named_before_anything_is_found(tmp_path):
    cv2.imwrite(str(tmp_path / "a\tb.png"), np.zeros((8, 8, 3), np.uint8))
    refuses(r"a\tb.png: a name with a tab", chosen_pictures, tmp_path)
