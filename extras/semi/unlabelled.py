"""Faces without labels, and pictures without a face. They come from a prepared set, whose labels are hidden, or from
pictures or a video, by a detector.

What is cut out becomes a prepared set in unlabelled/ of the data root. Its only split, `unlabelled`, has no landmarks. A
face is taken if its score is high, if it is sharp, and if it is no near-duplicate of one taken shortly before. The score
is `Face.score` of the net from which the training starts if that has the output `face`, else the detector's.
Of a picture without a face, what the detector is least unlikely to take for one is cut out, and boxes at random. If
the training starts from a landmark net, so are the crops that this net asks for next: there background looks most like a
face to it.
"""

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from loguru import logger

from extras.semi.settings import SemiSettings
from pipnet.boxes import with_roll
from pipnet.detector import Detector
from pipnet.errors import UserError
from pipnet.files import own_folder
from pipnet.geometry import Protocol, crop_box, cut, upright_boxes
from pipnet.landmarker import Landmarker
from pipnet.shipped import checksum, shipped_onnx
from pipnet.video.sources import Frame, open_source
from utils.data.disk import CROPS, write_set
from utils.data.fingerprint import fingerprint
from utils.data.new_folder import new_folder
from utils.data.paths import check_pictures, is_unlabelled_set
from utils.data.pixels import sharpness
from utils.data.prepare import JPEG
from utils.data.prepared_set import FORMAT, UNLABELLED, PreparedSet, Split, name_hash, source_picture
from utils.data.sets import Sets
from utils.settings.config import Settings
from utils.settings.formats import files_of
from utils.settings.progress import progress
from utils.task.inference import open_landmark_net
from utils.train.weight_files import load_weights

LEAST_SIDE = 32  # px, of a face's box
GREY = 128  # px, side to which a face box is resized to measure its sharpness
HASHED = 32  # px, side to which it is resized to compare its low frequencies
DUPLICATE = 6  # of 63 signs of frequencies: near-duplicates differ in at most so many
RECENT = 4096  # a new face is compared with so many earlier ones, which bounds the time for large folders
LEAST_SCORE = 0.1  # of what a detector finds in a picture without a face
MOST_FOUND, EACH = 8, 8  # of such boxes of a picture, and boxes at random beside them
NEXT = 2  # crops in a row that a landmark net asks for, for each of these boxes
SMALLEST = 12  # px, least side of a box at random: what a detector takes for a face is often so small
UNKNOWN = np.full((1, 2), np.nan)
REASONS = {
    "small": f"smaller than {LEAST_SIDE} px",
    "blurred": "blurred (--least-sharpness)",
    "twin": "near-duplicates",
}


class Cut(NamedTuple):
    """How faces are cut out: with protocol, target_size and margin of the labelled set.
    least_sharpness: see `sharpness`; None: pictures without a face are cut up, see `background_boxes`. net: the file of
    a landmark net that scores faces, and asks for further crops of pictures without one; None: it is not asked.
    """

    protocol: Protocol
    target_size: int
    margin: float
    least_sharpness: float | None
    net: Path | None = None

    @property
    def faces(self) -> bool:
        """Return whether faces are cut out."""
        return self.least_sharpness is not None


def unlabelled_splits(sets: Sets, like: PreparedSet, names: list[str]) -> list[Split]:
    """Return the splits of --unlabelled with hidden labels, prepared if need be. Test splits are left out.

    names: of datasets, prepared sets, folders of pictures, videos. like: a training set, as whose faces pictures are
    cropped.
    UserError for a set that has test faces only, and if no face is found.
    """
    found: list[Split] = []
    semi = sets.settings.room(SemiSettings)
    net, known = _start_net(sets.settings, like)
    scores = net if "face" in known.get("net", {}).get("auxiliary", ()) else None
    for name in names:
        if is_unlabelled_set(name, sets.root):
            one = sets.with_sets([name], test=True)[name]
        else:
            how = Cut(like.protocol, like.meta["target_size"], like.meta["margin"], semi.least_sharpness, scores)
            one = _cut_out(name, sets, how, semi.least_face_score)
        splits = [split for split in one.splits if split != "test"]
        if not splits:
            raise UserError(f"--unlabelled {name} has test faces only; give a set with others")
        found += [Split(one, split, labelled=False) for split in splits]
    return found


def background_splits(sets: Sets, like: PreparedSet, names: list[str]) -> list[Split]:
    """Return the splits of --backgrounds, prepared if need be. names: of folders of pictures and of videos.

    like: a training set, as whose faces the pictures are cropped.
    """
    for name in names:
        check_pictures("--backgrounds", name)
    how = Cut(like.protocol, like.meta["target_size"], like.meta["margin"], None, _start_net(sets.settings, like)[0])
    found = [_cut_out(name, sets, how, LEAST_SCORE) for name in names]
    return [Split(one, UNLABELLED, labelled=False) for one in found]


def _start_net(settings: Settings, like: PreparedSet) -> tuple[Path | None, dict[str, Any]]:
    """Return (file, values) of the net from which the training starts; (None, {}) if it is none of ours, or if it sees
    crops of another protocol, in which faces have another size.
    """
    start = settings.net.weights
    known = load_weights(start)[1]
    return (Path(start), known) if known.get("protocol") == like.protocol._asdict() else (None, {})


def background_boxes(found: np.ndarray, image: np.ndarray, name: str) -> np.ndarray:
    """Return boxes (M, 5) of a picture without a face: of those that a detector finds, `found` (K, 5), MOST_FOUND at
    most, and EACH drawn ones, keyed by the picture's name.
    """
    rng = np.random.default_rng(int.from_bytes(name_hash(name)[:8]))
    height, width = image.shape[:2]
    largest = min(height, width)
    sides = np.exp(rng.uniform(np.log(min(SMALLEST, largest)), np.log(largest), (EACH, 1)))
    centres = rng.uniform(0, 1, (EACH, 2)) * (width, height)
    drawn = np.hstack([centres - sides / 2, centres + sides / 2, np.zeros((EACH, 1))])
    return np.concatenate([found[:MOST_FOUND], drawn])


def sure_faces(found: np.ndarray, image: np.ndarray, landmarker: Landmarker, least: float) -> np.ndarray:
    """Return those boxes (M, 5) of `found` (K, 5) in which a net with the output `face` sees a face with that score."""
    boxes = np.reshape([box for box in found if landmarker.net.shows(box, *image.shape[1::-1])], (-1, 5))
    scores = np.array([face.score for face in landmarker.landmarks_of(image, boxes)])
    return boxes[scores >= least]


def next_boxes(image: np.ndarray, boxes: np.ndarray, landmarker: Landmarker) -> np.ndarray:
    """Return the landmark boxes (M, 5) of the next crops that a net asks for, from boxes (K, 5) of a picture.

    A box that would lie outside the picture is left out.
    """
    asked = [landmarker.box_of(face.landmarks) for face in landmarker.landmarks_of(image, boxes)]
    return np.reshape([box for box in asked if landmarker.net.shows(box, *image.shape[1::-1])], (-1, 5))


def _cut_out(name: str, sets: Sets, how: Cut, least: float) -> PreparedSet:
    """Return the prepared set of a folder of pictures or a video. Make it if it is missing.

    least: score of a face.
    """
    test, source = sets.settings.test, Path(name).resolve()
    weights = test.detector_weights
    files = files_of(Path(weights)) if weights else [shipped_onnx("detector")] * (test.detector == "faceboxes")
    content = [checksum(file) for file in (*files, *([how.net] if how.net else [])) if file.is_file()]
    state = fingerprint(source) if source.is_dir() else f"{source.stat().st_size} {source.stat().st_mtime_ns}"
    used = FORMAT, str(source), state, *how[:-1], test.detector, content, least
    key = hashlib.sha256(repr(used).encode(errors="surrogateescape")).hexdigest()[:8]
    folder = f"{source.stem}-{key}"
    trained = sets.settings.trained_root
    if trained and (trained / UNLABELLED / folder).is_dir():
        return sets.open(trained / UNLABELLED / folder)
    target = own_folder(sets.root, UNLABELLED) / folder
    if not target.is_dir():
        with new_folder(target) as unfinished:
            net = how.net and open_landmark_net(how.net, sets.defaults)
            detector = Detector(test.detector, weights, None if net and how.faces else least)
            landmarker = Landmarker(net, detector, any_roll=False, finder="none") if net else None
            _write(source, unfinished, how, least, detector, landmarker, state)
    one = sets.open(target)
    one.touch()
    return one


def _write(
    source: Path,
    folder: Path,
    how: Cut,
    least: float,
    detector: Detector,
    landmarker: Landmarker | None,
    state: str,
) -> None:
    """Write the faces of a source as a prepared set and log what was left out. UserError if there is none."""
    what = "faces" if how.faces else "crops without a face"
    frames, rows, counts, recent = open_source(str(source), strict=True), [], Counter(), np.zeros((0, 63), bool)
    crops, digest, size = folder / UNLABELLED / CROPS, "", 0
    crops.parent.mkdir(parents=True)
    for frame in progress(frames, total=frames.count, desc=f"{what} of {source.name}", unit="picture"):
        counts["pictures"] += 1
        faces = 0
        for box in _boxes(frame, how, least, detector, landmarker):
            faces += 1
            face = _face(frame, box, how, recent)
            if isinstance(face, str):
                counts[face] += 1
                continue
            crop, picture, bits = face
            recent = np.concatenate([recent, bits[None]])[-RECENT:]
            encoded = cv2.imencode(".jpg", picture, JPEG)[1].tobytes()
            with open(crops, "ab") as handle:
                handle.write(encoded)
            digest, size = digest or hashlib.sha256(encoded + state.encode()).hexdigest(), size + len(encoded)
            video = frame.seconds is not None
            place = f"{frame.index:06d}" if video else frame.name if source.is_dir() else source.name
            rows.append(
                {
                    "file": place + (f"#{faces}" if faces > 1 else ""),
                    "subset": UNLABELLED,
                    "identity": source.stem if video else frame.name,
                    "landmarks": UNKNOWN,
                    "box": upright_boxes(box[None])[0],
                    "crop": crop,
                    "size": frame.image.shape[1::-1],
                    "jpeg": (size - len(encoded), size),
                }
            )
        counts["empty"] += not faces
    left = [f"{counts[key]} {words}" for key, words in REASONS.items() if counts[key]]
    words = f"{source}: {len(rows)} {what} of {counts['pictures']} pictures"
    words += f"; {counts['empty']} pictures without a sure face" if how.faces else ""
    words += f"; left out: {', '.join(left)}" if left else ""
    if not rows:
        raise UserError(
            f"no face to learn from in {words}; lower --least-face-score or --least-sharpness, or give other pictures"
        )
    logger.info(words)
    root = source if source.is_dir() or video else source.parent
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    write_set(
        folder,
        root,
        {UNLABELLED: columns | {name: np.array(columns[name]) for name in ("landmarks", "crop")}},
        _meta(source.stem, root, how, len(rows), state, digest),
    )


def _boxes(frame: Frame, how: Cut, least: float, detector: Detector, landmarker: Landmarker | None) -> np.ndarray:
    """Return the boxes (M, 5) in image px of the faces of a frame, or of places that show none."""
    boxes = with_roll(detector.face_box(np.asarray(detector(frame.image).boxes, np.float64).reshape(-1, 4)))
    if how.faces:
        return sure_faces(boxes, frame.image, landmarker, least) if landmarker else boxes
    asked = [background_boxes(boxes, frame.image, f"{frame.name} {frame.index}")]
    for _ in range(NEXT):
        if landmarker is None:
            break
        asked.append(next_boxes(frame.image, asked[-1], landmarker))
    return np.concatenate(asked)


def _meta(name: str, root: Path, how: Cut, count: int, state: str, digest: str) -> dict[str, Any]:
    """Return the values of meta.yaml of a set of `count` crops without labels."""
    return {
        "format": FORMAT,
        "dataset": UNLABELLED,
        "title": "faces without labels" if how.faces else "crops without a face",
        "own": False,
        "name": name,
        "source": str(root),
        "layout": UNLABELLED,
        "count": 1,
        "protocol": how.protocol._asdict(),
        "target_size": how.target_size,
        "margin": how.margin,
        "origin": 0.5,
        "label_shift": 0.0,
        "labels": "exact",
        "norms": [],
        "states": [],
        "val": 0,
        "seed": 0,
        "expected": None,
        "found": {UNLABELLED: count},
        "fingerprint": state,
        "checksum": digest,
    }


def _face(
    frame: Frame, box: np.ndarray, how: Cut, recent: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray] | str:
    """Return (nominal crop (4,), picture with margin, signs (63,)) of a face, or the key of REASONS why it is left out."""
    height, width = frame.image.shape[:2]
    turn, box = math.radians(box[4]), box[:4]
    inside, bits = np.clip(box, 0, [width, height, width, height]), np.zeros(recent.shape[1], bool)
    if how.least_sharpness is not None:
        if (inside[2:] - inside[:2]).min() < LEAST_SIDE:
            return "small"
        grey = cv2.cvtColor(cut(frame.image, inside, GREY), cv2.COLOR_BGR2GRAY)
        if sharpness(grey) < how.least_sharpness:
            return "blurred"
        bits = signs(grey)
        if len(recent) and (recent != bits).sum(1).min() <= DUPLICATE:
            return "twin"
    crop = np.round(crop_box(box, how.protocol, width, height, turn), 4)  # as the table holds it
    return crop, cut(frame.image, crop, how.target_size, how.margin, how.protocol.border, turn), bits


def signs(grey: np.ndarray) -> np.ndarray:
    """Return the signs (63,) bool of the lowest frequencies of a grey picture. Light and encoding hardly change them."""
    small = cv2.resize(grey, (HASHED, HASHED), interpolation=cv2.INTER_AREA).astype(np.float32)
    return cv2.dct(small)[:8, :8].ravel()[1:] > 0


def check_apart(unlabelled: list[Split], tested: list[Split]) -> None:
    """Raise UserError if an unlabelled picture is also a test picture: source file or crop have the same content."""
    known: dict[int, set[bytes]] = {}
    for split in tested:
        for _, size, read in _contents(split):
            known.setdefault(size, set()).add(_digest(read()))
    for split in unlabelled:
        shared = sorted(
            {name for name, size, read in _contents(split) if size in known and _digest(read()) in known[size]}
        )
        if shared:
            raise UserError(
                f"{len(shared)} of the unlabelled pictures in {split.set.meta['source']} are test pictures, such as "
                f"{shared[0]}: a test on them would flatter the net; leave them out of one of the two"
            )


def _contents(split: Split) -> Iterator[tuple[str, int, Callable[[], bytes]]]:
    """Yield (name, number of bytes, function that reads them) for the crop of each face, and for its source file if it
    exists.
    """
    faces, source = split.set.read(split.name), Path(split.set.meta["source"])
    for index, (name, (begin, end)) in enumerate(zip(faces["file"], faces["jpeg"], strict=True)):
        yield name, int(end - begin), partial(faces.encoded, index)
        if (file := source_picture(source, name)) and file.is_file():
            yield name, file.stat().st_size, file.read_bytes


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()
