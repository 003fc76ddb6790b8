"""Small archives in the layout and container of the official downloads: a random picture a face, and what was
annotated.
"""

from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from conftest import LAYOUTS
from scipy.io import savemat

from extras.datasets import DATASETS
from extras.datasets.w300 import PARTS
from extras.shared.pts import read_pts, write_pts
from utils.data.prepare import DataGenerator
from utils.data.table import image_of

RNG = np.random.default_rng(4)
START = RNG.bit_generator.state  # of each test, so that its numbers do not depend on the tests before it
FACES = 24386  # of AFLW


def parse(name: str, folder: Path, **options) -> dict[str, list[SimpleNamespace]]:
    """{split: its faces, a field a column, and the path of the `image`} by the parser of a dataset."""
    splits = DATASETS[name].parse(folder, layouts=LAYOUTS, **options)
    return {
        split: [
            SimpleNamespace(image=image_of(folder, file), **{name: column[row] for name, column in table.items()})
            for row, file in enumerate(table["file"])
        ]
        for split, table in splits.items()
    }


def prepared(name: str, folder: Path, out: Path, **options) -> Path:
    """The prepared set of an incomplete archive, 32 px."""
    return DataGenerator(folder, 32, name, out=out, workers=1, allow_partial=True, val=0, **options).run()


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
    lists = {
        split: [
            (landmarks(98), (30 + i, 20, 120, 100 + i), np.eye(6, dtype=int)[i], f"{i}--Event/{name}_{min(i, 1)}.jpg")
            for i in range(3)
        ]
        for split, name in (("train", "a"), ("test", "b"))
    }
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


def write_106(file: Path) -> np.ndarray:
    """Write 106 random landmarks as the text files of LaPa and JD-landmark hold them; return them."""
    file.parent.mkdir(parents=True, exist_ok=True)
    points = landmarks(106)
    file.write_text("106\n" + "".join(f"{x:.4f} {y:.4f}\n" for x, y in points))
    return points


def lapa(tmp_path: Path) -> tuple:
    """(folder, landmarks by stem, the path of the picture without its ending) of two faces a split; those to train are of
    one photograph.
    """
    root, points = tmp_path / "LaPa", {}
    for split, names in (("train", ("11_0", "11_1")), ("val", ("22_0", "23_0")), ("test", ("24_0", "25_0"))):
        for name in names:
            picture(root / split / "images" / f"{name}.jpg")
            points[f"{split}/images/{name}"] = write_106(root / split / "landmarks" / f"{name}.txt")
    return root, points


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


def cofw68(tmp_path: Path) -> tuple:
    """(folder, images of COFW's test, boxes, [(landmarks (68, 2), hidden (68, 1))])."""
    root, sets = cofw(tmp_path)
    (root / "COFW68_Data/test_annotations").mkdir(parents=True)
    boxes = np.array([[30.0, 20, 100, 80], [31, 20, 100, 80], [32, 20, 100, 80]])
    savemat(root / "COFW68_Data/cofw68_test_bboxes.mat", {"bboxes": boxes})
    faces = [(landmarks(68), RNG.integers(0, 2, (68, 1))) for _ in boxes]
    for number, (points, hidden) in enumerate(faces, 1):
        savemat(root / f"COFW68_Data/test_annotations/{number}_points.mat", {"Points": points, "Occ": hidden})
    return root, sets["test"][0], boxes, faces


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
        "mask_new": mask,
        "nameList": names,
        "ra": (order + 1)[None],
    }
    places = [0, 19999, 20000, 20001, 24385]
    for place in places:
        picture(root / "flickr" / str(names[order[place], 0]), grey=place == 0)
    savemat(root / "AFLWinfo_release.mat", variables)
    return root, variables, order[places]


def few_aflw(tmp_path: Path) -> tuple:
    """(folder,) with a table of four faces, all to train."""
    root = tmp_path / "AFLW"
    names = [picture(root / "flickr" / f"0/image{i:05d}.jpg").relative_to(root / "flickr").as_posix() for i in range(4)]
    points = np.array([landmarks(19) for _ in names])
    savemat(
        root / "AFLWinfo_release.mat",
        {
            "bbox": np.tile([30.0, 130, 20, 100], (4, 1)),
            "data": np.concatenate([points[..., 0], points[..., 1]], 1),
            "mask_new": RNG.integers(0, 2, (4, 19)),
            "nameList": np.array([[name] for name in names], object),
            "ra": [[2, 4, 1, 3]],
        },
    )
    return (root,)


def lp(tmp_path: Path) -> tuple:
    """(folder, {part/stem: (pt2d (68, 2), pts_2d (68, 2), Pose_Para)}): two turns of a face, one of another, and all
    mirrored.
    """
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
    """(folder, {split: [(file, points)]}): two training faces, one in a folder of another script, and two of one test
    picture.
    """
    root = tmp_path / "own set"
    faces = {
        "train": [("a 1.jpg", landmarks(5)), ("\u00e9t\u00e9/b.png", landmarks(5))],
        "test": [("c.jpg", landmarks(5))] * 2,
    }
    faces["test"][1] = "c.jpg", landmarks(5)
    for name in ("a 1.jpg", "images/\u00e9t\u00e9/b.png", "c.jpg"):
        picture(root / name, grey="c" in name)
    sixteen = RNG.integers(0, 65536, (120, 160), dtype=np.uint16)
    (root / "images/\u00e9t\u00e9/b.png").write_bytes(cv2.imencode(".png", sixteen)[1].tobytes())
    return root, faces


def header(count: int) -> str:
    return ",".join(["file", *(f"{axis}{i}" for i in range(count) for axis in "xy")])


def write_csv(file: Path, faces: list) -> None:
    lines = [header(len(faces[0][1])), *(",".join([name, *map(str, points.ravel())]) for name, points in faces)]
    file.write_text("\r\n".join(lines).replace("nan", "") + "\r\n", encoding="utf-8-sig")


def coco(faces: list) -> dict:
    names = sorted({name for name, _ in faces})
    marks = [np.array([[2], [1], [2], [i and 2], [2]]) for i in range(len(faces))]
    annotations = [
        {
            "id": i,
            "image_id": names.index(name),
            "bbox": [20 + i, 10, 110, 100],
            "category_id": 1,
            "keypoints": np.where(marks[i] > 0, np.hstack([points, marks[i]]), 0).ravel().tolist(),
        }
        for i, (name, points) in enumerate(faces)
    ]
    annotations.append({"id": 99, "image_id": 0, "keypoints": [0] * 15})
    annotations.append({"id": 100, "image_id": 0, "iscrowd": 1, "keypoints": [40, 40, 2] * 5})
    return {"images": [{"id": i, "file_name": name} for i, name in enumerate(names)], "annotations": annotations}


def annotated(file: Path, count: int, width: int = 160, height: int = 120) -> np.ndarray:
    """A picture with `count` landmarks in the .pts beside it; these (count, 2)."""
    points = landmarks(count, width, height)
    write_pts(picture(file, width, height).with_suffix(".pts"), points)
    return points


def private(tmp_path: Path) -> tuple:
    """(folder, landmarks by stem) of two indoor faces and one outdoors."""
    root = tmp_path / "300W"
    names = ("01_Indoor/indoor_001.png", "01_Indoor/indoor_002.png", "02_Outdoor/outdoor_001.png")
    return root, {name.removesuffix(".png"): annotated(root / name, 68) for name in names}


def both(tmp_path: Path) -> tuple:
    """(folder with 300W and WFLW, WFLW's lists)."""
    _, lists = wflw(tmp_path / "both")
    for part in PARTS:
        annotated(tmp_path / "both/300W" / part / f"{part.replace('/', '')}_1.jpg", 68)
    return tmp_path / "both", lists


def peppa(tmp_path: Path) -> tuple:
    """(folder, landmarks by file): Peppa's tree with a face in each part of 300W, its private test set and extracted
    videos.
    """
    private(tmp_path / "Peppa")
    root, _ = vw(tmp_path / "Peppa", extracted=True)
    names = (
        "AFW/afw/1_1.jpg",
        "HELEN/trainset/2_1.jpg",
        "HELEN/testset/3_1.jpg",
        "IBUG/ibug/image_04.jpg",
        "LFPW/trainset/image_0005.png",
        "LFPW/testset/image_0006.png",
    )
    for name in names:
        annotated(root.parent / name, 68)
    return root.parent, {file: read_pts(file) for file in root.parent.rglob("*.pts")}


def menpo(tmp_path: Path) -> tuple:
    """(folder, landmarks by stem): semi-frontal and profile faces in one folder, to train and to test."""
    root = tmp_path / "Menpo"
    names = {
        "menpo_train_release/aflw__face_1.jpg": 68,
        "menpo_train_release/aflw__face_2.jpg": 39,
        "menpo_train_release/b c.jpg": 68,
        "menpo_test_release/d.jpg": 68,
        "menpo_test_release/e.jpg": 39,
    }
    return root, {name.removesuffix(".jpg"): annotated(root / name, count) for name, count in names.items()}


def lmk(tmp_path: Path) -> tuple:
    """(folder, {split: [(name, points (68, 2) in [0, 1])]}): crops, and lists that call them as they were called when
    made.
    """
    root, rng = tmp_path / "LMK", np.random.default_rng(0)
    names = {
        "train": ["afw_1_1.jpg", "afw_1_2.jpg", "37_Soccer_5.jpg"],
        "test": ["lfpw_testset_image_0001.png", "ibug_image_09 _01.jpg"],
    }
    faces = {split: [(name, rng.uniform(0.05, 0.95, (68, 2))) for name in row] for split, row in names.items()}
    for split, row in faces.items():
        lines = [
            " ".join([f"../Dataset/LMK/images/{split}/{name}", *map(str, points.ravel())]) + " \n"
            for name, points in row
        ]
        for name, _ in row:
            picture(root / "images" / split / name, *((256, 256) if "Soccer" not in name else (96, 64)))
        (root / f"{split}.txt").write_text("".join(lines))
    (root / "indices.txt").write_text(" ".join(map(str, faces["train"][0][1].ravel())))
    return root, faces


VIDEOS = {"001": 6, "114": 5, "203": 4, "410": 3}  # frames: one to train, one of each category


def vw(tmp_path: Path, extracted: bool = False) -> tuple:
    """(folder, {video: (frames (F, H, W, 3), landmarks (F, 68, 2))}) with vid.avi, or with pictures in Peppa's
    NNN_annot.
    """
    root, videos = tmp_path / "300VW", {}
    for name, count in VIDEOS.items():
        folder = root / (f"{name}_annot" if extracted else f"{name}/annot")
        folder.mkdir(parents=True)
        frames = np.zeros((count, 120, 160, 3), np.uint8)
        for number, frame in enumerate(frames):
            frame[:] = 40 * number + 20  # tells which it is, whatever the codec makes of it
        points = np.array([landmarks(68) for _ in frames])
        if not extracted:
            writer = cv2.VideoWriter(str(root / name / "vid.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 25, (160, 120))
            assert writer.isOpened()
        for number, (frame, values) in enumerate(zip(frames, points, strict=True), 1):
            write_pts(folder / f"{number:06d}.pts", values)
            if extracted:
                assert cv2.imwrite(str(folder / f"{number:06d}.png"), frame)
            else:
                writer.write(frame)
        if not extracted:
            writer.release()
        videos[name] = frames, points
    return root, videos


def jd(tmp_path: Path) -> tuple:
    """(folder, landmarks by stem): two turns of a face and one of another, a test face with its box."""
    root, points = tmp_path / "JD", {}
    for name in (
        "Training_data/AFW/picture/AFW_1_1_0.jpg",
        "Training_data/AFW/picture/AFW_1_1_4.jpg",
        "Training_data/HELEN/picture/HELEN_2_1_0.jpg",
        "Test_data/picture/t.jpg",
    ):
        file = picture(root / name)
        text = f"{file.name}.txt" if "AFW" in name else f"{file.stem}.txt"
        points[name.removesuffix(".jpg")] = write_106(file.parent.parent / "landmark" / text)
    (root / "Test_data/rect").mkdir()
    (root / "Test_data/rect/t.jpg.rect").write_text("10 20 110 100\n")
    return root, points


def celeba(tmp_path: Path) -> tuple:
    """(folder, landmarks by name): the aligned pictures in the folders of the download and those in the wild, three of
    each.
    """
    root, names = tmp_path / "CelebA", [f"{number:06d}.jpg" for number in (1, 2, 3)]
    points = {}
    for kind, folder, size in (
        ("align_celeba", "Img/img_align_celeba", (178, 218)),
        ("celeba", "img_celeba", (160, 120)),
    ):
        points[kind] = {name: landmarks(5, *size).round() for name in names}
        for name in names:
            picture(root / folder / name, *size)
        file = root / f"Anno/list_landmarks_{kind}.txt"
        file.parent.mkdir(exist_ok=True)
        lines = [f"{name}  " + "  ".join(f"{value:.0f}" for value in points[kind][name].ravel()) for name in names]
        file.write_text("3\nlefteye_x lefteye_y righteye_x\n" + "\n".join(lines) + "\n")
    (root / "Eval").mkdir()
    (root / "Eval/list_eval_partition.txt").write_text("".join(f"{name} {part}\n" for part, name in enumerate(names)))
    (root / "Anno/identity_CelebA.txt").write_text("".join(f"{name} 77\n" for name in names))
    boxes = ["20 10 100 90", "0 0 0 0", "21 11 100 90"]
    lines = [f"{name} {box}" for name, box in zip(names, boxes, strict=True)]
    (root / "Anno/list_bbox_celeba.txt").write_text("3\nimage_id x_1 y_1 width height\n" + "\n".join(lines) + "\n")
    return root, points


def mtfl(tmp_path: Path) -> tuple:
    """(folder, landmarks by stem): names with backslashes, as in the release."""
    root = tmp_path / "MTFL"
    lists = {
        "training": ["lfw_5590\\Aaron_1.jpg", "net_7876\\0_0.jpg"],
        "testing": ["AFLW/0001-image.jpg", "AFLW/0002-image.jpg"],
    }
    points = {}
    for split, names in lists.items():
        lines = []
        for place, name in enumerate(names):
            picture(root / name.replace("\\", "/"))
            points[name.replace("\\", "/").removesuffix(".jpg")] = values = landmarks(5)
            lines.append(
                f" {name} " + " ".join(f"{value:.6f}" for value in values.T.ravel()) + f" 1 2 2 {3 + 2 * place}"
            )
        (root / f"{split}.txt").write_text("\n".join(lines) + "\n \n")
    return root, points
