"""Show that a change of the code's structure changes no number that needs no random augmentation.

`python tests/golden.py --save FILE.json` runs what COMMANDS, LANDMARKERS and NETS list, on one CPU thread, and writes
the figures and the checksums of arrays and files that come of it; with `--train` also what TRAININGS learn in a few
steps. `--compare FILE.json` does so again, on the same machine, and prints what differs; its status is 1 if anything
does. Only commands, `pipnet` and the public names of `nets` are used, so that the script runs on older and newer commits
alike: copy it there. Tests on real photographs need ../shared/300w and ../shared/faces68, and are left out where these
are absent.
"""

import argparse
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ALONE = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONDONTWRITEBYTECODE": "1"}
if not ALONE.items() <= os.environ.items():  # torch and OpenCV read these when they are loaded
    os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | ALONE)
sys.path.insert(0, str(ROOT))

import cv2  # noqa: E402
import numpy as np  # noqa: E402
import onnxruntime  # noqa: E402
import torch  # noqa: E402

PICTURES = {name: ROOT / "assets" / f"{name}.jpg" for name in ("astronaut", "demo", "failures")}
REAL = {
    "300w": ("afw", "helen/trainset", "lfpw/trainset", "lfpw/testset"),
    "faces68": ("train", "test"),
}  # in ../shared
EVERY = {"lfpw/testset": 8, "test": 20}  # the first of so many photographs is taken; of other folders one of 100
RUN = "--data-root {root}/data --run-root {root}/runs --threads 1 --workers 0 "
TEST = "main.py --test " + RUN + "--test-data {sets} --exp "
COMMANDS = {  # in this order; the one named 300w is left out where that is absent
    "rendered": "main.py --prepare "
    + RUN
    + "--dataset synthetic --synthetic-train 24 --synthetic-test 12 --target-size 128",
    "300w": "main.py --prepare " + RUN + "--dataset 300w --data-dir {root}/300w --allow-partial --target-size 128",
    "test": TEST + "landmarks --allow-partial",
    "test fast": TEST + "landmarks-fast --allow-partial --flip-test --box true perturbed detector --test-onnx",
    "predict": "main.py --predict {root}/pictures --exp landmarks --out {root}/predict.csv --threads 1",
    "predict fast": "main.py --predict {root}/pictures --exp landmarks-fast --out {root}/predict-fast.json --threads 1",
    "int8": "main.py --export onnx int8 pipeline --export-raw " + RUN + "--exp landmarks-fast --dataset {rendered}",
    "demo": "demo.py --source {root}/pictures/demo.jpg --json {root}/demo-picture.json --pose --threads 1",
    "video": "demo.py --source {root}/clip.avi --json {root}/demo-video.json --pose --drowsiness --threads 1",
}
SHORT = (
    "main.py --train --test "
    + RUN
    + "--net timm:test_efficientnet --weights none --input-size 64 --batch-size 4 --epochs 2 --warmup 0.5 "
)
TRAININGS = {  # runs of --train, in this order; a second command of the same run resumes it
    "pip": SHORT + "--train-data {rendered}",
    "resumed": SHORT.replace("--epochs 2", "--epochs 1") + "--train-data {rendered}",
    "resumed again": "main.py --train --test " + RUN + "--resume --epochs 2 --exp resumed",
    "coordinate": SHORT + "--train-data {rendered} --head coordinate --sigma 0.1 --ema 0.9",
    "gssl": SHORT.replace("--epochs 2", "--epochs 1") + "--train-data {rendered} --semi gssl --labelled-fraction 0.5 "
    "--input-size 128",
    "union": SHORT + "--train-data {rendered} {root}/five --layout union",
    "detect": "main.py --train --test " + RUN + "--task detect --train-data {rendered} --input-size 64 --crops 16 "
    "--batch-size 8 --epochs 2 --warmup 0.5 --face-sides 12 40",
}
LANDMARKERS = {"landmarks": "", "landmarks-fast": "", "landmarks float": ".onnx", "landmarks-fast float": ".onnx"}
SIZE, BATCH = 128, 4
NETS = {  # {name: what of NetOptions is not the default}
    **{head: {"head": head} for head in ("pip", "coordinate", "heatmap", "simcc")},
    "pip, sigma": {"head_options": {"sigma": True}},
    "pip, no neighbors": {"num_nb": 0},
    "pip, stride 16": {"stride": 16},
    "pip, refine": {"refine": True, "head_options": {"sigma": True}, "openings": [(37, 41, 38, 40), (61, 67, 63, 65)]},
    "pip, wing": {"head_options": {"error": "wing"}},
    "hard landmarks": {"hard_landmarks": 1.0},
    "pip, levels": {},
    "coordinate, depthwise": {
        "head": "coordinate",
        "head_options": {"pool": "depthwise", "excite": True, "error": "l2"},
    },
    "coordinate, sigma": {"head": "coordinate", "head_options": {"sigma": True}, "refine": True},
    "simcc, refine": {"head": "simcc", "refine": True},
    "heatmap, wide": {"head": "heatmap", "head_options": {"score_width": 2.0}},
    "parts": {"head": "parts", "groups": [list(range(36)), list(range(36, 68))]},
    "reinit": {"reinit": True},
    "auxiliary": {"auxiliary": ("pose", "states")},
    "local parts": {"local_parts": {"eyes": list(range(36, 48)), "mouth": list(range(48, 68))}, "head": "coordinate"},
    "slim": {"net": "slim", "head": "coordinate", "head_options": {"error": "wing"}, "auxiliary": ("pose", "states")},
    "dpr": {"net": "dpr", "head": "coordinate", "local_parts": {"nose": list(range(27, 36))}, "hard_landmarks": 1.0},
    "drowsiness": {"net": "irnet18", "num_nb": 5},
}
EXPORTED = ("pip, refine", "auxiliary", "local parts")


def checksum(values) -> str:
    """Return the start of the sha256 of an array's shape, type and bytes, or of a file."""
    if isinstance(values, Path):
        return hashlib.sha256(values.read_bytes()).hexdigest()[:12]
    values = np.ascontiguousarray(values)
    return hashlib.sha256(f"{values.dtype}{values.shape}".encode() + values.tobytes()).hexdigest()[:12]


def told(values) -> str:
    """Return a checksum and the root of the mean square, which tells rounding from another result."""
    values = np.asarray(values)
    return f"{checksum(values)} {np.sqrt(np.mean(np.square(values, dtype=np.float64))):.9g}"


def wave(name: str, shape) -> np.ndarray:
    """Return float32 values in [-1, 1] that follow from the name and the shape alone."""
    phase = int(hashlib.sha256(name.encode()).hexdigest()[:6], 16)
    return (
        np.sin(phase + 1.7 * np.arange(np.prod(shape, dtype=int), dtype=np.float64) ** 1.1)
        .reshape(shape)
        .astype(np.float32)
    )


def drawn(count: int, side: int) -> np.ndarray:
    """Return pictures (count, side, side, 3) uint8 that are always the same."""
    return (127.5 + 127.5 * wave("images", (count, side, side, 3))).astype(np.uint8)


# ------------------------------------------------------------------------------------------------------------- commands
def write_inputs(root: Path) -> list[str]:
    """Write pictures, a video and parts of the real sets; return the names of those that are here."""
    (root / "pictures").mkdir()
    for name, file in PICTURES.items():
        shutil.copy(file, root / "pictures" / f"{name}.jpg")
    image, size = cv2.imread(str(PICTURES["astronaut"])), (320, 240)
    writer = cv2.VideoWriter(str(root / "clip.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 10, size)
    for phase in np.linspace(0, 2 * np.pi, 24):  # it pans and zooms
        zoom = 0.9 + 0.3 * np.sin(phase)
        x, y = 0.45 * image.shape[1] + 30 * np.cos(2 * phase), 0.25 * image.shape[0] + 20 * np.sin(phase)
        matrix = np.array([[zoom, 0, size[0] / 2 - zoom * x], [0, zoom, size[1] / 2 - zoom * y]])
        writer.write(cv2.warpAffine(image, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT))
    writer.release()
    present = [name for name in REAL if (ROOT.parent / "shared" / name).is_dir()]
    for name in present:
        for part in REAL[name]:
            (root / name / part).mkdir(parents=True)
            for points in sorted((ROOT.parent / "shared" / name / part).glob("*.pts"))[:: EVERY.get(part, 100)]:
                for file in points.parent.glob(f"{points.stem}.*"):
                    shutil.copy(file, root / name / part)
    return present


def write_five(root: Path) -> None:
    """Write the rendered training faces as a set of five points: eyes, nose and corners of the mouth."""
    (root / "five").mkdir()
    for number, file in enumerate(sorted((root / "data").glob("synthetic-*/helen/trainset/*.pts"))):
        points = np.array([line.split() for line in file.read_text().splitlines()[3:-1]], float)
        five = [points[36:42].mean(0), points[42:48].mean(0), points[30], points[48], points[54]]
        rows = "\n".join(f"{x:.3f} {y:.3f}" for x, y in five)
        (root / "five" / f"{number}.pts").write_text(f"version: 1\nn_points: 5\n{{\n{rows}\n}}\n")
        shutil.copy(file.with_suffix(".jpg"), root / "five" / f"{number}.jpg")


def without_names(text: str, root: Path) -> str:
    """Return a text without the places and the folders of sets, whose names say how a version of the code made them."""
    return re.sub(r"(synthetic|300w|faces68|five)-[0-9a-z-]+", r"\1", text.replace(str(root), "ROOT"))


def weights_of(file: Path) -> list[str]:
    """Return a checksum of the tensors of a checkpoint."""

    def tensors(values, name=""):
        if isinstance(values, torch.Tensor):
            yield name, values
        elif isinstance(values, dict | list | tuple):
            for key, value in values.items() if isinstance(values, dict) else enumerate(values):
                yield from tensors(value, f"{name}.{key}")

    found = sorted(tensors(torch.load(file, weights_only=True, map_location="cpu")), key=lambda pair: pair[0])
    return [f"{len(found)} tensors", checksum(np.array([checksum(value.numpy()) for _, value in found]))]


def of_commands(root: Path, trains: bool) -> Iterator[tuple[str, list[str]]]:
    """Run COMMANDS, and TRAININGS if it `trains`, and yield the lines of each table that they write, without what depends
    on time and place.
    """
    present = write_inputs(root)
    for name in REAL.keys() - set(present):
        print(f"left out: ../shared/{name} is not here", file=sys.stderr)
    real = [{"300w": "300w", "faces68": str(root / "faces68")}[name] for name in present]
    rendered = ""
    for name, command in {**COMMANDS, **(TRAININGS if trains else {})}.items():
        if name in REAL and name not in present:
            continue
        if name == "pip":
            write_five(root)
        begun = time.monotonic()
        words = command.format(root=root, rendered=rendered, sets=" ".join([rendered, *real])).split()
        if name in TRAININGS and "--exp" not in words:
            words += ["--exp", name]
        done = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True)
        print(f"{name}: {time.monotonic() - begun:.0f} s", file=sys.stderr)
        if done.returncode:
            sys.exit(f"failed: {' '.join(words)}\n{done.stdout[-1000:]}\n{done.stderr[-2000:]}")
        if name == "rendered":
            (rendered,) = (
                file.parent.name
                for file in (root / "data").glob("*/meta.yaml")
                if "dataset: synthetic" in file.read_text().splitlines()
            )
    if trains:
        for file in sorted((root / "runs").rglob("*.pt")):
            yield f"weights of {file.relative_to(root / 'runs')}", weights_of(file)
    tables = sorted(
        path for path in (root / "runs").rglob("*") if path.suffix in (".csv", ".tsv") and path.name != "time.csv"
    )
    for file in (*tables, *sorted(root.glob("*.csv")), *sorted(root.glob("*.json"))):
        lines = without_names(file.read_text(encoding="utf-8"), root).splitlines()
        if len(lines) > 40 or max(map(len, lines)) > 400:  # a table of faces: a checksum a row would be as long
            lines = [f"{len(lines)} lines", hashlib.sha256("\n".join(lines).encode()).hexdigest()[:12]]
        yield without_names(str(file.relative_to(root)), root), lines
    pictures = sorted((root / "data").glob("synthetic*/**/*.jpg"))
    yield "rendered pictures", [checksum(np.array([checksum(file) for file in pictures]))]
    pages = [
        file
        for file in sorted((root / "runs").rglob("*.jpg"))
        if file.relative_to(root / "runs").parts[0] not in TRAININGS
    ]
    yield "pages", [f"{without_names(str(file), root)} {checksum(file)}" for file in pages]
    for file in sorted((root / "runs").rglob("*.onnx")):
        yield f"outputs of {file.relative_to(root / 'runs')}", outputs(file)


# ---------------------------------------------------------------------------------------------------------- landmarkers
def of_landmarkers() -> Iterator[tuple[str, list[str]]]:
    """Yield what detector and nets of the project find in PICTURES: upright and turned, in two sizes."""
    from pipnet import Detector, Landmarker

    detector = Detector(threads=1)
    images = {}
    for name, file in PICTURES.items():
        image = cv2.imread(str(file))
        for size, turn in ((1.0, 0), (0.5, 0), (0.5, 40), (0.5, 180)):
            small = cv2.resize(image, None, fx=size, fy=size, interpolation=cv2.INTER_AREA)
            middle = (small.shape[1] / 2, small.shape[0] / 2)
            images[f"{name}, {size}, {turn} degrees"] = cv2.warpAffine(
                small, cv2.getRotationMatrix2D(middle, turn, 1.0), small.shape[1::-1]
            )
    for name, image in images.items():
        yield f"boxes: {name}", [told(part) for part in detector(image)[:2]]
    for name, suffix in LANDMARKERS.items():
        file = name.split()[0]
        landmarker = Landmarker(str(ROOT / "weights" / (file + suffix)) if suffix else file, detector, threads=1)
        for picture, image in images.items():
            faces = landmarker(image)
            parts = zip(
                *([value for value in vars(face).values() if isinstance(value, np.ndarray | float)] for face in faces),
                strict=True,
            )
            yield f"{name}: {picture}", [f"{len(faces)} faces", *(told(np.array(part)) for part in parts)]


# ----------------------------------------------------------------------------------------------------------------- nets
def make_net(options: dict, meanface: np.ndarray) -> torch.nn.Module:
    """Return a net whose weights follow from their names: what two seeds draw alike is a constant, and stays about the
    same.
    """
    from nets import NetOptions
    from utils.train.make_net import new_net

    chosen = NetOptions(**{"net": "timm:test_efficientnet", "input_size": SIZE, **options})
    nets = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        nets.append(new_net(chosen, meanface))
    state, other = (net.state_dict() for net in nets)
    for name, tensor in state.items():
        if tensor.is_floating_point():
            values = torch.from_numpy(wave(name, tuple(tensor.shape)))
            constant = torch.equal(tensor, other[name])
            size = 0.03 if constant else 1.4 / max(tensor[0].numel() if tensor.ndim > 1 else 100, 1) ** 0.5
            state[name] = size * values + (tensor if constant else 0)
    nets[0].load_state_dict(state)
    return nets[0]


def outputs(file: Path) -> list[str]:
    """Return the outputs of an ONNX file for drawn pictures, or for a photograph if it takes a single picture of any
    size.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = onnxruntime.InferenceSession(str(file), options, ["CPUExecutionProvider"])
    port = session.get_inputs()[0]
    images = drawn(2, port.shape[1]) if len(port.shape) == 4 else cv2.imread(str(PICTURES["astronaut"]))
    return [
        f"{made.name} {told(value)}"
        for made, value in zip(session.get_outputs(), session.run(None, {port.name: images}), strict=True)
    ]


def of_nets(root: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield predictions, losses, counts and gradients of NETS, and the outputs of the files that some are exported to."""
    import extras  # noqa: F401
    from nets import Labels
    from utils.export.files import export_onnx

    torch.set_num_threads(1)
    points = np.arange(68) / 68 * 2 * np.pi
    meanface = np.stack([0.5 + (0.2 + 0.15 * np.sin(5 * points)) * part(points) for part in (np.cos, np.sin)], 1)
    landmarks = torch.from_numpy((meanface + 0.04 * wave("landmarks", (BATCH, 68, 2))).astype(np.float32))
    landmarks[0, 3], landmarks[1] = float("nan"), landmarks[1] + 0.4  # an unknown landmark; some outside the crop
    weight = torch.from_numpy(0.5 + 0.5 * (wave("weight", (BATCH, 68)) > 0)) * (torch.arange(68) != 5)
    pose, states = (
        torch.from_numpy(values) for values in (wave("pose", (BATCH, 3)), np.rint(abs(wave("states", (BATCH, 4)))))
    )
    pose[0], states[1, 2] = float("nan"), float("nan")
    for name, options in NETS.items():
        net = make_net(options, meanface)
        side = round(SIZE * net.input_margin)
        side += side % 2
        images = torch.from_numpy(drawn(BATCH, side))
        more = {"pose": pose, "states": states} if options.get("auxiliary") else {}
        if name == "pip, levels":
            net.head.levels, more["level"] = 3, torch.tensor([0, 1, 2, 0])
        labels = Labels.pack(landmarks.clone(), weight.float(), **more)
        with torch.no_grad():
            found = net.eval().predict(images)
        yield (
            f"{name}: prediction",
            [f"{field} {told(part)}" for field, part in zip(found._fields, found, strict=True) if part is not None],
        )
        sums, counts = net.train().loss(images, labels), net.denominators(labels)
        sum(sums[term] / counts[term].clamp(min=1) for term in sums).backward()
        gradients = [p.grad.flatten() for _, p in sorted(net.named_parameters()) if p.grad is not None]
        yield (
            f"{name}: loss",
            [
                *(f"{term} {sums[term].item()!r} / {counts[term].item()!r}" for term in sorted(sums)),
                f"gradients {told(torch.cat(gradients))}",
            ],
        )
        if name in EXPORTED:
            file = root / f"{name}.onnx"
            export_onnx(net, file, {})
            yield f"{name}: exported", outputs(file)
    for file in sorted((ROOT / "weights").glob("landmarks*.onnx")):
        yield f"shipped {file.name}", outputs(file)


def measured(trains: bool) -> dict:
    """Return all values, how long they took, and where they come from."""
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder).resolve()
        values = {**dict(of_nets(root)), **dict(of_landmarkers()), **dict(of_commands(root, trains))}
    git = [
        subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True).stdout.strip()
        for words in (
            ("rev-parse", "--short", "HEAD"),
            ("status", "--porcelain", "--untracked-files=no", "--", ".", ":!tests"),
        )
    ]
    machine = {
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "cores": 1,
        "gpu": None,
        "python": platform.python_version(),
        "opencv": cv2.__version__,
        "torch": torch.__version__,
        "onnxruntime": onnxruntime.__version__,
        "numpy": np.__version__,
    }
    print(f"{sum(map(len, values.values()))} lines in {time.monotonic() - begun:.0f} s", file=sys.stderr)
    return {"commit": git[0] + ("-dirty" if git[1] else ""), "machine": machine, "values": values}


def compare(before: dict, after: dict) -> int:
    """Print what differs and return the exit status."""
    wrong, count = 0, 0
    for name in [*before["values"], *(after["values"].keys() - before["values"].keys())]:
        old, new = (one["values"].get(name, []) for one in (before, after))
        count += max(len(old), len(new))
        if len(old) != len(new):
            print(f"{name}: {len(old)} lines before, {len(new)} after")
        changed = [f"{name}: {a} -> {b}" for a, b in zip(old, new, strict=False) if a != b]
        print("".join(f"{line}\n" for line in changed), end="")
        wrong += len(changed) + abs(len(old) - len(new))
    if before["machine"] != after["machine"]:
        print(f"another machine: {before['machine']} -> {after['machine']}")
    print(f"{wrong} of {count} lines differ between {before['commit']} and {after['commit']}")
    return bool(wrong)


def main() -> int:
    """Save or compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    mode = parser.add_mutually_exclusive_group(required=True)
    mode.add_argument("--save", metavar="FILE", type=Path)
    mode.add_argument("--compare", metavar="FILE", type=Path)
    parser.add_argument("--train", action="store_true", help="also compare what short trainings learn")
    args = parser.parse_args()
    if args.save:
        args.save.write_text(json.dumps(measured(args.train), indent=1) + "\n", encoding="utf-8")
        return 0
    return compare(json.loads(args.compare.read_text(encoding="utf-8")), measured(args.train))


if __name__ == "__main__":
    sys.exit(main())
