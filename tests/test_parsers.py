"""Benchmark sets: a small archive in the official container, each field of which comes back as the release means it."""
import json
import os
import shutil
from pathlib import Path

import archives
import numpy as np
import pytest
import torch
from archives import RNG, coco, header, landmarks, picture, wflw_line, write_cofw, write_csv
from scipy.io import savemat

from nets.labels import Prediction
from pipnet.errors import UserError
from utils.config import DEFAULT_FILE, load_layout, read_yaml
from utils.dataset import Faces
from utils.evaluate import evaluate, subset_rows
from utils.parsers import DATASETS, infer
from utils.prepare import DataGenerator
from utils.prepared import load_meta, load_split, read_image
from utils.report import score_rows

wflw, lapa, cofw, aflw, lp, table = map(pytest.fixture, (archives.wflw, archives.lapa, archives.cofw, archives.aflw, archives.lp,
                                                         archives.table))


def parse(name: str, folder: Path, **options) -> dict:
    row = DATASETS[name]
    return row.parse(folder, origin=row.origin, **options)


def prepared(name: str, folder: Path, out: Path, **options) -> Path:
    return DataGenerator(folder, 32, name, out=out, workers=1, allow_partial=True, val=0, **options).run()


# --------------------------------------------------------------------------------------------------------------------- WFLW
def test_wflw(wflw, tmp_path):
    root, lists = wflw
    assert infer(root) == "wflw"
    splits = parse("wflw", root, allow_partial=True)
    for split, faces in lists.items():
        for record, (points, box, flags, name) in zip(splits[split], faces, strict=True):
            assert np.allclose(record.landmarks, points + 0.5, atol=1e-6) and np.allclose(record.box, np.array(box) + 0.5)
            assert record.states.tolist() == [flag == 1 for flag in flags] and record.visible is None and record.pose is None
            assert record.file == root / "WFLW_images" / name and record.identity == name  # faces of a photograph stay together
    assert [record.subset for record in splits["train"]] == ["train"] * 3
    # by first coordinate and name: faces 1 and 2 of the test share a photograph
    assert [record.subset for record in splits["test"]] == [
        "test//largepose//occlusion", "test//illumination", "test//largepose//blur"]
    folder = prepared("wflw", root, tmp_path / "data")
    meta, table = load_meta(folder), load_split(folder, "test")
    assert (meta["layout"], meta["states"]) == ("98", ["pose", "expression", "illumination", "makeup", "occlusion", "blur"])
    assert meta["expected"]["blur"] == 773 and meta["found"]["largepose"] == 2 and meta["found"]["train"] == 3
    assert table.states.tolist() == np.eye(6)[:3].astype(bool).tolist() and table.pose is None
    assert table.files == [f"WFLW_images/{name}" for name in ("0--Event/b_0.jpg", "1--Event/b_1.jpg", "1--Event/b_1.jpg#2")]
    layout = load_layout(read_yaml(DEFAULT_FILE)["layouts"], "98")
    faces = Faces([(folder, "test")], layout, 32, 1.0)
    centre = Prediction(torch.full((1, 98, 2), 0.5), torch.ones(1, 98))
    result = evaluate(lambda images: Prediction(*(part if part is None else part.expand(len(images), *part.shape[1:])
                                                  for part in centre)), faces, layout, "interocular", 2)
    rows = score_rows("wflw", "centre", result, faces, [10.0])
    assert [row[:3:2] for row in rows] == [["wflw", "3"], ["  blur", "1"], ["  illumination", "1"], ["  largepose", "2"],
                                           ["  occlusion", "1"]]
    assert float(rows[3][3]) == pytest.approx(result.nme[[0, 2]].mean(), abs=1e-3)
    with pytest.raises(UserError, match="wflw has 98 landmarks and cannot have layout 68"):
        prepared("wflw", root, tmp_path / "other", layout="68")


def test_wflw_from_the_command_line(wflw, tmp_path, cli):
    root, _ = wflw
    flags = ("--prepare", "--data-dir", root, "--data-root", tmp_path / "data", "--target-size", "32")
    done = cli("--dataset", "wflw", *flags)
    assert done.returncode == 1 and "Traceback" not in done.stderr and not list((tmp_path / "data").glob("*wflw*"))
    assert "error: " in done.stderr and "(--allow-partial):\n  train: 3 of 7500 faces\n" in done.stderr
    done = cli(*flags, "--allow-partial", "--protocol", "wflw")  # the folder says which set it is
    assert done.returncode == 0 and "WFLW is partial: blur: 1 of 773 faces" in done.stderr, done.stderr
    table = load_split(tmp_path / "data" / "wflw-wflw-32", "test")
    x1, y1, x2, y2 = table.box[0]
    width, height = 0.1 * (x2 - x1), 0.1 * (y2 - y1)
    assert np.allclose(table.crop[0], [x1 - width, y1 - height, x2 + width, y2 + height])


def test_wflw_incomplete_or_wrong(wflw):
    root, lists = wflw
    with pytest.raises(UserError, match=r"train: 3 of 7500 faces\n.*test: 3 of 2500 faces\n.*pose: 2 of 326(.|\n)*blur: 1 of"):
        parse("wflw", root)
    (root / "WFLW_images" / lists["train"][0][3]).unlink()
    with pytest.raises(UserError, match=r"train: 2 of 7500(.|\n)*  1 annotated images or annotations .*a_0.jpg"):
        parse("wflw", root)
    assert len(parse("wflw", root, allow_partial=True)["train"]) == 2
    file = root / "WFLW_annotations/list_98pt_rect_attr_train_test/list_98pt_rect_attr_train.txt"
    points, box, flags, name = lists["train"][1]
    for text, fault in [
        (wflw_line(points[:-1], box, flags, name), "line 1: 205 values"),
        (wflw_line(points, box, [2] * 6, name), "line 1: an attribute"),
        (wflw_line(points, ("a", 0, 1, 1), flags, name), "line 1: not a coordinate"),
        (wflw_line(points * np.inf, box, flags, name), "line 1: not a coordinate"),
        (wflw_line(points, (50, 50, 50, 90), flags, name), "line 1: its face box is empty"),
        (wflw_line(points, box, flags, "../../secret.jpg"), "line 1: '../../secret.jpg' leads out of"),
        (wflw_line(points, box, flags, "/etc/passwd"), "line 1: '/etc/passwd' leads out of"),
    ]:
        file.write_text(text + "\n")
        with pytest.raises(UserError, match=fault):
            parse("wflw", root, allow_partial=True)
    outside = picture(root.parent / "outside.jpg")
    os.symlink(outside, root / "WFLW_images" / "link.jpg")
    file.write_text(wflw_line(points, box, flags, "link.jpg") + "\n")
    with pytest.raises(UserError, match="'link.jpg' leads through a link out of"):
        parse("wflw", root, allow_partial=True)
    file.write_text("")
    shutil.move(root / "WFLW_images", root.parent / "moved")
    (root / "WFLW_images").symlink_to(root.parent / "moved")
    with pytest.raises(UserError, match="leads through a link out of"):
        parse("wflw", root, allow_partial=True)
    subset = root / "WFLW_annotations/list_98pt_test/list_98pt_test_blur.txt"
    subset.write_text(wflw_line(points, (), (), name))
    with pytest.raises(UserError, match="blur.txt, line 1: no face of"):
        parse("wflw", root, allow_partial=True)


# --------------------------------------------------------------------------------------------------------------------- LaPa
def test_lapa(lapa, tmp_path):
    root, points = lapa
    assert infer(root) == "lapa"
    splits = parse("lapa", root, allow_partial=True)
    assert {split: [record.identity for record in records] for split, records in splits.items()} == {
        "train": ["11", "11"], "val": ["22", "23"], "test": ["24", "25"]}
    for split, records in splits.items():
        for record in records:
            values = points[f"{split}/{record.file.stem}"] + 0.5
            assert record.file == root / split / "images" / record.file.name and record.subset == split
            assert np.allclose(record.landmarks, values, atol=1e-6) and record.visible is None
            assert np.allclose(record.box, [*values.min(0), *values.max(0)])  # the release has no box
    folder = prepared("lapa", root, tmp_path / "data")
    assert [len(load_split(folder, split).files) for split in ("train", "val", "test")] == [2, 2, 2]
    assert load_meta(folder)["layout"] == "106" and load_meta(folder)["found"] == {"train": 2, "val": 2, "test": 2}


def test_lapa_incomplete_or_wrong(lapa):
    root, _ = lapa
    (root / "val/images/22_0.jpg").unlink()
    with pytest.raises(UserError, match=r"train: 2 of 18176 faces\n.*val: 1 of 2000.*\n.*test: 2 of(.|\n)*such as .*22_0.jpg"):
        parse("lapa", root)
    text = root / "test/landmarks/24_0.txt"
    good = text.read_text()
    for spoilt, fault in [(good.replace("106\n", "105\n", 1), "line 1: '105' where 106"), (good[:200], "points where 106"),
                          ("", "where 106"), (good.replace(" ", ",", 1), "line 2: 1 values"),
                          (good[:-6] + "x\n", "line 107: not a coord")]:
        text.write_text(spoilt)
        with pytest.raises(UserError, match=f"24_0.txt.*{fault}"):
            parse("lapa", root, allow_partial=True)
    text.unlink()
    os.symlink("/etc/hostname", text)
    with pytest.raises(UserError, match="24_0.txt' leads through a link out of"):
        parse("lapa", root, allow_partial=True)


# --------------------------------------------------------------------------------------------------------------------- COFW
def test_cofw(cofw, tmp_path):
    root, sets = cofw
    assert infer(root) == "cofw"
    splits = parse("cofw", root, allow_partial=True)
    for split, (images, boxes, phis) in sets.items():
        for index, record in enumerate(splits[split]):
            assert np.allclose(record.landmarks[:, 0], phis[index, :29] - 0.5)  # MATLAB counts pixels from 1
            assert np.allclose(record.landmarks[:, 1], phis[index, 29:58] - 0.5)
            assert (record.visible == (phis[index, 58:] == 0)).all() and record.subset == split
            x, y, w, h = boxes[index]
            assert np.allclose(record.box, [x - 0.5, y - 0.5, x + w - 1.5, y + h - 1.5])  # from x to x + w - 1
            name = f"{index + 1:04d}"
            assert record.file == root / f"COFW_{split}_color.mat" / name and record.identity == f"{split}/{name}"
            image, plain = record.read(), images[0] if index != 1 else np.repeat(images[1][..., None], 3, 2)
            assert image.dtype == np.uint8 and np.array_equal(image, plain[..., ::-1])  # RGB there, BGR here
    folder = prepared("cofw", root, tmp_path / "data", protocol="box")
    table = load_split(folder, "test")
    assert table.files == [f"COFW_test_color.mat/000{i}" for i in (1, 2, 3)] and (table.size == (160, 120)).all()
    assert (table.visible == (sets["test"][2][:, 58:] == 0)).all() and np.allclose(table.crop, table.box)
    assert np.array_equal(load_split(folder, "train").landmarks[0], splits["train"][0].landmarks.round(4))


def test_cofw_incomplete_or_wrong(cofw, monkeypatch):
    root, sets = cofw
    with pytest.raises(UserError, match=r"train: 3 of 1345 faces\n.*test: 3 of 507 faces"):
        parse("cofw", root)
    images, boxes, phis = sets["test"]
    gap = phis * np.array([[1], [np.nan], [1]])
    file = root / "COFW_test_color.mat"
    for spoil, fault in [
        (lambda: write_cofw(file, "Tr", images, boxes, phis), "no IsT in it"),
        (lambda: write_cofw(file, "T", images, boxes[:2], phis), "do not belong together"),
        (lambda: write_cofw(file, "T", images, boxes, phis[:, :58]), "do not belong together"),
        (lambda: write_cofw(file, "T", images, boxes, gap), "face 2 are not finite"),
        (lambda: write_cofw(file, "T", images, boxes * 0, phis), "0001: its face box is empty"),
        (lambda: file.write_bytes(file.read_bytes()[:1000]), "not a readable MATLAB v7.3 file"),
        (lambda: file.write_text("no"), "not a readable MATLAB v7.3 file"),
    ]:
        spoil()
        with pytest.raises(UserError, match=f"COFW_test_color.mat.*{fault}"):
            parse("cofw", root, allow_partial=True)
    write_cofw(file, "T", [image.astype(float) for image in images], boxes, phis)
    with pytest.raises(UserError, match="IsT 1: float64 .* is not an image"):
        parse("cofw", root, allow_partial=True)["test"][0].read()
    file.unlink()
    with pytest.raises(UserError, match="test: 0 of 507"):
        parse("cofw", root)
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    with pytest.raises(UserError, match="pip install h5py"):
        parse("cofw", root, allow_partial=True)


def test_cofw68(cofw, tmp_path):
    root, sets = cofw
    (root / "COFW68_Data/test_annotations").mkdir(parents=True)
    boxes = np.array([[30.0, 20, 100, 80], [31, 20, 100, 80], [32, 20, 100, 80]])
    savemat(root / "COFW68_Data/cofw68_test_bboxes.mat", {"bboxes": boxes})
    faces = [(landmarks(68), RNG.integers(0, 2, (68, 1))) for _ in boxes]
    files = [root / f"COFW68_Data/test_annotations/{i + 1}_points.mat" for i in range(3)]
    for file, (points, hidden) in zip(files, faces, strict=True):
        savemat(file, {"Points": points, "Occ": hidden})
    with pytest.raises(UserError, match="COFW-68; (.|\n)*test: 3 of 507 faces"):
        parse("cofw68", root)
    splits = parse("cofw68", root, allow_partial=True)
    assert list(splits) == ["test"]
    for record, image, (points, hidden), (x, y, w, h) in zip(splits["test"], sets["test"][0], faces, boxes, strict=True):
        assert np.allclose(record.landmarks, points - 0.5)
        assert np.allclose(record.box, [x - 0.5, y - 0.5, x + w - 1.5, y + h - 1.5])
        assert (record.visible == (hidden[:, 0] == 0)).all() and record.subset == "test"
        assert record.read().shape[:2] == image.shape[:2] and record.file.parent == root / "COFW_test_color.mat"
    folder = prepared("cofw68", root, tmp_path / "data", protocol="box")
    assert load_meta(folder)["layout"] == "68" and len(load_split(folder, "test").files) == 3
    savemat(files[1], {"Points": faces[1][0][:67], "Occ": faces[1][1]})
    with pytest.raises(UserError, match="2_points.mat: Points is 67 x 2, not 68 x 2"):
        parse("cofw68", root, allow_partial=True)
    files[1].unlink()
    assert [record.file.name for record in parse("cofw68", root, allow_partial=True)["test"]] == ["0001", "0003"]
    savemat(root / "COFW68_Data/cofw68_test_bboxes.mat", {"bboxes": np.tile(boxes, (2, 1))})
    with pytest.raises(UserError, match="6 boxes for the 3 images"):
        parse("cofw68", root, allow_partial=True)


# --------------------------------------------------------------------------------------------------------------------- AFLW


def test_aflw(aflw, tmp_path):
    root, variables, chosen = aflw
    assert infer(root) == "aflw"
    splits = parse("aflw", root, allow_partial=True)
    assert [len(splits[split]) for split in ("train", "test")] == [2, 3]  # the first 20000 of ra train
    for index, record in zip(chosen, splits["train"] + splits["test"], strict=True):
        data, box = variables["data"][index] + 0.5, variables["bbox"][index] + 0.5
        assert np.allclose(record.landmarks, np.column_stack([data[:19], data[19:]])) and record.landmarks.shape == (19, 2)
        assert np.allclose(record.box, [box[0], box[2], box[1], box[3]])
        assert (record.visible == variables["mask_new"][index].astype(bool)).all()
        name = variables["nameList"][index, 0]
        assert record.file == root / "flickr" / name and record.identity == name
    assert [record.subset for record in splits["test"]] == ["test//frontal", "test", "test//frontal"]
    folder = prepared("aflw", root, tmp_path / "data", protocol="box")
    table = load_split(folder, "test")
    assert table.visible.sum(1).tolist() == [19, 17, 19] and np.allclose(table.crop, table.box)
    assert table.files[1] == f"{table.files[0]}#2" and load_split(folder, "train").visible[0].sum() == 17
    assert list(subset_rows(table.subsets)) == ["full", "frontal"]
    assert read_image(folder / "crops" / "train" / "000000.jpg").shape == (40, 40, 3)  # a grey picture


def test_aflw_incomplete_or_wrong(aflw):
    root, variables, chosen = aflw
    with pytest.raises(UserError, match=r"train: 2 of 20000.*\n.*test: 3 of 4386.*\n.*frontal: 2 of 1314.*\n  24381 ann"):
        parse("aflw", root)
    file, few = root / "AFLWinfo_release.mat", {key: value[:4] for key, value in variables.items()}
    few |= {"ra": np.array([[2, 4, 1, 3]]), "nameList": np.array([[f"{i}.jpg"] for i in range(4)], object)}
    for key, value, fault in [
        ("ra", np.array([[0, 1, 2, 3]]), "ra is not a permutation of 1 to 4"), ("ra", np.array([[1, 2]]), "ra is 2, not 4"),
        ("data", few["data"][:, :30], "data is 4 x 30, not 4 x 38"), ("bbox", few["bbox"] * np.nan, "bbox holds a value"),
        ("mask_new", np.array([["a"]]), "mask_new does not hold numbers"), ("nameList", few["nameList"][:2], "2 names for 4"),
        ("nameList", np.array([["../a.jpg"]] * 4, object), "'../a.jpg' leads out of"),
        ("nameList", np.array([[""]] * 4, object), "cannot be the name of a file"),
    ]:
        savemat(file, few | {key: value})
        with pytest.raises(UserError, match=f"AFLWinfo_release.mat.*{fault}"):
            parse("aflw", root, allow_partial=True)
    savemat(file, {key: value for key, value in few.items() if key != "ra"})
    with pytest.raises(UserError, match="no ra in it"):
        parse("aflw", root)
    savemat(file, few)
    with pytest.raises(UserError, match="no face of AFLW"):
        parse("aflw", root, allow_partial=True)
    for data in (file.read_bytes()[:300], b"", b"no" * 500):
        file.write_bytes(data)
        with pytest.raises(UserError, match="AFLWinfo_release.mat: not a readable MATLAB file"):
            parse("aflw", root)
    file.unlink()
    with pytest.raises(UserError, match="AFLWinfo_release.mat: cannot be read"):
        parse("aflw", root)


# ------------------------------------------------------------------------------------------------------------------ 300W-LP
@pytest.mark.parametrize("redrawn", [True, False])
def test_300wlp(lp, tmp_path, redrawn):
    root, faces = lp
    if not redrawn:
        shutil.rmtree(root / "landmarks")
    assert infer(root) == "300wlp"
    records = parse("300wlp", root, allow_partial=True)["train"]
    assert len(records) == 6
    for record in records:
        part, stem = record.file.parent.name, record.file.stem
        pt2d, _, pose = faces[f"{part}/{stem}"]
        plain = faces[f"{part.removesuffix('_Flip')}/{stem}"][1]
        flip_index = load_layout(read_yaml(DEFAULT_FILE)["layouts"], "68").flip_index
        mirrored = np.column_stack([450 - plain[:, 0], plain[:, 1]])[list(flip_index)]
        expected = pt2d if not redrawn else mirrored if part.endswith("_Flip") else plain
        assert np.allclose(record.landmarks, expected) and np.allclose(record.pose, pose[:3])  # pitch, yaw, roll
        assert np.allclose(record.box, [*expected.min(0), *expected.max(0)])
        assert record.subset == part and record.visible is None
        assert record.identity == {"H": "HELEN/HELEN_12", "L": "LFPW/LFPW_image_train_0003"}[part[0]]
    folder = prepared("300wlp", root, tmp_path / "data")
    table = load_split(folder, "train")
    assert np.allclose(table.pose, [record.pose for record in records], atol=1e-6) and table.states is None
    assert load_meta(folder)["found"] == {"HELEN": 2, "LFPW": 1, "HELEN_Flip": 2, "LFPW_Flip": 1}


def test_300wlp_incomplete_or_wrong(lp):
    root, _ = lp
    with pytest.raises(UserError, match=r"AFW: 0 of 5207 faces\n.*HELEN: 2 of 37676 faces(.|\n)*LFPW_Flip: 1 of 16556"):
        parse("300wlp", root)
    mat = root / "HELEN_Flip" / "HELEN_12_1_0.mat"
    for values, fault in [({"pt2d": np.ones((2, 21))}, "no Pose_Para"), ({"Pose_Para": np.ones((1, 7))}, "no pt2d"),
                          ({"pt2d": np.ones((2, 68)), "Pose_Para": np.ones((1, 6))}, "Pose_Para is 1 x 6, not 1 x 7")]:
        savemat(mat, values)
        with pytest.raises(UserError, match=f"HELEN_12_1_0.mat: {fault}"):
            parse("300wlp", root, allow_partial=True)
    mat.unlink()
    (root / "landmarks/LFPW/LFPW_image_train_0003_0_pts.mat").unlink()
    with pytest.raises(UserError, match=r"0003_0_pts.mat: cannot be read.*\(and 1 more"):
        parse("300wlp", root, allow_partial=True)
    shutil.rmtree(root / "landmarks")
    savemat(mat, {"pt2d": np.ones((2, 21)), "Pose_Para": np.ones((1, 7))})
    with pytest.raises(UserError, match="pt2d is 2 x 21, not 2 x 68"):
        parse("300wlp", root, allow_partial=True)


# ----------------------------------------------------------------------------------------------------------------- own sets
def test_csv(table, tmp_path, cli):
    root, faces = table
    faces["train"][0][1][3] = np.nan
    for split, rows in faces.items():
        write_csv(root / f"{split}.csv", rows)
    assert infer(root) == "csv"
    splits = parse("csv", root)
    for split, rows in faces.items():
        for record, (name, points) in zip(splits[split], rows, strict=True):
            assert np.allclose(record.landmarks, points + 0.5, equal_nan=True) and record.visible is None
            assert np.allclose(record.box, [*np.nanmin(points + 0.5, 0), *np.nanmax(points + 0.5, 0)])
            assert record.identity == name and record.file in (root / name, root / "images" / name)
    done = cli("--prepare", "--dataset", "csv", "--data-dir", root, "--data-root", tmp_path / "data", "--target-size", "32",
               "--val", "none")
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "data" / "own set-32"
    assert load_split(folder, "train").visible.tolist() == [[True, True, True, False, True], [True] * 5]
    assert load_split(folder, "test").files == ["c.jpg", "c.jpg#2"] and load_meta(folder)["layout"] == "5"
    done = cli("--prepare", "--data-dir", root, "--data-root", tmp_path / "data", "--target-size", "32", "--val", "none")
    assert done.returncode == 0 and "preparing" not in done.stderr, done.stderr


def test_csv_wrong(table):
    root, faces = table
    file = root / "faces.csv"
    name, points = faces["train"][0]
    cells = ",".join(map(str, points.ravel()))
    for text, fault in [
        ("", "line 1: '' where the header"), (f"{name},{cells}\n", "where the header"),
        (f"{header(5)}\n{name},1,2\n", "line 2: 3 cells"),
        (f"{header(5)}\nnone.jpg,{cells}\n", "line 2: no image none.jpg"), (f"{header(5)}\n../x.jpg,{cells}\n", "leads out of"),
        (f"{header(5)}\n{name},,2{',1' * 8}\n", "line 2: one coordinate"), (f"{header(5)}\n{name}{',x' * 10}\n", "not a number"),
        (f"{header(5)}\n{name}{',inf' * 10}\n", "not a coordinate"), (f"{header(5)}\n{name}{',' * 10}\n", "none of its points"),
        (f"{header(5)}\n", "no annotated face"), (f'{header(5)}\n"{"a" * 200_000}', "not a CSV file"),
    ]:
        file.write_text(text)
        with pytest.raises(UserError, match=fault) as caught:
            parse("csv", root)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="5 points where 68 are expected"):
        file.write_text(f"{header(5)}\n{name},{cells}\n")
        parse("csv", root, count=68)
    file = file.rename(root / "latest.csv")
    assert list(parse("csv", root)) == ["train"]  # which is not test.csv
    shutil.copy(file, root / "more.csv")
    with pytest.raises(UserError, match="one CSV, or one each .* not latest.csv, more.csv"):
        parse("csv", root)


def test_coco(table, tmp_path):
    root, faces = table
    (root / "annotations").mkdir()
    for split, rows in faces.items():
        (root / "annotations" / f"person_keypoints_{split}2017.json").write_text(json.dumps(coco(rows)))
    assert infer(root) == "coco"
    splits = parse("coco", root)
    for split, rows in faces.items():
        for index, (record, (name, points)) in enumerate(zip(splits[split], rows, strict=True)):
            assert np.allclose(record.landmarks[[0, 1, 2, 4]], points[[0, 1, 2, 4]] + 0.5)
            assert np.isnan(record.landmarks[3]).all() == (index == 0)  # v = 0
            assert record.visible.tolist() == [True, False, True, index == 1, True]
            assert record.box.tolist() == [20 + index, 10, 130 + index, 110] and record.identity == name
    folder = prepared("coco", root, tmp_path / "data")
    assert load_split(folder, "train").visible[0].tolist() == [True, False, True, False, True]
    assert load_meta(folder)["name"] == "own set"


def test_coco_wrong(table):
    root, faces = table
    file, good = root / "faces.json", coco(faces["train"])
    assert infer(root) == "points"
    for change, fault in [
        ({"images": []}, "annotation 0: keypoints"), ({"annotations": []}, "no annotated face"),
        ({"images": 3}, "not COCO keypoints"),
        ({"images": [{"id": 0, "file_name": "/etc/passwd"}, {"id": 1, "file_name": "c.jpg"}]}, "leads out of"),
        ({"images": [{"id": 0, "file_name": "z.jpg"}, {"id": 1, "file_name": "c.jpg"}]}, "no image z.jpg"),
        ({"annotations": [{"image_id": 0, "keypoints": [1, 2]}]}, "annotation 1: keypoints"),
        ({"annotations": [{"image_id": 0, "keypoints": [1, 2, 7]}]}, "v 0, 1 or 2"),
        ({"annotations": [{"image_id": [], "keypoints": [1, 2, 2]}]}, "annotation 1: keypoints"),
        ({"annotations": [{**good["annotations"][0], "bbox": [1, 2, 0, 5]}]}, "its face box is empty"),
        ({"annotations": [*good["annotations"], *good["annotations"], {"image_id": 0, "keypoints": [9, 9, 2, 3, 4, 2]}]},
         "2 points where the other faces have 5"),
        ({"annotations": [{"image_id": 0, "keypoints": [10**400, 2, 2]}]}, "annotation 1: keypoints"),
        ({"annotations": [3]}, "not COCO keypoints"),
    ]:
        file.write_text(json.dumps(good | change))
        assert infer(root) == "coco"
        with pytest.raises(UserError, match=fault):
            parse("coco", root)
    for text in ("", "[", "[]", "[" * 100_000, json.dumps(good)[:-20]):
        file.write_text(text)
        with pytest.raises(UserError, match="faces.json: not COCO keypoints"):
            parse("coco", root)


# ------------------------------------------------------------------------------------------------------------------- damage
@pytest.mark.parametrize("name", ["wflw", "lapa", "cofw", "300wlp", "csv", "coco"])
def test_damaged_annotations_raise_nothing_but_user_error(name, request):
    """Bytes cut off, changed, repeated: the set is read or the fault is named, and with it the archive."""
    root, content = request.getfixturevalue({"300wlp": "lp", "csv": "table", "coco": "table"}.get(name, name))
    if name == "csv":
        write_csv(root / "faces.csv", content["train"])
    if name == "coco":
        (root / "faces.json").write_text(json.dumps(coco(content["train"])))
    files = [path for path in sorted(root.rglob("*")) if path.suffix in (".txt", ".mat", ".csv", ".json")]
    rng = np.random.default_rng(7)
    for _ in range(60):
        file = files[rng.integers(len(files))]
        good = file.read_bytes()
        cut, place = rng.integers(0, len(good) + 1), rng.integers(0, max(len(good), 1))
        junk = [good[:cut], good[:place] + bytes(rng.integers(0, 256, 4, dtype=np.uint8)) + good[place + 4:],
                good[:cut] + good[place:], good.replace(b" ", b"\0"), good.replace(b".", b"e9"),
                good.decode("latin-1").encode("utf-16")]
        file.write_bytes(junk[rng.integers(len(junk))])
        try:
            for records in parse(name, root, allow_partial=True).values():
                assert all(np.isfinite(record.box).all() for record in records)
        except UserError as error:
            assert str(root) in str(error)
        file.write_bytes(good)
