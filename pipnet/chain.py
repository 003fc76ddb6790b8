"""The steps from pictures to faces: find, aim, read, again, distinct.

- find: the detector gives boxes
- aim: the finder tells the place and the roll of the face in each box, and whether there is one
- read: the landmark net finds the landmarks in the crop of each box
- again: a face is read again if its landmarks ask for another crop
- distinct: of results that show one face, the best is kept

A `Landmarker` goes through all of them, a `Tracker` begins at read in most frames.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np

from pipnet.align import box_of_points
from pipnet.boxes import Boxes, joined, largest_first, with_roll
from pipnet.detections import Detections, FaceBox
from pipnet.detector import FACEBOXES_V2
from pipnet.distinct import distinct, largest
from pipnet.errors import UserError, one_line
from pipnet.face import PER_LANDMARK, Face
from pipnet.images import Bgr, as_bgr, enhanced, resized
from pipnet.landmark_net import LandmarkNet
from pipnet.layout import Layout, Part
from pipnet.pose import head_pose, pose_points

MOST_IMAGES, MOST_PIXELS = 16, 2**23  # images whose crops go through the nets together; no image follows so many pixels
GATE, SURE = 0.05, 0.9  # scores of a finder below which there is no face; from which no other look is needed
QUARTERS = (90, 180, 270)  # degrees by which a face is turned in the further looks of the finder
LEAST_SIDE, LARGER = 512, 2.0  # px, longer side to which a small enhanced image is enlarged; most of that factor
Item = TypeVar("Item")


def batches(items: Iterable[Item], image: Callable[[Item], np.ndarray]) -> Iterator[list[Item]]:
    """Yield lists of at most MOST_IMAGES items, fewer if their images are large. image(item): returns its image."""
    batch: list[Item] = []
    pixels = 0
    for item in items:
        batch.append(item)
        pixels += image(item).size // 3
        if len(batch) == MOST_IMAGES or pixels >= MOST_PIXELS:
            yield batch
            batch, pixels = [], 0
    if batch:
        yield batch


class Chain:
    """The nets of a `Landmarker` and the steps between them. Images are uint8 BGR (H, W, 3).

    Its attributes are arguments of `Landmarker`. finder: None if boxes are taken as they are. part: the landmarks that
    faces are returned with; None: all of the net. seconds: spent so far, by stage
    """

    net: LandmarkNet
    part: Part | None
    finder: LandmarkNet | None
    detector: Any
    max_faces: int | None
    any_roll: bool
    rgb: bool
    threshold: float
    seconds: dict[str, float]

    @property
    def layout(self) -> Layout:
        """Return the layout of the faces that are returned."""
        return self.part.layout if self.part else self.net.layout

    def in_layout(self, face: Face) -> Face:
        """Return a face with the landmarks of `layout`, from one with all that the net finds."""
        if self.part is None:
            return face
        rows = list(self.part.index)
        values = {name: getattr(face, name) for name in PER_LANDMARK}
        fewer: dict[str, Any] = {name: None if value is None else value[rows] for name, value in values.items()}
        return replace(face, **fewer, layout=self.layout)

    def with_pose(self, faces: list[Face]) -> list[Face]:
        """Return faces of `layout` with `pose` by `head_pose`, unless the net predicts it.

        UserError for a layout that lacks the points, also without faces.
        """
        if self.net.pose:
            return faces
        pose_points(self.layout)
        return [replace(face, pose=np.array(head_pose(face.landmarks, self.layout))) for face in faces]

    @property
    def face_box(self) -> FaceBox:
        """Return the map from the detector's boxes to landmark boxes."""
        return getattr(self.detector, "face_box", FaceBox(*FACEBOXES_V2))

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        """Add the time that the block takes to a stage."""
        start = time.perf_counter()
        yield
        self.seconds[stage] += time.perf_counter() - start

    def faces_in(self, images: Sequence[Bgr], second_crop: bool = True) -> list[list[Face]]:
        """Return the faces of each image, best first. second_crop: see `Landmarker.__call__`."""
        faces: list[list[Face]] = [[] for _ in images]  # with all landmarks of the net
        large: list[Detections | None] = [None for _ in images]
        rest = list(range(len(images)))
        if self.max_faces is not None and hasattr(self.detector, "large"):
            with self._timed("detect"):
                large = [self.detector.large(image) for image in images]
            faces = self._largest(list(map(self._landmark_boxes, images, large)), second_crop)
            # where there are enough, those in the rest of the image are smaller
            rest = [i for i in rest if sum(map(is_sure, faces[i])) < self.max_faces]
        found = [self.find(images[i], large[i]) for i in rest]
        for i, some in zip(rest, self._largest(found, second_crop), strict=True):
            more = [] if any(map(is_sure, some)) else self.enhanced_faces(images[i], second_crop)
            faces[i] = largest(some + more, self.max_faces) if more else some
        return [list(map(self.in_layout, some)) for some in faces]

    def _largest(self, found: list[Boxes], second_crop: bool) -> list[list[Face]]:
        """Return the faces in the boxes of each image; of `max_faces`, those in the largest boxes that show faces."""
        faces: list[list[Face]] = [[] for _ in found]
        rest = [largest_first(boxes.boxes) for boxes in found]
        room = [self.max_faces or len(boxes.boxes) for boxes in found]
        while looked := [i for i in range(len(found)) if len(rest[i]) and room[i] > 0]:
            parts = [found[i].rows(np.sort(rest[i][: room[i]])) for i in looked]  # best first
            for i, more in zip(looked, self.confirmed(parts, second_crop), strict=True):
                rest[i] = rest[i][room[i] :]
                faces[i] = distinct(faces[i] + more)
                room[i] = (self.max_faces or 0) - len(faces[i])
        return faces

    def enhanced_faces(self, image: Bgr, second_crop: bool = True) -> list[Face]:
        """Return the faces that are found in the enhanced image, for dark and noisy pictures; in a small one also enlarged.
        [] if the net lacks the output `face`, or without `any_roll`.

        Their landmarks are found in the enhanced image, then in the image itself, since the blur costs accuracy.
        """
        if not (self.any_roll and self.net.face):
            return []
        clear = as_bgr(enhanced(image))
        found = [self.find(clear)]
        zoom = min(max(LEAST_SIDE / max(image.shape[:2]), 1), LARGER)
        if zoom > 1:
            _, boxes, scores = self.find(resized(clear, zoom))
            found.append(Boxes.of(clear, boxes / (zoom, zoom, zoom, zoom, 1), scores))
        (faces,) = self.confirmed([joined(found)], second_crop)
        here = Boxes.of(image, np.zeros((len(faces), 5)), np.array([face.score for face in faces]))
        faces += list(self.read(self.net.next(here, faces)))
        # enhanced background looks more like a face, so a face must be more certain here
        return largest(list(filter(is_sure, faces)), self.max_faces)

    def confirmed(self, found: list[Boxes], second_crop: bool = True) -> list[list[Face]]:
        """Return the faces in the boxes of each image, best first: only those that `is_face` confirms."""
        image = np.repeat(np.arange(len(found)), [len(boxes.boxes) for boxes in found])
        boxes = joined(found)
        if second_crop and self.finder and not boxes.boxes[:, 4].any():
            boxes, seen = self.aim(boxes)
            image = image[seen]
        faces = self.read(boxes)
        if second_crop:
            faces = self.again(boxes, faces)
        real = np.array([self.is_face(face) for face in faces], bool)
        return [distinct(list(faces[real & (image == i)])) for i in range(len(found))]

    def find(self, image: np.ndarray, large: Detections | None = None) -> Boxes:
        """Return the landmark boxes of an image, from the brows to the chin, best first.

        They are turned like the faces if the detector gives points. large: what `Detector.large` has found, if it was
        called already.
        """
        with self._timed("detect"):
            found = self.detector(image) if large is None else self.detector(image, large)
        return self._landmark_boxes(image, found)

    def _landmark_boxes(self, image: np.ndarray, found: Any) -> Boxes:
        """Return the landmark boxes of what a detector has found in an image. UserError for anything but detections."""
        height, width = image.shape[:2]
        try:
            boxes, scores = (np.asarray(part, np.float64) for part in found[:2])
        except (TypeError, ValueError) as error:
            raise UserError(f"the detector must return boxes (M, 4) and scores (M,) ({one_line(error)})") from None
        if boxes.size != 4 * scores.size:
            raise UserError(
                f"the detector gives boxes {boxes.shape} with scores {scores.shape}; (M, 4) and (M,) are needed"
            )
        points = found[2] if len(found) > 2 else None
        if points is None:
            boxes = with_roll(self.face_box(boxes.reshape(-1, 4)))
        else:
            boxes = np.reshape([box_of_points(five) for five in np.asarray(points, np.float64)], (-1, 5))
        boxes = self.net.boxes_round(boxes)
        inside = np.array([self.net.shows(box, width, height) for box in boxes], bool)
        return Boxes.of(image, boxes, scores.reshape(-1)).rows(inside)

    def aim(self, boxes: Boxes) -> tuple[Boxes, np.ndarray]:
        """Return the boxes of the faces that the finder sees in upright boxes of a detector, and whether it sees a face in
        each of these (M,).

        Where it is not sure of an upright face, it looks again, at the boxes that the detector's box stands for if the
        face is turned by a quarter or a half, then at the box of what it has found in the look with the highest score.
        """
        finder, whole = self.finder, boxes._replace(boxes=self.net.whole_faces(boxes.boxes))
        assert finder
        faces = self.read(whole, finder)
        scores = np.array([face.score for face in faces])
        unsure = np.flatnonzero(scores < SURE)
        if self.any_roll and len(unsure):
            turned = [self.face_box.turned(whole.boxes[unsure, :4], degrees) for degrees in QUARTERS]
            rows = np.tile(unsure, len(QUARTERS))
            looks = whole.rows(rows)._replace(boxes=np.concatenate(turned))
            for row, face in zip(rows, self.read(looks, finder), strict=True):
                faces[row] = max(faces[row], face, key=lambda face: face.score)
            scores[unsure] = [face.score for face in faces[unsure]]
            faces[unsure] = self.read(finder.next(whole.rows(unsure), faces[unsure]), finder)
            scores[unsure] = np.maximum(scores[unsure], [face.score for face in faces[unsure]])
        seen = scores >= GATE
        aimed = finder.next(whole.rows(seen), faces[seen])
        return aimed._replace(boxes=self.net.boxes_round(aimed.boxes)), seen

    def read(self, boxes: Boxes, net: LandmarkNet | None = None) -> np.ndarray:
        """Return the face (M,) in each box, as a net sees it; None: the landmark net."""
        with self._timed("landmarks"):
            return (net or self.net).read(boxes)

    def again(self, boxes: Boxes, faces: np.ndarray) -> np.ndarray:
        """Return the faces (M,) that were read in boxes, read once more where their landmarks lead to another crop."""
        boxes_then = self.net.next(boxes, faces)
        far = np.array([self.net.is_far(*pair) for pair in zip(boxes.boxes, boxes_then.boxes, strict=True)], bool)
        faces[far] = self.read(boxes_then.rows(far))
        return faces

    def is_face(self, face: Face) -> bool:
        """Return whether a result is a face: whether its score is at least `threshold`.

        A net without the output `face` must also give a mean landmark score of at least its `face_limit`.
        """
        unsure = face.score < self.threshold  # NaN, of boxes from elsewhere, is not
        return not unsure and bool(face.scores.mean() >= self.net.face_limit)


def is_sure(face: Face) -> bool:
    """Return whether a face is so certain that the picture needs no other look."""
    return face.score >= SURE
