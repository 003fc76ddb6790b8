"""The task `landmarks`: nets that find the landmarks of a face in its crop."""
from collections.abc import Iterator
from copy import copy, deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from loguru import logger
from torch import Tensor

from nets import Trainable, build_net
from nets.heads.pip import nearest_neighbors
from nets.wrappers.distillation import Shares, without_teacher
from nets.wrappers.mean_teacher import MeanTeacher
from pipnet.errors import UserError
from pipnet.geometry import to_crop
from pipnet.layout import Layout
from utils.evaluate.evaluate import convert_predictor, evaluate, face_norms, torch_predictor
from utils.faces.archives import DATASETS
from utils.faces.batches import Batches
from utils.faces.face_states import balanced, complete
from utils.faces.faces import Faces, evenly
from utils.faces.mixed import labelled_rows
from utils.faces.prepared_set import PreparedSet, Split, load
from utils.faces.sets import check_same_protocol
from utils.faces.unlabelled import unlabelled_tests
from utils.keys import MEAN_TEACHER, ROUNDS
from utils.tasks.base import Task, Training, check_finite
from utils.tasks.landmark_tests import LandmarkTests
from utils.tasks.unlabelled import Pool, find_pool, nominal_crops, with_unlabelled
from utils.tools import audit, rounds, zoo
from utils.tools.show import show
from utils.train.batchnorm import measure_norms
from utils.train.initialise import RANDOM, Started, initialise
from utils.train.make_net import auxiliary_outputs, check_norms, input_margin, make_net
from utils.train.run_folder import Run
from utils.train.solver import Solver
from utils.train.teacher import add_teacher

CALIBRATION = 200  # crops
TARGET = 256       # unlabelled crops of each kind that batch norms are measured on
UNTRAINED = 100    # steps, after which a net may still find the mean face everywhere without having collapsed


class Landmarks(Task):
    """Training and tests of a landmark net. fold: for an audit, the fold of the training faces that is held out."""

    figure, says = "val_nme", "NME {:.3f} %"

    def __init__(self, settings, defaults, ranks):
        super().__init__(settings, defaults, ranks)
        self.fold: int | None = None
        self.tested: list[Split] = []
        self.tester: Trainable | None = None
        self.training: list[PreparedSet] = []
        self.faces: Faces | None = None
        self.held: Faces | None = None
        self.pool: Pool | None = None
        self.target: Tensor | None = None
        self.round: tuple[Path | None, int] = None, 0

    def with_fold(self, fold: int | None) -> "Landmarks":
        """Return the task with a fold of the training faces held out for an audit."""
        task = copy(self)
        task.fold, task.tester, task.tested = fold, None, []
        return task

    def with_round(self, file: Path | None, level: int) -> "Landmarks":
        """Return the task with pseudo-labels of a round of --semi, None for the first net; level: what they train, see Labels."""
        task = copy(self)
        task.round, task.tester = (file, level), None
        return task

    def train(self, run: Run, resume: bool) -> None:
        if not resume and self.ranks.first:
            rounds.clear(run)
        self.ranks.wait()
        if self.settings.train.semi:
            self.unlabelled()  # once for all rounds, and before the first net is trained, since it may fail
        if self.settings.train.semi in ROUNDS:
            rounds.train_rounds(self.with_round, run, self.ranks, resume)
        else:
            super().train(run, resume)

    @property
    def title(self) -> str:
        net = self.settings.net
        return f"{net.net} ({self.settings.train.preset}), {self.layout.count} landmarks, {net.input_size} px"

    @property
    def layout(self) -> Layout:
        """Return the layout to train: the one asked for, else that of the first training set."""
        layout, wanted = self._layout_of(self.training[0]), self.settings.net.num_lms
        if wanted not in (None, layout.count):
            raise UserError(f"num_lms is {wanted}, but layout {layout.name} has {layout.count} landmarks; choose another "
                            "--layout or --selected-index")
        return layout

    def _layout_of(self, one: PreparedSet) -> Layout:
        data = self.settings.data
        return self.settings.layouts.load(data.layout or one.meta["layout"], data.selected_index)

    def prepare(self) -> None:
        self.training = self.ranks.one_by_one(self.sets.training)
        net, most = self.settings.net, self.layout.count - 1
        if net.head == "pip" and net.num_nb == self.sets.usual["num_nb"] > most:  # another number was chosen: an error later
            self.settings = self.settings._replace(net=replace(net, num_nb=most))
            logger.info(f"num_nb is {most}, not {net.num_nb}: there are {self.layout.count} landmarks")

    def prepare_tests(self) -> None:
        data = self.settings.data
        self.tested = self.ranks.one_by_one(self.sets.test_splits)
        if data.unlabelled and not data.test_data:
            self.tested += self.ranks.one_by_one(lambda: unlabelled_tests(self.sets, self.tested[0].set, data.unlabelled))

    # ------------------------------------------------------------------------------------------------------------- data
    def label_shifts(self) -> list[float]:
        """Return the label shift of each training set, in px: the one given, else that of the dataset."""
        shifts, count = self.settings.data.label_shift, len(self.training)
        if shifts is None:
            return [DATASETS[one.meta["dataset"]].label_shift for one in self.training]
        if len(shifts) not in (1, count):
            raise UserError(f"label_shift has {len(shifts)} numbers for {count} training sets; give one or as many")
        return shifts if len(shifts) == count else shifts * count

    def training_splits(self) -> list[Split]:
        """Return the splits that are trained on: train, and val if it is not needed for validation."""
        names = ["train", "val"] if self.settings.data.val in ("test", "none") else ["train"]
        return [Split(one, name, shift) for one, shift in zip(self.training, self.label_shifts(), strict=True) for name in names]

    def load(self, splits: list[Split]) -> Faces:
        """Return the faces of some splits with the labels that the net's outputs need."""
        settings, layout = self.settings, self.layout
        faces = load(splits, layout, settings.net.input_size, settings.data.cache, settings.data.train_hidden,
                     input_margin(settings.net))
        return complete(faces, layout, auxiliary_outputs(settings.loss))

    def load_faces(self) -> tuple[Faces, Faces | None]:
        """Return the faces to train on, and those to validate on, if any."""
        data, layout = self.settings.data, self.layout
        faces, held = self.load(self.training_splits()), None
        if data.labelled_fraction < 1:
            rows = labelled_rows(faces["identity"], data.labelled_fraction, self.settings.train.seed)
            faces = faces.only(np.flatnonzero(rows))
        if self.fold is not None:  # before rare faces are repeated, which would change the folds
            faces, held = audit.divide(faces, data.folds, self.settings.train.seed, self.fold)
        if data.least_box:
            box = faces["box"][:]
            sides = box[:, 2:] - box[:, :2]
            faces = faces.only(np.flatnonzero(sides.min(1) >= data.least_box))
            if not len(faces):
                raise UserError(f"least_box {data.least_box:g} leaves no training face; give a smaller one")
        if data.balance:
            faces = balanced(faces, layout)
        if held is not None:
            return faces, held
        if data.val == "none":
            if self.settings.train.early_stop:
                raise UserError("early_stop needs validation faces; give --val 0.1, or --early-stop 0")
            return faces, None
        held = self.load(self.tested if data.val == "test" else [Split(one, "val") for one in self.training])
        if not len(held):
            sets = ", ".join(str(one.folder) for one in self.training)
            raise UserError(f"{sets} has no validation faces with --val {data.val}; give a larger share, "
                            "--val test, or --val none to keep the last epoch")
        face_norms(held, layout, self.settings.test.norm)
        return faces, held

    def training_data(self) -> Training:
        self._check_tests()
        self.faces, self.held = self.load_faces()
        settings = self.settings
        words = f"{len(self.faces)} faces of {', '.join(settings.data.train_data)}, {len(self.held or ())} to validate"
        if settings.data.val == "test":
            words += " (the TEST set: --val test)"
        batches = Batches(self.faces, settings.augment, self.layout.flip_index, settings.train.seed)
        training = Training(batches, [one.checksum for one in self.training], words)
        return with_unlabelled(self, training) if settings.train.semi else training

    def unlabelled(self) -> Pool:
        """Return the faces to learn from without labels, see `find_pool`."""
        if self.pool is None:
            self.pool = find_pool(self)
        return self.pool

    def _check_tests(self) -> None:
        """Raise UserError for test sets that the net could not be tested on, before the training instead of after it."""
        net, layout = self.settings.net, self.layout
        for split in self.tested:
            check_same_protocol(split.set, self.training[0].meta["protocol"])
            there, _ = convert_predictor(layout, split.set.meta["layout"], self.settings.layouts)
            face_norms(load([split], there, net.input_size, 0, input_margin=input_margin(net)), there, self.settings.test.norm)

    def calibration(self) -> Iterator[np.ndarray]:
        net, splits = self.settings.net, [split for split in self.training_splits() if split.name == "train"]
        faces = load(splits, self.layout, net.input_size, 0, input_margin=input_margin(net))
        for index in evenly(len(faces), CALIBRATION):
            yield faces.crops.plain(index)

    def show(self, count: int, run: Run | None) -> str:
        splits = [split for split in self.training_splits() if split.name == "train"]
        texts = self.ranks.agree(lambda: [self._shown(split, count) for split in splits])
        if run and self.settings.train.semi in ROUNDS:
            faces = self.unlabelled().faces
            texts.append(self.ranks.agree(lambda: rounds.show_labels(faces, self.layout, run, count)))
        return "\n".join(filter(None, texts))

    def _shown(self, split: Split, count: int) -> str:
        settings, net, layout = self.settings, self.settings.net, self._layout_of(split.set)
        faces = load([split], layout, net.input_size, 0, settings.data.train_hidden, input_margin(net))
        try:
            meanface = self.sets.meanface(net.meanface, layout, faces)
            neighbors = nearest_neighbors(meanface, net.num_nb if net.head == "pip" else 0)
        except ValueError as error:
            raise UserError(str(error)) from None
        batches = Batches(faces, settings.augment, layout.flip_index, settings.train.seed)
        return show(split, batches, layout, neighbors, count, settings.data.train_hidden)

    # -------------------------------------------------------------------------------------------------------------- net
    def make_net(self, resume: bool) -> tuple[Trainable, Started]:
        settings, layout, meanface = self.settings, self.layout, self.faces.meanface()
        chosen = self.sets.meanface(settings.net.meanface, layout, self.faces)
        net = make_net(settings.net, settings.loss, layout, chosen)
        if settings.net.refine:
            logger.info(zoo.refiner(net.spec))
        if settings.train.batch_size == 1 and self.ranks.count == 1:
            check_norms(deepcopy(net).train().predict, round(settings.net.input_size * net.input_margin))
        started = Started("the checkpoint")
        if not resume:
            started = initialise(net, settings.net.weights, layout, meanface, logger.warning)
            if settings.train.freeze == "backbone" and started == RANDOM:
                raise UserError("--freeze backbone would keep random weights; give --weights of a trained net")
        if settings.train.semi == "gssl":
            net.head.levels = 3
            if min(net.grid) < 4:
                raise ValueError("gssl pools the feature map twice, which needs 4 x 4 cells at least; give a larger "
                                 "--input-size or a smaller --stride")
        elif settings.train.semi == MEAN_TEACHER:
            net = MeanTeacher(net, layout, float(self.faces.shift().mean()), settings.loss.pseudo_labels)
        if settings.train.teacher:
            loss = settings.loss
            shares = Shares(loss.teacher_landmarks, loss.teacher_maps, loss.teacher_features)
            net, words = add_teacher(net.to(self.ranks.device), Path(settings.train.teacher), shares, layout,
                                     self.training[0].meta["protocol"])
            logger.info(words)
        return net, started

    def description(self) -> dict[str, Any]:
        layout, rows = self.layout, self.settings.layouts.rows
        used = (self.settings.data.layout, layout.stored)
        return {"layout": layout.to_dict(), "protocol": self.training[0].meta["protocol"],
                "layouts": {name: row for name, row in rows.items() if name in used},
                "meanface": self.faces.meanface().tolist()}

    def validate(self, solver: Solver) -> tuple[dict[str, Tensor], float]:
        state, test = without_teacher(solver.averaged()), self.settings.test
        if self.settings.train.target_norms or self.held is not None:
            self.tester = self.tester or build_net(solver.net.spec).to(self.ranks.device)
        if self.settings.train.target_norms:
            state = self._with_target_norms(state)
        if self.held is None:
            check_finite(state)
            return state, float("nan")
        self.tester.load_state_dict(state)
        predict = torch_predictor(self.tester, self.ranks.device)
        result = evaluate(predict, self.held, self.layout, test.norm, test.test_batch_size, self.ranks)
        if self.settings.train.semi == MEAN_TEACHER and solver.step > max(solver.schedule.total / 4, UNTRAINED):
            rounds.check_collapse(to_crop(result.landmarks, self.held["crop"][:]), "the net")
        self.limits = result.limits()
        if result.sigma is not None:
            state = solver.net.head.calibrated(state, result.calibration())
        return state, float(np.nanmean(result.nme))

    def _with_target_norms(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return a net's tensors with batch norms that have the statistics of unlabelled faces."""
        if self.target is None:
            self.target = nominal_crops(self.unlabelled(), TARGET).to(self.ranks.device)
        self.tester.load_state_dict(state)
        measure_norms(self.tester.eval(), self.tester.predict, self.target, self.settings.test.test_batch_size)
        return {name: tensor.clone() for name, tensor in self.tester.state_dict().items()}

    def tests(self, run: Run, compare: list[Run]) -> LandmarkTests:
        return LandmarkTests(self, run, compare)
