"""Synthetic faces: a procedural 300W that needs no download.

`render` draws one face; `generate` writes a folder in the layout of 300W (Sagonas et al. 2013), and `read_set` reads it.
A face is a pure function of (seed, index); the number of workers and the order of work do not change it.
"""

import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import resource_tracker
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from extras.shared.lists import numbered
from extras.shared.pts import read_pts, write_pts
from pipnet.cores import cores
from pipnet.errors import UserError
from pipnet.geometry import box_of
from utils.data.new_folder import new_folder
from utils.data.table import CONTINUOUS, SYNTHETIC, RawSet
from utils.settings.progress import progress
from utils.settings.start import end_with

if TYPE_CHECKING:
    from extras.synthetic.face import RenderedFace

# folders of 300W with their numbers of faces, whose proportions are kept
TRAIN_PARTS = {"afw": 337, "helen/trainset": 2000, "lfpw/trainset": 811}
TEST_PARTS = {"helen/testset": 330, "lfpw/testset": 224, "ibug": 135}
VISIBLE_FILE = "visible.tsv"  # a line per picture: its path, a tab, and 0 or 1 per landmark
VERSION = 1  # a change of what is drawn increases it, so that older faces are not reused
TEST_INDEX = 1_000_000  # first test face, so that no face is in both splits
HARD_INDEX = 2_000_000  # first difficult test face (ibug)
SMALLEST = 32  # px
POINTS = 68  # landmarks of a face
ORIGIN = 1.0  # coordinate of the first pixel's centre in the .pts files, as in 300W
SUBSETS = {"helen/testset": "common/helen", "lfpw/testset": "common/lfpw", "ibug": "challenge/ibug"}
DATASETS = {
    SYNTHETIC: SimpleNamespace(
        title="synthetic faces",
        layout="68",
        origin=ORIGIN,
        expected=None,
        states=(),
        options=(),
        label_shift=0.0,
        clipped=False,
        gssl=(),
        norms=(),
        origin_is_ambiguous=False,
    )
}  # see `utils.data.makers`


def render(seed: int, index: int, size: int = 256, varied: bool = False, **pose) -> "RenderedFace":
    """Return face `index` of `seed` on a picture of `size` px. Raise UserError for a size under 32 px.

    Faces from HARD_INDEX on are more difficult (turned, occluded, blurred), as in IBUG. pose: fields of `people.Pose`
    that replace the drawn ones. varied: of people who differ more, a fourth of them difficult.
    """
    from extras.synthetic.face import render_face  # the whole renderer, which the processes of `generate` import

    _check_size(size)
    hard = index >= HARD_INDEX or (varied and index % 4 == 0)
    return render_face(np.random.default_rng([seed, index]), size, hard, pose, varied)


def _check_size(size: int) -> None:
    if size < SMALLEST:
        raise UserError(f"synthetic faces of {size} px are too small; ask for at least {SMALLEST}")


def is_rendered(folder: Path) -> bool:
    """Return whether a folder looks like one that `generate` wrote."""
    return (folder / VISIBLE_FILE).is_file() and any((folder / part).is_dir() for part in TRAIN_PARTS | TEST_PARTS)


def read_set(dataset: str, folder: Path, published: bool = False, **_: Any) -> RawSet:
    """Return the faces that `generate` wrote into a folder. published: see `extras.datasets.row.Dataset.read_set`."""
    splits = {}
    visible = _visible(folder / VISIBLE_FILE)
    for split, parts in (("train", TRAIN_PARTS), ("test", TEST_PARTS)):
        files = [(part, file) for part in parts for file in sorted((folder / part).glob("*.jpg"))]
        if not files:
            continue
        names = [file.relative_to(folder).as_posix() for _, file in files]
        annotated = np.array([read_pts(file.with_suffix(".pts"), POINTS) for _, file in files])
        landmarks = annotated - (CONTINUOUS if published else ORIGIN) + CONTINUOUS
        splits[split] = {
            "file": names,
            "subset": [SUBSETS.get(part, part) for part, _ in files],
            "identity": [f"{part.split('/')[0]}/{file.stem}" for part, file in files],
            "landmarks": landmarks,
            "box": np.array([box_of(points) for points in landmarks]),
            "visible": np.array([visible.get(name, np.ones(POINTS, bool)) for name in names]),
        }
    if not splits:
        raise UserError(f"{folder}: no annotated face of synthetic faces with its image in it")
    return RawSet(splits, "68", [])


def _visible(file: Path) -> dict[str, np.ndarray]:
    """Return {picture: whether each of its landmarks is visible (N,)} from VISIBLE_FILE."""
    flags = {}
    for where, line in numbered(file):
        name, _, text = line.partition("\t")
        text = text.strip()
        if len(text) != POINTS or set(text) - {"0", "1"}:
            raise UserError(f"{where}: a file, a tab and {POINTS} flags 0 or 1 belong here")
        flags[name] = np.array(list(text)) == "1"
    return flags


def share(total: int, parts: dict[str, int]) -> dict[str, int]:
    """Return `total` divided in the proportions of `parts`, without a remainder."""
    edges = np.round(np.cumsum([0, *parts.values()]) / sum(parts.values()) * total).astype(int)
    return {name: int(b - a) for name, a, b in zip(parts, edges[:-1], edges[1:], strict=True)}


def write_face(file: Path, image: np.ndarray, points: np.ndarray) -> None:
    """Write a picture and, beside it, its points (N, 2) as they are."""
    file.write_bytes(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 92])[1].tobytes())
    write_pts(file.with_suffix(".pts"), points)


def _work(job: tuple[str, str, int, int, int, bool]) -> tuple[str, str]:
    """Write the face of a job (folder, name, seed, index, size, varied); return its name and its visibility as digits."""
    folder, name, seed, index, size, varied = job
    face = render(seed, index, size, varied)
    write_face(Path(folder, name), face.image, face.landmarks + (ORIGIN - CONTINUOUS))
    return name, "".join("01"[int(v)] for v in face.visible)


def generate(
    folder: Path,
    train: int = 2000,
    test: int = 400,
    size: int = 256,
    seed: int = 0,
    workers: int | None = None,
    varied: bool = False,
) -> dict[str, int]:
    """Write synthetic faces of `size` px into `folder` as a 300W tree; return the number of faces of each part.

    Training parts: afw, helen/trainset, lfpw/trainset; test parts: helen/testset, lfpw/testset and ibug (difficult).
    `visible.tsv` says for every picture which of its landmarks are visible. The tree is built beside `folder` and
    renamed at the end, so that a killed run leaves no incomplete tree. workers: default is the number of cores. varied: see
    `render`. Raise UserError if the folder exists or cannot be written.
    """
    folder = Path(folder)
    if min(train, test) < 0 or train + test == 0:
        raise UserError(f"{train} training and {test} test faces: ask for at least one face and for no negative number")
    _check_size(size)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} exists already; remove it or name another folder for the synthetic faces")
    workers = workers or cores()
    counts = share(train, TRAIN_PARTS) | share(test, TEST_PARTS)
    with new_folder(folder) as build:
        jobs, place = [], {"train": 0, "test": TEST_INDEX, "hard": HARD_INDEX}
        for part, count in counts.items():
            (build / part).mkdir(parents=True)
            kind = "train" if part in TRAIN_PARTS else "hard" if part == "ibug" else "test"
            numbers = range(place[kind], place[kind] + count)
            jobs += [(str(build), f"{part}/face{n:07d}.jpg", seed, n, size, varied) for n in numbers]
            place[kind] += count
        with (
            progress(total=len(jobs), desc="synthetic faces", unit="face") as bar,
            (build / VISIBLE_FILE).open("w") as table,
        ):
            for name, flags in _map(jobs, workers):
                table.write(f"{name}\t{flags}\n")
                bar.update()
    return counts


@contextmanager
def _lean() -> Iterator[None]:
    """Let processes spawned in the body have one thread each and not import the caller's main module, which may import
    torch.

    They ignore Ctrl-C, since each would print a traceback if it is loading packages; the caller stops them. The process
    that frees the semaphores of a stopped caller prints no warning. None imports modules of the current folder.
    """
    main, lean = (
        sys.modules["__main__"],
        dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"),
    )
    lean |= {"PYTHONWARNINGS": "ignore:resource_tracker", "PYTHONSAFEPATH": "1"}
    kept = {name: getattr(main, name, None) for name in ("__spec__", "__file__")}
    before = {name: os.environ.get(name) for name in lean}
    os.environ.update(lean)
    resource_tracker.ensure_running()  # its start ends the blocking of signals
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    for name in kept:
        setattr(main, name, None)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for name, value in kept.items():
            setattr(main, name, value)
        for name in lean:
            del os.environ[name]
        os.environ.update({name: value for name, value in before.items() if value is not None})


def _map(jobs: list[tuple[str, str, int, int, int, bool]], workers: int) -> Iterator[tuple[str, str]]:
    """Yield the results of `_work` in the order of the jobs."""
    if workers == 1 or len(jobs) < 8:
        yield from map(_work, jobs)
        return
    # multiprocessing.Pool would wait forever for a killed process
    with _lean():
        pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _begin_worker)
    try:
        with _lean():
            faces = [pool.submit(_work, job) for job in jobs]
        for face in faces:
            yield face.result()
    except BrokenProcessPool:
        raise UserError(
            "a process that renders synthetic faces was killed, often because memory runs out; free some and start "
            "again"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)  # map() cancels by itself, but prints a traceback if a process was killed


def _begin_worker() -> None:
    if parent := multiprocessing.parent_process():  # the parent of this process is another one if it has ended already
        end_with(parent.pid)
    cv2.setNumThreads(1)
