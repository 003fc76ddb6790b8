"""The task `detect`: a face detector, FaceBoxesV2, from photographs with boxes and from landmark sets."""
import hashlib
import sys
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from loguru import logger
from torch import Tensor

from nets.detectors.faceboxes import FaceBoxesV2
from pipnet.draw import sheet
from pipnet.errors import UserError
from pipnet.files import own_folder
from pipnet.images import write_image
from utils.config import ROOT
from utils.detect import metric
from utils.detect.find_faces import Detect as DetectFaces
from utils.detect.find_faces import completed, find, torch_detector
from utils.detect.scene_sources import Cutouts, backgrounds, decoded, portraits
from utils.detect.scenes import Material, Scenes
from utils.detect.wider import Picture, check_events, divide, is_wider, list_file, read_wider
from utils.evaluate.detectors import weights_of
from utils.faces.faces import evenly
from utils.faces.prepared_set import PreparedSet, Split
from utils.faces.sets import distinct
from utils.tasks.base import Task, Training, check_finite
from utils.tasks.detector_tests import FOUND, TRUTH, DetectorTests, draw_boxes
from utils.train.initialise import Started
from utils.train.make_net import check_norms
from utils.train.run_folder import Run
from utils.train.solver import Solver

COMPOSITES = 200   # test and validation pictures if there are no photographs
CALIBRATION = 100  # pictures on which 8-bit numbers are calibrated
NORMS = 16         # crops on which batch norms that are folded into an export are measured
HELD = 160         # portraits to validate on, beside photographs
LATER = 10 ** 6    # the epoch of such pictures; no training reaches it


class Sources(NamedTuple):
    """Sources of samples: folders in the WIDER layout, and prepared landmark sets."""

    wider: list[Path]
    sets: list[PreparedSet]


class Detect(Task):
    """Training and tests of a face detector."""

    figure, says = "val_miss", "miss {:.2f} %"
    excludes = {"audit": "--audit judges landmarks; leave it out of --task detect",
                "predict": "--predict is for landmark nets; demo.py --detector-weights shows what a detector finds",
                "compare": "--compare is for landmark nets; leave it out of --task detect"}

    def __init__(self, settings, defaults, ranks):
        super().__init__(settings, defaults, ranks)
        self.tested: dict[str, list[Picture]] = {}
        self.sources = Sources([], [])
        self.material: Material | None = None
        self.held: list[Picture] = []
        self.scenes: Scenes | None = None
        self.tester = FaceBoxesV2()

    @property
    def title(self) -> str:
        return f"a face detector ({self.settings.train.preset}), crops of {self.settings.net.input_size} px"

    # ------------------------------------------------------------------------------------------------------------- data
    def find_sources(self, names: list[str], test: bool = False) -> Sources:
        """Return the sources of names and folders; prepare what is missing."""
        wider = [Path(name) for name in names if is_wider(Path(name))]
        return Sources(wider, [self.sets.prepare(name, test) for name in names if not is_wider(Path(name))])

    def prepare(self) -> None:
        self.sources = self.ranks.one_by_one(lambda: self.find_sources(self.sets.training_names()))

    def prepare_tests(self) -> None:
        self.tested = self.ranks.one_by_one(self.read_tests)

    def read_tests(self) -> dict[str, list[Picture]]:
        """Return {name: pictures}: validation photographs of WIDER folders, composites of the test faces of landmark sets."""
        data, partial = self.settings.data, tuple(self.settings.detect.partial_events)
        wider, sets = self.find_sources(data.test_data or data.train_data, test=True)
        alone = [sum(other.name == folder.name for other in wider) == 1 for folder in wider]
        names = [folder.name if one else "-".join(folder.parts[1:]) for folder, one in zip(wider, alone, strict=True)]
        found = {name: read_wider(folder, "val", partial) for name, folder in zip(names, wider, strict=True)}
        if data.test_data or not wider:
            titles = distinct([one.title for one in sets])
            for title, one in zip(titles, sets, strict=True):
                found[f"{title}, composites"] = self.composites([Split(one, "test")])
        return found

    def load(self) -> Material:
        """Return what training crops are made of; set `held`, the pictures to validate on. All processes share the teacher's
        work, so all must call it."""
        settings, (wider, sets) = self.settings, self.sources
        data, partial = settings.data, tuple(settings.detect.partial_events)
        pictures = [picture for folder in wider for picture in read_wider(folder, "train", partial)]
        check_events(partial, pictures)
        names = ("train", "val") if data.val in ("test", "none") else ("train",)
        splits = [Split(one, name) for one in sets for name in names]
        cutouts, held, alone = Cutouts(splits, data.cache), [], []
        if data.val == "test":
            held = [picture for several in self.tested.values() for picture in several]
        elif data.val != "none" and pictures:
            pictures, held = divide(pictures, data.val, settings.train.seed)
            # with portraits among them, an epoch that forgets large faces is not kept
            held += portraits([Split(one, "val") for one in sets], HELD, whole=True)
        elif data.val != "none":
            held = self.composites([Split(one, "val") for one in sets])
        if settings.train.early_stop and not held:
            raise UserError("early_stop needs pictures to validate on; give --val 0.1, or --early-stop 0")
        if settings.train.teacher:
            pictures, alone = self._complete(pictures, portraits(splits))
        if not pictures and not len(cutouts):
            raise UserError(f"{', '.join(data.train_data)}: no face to train on")
        kept = decoded([*pictures, *alone], data.cache)
        shown = kept[:len(pictures)] or backgrounds(settings.net.input_size, settings.train.seed)
        self.held = held
        return Material(shown, cutouts, kept[len(pictures):])

    def _complete(self, pictures: list[Picture], alone: list[Picture]) -> tuple[list[Picture], list[Picture]]:
        """Return photographs and portraits with the boxes that the teacher adds."""
        if not pictures:
            raise UserError("--teacher finds the faces without a box in photographs, and no set of --train-data has any; leave "
                            "it out, or add a folder in the layout of WIDER FACE")
        every, teacher = [*pictures, *alone], self.settings.train.teacher
        found = completed(torch_detector(weights_of(Path(teacher)), self.ranks.device, 0.1), every, self.ranks)
        more = sum(len(picture.boxes) for picture in found) - sum(len(picture.boxes) for picture in every)
        logger.info(f"{teacher}: {more} additional boxes, certain and uncertain ones")
        return found[:len(pictures)], found[len(pictures):]

    def composites(self, splits: list[Split]) -> list[Picture]:
        """Return pictures made of the faces of some splits on drawn backgrounds, the same every time."""
        settings = self.settings
        cutouts = Cutouts(splits, settings.data.cache)
        if not len(cutouts):
            folders = ", ".join(str(split.set.folder) for split in splits)
            raise UserError(f"{folders} has no faces in its split {splits[0].name}; give --val none or --val 0.1")
        plain = settings._replace(detect=replace(settings.detect, mosaic=0.0, pasted=max(settings.detect.pasted, 1)))
        pictures = backgrounds(settings.net.input_size, settings.train.seed + 1)
        scenes = make_scenes(Material(pictures, cutouts, []), plain, min(len(cutouts), COMPOSITES))
        made = [scenes.scene(LATER, index) for index in range(len(scenes))]
        return [Picture(Path(f"composite {index}"), splits[0].name, scene.boxes, (none := np.zeros(len(scene.boxes), bool)), none,
                        image=scene.image) for index, scene in enumerate(made)]

    def training_data(self) -> Training:
        self.material = self.material or self.load()
        names = ", ".join(self.settings.data.train_data)
        words = (f"{len(self.material.pictures)} pictures and {len(self.material.cutouts)} faces of {names}, {len(self.held)} "
                 "pictures to validate")
        lists = [hashlib.sha256(list_file(folder, "train").read_bytes()).hexdigest() for folder in self.sources.wider]
        self.scenes = make_scenes(self.material, self.settings, self.settings.detect.crops)
        return Training(self.scenes, lists + [one.checksum for one in self.sources.sets], words)

    def calibration(self) -> Iterator[np.ndarray]:
        wider, sets = self.sources
        kinds = [[picture for folder in wider for picture in read_wider(folder, "train")],
                 self.composites([Split(one, "train") for one in sets]) if sets else []]
        kinds = [pictures for pictures in kinds if pictures]
        for pictures in kinds:
            for index in evenly(len(pictures), CALIBRATION // len(kinds)):
                yield pictures[index].read()

    def show(self, count: int, run: Run | None) -> str:
        self.material = self.material or self.load()
        return self.ranks.agree(lambda: self._draw(count))

    def _draw(self, count: int) -> str:
        scenes = make_scenes(self.material, self.settings, count)
        made = [scenes.scene(0, index) for index in range(count)]
        tiles = [draw_boxes(scene.image, [(scene.unknown, FOUND), (scene.boxes, TRUTH)]) for scene in made]
        file = own_folder(ROOT / self.settings.data.data_root, "detect", "show") / "samples.jpg"
        write_image(file, sheet(tiles, min(6, count)))
        return f"{file}: {count} training crops, faces green, regions that are not trained red"

    # -------------------------------------------------------------------------------------------------------------- net
    def make_net(self, resume: bool) -> tuple[FaceBoxesV2, Started]:
        weights = self.settings.net.weights
        if weights == "imagenet":
            raise UserError("there are no ImageNet weights of a detector; give --weights none or a file")
        net = FaceBoxesV2() if weights == "none" else weights_of(Path(weights))
        if self.settings.train.batch_size == 1 and self.ranks.count == 1:
            check_norms(deepcopy(net).train(), self.settings.net.input_size)
        if Path(weights).suffix == ".onnx":  # an export's batch norms are folded
            crops = np.stack([self.scenes.scene(LATER, index).image for index in range(NORMS)])
            net.measure_norms(torch.from_numpy(crops))
        return net, Started("the checkpoint" if resume else weights)

    def description(self) -> dict[str, Any]:
        return {"layout": {}, "protocol": {}, "command": " ".join(["python main.py", *sys.argv[1:]])}

    def validate(self, solver: Solver) -> tuple[dict[str, Tensor], float]:
        state = solver.averaged()
        check_finite(state)
        self.tester.load_state_dict(state)
        return state, self.miss(torch_detector(self.tester, self.ranks.device)) if self.held else float("nan")

    def miss(self, detect: DetectFaces) -> float:
        """Return 100 % minus the mean, over the scales, of a detector's AP in complete photographs, its AP in portraits and its
        recall in other photographs."""
        figures, pictures = [], self.held
        portrait = {one.folder.name for one in self.sources.sets}
        for scale in self.settings.detect.scales:
            found = find(detect, pictures, scale, self.ranks)
            groups: dict[tuple[bool, bool], list[int]] = {}
            for index, picture in enumerate(pictures):
                groups.setdefault((picture.whole, picture.event in portrait), []).append(index)
            for (whole, _), some in groups.items():
                scores = metric.score([found[index] for index in some], [pictures[index] for index in some])
                figures.append(scores.ap if whole else scores.recall)
        return 100 * (1 - float(np.nanmean(figures)))

    def tests(self, run: Run, compare: list[Run]) -> DetectorTests:
        return DetectorTests(self, run)


def make_scenes(material: Material, settings, count: int) -> Scenes:
    """Return `count` training crops per epoch."""
    return Scenes(material, settings.detect, settings.augment, settings.net.input_size, settings.train.seed, count)
