"""The shipped nets against tools that a user could pick instead: `python benchmarks/others.py [TOOL ...]`.

Every tool gets the picture alone and finds the face by itself. FACES_300W and FACES68 name photographs with labels (see
runs.py). Labels have habits: where the jaw ends, how thick lips are. So each tool's mean offset from the labels, landmark by
landmark in the frame of the eyes, is measured on training photographs and taken off (`habits aside`); the points of a tool with
more than 68 are chosen there, too. Errors are of the faces that all tools find. OTHERS names a folder with

    shape_predictor_68_face_landmarks.dat   dlib's, in the package face_recognition_models; `pip install dlib-bin`
    slim_160_latest.pth, version-RFB-320.onnx, FaceBoxesV2.pth, dpr_98_points_*.pth.tar, dpr_gsr.npz   Peppa's, FaceBoxes's, DPR's

and MediaPipe is `pip install mediapipe==0.10.21`, whose package has its nets. It wants an older protobuf than TensorBoard:
give it an environment of its own and name it there (`others.py mediapipe`); what each tool found stays in weights/others, and the
last call makes the table of all. What is absent is skipped, saying so, and its row stays as it is, with the commit it is of.
"""
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from face_boxes import SETS, TESTED, photographs, place_of
from record import COMMIT, RESULTS, ROOT, save

from pipnet.detector import Detector
from pipnet.errors import UserError
from pipnet.geometry import Protocol, box_of
from pipnet.landmarker import Landmarker, LandmarkNet
from utils.config import load_layout, read_defaults, resolve
from utils.data.convert import conversion
from utils.data.parsers import Record
from utils.test.evaluate import torch_predictor

FILES = Path(os.environ.get("OTHERS", ROOT / "../shared/reference"))
FITTED = 100  # training photographs of each set, for the habits
Find = Callable[[np.ndarray], np.ndarray]  # picture (H, W, 3) uint8 BGR -> landmarks (M, N, 2) in px


def ours(file: Path | None = None) -> Find:
    landmarker = Landmarker(file)
    return lambda image: _points(landmarker(image))


def dlib() -> Find:
    import dlib
    detector = dlib.get_frontal_face_detector()
    predictor = dlib.shape_predictor(str(_file("shape_predictor_68_face_landmarks.dat")))

    def find(image: np.ndarray) -> np.ndarray:
        rgb = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
        faces = [predictor(rgb, box) for box in detector(rgb, 1)]
        return np.array([[(part.x, part.y) for part in face.parts()] for face in faces]).reshape(-1, 68, 2) + 0.5
    return find


def mediapipe() -> Find:
    from mediapipe import solutions
    mesh = solutions.face_mesh.FaceMesh(static_image_mode=True, max_num_faces=10, refine_landmarks=True)

    def find(image: np.ndarray) -> np.ndarray:
        faces = mesh.process(cv2.cvtColor(image, cv2.COLOR_BGR2RGB)).multi_face_landmarks or []
        points = np.array([[(point.x, point.y) for point in face.landmark] for face in faces]).reshape(-1, 478, 2)
        return points * (image.shape[1], image.shape[0])
    return find


def slim() -> Find:
    return _published("slim", "68", ["slim_160_latest.pth"], "rfb320", "version-RFB-320.onnx", None)


def gsr() -> Find:
    names = [f"dpr_98_points_{name}.pth.tar" for name in ("global_reinit", "global_regress")]
    with np.load(_file("dpr_gsr.npz")) as stored:
        mean = stored["mean_98_face"].reshape(98, 2)
    find, to_68 = _published("dpr", "98", names, "faceboxes", "FaceBoxesV2.pth", mean, parts=False), conversion("98", "68")
    return lambda image: to_68(find(image))


class Tool(NamedTuple):
    """open() loads it. trained_on: photographs, as far as known."""
    open: Callable[[], Find]
    title: str
    trained_on: str


TOOLS = {
    "ours": Tool(ours, "ours, weights/", "parts of 300W and FACES68"),
    "ours_300w": Tool(lambda: ours(ROOT / "weights/bench_real_256/best.onnx"), "ours, ResNet-18 of real_256", "a part of 300W"),
    "dlib": Tool(dlib, "dlib", "300W, its tests too"),
    "mediapipe": Tool(mediapipe, "MediaPipe Face Mesh", "Google's own"),
    "slim": Tool(slim, "Peppa Slim", "300W, its tests perhaps, and more"),
    "gsr": Tool(gsr, "DPR GSR", "WFLW"),
}


def _file(name: str) -> Path:
    if not (FILES / name).is_file():
        raise FileNotFoundError(f"no {FILES / name}")
    return FILES / name


def _points(faces: list) -> np.ndarray:
    return np.array([face.landmarks for face in faces]) if faces else np.zeros((0, 68, 2))


def _published(preset: str, layout_name: str, names: list[str], detector: str, boxes: str, mean: np.ndarray | None,
               **given) -> Find:
    """A published net in the preset that was made for it, behind the detector of its project."""
    from utils.train import initialise as finetune
    from utils.train import run_folder as run
    args = resolve({"layout": layout_name, **given}, read_defaults(), preset)
    layout = load_layout(args.tables["layouts"], layout_name)
    mean = np.full((layout.count, 2), 0.5) if mean is None else mean
    net = run.make_net(args, layout, mean).eval()
    finetune.start(net, ",".join(str(_file(name)) for name in names), layout, mean, print)
    predict = torch_predictor(net, torch.device("cpu"))
    seen = LandmarkNet(lambda images: {name: value.numpy() for name, value in predict(torch.from_numpy(images))._asdict().items()
                                       if name in ("landmarks", "score")},
                       layout, Protocol(**args.tables["protocols"][args.protocol]), args.input_size, None, net.input_margin)
    landmarker = Landmarker(seen, detector=Detector(detector, _file(boxes)))
    return lambda image: np.array([face.landmarks for face in landmarker(image)]).reshape(-1, layout.count, 2)


def look(find: Find, records: list[Record]) -> tuple[np.ndarray, float]:
    """(landmarks (F, N) complex in px, NaN for a labelled face that is not found; median ms a picture)."""
    found, spent = [], []
    for record in records:
        image = cv2.imread(str(record.file))
        start = time.perf_counter()
        faces = find(image)
        spent.append(time.perf_counter() - start)
        place = place_of(record, np.array([box_of(face) for face in faces]))
        found.append(None if place is None else faces[place] @ (1, 1j))
    count = next(len(face) for face in found if face is not None)
    return np.array([np.full(count, np.nan) if face is None else face for face in found]), 1000 * float(np.median(spent))


def apart(found: np.ndarray, records: list[Record]) -> np.ndarray:
    """(F, N, 68) complex: from each labelled landmark to each found one in the frame of the eyes, whose outer corners are 1
    apart; (F, 68) between the same ones where N is 68."""
    truth = np.array([record.landmarks for record in records]) @ (1, 1j)
    eyes = (truth[:, 45] - truth[:, 36])[:, None]
    return (found - truth) / eyes if found.shape[1] == 68 else (found[:, :, None] - truth[:, None]) / eyes[:, None]


def without_habits(train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """(F, 68) complex: what is left in `test` without the mean of `train`; of many points each landmark's steadiest."""
    habit = np.nanmean(train, 0)
    if train.ndim == 2:
        return test - habit
    steadiest = np.nanmean(abs(train - habit), 0).argmin(0)
    return (test - habit)[:, steadiest, range(68)]


def table(name: str, folder: Path, kept: list[dict]) -> list[dict]:
    """Rows of one set, of all tools whose findings are there; of others those that were kept, each with its commit."""
    train, test = photographs(name, "train", FITTED), photographs(name, "test", TESTED)
    measured = {}
    for tool in TOOLS:
        if (file := folder / f"{name}_{tool}.npz").is_file():
            with np.load(file) as stored:
                if (len(stored["train"]), len(stored["test"])) != (len(train), len(test)):
                    sys.exit(f"{file} is of other photographs; measure {tool} again")
                plain = apart(stored["test"], test)
                measured[tool] = plain, without_habits(apart(stored["train"], train), plain), float(stored["ms"])
    everywhere = np.isfinite([abs(fitted).mean(1) for _, fitted, _ in measured.values()]).all(0)
    rows = {row["tool"]: row for row in kept if row["set"] == name}
    for tool, (plain, fitted, spent) in measured.items():
        error = {"nme": round(100 * float(abs(plain[everywhere]).mean()), 3) if plain.ndim == 2 else None,
                 "habits_aside_nme": round(100 * float(abs(fitted[everywhere]).mean()), 3)}
        title = TOOLS[tool].title
        rows[title] = {"set": name, "tool": title, "trained_on": TOOLS[tool].trained_on, "faces": len(test),
                       "found_%": round(100 * float(np.isfinite(fitted).all(1).mean()), 1), "found_by_all": int(everywhere.sum()),
                       **error, "ms": round(spent, 1), "commit": COMMIT}
    return [rows[tool.title] for tool in TOOLS.values() if tool.title in rows]


def main(tools: list[str]) -> None:
    folder, names = ROOT / "weights" / "others", [name for name, (_, source) in SETS.items() if source]
    if not names:
        sys.exit("skipped: FACES_300W and FACES68 name no folder")
    folder.mkdir(parents=True, exist_ok=True)
    for tool in tools:
        try:
            find = TOOLS[tool].open()
        except (ImportError, OSError, UserError) as error:
            print(f"{TOOLS[tool].title} skipped: {error}")
            continue
        for name in names:
            train, _ = look(find, photographs(name, "train", FITTED))
            test, spent = look(find, photographs(name, "test", TESTED))
            np.savez(folder / f"{name}_{tool}.npz", train=train, test=test, ms=spent)
    stored = RESULTS / "others.json"
    kept = json.loads(stored.read_text(encoding="utf-8"))["rows"] if stored.is_file() else []
    found = [row for name in names for row in table(name, folder, kept)]
    save("others", "python benchmarks/others.py", 0, {"fitted_on": FITTED, "rows": found})


if __name__ == "__main__":
    if unknown := set(sys.argv[1:]) - set(TOOLS):
        sys.exit(f"no tool {', '.join(unknown)} (there are: {', '.join(TOOLS)})")
    main(sys.argv[1:] or list(TOOLS))
