"""Damaged and malicious files: `python benchmarks/campaigns/files.py --count 5000`. Each is read, or refused by a UserError.

Every input is one of ours, changed by a named mutator with a seeded generator, and is read in a child process by the function
that the commands use. A fault is any other exception, a crash, more than 30 s, or more than 2 GB of memory beyond the packages'.
`--code` reads files that would run code if they were unpickled or evaluated.
"""
import argparse
import json
import os
import pickle
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from victims import FORKS, ROOT, chosen, finish, fresh, histogram

SECONDS, MEMORY, BATCH = 30, 2 << 30, 200
HUGE = [b"nan", b"inf", b"-1", b"0", b"1e308", b"1e-320", b"999999999999", b"-99999999999999999999", b"1_0", b"0x10", b"", b"null"]


# ------------------------------------------------------------------------------------------------------------ mutators
def truncated(data: bytes, rng: np.random.Generator) -> bytes:
    return data[:rng.integers(len(data) + 1)]


def bits(data: bytes, rng: np.random.Generator) -> bytes:
    changed = np.frombuffer(data, np.uint8).copy()
    for place in rng.integers(len(data), size=rng.integers(1, 9)):
        changed[place] ^= 1 << rng.integers(8)
    return changed.tobytes()


def head_bits(data: bytes, rng: np.random.Generator) -> bytes:
    return bits(data[:64], rng) + data[64:]


def block(data: bytes, rng: np.random.Generator) -> tuple[int, int]:
    """Return begin and end of a random part, mostly a short one."""
    begin, size = rng.integers(len(data)), int(len(data) ** rng.random())
    return int(begin), int(begin) + size


def zeros(data: bytes, rng: np.random.Generator) -> bytes:
    begin, end = block(data, rng)
    return data[:begin] + bytes(len(data[begin:end])) + data[end:]


def noise(data: bytes, rng: np.random.Generator) -> bytes:
    begin, end = block(data, rng)
    return data[:begin] + rng.bytes(len(data[begin:end])) + data[end:]


def removed(data: bytes, rng: np.random.Generator) -> bytes:
    begin, end = block(data, rng)
    return data[:begin] + data[end:]


def repeated(data: bytes, rng: np.random.Generator) -> bytes:
    begin, end = block(data, rng)
    return data[:end] + data[begin:end] * int(rng.integers(1, 20)) + data[end:]


def large(data: bytes, rng: np.random.Generator) -> bytes:
    """Overwrite four or eight bytes near the head by a large number: the sizes that headers claim."""
    size = int(rng.choice([4, 8]))
    place = rng.integers(min(len(data), 512))
    number = int(rng.choice([2**31 - 1, 10**9, 20_000, 2**16 - 1]))
    return data[:place] + number.to_bytes(size, str(rng.choice(["little", "big"]))) + data[place + size:]


def number(data: bytes, rng: np.random.Generator) -> bytes:
    """Replace a number in a text by an odd one."""
    found = list(re.finditer(rb"-?\d+(\.\d+)?", data))
    if not found:
        return bits(data, rng)
    one = found[rng.integers(len(found))]
    return data[:one.start()] + HUGE[rng.integers(len(HUGE))] + data[one.end():]


def word(data: bytes, rng: np.random.Generator) -> bytes:
    """Replace a word of a text by another one of it."""
    found = list(re.finditer(rb"[^\s,:{}\[\]\"]+", data))
    if len(found) < 2:
        return bits(data, rng)
    one, two = (found[place] for place in rng.integers(len(found), size=2))
    return data[:one.start()] + two[0] + data[one.end():]


def lines(data: bytes, rng: np.random.Generator) -> bytes:
    """Swap, drop or double lines."""
    parts = data.split(b"\n")
    for place in rng.integers(len(parts), size=3):
        parts[place] = parts[rng.integers(len(parts))] if rng.random() < 0.7 else b""
    return b"\n".join(parts)


def encoding(data: bytes, rng: np.random.Generator) -> bytes:
    return [b"\xef\xbb\xbf" + data, data.decode("latin1").encode("utf-16"), data.replace(b"\n", b"\r"), b"\x00" + data,
            data + b"\xff\xfe\x00"][rng.integers(5)]


def stranger(data: bytes, rng: np.random.Generator) -> bytes:
    """Return something else: an empty file, noise, deep nesting, a file of another kind."""
    depth = int(rng.integers(10, 100_000))
    return [b"", rng.bytes(int(rng.integers(1, 5000))), b"[" * depth, b'{"a":' * depth, b"<a>" * depth, pickle.dumps({"a": 1}),
            b"\x89PNG\r\n\x1a\n" + rng.bytes(100), b"PK\x03\x04" + rng.bytes(200), b"a: &a [*a, *a]\n" * 9,
            b"\x93NUMPY\x01\x00v\x00{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000, 2), }" + b" " * 40 + b"\n",
            ][rng.integers(10)]


BINARY = (truncated, bits, head_bits, zeros, noise, removed, repeated, large, stranger)
TEXT = (truncated, bits, number, word, lines, removed, repeated, encoding, stranger)


# ------------------------------------------------------------------------------------------------------------- formats
class Format(NamedTuple):
    """make(folder) writes whole inputs, (folder, name of the file that is changed); read(file) is what the commands call."""

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


def make_net():
    import torch

    from nets import NetOptions, build_net, make_spec
    torch.manual_seed(0)
    return build_net(make_spec(NetOptions("timm:test_efficientnet", "pip", 32, 64), np.random.default_rng(0).random((68, 2))))


def make_checkpoint(folder: Path) -> list[tuple[Path, str]]:
    import torch

    from utils.config import load_protocol, read_defaults
    from utils.train import checkpoint
    net, defaults = make_net(), read_defaults()
    file = one_folder(folder, {"best.pt": b""})[0]
    values = {"format": checkpoint.FORMAT, "net": net.spec, "layout": defaults.layouts.load("68").to_dict(), "epoch": 1,
              "protocol": load_protocol(defaults.protocols, "square")._asdict(), "args": {}, "model": net.state_dict(),
              "rows": [{"epoch": 0, "val_nme": 5.0}]}
    torch.save(values, file[0] / file[1])
    return [file]


def make_weights(folder: Path) -> list[tuple[Path, str]]:
    import torch
    made = one_folder(folder, {"snapshot.pth": b"", "old.pth": b""})
    state = {f"module.{name}": tensor for name, tensor in make_net().state_dict().items()}
    torch.save(state, made[0][0] / made[0][1])
    torch.save(state, made[1][0] / made[1][1], _use_new_zipfile_serialization=False)
    return made


def read_checkpoint(file: Path) -> None:
    from utils.train import checkpoint
    checkpoint.load(file)
    checkpoint.unpack(file)


def read_weights(file: Path) -> None:
    from nets import build_net  # noqa: F401  # loaded before the memory is measured
    from utils.train import checkpoint
    from utils.train.published import structure
    structure(*checkpoint.load_weights(file))
    checkpoint.load(file)


def make_onnx(folder: Path) -> list[tuple[Path, str]]:
    return one_folder(folder, {"detector.onnx": (ROOT / "weights/detector.onnx").read_bytes()})


def read_onnx(file: Path) -> None:
    from pipnet import Detector
    from pipnet.landmarker import open_net
    image = np.zeros((64, 64, 3), np.uint8)
    Detector("faceboxes", file, threads=1)(image)
    open_net(file, 1)


def make_args(folder: Path) -> list[tuple[Path, str]]:
    return one_folder(folder, {"args.yaml": (ROOT / "args.yaml").read_bytes()})


def read_args(file: Path) -> None:
    from utils.config import read_defaults, resolve
    resolve({}, read_defaults(file), "quick")


def make_layout(folder: Path) -> list[tuple[Path, str]]:
    text = b"ten:\n  count: 5\n  flip_index: [1, 0, 2, 4, 3]\n  interocular: [0, 1]\n  pupils: [[0], [1]]\n" \
           b"  groups: {eyes: [0, 1], nose: [2], lips: [\"3-4\"]}\n  closed: [eyes]\n  same_as: {\"68\": {0: 36, 1: 45}}\n"
    return one_folder(folder, {"layout.yaml": text})


def read_layout(file: Path) -> None:
    from utils.config import read_defaults
    name, layouts = read_defaults().layouts.with_file(str(file))
    layouts.load(name)


def drawn(folder: Path, count: int = 3) -> Path:
    """Write rendered faces with a .pts each."""
    from utils.data.parsers import write_pts
    from utils.data.synthetic import render
    folder.mkdir(parents=True)
    for index in range(count):
        face = render(0, index, 64)
        cv2.imwrite(str(folder / f"face{index}.png"), face.image)
        write_pts(folder / f"face{index}.pts", face.landmarks)
    return folder


def make_prepared(folder: Path) -> list[tuple[Path, str]]:
    from utils.data.prepare import DataGenerator
    target = DataGenerator(drawn(folder / "raw", 6), 64, "points", "set", folder, val=0.3, workers=1).run()
    return [(target, name) for name in ("train.tsv", "meta.yaml", "meanface.txt")]


def read_prepared(file: Path) -> None:
    from utils.config import read_defaults
    from utils.data.prepared_set import PreparedSet, mismatch
    mismatch(file.parent, target_size=64)
    one = PreparedSet(file.parent, read_defaults().layouts)
    one.layout, one.protocol, one.title  # noqa: B018
    one.read("train"), one.meanface()


def make_meanface(folder: Path) -> list[tuple[Path, str]]:
    mean = np.random.default_rng(0).random((68, 2))
    made = one_folder(folder, {"mean.txt": " ".join(map(str, mean.ravel())).encode(), "mean.npy": b""})
    np.save(made[1][0] / made[1][1], mean)
    return made


def read_mean(file: Path) -> None:
    from utils.data.sets import read_meanface
    read_meanface(file)


def make_pts(folder: Path) -> list[tuple[Path, str]]:
    return [(drawn(folder / "pts"), "face1.pts")]


def make_csv(folder: Path) -> list[tuple[Path, str]]:
    place = drawn(folder / "csv")
    header = "file," + ",".join(f"x{i},y{i}" for i in range(5))
    rows = [f"face{index}.png," + ",".join(str(10.5 + 4 * i) for i in range(10)) for index in range(3)]
    (place / "train.csv").write_text("\n".join([header, *rows]) + "\n")
    return [(place, "train.csv")]


def make_coco(folder: Path) -> list[tuple[Path, str]]:
    place = drawn(folder / "coco")
    values = {"images": [{"id": i, "file_name": f"face{i}.png", "width": 64, "height": 64} for i in range(3)],
              "categories": [{"id": 1, "name": "face", "keypoints": list("abcde")}],
              "annotations": [{"id": i, "image_id": i, "category_id": 1, "keypoints": [10 + i, 20, 2] * 5, "bbox": [5, 5, 40, 40]}
                              for i in range(3)]}
    (place / "train.json").write_text(json.dumps(values))
    return [(place, "train.json")]


def parse(dataset: str) -> Callable[[Path], None]:
    def read(file: Path) -> None:
        from utils.config import read_defaults
        from utils.data.parsers import DATASETS
        from utils.data.parsers.records import Archive  # noqa: F401
        DATASETS[dataset].parse(file.parent, False, None, layouts=read_defaults().layouts)
    return read


def make_mat(folder: Path) -> list[tuple[Path, str]]:
    import h5py
    from scipy.io import savemat
    made = one_folder(folder, {"face.mat": b"", "packed.mat": b"", "hdf.mat": b""})
    values = {"pt2d": np.random.default_rng(0).random((2, 68)) * 64, "Pose_Para": np.ones((1, 7))}
    savemat(made[0][0] / made[0][1], values)
    savemat(made[1][0] / made[1][1], values, do_compression=True)
    with h5py.File(made[2][0] / made[2][1], "w") as file:
        for name, array in values.items():
            file[name] = array
    return made


def read_matrix(file: Path) -> None:
    from utils.data.parsers.mat import read_mat, values
    arrays = read_mat(file, "pt2d", "Pose_Para")
    values(arrays[0], (2, 68), str(file))


def png(side: int) -> bytes:
    """Return a valid grey PNG of side x side px, all black: a few MB for 20,000 px, gigabytes as colours."""
    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(bytes(side // 8 + 2)[:side // 8 + 1]) for _ in range(side)) + packer.flush()
    header = side.to_bytes(4, "big") * 2 + bytes([1, 0, 0, 0, 0])
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def make_pictures(folder: Path) -> list[tuple[Path, str]]:
    image = cv2.resize(cv2.imread(str(ROOT / "assets/astronaut.jpg")), (96, 64))
    files = {f"face.{kind}": cv2.imencode(f".{kind}", image)[1].tobytes() for kind in ("jpg", "png", "bmp", "tiff", "webp")}
    return one_folder(folder, files | {"large.png": png(20_000), "bomb.png": png(60_000)})


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
    from pipnet.app.sources import open_source, silence_opencv
    silence_opencv()
    source = open_source(str(file))
    try:
        for frame in source:
            assert frame.image.ndim == 3
    finally:
        source.close()


FORMATS = {
    "checkpoint": Format(make_checkpoint, read_checkpoint), "published weights": Format(make_weights, read_weights),
    "ONNX": Format(make_onnx, read_onnx), "args.yaml": Format(make_args, read_args, TEXT),
    "layout file": Format(make_layout, read_layout, TEXT), "prepared set": Format(make_prepared, read_prepared, TEXT),
    "mean face": Format(make_meanface, read_mean, (*TEXT, large)), ".pts": Format(make_pts, parse("points"), TEXT),
    "CSV": Format(make_csv, parse("csv"), TEXT), "COCO": Format(make_coco, parse("coco"), TEXT),
    ".mat": Format(make_mat, read_matrix), "picture": Format(make_pictures, read_picture),
    "video": Format(make_video, read_video)}


# ------------------------------------------------------------------------------------------------------------- running
def inputs(name: str, made: list[tuple[Path, str]], seed: int, index: int, place: Path) -> tuple[Path, str]:
    """Write input `index` of a format into `place`; return (the changed file, its mutator). The first are whole."""
    rng = np.random.default_rng([seed, list(FORMATS).index(name), index])
    folder, file = made[index % len(made)]
    target = fresh(place, folder) / file
    if index < len(made):
        return target, "whole"
    mutator = FORMATS[name].mutators[rng.integers(len(FORMATS[name].mutators))]
    data = target.read_bytes()
    if len(data) < 4_000_000:
        target.write_bytes(mutator(data, rng))
    return target, mutator.__name__


def work(name: str, made: list, seed: int, todo: range, place: Path, report: str) -> None:
    """Read the inputs of `todo`; append a line before and after each to `report`."""
    from pipnet.errors import UserError
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    warm(name, made, place)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with open(report, "a", buffering=1) as lines_out:
        for index in todo:
            file, mutator = inputs(name, made, seed, index, place)
            print(json.dumps([index, mutator]), file=lines_out)
            signal.alarm(SECONDS)
            begun, outcome = time.monotonic(), "read"
            try:
                FORMATS[name].read(file)
            except UserError:
                outcome = "refused"
            except BaseException as error:  # what the commands would show as a traceback
                where = error.__traceback__
                while where.tb_next:
                    where = where.tb_next
                outcome = f"{type(error).__name__}: {str(error)[:150]} ({Path(where.tb_frame.f_code.co_filename).name}:{where.tb_lineno})"
            signal.alarm(0)
            print(json.dumps([index, outcome, round(time.monotonic() - begun, 2)]), file=lines_out)


def warm(name: str, made: list, place: Path) -> None:
    """Read a whole input once, so that packages and their memory are loaded before the limit is set."""
    folder, file = made[0]
    try:
        FORMATS[name].read(fresh(place, folder) / file)
    except Exception:  # the campaign reads it again
        pass


def attack(name: str, count: int, seed: int, root: Path) -> Iterator[tuple[str, str, float, int]]:
    """Yield (mutator, outcome, seconds, index) of each input of a format."""
    made = FORMATS[name].make(fresh(root / "made"))
    report, begin = root / "report", 0
    while begin < count:
        report.write_text("")
        todo = range(begin, min(begin + BATCH, count))
        child = FORKS.Process(target=work, args=(name, made, seed, todo, root / "input", str(report)))
        child.start()
        child.join()
        rows = [json.loads(line) for line in report.read_text().splitlines()]
        for start, end in zip(rows[::2], rows[1::2], strict=False):
            yield start[1], end[1], end[2], start[0]
        begin += max(len(rows) // 2, 0)
        if len(rows) % 2:
            ended = signal.Signals(-child.exitcode).name if child.exitcode and child.exitcode < 0 else f"status {child.exitcode}"
            yield rows[-1][1], f"hangs for {SECONDS} s" if ended == "SIGALRM" else f"the process ends: {ended}", SECONDS, rows[-1][0]
            begin += 1
        elif child.exitcode and not rows:
            raise RuntimeError(f"{name}: the child process ended with status {child.exitcode} before the first input")


# ---------------------------------------------------------------------------------------------------------------- code
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
    for place in (("epoch",), ("rows",), ("solver",), ("args",), ("model", "head.score.bias"), ("net", "meanface"), ("layout", "count")):
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
    return cases


def run_code(folder: Path, mark: Path, report: str) -> None:
    """Read each harmful file, and write which made `mark` or ended in anything but a UserError."""
    from pipnet.errors import UserError
    found = {}
    for name, (kind, file) in harmful(folder, mark).items():
        try:
            FORMATS[kind].read(file)
            outcome = "read"
        except UserError:
            outcome = "refused"
        except BaseException as error:
            outcome = f"{type(error).__name__}: {error}"
        found[name] = "RAN" if mark.exists() else outcome
        shutil.rmtree(mark, ignore_errors=True)
    Path(report).write_text(json.dumps(found))


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("formats", nargs="*", help=f"some of: {', '.join(FORMATS)}; without: all")
    parser.add_argument("--count", type=int, default=5000, help="inputs of all formats together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save", action="store_true", help="write results/files.json")
    args = parser.parse_args(argv)
    names, begun, faults, rows = chosen(FORMATS, args.formats), time.monotonic(), [], {}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder).resolve()
        for name in names:
            outcomes, slowest, mutators = Counter(), 0.0, Counter()
            for mutator, outcome, seconds, index in attack(name, -(-args.count // len(names)), args.seed, fresh(root / "files")):
                kind = outcome if outcome in ("read", "refused") else "fault"
                outcomes[kind] += 1
                mutators[mutator] += 1
                slowest = max(slowest, seconds)
                if kind == "fault":
                    faults.append({"format": name, "input": index, "mutator": mutator, "outcome": outcome})
            rows[name] = {"inputs": outcomes.total(), **{kind: outcomes[kind] for kind in ("read", "refused", "fault")},
                          "slowest_s": slowest, "mutators": dict(mutators)}
            print(name, {key: value for key, value in rows[name].items() if key != "mutators"}, flush=True)
        child = FORKS.Process(target=run_code, args=(fresh(root / "code"), root / "mark", str(root / "codes")))
        child.start()
        child.join()
        codes = json.loads((root / "codes").read_text())
    faults += [{"code": name, "outcome": outcome} for name, outcome in codes.items() if outcome != "refused"]
    print(histogram("inputs by mutator", sum((Counter(row["mutators"]) for row in rows.values()), Counter())))
    print(f"{len(codes)} files with code: {dict(Counter(codes.values()))}")
    figures = {"count": sum(row["inputs"] for row in rows.values()), "rows": rows, "code": codes, "faults": faults,
               "minutes": (time.monotonic() - begun) / 60}
    return finish("files", f"python benchmarks/campaigns/files.py --count {args.count} --seed {args.seed} --save", args.seed,
                  figures, args.save)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
