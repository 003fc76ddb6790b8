"""Tests of a landmark net: NME of each set in each kind of box, the report, and the export."""

import math
import shlex
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from loguru import logger

from nets import Trainable
from nets.stages.auxiliary import STATES
from pipnet.app.web import Options, write_page
from pipnet.card import LandmarkCard
from pipnet.detector import Detector
from pipnet.errors import UserError
from pipnet.files import shipped
from pipnet.geometry import Protocol, to_crop
from pipnet.landmark_net import LandmarkNet, open_net
from pipnet.landmarker import Landmarker
from pipnet.layout import Layout
from pipnet.pose import head_pose
from pipnet.runtimes import stored_values
from utils.data.faces import Faces, evenly
from utils.data.paths import set_name
from utils.data.prepared_set import ALL, load_splits
from utils.data.sets import check_same_protocol, distinct, test_flags, title_for
from utils.evaluate.boxes import rebox
from utils.evaluate.evaluate import Comparison, Predict, Result, comparison_of, evaluate, face_norms, torch_predictor
from utils.evaluate.report import Report
from utils.evaluate.tables import Case, Compared
from utils.export.evaluation import Bounds, Evaluation
from utils.export.files import Source, deployed, example_for, export_onnx, from_arrays
from utils.settings.config import ROOT, Settings
from utils.settings.extras import extra, has_extra
from utils.settings.formats import FORMATS, SOURCE
from utils.task.check_sets import doubts_about_tests
from utils.task.face_states import complete
from utils.task.task_data import TaskData
from utils.train import checkpoint
from utils.train.make_net import trained_states
from utils.train.ranks import Ranks
from utils.train.run_folder import Run

CALIBRATION = 200  # crops on which 8-bit numbers are calibrated
LOST = 100  # % NME; even a net that gives the same landmarks for any face has less


@dataclass(frozen=True)
class LandmarkEvaluation(Evaluation):
    """Tests of the landmark net of a run on the splits `task_data.tested`, see `landmark_evaluation`.

    compare: other runs, whose figures are shown too; compared: their figures on each split
    stored: values of the checkpoint; net: the net that they describe; torch_net: with its weights, None for an exported
    file ways: how the net is compared with the labels of each split
    """

    task_data: TaskData
    ranks: Ranks
    run: Run
    compare: list[Run]
    stored: dict[str, Any]
    net: LandmarkNet
    torch_net: Trainable | None
    ways: list[Comparison]
    compared: list[tuple[Compared, ...]]
    bounds = {
        name: Bounds(0.05 if name == "int8" else 0.01, None if name == "int8" else 0.5) for name in FORMATS
    }  # NME points

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

    @property
    def index(self) -> tuple[int, ...] | None:
        """Return the positions of the landmarks that a test or an export in one of the net's layouts gives; None: all."""
        view = self.settings.view
        return Layout.from_dict(self.stored["layout"]).chosen(view).index if view else None

    def open(self, file: Path, threads: int) -> Predict:
        predict = from_arrays(open_net(file, threads).predict)
        return predict if self.run.model == "torch" else Comparison(self.net.layout, self.index)(predict)

    def export_onnx(self) -> None:
        if not self.run.exported or self.torch_net is not None:
            export(self.run, self._trained_net(), self.stored, self.net.protocol)

    def _trained_net(self) -> Trainable:
        """Return the net with its weights. UserError for an exported file."""
        if self.torch_net is None:
            raise checkpoint.no_weights(self.run.weights)
        return self.torch_net

    def export(self, formats: list[str], out: str | None = None, overwrite: bool = False) -> str:
        if {*formats} <= {"web", "pipeline"} and self.run.given_view and not self.run.view:  # these show one layout
            given = replace(self, run=self.run._replace(view=self.run.given_view))
            return given.export(formats, out, overwrite)
        files = super().export([name for name in formats if name != "web"] or ["onnx"])
        if "web" not in formats:
            return files
        folder = Path(out or self.run.folder / "web")
        int8 = self.run.export_path("int8") if self.run.has("int8") else None
        weights = self.settings.test.detector_weights
        options = Options(self.run.onnx, int8, Path(weights) if weights else None)
        aside = write_page(folder, options, overwrite or not out)
        if aside and not out:  # in the run's own folder it is an export like the others, which are replaced
            shutil.rmtree(aside)
        return f"{files}, the page to {folder}"

    def source(self) -> Source:
        def feeds() -> Iterator[dict[str, np.ndarray]]:
            logger.info(f"8-bit numbers are calibrated on faces of {', '.join(self.settings.data.train_data)}")
            hidden = [split._replace(labelled=False) for split in self.task_data.splits("train")]
            faces = self.task_data.crops(hidden, self.net.layout)
            for index in evenly(len(faces), CALIBRATION):
                yield {"image": faces.crops.plain(index)[None]}

        net = self._trained_net()
        detector = Path(self.settings.test.detector_weights or shipped("detector.onnx"))
        whole = self.run._replace(view=None)
        return Source(
            self.run.onnx,
            feeds,
            deployed(net),
            example_for(self.net.size, self.net.margin),
            detector,
            self.run.source,
            self.index,
            whole.export_path("int8") if self.index and whole.keeps("int8") else None,
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
            detect = Landmarker(self.run.weights, Detector(test.detector, test.detector_weights)).detect
        titles = distinct(
            [title_for(split.set, layout, way.layout) for split, way in zip(splits, self.ways, strict=True)]
        )
        files = distinct([set_name(split.set.folder) for split in splits])
        for place, (split, way) in enumerate(zip(splits, self.ways, strict=True)):
            faces = load_splits([split], way.layout, self.net.size, self.settings.data.cache, self.net.margin)
            if way.layout is layout:  # another layout may not suffice for pose and states
                faces = complete(faces, layout, outputs)
            for box in test.box:
                boxed, missed = rebox(faces, box, self.settings.data.cache, detect)
                case = Case(split.set, titles[place], files[place], box, boxed, way, missed)
                yield (
                    case if box != "true" else case._replace(compared=self.compared[place], earlier=self._earlier(case))
                )

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
        crop = case.faces["crop"][:]
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
        if model == report.model and has_extra("report"):
            shown = extra("report", "report").show_case(report.folder, case, result, report.norm)
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
        if has_extra("report"):
            others = [other.folder for other in self.compare]
            extra("report", "page").write_report_page(run, report, stored, how, others)
        else:
            logger.info("no page and no row per face are written: this checkout lacks the folder extras/report")

        def place(path: Path) -> str:
            return str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)

        index = run.folder / "report" / "index.html"
        files = [
            path for path in dict.fromkeys((run.weights, run.onnx, run.folder / "step.csv", index)) if path.exists()
        ]
        lines = ["", tables, "", f"Net:   {about}", f"How:   {how}", "Files: " + ", ".join(map(place, files))]
        if stored["args"]["val"] == "test":
            lines.append(
                "Note:  the epoch was picked on the test set (--val test); figures on unseen faces would be worse"
            )
        if lost := [row["test set"].strip() for row in report.scores if float(row["NME %"]) > LOST]:
            lines.append(
                f"Note:  above {LOST} % on {', '.join(dict.fromkeys(lost))}: the net has diverged or learnt nothing; "
                "lower --learning-rate, or train longer"
            )
        synthetic = [split.set.synthetic for split in self.task_data.tested]
        if any(synthetic):
            lines.append(
                "Note:  figures on synthetic faces show that all works, not how accurate the net is on photographs"
            )
        if all(synthetic):
            lines.append(
                "Next:  python main.py --train --test --dataset 300w --data-dir 300W   (own pictures: docs/data.md)"
            )
        else:
            if has_extra("report"):
                lines.append(f"Next:  open {shlex.quote(place(index))} in a browser")
            if (run.folder / "events").is_dir():
                lines.append(f"       tensorboard --logdir {shlex.quote(place(run.folder))}")
        return "\n".join(lines)


def landmark_evaluation(
    task_data: TaskData, ranks: Ranks, run: Run, compare: list[Run], stored: dict[str, Any] | None
) -> LandmarkEvaluation:
    """Return the tests of a run. UserError if a run of `compare` cannot be compared, or if the net was trained on test
    faces.

    stored: the values of its checkpoint; None: they are read here.
    """
    tested, test, defaults = task_data.tested, task_data.settings.test, task_data.sets.defaults
    view, protocol = task_data.settings.view, task_data.sets.protocol
    if compare and "true" not in test.box:
        raise UserError("--compare shows other runs in true boxes; have them in --box too")
    if compare:
        extra("report")  # or one line that says that it is missing
    stored = stored or checkpoint.load(run.weights, defaults)
    if run.model == "torch":
        run, torch_net = run._replace(view=view), checkpoint.built(run.weights, stored)
        net = checkpoint.described(torch_net, stored)
    else:
        torch_net, net = None, open_net(run.weights)
    net = replace(net.seen_as(view) if view else net, protocol=protocol)
    seen = stored.get("data", ())
    if mine := [split.set.folder for split in tested if split.name == ALL and split.set.checksum in seen]:
        raise UserError(f"{mine[0]} has no test split, and the net was trained on its faces; give other --test-data")
    if view and not task_data.settings.data.test_data:  # the sets of other layouts
        layouts = task_data.settings.layouts
        foreign = [split for split in tested if not comparison_of(net.layout, split.set.labelled, layouts)]
        if tested and len(foreign) == len(tested):
            raise UserError(
                f"no rule relates the layouts of the test sets to {view}; name sets or folders: --test-data"
            )
        for split in foreign:
            logger.info(
                f"{split.set.folder} is not tested: no rule relates its layout {split.set.meta['layout']} to {view}"
            )
        task_data = replace(task_data, tested=[split for split in tested if split not in foreign])
        tested = task_data.tested
    ways = [task_data.comparison(split, net.layout) for split in tested]
    for split, way in zip(tested, ways, strict=True):  # all of them before the first one is tested
        check_same_protocol(split.set, protocol._asdict())
        face_norms(load_splits([split], way.layout, net.size, 0, net.margin), way.layout, test.norm)
    flags = test_flags([split.set for split in tested], defaults.values["data_root"]) if compare else ""
    others = list(zip(compare, distinct([other.folder.name for other in compare]), strict=True))
    compared = [
        tuple(
            extra("report", "report").read_compared(other, name, split, test, way.layout, flags)
            for other, name in others
        )
        for split, way in zip(tested, ways, strict=True)
    ]
    return LandmarkEvaluation(task_data, ranks, run, compare, stored, net, torch_net, ways, compared)


def export(run: Run, net: Trainable, stored: dict[str, Any], protocol: Protocol) -> None:
    """Write the run's ONNX file with all metadata that inference needs, unless it was made from these weights already.

    stored: the values of its checkpoint. The file of a net of several layouts gives the landmarks of all, or those of
    the run's `view`.
    """
    if run.exported and (run.onnx in run.given or stored_values(run.onnx).get("protocol") == protocol._asdict()):
        return
    layout, args, index, boxed = Layout.from_dict(stored["layout"]), stored["args"], None, "the landmarks"
    if run.view:
        whole = layout.whole(run.view).layout.name
        boxed = f"the landmarks of layout {whole}" if whole != run.view else boxed
        layout, index = layout.alone(run.view), layout.chosen(run.view).index
        points = stored["meanface"] and [stored["meanface"][i] for i in index]
        own = {key: value for key, value in stored.items() if key != "layouts"}
        stored = {**own, "layout": layout.to_dict(), "meanface": points}
    card = {
        **run.source,
        **{key: stored[key] for key in ("layout", "layouts", "epoch", "face_limit") if key in stored},
        "protocol": protocol._asdict(),
        **{key: stored["net"][key] for key in ("net", "head")},
        **{
            key: stored[key] if math.isfinite(stored[key]) else None  # JSON has no NaN
            for key in ("val_nme", "val_false")
            if key in stored
        },
        "meanface": stored.get("meanface"),
        "input_size": net.spec["input_size"],
        "input_margin": net.input_margin,
        "channels": "BGR, uint8, not normalised",
        "box": f"tight box of {boxed}, or the rectangle that the data set gives",
        "frame": "[0, 1] of the nominal crop",
        "states": trained_states(stored),
        "norm": args["norm"],
        "train_data": [Path(name).name for name in args["train_data"] or ()],
        "val": args["val"],
    }
    LandmarkCard.read({**card, "outputs": {}}, run.onnx)  # nothing is written that cannot be opened
    export_onnx(net, run.onnx, card, index)


def compare_outputs(result: Result, faces: Faces, layout: Layout, side: int | None = None) -> str:
    """Return a line that compares a net's pose and states with the labels of faces; empty for a net without such
    outputs.

    side: of the input of a published net, in px. Such a net was trained on Peppa's angles of the landmarks in its crop.
    """
    words = []
    if result.pose is not None:
        truth = faces["pose"][:]
        if side is not None:
            landmarks = side * to_crop(faces["landmarks"][:], faces["crop"][:])
            truth = np.radians([head_pose(points, layout, side, side) for points in landmarks])
        apart = np.degrees(np.abs((result.pose - truth + np.pi) % (2 * np.pi) - np.pi))
        pitch, yaw, roll = np.nanmean(apart, 0)
        words.append(f"pose off by {np.nanmean(apart):.1f} degrees (pitch {pitch:.1f}, yaw {yaw:.1f}, roll {roll:.1f})")
        words[0] += " by Peppa's angles in the crop" * (side is not None)
    if result.states is not None:
        for place, name in enumerate(STATES):
            truth, found = faces["states"][:][:, place], result.states[:, place] > 0.5
            hit, wrong = found[truth == 1], found[truth == 0]
            counts = f"found in {hit.sum()} of {len(hit)}, reported wrongly in {wrong.sum()} of {len(wrong)}"
            words.append(f"{name.replace('_', ' ')} {counts}")
    return "; ".join(words)
