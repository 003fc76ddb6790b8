"""Raw archive -> data/<name>/: each face is cropped with its margin and resized once; labels stay in image pixels.

disk.py describes the folder. It is written in data/.<name>.partial/ and moved when it is complete. A killed preparation
continues there, because a journal beside the crops lists those that are done.
"""

import hashlib
import os
import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml
from loguru import logger

from extras.datasets import DATASETS, NOT_COUNTABLE, Archive, infer
from extras.datasets.own_layout import layout_of
from pipnet.cores import cores
from pipnet.errors import Unreadable, UserError
from pipnet.geometry import Protocol, box_of, box_of_crop, check_protocol, crop_box, cut
from utils.data.disk import CROPS, write_set
from utils.data.fingerprint import contents_checksum, fingerprint, labels_checksum
from utils.data.partial_folders import NEW_SET, check_replaceable, partial_folder, replace_folder
from utils.data.prepared_set import FORMAT, LEFT_OUT, SPLITS, name_hash, read_source_image
from utils.data.table import Splits, Table, complain, image_of, only, tally
from utils.data.threads import Threads
from utils.settings.config import Defaults, load_protocol, read_defaults
from utils.settings.layouts import Layouts
from utils.settings.progress import progress
from utils.settings.sections import KEYS
from utils.settings.yaml_files import nearest

JPEG = [cv2.IMWRITE_JPEG_QUALITY, 95, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
CONTINUOUS = 0.5  # origin of annotations that are continuous px already
LOST = 0.01  # share of the faces that may be damaged
# meaning of Dataset.gssl, and key of meta.yaml: px that the authors count more in the box's sides; shares of these by
# which the left, top, right and bottom edge of the crop lie outside the box
GSSL_CROP = "gssl_crop"
LARGEST = (
    100  # largest side of a crop / side of its image; beyond it a landmark must be wrong, and memory would not suffice
)


@dataclass(frozen=True)
class DataGenerator:
    """Prepares one raw archive: `run()` writes data/<name> and returns it.

    - data_dir: the archive. dataset: row of archives.DATASETS; None: inferred from the folder
    - name: folder below `out`; None: the name of the dataset, for a user's own set the name of its folder
    - target_size: px, side of the nominal crop. margin: stored crop / nominal crop. protocol: a Protocol or a row of
      args.yaml
    - val: share of the training identities in the val split; with 0 or "test" none is split off, and the archive's own
      val/ stays
    - allow_partial: accept an incomplete archive. overwrite: replace a set even if the archive that it was made from is
      gone
    - layout: row of `layouts`. layouts: the rows; None: those of `defaults`. defaults: args.yaml
    - seed: of the val split. workers: threads; None: one per core. frame_step: every n-th frame of a video
    - first_pixel: coordinate of the first pixel's centre in a user's own set, where its files state none; None: 0
    - identity: which faces of a user's own set are of one identity, see `naming.identities`
    - labels: exact, or published: as PIPNet's authors prepare them
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
    layouts: Layouts | None = None
    defaults: Defaults = field(default_factory=read_defaults)
    seed: int = 0
    workers: int | None = None
    frame_step: int = 1
    identity: str = "auto"
    first_pixel: float | None = None
    labels: str = "exact"
    overwrite: bool = False

    def run(self) -> Path:
        """Parse, crop and write the set, replacing an older one. UserError, with nothing written, if anything is wrong."""
        try:
            return self._run(Path(self.data_dir))
        except OSError as error:
            raise UserError(f"{error.filename or self.out}: {error.strerror or error}") from None

    def _run(self, source: Path) -> Path:
        if not source.is_dir():
            raise UserError(
                f"{source}: no such folder; data_dir is the raw archive, e.g. 300W with afw, helen, lfpw and ibug"
            )
        self._check()
        state = fingerprint(
            source
        )  # taken before reading, so that a change during this preparation is noticed next time
        dataset = self.dataset or infer(source)
        row, defaults, protocol = DATASETS[dataset], self.defaults, self.protocol
        layouts = self.layouts or defaults.layouts
        protocol = (
            check_protocol(protocol) if isinstance(protocol, Protocol) else load_protocol(defaults.protocols, protocol)
        )
        name = self.name or (dataset if row.layout else source.resolve().name)
        target = _target(Path(self.out), name, source, self.overwrite)
        wanted = self.layout or row.layout
        stored = layouts.load(layouts.load(wanted).stored) if wanted else None
        options = {key: getattr(self, key) for key in row.options}
        first = {stored.name: layouts.rows[stored.name]} if stored else {}  # among layouts with the same names
        load = partial(
            row.load,
            source,
            self.allow_partial,
            stored and stored.count,
            layouts=Layouts({**first, **layouts.rows}),
            **options,
        )
        origin, published = row.origin if self.first_pixel is None else self.first_pixel, self.labels == "published"
        archive = load(origin=CONTINUOUS if published else origin)
        if row.countable:
            self._check_first_pixel(archive, origin, published)
        count = len(archive.columns["landmarks"][0])
        if stored and stored.count != count:
            raise UserError(
                f"{dataset} has {count} landmarks and cannot have layout {stored.name}; leave the layout out"
            )
        layout = (stored if row.layout else layout_of(archive, stored)).name
        splits, listed, edges = archive.tables(), 0, gssl_crop(dataset, protocol, defaults.protocols)
        for table in splits.values():
            if published and protocol.rounding == "int" and origin != CONTINUOUS and not row.gssl:
                table |= {
                    name: np.trunc(table[name]) for name in ("landmarks", "box")
                }  # as PIPNet's authors prepare 300W
            table["place"] = np.arange(
                listed, listed + len(table["file"])
            )  # by which train and val can be put together again
            listed += len(table["file"])
            if edges:
                table["box"] = gssl_boxes(table["box"], protocol, *edges[GSSL_CROP])
        how = (
            {
                "format": FORMAT,
                "dataset": dataset,
                "title": row.title,
                "own": row.layout is None,
                "name": name,
                "source": str(source.resolve()),
                "layout": layout,
                "count": count,
                "protocol": protocol._asdict(),
                "target_size": self.target_size,
                "margin": self.margin,
                "origin": origin,
                "label_shift": row.label_shift,
                "norms": list(row.norms),
                "states": list(row.states),
                "labels": self.labels,
                "val": self.val,
                "seed": self.seed,
                "expected": row.expected,
                "fingerprint": state,
                **options,
            }
            | ({"points": archive.names} if archive.names else {})
            | edges
        )
        rule = protocol._replace(rounding="float") if edges else protocol
        if "val" not in splits and "train" in splits and self.val != "test":
            table = splits["train"]
            held = split_identities(table["identity"], float(self.val), self.seed)
            splits["train"], splits["val"] = only(table, np.flatnonzero(~held)), only(table, np.flatnonzero(held))
        splits = {split: splits[split] for split in SPLITS if split in splits and splits[split]["file"]}
        with partial_folder(target) as partial_set:
            folder = _started(partial_set, how)
            try:
                done = {split: self._crops(folder, split, table, rule) for split, table in splits.items()}
                splits = _without_damaged(folder, source, splits, done)
                for table in (
                    splits.values() if published and row.clipped else ()
                ):  # as PIPNet's authors prepare WFLW and AFLW
                    table["landmarks"] = table["landmarks"].clip(0, table["size"][:, None])
                found = tally(subset for table in splits.values() for subset in table["subset"])
                write_set(
                    folder,
                    source,
                    splits,
                    how
                    | {
                        "found": dict(found),
                        "checksum": labels_checksum(source, splits),
                        "contents": contents_checksum(splits),
                    },
                )
                _finished(folder, done)
            except UserError:
                shutil.rmtree(folder)
                raise
            replace_folder(partial_set, target)
        faces = ", ".join(f"{len(table['file'])} {split}" for split, table in splits.items())
        logger.info(f"{target}: {faces} faces with {count} landmarks")
        return target

    def _check_first_pixel(self, archive: Archive, origin: float, published: bool) -> None:
        """Log how the files of an own set count pixels. UserError if each of them says so itself, other than the flag."""
        stated = {first: count for first, count in archive.told.items() if first is not None}
        silent = len(archive) - sum(stated.values())
        if not silent and self.first_pixel is not None and set(stated) != {origin}:
            raise UserError(
                f"{archive.root}: its files state first_pixel {', '.join(f'{first:g}' for first in stated)} themselves, not "
                f"{origin:g}; leave --first-pixel out, or correct the files"
            )
        lines = [f"from {first:g} in {count} faces, as their files state" for first, count in stated.items()]
        if silent and not published:
            lines.append(f"from {origin:g} in {silent} faces, whose files state nothing (--first-pixel 0, 0.5 or 1)")
        if lines:
            logger.info(f"{archive.root}: pixels are counted {'; '.join(lines)}")

    def _check(self) -> None:
        if self.dataset is not None and self.dataset not in DATASETS:
            raise UserError(
                f"no dataset '{self.dataset}' (there are: {', '.join(DATASETS)}){nearest(self.dataset, DATASETS)}"
            )
        if not (isinstance(self.target_size, int) and self.target_size >= 16):
            raise UserError(f"target_size must be a whole number of px, 16 or more, not {self.target_size!r}")
        if not (isinstance(self.margin, (int, float)) and 1 <= self.margin <= 4):
            raise UserError(f"margin must lie between 1 and 4, not {self.margin!r}")
        if self.first_pixel is not None and not DATASETS[self.dataset or infer(Path(self.data_dir))].countable:
            raise UserError(NOT_COUNTABLE)
        KEYS["frame_step"].check(self.frame_step)
        KEYS["identity"].check(self.identity)
        KEYS["labels"].check(self.labels)
        if self.val != "test" and not (isinstance(self.val, (int, float)) and 0 <= self.val < 1):
            raise UserError(f"val must be a share from 0 up to below 1, or 'test', not {self.val!r}")

    def _crops(self, folder: Path, split: str, table: Table, protocol: Protocol) -> list[list[float] | str]:
        """Write the crops of a split that the journal lacks.
        Return eight numbers for each face, or why it cannot be used.

        The numbers: the crop (4), width and height of the image, first byte of the JPEG and the one after its last.
        """
        count, journal = len(table["file"]), folder / f"{split}.done"
        (folder / split).mkdir(exist_ok=True)
        before = _journal(journal, folder / split / CROPS)
        if before:
            logger.info(f"continuing {split}: {len(before)} of {count} crops exist")

        def one(index: int) -> tuple[list[float], bytes] | str:
            if index in before:
                return before[index], b""
            source, landmarks, box = (
                image_of(Path(self.data_dir), table["file"][index]),
                table["landmarks"],
                table["box"],
            )
            try:
                return self._crop(source, landmarks[index], box[index], protocol)
            except Unreadable:  # it may be sound: a set without it would be kept
                raise
            except UserError as error:
                return str(error)

        done: list[Any] = []
        pool = Threads(self.workers or cores())  # OpenCV releases the interpreter lock
        try:
            with open(journal, "a", encoding="ascii") as lines, open(folder / split / CROPS, "ab") as crops:
                jobs = progress(pool.map(one, range(count)), total=count, desc=f"crops {split}", unit="face")
                for index, result in enumerate(jobs):
                    done.append(result if isinstance(result, str) else result[0])
                    if not isinstance(result, str) and index not in before:
                        begin = crops.tell()
                        crops.write(result[1])
                        crops.flush()
                        done[-1] += [begin, begin + len(result[1])]
                        print(index, *done[-1], file=lines, flush=True)
        finally:
            pool.shutdown(cancel_futures=True)  # an interrupt waits only for the crops that have begun
        return done

    def _crop(
        self, source: Path, landmarks: np.ndarray, box: np.ndarray, protocol: Protocol
    ) -> tuple[list[float], bytes]:
        """Return ([crop (4), width, height of the image], the JPEG) of one face."""
        image = read_source_image(source)
        height, width = image.shape[:2]
        for what, edges in (("landmarks lie", box_of(landmarks)), ("face box lies", box)):
            if (edges[:2] >= (width, height)).any() or (edges[2:] <= 0).any():
                raise UserError(
                    f"{source}: its {what} outside the image of {width} x {height} px; check that the "
                    "annotation belongs to this picture"
                )
        try:
            crop = np.round(crop_box(box, protocol, width, height), 4)  # as the table holds it
        except UserError as error:
            raise UserError(f"{source}: {error}") from None
        if (crop[2:] - crop[:2]).max() > LARGEST * max(width, height):
            raise UserError(
                f"{source}: its crop is {(crop[2:] - crop[:2]).max():.0f} px wide, its image {width} x {height} px; "
                "correct the annotation"
            )
        edges = (
            np.trunc(crop) if self.labels == "published" else crop
        )  # published labels, too, are relative to exact edges
        done, data = cv2.imencode(".jpg", cut(image, edges, self.target_size, self.margin, protocol.border), JPEG)
        if not done:
            raise UserError(f"{source}: OpenCV cannot encode its crop as JPEG")
        return [*crop.tolist(), width, height], data.tobytes()


def _started(partial: Path, how: dict) -> Path:
    """Return the folder to write a set into.
    It holds the crops of an interrupted preparation if that had the same `how`.
    """
    folder, key = partial / NEW_SET, hashlib.sha256(yaml.safe_dump(how).encode()).hexdigest()
    if not (folder / "key").is_file() or (folder / "key").read_text() != key:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        (folder / "key").write_text(key)
    return folder


def _journal(file: Path, crops: Path) -> dict[int, list[float]]:
    """Return {index of a face: its eight numbers} of an interrupted preparation.
    Remove a half-written crop from the file.
    """
    text = file.read_text(encoding="ascii") if file.is_file() else ""
    found, size = {}, 0
    with open(crops, "ab+") as handle:
        written = handle.tell()
        for line in text[: text.rfind("\n") + 1].splitlines():
            index, *numbers = line.split()
            begin, end = map(int, numbers[6:])
            if (
                end > written or os.pread(handle.fileno(), 2, end - 2) != b"\xff\xd9"
            ):  # the JPEG was lost in a power cut
                break
            found[int(index)], size = [*map(float, numbers[:4]), *map(int, numbers[4:])], end
        handle.truncate(size)
    if file.is_file():
        file.write_text(
            "".join(f"{index} {' '.join(map(str, numbers))}\n" for index, numbers in found.items()), encoding="ascii"
        )
    return found


def _without_damaged(folder: Path, source: Path, splits: Splits, done: dict[str, list[list[float] | str]]) -> Splits:
    """Return the usable faces with their columns crop, size and jpeg. List the others in LEFT_OUT.

    UserError if the share of the others exceeds LOST.
    """
    faults = [result for results in done.values() for result in results if isinstance(result, str)]
    faces = sum(map(len, done.values()))
    if len(faults) > LOST * faces:
        complain(
            [f"{fault}; {len(faults)} of {faces} faces cannot be used, {LOST:.0%} may be left out" for fault in faults]
        )
    if faults:
        logger.warning(f"{source}: {len(faults)} of {faces} faces cannot be used and are left out, such as {faults[0]}")
        (folder / LEFT_OUT).write_text("\n".join(faults) + "\n", encoding="utf-8", errors="surrogateescape")
    found = {}
    for split, results in done.items():
        kept = [index for index, result in enumerate(results) if not isinstance(result, str)]
        if kept:
            numbers = np.array([results[index] for index in kept])
            found[split] = only(splits[split], kept) | {
                "crop": numbers[:, :4],
                "size": numbers[:, 4:6].astype(np.int64),
                "jpeg": numbers[:, 6:].astype(np.int64),
            }
    return found


def _finished(folder: Path, splits: Iterable[str]) -> None:
    """Remove the files that only an interrupted preparation needs.
    The key is last: without it a preparation starts again.
    """
    for split in splits:
        (folder / f"{split}.done").unlink()
        if not (folder / split / "jpeg.npy").is_file():  # no face of it can be used
            shutil.rmtree(folder / split)
    (folder / "key").unlink()


def gssl_crop(dataset: str | None, protocol: Protocol, rows: dict[str, Any]) -> dict[str, list[float]]:
    """Return the entry GSSL_CROP of meta.yaml for a dataset whose crops in protocol `gssl` are its own, else {}.

    rows: the protocols of args.yaml.
    """
    own = DATASETS[dataset].gssl if dataset and protocol._asdict() == rows.get("gssl") else ()
    return {GSSL_CROP: list(own)} if own else {}


def gssl_boxes(
    boxes: np.ndarray, protocol: Protocol, more: float, left: float, top: float, right: float, bottom: float
) -> np.ndarray:
    """Return the boxes (M, 4) from which `protocol` makes PIPNet's crops of boxes (M, 4), image px; see GSSL_CROP."""
    sides = boxes[:, 2:] - boxes[:, :2] + more
    low, high = boxes[:, :2] - sides * (left, top), boxes[:, 2:] + sides * (right, bottom)
    return box_of_crop((low + high) / 2, high - low, protocol)


def split_identities(identities: list[str], share: float, seed: int) -> np.ndarray:
    """Return (M,) bool: whether each face is in the val split, which gets `share` of the identities.

    A hash of seed and identity chooses them, so that adding faces moves few others between the splits.
    """
    order = sorted(set(identities), key=lambda name: name_hash(f"{seed}/{name}"))
    held = set(order[: min(max(round(share * len(order)), 1), len(order) - 1)]) if share > 0 and order else set()
    return np.array([name in held for name in identities], dtype=bool)


def _target(out: Path, name: str, source: Path, overwrite: bool) -> Path:
    """Return out/name. UserError if replacing it would destroy something other than an older prepared set."""
    if not re.fullmatch(r"[^./\\\s][^/\\\t\n\r]*", name):
        raise UserError(f"'{name}' cannot be the name of a prepared set: a plain folder name is wanted")
    target = out / name
    if source.resolve().is_relative_to(target.resolve()):
        raise UserError(f"{target} would replace the raw archive {source} it is made from; give another name or out")
    check_replaceable(target, source, overwrite)
    return target
