"""Small archives in the layout and container of the official downloads: a random picture a face, and what was annotated."""
from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.io import savemat

RNG = np.random.default_rng(4)
FACES = 24386  # of AFLW


def picture(file: Path, width: int = 160, height: int = 120, grey: bool = False) -> Path:
    """A blurred noise image, or its folder's. `grey`: one channel."""
    shape = (height, width) if grey else (height, width, 3)
    file.parent.mkdir(parents=True, exist_ok=True)
    image = cv2.GaussianBlur(RNG.integers(0, 256, shape, dtype=np.uint8), (0, 0), 2)
    assert cv2.imwrite(str(file), image)
    return file


def landmarks(count: int, width: int = 160, height: int = 120) -> np.ndarray:
    """(count, 2) random, as text holds them, well inside an image."""
    return RNG.uniform(0.2, 0.8, (count, 2)).round(4) * (width, height)


def wflw_line(points: np.ndarray, box, flags, name: str) -> str:
    return " ".join([*(f"{value:.6f}" for value in points.ravel()), *map(str, box), *map(str, flags), name])


def wflw(tmp_path: Path) -> tuple:
    """(folder, lists of (points, box, flags, name) by split): three training faces; in the test, two of one photograph."""
    root = tmp_path / "WFLW"
    lists = {split: [(landmarks(98), (30 + i, 20, 120, 100 + i), np.eye(6, dtype=int)[i], f"{i}--Event/{name}_{min(i, 1)}.jpg")
                     for i in range(3)] for split, name in (("train", "a"), ("test", "b"))}
    lists["test"][2] = (*lists["test"][2][:3], lists["test"][1][3])
    for split, faces in lists.items():
        for *_, name in faces:
            picture(root / "WFLW_images" / name)
        file = root / f"WFLW_annotations/list_98pt_rect_attr_train_test/list_98pt_rect_attr_{split}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(wflw_line(*face) + "\n" for face in faces))
    file = root / "WFLW_annotations/list_98pt_test/x"
    file.parent.mkdir()
    subsets = {"largepose": [2, 0], "expression": [], "illumination": [1], "makeup": [], "occlusion": [0], "blur": [2]}
    for subset, rows in subsets.items():
        lines = [wflw_line(lists["test"][row][0], (), (), lists["test"][row][3]) for row in rows]
        file.with_name(f"list_98pt_test_{subset}.txt").write_text("".join(line + "\n" for line in lines))
    return root, lists


def lapa(tmp_path: Path) -> tuple:
    """(folder, landmarks by file) of two faces a split; the training faces stem from one photograph."""
    points = {f"{split}/{name}": landmarks(106) for split, names in (
        ("train", ("11_0", "11_1")), ("val", ("22_0", "23_0")), ("test", ("24_0", "25_0"))) for name in names}
    for name, values in points.items():
        split, stem = name.split("/")
        picture(tmp_path / "LaPa" / split / "images" / f"{stem}.jpg")
        text = tmp_path / "LaPa" / split / "landmarks" / f"{stem}.txt"
        text.parent.mkdir(exist_ok=True)
        text.write_text("106\n" + "".join(f"{x:.4f} {y:.4f}\n" for x, y in values))
    return tmp_path / "LaPa", points


def write_cofw(file: Path, end: str, images: list[np.ndarray], boxes: np.ndarray, phis: np.ndarray) -> None:
    """MATLAB's v7.3: every array transposed, cells as references to data sets. images: RGB (H, W, 3) or grey (H, W)."""
    h5py = pytest.importorskip("h5py", reason="pip install h5py")
    with h5py.File(file, "w") as mat:
        cells = mat.create_group("#refs#")
        references = np.empty((1, len(images)), h5py.ref_dtype)  # N x 1 in MATLAB
        for index, image in enumerate(images):
            references[0, index] = cells.create_dataset(f"c{index}", data=image.T).ref
        mat.create_dataset(f"Is{end}", data=references, dtype=h5py.ref_dtype)
        mat.create_dataset(f"bboxes{end}", data=boxes.T)
        mat.create_dataset(f"phis{end}", data=phis.T)


def cofw(tmp_path: Path) -> tuple:
    """(folder, {split: (images, boxes, phis)}): a colour, a grey and a 16-bit picture, wider than high."""
    root = tmp_path / "COFW"
    root.mkdir()
    sets = {}
    for split, end in (("train", "Tr"), ("test", "T")):
        smooth = cv2.GaussianBlur(RNG.integers(0, 256, (120, 160, 3), dtype=np.uint8), (0, 0), 3)
        images = [smooth, smooth[..., 1].copy(), smooth.astype(np.uint16) << 8]
        points = np.array([landmarks(29) for _ in images])
        occluded = RNG.integers(0, 2, (3, 29))
        boxes = np.array([[30.0, 20, 100, 80], [31, 20, 100, 80], [32, 20, 100, 80]])
        sets[split] = images, boxes, np.concatenate([points[..., 0], points[..., 1], occluded], 1)
        write_cofw(root / f"COFW_{split}_color.mat", end, *sets[split])
    return root, sets


def aflw(tmp_path: Path) -> tuple:
    """(folder, variables, images): the release's table of 24,386 faces, of which the images of five are there."""
    root = tmp_path / "AFLW"
    order = RNG.permutation(FACES)
    mask = np.ones((FACES, 19))
    mask[order[[0, 20001]], 3:5] = 0
    names = np.empty((FACES, 1), object)
    names[:, 0] = [f"0/image{i:05d}.jpg" for i in range(FACES)]
    names[order[20001], 0] = names[order[20000], 0]  # two faces of a photograph
    variables = {
        "bbox": np.tile([30.0, 130, 20, 100], (FACES, 1)) + np.arange(FACES)[:, None] % 7,  # x1 x2 y1 y2
        "data": np.concatenate([RNG.uniform(40, 120, (FACES, 19)), RNG.uniform(30, 90, (FACES, 19))], 1).round(3),
        "mask_new": mask, "nameList": names, "ra": (order + 1)[None]}
    places = [0, 19999, 20000, 20001, 24385]
    for place in places:
        picture(root / "flickr" / str(names[order[place], 0]), grey=place == 0)
    savemat(root / "AFLWinfo_release.mat", variables)
    return root, variables, order[places]


def lp(tmp_path: Path) -> tuple:
    """(folder, {part/stem: (pt2d (68, 2), pts_2d (68, 2), Pose_Para)}): two turns of a face, one of another, and all mirrored."""
    root, faces = tmp_path / "300W_LP", {}
    for part, stem in [("HELEN", "HELEN_12_1_0"), ("HELEN", "HELEN_12_1_15"), ("LFPW", "LFPW_image_train_0003_0")]:
        for folder in (part, f"{part}_Flip"):
            faces[f"{folder}/{stem}"] = landmarks(68, 450, 450), landmarks(68, 450, 450), RNG.uniform(-1, 1, 7).round(4)
            pt2d, pts_2d, pose = faces[f"{folder}/{stem}"]
            picture(root / folder / f"{stem}.jpg", 450, 450)
            savemat(root / folder / f"{stem}.mat", {"pt2d": pt2d.T, "Pose_Para": pose[None], "roi": [1, 2, 3, 4]})
            if folder == part:
                (root / "landmarks" / part).mkdir(parents=True, exist_ok=True)
                savemat(root / "landmarks" / part / f"{stem}_pts.mat", {"pts_2d": pts_2d, "pts_3d": pts_2d + 3})
    (root / "AFW_Flip").mkdir()
    return root, faces


def table(tmp_path: Path) -> tuple:
    """(folder, {split: [(file, points)]}): two training faces, one in a folder of another script, and two of one test picture."""
    root = tmp_path / "own set"
    faces = {"train": [("a 1.jpg", landmarks(5)), ("\u00e9t\u00e9/b.png", landmarks(5))], "test": [("c.jpg", landmarks(5))] * 2}
    faces["test"][1] = "c.jpg", landmarks(5)
    for name in ("a 1.jpg", "images/\u00e9t\u00e9/b.png", "c.jpg"):
        picture(root / name, grey="c" in name)
    sixteen = RNG.integers(0, 65536, (120, 160), dtype=np.uint16)
    (root / "images/\u00e9t\u00e9/b.png").write_bytes(cv2.imencode(".png", sixteen)[1].tobytes())
    return root, faces


def header(count: int) -> str:
    return ",".join(["file", *(f"{axis}{i}" for i in range(count) for axis in "xy")])


def write_csv(file: Path, faces: list) -> None:
    lines = [header(5), *(",".join([name, *map(str, points.ravel())]) for name, points in faces)]
    file.write_text("\r\n".join(lines).replace("nan", "") + "\r\n", encoding="utf-8-sig")


def coco(faces: list) -> dict:
    names = sorted({name for name, _ in faces})
    marks = [np.array([[2], [1], [2], [i and 2], [2]]) for i in range(len(faces))]
    annotations = [{"id": i, "image_id": names.index(name), "bbox": [20 + i, 10, 110, 100], "category_id": 1,
                    "keypoints": np.where(marks[i] > 0, np.hstack([points, marks[i]]), 0).ravel().tolist()}
                   for i, (name, points) in enumerate(faces)]
    annotations.append({"id": 99, "image_id": 0, "iscrowd": 1, "keypoints": [0] * 15})
    return {"images": [{"id": i, "file_name": name} for i, name in enumerate(names)], "annotations": annotations}
