"""The shipped nets and tools that a user could take instead, in photographs as taken or changed.

Every tool gets the picture alone and finds the face itself, in the labelled photographs of FACES_300W and FACES68.
Labelling conventions differ, such as where the jaw ends. So each tool's mean offset from the labels, per landmark in
the frame of the eyes, is measured on training photographs and subtracted (`aligned`); from tools with more than 68
points the best point per landmark is chosen there too. Errors are of the faces that all tools find. The environment
variable OTHERS names a folder with

    shape_predictor_68_face_landmarks.dat   dlib's, in the package face_recognition_models; `pip install dlib-bin`
    slim_160_latest.onnx, version-RFB-320.onnx, FaceBoxesV2.pth   Peppa's, its detector's, FaceBoxes's
    dpr_98_points_*.pth.tar, dpr_gsr.npz   DPR's

MediaPipe needs an older protobuf than TensorBoard: `pip install mediapipe==0.10.21` in an environment of its own and
run `measure.py others mediapipe` there. weights/others keeps what each tool found, and the last call makes the table of
all. A tool that is missing is skipped with a message; its row stays. `upright` and `false_faces` take `mediapipe` and
`dlib` there too.
"""

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from measures.kinds import Change, coloured, half_black, lit, nme, turned
from photographs import LABELLED, Photograph, landmarker_for, open_detector, photographs, place_of, there
from record import ROOT, chosen

from pipnet.errors import UserError
from pipnet.face import Face
from pipnet.geometry import box_of
from pipnet.landmarker import Landmarker
from utils.settings.config import read_defaults
from utils.settings.conversion import conversion

FILES, FOUND = Path(os.environ.get("OTHERS", ".")), ROOT / "weights" / "others"
FITTED, TESTED = 100, 224  # training photographs of each set, for the offsets; test photographs
ROLLS, FAR = (40, 90, 180), 20.0  # degrees; NME in % from which a face is missed
MEDIAPIPE, DLIB = "mediapipe", "dlib"
LARGER = 3  # the photographs are 150 to 420 px; enlarged they are 450 to 1,260 px
Find = Callable[[np.ndarray], np.ndarray]  # picture (H, W, 3) uint8 BGR -> landmarks (M, N, 2) in px


def file_of(name: str) -> Path:
    """Return a file of OTHERS. FileNotFoundError if it is missing."""
    if not (FILES / name).is_file():
        raise FileNotFoundError(f"no {FILES / name}; the environment variable OTHERS must name its folder")
    return FILES / name


def finder(landmarker: Landmarker) -> Find:
    """Return a Landmarker as a function from a picture to landmarks."""
    return lambda image: np.array([face.landmarks for face in landmarker(image)]).reshape(
        -1, landmarker.layout.count, 2
    )


def dlib(name: str | None) -> Find:
    import dlib

    detector = dlib.get_frontal_face_detector()
    predictor = dlib.shape_predictor(str(file_of("shape_predictor_68_face_landmarks.dat")))

    def find(image: np.ndarray) -> np.ndarray:
        rgb = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
        faces = [predictor(rgb, box) for box in detector(rgb, 1)]
        return np.array([[(part.x, part.y) for part in face.parts()] for face in faces]).reshape(-1, 68, 2) + 0.5

    return find


def mediapipe(name: str | None, video: bool = False) -> Find:
    """Return MediaPipe's function; video: it follows the faces from picture to picture."""
    from mediapipe import solutions

    mesh = solutions.face_mesh.FaceMesh(static_image_mode=not video, max_num_faces=10, refine_landmarks=True)

    def find(image: np.ndarray) -> np.ndarray:
        faces = mesh.process(cv2.cvtColor(image, cv2.COLOR_BGR2RGB)).multi_face_landmarks or []
        points = np.array([[(point.x, point.y) for point in face.landmark] for face in faces]).reshape(-1, 478, 2)
        return points * (image.shape[1], image.shape[0])

    return find


OTHER = {MEDIAPIPE: mediapipe, DLIB: dlib}  # tools that find faces without a net of ours


def as_faces(find: Find) -> Callable[[np.ndarray], list[Face]]:
    """Return a tool as a function from a picture to faces, whose scores are unknown."""
    return lambda image: [Face(box_of(points), np.nan, points, np.ones(len(points))) for points in find(image)]


def slim(name: str | None) -> Find:
    file = str(file_of("slim_160_latest.onnx"))
    return finder(Landmarker(file, open_detector("rfb320", file_of("version-RFB-320.onnx"), threads=1), threads=1))


def gsr(name: str | None) -> Find:
    files = [file_of(f"dpr_98_points_{name}.pth.tar") for name in ("global_reinit", "global_regress")]
    with np.load(file_of("dpr_gsr.npz")) as stored:  # DPR's mean face is among its published outputs
        np.save(FOUND / "mean_98_face.npy", stored["mean_98_face"])
    detector = open_detector("faceboxes", file_of("FaceBoxesV2.pth"), threads=1)
    landmarker = Landmarker(",".join(map(str, [*files, FOUND / "mean_98_face.npy"])), detector, threads=1)
    find, to_68 = finder(landmarker), conversion("98", "68", read_defaults().layouts)
    return lambda image: to_68(find(image))


def ours(*net: str, **options) -> Callable[[str | None], Find]:
    """Return a function that opens a shipped net for a set. options: of Landmarker."""
    return lambda name: finder(landmarker_for(name, *net, threads=1, **options))


class Tool(NamedTuple):
    """open(NAME) loads it for a labelled set, or with None as shipped.

    trained_on: pictures, as far as known; use: what their licence allows.
    """

    open: Callable[[str | None], Find]
    title: str
    trained_on: str
    use: str = "research"


OURS = "parts of 300W and FACES68"
TOOLS = {
    "ours": Tool(ours(), "ours, `landmarks`", OURS),
    "ours_fast": Tool(ours("landmarks-fast"), "ours, `landmarks-fast`", OURS),
    "ours_open": Tool(ours("landmarks-open"), "ours, `landmarks-open`", "nothing but our own drawings", "any"),
    DLIB: Tool(dlib, "dlib", "300W, its tests too"),
    MEDIAPIPE: Tool(mediapipe, "MediaPipe Face Mesh", "Google's own", "any"),
    "slim": Tool(slim, "Peppa Slim", "300W, its tests perhaps, and more"),
    "gsr": Tool(gsr, "DPR GSR", "WFLW"),
}
ONE = {  # for `turns`
    "one": Tool(ours(max_faces=1), "ours, `landmarks`, `max_faces=1`", OURS),
    "one_fast": Tool(ours("landmarks-fast", max_faces=1), "ours, `landmarks-fast`, `max_faces=1`", OURS),
}


def look(find: Find, records: list[Photograph]) -> tuple[np.ndarray, float]:
    """Return (landmarks (F, N) as complex px, NaN if the labelled face is not found; median ms a picture)."""
    found, spent = [], []
    for record in records:
        image = cv2.imread(str(record.file))
        start = time.perf_counter()
        faces = find(image)
        spent.append(time.perf_counter() - start)
        place = place_of(record, np.array([box_of(face) for face in faces]))
        found.append(None if place is None else faces[place] @ (1, 1j))
    count = next(len(face) for face in found if face is not None)
    return np.array([np.full(count, np.nan) if face is None else face for face in found]), 1000 * float(
        np.median(spent)
    )


def apart(found: np.ndarray, records: list[Photograph]) -> np.ndarray:
    """Return the offset (F, N, 68), complex, of each found from each labelled landmark, in the frame of the eyes, whose
    outer corners are 1 apart; (F, 68) of the same landmarks if N is 68.
    """
    truth = np.array([record.landmarks for record in records]) @ (1, 1j)
    eyes = (truth[:, 45] - truth[:, 36])[:, None]
    return (found - truth) / eyes if found.shape[1] == 68 else (found[:, :, None] - truth[:, None]) / eyes[:, None]


def without_offset(train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Return (F, 68): `test` minus the mean of `train`; from more points, for each landmark the one that varies least."""
    offset = np.nanmean(train, 0)
    if train.ndim == 2:
        return test - offset
    best = np.nanmean(abs(train - offset), 0).argmin(0)
    return (test - offset)[:, best, range(68)]


def table(name: str) -> dict[str, dict[str, str]]:
    """Return {tool: figures of one set}, of tools whose findings are there.
    Errors are of the faces that all of them find.
    """
    train, test = photographs(name, "train", FITTED), photographs(name, "test", TESTED)
    measured = {}
    for tool in TOOLS:
        if (file := FOUND / f"{name}_{tool}.npz").is_file():
            with np.load(file) as stored:
                if (len(stored["train"]), len(stored["test"])) != (len(train), len(test)):
                    sys.exit(f"{file} was made from other photographs; measure {tool} again")
                plain = apart(stored["test"], test)
                measured[tool] = plain, without_offset(apart(stored["train"], train), plain), float(stored["ms"])
    everywhere = np.isfinite([abs(fitted).mean(1) for _, fitted, _ in measured.values()]).all(0)
    return {
        tool: {
            "NME %": f"{100 * abs(plain[everywhere]).mean():.2f}" if plain.ndim == 2 else "",
            "aligned": f"{100 * abs(fitted[everywhere]).mean():.2f}",
            "ms a picture": f"{spent:.0f}",
            "found, %": f"{100 * np.isfinite(fitted).all(1).mean():.1f}",
        }
        for tool, (plain, fitted, spent) in measured.items()
    }


def changes(sign: int) -> dict[str, Change]:
    """Return {name: change of a photograph}; sign -1 turns counter-clockwise."""
    turns = {f"turned by {angle}°": turned(sign * angle) for angle in ROLLS}
    return {
        "as taken": turned(0),
        **turns,
        "dark, noisy": lit(3.0, 6.0),
        "coloured light": coloured,
        "half in black shadow": half_black,
    }


def error_of(find: Find, record: Photograph, change: Change) -> float:
    """Return the NME in % of the labelled face in its changed photograph, infinite if it is missed."""
    image, truth = change(cv2.imread(str(record.file)), record.landmarks, np.random.default_rng(0))
    low, high = np.split(box_of(truth), 2)
    there = [face for face in find(image) if (low < face.mean(0)).all() and (face.mean(0) < high).all()]
    return min((error for face in there if (error := nme(face, truth)) < FAR), default=np.inf)


def opened(names: Sequence[str], name: str | None, tools: dict[str, Tool] = TOOLS) -> Iterator[tuple[str, Find]]:
    """Yield the tools that can be loaded, on one thread like the nets; print why others are skipped.

    names: of tools, none for all; name: the labelled set whose landmarks they find; None: our nets are the exported
    files, whose times count.
    """
    cv2.setNumThreads(1)
    FOUND.mkdir(parents=True, exist_ok=True)
    for tool in chosen(tools, names):
        try:
            yield tool, tools[tool].open(name)
        except (ImportError, OSError, UserError) as error:
            print(f"{tools[tool].title} skipped: {error}")


def others(*tools: str) -> dict:
    """Return the figures of the tools, each of which finds the face by itself. weights/others keeps what it found."""
    names, exported = there(*LABELLED), dict(opened(tools, None))
    for name in names:
        for tool, find in opened(tools, name):
            train, _ = look(find, photographs(name, "train", FITTED))
            test, _ = look(find, photographs(name, "test", TESTED))
            _, spent = look(exported[tool], photographs(name, "test", TESTED))
            np.savez(FOUND / f"{name}_{tool}.npz", train=train, test=test, ms=spent)
    tables = {name: table(name) for name in names}
    rows = [
        {
            "tool": tool.title,
            "trained on": tool.trained_on,
            "use": tool.use,
            **{f"{kind}, {name}": tables[name][key][kind] for kind in ("NME %", "aligned") for name in names},
            **{kind: " / ".join(tables[name][key][kind] for name in names) for kind in ("ms a picture", "found, %")},
        }
        for key, tool in TOOLS.items()
        if all(key in found for found in tables.values())
    ]
    return {"fitted_on": FITTED, "rows": rows}


def changed(*tools: str, faces: int = 544) -> Iterator[dict]:
    """Yield how many faces in % the tools with 68 points miss in changed photographs, and the ratio of their error to that in
    the same photographs as taken.

    Up to so many test photographs of each set are turned in the plane, every other one counter-clockwise, and lit in
    other ways.
    """
    for name in there(*LABELLED):
        records = photographs(name, "test", faces)
        for tool, find in opened(tools, name):
            if find(cv2.imread(str(records[0].file))).shape[1] != 68:
                continue
            errors = {
                change: np.array(
                    [error_of(find, record, changes((-1) ** place)[change]) for place, record in enumerate(records)]
                )
                for change in changes(1)
            }
            yield {"photographs": f"faces, {name}", TOOLS[tool].title: f"{len(records)}"}
            for change, some in errors.items():
                both = np.isfinite(some) & np.isfinite(errors["as taken"])
                growth = some[both].mean() / errors["as taken"][both].mean() if both.any() else np.nan
                missed = 100 * np.isinf(some).mean()
                figure = f"{missed:.1f} / {growth:.2f}" if both.any() else f"{missed:.1f}"
                yield {"photographs": f"{change}, {name}", TOOLS[tool].title: figure}


def timed(found: dict[str, Find], images: list[np.ndarray]) -> dict[str, list[float]]:
    """Return {tool: ms of each image}. The tools take turns at each image."""
    times: dict[str, list[float]] = {tool: [] for tool in found}
    for image in images[:3] + images:  # the first three are for loading
        for tool, find in found.items():
            start = time.perf_counter()
            find(image)
            times[tool].append(1000 * (time.perf_counter() - start))
    return {tool: values[3:] for tool, values in times.items()}


def turns(*tools: str, faces: int = 100) -> Iterator[dict]:
    """Yield the ms of whole test photographs, as they are and enlarged: median, 95 %, and the ratio of the median to that
    of the tool that is named last.

    The tools take turns at each photograph, so that all meet the same changes of the clock.
    """
    known = TOOLS | ONE
    found = dict(opened(tools, None, known))
    for name in there(*LABELLED):
        photos = [cv2.imread(str(record.file)) for record in photographs(name, "test", faces)]
        for scale, words in ((1, ""), (LARGER, f", {LARGER} times as large")):
            images = [cv2.resize(image, None, fx=scale, fy=scale) for image in photos]
            times = timed(found, images)
            last = np.median([*times.values()][-1])
            for tool, values in times.items():
                median, most = np.percentile(values, (50, 95))
                yield {"tool": known[tool].title, f"{name}{words}": f"{median:.1f} / {most:.1f} / {median / last:.2f}"}
