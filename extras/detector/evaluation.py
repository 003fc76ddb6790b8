"""Tests of a face detector: AP and recall of each set at each scale, pictures of the worst, and the export."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml

from extras.detector import metric
from extras.detector.experiment import PictureSets, calibration
from extras.detector.export import Square, export_detector
from extras.detector.find_faces import SUPPRESS, Detect, Found, exported_detector, find_faces, torch_detector, turned
from extras.detector.loaders import weights_of
from extras.detector.settings import DetectSettings
from extras.detector.show import draw_boxes
from extras.detector.wider import Picture
from pipnet.detector import EXPORTED_FACE_BOX
from pipnet.draw import FOUND, TRUTH, sheet
from pipnet.files import write_text
from pipnet.images import write_image
from utils.evaluate.tables import TEST, markdown_table
from utils.export.evaluation import Bounds, Evaluation
from utils.export.files import Source, example_for
from utils.settings.csv_files import write_csv
from utils.settings.formats import SOURCE
from utils.train import checkpoint
from utils.train.run_folder import Run

HEADER = ["test set", "model", "scale", "faces", "AP", "recall", "covered", "plain"]


ROLLS = 45, 90, 135, 180  # degrees: each test set is also tested with its pictures turned clockwise


class Scaled(NamedTuple):
    """A test set at one scale. drawn: whether its worst pictures are drawn in the report."""

    name: str
    pictures: list[Picture]
    scale: float
    drawn: bool = False


@dataclass(frozen=True)
class DetectorEvaluation(Evaluation):
    """Tests of the detector of a run on the pictures `task_data.tested`. stored: values of the checkpoint.

    The report is its rows.
    """

    task_data: PictureSets
    run: Run
    stored: dict[str, Any]
    report = ()
    bounds = {"onnx": Bounds(0.002), "int8": Bounds(0.02), "tflite": None, "coreml": None}  # of AP and recall

    def torch_model(self) -> Detect:
        return torch_detector(weights_of(self.run.weights), self.task_data.ranks.device)

    def open(self, file: Path, threads: int) -> Detect:
        return exported_detector(file, threads)

    def source(self) -> Source:
        side = self.stored["args"]["input_size"]
        options = {"threshold": np.array(0.5, np.float32), "overlap": np.array(SUPPRESS, np.float32)}
        return Source(
            self.run.onnx,
            lambda: ({"image": picture, **options} for picture in calibration(self.task_data)),
            Square(weights_of(self.run.weights), side),
            example_for(side, 1),
            origin={**self.run.source, "frame": "px of the image"},
        )

    def calls(self, model: Detect) -> dict[int, Callable[[], object]]:
        picture = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
        return {1: partial(model, picture)}

    def export_onnx(self) -> None:
        if self.run.exported:
            return
        stored, miss = self.stored, None
        if np.isfinite(stored.get("val_miss", np.nan)):
            miss = round(stored["val_miss"], 3)
        export_detector(
            weights_of(self.run.weights),
            self.run.onnx,
            {
                **self.run.source,
                "task": "detect",
                "net": stored["net"]["net"],
                "epoch": stored.get("epoch"),
                "command": stored.get("command"),
                "figures": {
                    "validation, 100 - AP %": miss,
                    "scales": stored["args"].get("scales"),
                    "val": stored["args"]["val"],
                },
                "train_data": [Path(name).name for name in stored["args"].get("train_data") or ()],
                "face_box": EXPORTED_FACE_BOX,
                "overlap": SUPPRESS,
                **({"threshold": stored["threshold"]} if "threshold" in stored else {}),
                "channels": "BGR, uint8, not normalised",
                "frame": "px of the image, which may have any size",
            },
        )

    def cases(self) -> Iterator[Scaled]:
        scales = self.task_data.settings.room(DetectSettings).scales
        for name, pictures in self.task_data.tested.items():
            for scale in scales:
                yield Scaled(name, pictures, scale, scale == scales[-1])
            for degrees in ROLLS:
                lying = [turned(picture, degrees) for picture in pictures]
                yield Scaled(f"{name}, turned by {degrees}", lying, scales[0])

    def evaluate(self, model: Detect, case: Scaled) -> Found:
        return find_faces(model, case.pictures, case.scale, self.task_data.ranks)

    def differences(self, case: Scaled, one: Found, two: Found) -> tuple[float, np.ndarray]:
        pair = (metric.score(found, case.pictures)[:2] for found in (one, two))  # AP and recall of all faces
        # none where no face is large enough to count
        apart = [abs(a - b) for a, b in zip(*pair, strict=True) if np.isfinite(a)]
        return max(apart, default=0.0), np.zeros(0)

    def with_result(
        self, report: tuple[list[str], ...], case: Scaled, model: str, result: Found
    ) -> tuple[list[str], ...]:
        if case.drawn and model == self.run.model:
            write_sheet(self.run.folder / "report" / f"pictures_{case.name}.jpg", case.pictures, result)
        return (*report, *score_rows(case, model, result))

    def close(self, report: tuple[list[str], ...]) -> str:
        folder = self.run.folder / "report"
        write_csv(folder / "scores.csv", HEADER, report)
        write_text(folder / TEST, yaml.safe_dump({"weights": self.run.source[SOURCE]}))
        note = "; validated on these very pictures (--val test)" if self.stored["args"]["val"] == "test" else ""
        return (
            f"\n{markdown_table(list(report), HEADER)}\n\nfaces of at least {metric.LEAST:g} px, IoU {metric.OVERLAP:g}; "
            f"AP where every face has a box{note}\n{checkpoint.about(self.run.weights, self.stored)}; "
            f"pictures of the worst in {folder}"
        )


def score_rows(case: Scaled, model: str, found: Found) -> list[list[str]]:
    """Return rows of the report: one for all pictures and, if there are several events, one for each event."""
    events = sorted({picture.event for picture in case.pictures})
    rows = []
    for event in [None, *(events if len(events) > 1 else [])]:
        some = [index for index, picture in enumerate(case.pictures) if event in (None, picture.event)]
        scores = metric.score([found[index] for index in some], [case.pictures[index] for index in some])
        figures = ["" if np.isnan(value) else f"{value:.3f}" for value in scores[:4]]
        rows.append(
            [case.name if event is None else f"  {event}", model, f"{case.scale:g}", str(scores.faces), *figures]
        )
    return rows


def write_sheet(file: Path, pictures: list[Picture], found: Found, count: int = 12, sure: float = 0.5) -> None:
    """Draw the pictures with the most misses and false detections.
    Labels are green, detections with a score above `sure` red.
    """

    def faults(index: int) -> int:
        boxes, scores = found[index]
        match, counted = metric.matched(boxes[scores > sure], pictures[index])
        false = (match == -1).sum() if pictures[index].whole else 0
        return int(counted.sum() - (match >= 0).sum() + false)

    worst = sorted(range(len(pictures)), key=faults, reverse=True)[:count]
    tiles = []
    for index in worst:
        boxes, scores = found[index]
        tiles.append(
            draw_boxes(pictures[index].read(), [(pictures[index].boxes, TRUTH), (boxes[scores > sure], FOUND)])
        )
    file.parent.mkdir(exist_ok=True)
    write_image(file, sheet(tiles, min(4, len(tiles))))
