"""Finds faces and their landmarks in images, with a detector and a landmark net."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from pipnet.align import chip
from pipnet.boxes import Boxes, with_roll
from pipnet.chain import Chain, batches
from pipnet.detector import Detector
from pipnet.device import Device, on_device
from pipnet.draw import Style, draw_faces
from pipnet.errors import UserError, as_text, is_integer, is_number
from pipnet.face import Face
from pipnet.images import Image, as_bgr
from pipnet.landmark_net import LandmarkNet, open_net
from pipnet.layout import Part
from pipnet.openers import open_with
from pipnet.runtimes import RUNTIMES
from pipnet.shipped import OPEN, SHIPPED, lasting, shipped_onnx

if TYPE_CHECKING:
    from pipnet.video.smooth import Smooth
    from pipnet.video.sources import Frame, Source

THRESHOLD = 0.5  # least score of a face, of a net with the output `face`


class Landmarker(Chain):
    """Finds faces and their landmarks: `landmarker(image)` returns a list of `Face`, best first.

    An image is uint8 BGR (H, W, 3), grey, BGRA, a file's name or a picture of Pillow. Coordinates are px of the image.

    - `landmarks`: the landmark net. The name of a net that comes with the project (None: `landmarks`), which runs in 8
      bits on a CPU; an exported file (.onnx, .mnn); a `LandmarkNet`; once `utils` of the
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
    - `layout`: a part of the net's layout, such as `12`, the eyes of 68: faces are found by all landmarks, and returned
      with these only. Of a run or a checkpoint that has learnt several layouts, one of them, by its name or by that of
      a training set; None: that of the first set.
    - `device`: where the nets that are opened here run: `cpu`, `cuda` (a GPU) or `auto`, a GPU if there is one that
      works.
    - `threshold`: least score of a face, in [0, 1]. None: THRESHOLD for a net with the output `face`. The scores of
      others are the detector's, which has a threshold of its own.
    - `int8`: whether nets that come with the project run in 8 bits. None: on a CPU.

    `landmarks-open` is found by `detector-open` unless a detector is given, and has no finder unless one is given.

    UserError for what cannot be loaded, and for a device that does not work here. The attribute `seconds` is the time
    spent so far, by stage. Pickle stores these arguments, so a landmarker can be sent to other processes.
    """

    def __init__(
        self,
        landmarks: Path | str | LandmarkNet | None = None,
        detector: Callable[..., Any] | None = None,
        max_faces: int | None = None,
        threads: int = 0,
        any_roll: bool = True,
        rgb: bool = False,
        finder: Path | str | LandmarkNet | None = None,
        layout: str | None = None,
        device: Device = "auto",
        threshold: float | None = None,
        int8: bool | None = None,
    ):
        options = max_faces, threads, any_roll, rgb
        self._given = lasting(landmarks), detector, *options, lasting(finder), layout, device, threshold, int8
        if max_faces is not None and not is_integer(max_faces, 1):
            raise UserError(f"max_faces must be a whole number, at least 1, not {as_text(max_faces)}")
        with on_device(device):
            self.net, self.part = _opened(SHIPPED[0] if landmarks is None else landmarks, threads, int8, layout)
            boxes_alone = finder == "none" or (finder is None and str(landmarks) in OPEN)
            self.finder = None if boxes_alone else _opened(finder or "finder", threads, int8)[0]
        if self.finder and not self.finder.face:
            raise UserError(f"the finder {as_text(finder)} lacks the output face; train it with --face 1")
        if isinstance(detector, (str, Path)):
            raise UserError(
                f"detector must be a function that finds boxes, not '{detector}'; a file is opened with "
                "Detector(weights=FILE)"
            )
        if threshold is not None and not (is_number(threshold) and 0 <= threshold <= 1):
            raise UserError(f"threshold must be a number from 0 to 1, not {as_text(threshold)}")
        self.threshold = threshold if threshold is not None else THRESHOLD if self.net.face else 0.0
        if detector is None:
            detector = Detector(weights=OPEN.get(str(landmarks)), threads=threads, device=device, int8=int8)
        self.detector = detector
        self.max_faces, self.any_roll, self.rgb = max_faces, any_roll, rgb
        self.seconds = dict.fromkeys(("decode", "detect", "landmarks", "track"), 0.0)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self._given

    @overload
    def __call__(
        self, image: list[Any] | tuple[Any, ...], second_crop: bool = True, pose: bool = False
    ) -> list[list[Face]]: ...

    @overload
    def __call__(self, image: Image, second_crop: bool = True, pose: bool = False) -> list[Face]: ...

    def __call__(self, image: Any, second_crop: bool = True, pose: bool = False) -> Any:
        """Return the faces of an image, best first; for a list of images, a list of faces for each.

        Crops of several images go through the nets together, and files are read when they are needed. second_crop: the
        finder aims the crop, and a face is cropped again if its landmarks lead to another crop. pose: add `Face.pose` by
        `head_pose` if the net does not predict it. UserError for a bad image, and for a layout without the points of
        the pose.
        """
        several = isinstance(image, (list, tuple))
        images = (as_bgr(one, self.rgb) for one in (image if several else [image]))
        found = [faces for batch in batches(images, np.asarray) for faces in self.faces_in(batch, second_crop)]
        if pose:
            found = list(map(self.with_pose, found))
        return found if several else found[0]

    def stream(
        self,
        source: "str | int | Path | Sequence[str | int | Path] | Source",
        detect_every: int = 10,
        smooth: "Smooth" = "one-euro",
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

    def draw(self, image: Image, faces: list[Face], style: Style = "edges") -> np.ndarray:
        """Return a copy of an image with its faces drawn as in the demo: uint8 (H, W, 3), BGR, or RGB with `rgb`.

        style: `edges`, `points`, `numbers` or `nothing`. UserError for another one, and for a bad image.
        """
        drawn = np.array(as_bgr(image, self.rgb))
        draw_faces(drawn, faces, self.layout, style)
        return drawn[..., ::-1].copy() if self.rgb else drawn

    def detect(self, image: Image) -> tuple[np.ndarray, np.ndarray]:
        """Return landmark boxes (M, 5) in image px, from the brows to the chin, and the detector's scores (M,), best
        first.

        The boxes are turned like the faces if the detector gives points, see `landmarks_of`.
        """
        found = self.find(as_bgr(image, self.rgb))
        return found.boxes, found.scores

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
        return list(self.read(Boxes.of(image, boxes, scores)))

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


def _opened(
    net: Path | str | LandmarkNet, threads: int, int8: bool | None, layout: str | None = None
) -> tuple[LandmarkNet, Part | None]:
    """Return a landmark net, and the part of its layout that `layout` means; None: all of it.

    net: what `Landmarker` takes, or the name of a net that comes with the project.
    """
    if isinstance(net, LandmarkNet):
        return net, net.layout.part(layout)
    if not isinstance(net, (str, Path)):
        raise UserError(f"a landmark net has a name or a file, not {as_text(net)}; images go to Landmarker()(image)")
    file = shipped_onnx(str(net), int8) if str(net) in SHIPPED else Path(net)
    if file.suffix in RUNTIMES:
        found = open_net(file, threads)
        return found, found.layout.part(layout)
    found = open_with("landmark net", net, threads, layout)  # which may mean a training set
    return found, found.layout.parts.get(str(layout))
