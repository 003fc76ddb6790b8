"""Damaged files and wrong values: each file is read as the commands read it, or refused by a UserError.

An input is one of our files with changed bytes, or a whole file in which one value is another one. It is read in a
process that may use SECONDS, and MEMORY more than its packages.
"""

import io
import json
import os
import re
import resource
import signal
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
import yaml
from commands import FORKS, ROOT, fresh

SECONDS, MEMORY, BATCH = 30, 2 << 30, 50
ODD = (b"nan", b"inf", b"-1", b"0", b"1e308", b"999999999999", b"1_0", b"", b"null")
WRONG = (None, -1, 0, 10**9, float("nan"), float("inf"), "text", "", [], {}, True, [1, 2], {"a": 1})
STRANGE = (
    b"",
    b"[" * 50_000,
    b'{"a":' * 50_000,
    b"a: &a [*a, *a]\n" * 9,
    b"PK\x03\x04" + bytes(200),
    b"\x93NUMPY\x01\x00v",
)
Change = Callable[[bytes, np.random.Generator], bytes]


# ------------------------------------------------------------------------------------------------------- other contents
def flipped(data: bytes, rng: np.random.Generator) -> bytes:
    """Flip some bits, most of them near the beginning."""
    changed = bytearray(data)
    for place in (len(data) * rng.random(8) ** 3).astype(int).tolist() if data else ():
        changed[place] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def cut(data: bytes, rng: np.random.Generator) -> bytes:
    """Leave out a part, which may be the rest of the file."""
    begin, end = sorted(rng.integers(len(data) + 1, size=2).tolist())
    return data[:begin] + (data[end:] if rng.random() < 0.5 else b"")


def noise(data: bytes, rng: np.random.Generator) -> bytes:
    """Overwrite a part with noise or zeros."""
    begin, size = int(rng.integers(len(data) + 1)), int(len(data) ** rng.random())
    part = rng.bytes(size) if rng.random() < 0.5 else bytes(size)
    return data[:begin] + part[: len(data) - begin] + data[begin + size :]


def claims(data: bytes, rng: np.random.Generator) -> bytes:
    """Let the header claim a large number."""
    place = int(rng.integers(min(len(data), 512) + 1))
    number = int(rng.choice([2**31 - 1, 10**9, 20_000, 2**16 - 1]))
    return data[:place] + number.to_bytes(4, str(rng.choice(["little", "big"]))) + data[place + 4 :]


def number(data: bytes, rng: np.random.Generator) -> bytes:
    """Replace a number in a text by an odd one."""
    found = [*re.finditer(rb"-?\d+(\.\d+)?", data)]
    one = found[rng.integers(len(found))]
    return data[: one.start()] + ODD[rng.integers(len(ODD))] + data[one.end() :]


def stranger(_data: bytes, rng: np.random.Generator) -> bytes:
    """Return the content of another kind of file."""
    return STRANGE[rng.integers(len(STRANGE))]


BINARY: tuple[Change, ...] = (flipped, cut, noise, claims, stranger)
TEXT: tuple[Change, ...] = (flipped, cut, noise, number, stranger)


# --------------------------------------------------------------------------------------------------------- other values
def spoilt(values: dict, rng: np.random.Generator) -> dict:
    """Return a tree of tables with one value removed or replaced."""
    table = values
    while True:
        name = [*table][rng.integers(len(table))]
        if not (isinstance(table[name], dict) and table[name] and rng.random() < 0.7):
            break
        table = table[name]
    choice = int(rng.integers(len(WRONG) + 1))
    if choice == len(WRONG):
        del table[name]
    else:
        table[name] = WRONG[choice]
    return values


def value_of_checkpoint(data: bytes, rng: np.random.Generator) -> bytes:
    out = io.BytesIO()
    torch.save(spoilt(torch.load(io.BytesIO(data), weights_only=True), rng), out)
    return out.getvalue()


def value_of_yaml(data: bytes, rng: np.random.Generator) -> bytes:
    return yaml.safe_dump(spoilt(yaml.safe_load(data), rng), allow_unicode=True).encode()


def value_of_onnx(data: bytes, rng: np.random.Generator) -> bytes:
    import onnx

    model = onnx.load_from_string(data)
    entry = model.metadata_props[rng.integers(len(model.metadata_props))]
    entry.value = json.dumps(WRONG[rng.integers(len(WRONG))])
    return model.SerializeToString()


# -------------------------------------------------------------------------------------------------------------- formats
class Format(NamedTuple):
    """make(folder) writes a whole file and returns it; read(file) is what the commands call."""

    make: Callable[[Path], Path]
    read: Callable[[Path], object]
    changes: tuple[Change, ...]


def make_checkpoint(folder: Path) -> Path:
    from conftest import LAYOUTS, contents
    from small_nets import net_of

    torch.save(contents(net_of(), LAYOUTS.load("68"), epoch=1), folder / "best.pt")
    return folder / "best.pt"


def read_checkpoint(file: Path) -> None:
    from utils.settings.config import read_defaults
    from utils.train import checkpoint, weight_files

    weight_files.load_weights(file)
    checkpoint.unpack(file, read_defaults())


def copied(name: str, folder: Path) -> Path:
    (folder / Path(name).name).write_bytes((ROOT / name).read_bytes())
    return folder / Path(name).name


def read_onnx(file: Path) -> None:
    from pipnet.landmark_net import open_net

    net = open_net(file, 1)
    net.predict(np.zeros((1, net.size, net.size, 3), np.uint8))


def read_args(file: Path) -> None:
    from utils.settings.config import preset_values, read_defaults

    preset_values("quick", {}, read_defaults(file))


def make_prepared(name: str, folder: Path) -> Path:
    from conftest import write_faces

    from utils.data.prepare import DataGenerator

    write_faces(folder / "raw" / "train", 6)
    return DataGenerator(folder / "raw", 64, "points", "set", folder, val=0.3, workers=1).run() / name


def read_prepared(file: Path) -> None:
    from utils.data.prepared_set import PreparedSet
    from utils.settings.config import read_defaults

    folder = file.parent if file.suffix == ".yaml" else file.parent.parent
    faces = PreparedSet(folder, read_defaults().layouts).read("train")
    faces.read(*faces.names)
    for index in range(len(faces)):
        faces.crop(index)


def make_own(writer: str, name: str, folder: Path) -> Path:
    import own_sets

    return getattr(own_sets, writer)(folder / "set", [own_sets.FIVE + i for i in range(3)]) / name


def parse(dataset: str, file: Path) -> None:
    from extras.datasets import DATASETS
    from utils.settings.config import read_defaults

    DATASETS[dataset].parse(file.parent, False, None, layouts=read_defaults().layouts)


def make_picture(ending: str, folder: Path) -> Path:
    image = cv2.resize(cv2.imread(str(ROOT / "assets/astronaut.jpg")), (96, 64))
    cv2.imwrite(str(folder / f"face.{ending}"), image)
    return folder / f"face.{ending}"


def bomb(data: bytes, _rng: np.random.Generator) -> bytes:
    """Return a black PNG of 20,000 x 20,000 px: small as a file, 1.2 GB when it is decoded."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return len(content).to_bytes(4, "big") + kind + content + zlib.crc32(kind + content).to_bytes(4, "big")

    side = 20_000
    header = side.to_bytes(4, "big") * 2 + bytes([1, 0, 0, 0, 0])
    return (
        data[:8]
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes((side // 8 + 1) * side)))
        + chunk(b"IEND", b"")
    )


def read_picture(file: Path) -> None:
    from pipnet.images import read_image

    read_image(file)


def make_video(folder: Path) -> Path:
    writer = cv2.VideoWriter(str(folder / "clip.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 10, (64, 48))
    for shade in range(8):
        writer.write(np.full((48, 64, 3), 30 * shade, np.uint8))
    writer.release()
    return folder / "clip.mp4"


def read_video(file: Path) -> None:
    from pipnet.video.sources import open_source, silence_opencv

    silence_opencv()
    source = open_source(str(file))
    for frame in source:
        assert frame.image.ndim == 3
    source.close()


FORMATS = {
    "checkpoint": Format(make_checkpoint, read_checkpoint, (*BINARY, value_of_checkpoint)),
    "ONNX": Format(partial(copied, "weights/landmarks-fast.onnx"), read_onnx, (*BINARY, value_of_onnx)),
    "args.yaml": Format(partial(copied, "args.yaml"), read_args, (*TEXT, value_of_yaml)),
    "meta.yaml": Format(partial(make_prepared, "meta.yaml"), read_prepared, (*TEXT, value_of_yaml)),
    "column of a set": Format(partial(make_prepared, "train/landmarks.npy"), read_prepared, BINARY),
    "crops of a set": Format(partial(make_prepared, "train/crops.jpegs"), read_prepared, BINARY),
    ".pts": Format(partial(make_own, "write_pairs", "1.pts"), partial(parse, "points"), TEXT),
    "CSV": Format(partial(make_own, "write_rows", "labels.csv"), partial(parse, "csv"), TEXT),
    "COCO": Format(partial(make_own, "write_coco", "labels.json"), partial(parse, "coco"), TEXT),
    "JPEG": Format(partial(make_picture, "jpg"), read_picture, BINARY),
    "PNG": Format(partial(make_picture, "png"), read_picture, (*BINARY, bomb)),
    "video": Format(make_video, read_video, BINARY),
}


# ------------------------------------------------------------------------------------------------------------- campaign
def read_all(name: str, folder: Path, seed: int, todo: range, report: str) -> None:
    """Read the inputs `todo` of a format; append to `report` the change of each, then how its reading has ended."""
    from pipnet.errors import UserError

    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    made = FORMATS[name].make(fresh(folder))
    whole = made.read_bytes()
    FORMATS[name].read(made)  # packages and their memory are loaded before the limit is set
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    with open(report, "w", buffering=1) as lines:
        for index in todo:
            rng = np.random.default_rng([seed, index])
            change = FORMATS[name].changes[rng.integers(len(FORMATS[name].changes))]
            made.write_bytes(change(whole, rng))
            print(change.__name__, file=lines)
            signal.alarm(SECONDS)
            try:
                FORMATS[name].read(made)
                outcome = "good"
            except UserError:
                outcome = "good"
            except BaseException as error:  # what the commands would show as a traceback
                outcome = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            signal.alarm(0)
            print(outcome, file=lines)


def cases(count: int, seed: int, root: Path) -> Iterator[tuple[str, list[str]]]:
    report = root / "report"
    for name in FORMATS:
        index, end = 0, -(-count // len(FORMATS))
        while index < end:
            report.write_text("")
            todo = range(index, min(index + BATCH, end))
            child = FORKS.Process(target=read_all, args=(name, root / "made", seed, todo, str(report)))
            child.start()
            child.join()
            lines = report.read_text().splitlines()
            assert lines, f"{name}: the process ended with {child.exitcode} before the first input"
            if len(lines) % 2:
                lines.append("hangs" if child.exitcode == -signal.SIGALRM else f"the process ends: {child.exitcode}")
            for change, outcome in zip(lines[::2], lines[1::2], strict=True):
                wrong = [] if outcome == "good" else [f"input {index} of seed {seed}, {change}: {outcome}"]
                yield name, wrong
                index += 1
