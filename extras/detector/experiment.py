"""The training of the face detector FaceBoxesV2 as an `Experiment`, on photographs with boxes and on landmark sets."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import torch
from loguru import logger

from extras.detector import metric
from extras.detector.faceboxes import FaceBoxesV2
from extras.detector.find_faces import Detect, completed, find_faces, torch_detector, turned
from extras.detector.loaders import weights_of
from extras.detector.scene_sources import Cutouts, backgrounds, decoded, portraits
from extras.detector.scenes import Material, Scenes
from extras.detector.settings import DetectSettings
from extras.detector.wider import Picture, check_events, divide, is_wider, list_file, read_wider
from pipnet.errors import UserError
from pipnet.shipped import checksum
from utils.data.faces import evenly
from utils.data.paths import set_name
from utils.data.prepared_set import PreparedSet, Split, trained_splits
from utils.data.sets import Sets, distinct, training_names
from utils.settings.config import Settings, read_defaults
from utils.train.experiment import Experiment, TrainingSet, ValidationResult, check_finite
from utils.train.initialise import RANDOM, InitialWeights
from utils.train.ranks import Ranks
from utils.train.solver import Solver

COMPOSITES = 200  # test and validation pictures if there are no photographs
CALIBRATION = 100  # pictures on which 8-bit numbers are calibrated
NORMS = 16  # crops on which batch norms that are folded into an export are measured
HELD = 160  # portraits to validate on, in addition to photographs
GOLDEN = 137.508  # degrees, the golden angle: its multiples are spread evenly over all rolls
LATER = 10**6  # the epoch whose draws make pictures for validation and calibration; no training reaches it


@dataclass(frozen=True)
class PictureSets:
    """The pictures of a run.

    - wider: folders in the WIDER layout, landmark_sets: prepared sets; both to train on
    - tested: {name: pictures}
    - sets: all landmark sets
    """

    sets: Sets
    wider: list[Path]
    landmark_sets: list[PreparedSet]
    tested: dict[str, list[Picture]]
    ranks: Ranks

    @property
    def settings(self) -> Settings:
        """Return the settings of the run."""
        return self.sets.settings

    @cached_property
    def loaded(self) -> tuple[Material, list[Picture]]:
        """Return the material of training crops, and the pictures to validate on.

        All processes must call this, because they share the teacher's work.
        """
        settings, wider, sets, tested = self.settings, self.wider, self.landmark_sets, self.tested
        data, partial_events = settings.data, tuple(settings.room(DetectSettings).partial_events)
        pictures = [picture for folder in wider for picture in read_wider(folder, "train", partial_events)]
        check_events(partial_events, pictures)
        splits = [Split(one, name) for one in sets for name in trained_splits(data.val)]
        cutouts, held, alone = Cutouts(splits, data.cache), [], []
        if data.val == "test":
            held = [picture for several in tested.values() for picture in several]
        elif data.val != "none" and pictures:
            pictures, held = divide(pictures, float(data.val), settings.train.seed)
            # portraits lower the figure of an epoch that no longer finds large faces, so that it is not selected
            held += portraits([Split(one, "val") for one in sets], HELD, whole=True)
        elif data.val != "none":
            held = composites([Split(one, "val") for one in sets], settings)
        if settings.train.teacher:
            pictures, alone = _complete(settings.train.teacher, pictures, portraits(splits), self.ranks)
        if not any((~picture.ignored).any() for picture in pictures) and not len(cutouts):
            raise UserError(f"{', '.join(data.training_sets)}: no face to train on")
        kept = decoded([*pictures, *alone], data.cache)
        shown = kept[: len(pictures)] or backgrounds(settings.net.input_size, settings.train.seed)
        return Material(shown, cutouts, kept[len(pictures) :]), held


def prepare(sets: Sets, ranks: Ranks, train: bool, test: bool) -> PictureSets:
    """Return the pictures of a run, to train on and to test on. Prepare missing sets. All processes call this."""
    data = sets.data
    trained = training_names(sets.settings, sets.defaults) if train else []
    tested = (data.test_data or data.training_sets) if test else []
    sets = ranks.one_by_one(lambda: sets.with_sets(_of_landmarks(trained)))
    sets = ranks.one_by_one(lambda: sets.with_sets(_of_landmarks(tested), test=True))
    pictures = ranks.one_by_one(lambda: read_tests(sets, tested)) if test else {}
    landmark_sets = [sets[name] for name in _of_landmarks(trained)]
    return PictureSets(sets, _of_wider(trained), landmark_sets, pictures, ranks)


def _of_wider(names: list[str]) -> list[Path]:
    """Return the folders in the WIDER layout among names."""
    return [Path(name) for name in names if is_wider(Path(name))]


def _of_landmarks(names: list[str]) -> list[str]:
    """Return the names of landmark sets among names."""
    return [name for name in names if not is_wider(Path(name))]


def read_tests(sets: Sets, tested: list[str]) -> dict[str, list[Picture]]:
    """Return {name: pictures}: validation photographs of WIDER folders, composites of the test faces of landmark sets."""
    settings, data = sets.settings, sets.data
    partial_events = tuple(settings.room(DetectSettings).partial_events)
    wider, prepared = _of_wider(tested), [sets[name] for name in _of_landmarks(tested)]
    alone = [sum(other.name == folder.name for other in wider) == 1 for folder in wider]
    names = [folder.name if one else "-".join(folder.parts[1:]) for folder, one in zip(wider, alone, strict=True)]
    found = {name: read_wider(folder, "val", partial_events) for name, folder in zip(names, wider, strict=True)}
    if data.test_data or not wider:
        titles = distinct([one.title for one in prepared])
        for title, one in zip(titles, prepared, strict=True):
            found[f"{title}, composites"] = composites([Split(one, "test")], settings)
    return found


def _complete(
    teacher: str, pictures: list[Picture], alone: list[Picture], ranks: Ranks
) -> tuple[list[Picture], list[Picture]]:
    """Return photographs and portraits (`alone`), each with the faces that a teacher finds in addition to the labelled
    ones.
    """
    if not pictures:
        raise UserError(
            "--teacher finds the faces without a box in photographs, and no set of --train-data has any; leave "
            "it out, or add a folder in the layout of WIDER FACE"
        )
    every = [*pictures, *alone]
    found = completed(torch_detector(weights_of(Path(teacher)), ranks.device, 0.1), every, ranks)
    more = sum(len(picture.boxes) for picture in found) - sum(len(picture.boxes) for picture in every)
    logger.info(f"{teacher}: {more} additional boxes, certain and uncertain ones")
    return found[: len(pictures)], found[len(pictures) :]


def composites(splits: list[Split], settings: Settings) -> list[Picture]:
    """Return pictures with the faces of some splits on rendered backgrounds.

    Of the settings only the sizes of crop and faces matter, so that they are the same for all detectors of these sizes.
    """
    cutouts = Cutouts(splits, settings.data.cache)
    if not len(cutouts):
        folders = ", ".join(str(split.set.folder) for split in splits)
        raise UserError(f"{folders} has no faces in its split {splits[0].name}; give --val none or --val 0.1")
    # not the settings of the run, so that different detectors get the same pictures
    plain, size = Settings.of(read_defaults()), settings.net.input_size
    detect = replace(plain.room(DetectSettings), mosaic=0.0, face_sides=settings.room(DetectSettings).face_sides)
    material = Material(backgrounds(size, plain.train.seed + 1), cutouts, [])
    scenes = Scenes(material, detect, plain.augment, size, plain.train.seed, min(len(cutouts), COMPOSITES))
    made = [scenes.scene(LATER, index) for index in range(len(scenes))]
    nothing = [np.zeros(len(scene.boxes), bool) for scene in made]
    return [
        Picture(Path(f"composite {index}"), splits[0].name, scene.boxes, none, none, image=scene.image)
        for index, (scene, none) in enumerate(zip(made, nothing, strict=True))
    ]


def make_scenes(material: Material, settings: Settings, count: int) -> Scenes:
    """Return a dataset of `count` training crops per epoch."""
    detect = settings.room(DetectSettings)
    return Scenes(material, detect, settings.augment, settings.net.input_size, settings.train.seed, count)


def calibration(task_data: PictureSets) -> Iterator[np.ndarray]:
    """Yield pictures of the training sets to calibrate 8-bit numbers on."""
    splits = [Split(one, "train") for one in task_data.landmark_sets]
    kinds = [
        [picture for folder in task_data.wider for picture in read_wider(folder, "train")],
        composites(splits, task_data.settings) if splits else [],
    ]
    kinds = [pictures for pictures in kinds if pictures]
    for pictures in kinds:
        for index in evenly(len(pictures), CALIBRATION // len(kinds)):
            yield pictures[index].read()


# ------------------------------------------------------------------------------------------------------------ training
def detector_experiment(task_data: PictureSets) -> Experiment:
    """Return the training of a detector on `task_data`, whose pictures are loaded here."""
    settings, ranks, (material, held) = task_data.settings, task_data.ranks, task_data.loaded
    words = (
        f"{len(material.pictures)} pictures and {len(material.cutouts)} faces of {', '.join(settings.data.training_sets)}, "
        f"{len(held)} pictures to validate"
    )
    lists = [checksum(list_file(folder, "train")) for folder in task_data.wider]
    scenes = make_scenes(material, settings, settings.room(DetectSettings).crops)
    samples = TrainingSet(scenes, lists + [one.checksum for one in task_data.landmark_sets], words)
    return Experiment(
        settings,
        f"a face detector ({settings.train.preset}), crops of {settings.net.input_size} px",
        "val_miss",
        "miss {:.2f} %",
        samples,
        partial(start_net, settings, scenes),
        {"layout": {}, "protocol": {}, "command": " ".join(["python main.py", *sys.argv[1:]])},
        partial(validator, task_data, held, ranks),
    )


def start_net(settings: Settings, scenes: Scenes, last: Path | None) -> tuple[FaceBoxesV2, InitialWeights]:
    """Return the detector with its initial weights, and their origin. last: see `Experiment`."""
    weights = settings.net.weights
    net = FaceBoxesV2() if weights == "none" else weights_of(Path(weights))
    if Path(weights).suffix == ".onnx":  # an export's batch norms are folded
        crops = np.stack([scenes.scene(LATER, index).image for index in range(NORMS)])
        net.measure_norms(torch.from_numpy(crops))
    if weights == "none" and not last:
        return net, RANDOM
    return net, InitialWeights("the checkpoint" if last else weights)


def validator(task_data: PictureSets, held: list[Picture], ranks: Ranks, solver: Solver):
    """Return a function that validates the weights of `solver` on the pictures `held`."""
    net = FaceBoxesV2()
    turns = [turned(picture, GOLDEN * index) for index, picture in enumerate(held)]

    def validate() -> ValidationResult:
        state = solver.averaged()
        check_finite(state)
        net.load_state_dict(state)
        figure = miss(torch_detector(net, ranks.device), task_data, held, turns, ranks) if held else float("nan")
        return ValidationResult(state, {"val_miss": figure})

    return validate


def miss(detect: Detect, task_data: PictureSets, held: list[Picture], turns: list[Picture], ranks: Ranks) -> float:
    """Return 100 % minus the mean of a detector's figures over all scales and kinds of pictures.

    The figures are AP in photographs where every face has a box, AP in portraits, and recall in other photographs.
    turns: the pictures `held`, each turned by another angle, which count at the first scale.
    """
    figures, portrait = [], {set_name(one.folder) for one in task_data.landmark_sets}
    scales = task_data.settings.room(DetectSettings).scales
    for pictures, scale in [*((held, scale) for scale in scales), (turns, scales[0])]:
        found = find_faces(detect, pictures, scale, ranks)
        groups: dict[tuple[bool, bool], list[int]] = {}
        for index, picture in enumerate(held):
            groups.setdefault((picture.whole, picture.event in portrait), []).append(index)
        for (whole, _), some in groups.items():
            scores = metric.score([found[index] for index in some], [pictures[index] for index in some])
            figures.append(scores.ap if whole else scores.recall)
    known = [figure for figure in figures if np.isfinite(figure)]  # NaN: no face is there
    return 100 * (1 - float(np.mean(known))) if known else float("nan")
