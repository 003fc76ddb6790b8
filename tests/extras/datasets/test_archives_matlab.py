"""Sets in MATLAB's containers: each field of a small archive comes back as the release means it."""

import resource
import shutil
import sys
import threading

import archives
import numpy as np
import pytest
from archives import parse, prepared, write_cofw
from conftest import LAYOUTS, load_split, refuses
from scipy.io import loadmat, savemat

from extras.datasets import infer
from extras.datasets.mat import read_mat
from pipnet.errors import UserError
from utils.data.prepared_set import read_meta, read_source_image
from utils.evaluate.evaluate import subset_rows
from utils.settings import memory


# ----------------------------------------------------------------------------------------------------------------- COFW
def test_cofw(tmp_path, monkeypatch):
    root, sets = archives.cofw(tmp_path)
    assert infer(root) == "cofw"
    splits = parse("cofw", root, allow_partial=True)
    for split, (images, boxes, phis) in sets.items():
        for index, face in enumerate(splits[split]):
            assert np.allclose(face.landmarks.T.ravel(), phis[index, :58] - 0.5)  # MATLAB counts pixels from 1
            assert (face.visible == (phis[index, 58:] == 0)).all() and face.subset == split
            x, y, w, h = boxes[index]
            assert np.allclose(face.box, [x - 0.5, y - 0.5, x + w - 1.5, y + h - 1.5])  # from x to x + w - 1
            name = f"{index + 1:04d}"
            assert face.image == root / f"COFW_{split}_color.mat" / name and face.identity == f"{split}/{name}"
            image = read_source_image(face.image)
            plain = np.repeat(images[1][..., None], 3, 2) if index == 1 else images[0]
            assert image.dtype == np.uint8 and np.array_equal(image, plain[..., ::-1])  # RGB there, BGR here
    folder = prepared("cofw", root, tmp_path / "data", protocol="box")
    table = load_split(folder, "test")
    assert list(table["file"]) == [f"COFW_test_color.mat/000{i}" for i in (1, 2, 3)]
    assert (table["size"] == (160, 120)).all() and np.allclose(table["crop"], table["box"])
    assert (table["visible"] == (sets["test"][2][:, 58:] == 0)).all()
    assert np.array_equal(load_split(folder, "train")["landmarks"][0], splits["train"][0].landmarks.round(4))
    refuses(r"3 of 1345(.|\n)*3 of 507", parse, "cofw", root)
    images, boxes, phis = sets["test"]
    write_cofw(root / "COFW_test_color.mat", "T", [image.astype(float) for image in images], boxes, phis)
    refuses("IsT 1: float64", read_source_image, splits["test"][0].image)
    monkeypatch.setitem(sys.modules, "h5py", None)
    refuses("pip install h5py", parse, "cofw", root, allow_partial=True)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda images, boxes, phis: (images, boxes[:2], phis), "do not belong together"),
        (lambda images, boxes, phis: (images, boxes, phis[:, :58]), "do not belong together"),
        (lambda images, boxes, phis: (images, boxes, phis * [[1], [np.nan], [1]]), "face 2 are not finite"),
        (lambda images, boxes, phis: (images, boxes * 0, phis), "0001: its face box is empty"),
    ],
)
def test_faults_of_cofw(tmp_path, change, fault):
    root, sets = archives.cofw(tmp_path)
    write_cofw(root / "COFW_test_color.mat", "T", *change(*sets["test"]))
    refuses(f"COFW_test_color.mat.*{fault}", parse, "cofw", root, allow_partial=True)


def test_cofw68(tmp_path):
    root, images, boxes, faces = archives.cofw68(tmp_path)
    refuses(r"COFW-68(.|\n)*3 of 507", parse, "cofw68", root)
    splits = parse("cofw68", root, allow_partial=True)
    assert list(splits) == ["test"]
    for face, image, (points, hidden), (x, y, w, h) in zip(splits["test"], images, faces, boxes, strict=True):
        assert np.allclose(face.landmarks, points - 0.5)
        assert np.allclose(face.box, [x - 0.5, y - 0.5, x + w - 1.5, y + h - 1.5])
        assert (face.visible == (hidden[:, 0] == 0)).all() and face.subset == "test"
        assert read_source_image(face.image).shape[:2] == image.shape[:2]
        assert face.image.parent == root / "COFW_test_color.mat"
    folder = prepared("cofw68", root, tmp_path / "data", protocol="box")
    assert read_meta(folder)["layout"] == "68" and len(load_split(folder, "test")) == 3
    (root / "COFW68_Data/test_annotations/2_points.mat").unlink()
    assert [face.image.name for face in parse("cofw68", root, allow_partial=True)["test"]] == ["0001", "0003"]
    savemat(root / "COFW68_Data/cofw68_test_bboxes.mat", {"bboxes": np.tile(boxes, (2, 1))})
    refuses("6 boxes.*3", parse, "cofw68", root, allow_partial=True)


# ----------------------------------------------------------------------------------------------------------------- AFLW


def test_aflw(tmp_path):
    root, variables, chosen = archives.aflw(tmp_path)
    assert infer(root) == "aflw"
    splits = parse("aflw", root, allow_partial=True)
    assert [len(splits[split]) for split in ("train", "test")] == [2, 3]  # the first 20000 of ra train
    for index, face in zip(chosen, splits["train"] + splits["test"], strict=True):
        data, box = variables["data"][index] + 0.5, variables["bbox"][index] + 0.5
        assert np.allclose(face.landmarks, data.reshape(2, 19).T)
        assert np.allclose(face.box, box[[0, 2, 1, 3]])
        assert (face.visible == variables["mask_new"][index].astype(bool)).all()
        name = variables["nameList"][index, 0]
        assert face.image == root / "flickr" / name and face.identity == name
    assert [face.subset for face in splits["test"]] == ["test//frontal", "test", "test//frontal"]
    folder = prepared("aflw", root, tmp_path / "data", protocol="box")
    table = load_split(folder, "test")
    assert table["visible"].sum(1).tolist() == [19, 17, 19] and np.allclose(table["crop"], table["box"])
    assert table["file"][1] == f"{table['file'][0]}#2" and load_split(folder, "train")["visible"][0].sum() == 17
    assert list(subset_rows(table["subset"])) == ["full", "frontal"]
    assert load_split(folder, "train").crop(0).shape == (40, 40, 3)  # a grey picture
    refuses(r"2 of 20000(.|\n)*4386(.|\n)*1314(.|\n)*24381", parse, "aflw", root)


@pytest.mark.parametrize(
    ("key", "value", "fault"),
    [
        ("ra", np.array([[0, 1, 2, 3]]), "ra is not a permutation of 1 to 4"),
        ("data", np.ones((4, 30)), "data is 4 x 30, not 4 x 38"),
        ("bbox", np.full((4, 4), np.nan), "bbox holds a value"),
        ("mask_new", np.array([["a"]]), "mask_new does not hold numbers"),
        ("nameList", np.array([["a.jpg"]] * 2, object), "2 names for 4"),
        ("nameList", np.array([["../a.jpg"]] * 4, object), "'../a.jpg' leads out of"),
        ("ra", None, "no ra"),
    ],
)
def test_faults_of_matlab_files(tmp_path, key, value, fault):
    (root,) = archives.few_aflw(tmp_path)
    file = root / "AFLWinfo_release.mat"
    variables = {name: array for name, array in loadmat(file).items() if name[0] != "_"}
    savemat(file, {name: array for name, array in (variables | {key: value}).items() if array is not None})
    refuses(f"AFLWinfo_release.mat.*{fault}", parse, "aflw", root, allow_partial=True)


@pytest.mark.parametrize("name", ["aflw", "cofw"])
@pytest.mark.parametrize("size", [0, 300, None])
def test_a_damaged_matlab_file(tmp_path, name, size):
    root = {"aflw": archives.few_aflw, "cofw": archives.cofw}[name](tmp_path)[0]
    file = next(root.glob("*.mat"))
    file.write_bytes(b"no" * 500 if size is None else file.read_bytes()[:size])
    refuses(file.name, parse, name, root, allow_partial=True)


# -------------------------------------------------------------------------------------------------------------- 300W-LP
@pytest.mark.parametrize("redrawn", [True, False])
def test_300wlp(tmp_path, redrawn):
    root, annotated = archives.lp(tmp_path)
    if not redrawn:
        shutil.rmtree(root / "landmarks")
    assert infer(root) == "300wlp"
    faces = parse("300wlp", root, allow_partial=True)["train"]
    assert len(faces) == 6
    for face in faces:
        part, stem = face.image.parent.name, face.image.stem
        pt2d, _, pose = annotated[f"{part}/{stem}"]
        plain = annotated[f"{part.removesuffix('_Flip')}/{stem}"][1]
        mirrored = np.column_stack([450 - plain[:, 0], plain[:, 1]])[list(LAYOUTS.load("68").flip_index)]
        expected = pt2d if not redrawn else mirrored if part.endswith("_Flip") else plain
        assert np.allclose(face.landmarks, expected) and np.allclose(face.pose, pose[:3])  # pitch, yaw, roll
        assert np.allclose(face.box, [*expected.min(0), *expected.max(0)]) and face.subset == part
        assert face.identity == {"H": "HELEN/HELEN_12", "L": "LFPW/LFPW_image_train_0003"}[part[0]]
    folder = prepared("300wlp", root, tmp_path / "data")
    table = load_split(folder, "train")
    assert np.allclose(table["pose"], [face.pose for face in faces], atol=1e-6) and "states" not in table
    assert read_meta(folder)["found"] == {"HELEN": 2, "LFPW": 1, "HELEN_Flip": 2, "LFPW_Flip": 1}
    refuses(r"5207(.|\n)*2 of 37676(.|\n)*16556", parse, "300wlp", root)
    savemat(root / "HELEN_Flip" / "HELEN_12_1_0.mat", {"pt2d": np.ones((2, 68)), "Pose_Para": np.ones((1, 6))})
    refuses("HELEN_12_1_0.mat: Pose_Para is 1 x 6, not 1 x 7", parse, "300wlp", root, allow_partial=True)


def test_300wlp_mirrors_by_the_layout_that_it_is_given(tmp_path):
    root, _ = archives.lp(tmp_path)
    row = {**LAYOUTS.rows["68"], "flip_index": ["0-67"]}
    tables = [
        load_split(prepared("300wlp", root, tmp_path / name, layouts=layouts), "train")
        for name, layouts in (("usual", LAYOUTS), ("other", LAYOUTS.with_rows({"68": row})))
    ]
    mirrored = [subset.endswith("_Flip") for subset in tables[0]["subset"]]
    usual, other = (table["landmarks"] for table in tables)
    assert sum(mirrored) == 3 and np.allclose(usual[mirrored], other[mirrored][:, list(LAYOUTS.load("68").flip_index)])
    assert np.array_equal(usual[~np.array(mirrored)], other[~np.array(mirrored)])


@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited on Linux")
def test_a_file_that_claims_more_memory_than_annotations_need_is_refused(tmp_path):
    file = tmp_path / "a.mat"
    savemat(file, {"a": np.zeros(1 << 28, np.uint8)}, do_compression=True)
    limit = resource.getrlimit(resource.RLIMIT_AS)
    with pytest.raises(UserError, match="a.mat"), memory.limited(0.1):
        read_mat(file, "a")
    with open(file, "wb") as handle:
        handle.truncate(13 << 30)
    refuses("a.mat: .*2,147,483,648 bytes", read_mat, file, "a")
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
