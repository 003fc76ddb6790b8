"""Sets in MATLAB's containers: each field of a small archive comes back as the release means it."""

import resource
import shutil
import sys
import threading

import archives
import numpy as np
import pytest
from archives import parse, prepared, write_cofw
from conftest import LAYOUTS, load_split, refuses, spoilt
from scipy.io import savemat

from extras.datasets import infer
from extras.datasets.mat import read_mat
from pipnet.errors import UserError
from utils.data.prepared_set import read_meta, read_source_image
from utils.evaluate.evaluate import subset_rows
from utils.settings import memory

cofw, aflw, lp = map(pytest.fixture, (archives.cofw, archives.aflw, archives.lp))


# ----------------------------------------------------------------------------------------------------------------- COFW
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
            assert record.image == root / f"COFW_{split}_color.mat" / name and record.identity == f"{split}/{name}"
            image, plain = (
                read_source_image(record.image),
                images[0] if index != 1 else np.repeat(images[1][..., None], 3, 2),
            )
            assert image.dtype == np.uint8 and np.array_equal(image, plain[..., ::-1])  # RGB there, BGR here
    folder = prepared("cofw", root, tmp_path / "data", protocol="box")
    table = load_split(folder, "test")
    assert (
        list(table["file"]) == [f"COFW_test_color.mat/000{i}" for i in (1, 2, 3)]
        and (table["size"][:] == (160, 120)).all()
    )
    assert (table["visible"][:] == (sets["test"][2][:, 58:] == 0)).all() and np.allclose(
        table["crop"][:], table["box"][:]
    )
    assert np.array_equal(load_split(folder, "train")["landmarks"][0], splits["train"][0].landmarks.round(4))


def test_cofw_incomplete_or_wrong(cofw, monkeypatch):
    root, sets = cofw
    refuses(r"3 of 1345(.|\n)*3 of 507", parse, "cofw", root)
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
        refuses(f"COFW_test_color.mat.*{fault}", parse, "cofw", root, allow_partial=True)
    write_cofw(file, "T", [image.astype(float) for image in images], boxes, phis)
    refuses("IsT 1: float64", read_source_image, parse("cofw", root, allow_partial=True)["test"][0].image)
    file.unlink()
    refuses("test: 0 of 507", parse, "cofw", root)
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    refuses("pip install h5py", parse, "cofw", root, allow_partial=True)


def test_cofw68(tmp_path):
    root, images, boxes, faces = archives.cofw68(tmp_path)
    files = [root / f"COFW68_Data/test_annotations/{i + 1}_points.mat" for i in range(3)]
    refuses(r"COFW-68(.|\n)*3 of 507", parse, "cofw68", root)
    splits = parse("cofw68", root, allow_partial=True)
    assert list(splits) == ["test"]
    for record, image, (points, hidden), (x, y, w, h) in zip(splits["test"], images, faces, boxes, strict=True):
        assert np.allclose(record.landmarks, points - 0.5)
        assert np.allclose(record.box, [x - 0.5, y - 0.5, x + w - 1.5, y + h - 1.5])
        assert (record.visible == (hidden[:, 0] == 0)).all() and record.subset == "test"
        assert read_source_image(record.image).shape[:2] == image.shape[:2]
        assert record.image.parent == root / "COFW_test_color.mat"
    folder = prepared("cofw68", root, tmp_path / "data", protocol="box")
    assert read_meta(folder)["layout"] == "68" and len(load_split(folder, "test")) == 3
    savemat(files[1], {"Points": faces[1][0][:67], "Occ": faces[1][1]})
    refuses("2_points.mat.*67", parse, "cofw68", root, allow_partial=True)
    files[1].unlink()
    assert [record.image.name for record in parse("cofw68", root, allow_partial=True)["test"]] == ["0001", "0003"]
    savemat(root / "COFW68_Data/cofw68_test_bboxes.mat", {"bboxes": np.tile(boxes, (2, 1))})
    refuses("6 boxes.*3", parse, "cofw68", root, allow_partial=True)


# ----------------------------------------------------------------------------------------------------------------- AFLW


def test_aflw(aflw, tmp_path):
    root, variables, chosen = aflw
    assert infer(root) == "aflw"
    splits = parse("aflw", root, allow_partial=True)
    assert [len(splits[split]) for split in ("train", "test")] == [2, 3]  # the first 20000 of ra train
    for index, record in zip(chosen, splits["train"] + splits["test"], strict=True):
        data, box = variables["data"][index] + 0.5, variables["bbox"][index] + 0.5
        assert np.allclose(record.landmarks, np.column_stack([data[:19], data[19:]])) and record.landmarks.shape == (
            19,
            2,
        )
        assert np.allclose(record.box, [box[0], box[2], box[1], box[3]])
        assert (record.visible == variables["mask_new"][index].astype(bool)).all()
        name = variables["nameList"][index, 0]
        assert record.image == root / "flickr" / name and record.identity == name
    assert [record.subset for record in splits["test"]] == ["test//frontal", "test", "test//frontal"]
    folder = prepared("aflw", root, tmp_path / "data", protocol="box")
    table = load_split(folder, "test")
    assert table["visible"][:].sum(1).tolist() == [19, 17, 19] and np.allclose(table["crop"][:], table["box"][:])
    assert table["file"][1] == f"{table['file'][0]}#2" and load_split(folder, "train")["visible"][0].sum() == 17
    assert list(subset_rows(table["subset"])) == ["full", "frontal"]
    assert load_split(folder, "train").crops[0].shape == (40, 40, 3)  # a grey picture


def test_aflw_incomplete_or_wrong(aflw):
    root, variables, _ = aflw
    refuses(r"2 of 20000(.|\n)*4386(.|\n)*1314(.|\n)*24381", parse, "aflw", root)
    file, few = root / "AFLWinfo_release.mat", {key: value[:4] for key, value in variables.items()}
    few |= {"ra": np.array([[2, 4, 1, 3]]), "nameList": np.array([[f"{i}.jpg"] for i in range(4)], object)}
    for key, value, fault in [
        ("ra", np.array([[0, 1, 2, 3]]), "ra is not a permutation of 1 to 4"),
        ("ra", np.array([[1, 2]]), "ra is 2, not 4"),
        ("data", few["data"][:, :30], "data is 4 x 30, not 4 x 38"),
        ("bbox", few["bbox"] * np.nan, "bbox holds a value"),
        ("mask_new", np.array([["a"]]), "mask_new does not hold numbers"),
        ("nameList", few["nameList"][:2], "2 names for 4"),
        ("nameList", np.array([["../a.jpg"]] * 4, object), "'../a.jpg' leads out of"),
        ("nameList", np.array([[""]] * 4, object), "cannot be the name of a file"),
    ]:
        savemat(file, few | {key: value})
        refuses(f"AFLWinfo_release.mat.*{fault}", parse, "aflw", root, allow_partial=True)
    savemat(file, {key: value for key, value in few.items() if key != "ra"})
    refuses("no ra", parse, "aflw", root)
    savemat(file, few)
    refuses("AFLW", parse, "aflw", root, allow_partial=True)
    for data in (file.read_bytes()[:300], b"", b"no" * 500):
        spoilt(file, data, "AFLWinfo_release.mat", parse, "aflw", root)
    file.unlink()
    refuses("AFLWinfo_release.mat", parse, "aflw", root)


# -------------------------------------------------------------------------------------------------------------- 300W-LP
@pytest.mark.parametrize("redrawn", [True, False])
def test_300wlp(lp, tmp_path, redrawn):
    root, faces = lp
    if not redrawn:
        shutil.rmtree(root / "landmarks")
    assert infer(root) == "300wlp"
    records = parse("300wlp", root, allow_partial=True)["train"]
    assert len(records) == 6
    for record in records:
        part, stem = record.image.parent.name, record.image.stem
        pt2d, _, pose = faces[f"{part}/{stem}"]
        plain = faces[f"{part.removesuffix('_Flip')}/{stem}"][1]
        flip_index = LAYOUTS.load("68").flip_index
        mirrored = np.column_stack([450 - plain[:, 0], plain[:, 1]])[list(flip_index)]
        expected = pt2d if not redrawn else mirrored if part.endswith("_Flip") else plain
        assert np.allclose(record.landmarks, expected) and np.allclose(record.pose, pose[:3])  # pitch, yaw, roll
        assert np.allclose(record.box, [*expected.min(0), *expected.max(0)])
        assert record.subset == part and not hasattr(record, "visible")
        assert record.identity == {"H": "HELEN/HELEN_12", "L": "LFPW/LFPW_image_train_0003"}[part[0]]
    folder = prepared("300wlp", root, tmp_path / "data")
    table = load_split(folder, "train")
    assert np.allclose(table["pose"][:], [record.pose for record in records], atol=1e-6) and "states" not in table
    assert read_meta(folder)["found"] == {"HELEN": 2, "LFPW": 1, "HELEN_Flip": 2, "LFPW_Flip": 1}


def test_300wlp_mirrors_by_the_layout_that_it_is_given(lp, tmp_path):
    row = {**LAYOUTS.rows["68"], "flip_index": ["0-67"]}
    tables = [
        load_split(prepared("300wlp", lp[0], tmp_path / name, layouts=layouts), "train")
        for name, layouts in (("usual", LAYOUTS), ("other", LAYOUTS.with_rows({"68": row})))
    ]
    mirrored = [subset.endswith("_Flip") for subset in tables[0]["subset"]]
    usual, other = (table["landmarks"][:] for table in tables)
    assert sum(mirrored) == 3 and np.allclose(usual[mirrored], other[mirrored][:, list(LAYOUTS.load("68").flip_index)])
    assert np.array_equal(usual[~np.array(mirrored)], other[~np.array(mirrored)])


def test_300wlp_incomplete_or_wrong(lp):
    root, _ = lp
    refuses(r"5207(.|\n)*2 of 37676(.|\n)*16556", parse, "300wlp", root)
    mat = root / "HELEN_Flip" / "HELEN_12_1_0.mat"
    for values, fault in [
        ({"pt2d": np.ones((2, 21))}, "no Pose_Para"),
        ({"Pose_Para": np.ones((1, 7))}, "no pt2d"),
        ({"pt2d": np.ones((2, 68)), "Pose_Para": np.ones((1, 6))}, "Pose_Para is 1 x 6, not 1 x 7"),
    ]:
        savemat(mat, values)
        refuses(f"HELEN_12_1_0.mat: {fault}", parse, "300wlp", root, allow_partial=True)
    mat.unlink()
    (root / "landmarks/LFPW/LFPW_image_train_0003_0_pts.mat").unlink()
    refuses("0003_0_pts.mat.*1 more", parse, "300wlp", root, allow_partial=True)
    shutil.rmtree(root / "landmarks")
    savemat(mat, {"pt2d": np.ones((2, 21)), "Pose_Para": np.ones((1, 7))})
    refuses("pt2d is 2 x 21, not 2 x 68", parse, "300wlp", root, allow_partial=True)


@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited on Linux")
def test_a_file_that_claims_more_memory_than_annotations_need_is_refused(tmp_path):
    file = tmp_path / "a.mat"
    savemat(file, {"a": np.zeros(1 << 28, np.uint8)}, do_compression=True)
    limit = resource.getrlimit(resource.RLIMIT_AS)
    with pytest.raises(UserError, match="a.mat"), memory.limited(0.1):
        read_mat(file, "a")
    with open(file, "wb") as handle:
        handle.truncate(13 << 30)
    refuses("13958643712", read_mat, file, "a")
    assert resource.getrlimit(resource.RLIMIT_AS) == limit


@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited on Linux")
def test_the_limit_on_memory_ends_with_the_last_of_several_threads():
    limit, first, second = resource.getrlimit(resource.RLIMIT_AS), threading.Event(), threading.Event()

    def outer():
        with memory.limited():
            first.set()
            second.wait(10)

    thread = threading.Thread(target=outer)
    thread.start()
    first.wait(10)
    with memory.limited():
        second.set()
        thread.join()
        assert resource.getrlimit(resource.RLIMIT_AS) != limit
    assert resource.getrlimit(resource.RLIMIT_AS) == limit
