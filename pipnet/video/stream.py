"""Faces in the frames of sources, one after the other: the loop of `Landmarker.stream` and of the demo."""

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np

from pipnet.chain import Chain, batches
from pipnet.errors import UserError, as_text
from pipnet.face import Face
from pipnet.images import Bgr
from pipnet.video.drowsiness import Drowsiness
from pipnet.video.smooth import Smooth
from pipnet.video.sources import Frame, Pictures, Source, Video, open_sources
from pipnet.video.track import Tracker

Faces = Iterator[tuple[Frame, list[Face]]]


def stream(
    landmarker: Chain,
    source: str | int | Path | Sequence[str | int | Path] | Source,
    detect_every: int,
    smooth: Smooth,
    pose: bool,
    drowsiness: bool,
) -> Faces:
    """Return an iterator over (frame, its faces), see `Landmarker.stream`. Options are checked before the first frame."""
    if isinstance(source, (Pictures, Video)):
        sources = [source]
    else:
        places = []
        several = isinstance(source, Iterable) and not isinstance(source, (str, np.ndarray))
        given: Iterable[Any] = source if several else [source]
        for place in given:
            if not isinstance(place, (str, Path, Integral)):
                raise UserError(
                    f"stream reads files, cameras and addresses, not {as_text(place)}: pictures go to the landmarker itself, "
                    "landmarker([image, image]), frames of a video with their times to "
                    "pipnet.video.track.Tracker(landmarker).update(image, seconds)"
                )
            places.append(str(place))
        sources = open_sources(places)
    with ExitStack() as opened:
        for one in sources:
            opened.callback(one.close)
        runs = [_faces(Pipeline(landmarker, one.still, detect_every, smooth, pose, drowsiness), one) for one in sources]
        return _in_turn(runs, opened.pop_all())


def _in_turn(runs: list[Faces], sources: ExitStack) -> Faces:
    """Yield what each iterator yields, then close the sources."""
    with sources:
        for run in runs:
            yield from run


class Pipeline:
    """pipeline(frames) -> the faces of each: found anew in pictures, tracked and smoothed in a video."""

    def __init__(self, landmarker: Chain, still: bool, detect_every: int, smooth: Smooth, pose: bool, drowsiness: bool):
        self.landmarker, self.pose = landmarker, pose
        if pose:
            landmarker.with_pose([])  # fails now, not at the first face, if the layout lacks the points
        if drowsiness and still:
            raise UserError("drowsiness needs a video or a camera: it measures how long eyes are closed; leave it out")
        self.tracker = None if still else Tracker(landmarker, detect_every, smooth)
        self.drowsiness = Drowsiness(landmarker.layout) if drowsiness else None

    def __call__(self, frames: list[Frame]) -> list[list[Face]]:
        images = [frame.image.view(Bgr) for frame in frames]
        if self.tracker:
            found = [
                self.tracker.update(image, frame.seconds or 0.0) for image, frame in zip(images, frames, strict=True)
            ]
        else:
            found = self.landmarker.faces_in(images)
        if self.drowsiness:
            found = [
                [_drowsy(self.drowsiness, face, frame) for face in faces]
                for frame, faces in zip(frames, found, strict=True)
            ]
        return list(map(self.landmarker.with_pose, found)) if self.pose else found


def _drowsy(drowsiness: Drowsiness, face: Face, frame: Frame) -> Face:
    """Return a face with what is measured of its eyes and mouth."""
    return replace(face, drowsiness=drowsiness.update(face.id, face.landmarks, frame.seconds or 0.0, face.states))


def _faces(pipeline: Pipeline, source: Source) -> Faces:
    """Yield the frames of a source with their faces. Pictures go through the nets in batches.

    The seconds that decoding and tracking take are added to `Landmarker.seconds`.
    """
    spent, rgb = pipeline.landmarker.seconds, pipeline.landmarker.rgb
    start = time.perf_counter()
    for frames in batches(source, lambda frame: frame.image) if source.still else ([frame] for frame in source):
        decoded, nets = time.perf_counter(), spent["detect"] + spent["landmarks"]
        spent["decode"] += decoded - start
        found = pipeline(frames)
        spent["track"] += time.perf_counter() - decoded - (spent["detect"] + spent["landmarks"] - nets)
        for frame, faces in zip(frames, found, strict=True):
            yield frame._replace(image=frame.image[..., ::-1].copy()) if rgb else frame, faces
        start = time.perf_counter()
