"""The formats of files that the project reads: whole inputs of each, how it is read, and files with code in them."""

import os
import pickle
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from mutators import BINARY, TEXT, large
from victims import ROOT, fresh


class Format(NamedTuple):
    """make(folder) writes whole inputs, (folder, name of the file that is changed); read(file) is what the commands
    call.
    """

    make: Callable[[Path], list[tuple[Path, str]]]
    read: Callable[[Path], object]
    mutators: tuple = BINARY


def one_folder(folder: Path, files: dict[str, bytes]) -> list[tuple[Path, str]]:
    """Write each file into a folder of its own."""
    made = []
    for name, data in files.items():
        place = folder / name.replace(".", "_")
        place.mkdir(parents=True)
        (place / name).write_bytes(data)
        made.append((place, name))
    return made


def make_checkpoint(folder: Path) -> list[tuple[Path, str]]:
    import torch
    from conftest import LAYOUTS, contents, mean_face, untrained

    file = one_folder(folder, {"best.pt": b""})[0]
    torch.save(contents(untrained(mean_face()), LAYOUTS.load("68"), epoch=1), file[0] / file[1])
    return [file]


def make_weights(folder: Path) -> list[tuple[Path, str]]:
    import torch
    from conftest import mean_face, to_published, untrained

    made = one_folder(folder, {"snapshot.pth": b"", "old.pth": b""})
    published = to_published(untrained(mean_face(), name="mobilenetv2").state_dict(), "pipnet")
    state = {f"module.{name}": tensor for name, tensor in published.items()}
    for place, _ in made:
        (place / "meanface.txt").write_text(" ".join(["0.5 0.4"] * 68))
    torch.save(state, made[0][0] / made[0][1])
    torch.save(state, made[1][0] / made[1][1], _use_new_zipfile_serialization=False)
    return made


def read_checkpoint(file: Path) -> None:
    from utils.settings.config import read_defaults
    from utils.train import checkpoint

    checkpoint.load(file, read_defaults())
    checkpoint.unpack(file, read_defaults())


def read_weights(file: Path) -> None:
    from utils.settings.config import read_defaults
    from utils.train import checkpoint
    from utils.train.checkpoint import structure

    structure(*checkpoint.load_weights(file), read_defaults())
    checkpoint.load(file, read_defaults())


def make_onnx(folder: Path) -> list[tuple[Path, str]]:
    return one_folder(
        folder, {name: (ROOT / "weights" / name).read_bytes() for name in ("detector.onnx", "landmarks.onnx")}
    )


def read_onnx(file: Path) -> None:
    from pipnet import Detector
    from pipnet.landmark_net import open_net

    if file.name == "detector.onnx":
        Detector("faceboxes", file, threads=1)(np.zeros((64, 64, 3), np.uint8))
    else:
        net = open_net(file, 1)
        net.predict(np.zeros((1, net.size, net.size, 3), np.uint8))


def read_args(file: Path) -> None:
    from utils.settings.config import make_settings, read_defaults

    make_settings({}, read_defaults(file), "quick")


def make_layout(folder: Path) -> list[tuple[Path, str]]:
    text = (
        b"ten:\n  count: 5\n  flip_index: [1, 0, 2, 4, 3]\n  interocular: [0, 1]\n  pupils: [[0], [1]]\n"
        b'  groups: {eyes: [0, 1], nose: [2], lips: ["3-4"]}\n  closed: [eyes]\n  same_as: {"68": {0: 36, 1: 45}}\n'
    )
    return one_folder(folder, {"layout.yaml": text})


def read_layout(file: Path) -> None:
    from utils.settings.config import read_defaults

    name, layouts = read_defaults().layouts.with_file(str(file))
    layouts.load(name)


def drawn(folder: Path, count: int = 3) -> Path:
    """Write rendered faces with a .pts each."""
    from extras.synthetic import render
    from utils.data.pts import write_pts

    folder.mkdir(parents=True)
    for index in range(count):
        face = render(0, index, 64)
        cv2.imwrite(str(folder / f"face{index}.png"), face.image)
        write_pts(folder / f"face{index}.pts", face.landmarks)
    return folder


def make_prepared(folder: Path) -> list[tuple[Path, str]]:
    from utils.data.prepare import DataGenerator

    target = DataGenerator(drawn(folder / "raw", 6), 64, "points", "set", folder, val=0.3, workers=1).run()
    names = sorted(file.name for file in (target / "train").iterdir())
    return [(target, name) for name in (*(f"train/{name}" for name in names), "meta.yaml", "meanface.txt")]


def read_prepared(file: Path) -> None:
    from utils.data.prepared_set import PreparedSet
    from utils.settings.config import read_defaults

    folder = file.parent if (file.parent / "meta.yaml").is_file() else file.parent.parent
    layouts = read_defaults().layouts
    one = PreparedSet(folder, layouts)
    for value in ("layout", "protocol", "title"):
        getattr(one, value)
    faces = one.read("train")
    for values in faces.columns.values():
        values[:]
    for index in range(len(faces)):
        faces.crops[index]
    one.meanface()


def make_meanface(folder: Path) -> list[tuple[Path, str]]:
    mean = np.random.default_rng(0).random((68, 2))
    made = one_folder(folder, {"mean.txt": " ".join(map(str, mean.ravel())).encode(), "mean.npy": b""})
    np.save(made[1][0] / made[1][1], mean)
    return made


def read_mean(file: Path) -> None:
    from utils.data.sets import read_meanface

    read_meanface(file)


def own_set(writer: str, name: str) -> Callable[[Path], list[tuple[Path, str]]]:
    """Return a function that writes three faces by a function of own_sets.py. name: of the file that is changed."""

    def make(folder: Path) -> list[tuple[Path, str]]:
        import own_sets

        return [(getattr(own_sets, writer)(folder / "set", [own_sets.FIVE + i for i in range(3)]), name)]

    return make


def parse(dataset: str) -> Callable[[Path], None]:
    def read(file: Path) -> None:
        from extras.datasets import DATASETS
        from utils.settings.config import read_defaults

        DATASETS[dataset].parse(file.parent, False, None, layouts=read_defaults().layouts)

    return read


def make_mat(folder: Path) -> list[tuple[Path, str]]:
    from scipy.io import savemat

    made = one_folder(folder, {"face.mat": b"", "packed.mat": b"", "old.mat": b""})
    values = {"pt2d": np.random.default_rng(0).random((2, 68)) * 64, "Pose_Para": np.ones((1, 7))}
    savemat(made[0][0] / made[0][1], values)
    savemat(made[1][0] / made[1][1], values, do_compression=True)
    savemat(made[2][0] / made[2][1], values, format="4")
    return made


def read_matrix(file: Path) -> None:
    from extras.datasets.mat import read_mat, values

    arrays = read_mat(file, "pt2d", "Pose_Para")
    values(arrays[0], (2, 68), str(file))


def png(side: int) -> bytes:
    """Return a valid grey PNG of side x side px, all black: small as a file, 2.4 GB in OpenCV for 20,000 px."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(bytes(side // 8 + 2)[: side // 8 + 1]) for _ in range(side)) + packer.flush()
    header = side.to_bytes(4, "big") * 2 + bytes([1, 0, 0, 0, 0])
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def make_pictures(folder: Path) -> list[tuple[Path, str]]:
    image = cv2.resize(cv2.imread(str(ROOT / "assets/astronaut.jpg")), (96, 64))
    files = {
        f"face.{kind}": cv2.imencode(f".{kind}", image)[1].tobytes() for kind in ("jpg", "png", "bmp", "tiff", "webp")
    }
    return one_folder(folder, files | {f"bomb_{side}.png": png(side) for side in (20_000, 60_000)})


def read_picture(file: Path) -> None:
    from pipnet.images import is_picture, read_image

    is_picture(file)
    read_image(file)


def make_video(folder: Path) -> list[tuple[Path, str]]:
    made = one_folder(folder, {"clip.avi": b"", "clip.mp4": b""})
    for (place, name), code in zip(made, ("MJPG", "mp4v"), strict=True):
        writer = cv2.VideoWriter(str(place / name), cv2.VideoWriter_fourcc(*code), 10, (64, 48))
        for shade in range(8):
            writer.write(np.full((48, 64, 3), 30 * shade, np.uint8))
        writer.release()
    return made


def read_video(file: Path) -> None:
    from pipnet.video.sources import open_source, silence_opencv

    silence_opencv()
    source = open_source(str(file))
    try:
        for frame in source:
            assert frame.image.ndim == 3
    finally:
        source.close()


FORMATS = {
    "checkpoint": Format(make_checkpoint, read_checkpoint),
    "published weights": Format(make_weights, read_weights),
    "ONNX": Format(make_onnx, read_onnx),
    "args.yaml": Format(
        lambda folder: one_folder(folder, {"args.yaml": (ROOT / "args.yaml").read_bytes()}), read_args, TEXT
    ),
    "layout file": Format(make_layout, read_layout, TEXT),
    "prepared set": Format(make_prepared, read_prepared, (*BINARY, *TEXT)),
    "mean face": Format(make_meanface, read_mean, (*TEXT, large)),
    ".pts": Format(own_set("write_pairs", "1.pts"), parse("points"), TEXT),
    "CSV": Format(own_set("write_rows", "labels.csv"), parse("csv"), TEXT),
    "COCO": Format(own_set("write_coco", "labels.json"), parse("coco"), TEXT),
    ".mat": Format(make_mat, read_matrix),
    "picture": Format(make_pictures, read_picture),
    "video": Format(make_video, read_video),
}


class Harmful:
    """Makes a file when it is unpickled."""

    def __init__(self, file: Path):
        self.file = str(file)

    def __reduce__(self):
        return (os.mkdir, (self.file,))


def harmful(folder: Path, mark: Path) -> dict[str, tuple[str, Path]]:
    """Write files that would make `mark` if they were unpickled or evaluated: {what: (format that reads it, file)}."""
    import torch

    code = Harmful(mark)
    made = make_checkpoint(folder / "checkpoint")[0]
    stored = torch.load(made[0] / made[1], weights_only=True)
    cases = {}
    for place in (
        ("epoch",),
        ("rows",),
        ("solver",),
        ("args",),
        ("model", "any"),
        ("net", "meanface"),
        ("layout", "count"),
    ):
        values = {**stored, place[0]: code if len(place) == 1 else {**stored[place[0]], place[1]: code}}
        for kind in ("torch", "pickle"):
            file = fresh(folder / f"{kind}-{'-'.join(place)}") / "best.pt"
            torch.save(values, file) if kind == "torch" else file.write_bytes(pickle.dumps(values))
            cases[f"{kind}, {'/'.join(place)}"] = ("checkpoint", file)
    for suffix in ("pth", "tar"):
        file = fresh(folder / suffix) / f"weights.{suffix}"
        torch.save({"state_dict": {"layer": code}}, file)
        cases[f"published, .{suffix}"] = ("published weights", file)
    file = fresh(folder / "npy") / "mean.npy"
    np.save(file, np.array([code], dtype=object), allow_pickle=True)
    cases["mean face, .npy"] = ("mean face", file)
    tag = f"!!python/object/apply:os.mkdir ['{mark}']\n"
    for name, kind, text in (("args.yaml", "args.yaml", f"data: {tag}"), ("layout.yaml", "layout file", tag)):
        (file := fresh(folder / name.replace(".", "-")) / name).write_text(text)
        cases[name] = (kind, file)
    place, _ = make_prepared(folder / "prepared")[0]
    (place / "meta.yaml").write_text((place / "meta.yaml").read_text() + f"more: {tag}")
    cases["meta.yaml"] = ("prepared set", place / "meta.yaml")
    place, _ = make_prepared(fresh(folder / "column"))[0]
    np.save(place / "train" / "crop.npy", np.array([code], dtype=object), allow_pickle=True)
    cases["column of a set"] = ("prepared set", place / "train" / "crop.npy")
    return cases
