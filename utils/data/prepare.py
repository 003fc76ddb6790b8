"""Raw archive -> data/<name>-<hash>/: each face is cropped with its margin and resized once; labels stay in image pixels.

disk.py describes the folder. Its hash is of all that decides what is in the set, so a set is made once and never changed.
"""

import hashlib
import re
import shutil
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from loguru import logger

from pipnet.cores import cores
from pipnet.errors import Unreadable, UserError
from pipnet.geometry import Protocol, box_of, box_of_crop, crop_box, cut
from utils.data.disk import CROPS, write_set
from utils.data.fingerprint import contents_checksum, fingerprint, labels_checksum
from utils.data.makers import ORIGIN_IS_KNOWN, dataset_rows, infer, read_set
from utils.data.new_folder import new_folder
from utils.data.paths import edited_layout, layout_file, write_layout_file
from utils.data.prepared_set import FORMAT, LEFT_OUT, SPLITS, name_hash, read_meta, read_source_image
from utils.data.table import CONTINUOUS, RawSet, Splits, Table, archive_and_labels, complain, image_of, only, tally
from utils.data.threads import Threads
from utils.settings.config import Defaults, checked_protocol, load_protocol, read_defaults
from utils.settings.layouts import Layouts, without_same
from utils.settings.progress import progress
from utils.settings.sections import KEYS
from utils.settings.yaml_files import nearest

JPEG = [cv2.IMWRITE_JPEG_QUALITY, 95, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
OPTIONS = ("target_size", "margin", "frame_step", "identity", "labels", "test_split", "val")  # keys of the section data
LOST = 0.01  # share of the faces that may be damaged
FAR_OFF = 2  # reached / wanted share of a split, from which a warning says it
# meaning of Dataset.gssl, and key of meta.yaml: px that the authors count more in the box's sides; shares of these by
# which the left, top, right and bottom edge of the crop lie outside the box
GSSL_CROP = "gssl_crop"
# largest side of a crop / side of its image; beyond it a landmark must be wrong, and memory would not suffice
LARGEST = 100


@dataclass(frozen=True)
class DataGenerator:
    """Prepares one raw archive: `run()` returns the folder of its set, and writes it if it is missing.

    - data_dir: the archive: a folder, or of a user's own set one file of labels in it
    - dataset: one of `dataset_rows`; None: inferred from data_dir
    - name: of the set; None: the name of the dataset, for a user's own set the name of its folder. out: folder of the sets
    - target_size: px, side of the nominal crop. margin: stored crop / nominal crop. protocol: a Protocol or a row of
      args.yaml
    - val: share of the training identities in the val split; with 0, "none" or "test" none is split off, and the
      archive's own val/ stays
    - test_split: share of the training identities of a user's own set that is the test, where it has no test split
    - allow_partial: accept an incomplete archive. overwrite: write the set anew; the folder that is there is moved aside
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
    test_split: float | None = None

    def run(self) -> Path:
        """Return the set's folder. Write it if it is missing. UserError, with nothing written, if anything is wrong."""
        source, annotation = archive_and_labels(Path(self.data_dir))
        if not source.is_dir():
            raise UserError(
                f"{source}: no such folder; data_dir is the raw archive, e.g. 300W with afw, helen, lfpw and ibug"
            )
        self._check()
        try:
            recipe = self._recipe(source)
            layouts, points = self.layouts or self.defaults.layouts, None
            if recipe["own"]:
                recipe |= {"annotation": annotation, "test_split": self.test_split}
                if not self.layout:
                    recipe["layout"], layouts = edited_layout(Path(self.out), source, layouts)
                points = {name: without_same(row) for name, row in layouts.rows.items()}  # they may be in another order
            key = repr((sorted(recipe.items()), points)).encode(errors="surrogateescape")
            target = Path(self.out) / f"{recipe['name']}-{hashlib.sha256(key).hexdigest()[:8]}"
            if self.overwrite or not target.exists():
                self._write(source, target, recipe, layouts)
            read_meta(target)  # a damaged one is named
        except OSError as error:
            raise UserError(f"{error.filename or self.out}: {error.strerror or error}") from None
        return target

    @cached_property
    def _protocol(self) -> Protocol:
        if isinstance(self.protocol, Protocol):
            return checked_protocol(self.protocol._asdict(), "protocol")
        return load_protocol(self.defaults.protocols, self.protocol)

    def _recipe(self, source: Path) -> dict[str, Any]:
        """Return all that decides what is in the set, as it is written to meta.yaml. The archive is not read yet."""
        dataset = self.dataset or infer(source)
        row = dataset_rows()[dataset]
        name = self.name or (dataset if row.layout else source.resolve().name)
        if not re.fullmatch(r"[^./\\\s][^/\\\t\n\r]*", name):
            raise UserError(f"'{name}' cannot be the name of a prepared set: a plain folder name is wanted")
        return {
            "format": FORMAT,
            "dataset": dataset,
            "title": row.title,
            "own": row.layout is None,
            "name": name,
            "source": str(source.resolve()),
            "fingerprint": fingerprint(source),  # a change from here on is noticed next time
            "layout": self.layout or row.layout,
            "protocol": self._protocol._asdict(),
            "target_size": self.target_size,
            "margin": self.margin,
            "origin": row.origin if self.first_pixel is None else self.first_pixel,
            "label_shift": row.label_shift,
            "norms": list(row.norms),
            "states": list(row.states),
            "labels": self.labels,
            "val": 0 if self.val in ("test", "none") else self.val,
            "seed": self.seed,
            "expected": row.expected or None,
            **{key: getattr(self, key) for key in row.options},
            **gssl_crop(dataset, self._protocol, self.defaults.protocols),
        }

    def _write(self, source: Path, target: Path, recipe: dict[str, Any], layouts: Layouts) -> None:
        """Read the archive and write its set, and beside it the file of a layout that is made for it."""
        logger.info(f"preparing {target.name} from {source}")
        row, published = dataset_rows()[recipe["dataset"]], self.labels == "published"
        splits, layout, points, made, stated = self._read(source, recipe, layouts)
        count = next(iter(splits.values()))["landmarks"].shape[1]
        if published and self._protocol.rounding == "int" and recipe["origin"] != CONTINUOUS and not row.gssl:
            for table in splits.values():  # as PIPNet's authors prepare 300W
                table |= {name: np.trunc(table[name]) for name in ("landmarks", "box")}
        listed = 0
        for table in splits.values():
            faces = len(table["file"])
            table["place"] = np.arange(listed, listed + faces)  # by which train and val can be put together again
            listed += faces
            if GSSL_CROP in recipe:
                table["box"] = gssl_boxes(table["box"], self._protocol, *recipe[GSSL_CROP])
        for split, share in (("test", recipe.get("test_split") or 0), ("val", float(recipe["val"]))):
            if split not in splits and "train" in splits:
                table = splits["train"]
                held = split_identities(table["identity"], share, self.seed)
                if share and len(held) and not 0 < held.mean() < FAR_OFF * share:
                    told = "identity" in row.options and not stated
                    logger.warning(f"{source}: {_reached(split, share, table, held, told)}")
                splits["train"], splits[split] = only(table, np.flatnonzero(~held)), only(table, np.flatnonzero(held))
            elif split == "test" and share:
                logger.info(f"{source} has test faces of its own, so --test-split is not used for it")
        splits = {split: splits[split] for split in SPLITS if split in splits and splits[split]["file"]}
        with new_folder(target, self.overwrite) as folder:
            rule = self._protocol._replace(rounding="float") if GSSL_CROP in recipe else self._protocol
            done = {split: self._crops(folder / split, table, rule) for split, table in splits.items()}
            splits = _without_damaged(folder, source, splits, done)
            if published and row.clipped:  # as PIPNet's authors prepare WFLW and AFLW
                for table in splits.values():
                    table["landmarks"] = table["landmarks"].clip(0, table["size"][:, None])
            layout_row = made or layouts.rows.get(layout)
            found = {
                "layout": layout,
                "count": count,
                **({"row": layout_row} if layout not in self.defaults.layouts.rows else {}),
                **({"points": points} if points else {}),
                **({"identities": "stated"} if stated else {}),
                "found": dict(tally(subset for table in splits.values() for subset in table["subset"])),
                "checksum": labels_checksum(source, splits),
                "contents": contents_checksum(splits),
            }
            write_set(folder, source, splits, recipe | found)
        faces = ", ".join(f"{len(table['file'])} {split}" for split, table in splits.items())
        logger.info(f"{target}: {faces} faces with {count} landmarks")
        if made:
            file = layout_file(target.parent, source)
            write_layout_file(file, layout, made)
            logger.info(f"{file} holds the layout '{layout}'; edit it if it is wrong, and the set is prepared again")

    def _read(self, source: Path, recipe: dict[str, Any], layouts: Layouts) -> RawSet:
        """Return the faces of the archive. UserError if they have not the landmarks of the recipe's layout."""
        dataset, wanted = recipe["dataset"], recipe["layout"]
        row = dataset_rows()[dataset]
        stored = layouts.load(layouts.load(wanted).stored) if wanted else None
        first = {stored.name: layouts.rows[stored.name]} if stored else {}  # among layouts with the same names
        found = read_set(
            dataset,
            source,
            allow_partial=self.allow_partial,
            layout=stored,
            layouts=Layouts({**first, **layouts.rows}),
            first_pixel=self.first_pixel,
            published=self.labels == "published",
            **{key: getattr(self, key) for key in row.options},
            **({"annotation": recipe["annotation"]} if recipe["own"] else {}),
        )
        count = next(iter(found.splits.values()))["landmarks"].shape[1]
        if stored and stored.count != count:
            raise UserError(
                f"{dataset} has {count} landmarks and cannot have layout {stored.name}; leave the layout out"
            )
        return found

    def _check(self) -> None:
        rows = dataset_rows()
        if self.dataset is not None and self.dataset not in rows:
            raise UserError(f"no dataset '{self.dataset}' (there are: {', '.join(rows)}){nearest(self.dataset, rows)}")
        if self.first_pixel is not None and not rows[self.dataset or infer(Path(self.data_dir))].origin_is_ambiguous:
            raise UserError(ORIGIN_IS_KNOWN)
        for key in OPTIONS:
            if not (key == "val" and self.val == 0):
                KEYS[key].check(getattr(self, key))

    def _crops(self, folder: Path, table: Table, protocol: Protocol) -> list[list[float] | str]:
        """Write the crops of a split. Return eight numbers for each face, or why it cannot be used.

        The numbers: the crop (4), width and height of the image, first byte of the JPEG and the one after its last.
        """

        def one(index: int) -> tuple[list[float], bytes] | str:
            source = image_of(archive, table["file"][index])
            try:
                return self._crop(source, table["landmarks"][index], table["box"][index], protocol)
            except Unreadable:  # it may be sound: a set without it would be kept
                raise
            except UserError as error:
                return str(error)

        archive, _ = archive_and_labels(Path(self.data_dir))
        count = len(table["file"])
        done: list[list[float] | str] = []
        folder.mkdir()
        pool = Threads(self.workers or cores())  # OpenCV releases the interpreter lock
        try:
            with open(folder / CROPS, "wb") as crops:
                jobs = pool.map(one, range(count))
                for result in progress(jobs, total=count, desc=f"crops {folder.name}", unit="face"):
                    if isinstance(result, str):
                        done.append(result)
                    else:
                        numbers, jpeg = result
                        done.append([*numbers, crops.tell(), crops.tell() + len(jpeg)])
                        crops.write(jpeg)
        finally:
            pool.shutdown(cancel_futures=True)  # an interrupt waits only for the crops that have begun
        return done

    def _crop(
        self, source: Path, landmarks: np.ndarray, box: np.ndarray, protocol: Protocol
    ) -> tuple[list[float], bytes]:
        """Return ([crop (4), width, height of the image], the JPEG) of one face."""
        image = read_source_image(source)
        height, width = image.shape[:2]
        places = {"face box lies": box} if np.isnan(landmarks).all() else {"landmarks lie": box_of(landmarks)}
        for what, edges in {**places, "face box lies": box}.items():
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
        # published labels, too, are relative to exact edges
        edges = np.trunc(crop) if self.labels == "published" else crop
        done, data = cv2.imencode(".jpg", cut(image, edges, self.target_size, self.margin, protocol.border), JPEG)
        if not done:
            raise UserError(f"{source}: OpenCV cannot encode its crop as JPEG")
        return [*crop.tolist(), width, height], data.tobytes()


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
        else:
            shutil.rmtree(folder / split)
    return found


def gssl_crop(dataset: str, protocol: Protocol, rows: dict[str, Any]) -> dict[str, list[float]]:
    """Return the entry GSSL_CROP of meta.yaml for a dataset whose crops in protocol `gssl` are its own, else {}.

    rows: the protocols of args.yaml.
    """
    own = dataset_rows()[dataset].gssl if protocol._asdict() == rows.get("gssl") else ()
    return {GSSL_CROP: list(own)} if own else {}


def gssl_boxes(
    boxes: np.ndarray, protocol: Protocol, more: float, left: float, top: float, right: float, bottom: float
) -> np.ndarray:
    """Return the boxes (M, 4) from which `protocol` makes PIPNet's crops of boxes (M, 4), image px; see GSSL_CROP."""
    sides = boxes[:, 2:] - boxes[:, :2] + more
    low, high = boxes[:, :2] - sides * (left, top), boxes[:, 2:] + sides * (right, bottom)
    return box_of_crop((low + high) / 2, high - low, protocol)


def _reached(split: str, share: float, table: Table, held: np.ndarray, told: bool) -> str:
    """Return in words which share of the faces a split has, and the remedy if the user has asked for another `share`.

    held (M,): whether each face is in the split. told: identities are told by the names of pictures.
    """
    people, pictures = len({*table["identity"]}), len({re.sub(r"#\d+$", "", name) for name in table["file"]})
    remedy = "; if these are no clips, --identity picture makes each picture one" if told and people < pictures else ""
    return (
        f"{held.sum()} of {len(held)} training faces ({held.mean():.0%}, not {share:.0%}) become the split {split}, because "
        f"all are of {people} identities, which are not divided{remedy}"
    )


def split_identities(identities: list[str], share: float, seed: int) -> np.ndarray:
    """Return (M,) bool: whether each face is in the val split, which gets `share` of the identities.

    A hash of seed and identity chooses them, so that adding faces moves few others between the splits.
    """
    order = sorted(set(identities), key=lambda name: name_hash(f"{seed}/{name}"))
    held = set(order[: min(max(round(share * len(order)), 1), len(order) - 1)]) if share > 0 and order else set()
    return np.array([name in held for name in identities], dtype=bool)
