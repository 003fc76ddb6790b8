"""Raw archive -> data/<name>/: every face cropped with its margin and resized once, with all labels in image pixels.

    <split>.tsv               a headed row a face (COLUMNS, and of OPTIONAL what the set has); row i is crops/<split>/{i:06d}.jpg
    crops/<split>/*.jpg       the nominal crop grown by the margin, side round(target_size * margin) px
    meanface.txt              mean training landmarks in the nominal crop frame, x y x y ... on one line
    meta.yaml                 how it was made; written last, so a folder without it is not a prepared set
"""

import hashlib
import os
import re
import shutil
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import yaml
from loguru import logger

from pipnet import media
from pipnet.errors import UserError
from pipnet.geometry import Protocol, box_of, check_protocol, crop_box, cut, to_crop
from utils.config import DEFAULT_FILE, load_layout, nearest, read_yaml
from utils.cores import cores
from utils.parsers import DATASETS, Record, Splits, complain, infer, tally
from utils.progress import progress

SPLITS = ("train", "val", "test")
COLUMNS = ("file", "subset", "identity", "width", "height", "crop_x1", "crop_y1", "crop_x2", "crop_y2",
           "box_x1", "box_y1", "box_x2", "box_y2", "landmarks", "visible")
OPTIONAL = ("pose", "states")  # pitch yaw roll in radians; one 0 or 1 a name of meta.yaml's `states`
FORMAT = 2  # of the folder; others are prepared again
META = {"dataset", "name", "source", "layout", "count", "protocol", "target_size", "margin", "origin", "val", "seed", "expected",
        "found", "checksum"}
JPEG = [cv2.IMWRITE_JPEG_QUALITY, 95, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]


class Table(NamedTuple):
    """A split of a prepared set: M faces with N landmarks. All coordinates are continuous px of the source image."""

    files: list[str]         # source images, relative to the raw archive; #2 marks the second face of one, and so on
    images: list[Path]       # the crops on disk
    subsets: list[str]       # several of one face are joined by parsers.BESIDE
    identities: list[str]
    crop: np.ndarray         # (M, 4) float64 nominal crop x1, y1, x2, y2
    box: np.ndarray          # (M, 4) float64
    landmarks: np.ndarray    # (M, N, 2) float64, NaN where not annotated
    visible: np.ndarray      # (M, N) bool; a landmark that is NaN is not visible
    size: np.ndarray         # (M, 2) int64 width and height of the source image
    pose: np.ndarray | None = None    # (M, 3) float64 pitch, yaw, roll in radians, None where the set has none
    states: np.ndarray | None = None  # (M, k) bool, named in meta.yaml


@dataclass(frozen=True)
class DataGenerator:
    """Prepares one raw archive; `run()` does the work and returns data/<name>.

    data_dir: the archive. target_size: px, side of the nominal crop. dataset: row of parsers.DATASETS, None: what the folder
    looks like. name: folder below out, None: the dataset's, for own layouts the folder's own. protocol: row of args.yaml or a
    Protocol. margin: stored crop / nominal crop. val: share of the training identities in the val split, 0 or "test": none is
    cut; a val/ of the archive's own stays. allow_partial: go on with an incomplete archive. layout: row of `layouts`, the
    rows of args.yaml where None. seed: of the val split. workers: threads, None: one a core.
    """

    data_dir: str | Path
    target_size: int = 256
    dataset: str | None = None
    name: str | None = None
    out: str | Path = "data"
    protocol: str | Protocol = "square"
    margin: float = 1.25
    val: float | str = 0.1
    allow_partial: bool = False
    layout: str | None = None
    layouts: dict[str, dict] | None = None
    seed: int = 0
    workers: int | None = None

    def run(self) -> Path:
        """Parses, crops and writes the set, replacing an older one; UserError, and nothing written, where a thing is wrong."""
        try:
            return self._run(Path(self.data_dir))
        except OSError as error:
            raise UserError(f"{error.filename or self.out}: {error.strerror or error}") from None

    def _run(self, source: Path) -> Path:
        if not source.is_dir():
            raise UserError(f"{source}: no such folder; data_dir is the raw archive, e.g. 300W with afw, helen, lfpw and ibug")
        self._check()
        state = fingerprint(source)  # before anything is read: what changes meanwhile is found the next time
        dataset = self.dataset or infer(source)
        row, protocol, layouts = DATASETS[dataset], _protocol(self.protocol), self.layouts or read_yaml(DEFAULT_FILE)["layouts"]
        name = self.name or (dataset if row.layout else source.resolve().name)
        target = _target(Path(self.out), name, source)
        wanted = self.layout or row.layout
        stored = load_layout(layouts, load_layout(layouts, wanted).stored) if wanted else None
        splits = _numbered(row.parse(source, allow_partial=self.allow_partial, count=stored and stored.count, origin=row.origin))
        count = len(next(record for records in splits.values() for record in records).landmarks)
        if stored and stored.count != count:
            raise UserError(f"{dataset} has {count} landmarks and cannot have layout {stored.name}; leave the layout out")
        layout = stored.name if stored else _layout_of(count, layouts)
        meta = {
            "format": FORMAT, "dataset": dataset, "name": name, "source": str(source.resolve()), "layout": layout, "count": count,
            "protocol": protocol._asdict(), "target_size": self.target_size, "margin": self.margin, "origin": row.origin,
            "val": self.val, "seed": self.seed, "expected": row.expected, "found": dict(tally(splits)),
            "checksum": _checksum(source, splits), "fingerprint": state,
        } | ({"states": list(row.states)} if row.states else {})
        if "val" not in splits and self.val != "test":
            splits["train"], splits["val"] = split_identities(splits.get("train", []), float(self.val), self.seed)
        splits = {split: splits[split] for split in SPLITS if splits.get(split)}
        partial = target.with_name(f".{target.name}.partial-{os.getpid()}")
        shutil.rmtree(partial, ignore_errors=True)  # of a killed process that had the same number
        try:
            done = {split: self._crops(partial, split, records, protocol) for split, records in splits.items()}
            _write(partial, source, splits, done, meta)
            _replace(partial, target)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        faces = ", ".join(f"{len(records)} {split}" for split, records in splits.items())
        logger.info(f"{target}: {faces} faces with {count} landmarks")
        return target

    def _check(self) -> None:
        if self.dataset is not None and self.dataset not in DATASETS:
            raise UserError(f"no dataset '{self.dataset}' (there are: {', '.join(DATASETS)}){nearest(self.dataset, DATASETS)}")
        if not (isinstance(self.target_size, int) and self.target_size >= 16):
            raise UserError(f"target_size must be a whole number of px, 16 or more, not {self.target_size!r}")
        if not (isinstance(self.margin, (int, float)) and 1 <= self.margin <= 4):
            raise UserError(f"margin must lie between 1 and 4, not {self.margin!r}")
        if self.val != "test" and not (isinstance(self.val, (int, float)) and 0 <= self.val < 1):
            raise UserError(f"val must be a share from 0 up to below 1, or 'test', not {self.val!r}")

    def _crops(self, folder: Path, split: str, records: list[Record], protocol: Protocol) -> tuple[np.ndarray, np.ndarray]:
        """Writes the crops of a split; (M, 4) nominal crops and (M, 2) image sizes. UserError names the first bad image."""
        files = [folder / crop_file(split, i) for i in range(len(records))]
        files[0].parent.mkdir(parents=True)

        def one(job: tuple[Record, Path]) -> tuple[np.ndarray, tuple[int, int]] | str:
            record, file = job
            try:
                return _crop(record, file, protocol, self.target_size, self.margin)
            except UserError as error:
                return str(error)

        with ThreadPoolExecutor(self.workers or cores()) as pool:  # OpenCV releases the interpreter lock
            jobs = pool.map(one, zip(records, files, strict=True))
            done = list(progress(jobs, total=len(records), desc=f"crops {split}", unit="face"))
        complain([result for result in done if isinstance(result, str)])
        return np.array([crop for crop, _ in done]), np.array([size for _, size in done])


def crop_file(split: str, index: int) -> str:
    """Where the crop of a split's row lies, relative to the prepared folder."""
    return f"crops/{split}/{index:06d}.jpg"


def read_image(file: Path) -> np.ndarray:
    """Image (H, W, 3) uint8 BGR, upright by its EXIF tag. UserError when it is missing, unreadable or cut short."""
    return media.read_image(file, "fetch it again or remove it with its .pts")


def _crop(record: Record, file: Path, protocol: Protocol, target_size: int, margin: float) -> tuple[np.ndarray, tuple[int, int]]:
    """Writes the crop of one face; its nominal crop (4,) in image px and the image's (width, height)."""
    image = record.read() if record.read else read_image(record.file)
    height, width = image.shape[:2]
    for what, box in (("landmarks lie", box_of(record.landmarks)), ("face box lies", record.box)):
        if (box[:2] >= (width, height)).any() or (box[2:] <= 0).any():
            raise UserError(f"{record.file}: its {what} outside the image of {width} x {height} px; is the annotation another's?")
    try:
        crop = np.round(crop_box(record.box, protocol, width, height), 4)  # as the table holds it
    except UserError as error:
        raise UserError(f"{record.file}: {error}") from None
    done, data = cv2.imencode(".jpg", cut(image, crop, target_size, margin, protocol.border), JPEG)
    if not done:
        raise UserError(f"{record.file}: OpenCV cannot encode its crop as JPEG")
    file.write_bytes(data)
    return crop, (width, height)


def split_identities(records: list[Record], share: float, seed: int) -> tuple[list[Record], list[Record]]:
    """(train, val): whole identities, `share` of them, drawn by a hash of seed and identity, so that adding faces moves few."""
    def key(name: str) -> bytes:
        return hashlib.sha256(f"{seed}/{name}".encode(errors="surrogateescape")).digest()

    order = sorted({record.identity for record in records}, key=key)
    held = set(order[:min(max(round(share * len(order)), 1), len(order) - 1)]) if share > 0 and order else set()
    return [r for r in records if r.identity not in held], [r for r in records if r.identity in held]


def _protocol(protocol: str | Protocol) -> Protocol:
    """The row of args.yaml of that name, checked."""
    if isinstance(protocol, Protocol):
        return check_protocol(protocol)
    rows = read_yaml(DEFAULT_FILE)["protocols"]
    if protocol not in rows:
        raise UserError(f"no crop protocol '{protocol}' in args.yaml (there are: {', '.join(rows)}){nearest(protocol, rows)}")
    try:
        return check_protocol(Protocol(**rows[protocol]))
    except TypeError:
        raise UserError(f"protocol '{protocol}' in args.yaml must hold {', '.join(Protocol._fields)}") from None


def _layout_of(count: int, rows: dict[str, dict]) -> str:
    """Name of the layout with that many landmarks."""
    names = [name for name, row in rows.items() if row.get("count") == count]
    if not names:
        raise UserError(f"no layout of {count} landmarks in args.yaml; add a row under layouts with count and flip_index, or "
                        "give a file with it: --layout FILE.yaml")
    return names[0]


def _target(out: Path, name: str, source: Path) -> Path:
    """out/name, after checking that replacing it can destroy nothing but an older prepared set."""
    if not re.fullmatch(r"[^./\\\s][^/\\\t\n\r]*", name):
        raise UserError(f"'{name}' cannot be the name of a prepared set: a plain folder name is wanted")
    target = out / name
    if source.resolve().is_relative_to(target.resolve()):
        raise UserError(f"{target} would replace the raw archive {source} it is made from; give another name or out")
    if target.exists() and not (target / "meta.yaml").is_file():
        raise UserError(f"{target} exists and is not a prepared set; move it away or give another name")
    if target.is_symlink():
        raise UserError(f"{target} is a link; remove it or give another name")
    if target.exists() and (old := read_yaml(target / "meta.yaml").get("source")) != str(source.resolve()):
        logger.warning(f"{target} was prepared from {old} and is replaced")
    return target


def fingerprint(source: Path) -> str:
    """sha256 over names, sizes and times of all files below `source`: cheap enough to ask whether an archive has changed."""
    digest = hashlib.sha256()
    for folder, folders, names in os.walk(source):
        folders.sort()
        for name in sorted(names):
            path = os.path.join(folder, name)
            state = os.lstat(path)
            line = f"{os.path.relpath(path, source)}\0{state.st_size}\0{state.st_mtime_ns}\0"
            digest.update(line.encode(errors="surrogateescape"))
    return digest.hexdigest()


def _numbered(splits: Splits) -> Splits:
    """The same records, those after the first of an image with their number."""
    seen: Counter = Counter()

    def number(record: Record) -> Record:
        seen[record.file] += 1
        return record._replace(face=seen[record.file])

    return {split: [number(record) for record in records] for split, records in splits.items()}


def _name(record: Record, source: Path) -> str:
    """What tables call a face: its image, and which face of it."""
    return record.file.relative_to(source).as_posix() + (f"#{record.face}" if record.face > 1 else "")


def _checksum(source: Path, splits: Splits) -> str:
    """sha256 over the names, image sizes in bytes, landmarks and visibility, in order of the name."""
    digest = hashlib.sha256()
    named = {_name(record, source): record for records in splits.values() for record in records}
    for name, record in sorted(named.items()):
        size = (record.file.parent if record.read else record.file).stat().st_size
        digest.update(f"{name}\0{size}\0".encode(errors="surrogateescape") + record.landmarks.tobytes())
        digest.update(b"" if record.visible is None else record.visible.tobytes())
    return digest.hexdigest()


def _line(record: Record, source: Path, crop: np.ndarray, size: np.ndarray) -> str:
    """A face as a row of COLUMNS and its own of OPTIONAL; `_row` reads it back."""
    numbers = (f"{value:.4f}" for value in (*crop, *record.box))
    landmarks = " ".join(f"{value:.4f}" for value in record.landmarks.ravel())
    visible = "" if record.visible is None else "".join("01"[int(flag)] for flag in record.visible)
    more = [] if record.pose is None else [" ".join(f"{value:.6f}" for value in record.pose)]
    more += [] if record.states is None else ["".join("01"[int(flag)] for flag in record.states)]
    names = (_name(record, source), record.subset, record.identity)
    return "\t".join((*names, str(size[0]), str(size[1]), *numbers, landmarks, visible, *more))


def _write(folder: Path, source: Path, splits: Splits, done: dict[str, tuple[np.ndarray, np.ndarray]], meta: dict) -> None:
    """The tables, the meanface and, last, meta.yaml."""
    for split, records in splits.items():
        faces = zip(records, *done[split], strict=True)
        columns = [*COLUMNS, *(name for name in OPTIONAL if records and getattr(records[0], name) is not None)]
        lines = ["\t".join(columns), *(_line(record, source, crop, size) for record, crop, size in faces)]
        (folder / f"{split}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8", errors="surrogateescape")
    if "train" in splits:
        landmarks = to_crop(np.array([record.landmarks for record in splits["train"]]), done["train"][0])
        unseen = np.flatnonzero(np.isnan(landmarks).any(axis=-1).all(axis=0))
        if len(unseen):
            raise UserError(f"{source}: landmark {unseen[0]} is annotated in no training face, so it has no mean")
        meanface = np.nanmean(landmarks, axis=0).ravel().tolist()
        (folder / "meanface.txt").write_text(" ".join(map(repr, meanface)) + "\n", encoding="ascii")
    (folder / "meta.yaml").write_text(yaml.safe_dump(meta, sort_keys=False), encoding="utf-8")


def _replace(partial: Path, target: Path) -> None:
    """Moves the finished folder into place; an older set stands until then."""
    old = partial.with_name(f".{target.name}.old-{os.getpid()}")
    if target.exists():
        os.replace(target, old)
    os.replace(partial, target)
    shutil.rmtree(old, ignore_errors=True)


def load_meta(folder: Path) -> dict[str, Any]:
    """meta.yaml of a prepared set; UserError when there is none, or one of another version."""
    file = Path(folder) / "meta.yaml"
    if not file.is_file():
        raise UserError(f"{folder} is not a prepared set; prepare one: python main.py --prepare --data-dir RAW")
    meta = read_yaml(file)
    if meta.get("format") != FORMAT or not META <= set(meta):
        raise UserError(f"{file} is damaged or of another version of the format; remove {folder} and prepare it again")
    return meta


def load_meanface(folder: Path) -> np.ndarray:
    """Mean training landmarks (N, 2) float64 in the nominal crop frame; UserError when the set has no train split."""
    file, count = Path(folder) / "meanface.txt", load_meta(folder)["count"]
    try:
        return np.array(file.read_text(encoding="ascii").split(), dtype=np.float64).reshape(count, 2)
    except (OSError, ValueError):
        raise UserError(f"{file} does not hold {count} landmarks; a prepared set without a train split has none") from None


def mismatch(folder: Path, **wanted: Any) -> str:
    """Why a prepared folder cannot serve, one line; empty when it is whole and every wanted key of its meta.yaml has that value.

    Keys are those of meta.yaml, e.g. target_size, margin, protocol (a Protocol or a row's name), val, seed, layout, source.
    """
    folder = Path(folder)
    if not (folder / "meta.yaml").is_file():
        return f"{folder} has not been prepared"
    try:
        meta = load_meta(folder)
    except UserError as error:
        return str(error)
    if "protocol" in wanted:
        wanted = {**wanted, "protocol": _protocol(wanted["protocol"])._asdict()}
    for key, value in wanted.items():
        if key not in meta:
            raise KeyError(key)
        if meta[key] != value:
            if key == "fingerprint":
                return f"{meta['source']} has changed since {folder} was prepared"
            return f"{folder} was prepared with {key} {meta[key]}, not {value}"
    splits = [split for split in SPLITS if (folder / f"{split}.tsv").is_file()]
    for split in splits:
        with open(folder / f"{split}.tsv", "rb") as file:
            rows = sum(1 for _ in file) - 1
        crops = folder / "crops" / split
        held = sum(entry.name.endswith(".jpg") for entry in os.scandir(crops)) if crops.is_dir() else 0
        if held != rows:
            return f"{crops} holds {held} crops for {rows} rows of {split}.tsv"
    return "" if splits else f"{folder} holds no split"


def prepared(folder: Path, **wanted: Any) -> bool:
    """Whether a prepared folder is whole and made with these values; see `mismatch`."""
    return not mismatch(folder, **wanted)


def load_split(folder: Path, split: str) -> Table:
    """A split of a prepared set; UserError names file and line of a bad row. Only `val` may be absent: it then has no face."""
    folder = Path(folder)
    file, count = folder / f"{split}.tsv", load_meta(folder)["count"]
    if not file.is_file() and split != "val":
        raise UserError(f"{folder} has no {split} split; give a set that has one")
    text = file.read_text(encoding="utf-8", errors="surrogateescape") if file.is_file() else "\t".join(COLUMNS)
    lines = text.removesuffix("\n").split("\n")
    columns = lines[0].split("\t")
    more = columns[len(COLUMNS):]
    if columns != [*COLUMNS, *(name for name in OPTIONAL if name in more)]:
        raise UserError(f"{file}, line 1: the header is not that of a prepared set; prepare it again")
    sizes = [{"pose": 3, "states": len(load_meta(folder).get("states", ()))}[name] for name in more]
    rows = [_row(line.split("\t"), count, sizes, f"{file}, line {number}") for number, line in enumerate(lines[1:], 2)]
    if not rows and split != "val":
        raise UserError(f"{file}: no face in it; prepare the set again")
    numbers = np.array([row[1] for row in rows]).reshape(-1, 10)
    landmarks = np.array([row[2] for row in rows]).reshape(-1, count, 2)
    visible = np.array([row[3] for row in rows], dtype=bool).reshape(-1, count) & ~np.isnan(landmarks).any(axis=-1)
    files, subsets, identities = ([row[0][i] for row in rows] for i in range(3))
    images = [folder / crop_file(split, i) for i in range(len(rows))]
    extra = {name: np.array([row[4][i] for row in rows]).reshape(-1, sizes[i]) for i, name in enumerate(more)}
    if "states" in extra:
        extra["states"] = extra["states"] == 1
    return Table(files, images, subsets, identities, numbers[:, 2:6], numbers[:, 6:], landmarks, visible,
                 numbers[:, :2].astype(np.int64), **extra)


def _row(fields: list[str], count: int, sizes: list[int], where: str) -> tuple:
    """One line of a table: three names, ten numbers, landmarks, visible flags (all set where the line has none), and the
    optional columns, of `sizes` numbers each."""
    if len(fields) != len(COLUMNS) + len(sizes):
        raise UserError(f"{where}: {len(fields)} columns where {len(COLUMNS) + len(sizes)} belong; prepare the set again")
    try:
        numbers, landmarks = np.array(fields[3:13], dtype=np.float64), np.array(fields[13].split(), dtype=np.float64)
        extra = [np.array(field.split() if " " in field else list(field), dtype=np.float64) for field in fields[15:]]
    except ValueError:
        raise UserError(f"{where}: a column that is not a number; prepare the set again") from None
    if len(landmarks) != 2 * count:
        raise UserError(f"{where}: {len(landmarks) / 2:g} landmarks where {count} belong; prepare the set again")
    if set(fields[14]) - {"0", "1"} or len(fields[14]) not in (0, count):
        raise UserError(f"{where}: visible is not {count} flags 0 or 1; prepare the set again")
    if not (np.isfinite(numbers).all() and (numbers[4:6] > numbers[2:4]).all()):
        raise UserError(f"{where}: not a crop box; prepare the set again")
    if [len(values) for values in extra] != sizes:
        raise UserError(f"{where}: pose or states have another number of values than the set; prepare the set again")
    return fields[:3], numbers, landmarks, [flag == "1" for flag in fields[14]] or [True] * count, extra
