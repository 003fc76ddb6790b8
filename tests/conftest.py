"""Shared by all tests: places, settings, small drawn faces, and the commands as a user types them."""

import csv
import fcntl
import io
import json
import multiprocessing
import os
import re
import runpy
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, chdir, redirect_stderr, redirect_stdout, suppress
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import cv2
import hypothesis
import numpy as np
import pytest
import torch
import yaml
from loguru import logger

os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # hundreds of processes would compile the project anew
ROOT = Path(__file__).resolve().parent.parent
REFERENCE = ROOT.parent / "shared" / "reference"
sys.path[:] = [
    str(ROOT),
    *sys.path,
    *(str(ROOT / folder) for folder in ("benchmarks", "weights/making", "tests/pipnet/video")),
]
import main  # noqa: E402
import pipnet.app.demo  # noqa: E402
from extras.detector.wider import Picture  # noqa: E402
from extras.systems.convert.published import HEAD_NAMES  # noqa: E402
from nets.registry import STATES  # noqa: E402
from pipnet.errors import UserError, printable  # noqa: E402
from pipnet.geometry import Protocol, box_of, crop_box, to_crop  # noqa: E402
from pipnet.layout import Layout  # noqa: E402
from pipnet.runtimes import open_file  # noqa: E402
from utils.data.faces import Faces  # noqa: E402
from utils.data.prepared_set import PreparedSet, Split  # noqa: E402
from utils.data.sets import Sets  # noqa: E402
from utils.export.files import from_arrays  # noqa: E402
from utils.settings.command import Command as Flags  # noqa: E402
from utils.settings.config import Settings, check_values, preset_values, read_defaults  # noqa: E402
from utils.train import checkpoint, ranks  # noqa: E402
from utils.train.settings import settings_of  # noqa: E402

DEFAULTS = read_defaults()
LAYOUTS = DEFAULTS.layouts
SQUARE = Protocol(**DEFAULTS.protocols["square"])
NET = "timm:test_efficientnet"  # 92,000 parameters: a run of it takes seconds
hypothesis.settings.register_profile("any machine", deadline=None)  # a busy core is no fault
hypothesis.settings.load_profile("any machine")


def pytest_addoption(parser) -> None:
    parser.addoption("--all", action="store_true", help="run the tests marked as slow too")


def pytest_collection_modifyitems(config, items) -> None:
    if not config.getoption("all"):
        quick = [item for item in items if not item.get_closest_marker("slow")]
        config.hook.pytest_deselected(items=[item for item in items if item.get_closest_marker("slow")])
        items[:] = quick


def slow(*values) -> list:
    """Return parameters of tests that are marked as slow."""
    return [
        pytest.param(*(value if isinstance(value, tuple) else (value,)), marks=pytest.mark.slow) for value in values
    ]


def to_published(state: dict, system: str) -> dict:
    """A state dict of ours under the names of `system`, pipnet or irnet."""
    heads = {f"head.{ours}.": f"{theirs}." for ours, theirs in HEAD_NAMES[system].items()}
    found = {}
    for name, tensor in state.items():
        head = next((ours for ours in heads if name.startswith(ours)), None)
        found[heads[head] + name.removeprefix(head) if head else name.partition(".")[2]] = tensor
    return found


def sets_of(chosen: Settings) -> Sets:
    """Prepared sets of a run with these settings."""
    return Sets(chosen, DEFAULTS)


def settings(preset: str | None = None, **given) -> Settings:
    """Settings of args.yaml with a preset and other values."""
    given = check_values(given, "the test")
    return Settings.of(DEFAULTS, preset_values(preset, given, DEFAULTS), given)


def typed(*flags: str) -> Flags:
    """The command line with these flags; a text that begins with a dash holds several."""
    return Flags.of(words(flags), DEFAULTS)


def new_settings(*flags: str, **given) -> Settings:
    """Settings of a new training with these flags and values of keys, as main.py reads them."""
    command = typed("--train", *flags).with_values(given)
    return settings_of(replace(command, typed=command.typed | given.keys()))


def contents(net: torch.nn.Module, layout: Layout, **values) -> dict:
    """Return the values of a net's checkpoint."""
    return {
        "format": checkpoint.FORMAT,
        "net": net.spec,
        "layout": layout.to_dict(),
        "protocol": DEFAULTS.protocols["square"],
        "args": settings().flat(),
        "model": net.state_dict(),
        **values,
    }


def load_split(folder: Path, split: str) -> Faces:
    """The rows of a split of a prepared folder."""
    return PreparedSet(folder, LAYOUTS).read(split)


def made_in(root: Path, name: str) -> Path:
    """The newest set of a name in a folder of prepared sets."""
    return max(root.glob(f"{name}-*"), key=lambda folder: (folder / "meta.yaml").stat().st_mtime_ns)


def mismatch(folder: Path, **wanted) -> str:
    """Why a prepared folder cannot serve; empty if it is whole and has all wanted values."""
    try:
        one = PreparedSet(folder, LAYOUTS)
        for split in one.splits:
            one.read(split)
    except UserError as error:
        return str(error)
    return one.mismatch(**wanted)


def rewrite(folder: Path, split: str, **columns: np.ndarray) -> None:
    """Replace or add columns of a split of a prepared folder."""
    meta = yaml.safe_load((folder / "meta.yaml").read_text())
    meta["columns"] += [name for name in columns if name not in meta["columns"]]
    (folder / "meta.yaml").write_text(yaml.safe_dump(meta))
    for name, values in columns.items():
        np.save(folder / split / f"{name}.npy", values)


def split_of(folder: Path, name: str = "train", label_shift: float = 0.0) -> Split:
    """A split of a prepared folder."""
    return Split(PreparedSet(folder, LAYOUTS), name, label_shift)


@pytest.fixture
def said():
    """The lines of the log."""
    lines: list[str] = []
    sink = logger.add(lines.append, format="{message}")
    yield lines
    with suppress(ValueError):  # a command has removed it
        logger.remove(sink)


@pytest.fixture
def reference() -> Path:
    """The folder of published outputs; the test is skipped if it is absent."""
    if not REFERENCE.is_dir():
        pytest.skip(f"no published outputs at {REFERENCE}; test_parity.py checks the stored numbers")
    return REFERENCE


def formula_weights(shapes: dict[str, list[int]], variance: float = 0.5) -> dict[str, torch.Tensor]:
    """The tensors for which ../shared/reference stores outputs of published classes.

    variance: how much the running variances differ from 1.
    """
    state = {}
    for place, name in enumerate(sorted(shapes)):
        size = shapes[name]
        a = np.sin(0.37 * np.arange(np.prod(size, dtype=int)) + place).reshape(size)
        if name.endswith("running_var"):
            a = 1 + variance * a * a
        elif len(size) > 1:
            a = a * np.sqrt(2 / np.prod(size[1:]))
        else:
            a = a / 10 + (len(size) == 1 and name.endswith("weight"))
        state[name] = torch.tensor(0) if name.endswith("num_batches_tracked") else torch.from_numpy(a).float()
    return state


def run(*command: str, timeout: float = 300, **env: str) -> subprocess.CompletedProcess:
    """Run a command in the project's folder, as a user types it; `python` is this interpreter."""
    command = [sys.executable if part == "python" else part for part in words(command)]
    return subprocess.run(command, cwd=ROOT, env={**os.environ, **env}, capture_output=True, text=True, timeout=timeout)


# ------------------------------------------------------------------------------------------------ main.py, many times
# Each call is a process, forked from one that has imported the packages and the project: seconds faster than a new
# interpreter.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    [
        "torch",
        "torchvision",
        "timm",
        "cv2",
        "loguru",
        "tqdm",
        "yaml",
        "onnx",
        "onnxruntime",
        "onnxscript.function_libs.torch_lib.ops",
        "torch.onnx._internal.exporter._compat",
        "torch.export._trace",
        "torch.utils.tensorboard",
        "extras.tools.sweep",
        "extras.tools.audit",
        "extras.tools.predict",
        "utils.task.run_tests",
        "utils.task.landmarks",
        "extras.detector.detect",
        "extras.tools.zoo",
        "main",
    ]
)


def _child(argv: list[str], output: str, script: str) -> None:
    sys.dont_write_bytecode = False
    for descriptor, suffix in ((1, ".out"), (2, ".err")):
        os.dup2(os.open(output + suffix, os.O_WRONLY | os.O_CREAT), descriptor)
    os.chdir(ROOT)
    if (
        getattr(sys.modules.get("main"), "__file__", None) != script
    ):  # in a copy of the project, which has modules of its own
        for name in [
            name for name in sys.modules if name.split(".")[0] in ("main", "extras", "nets", "pipnet", "utils")
        ]:
            del sys.modules[name]
    sys.argv = [script, *argv]
    sys.path.insert(0, str(Path(script).parent))
    runpy.run_path(script, run_name="__main__")


class Command:
    """`python main.py ...`, running in another process."""

    def __init__(self, folder: Path, argv: tuple, script: Path):
        folder.mkdir(exist_ok=True)
        self.output = str(folder / f"{len(list(folder.iterdir()))}")
        Path(self.output + ".out").touch()
        self.process = FORKS.Process(target=_child, args=(words(argv), self.output, str(script)))
        self.process.start()

    def text(self, suffix: str) -> str:
        file = Path(self.output + suffix)
        return file.read_text() if file.is_file() else ""

    def result(self, timeout: float = 200) -> SimpleNamespace:
        """Wait; return returncode, stdout, stderr and `error`, the text after `error: ` if the last line of stderr
        begins so.
        """
        self.process.join(timeout)
        if self.process.exitcode is None:
            self.process.kill()
            raise TimeoutError(f"still running after {timeout} s: {self.text('.err')[-2000:]}")
        stdout, stderr = self.text(".out"), self.text(".err")
        last = stderr.splitlines()[-1] if stderr.strip() else ""
        return SimpleNamespace(
            returncode=self.process.exitcode,
            stdout=stdout,
            stderr=stderr,
            error=last.removeprefix("error: ") if last.startswith("error: ") else None,
        )


@pytest.fixture
def start(tmp_path):
    """start(*flags) starts main.py and returns at once."""
    begun = []

    def call(*argv, script: Path = ROOT / "main.py") -> Command:
        begun.append(Command(tmp_path / "output", argv, script))
        return begun[-1]

    yield call
    for command in begun:
        command.process.kill()


def words(argv: tuple) -> list[str]:
    """Return the words of a command; a text that begins with a dash holds several, as a shell reads them."""
    return [word for one in map(str, argv) for word in (shlex.split(one) if one.startswith("-") else [one])]


def call(command: Callable, name: str, *argv) -> SimpleNamespace:
    """Run the main function of a script of that name here. Return what `Command.result` returns for a process."""
    out, err = io.StringIO(), io.StringIO()
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    status, error = 0, None
    logger.remove()
    logger.add(lambda line: sys.stderr.write(line), format="{message}")
    with ExitStack() as stack:
        for context in (
            redirect_stdout(out),
            redirect_stderr(err),
            chdir(ROOT),
            patch.object(sys, "argv", [name, *words(argv)]),
            patch.object(ranks, "keep_memory", lambda: None),  # this process would never give memory back
        ):
            stack.enter_context(context)
        try:
            command(sys.argv[1:])
        except UserError as refused:
            status, error = 1, "\n  ".join(map(printable, str(refused).split("\n  ")))
            print(f"error: {error}", file=err)
        except SystemExit as ended:
            status = ended.code or 0
        finally:
            logger.remove()
            torch.set_num_threads(threads)
            torch.use_deterministic_algorithms(deterministic)
    return SimpleNamespace(returncode=status, stdout=out.getvalue(), stderr=err.getvalue(), error=error)


@pytest.fixture
def cli(start):
    """cli(*flags) runs main.py to its end: here, or in a process if it is another script."""

    def run_here(*argv, script: Path | None = None) -> SimpleNamespace:
        return start(*argv, script=script).result() if script else call(main.main, "main.py", *argv)

    return run_here


@pytest.fixture
def demo():
    """demo(*flags) runs demo.py to its end, here."""
    return lambda *argv: call(pipnet.app.demo.main, "demo.py", *argv)


# -------------------------------------------------------------------------------------------------------- drawn faces
def mean_face() -> np.ndarray:
    """Return (68, 2) in [0, 1]: the landmarks of 300W on a simple drawn face."""

    def arc(count, centre, radii, begin, end):  # degrees, from the right of the image downwards
        angle = np.radians(np.linspace(begin, end, count))
        return np.column_stack([np.cos(angle), np.sin(angle)]) * radii + centre

    return np.concatenate(
        [
            arc(17, (0.5, 0.42), (0.36, 0.5), 190, -10),
            arc(5, (0.31, 0.3), (0.12, 0.07), 190, 350),
            arc(5, (0.69, 0.3), (0.12, 0.07), 190, 350),
            np.linspace((0.5, 0.36), (0.5, 0.55), 4),
            arc(5, (0.5, 0.56), (0.09, 0.05), 160, 20),
            arc(6, (0.33, 0.38), (0.08, 0.04), 180, 480),
            arc(6, (0.67, 0.38), (0.08, 0.04), 180, 480),
            arc(12, (0.5, 0.72), (0.16, 0.08), 180, 510),
            arc(8, (0.5, 0.72), (0.11, 0.035), 180, 495),
        ]
    )


RINGS = [(0, 17), (17, 22), (22, 27), (27, 31), (31, 36), (36, 42), (42, 48), (48, 60), (60, 68)]


def draw_face(rng: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return (picture (size, size, 3) uint8 BGR, landmarks (68, 2) in continuous px)."""
    angle, scale = rng.uniform(-0.3, 0.3), rng.uniform(0.5, 0.7) * size
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) * scale
    landmarks = (
        (mean_face() - 0.5) * rng.uniform(0.85, 1.15, 2) @ turn.T + size / 2 + rng.uniform(-0.08, 0.08, 2) * size
    )
    image = cv2.resize(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8), (size, size), interpolation=cv2.INTER_CUBIC)
    points = np.round((landmarks - 0.5) * 16).astype(int)
    cv2.fillPoly(image, [points[[*range(17), 26, 19, 17]]], rng.integers(120, 256, 3).tolist(), cv2.LINE_AA, 4)
    for begin, end in RINGS:
        for a, b in pairwise(points[begin:end].tolist()):
            cv2.line(image, a, b, (30, 30, 60), 1, cv2.LINE_AA, 4)
    return image, landmarks


def write_faces(folder: Path, count: int, seed: int = 0, size: int = 96) -> Path:
    """Write `count` pairs of .jpg and .pts into `folder`."""
    from extras.shared.pts import write_pts

    folder.mkdir(parents=True)
    for index in range(count):
        image, landmarks = draw_face(np.random.default_rng([seed, index]), size)
        (folder / f"face{index:02d}.jpg").write_bytes(cv2.imencode(".jpg", image)[1].tobytes())
        write_pts(folder / f"face{index:02d}.pts", landmarks - 0.5)
    return folder


@pytest.fixture(autouse=True)
def same_numbers() -> None:
    """Let the drawn archives of each test have numbers of their own, whatever ran before."""
    if archives := sys.modules.get("archives"):
        archives.RNG.bit_generator.state = archives.START


# ------------------------------------------------------------------------------------- made once for all workers
@pytest.fixture(scope="session")
def shared(tmp_path_factory) -> Path:
    """The folder of what the workers of this session share."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "shared"
    folder.mkdir(exist_ok=True)
    return folder


def once(folder: Path, make: Callable[[Path], None]) -> Path:
    """Return `folder`, which make(folder) fills in the worker that asks first, while the others wait."""
    made = folder.with_suffix(".made")
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            shutil.rmtree(folder, ignore_errors=True)
            make(folder)
            made.touch()
    return folder


@pytest.fixture(scope="session")
def raw(shared) -> Path:
    """An unprepared set: 40 faces in train/ and 8 in test/."""

    def make(folder: Path) -> None:
        write_faces(folder / "drawn" / "train", 40)
        write_faces(folder / "drawn" / "test", 8, seed=1)

    return once(shared / "raw", make) / "drawn"


@pytest.fixture(scope="session")
def data_root(shared) -> Path:
    """The folder of the session's prepared sets."""
    folder = shared / "data"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def faces(raw, data_root) -> Path:
    """The prepared set of `raw`: 36 faces to train, 4 to validate, 8 to test."""
    from utils.data.prepare import DataGenerator

    return DataGenerator(raw, 64, "points", "drawn-64", data_root).run()


def write_wider(folder: Path, split: str, pictures: dict[str, list[list[int]]], shape=(96, 96)) -> None:
    """Write a split of black photographs, {EVENT/NAME.jpg: rows of ten numbers}, in the official form."""
    lines = []
    for name, faces in pictures.items():
        file = folder / f"WIDER_{split}" / "images" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(cv2.imencode(".jpg", np.zeros((*shape, 3), np.uint8))[1].tobytes())
        lines += [name, str(len(faces)), *(" ".join(map(str, face)) + " " for face in faces or [[0] * 10])]
    (folder / "wider_face_split").mkdir(exist_ok=True)
    (folder / "wider_face_split" / f"wider_face_{split}_bbx_gt.txt").write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="session")
def wider(shared) -> Path:
    """20 + 6 photographs of one drawn face each, of two events; one without a face."""
    return once(shared / "wider", lambda folder: draw_wider(folder / "faces")) / "faces"


def draw_wider(folder: Path) -> None:
    for split, count, seed in (("train", 20, 0), ("val", 6, 1)):
        made = {}
        for index in range(count):
            image, landmarks = draw_face(np.random.default_rng([seed, index]), 96)
            x1, y1, x2, y2 = np.round(np.concatenate([landmarks.min(0), landmarks.max(0)])).astype(int).tolist()
            name = f"{index % 2}--event/{index}.jpg"
            made[name] = image, [[x1, y1, x2 - x1, y2 - y1, 0, 0, 0, 0, index % 3 % 2, 0]] * (index != 3)
        write_wider(folder, split, {name: faces for name, (_, faces) in made.items()})
        for name, (image, _) in made.items():
            (folder / f"WIDER_{split}" / "images" / name).write_bytes(cv2.imencode(".jpg", image)[1].tobytes())


def boxed_picture(boxes, whole: bool = True, covered=None, ignored=None) -> Picture:
    """A photograph with faces in boxes (M, 4)."""
    boxes = np.array(boxes, float).reshape(-1, 4)
    none = np.zeros(len(boxes), bool)
    return Picture(
        Path("x.jpg"),
        "e",
        boxes,
        none if ignored is None else np.array(ignored),
        none if covered is None else np.array(covered),
        whole,
    )


def detector_file(file: Path, boxes, scores) -> str:
    """Write a detector that finds these boxes, in px, in any image; it returns those with a score above the threshold."""
    import onnx

    model = onnx.parser.parse_model(f"""
        <ir_version: 8, opset_import: ["" : 18]>
        found (uint8[h, w, 3] image, float threshold, float overlap) => (float[m, 4] boxes, float[m] scores)
        <float[{len(scores)}, 4] all_boxes = {{{", ".join(str(float(v)) for v in np.ravel(boxes))}}},
         float[{len(scores)}] all_scores = {{{", ".join(str(float(v)) for v in scores)}}}>
        {{ above = Greater(all_scores, threshold) boxes = Compress<axis = 0>(all_boxes, above)
           scores = Compress<axis = 0>(all_scores, above) }}""")
    onnx.save(model, file)
    return str(file)


def square_face() -> np.ndarray:
    """(68, 2): the mean face in [0, 1] of the crop that `square` cuts round it."""
    return to_crop(mean_face(), crop_box(box_of(mean_face()) * 1000, SQUARE, 1000, 1000) / 1000)


def known_file(file: Path, right: float = 0.0, further: bool = False) -> str:
    """Write a landmark net of 64 px whose outputs are known; return its path.

    In every crop it finds the mean face, in a blue one further right by the share `right` of the crop. Scores are 0.9,
    expected errors 0.01. With `further` pose is 0.1, 0.2, 0.3, and the right eye and the mouth are closed.
    """
    import onnx

    outputs: dict = {"score": (68, 0.9), "sigma": (68, 0.01)}
    if further:
        outputs |= {"pose": (3, (0.1, 0.2, 0.3)), "states": (4, (0.1, 0.9, 0.8, 0.2))}
    rows = [
        f"{name}_row = Constant <value = float[1, {count}] {{{', '.join(map(str, np.broadcast_to(value, count)))}}}> () "
        f"{name} = Add (zero, {name}_row)"
        for name, (count, value) in outputs.items()
    ]
    ports = ", ".join(f"float[batch, {count}] {name}" for name, (count, _) in outputs.items())
    model = onnx.parser.parse_model(f"""
        <ir_version: 10, opset_import: ["" : 18]>
        known (uint8[batch, 64, 64, 3] image) => (float[batch, 68, 2] landmarks, {ports}) {{
            face = Constant <value = float[1, 68, 2] {{{", ".join(map(str, square_face().ravel()))}}}> ()
            blue = Constant <value = float[3] {{{3 / 255}, 0, 0}}> ()
            right = Constant <value = float[1, 1, 2] {{{right}, 0}}> ()
            sides = Constant <value_ints = [1, 2, 3]> ()
            last = Constant <value_ints = [3]> ()
            both = Constant <value_ints = [2, 3]> ()
            nothing = Constant <value_float = 0.0> ()
            levels = Cast <to = 1> (image)
            shares = Mul (levels, blue)
            mean = ReduceMean (shares, sides)
            shade = Squeeze (mean, last)
            move = Mul (shade, right)
            landmarks = Add (face, move)
            one = Squeeze (mean, both)
            zero = Mul (one, nothing)
            {" ".join(rows)}
        }}""")
    values = {
        "layout": LAYOUTS.load("68").to_dict(),
        "protocol": DEFAULTS.protocols["square"],
        "input_size": 64,
        "meanface": square_face().tolist(),
        "states": list(STATES) if further else None,
    }
    onnx.helper.set_model_props(model, {name: json.dumps(value) for name, value in values.items()})
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, file)
    return str(file)


# fmt: off
SMALL = ["--net", NET, "--weights", "none", "--input-size", "64", "--target-size", "64", "--batch-size", "8", "--threads", "1",
         "--workers", "1", "--warmup", "0.5", "--amp", "off"]
# fmt: on


@pytest.fixture
def recipe(faces, raw, data_root, tmp_path) -> list[str]:
    """Flags of a run of seconds in tmp_path/runs: 4 steps an epoch, of faces alone."""
    places = ("--train-data", raw, "--data-root", data_root, "--run-root", tmp_path / "runs")
    return [*map(str, places), *SMALL, "--epochs", "1", "--face", "0"]


def table(stdout: str) -> list[list[str]]:
    """Return the cells of the rows of the closing table, without the table of the groups of landmarks below it."""
    text = stdout.split("| NME % of groups")[0]
    lines = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("| ")
    ]
    return lines[1:]


def rows(file: Path) -> list[dict]:
    """Return the rows of a CSV file."""
    return list(csv.DictReader(file.open()))


def two_train_as_one(cli, runs: Path, *flags, columns: tuple[str, ...] = (), rel: float = 1e-4) -> None:
    """Assert that two processes with batches of 4 train as one with batches of 8: the same figures in step.csv.

    runs: the --run-root of `flags`. columns: those that are compared; without: all but those of the validation.
    """
    done = cli(*flags, "--exp", "one")
    assert done.returncode == 0, done.stderr
    done = run("bash", "main.sh", "2", *map(str, flags), "--exp", "two", "--batch-size", "4", OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr
    for one, two in zip(*(rows(runs / name / "step.csv") for name in ("one", "two")), strict=True):
        for column in columns or one.keys() - {"val_nme", "best"}:
            assert float(two[column]) == pytest.approx(float(one[column]), rel=rel), column


def displaced(trained: SimpleNamespace, folder: Path, cells: float) -> Path:
    """Return `folder`, a copy of the run whose net finds every landmark that many cells further right."""
    from utils.train import checkpoint

    shutil.copytree(trained.folder, folder)
    stored = checkpoint.load(folder / "best.pt")
    stored["model"]["head.offset_x.bias"] += cells
    checkpoint.save(folder / "best.pt", stored)
    return folder


def works(done):
    """Return how a command ended, which must be with status 0."""
    assert done.returncode == 0, done.stderr
    return done


def fails(done, message: str) -> None:
    """Assert status 1 and one error line, the last line of stderr, that matches the pattern `message`."""
    assert done.returncode == 1 and done.error is not None, done.stderr
    assert "Traceback" not in done.stderr and done.stderr.count("error: ") == 1
    assert re.search(message, done.error), done.error


def refuses(message: str, call: Callable, *given, **options) -> str:
    """Assert that a call with these arguments raises a UserError that the pattern `message` matches; return its text."""
    with pytest.raises(UserError, match=message or None) as caught:
        call(*given, **options)
    return str(caught.value)


def spoilt(file: Path, content: str | bytes, message: str, call: Callable, *given, **options) -> None:
    """Write `content` to a file, which the call must refuse with this message."""
    (file.write_text if isinstance(content, str) else file.write_bytes)(content)
    refuses(message, call, *given, **options)


def free_port() -> str:
    """Return a port of this machine that nothing uses."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


def unfolded(file: Path) -> dict[str, int]:
    """Count, by operator, the nodes of a graph and its subgraphs that onnxruntime's basic optimisations remove or fuse.
    Weights that are stored in 16 bits are no fault.
    """
    import onnx
    import onnxruntime

    def operators(graph, into: Counter) -> Counter:
        half = {tensor.name for tensor in graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT16}
        for node in graph.node:
            into[node.op_type] += not (node.op_type == "Cast" and node.input[0] in half)
            for attribute in node.attribute:
                operators(attribute.g, into)
        return into

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.log_severity_level = 3
    with tempfile.TemporaryDirectory() as folder:
        options.optimized_model_filepath = f"{folder}/folded.onnx"
        onnxruntime.InferenceSession(file, options, ["CPUExecutionProvider"])
        before, after = (
            operators(onnx.load(path).graph, Counter()) for path in (file, options.optimized_model_filepath)
        )
    return {name: count for name, count in (before - after).items() if count}


def driver(folder: Path, name: str, text: str) -> Path:
    """Write a script that runs main.py after `text`, which changes something."""
    file = folder / f"{name}.py"
    file.write_text(
        f"import os, signal, sys\nsys.path.insert(0, {str(ROOT)!r})\nimport main, torch\n"
        "from utils.train import solver\n"
        f"{text}\n"
        "try:\n    main.main(sys.argv[1:])\nexcept main.UserError as error:\n    sys.exit(f'error: {error}')\n"
    )
    return file


def doomed(folder: Path, step: int) -> Path:
    """Write a script that runs main.py and kills itself before the training step `step`."""
    return driver(
        folder,
        f"doomed{step}",
        f"""
step = solver.Solver.train_step
def doomed(self, batches):
    if self.step == {step}:
        os.kill(os.getpid(), signal.SIGKILL)
    return step(self, batches)
solver.Solver.train_step = doomed""",
    )


def trained_once(root: Path, *flags: str) -> SimpleNamespace:
    """Return the run of these flags in `root`, trained by one worker: folder, root, flags, and what the command said."""

    def make(folder: Path) -> None:
        done = call(main.main, "main.py", "--train", "--test", "--test-onnx", *given)
        assert done.returncode == 0, done.stderr
        (folder / "said.json").write_text(json.dumps(vars(done)))

    given = [*map(str, flags), "--run-root", str(root)]
    once(root, make)
    done = SimpleNamespace(**json.loads((root / "said.json").read_text()))
    return SimpleNamespace(folder=root / "000", root=root, done=done, flags=given)


def exported_predictor(file, threads=1):
    """Return the predictor of an exported landmark net."""
    opened = open_file(file, threads)
    return from_arrays(lambda images: opened.run({"image": images}))


@pytest.fixture(scope="session")
def trained(raw, faces, data_root, shared) -> SimpleNamespace:
    """A run of two epochs, tested and exported by one command; a test that changes it works on a copy."""
    places = ("--train-data", raw, "--data-root", data_root)
    return trained_once(
        shared / "trained", *places, *SMALL, "--epochs", "2", "--face", "0", "--thresholds", "50", "100"
    )
