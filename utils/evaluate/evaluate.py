"""Evaluation of any predictor (torch, ONNX, ...) on any set of faces, in pixels of the source images."""

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch

from nets import Trainable
from nets.labels import Prediction
from nets.registry import STATES, TERMS
from pipnet.device import wanted_device
from pipnet.errors import UserError
from pipnet.geometry import to_image
from pipnet.layout import Layout
from utils.data.batches import test_batches
from utils.data.faces import Faces
from utils.data.table import BESIDE
from utils.evaluate import metric
from utils.settings import memory
from utils.settings.conversion import conversion
from utils.settings.layouts import Layouts
from utils.settings.union import Labelled, Union, member_of, members_of

BATCH = 64  # faces
SURE_FACES = 0.95  # least share of validation faces whose scores are above the limit before DOUBT
BELOW = 0.99  # share of background crops that stay below it
DOUBT = 0.95  # factor of the limit: no good result scores less, but three of four results that are far off do
Predict = Callable[[torch.Tensor], Prediction]  # uint8 BGR (B, S, S, 3) -> Prediction in [0, 1] of the crop


class Result(NamedTuple):
    """Predictions for M faces and their errors.
    Px are those of the source image; NaN stands where the truth is unknown.
    """

    landmarks: np.ndarray  # (M, N, 2) px
    score: np.ndarray  # (M, N)
    nme: np.ndarray  # (M,) in %, measured in px
    crop_nme: np.ndarray  # (M,) in %, measured in the crop's [0, 1] frame, as PIPNet publishes it
    groups: dict[str, np.ndarray]  # {group of landmarks: NME (M,) in %}
    errors: np.ndarray  # (M, N) px
    sigma: np.ndarray | None  # (M, N) px, predicted errors, if the net predicts them
    flicker: np.ndarray  # (M,) in %: mean change of the landmarks' errors since the previous frame, NaN without one
    pose: np.ndarray | None = None  # (M, 3) radians, if the net predicts it
    states: np.ndarray | None = None  # (M, k) probabilities, if the net predicts them
    visible: np.ndarray | None = None  # (M, N) probabilities, if the net predicts them
    face: np.ndarray | None = None  # (M,) probabilities of a face in its place, if the net predicts them

    def face_limit(self, background: np.ndarray) -> float:
        """Return the mean landmark score below which a crop shows no face, see `LandmarkNet`.

        background (K,): mean landmark scores of background. A limit above the scores of faces would refuse them.
        """
        faces = float(np.quantile(self.score.clip(0, 1).mean(1), 1 - SURE_FACES))
        return DOUBT * min(float(np.quantile(background.clip(0, 1), BELOW)), faces)


def calibration(results: list[Result]) -> float | None:
    """Return the factor by which sigma fits the errors: mean error / mean predicted error; None if sigma is not
    predicted.
    """
    if results[0].sigma is None:
        return None
    errors = np.concatenate([result.errors.ravel() for result in results])
    sigma = np.concatenate([result.sigma.ravel() for result in results if result.sigma is not None])
    known = np.isfinite(errors)
    return float(errors[known].mean() / sigma[known].mean())


def prepare_torch(threads: int) -> torch.device:
    """Set the CPU threads of torch and OpenCV (0: no change). Return the device, see `on_device` of pipnet.device.

    UserError if CUDA is wanted and does not work on this machine.
    """
    if threads:
        torch.set_num_threads(threads)
        cv2.setNumThreads(threads)
    if wanted_device() == "cuda" and not torch.cuda.is_available():
        raise UserError("device cuda: torch cannot use CUDA here; install the torch that has it, or leave device out")
    return torch.device("cuda" if torch.cuda.is_available() and wanted_device() != "cpu" else "cpu")


def torch_predictor(net: Trainable, device: torch.device) -> Predict:
    """Return the predictor of a net, in fp32."""
    net = net.to(device, memory_format=torch.channels_last).eval()

    @torch.inference_mode()
    def predict(images: torch.Tensor) -> Prediction:
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):  # TF32 is not fp32
            return net.predict(images.to(device))

    return predict


class Comparison(NamedTuple):
    """How the landmarks of a net are compared with the labels of a set: in `layout`.

    index: of the net's landmarks that are compared, None: all. weights: x and y (N, M) of those by which they become
    landmarks of `layout`; None: they are such landmarks.
    """

    layout: Layout
    index: tuple[int, ...] | None = None
    weights: tuple[torch.Tensor, torch.Tensor] | None = None

    def __call__(self, predict: Predict) -> Predict:
        """Return a predictor of what is compared, from one of all landmarks of the net."""
        if self.index is None and self.weights is None:
            return predict

        def converted(images: torch.Tensor) -> Prediction:
            found = predict(images)
            if self.index is not None:
                found = found.select(list(self.index))
            if self.weights is None:
                return found
            x, y = (weights.to(found.landmarks) for weights in self.weights)
            landmarks = torch.stack([found.landmarks[..., 0] @ x.T, found.landmarks[..., 1] @ y.T], -1)
            sigma, visible = (None if part is None else part @ x.T for part in (found.sigma, found.visible))
            return found._replace(landmarks=landmarks, score=found.score @ x.T, sigma=sigma, visible=visible)

        return converted


def comparison_of(layout: Layout, labelled: Labelled, layouts: Layouts) -> Comparison | None:
    """Return how a net of `layout` is compared with a set's labels; None if no rule relates the two.

    A net of several layouts is compared in that of the set, else in one of its layouts that the rules relate to it. If
    the labels can be converted to that layout, `load_splits` does so; otherwise the net's landmarks are converted to the
    layout of the labels.
    """
    stored = labelled.stored
    if own := member_of(layout, labelled):
        return Comparison(own.layout, own.index)
    if layouts.same(stored, layout.stored):
        return Comparison(layout)
    for part in sorted(members_of(layout).values(), key=lambda part: -part.layout.count):
        index = part.index if isinstance(layout, Union) else None
        if conversion(stored, part.layout.stored, layouts):
            return Comparison(part.layout, index)
        forth = conversion(part.layout.stored, stored, layouts)
        if forth and forth.x.shape[2] == part.layout.count:
            there, given = layouts.load(stored), np.flatnonzero(forth.has_rule[0])
            if len(given) < there.count:
                there = layouts.load(stored, [there.flip_index[i] for i in given])
            x, y = (torch.from_numpy(way[0][given]) for way in (forth.x, forth.y))
            return Comparison(there, index, (x, y))
    return None


def face_norms(faces: Faces, layout: Layout, norm: str) -> np.ndarray:
    """Return the norm (M,) of each face in px, NaN where unknown. UserError if the layout or all faces lack it."""
    row = faces.read("landmarks", "box")
    try:
        norms = metric.norms(row["landmarks"], layout, norm, row["box"])
    except ValueError as error:
        raise UserError(f"{error} (--norm)") from None
    if not np.isfinite(norms).any():
        raise UserError(
            f"none of {len(faces)} faces ({faces.row(0)['file']}, ...) has an {norm} norm; choose --norm box or diagonal"
        )
    return norms


def mean_of(one: Prediction, other: Prediction) -> Prediction:
    """Return the mean of two predictions for the same crops."""
    return Prediction._make(
        None if value is None or twin is None else (value + twin) / 2 for value, twin in zip(one, other, strict=True)
    )


def in_memory(predict: Predict, images: torch.Tensor) -> Prediction:
    """Return the prediction for a batch, in halves if memory is short. UserError if it is too short for one picture."""
    try:
        return predict(images)
    except (MemoryError, RuntimeError) as error:
        if not memory.is_short(error):
            raise
        if len(images) == 1:
            raise UserError(
                f"out of memory with one picture of {images.shape[1]} px; close other programs, or give a smaller net"
            ) from None
    halves = (in_memory(predict, half) for half in images.chunk(2))
    return Prediction._make(None if parts[0] is None else torch.cat(parts) for parts in zip(*halves, strict=True))


def predict_all(
    predict: Predict, faces: Faces, layout: Layout, batch_size: int = BATCH, ranks=None, flip_test: bool = False
) -> Prediction:
    """Return the prediction for all faces, float64 on the CPU; None for what the net does not predict.

    With several processes (`ranks`) each does its share, and all get the result. flip_test: average the predictions for a
    crop and its mirror image. A label shift that the net has learnt cancels in this mean: half of the median distance
    in x of the two. So the median of these shifts, in px of the source image, is added again.
    """
    each = (layout.count,)
    shapes = {"landmarks": (*each, 2), "score": each, "sigma": each, "visible": each, "face": (), "shift": ()}
    shapes |= {"pose": (3,), "states": (len(STATES),)}
    found = {name: torch.zeros(len(faces), *shape, dtype=torch.float64) for name, shape in shapes.items()}
    for batch in test_batches(faces, batch_size, *(ranks[:2] if ranks else ())):
        prediction = in_memory(predict, batch.images)
        if flip_test:
            plain, mirrored = prediction, in_memory(predict, batch.images.flip(2)).flip(layout)
            prediction = mean_of(plain, mirrored)
            apart = (plain.landmarks - mirrored.landmarks)[..., 0].double().cpu()
            found["shift"][batch.index] = apart.median(1).values / 2
        for name, values in prediction._asdict().items():
            found[name][batch.index] = torch.nan if values is None else values.double().cpu()
    if ranks and ranks.count > 1:  # the rows of other processes are zero here
        found = {name: ranks.sum(values.to(ranks.device)).cpu() for name, values in found.items()}
    shift = found.pop("shift")
    if flip_test:
        crop = faces["crop"]
        width = torch.from_numpy(crop[:, 2] - crop[:, 0])
        found["landmarks"][..., 0] += ((shift * width).median() / width)[:, None]
    always = ("landmarks", "score")
    predicted: dict[str, Any] = {
        name: values for name, values in found.items() if name in always or not torch.isnan(values).all()
    }
    return Prediction(**predicted)


def evaluate(
    predict: Predict,
    faces: Faces,
    layout: Layout,
    norm: str,
    batch_size: int = BATCH,
    ranks=None,
    flip_test: bool = False,
) -> Result:
    """Return predictions and errors for all faces, see `predict_all`. UserError if a prediction is not finite."""
    row = faces.read("landmarks", "crop", "nominal")
    truth, crop, nominal = row["landmarks"], row["crop"], row["nominal"].astype(np.float64)
    prediction = predict_all(predict, faces, layout, batch_size, ranks, flip_test)
    found: dict[str, Any] = {
        name: None if part is None else part.numpy() for name, part in prediction._asdict().items()
    }
    if not np.isfinite(found["landmarks"]).all():
        raise UserError("the predicted landmarks are not finite: the net has diverged, lower --learning-rate")
    landmarks = to_image(found["landmarks"], crop)
    errors = metric.point_errors(landmarks, truth)
    norms = face_norms(faces, layout, norm)
    crop_norms = metric.norms(nominal, layout, norm, np.tile([0.0, 0.0, 1.0, 1.0], (len(faces), 1)))
    sides = crop[:, 2:] - crop[:, :2]
    return Result(
        landmarks=landmarks,
        score=found["score"],
        nme=metric.nme(errors, norms),
        crop_nme=metric.nme(metric.point_errors(found["landmarks"], nominal), crop_norms),
        groups={group: metric.nme(errors[:, list(ids)], norms) for group, ids in layout.groups.items()},
        errors=errors,
        sigma=None if found["sigma"] is None else found["sigma"] * np.sqrt(sides.prod(1))[:, None],
        flicker=metric.flicker(landmarks - truth, norms, previous(faces)),
        **{name: found[name] for name in TERMS},
    )


def previous(faces: Faces) -> np.ndarray:
    """Return (M,) the index of the face in the previous frame of the same video, `step` frames earlier; -1 without one.

    The name of a frame ends in its number.
    """
    before = np.full(len(faces), -1)
    if "step" not in faces:
        return before
    keys = list(zip(faces["set"], faces["file"], strict=True))
    places = {key: place for place, key in enumerate(keys)}
    for place, ((mark, name), step) in enumerate(zip(keys, faces["step"], strict=True)):
        if step > 0 and (number := re.search(r"(\d+)(\.\w+)?$", name)):
            digits, suffix = number[1], number[2] or ""
            before[place] = places.get(
                (mark, f"{name[: number.start()]}{int(digits) - step:0{len(digits)}d}{suffix}"), -1
            )
    return before


def subset_rows(subsets: Iterable[str], rank: Sequence[str] = ()) -> dict[str, np.ndarray]:
    """Return {name: (M,) bool}: all faces as `full`, then each first part of a subset's name (`common`), then each
    whole name (`common/lfpw`).

    Of equal masks only the first is kept. A face may be in several subsets: `test//blur//makeup`. rank: names in the
    order of the publications; other names follow in alphabetical order.
    """
    order = list(dict.fromkeys(part for name in rank for part in (name.split("/")[0], name)))
    whole = [set(subset.split(BESIDE)) for subset in subsets]
    first = [{name.split("/")[0] for name in names} for names in whole]
    rows = {"full": np.ones(len(whole), bool)}
    known = {rows["full"].tobytes()}
    for column in (first, whole):
        members: dict[str, list[int]] = {}
        for index, names in enumerate(column):
            for name in names:
                members.setdefault(name, []).append(index)
        for name in sorted(members, key=lambda name: (order.index(name) if name in order else len(order), name)):
            mask = np.zeros(len(whole), bool)
            mask[members[name]] = True
            if mask.tobytes() not in known:
                known.add(mask.tobytes())
                rows[name] = mask
    return rows
