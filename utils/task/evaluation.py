"""Tests of a landmark net: NME of each set in each kind of box, the report, and the export."""

import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from loguru import logger

from nets import Prediction, Trainable
from nets.registry import STATES
from pipnet.errors import UserError
from pipnet.geometry import to_crop
from pipnet.landmark_net import PER_LANDMARK, LandmarkNet, open_net
from pipnet.layout import Layout
from pipnet.pose import head_pose
from pipnet.runtimes import stored_values
from pipnet.shipped import shipped
from utils.data.faces import Faces, evenly
from utils.data.paths import set_name
from utils.data.prepared_set import ALL, load_splits
from utils.data.sets import check_same_protocol, distinct, title_for
from utils.evaluate.boxes import rebox
from utils.evaluate.evaluate import Comparison, Predict, Result, comparison_of, evaluate, face_norms, torch_predictor
from utils.evaluate.report import Report
from utils.evaluate.tables import Case
from utils.export.evaluation import Bounds, Evaluation
from utils.export.files import Source, deployed, example_for, from_arrays
from utils.export.landmarks import write_landmark_net
from utils.settings import rooms
from utils.settings.config import ROOT, Settings
from utils.settings.faults import PAGES
from utils.settings.formats import FORMATS, SOURCE
from utils.settings.union import Member, Union, layout_of, members_of
from utils.task.check_sets import doubts_about_tests
from utils.task.face_states import complete
from utils.task.task_data import TaskData
from utils.train import checkpoint
from utils.train.ranks import Ranks
from utils.train.run_folder import Run

CALIBRATION = 200  # crops on which 8-bit numbers are calibrated
LOST = 100  # % NME; even a net that gives the same landmarks for any face has less


@dataclass(frozen=True)
class LandmarkEvaluation(Evaluation):
    """Tests of the landmark net of a run on the splits `task_data.tested`, see `landmark_evaluation`.

    - stored: the values of the checkpoint
    - net: the net in the tested layout, or in all that it has learnt; index: the landmarks of that layout; None: all
    - torch_net: the net with its weights; None for an exported file
    - comparisons: of the net with the labels of each split
    - member: the layout of the exports of a net of several; None: its only one
    """

    task_data: TaskData
    ranks: Ranks
    run: Run
    stored: dict[str, Any]
    net: LandmarkNet
    index: tuple[int, ...] | None
    torch_net: Trainable | None
    comparisons: list[Comparison]
    member: Member | None = None
    bounds = {name: Bounds(0.05) if name == "int8" else Bounds(0.01, 0.5) for name in FORMATS}  # NME points, px

    @property
    def settings(self) -> Settings:
        return self.task_data.settings

    @property
    def report(self) -> Report:
        test = self.settings.test
        return Report(self.run.folder / "report", test.norm, test.thresholds, self.run.model)

    def torch_model(self) -> Predict:
        return self._predictor(self.torch_net)

    def _predictor(self, net: Trainable) -> Predict:
        """Return the predictor of a net, for the landmarks of the tested layout."""
        predict = torch_predictor(net, self.ranks.device)
        return Comparison(self.net.layout, self.index)(predict)

    def open(self, file: Path, threads: int) -> Predict:
        predict = from_arrays(open_net(file, threads).predict)
        if self.run.model != "torch":
            return Comparison(self.net.layout, self.index)(predict)
        if self.member and isinstance(self.net.layout, Union):
            return spread(predict, self.member.index, self.net.layout.count)
        return predict

    def gap(self, case: Case) -> str:
        index = case.comparison.index  # None if one layout was chosen, which the exports have too
        if self.member is None or index is None or {*index} <= {*self.member.index}:
            return ""
        name = next(name for name, member in members_of(self.net.layout).items() if member.index == index)
        return f"the file has layout {self.member.layout.name}; add --layout {name}"

    def export_onnx(self) -> None:
        run = self.run
        if self.torch_net is None:
            if run.exported:
                return
            raise checkpoint.no_weights(run.weights)
        values, boxed = self.stored, "the landmarks"
        if self.member:
            union = cast(Union, layout_of(values["layout"]))
            values, whole = checkpoint.in_layout(values, self.member), union.whole(self.member)
            boxed = boxed if whole == self.member else f"{boxed} of layout {whole.layout.name}"
        if run.exported:
            found = stored_values(run.onnx)
            alike = found.get("protocol") == self.net.protocol._asdict() and found.get("layout") == values["layout"]
            if alike or run.onnx in run.given:
                return
        index = self.member.index if self.member else None
        write_landmark_net(run, self.torch_net, values, self.net.protocol, index, boxed)

    def export(self, formats: list[str], out: str | None = None, overwrite: bool = False) -> str:
        if "pipeline-int8" in formats:  # which is made from the 8-bit net
            formats = ["int8", *(name for name in formats if name != "int8")]
        if PAGES & {*formats} and not self.settings.test.detector_weights:
            logger.info(
                "the detector and the finder in it are for research only; for a product give --detector-weights "
                "weights/detector-open.onnx, with which it has no finder"
            )
        if "web" not in formats:
            return super().export(formats, out, overwrite)
        files = super().export([name for name in formats if name != "web"] or ["onnx"])
        page = rooms.runtimes.export_page(self.run, out, overwrite, self.settings.test.detector_weights)
        return f"{files}, the page to {page}"

    def source(self) -> Source:
        def feeds() -> Iterator[dict[str, np.ndarray]]:
            logger.info(f"8-bit numbers are calibrated on faces of {', '.join(self.settings.data.training_sets)}")
            hidden = [split._replace(labelled=False) for split in self.task_data.splits("train")]
            faces = self.task_data.crops(hidden, self.net.layout)
            for index in evenly(len(faces), CALIBRATION):
                yield {"image": faces.plain_crop(index)[None]}

        if self.torch_net is None:
            raise checkpoint.no_weights(self.run.weights)
        return Source(
            self.run.onnx,
            feeds,
            deployed(self.torch_net),
            example_for(self.net.size, self.net.margin),
            Path(self.settings.test.detector_weights or shipped("detector.onnx")),
            self.run.source,
            self.member.index if self.member else None,
            self.run.export_path("int8"),
        )

    def calls(self, model: Predict) -> dict[int, Callable[[], object]]:
        pictures = example_for(self.net.size, self.net.margin)[:1].repeat(16, 1, 1, 1)
        return {count: partial(model, pictures[:count]) for count in (1, 16)}

    def cases(self) -> Iterator[Case]:
        for line in doubts_about_tests(self.task_data, self.stored) if self.ranks.first else ():
            logger.warning(line)
        test, splits, layout = self.settings.test, self.task_data.tested, self.net.layout
        outputs = ["pose"] * self.net.pose + ["states"] * bool(self.net.states) + ["visible"]
        detect = None
        if "detector" in test.box:
            from pipnet import Detector, Landmarker

            detect = Landmarker(self.run.weights, Detector(test.detector, test.detector_weights)).detect
        titles, files = [], distinct([set_name(split.set.folder) for split in splits])
        for split, comparison in zip(splits, self.comparisons, strict=True):
            titles.append(title_for(split.set, layout, comparison.layout))
        for split, comparison, title, file in zip(splits, self.comparisons, distinct(titles), files, strict=True):
            faces = load_splits([split], comparison.layout, self.net.size, self.settings.data.cache, self.net.margin)
            if comparison.layout is layout:  # another layout may not suffice for pose and states
                faces = complete(faces, layout, outputs)
            for box in test.box:
                boxed, missed = rebox(faces, box, self.settings.data.cache, detect)
                case = Case(split.set, title, file, box, boxed, comparison, missed)
                yield case._replace(earlier=self._earlier(case)) if box == "true" else case

    def _earlier(self, case: Case) -> tuple[float, ...]:
        """Return the NME of the nets of earlier rounds of --semi, if there are any."""
        files = [] if self.run.alone or self.run.model != "torch" else sorted(self.run.folder.glob("round*/best.pt"))
        nets = (self._predictor(checkpoint.unpack(file)[0]) for file in files)
        return tuple(float(np.nanmean(self.evaluate(net, case).nme)) for net in nets)

    def evaluate(self, model: Predict, case: Case) -> Result:
        test = self.settings.test
        return evaluate(
            case.comparison(model),
            case.faces,
            case.comparison.layout,
            test.norm,
            ranks=self.ranks,
            flip_test=test.flip_test,
        )

    def differences(self, case: Case, one: Result, two: Result) -> tuple[float, np.ndarray]:
        crop = case.faces["crop"]
        apart = to_crop(one.landmarks, crop) - to_crop(two.landmarks, crop)
        figures = float(np.nanmean(one.nme)), float(np.nanmean(two.nme))
        far = max(figures[0] / LOST, 1)  # rounding grows with the numbers of a net that has diverged
        return abs(figures[0] - figures[1]) / far, self.net.size / far * np.hypot(*apart.T).ravel()

    def with_result(self, report: Report, case: Case, model: str, result: Result) -> Report:
        if case.comparison.layout is self.net.layout and (
            words := compare_outputs(
                result, case.faces, self.net.layout, self.net.size if "system" in self.stored else None
            )
        ):
            logger.info(f"{case.title}, {model}: {words}")
        report = report.with_result(case, model, result)
        if model == report.model and rooms.report:
            shown = rooms.report.show_case(report.folder, case, result, report.norm)
            report = report._replace(shown=(*report.shown, shown))
        return report

    def close(self, report: Report) -> str:
        test, run, stored = self.settings.test, self.run, self.stored
        tables = report.write(test.flip_test, run.source[SOURCE])
        how = f"{test.norm} norm, flip test {'on' if test.flip_test else 'off'}, {', '.join(test.box)} boxes"
        how += f", layout {self.settings.view}" if self.settings.view else ""
        how += f", crops {self.settings.data.protocol}" if "system" in stored else ""
        if "detector" in test.box:
            how += "; faces that the detector missed are tested in their true boxes"
        about = checkpoint.about(run.weights, stored)
        for line in f"{about}, {how}\n{tables}".split("\n"):
            logger.debug(line)
        if rooms.report:
            rooms.report.write_report_page(run, report, stored, how)
        else:
            logger.info("no page and no row per face are written: this checkout lacks the folder extras/report")

        index = run.folder / "report" / "index.html"
        files = [run.weights, run.onnx, run.folder / "step.csv", index]
        named = ", ".join(_below(file) for file in dict.fromkeys(files) if file.exists())
        lines = ["", tables, "", f"Net:   {about}", f"How:   {how}", f"Files: {named}", *self._notes(report)]
        if all(split.set.synthetic for split in self.task_data.tested):
            lines.append(
                "Next:  python main.py --train --test --dataset 300w --data-dir 300W   (own pictures: docs/data.md)"
            )
        else:
            if rooms.report:
                lines.append(f"Next:  open {shlex.quote(_below(index))} in a browser")
            if (run.folder / "events").is_dir():
                lines.append(f"       tensorboard --logdir {shlex.quote(_below(run.folder))}")
        return "\n".join(lines)

    def _notes(self, report: Report) -> Iterator[str]:
        """Yield what limits the meaning of the figures."""
        if self.stored["args"]["val"] == "test":
            yield "Note:  the epoch was picked on the test set (--val test); figures on unseen faces would be worse"
        if lost := [row["test set"].strip() for row in report.scores if float(row["NME %"]) > LOST]:
            yield (
                f"Note:  above {LOST} % on {', '.join(dict.fromkeys(lost))}: the net has diverged or learnt nothing; "
                "lower --learning-rate, or train longer"
            )
        if any(split.set.synthetic for split in self.task_data.tested):
            yield "Note:  figures on synthetic faces show that all works, not how accurate the net is on photographs"


def _below(path: Path) -> str:
    """Return a path as text, without the folder of the checkout."""
    return str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)


def landmark_evaluation(
    task_data: TaskData, ranks: Ranks, run: Run, stored: dict[str, Any] | None
) -> LandmarkEvaluation:
    """Return the tests of a run. UserError if the net was trained on test faces.

    stored: the values of its checkpoint; None: they are read here.
    """
    tested, test, defaults = task_data.tested, task_data.settings.test, task_data.sets.defaults
    view, protocol = task_data.settings.view, task_data.sets.protocol
    stored = stored or checkpoint.load(run.weights, defaults)
    learnt = layout_of(stored["layout"])
    member = learnt.chosen(view) if isinstance(learnt, Union) else None
    chosen, torch_net = member if view else None, None
    if run.model == "torch":
        run, torch_net = run.in_layout(view, stored["layout"]), checkpoint.built(run.weights, stored)
        net = checkpoint.described(torch_net, checkpoint.in_layout(stored, chosen) if chosen else stored)
    else:
        net, member = open_net(run.weights), None
        net = replace(net, layout=chosen.layout) if chosen else net
    net, index = replace(net, protocol=protocol), chosen.index if chosen else None
    seen = stored.get("data", ())
    if mine := [split.set.folder for split in tested if split.name == ALL and split.set.checksum in seen]:
        raise UserError(f"{mine[0]} has no test split, and the net was trained on its faces; give other --test-data")
    if view and not task_data.settings.data.test_data:
        task_data = _without_foreign(task_data, net.layout)
    comparisons = [task_data.comparison(split, net.layout) for split in task_data.tested]
    for split, comparison in zip(task_data.tested, comparisons, strict=True):  # all of them before the first is tested
        check_same_protocol(split.set, protocol._asdict())
        layout = comparison.layout
        face_norms(load_splits([split], layout, net.size, 0, net.margin), layout, test.norm)
    return LandmarkEvaluation(task_data, ranks, run, stored, net, index, torch_net, comparisons, member)


def _without_foreign(task_data: TaskData, layout: Layout) -> TaskData:
    """Return the sets without those whose labels no rule relates to a layout. UserError if there is no other."""
    layouts, tested = task_data.settings.layouts, []
    for split in task_data.tested:
        if comparison_of(layout, split.set.labelled, layouts):
            tested.append(split)
        else:
            stored = split.set.meta["layout"]
            logger.info(f"{split.set.folder} is not tested: no rule relates its layout {stored} to {layout.name}")
    if task_data.tested and not tested:
        raise UserError(
            f"no rule relates the layouts of the test sets to {layout.name}; name sets or folders: --test-data"
        )
    return replace(task_data, tested=tested)


def spread(predict: Predict, index: Sequence[int], count: int) -> Predict:
    """Return a predictor of `count` landmarks, from one of those at `index`. The others are NaN."""

    def all_landmarks(images: torch.Tensor) -> Prediction:
        found = predict(images)

        def placed(values: torch.Tensor | None) -> torch.Tensor | None:
            if values is None:
                return None
            full = values.new_full((len(values), count, *values.shape[2:]), torch.nan)
            full[:, list(index)] = values
            return full

        parts: dict[str, Any] = {name: placed(getattr(found, name)) for name in PER_LANDMARK}
        return found._replace(**parts)

    return all_landmarks


def compare_outputs(result: Result, faces: Faces, layout: Layout, side: int | None = None) -> str:
    """Return a line that compares a net's pose and states with the labels of faces; empty for a net without such
    outputs.

    side: of the input of a published net, in px. Such a net was trained on Peppa's angles of the landmarks in its crop.
    """
    words = []
    if result.pose is not None:
        truth = faces["pose"]
        if side is not None:
            landmarks = side * to_crop(faces["landmarks"], faces["crop"])
            truth = np.radians([head_pose(points, layout, side, side) for points in landmarks])
        apart = np.degrees(np.abs((result.pose - truth + np.pi) % (2 * np.pi) - np.pi))
        pitch, yaw, roll = np.nanmean(apart, 0)
        words.append(f"pose off by {np.nanmean(apart):.1f} degrees (pitch {pitch:.1f}, yaw {yaw:.1f}, roll {roll:.1f})")
        words[0] += " by Peppa's angles in the crop" * (side is not None)
    if result.states is not None:
        for place, name in enumerate(STATES):
            truth, found = faces["states"][:, place], result.states[:, place] > 0.5
            hit, wrong = found[truth == 1], found[truth == 0]
            counts = f"found in {hit.sum()} of {len(hit)}, reported wrongly in {wrong.sum()} of {len(wrong)}"
            words.append(f"{name.replace('_', ' ')} {counts}")
    return "; ".join(words)
