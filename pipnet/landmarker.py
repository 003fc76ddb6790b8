"""Finds faces and their landmarks in an OpenCV image, with a detector and a landmark net."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, overload

import numpy as np

from pipnet.align import box_of_points, chip
from pipnet.detector import FACEBOXES_V2, WITHIN, Detections, Detector, FaceBox
from pipnet.draw import draw_faces
from pipnet.errors import UserError, as_text, one_line
from pipnet.face import PER_LANDMARK, Face, boxes_of
from pipnet.files import OPEN, SHIPPED, lasting
from pipnet.geometry import (
    border_px,
    crop_box,
    cut,
    greedy_nms,
    iou,
    shared,
    to_image,
    transform,
    turn_about,
    upright_boxes,
)
from pipnet.images import Bgr, Image, as_bgr, enhanced, resized
from pipnet.landmark_net import LandmarkNet, checked, open_net
from pipnet.layout import Layout
from pipnet.openers import open_with
from pipnet.pose import turn_pose
from pipnet.runtimes import RUNTIMES
from pipnet.session import on_device, shipped_onnx

if TYPE_CHECKING:
    from pipnet.video.sources import Frame, Source

MOST_FACES = 64  # crops in one call of the net, which bounds the memory
MOST_IMAGES, MOST_PIXELS = 16, 2**23  # images whose crops go through the nets together; no image follows so many pixels
THRESHOLD = 0.5  # least score of a face, of a net with the output `face`
GATE, SURE = 0.05, 0.9  # scores of a finder below which there is no face; from which no other look is needed
QUARTERS = (90, 180, 270)  # degrees by which a face is turned in the further looks of the finder
LEAST_SIDE, LARGER = 512, 2.0  # px, longer side to which a small enhanced image is enlarged; most of that factor
TWICE, PART = 0.5, 2.0  # least IoU of two results for one face; least ratio of the areas of a face and a part of it
OTHER = 0.3  # IoU of the boxes of two faces above which they are one, found in the image and in the enhanced image
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


def with_roll(boxes: np.ndarray) -> np.ndarray:
    """Return a copy of boxes (M, 4) or (M, 5), or of one box, as (M, 5) float64. A missing roll is 0.

    UserError for other shapes.
    """
    try:
        rows = np.atleast_2d(np.asarray(boxes, np.float64))
        rows = rows if rows.size else np.zeros((0, 4))
        if rows.ndim != 2 or rows.shape[1] not in (4, 5):
            raise ValueError(f"an array {np.shape(boxes)}")
    except (TypeError, ValueError) as error:
        raise UserError(
            f"give boxes as numbers (M, 4) x1 y1 x2 y2, or (M, 5) with a roll, not {one_line(error)}"
        ) from None
    if rows.shape[1] == 5:
        return rows.copy()
    turned = np.zeros((len(rows), 5))
    turned[:, :4] = rows
    return turned


def largest_first(boxes: np.ndarray) -> np.ndarray:
    """Return the places (M,) of boxes (M, 4) or (M, 5), those of the largest ones first."""
    return np.argsort(-np.prod(boxes[:, 2:4] - boxes[:, :2], 1), kind="stable")


def without_duplicates(faces: list[Face]) -> list[Face]:
    """Return the faces except those that show another face again, or a part of a larger face that is not less certain."""
    if len(faces) < 2:
        return faces
    boxes, scores = boxes_of(faces), np.array([face.scores.mean() for face in faces])
    area = np.prod(boxes[:, 2:] - boxes[:, :2], 1)
    place = np.argsort(np.argsort(-scores, kind="stable"))  # from the best face on
    part = (shared(boxes, boxes) >= WITHIN) & (area[:, None] * PART < area) & (scores[:, None] <= scores)
    again = (iou(boxes, boxes) >= TWICE) & (place < place[:, None])
    return [face for face, drops in zip(faces, (part | again).any(1), strict=True) if not drops]


class Landmarker:
    """Finds faces and their landmarks: `landmarker(image)` returns a list of `Face`, best first.

    An image is uint8 BGR (H, W, 3), grey, BGRA, a file's name or a picture of Pillow. Coordinates are px of the image.

    - `landmarks`: the landmark net. The name of a net that comes with the project (None: `landmarks`), which runs in 8
      bits on a CPU; an exported file (.onnx, .mnn, .param, .xml); a `LandmarkNet`; once `utils` of the
      checkout is imported, also what `--exp` takes.
    - `detector`: a `Detector` (None: the one that comes with the project), or any function from an image to boxes (M,
      4) and scores (M,). Its attribute `face_box`, a `FaceBox`, maps its boxes to landmark boxes; without it,
      FaceBoxesV2's map is used.
    - `max_faces`: only so many faces are kept, the largest ones.
    - `threads`: CPU threads of each net that is opened here; 0 takes all cores.
    - `any_roll`: where the finder is not sure of an upright face, it looks again, turned by quarters. If no face is
      sure, the detector also looks at the enhanced image.
    - `rgb`: arrays are RGB, not BGR.
    - `finder`: a small landmark net, trained at any roll, that finds the place and the roll of a face in the box of a
      detector that gives no points, and drops boxes that show none. Its landmarks are of the whole face. None: the one
      that comes with the project; "none": the boxes are taken as they are, upright.
    - `layout`: of a net that has learnt several, the name of a layout or of a training set; None: that of the first
      set. If it is a part of another one, such as the eyes, the landmarker `whole` finds the faces.
    - `device`: where the nets that are opened here run: `cpu`, `cuda` (a GPU) or `auto`, a GPU if there is one that
      works. Nets that come with the project run in 8 bits on a CPU and in 32 on a GPU.
    - `threshold`: least score of a face, in [0, 1]. None: THRESHOLD for a net with the output `face`. The scores of
      others are the detector's, which has a threshold of its own.

    `landmarks-open` is found by `detector-open` unless a detector is given, and has no finder unless one is given.

    UserError for what cannot be loaded, and for a device that does not work here. The attribute `seconds` is the time
    spent so far, by stage. Pickle stores these arguments, so a landmarker can be sent to other processes.
    """

    def __init__(
        self,
        landmarks: Path | str | LandmarkNet | None = None,
        detector: Callable | None = None,
        max_faces: int | None = None,
        threads: int = 0,
        any_roll: bool = True,
        rgb: bool = False,
        finder: Path | str | LandmarkNet | None = None,
        layout: str | None = None,
        device: str = "auto",
        threshold: float | None = None,
    ):
        options = max_faces, threads, any_roll, rgb
        self._given = lasting(landmarks), detector, *options, lasting(finder), layout, device, threshold
        if max_faces is not None and (not isinstance(max_faces, Integral) or max_faces < 1):
            raise UserError(f"max_faces must be a whole number, at least 1, not {as_text(max_faces)}")
        with on_device(device):
            self.net = _opened(SHIPPED[0] if landmarks is None else landmarks, threads)
            boxes_alone = finder == "none" or (finder is None and str(landmarks) in OPEN)
            self.finder = None if boxes_alone else _opened(finder or "finder", threads).seen_as()
        if self.finder and not self.finder.face:
            raise UserError(f"the finder {as_text(finder)} lacks the output face; train it with --face 1")
        if isinstance(detector, (str, Path)):
            raise UserError(
                f"detector must be a function that finds boxes, not '{detector}'; a file is opened with "
                "Detector(weights=FILE)"
            )
        if threshold is not None and not (isinstance(threshold, Real) and 0 <= threshold <= 1):
            raise UserError(f"threshold must be a number from 0 to 1, not {as_text(threshold)}")
        self.threshold = threshold if threshold is not None else THRESHOLD if self.net.face else 0.0
        if detector is None:
            detector = Detector(weights=OPEN.get(str(landmarks)), threads=threads, device=device)
        self.detector = detector
        self.max_faces, self.any_roll, self.rgb = max_faces, any_roll, rgb
        part, whole = self.net.layout.chosen(layout), self.net.layout.whole(layout)
        self.whole = (
            Landmarker(self.net, detector, *options, self.finder or "none", whole.layout.name, threshold=threshold)
            if whole != part
            else None
        )
        self._rows = [whole.index.index(place) for place in part.index] if self.whole else None
        self.net = self.net.seen_as(layout)
        stages = ("decode", "detect", "landmarks", "track")
        self.seconds: dict[str, float] = self.whole.seconds if self.whole else dict.fromkeys(stages, 0.0)

    def __reduce__(self):
        return type(self), self._given

    @property
    def layout(self) -> Layout:
        """Return the layout of the landmarks that are found."""
        return self.net.layout

    @property
    def face_box(self) -> FaceBox:
        """Return the map from the detector's boxes to landmark boxes."""
        return getattr(self.detector, "face_box", FaceBox(*FACEBOXES_V2))

    @overload
    def __call__(self, image: list[Any] | tuple[Any, ...], second_crop: bool = True) -> list[list[Face]]: ...

    @overload
    def __call__(self, image: Image, second_crop: bool = True) -> list[Face]: ...

    def __call__(self, image: Any, second_crop: bool = True) -> Any:
        """Return the faces of an image, best first; for a list of images, a list of faces for each.

        Crops of several images go through the nets together, and files are read when they are needed. second_crop: the
        finder aims the crop, and a face is cropped again if its landmarks lead to another crop. UserError for a bad
        image.
        """
        several = isinstance(image, (list, tuple))
        images = (as_bgr(one, self.rgb) for one in (image if several else [image]))
        found = [faces for batch in batches(images, np.asarray) for faces in self._faces_in(batch, second_crop)]
        return found if several else found[0]

    def stream(
        self,
        source: "str | int | Path | Sequence[str | int | Path] | Source",
        detect_every: int = 10,
        smooth: str = "one-euro",
        pose: bool = False,
        drowsiness: bool = False,
    ) -> "Iterator[tuple[Frame, list[Face]]]":
        """Return an iterator over (frame, its faces) of pictures, videos and cameras, which holds few frames at a time.

        A frame has an `image` (H, W, 3) uint8 BGR, `index`, `seconds` since the start (None: a picture) and `name`. In
        pictures, faces are found anew, best first. In videos and cameras they are tracked, see `Tracker`.

        - `source`: a picture, a folder of pictures, a video, a pattern such as `clips/*.mp4`, an address, a camera's
          number, or a list of these; or what `pipnet.video.sources.open_sources` returned.
        - `detect_every`, `smooth`: see `Tracker`.
        - `pose`: add `Face.pose` by `head_pose` if the net does not predict it.
        - `drowsiness`: add `Face.drowsiness`, see `Drowsiness`; not for pictures.

        UserError for a source that cannot be opened, before the first frame. A picture that cannot be read is left out
        and named on stderr.
        """
        from pipnet.video.stream import stream  # reads videos and addresses, which pictures do not need

        return stream(self, source, detect_every, smooth, pose, drowsiness)

    def draw(self, image: Image, faces: list[Face], style: str = "edges") -> np.ndarray:
        """Return a copy of an image with its faces drawn as in the demo: uint8 (H, W, 3), BGR, or RGB with `rgb`.

        style: `edges`, `points`, `numbers` or `nothing`. UserError for another one, and for a bad image.
        """
        drawn = np.array(as_bgr(image, self.rgb))
        draw_faces(drawn, faces, self.layout, style)
        return drawn[..., ::-1].copy() if self.rgb else drawn

    def _faces_in(self, images: list[Bgr], second_crop: bool) -> list[list[Face]]:
        """Return the faces of each image, see `__call__`."""
        if self.whole:
            return [list(map(self.part, faces)) for faces in self.whole._faces_in(images, second_crop)]
        found: list[list[Face]] = [[] for _ in images]
        large: list[Detections | None] = [None] * len(images)
        rest = list(range(len(images)))
        if self.max_faces is not None and hasattr(self.detector, "large"):
            large = list(map(self._large, images))
            found = self._largest(images, list(map(self._landmark_boxes, images, large)), second_crop)
            # where there are enough, those in the rest of the image are smaller
            rest = [i for i in rest if sum(map(is_sure, found[i])) < self.max_faces]
        detected = [self.detect(images[i], large[i]) for i in rest]
        for i, faces in zip(rest, self._largest([images[i] for i in rest], detected, second_crop), strict=True):
            more = [] if any(map(is_sure, faces)) else self.enhanced_faces(images[i], second_crop)
            found[i] = best(faces + more, self.max_faces) if more else faces
        return found

    def enhanced_faces(self, image: np.ndarray, second_crop: bool = True) -> list[Face]:
        """Return the faces that are found in the enhanced image (H, W, 3), for dark and noisy pictures; in a small one
        also enlarged.
        None if the net lacks the output `face`, or without `any_roll`.

        Their landmarks are found in the enhanced image, then in the image itself, since the blur costs accuracy.
        """
        if not (self.any_roll and self.net.face):
            return []
        clear = as_bgr(enhanced(image))
        zoom = min(max(LEAST_SIDE / max(image.shape[:2]), 1), LARGER)
        boxes, scores = self.detect(clear)
        if zoom > 1:
            larger, more = self.detect(resized(clear, zoom))
            boxes = np.concatenate([boxes, larger / (zoom, zoom, zoom, zoom, 1)])
            scores = np.concatenate([scores, more])
        faces = self.faces_of(clear, boxes, scores, second_crop)
        views = _views([image], [len(faces)])
        faces += self._found(views, self._next_boxes(views, faces), np.array([face.score for face in faces]))
        # enhanced background looks more like a face, so a face must be more certain here
        return best(list(filter(is_sure, faces)), self.max_faces)

    def part(self, face: Face) -> Face:
        """Return a face of `whole` with the landmarks of this layout only."""
        if self._rows is None:
            return face
        values = {name: getattr(face, name) for name in PER_LANDMARK}
        return face._replace(**{name: None if value is None else value[self._rows] for name, value in values.items()})

    def _largest(
        self, images: list[Bgr], detected: list[tuple[np.ndarray, np.ndarray]], second_crop: bool
    ) -> list[list[Face]]:
        """Return the faces of each image, best first; of `max_faces`, those in the largest boxes that show faces.

        detected: for each image, what `detect` returns.
        """
        found: list[list[Face]] = [[] for _ in images]
        rest = [largest_first(boxes) for boxes, _ in detected]
        room = [self.max_faces or len(boxes) for boxes, _ in detected]
        looked = [i for i in range(len(images)) if len(rest[i])]
        while looked:
            first = [np.sort(rest[i][: room[i]]) for i in looked]  # best first
            parts = [(detected[i][0][some], detected[i][1][some]) for i, some in zip(looked, first, strict=True)]
            for i, more in zip(looked, self._faces_of([images[i] for i in looked], parts, second_crop), strict=True):
                rest[i] = rest[i][room[i] :]
                found[i] = best_first(without_duplicates(found[i] + more)) if found[i] else more
                room[i] = (self.max_faces or 0) - len(found[i])
            looked = [i for i in looked if len(rest[i]) and room[i] > 0]
        return found

    def faces_of(
        self, image: np.ndarray, boxes: np.ndarray, scores: np.ndarray, second_crop: bool = True
    ) -> list[Face]:
        """Return the faces in landmark boxes (M, 4) or (M, 5), see `landmarks_of`: only those that `is_face` confirms.

        scores (M,): the detector's. second_crop: see `__call__`.
        """
        return self._faces_of([as_bgr(image, self.rgb)], [(with_roll(boxes), scores)], second_crop)[0]

    def _faces_of(
        self, images: list[Bgr], detected: list[tuple[np.ndarray, np.ndarray]], second_crop: bool
    ) -> list[list[Face]]:
        """Return the faces of each image, as `faces_of`. detected: landmark boxes (M, 5) and scores (M,) of each image."""
        counts = [len(boxes) for boxes, _ in detected]
        views, place = _views(images, counts), np.repeat(np.arange(len(images)), counts)
        boxes, scores = map(np.concatenate, zip(*detected, strict=True))
        if second_crop and self.finder and not boxes[:, 4].any():
            boxes, shown = self._aimed(views, boxes)
            views, place, boxes, scores = views[shown], place[shown], boxes[shown], scores[shown]
        faces = np.fromiter(self._found(views, boxes, scores), object)
        if second_crop:
            again = self._next_boxes(views, faces)
            far = np.array([self.net.is_far(*pair) for pair in zip(boxes, again, strict=True)], bool)
            faces[far] = np.fromiter(self._found(views[far], again[far], scores[far]), object)
        real = np.array([self.is_face(face) for face in faces], bool)
        return [best_first(without_duplicates(list(faces[real & (place == i)]))) for i in range(len(images))]

    def _aimed(self, views: np.ndarray, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the landmark boxes (M, 5) of the faces that the finder sees in upright landmark boxes (M, 5) of a detector,
        and whether it sees a face there (M,).

        Where it is not sure of an upright face, it looks again, at the boxes that the detector's box stands for if the
        face is turned by a quarter or a half, then at the box of what it has found in the look with the highest score.
        """
        net, boxes = self.finder, self.net.whole_faces(boxes)
        faces = np.fromiter(self._found(views, boxes, net=net), object)
        scores = np.array([face.score for face in faces])
        unsure = np.flatnonzero(scores < SURE) if self.any_roll else ()
        if len(unsure):
            turned = np.concatenate([self.face_box.turned(boxes[unsure, :4], degrees) for degrees in QUARTERS])
            places = np.tile(unsure, len(QUARTERS))
            for i, face in zip(places, self._found(views[places], turned, net=net), strict=True):
                faces[i] = max(faces[i], face, key=lambda face: face.score)
            scores[unsure] = [face.score for face in faces[unsure]]
            again = self._found(views[unsure], self._next_boxes(views[unsure], faces[unsure], net), net=net)
            faces[unsure] = np.fromiter(again, object)
            scores[unsure] = np.maximum(scores[unsure], [face.score for face in again])
        return self.net.boxes_round(self._next_boxes(views, faces, net)), scores >= GATE

    def is_face(self, face: Face) -> bool:
        """Return whether a result is a face: whether its score is at least `threshold`.

        A net without the output `face` must also give a mean landmark score of at least its `face_limit`.
        """
        unsure = face.score < self.threshold  # NaN, of boxes from elsewhere, is not
        return not unsure and bool(face.scores.mean() >= self.net.face_limit)

    def detect(self, image: np.ndarray, large: Detections | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Return landmark boxes (M, 5) in image px, from the brows to the chin, and the detector's scores (M,), best
        first.

        The boxes are turned like the faces if the detector gives points, see `landmarks_of`. large: what `Detector.large`
        has found, if it was called already.
        """
        start, image = time.perf_counter(), as_bgr(image, self.rgb)
        found = self.detector(image) if large is None else self.detector(image, large)
        self.seconds["detect"] += time.perf_counter() - start
        return self._landmark_boxes(image, found)

    def _large(self, image: np.ndarray) -> Detections:
        """Return the large faces that the detector finds in a small copy of the image."""
        start = time.perf_counter()
        found = self.detector.large(image)
        self.seconds["detect"] += time.perf_counter() - start
        return found

    def _landmark_boxes(self, image: np.ndarray, found: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return landmark boxes and scores, see `detect`, from what a detector has found in an image."""
        height, width = image.shape[:2]
        try:
            boxes, scores = (np.asarray(part, np.float64) for part in found[:2])
        except (TypeError, ValueError) as error:
            raise UserError(f"the detector must return boxes (M, 4) and scores (M,) ({one_line(error)})") from None
        if boxes.size != 4 * scores.size:
            raise UserError(
                f"the detector gives boxes {boxes.shape} with scores {scores.shape}; (M, 4) and (M,) are needed"
            )
        scores = scores.reshape(-1)
        points = found[2] if len(found) > 2 else None
        if points is None:
            boxes = with_roll(self.face_box(boxes.reshape(-1, 4)))
        else:
            boxes = np.reshape([box_of_points(one) for one in np.asarray(points, np.float64)], (-1, 5))
        boxes = self.net.boxes_round(boxes)
        inside = np.array([self.net.shows(box, width, height) for box in boxes], bool)
        return boxes[inside], scores[inside]

    def landmarks_of(self, image: np.ndarray, boxes: np.ndarray, scores: np.ndarray | None = None) -> list[Face]:
        """Return the face in each landmark box (M, 4) or (M, 5) in image px, as `detect` and `box_of` return them.

        The fifth value is a roll in degrees: the box and its crop are turned clockwise by it, so that the crop shows
        the face upright. scores (M,): the detector's, copied to the faces if the net has no output `face`; None: NaN.
        Crops go through the net in batches. UserError for a box that lies outside the image.
        """
        image, boxes = as_bgr(image, self.rgb), with_roll(boxes)
        height, width = image.shape[:2]
        scores = None if scores is None else np.reshape(scores, -1)
        if scores is not None and len(scores) != len(boxes):
            raise UserError(
                f"there are {len(boxes)} boxes and {len(scores)} scores; give a score for each box, or none"
            )
        for box in boxes:
            self.net.check_box(box, width, height)
        return self._found(_views([image], [len(boxes)]), boxes, scores)

    def _found(
        self,
        views: np.ndarray,
        boxes: np.ndarray,
        scores: np.ndarray | None = None,
        net: LandmarkNet | None = None,
    ) -> list[Face]:
        """Return the faces of boxes (M, 5) as `landmarks_of`, without its checks: the upright box of a turned face may
        lie outside the image. views (M,): the image of each box. net: None: the landmark net.
        """
        start, net = time.perf_counter(), net or self.net
        scores = np.full(len(boxes), np.nan) if scores is None else scores
        angles, upright = np.radians(boxes[:, 4]), upright_boxes(boxes)
        crops = np.array(
            [
                crop_box(box, net.protocol, *view.shape[1::-1], angle)
                for view, box, angle in zip(views, boxes[:, :4], angles, strict=True)
            ]
        ).reshape(-1, 4)
        margin = 1 + 2 * border_px(net.size, net.margin) / net.size
        faces: list[Face] = []
        for first in range(0, len(boxes), MOST_FACES):
            part = slice(first, first + MOST_FACES)
            images = np.stack(
                [
                    cut(view, crop, net.size, margin, net.protocol.border, angle, halve=True)
                    for view, crop, angle in zip(views[part], crops[part], angles[part], strict=True)
                ]
            )
            found = checked(net.predict(images), len(images), net.layout.count)
            points = to_image(found["landmarks"].astype(np.float64), crops[part])
            poses = np.array(found["pose"]) if net.pose else None
            for i in np.flatnonzero(angles[part]):
                crop, angle = crops[part][i], angles[part][i]
                points[i] = transform(points[i], turn_about((crop[:2] + crop[2:]) / 2, angle))
                if net.pose:
                    poses[i] = turn_pose(poses[i], angle)
            point_scores = np.clip(found["score"], 0, 1)
            sides = np.sqrt(np.prod(crops[part, 2:] - crops[part, :2], 1))
            unknown = [None] * len(points)
            sigma = found["sigma"] * sides[:, None] if "sigma" in found else unknown
            pose = np.degrees(poses) if net.pose else unknown
            states = [net.name_states(values) for values in found["states"]] if any(net.states) else unknown
            visible = found.get("visible", unknown)
            sure = found["face"] if net.face else scores[part]
            seen = upright[part], map(float, sure)
            faces += map(Face, *seen, points, point_scores, sigma, unknown, pose, states, visible)
        self.seconds["landmarks"] += time.perf_counter() - start
        return faces

    def box_of(self, landmarks: np.ndarray) -> np.ndarray:
        """Return the landmark box (5,) for the next crop of a face, see `LandmarkNet.box_of`."""
        return self.net.box_of(landmarks)

    def align(self, image: np.ndarray, face: Face, size: int = 112) -> np.ndarray:
        """Return the upright chip (size, size, 3) of a face, with eyes, nose and mouth where ArcFace's template has
        them.

        Its channels are in the order of the image's; those of a file or a picture of Pillow are BGR. UserError for a
        layout without those five points.
        """
        aligned = chip(as_bgr(image, self.rgb), getattr(face, "landmarks", None), self.layout, size)
        return aligned[..., ::-1].copy() if self.rgb and isinstance(image, np.ndarray) else aligned

    def _next_boxes(self, views: np.ndarray, faces: Iterable[Face], net: LandmarkNet | None = None) -> np.ndarray:
        """Return landmark boxes (M, 5) for the next crops of the faces that a net has found; None: the landmark net.

        views (M,): the image of each face. A box that would lie outside it is replaced by the present one, upright.
        """
        net, boxes = net or self.net, []
        for view, face in zip(views, faces, strict=True):
            box = net.box_of(face.landmarks)
            boxes.append(box if net.shows(box, *view.shape[1::-1]) else (*face.box, 0))
        return np.reshape(boxes, (-1, 5))


def best_first(faces: list[Face]) -> list[Face]:
    """Return the faces, those with the highest scores first."""
    return sorted(faces, key=lambda face: -face.score)


def is_sure(face: Face) -> bool:
    """Return whether a face is so certain that the picture needs no other look."""
    return face.score >= SURE


def _views(images: Sequence[np.ndarray], counts: list[int]) -> np.ndarray:
    """Return an array (M,) of images, each as often as its count says."""
    return np.fromiter((image for image, count in zip(images, counts, strict=True) for _ in range(count)), object)


def _opened(net: Path | str | LandmarkNet, threads: int) -> LandmarkNet:
    """Return a landmark net: what `Landmarker` takes, or the name of a net that comes with the project."""
    if isinstance(net, LandmarkNet):
        return net
    if not isinstance(net, (str, Path)):
        raise UserError(f"a landmark net has a name or a file, not {as_text(net)}; images go to Landmarker()(image)")
    file = shipped_onnx(str(net)) if str(net) in SHIPPED else Path(net)
    return open_net(file, threads) if file.suffix in RUNTIMES else open_with("landmark net", net, threads)


def best(faces: list[Face], most: int | None) -> list[Face]:
    """Return the `most` largest faces, best first.
    Of faces that overlap or lie in another one, that with the highest landmark scores is kept.
    """
    faces = sorted(faces, key=lambda face: -face.scores.mean())
    boxes = boxes_of(faces)
    kept = greedy_nms((iou(boxes, boxes) > OTHER) | (shared(boxes, boxes).T >= WITHIN))
    faces = sorted((faces[place] for place in kept), key=lambda face: -np.ptp(face.landmarks, axis=0).prod())[:most]
    return best_first(faces)
