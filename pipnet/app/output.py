"""Where the demo's frames go: a window, a picture or video, lines of JSON."""
import argparse
import json
import os
import time
from pathlib import Path

import cv2
import numpy as np

from pipnet.app.panel import STYLES, Panel, alarm, draw_faces
from pipnet.app.sinks import PictureSink, VideoSink, make_folder, writing
from pipnet.app.sources import Frame, Source
from pipnet.app.window import OUTPUT, Window, has_display
from pipnet.errors import UserError
from pipnet.landmarker import Face
from pipnet.layout import Layout


def json_line(frame: Frame, faces: list[Face]) -> str:
    """One frame as a line of JSON. Unknown and non-finite values are null."""
    height, width = frame.image.shape[:2]
    return json.dumps({"frame": frame.index, "time": rounded(frame.seconds, 4), "file": frame.name,
                       "width": width, "height": height, "faces": [face_values(face) for face in faces]})


def face_values(face: Face) -> dict:
    """Plain values of a face; px are rounded to hundredths."""
    values = {"id": face.id, "box": rounded(face.box, 2), "score": rounded(face.score, 4),
              "landmarks": rounded(face.landmarks, 2), "landmark_scores": rounded(face.scores, 3),
              "sigma": rounded(face.sigma, 3), "pose": rounded(face.pose, 2)}
    return values | {key: rounded(value, 4) for key, value in (face.drowsiness or {}).items()}


def rounded(value, digits: int):
    """Plain rounded values of a number, array or list; None for what is not finite."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        return [rounded(one, digits) for one in value]
    if isinstance(value, (float, np.floating)):
        return round(float(value), digits) if np.isfinite(value) else None
    return value.item() if isinstance(value, np.generic) else value


class Output:
    """The outputs that the command line asks for. No file is made before the first frame is processed.

    A source that is neither saved nor written as JSON, or that is live, is shown in a window. Without a display, and with no
    other output, it is saved to the folder OUTPUT.
    """

    def __init__(self, args: argparse.Namespace, source: Source, layout: Layout):
        self.source, self.layout, self.panel, self.json = source, layout, Panel(), args.json
        self.window, self.sink, self._lines, target = None, None, None, args.save
        if (source.live or not (args.save or args.json)) and has_display():
            self.window = Window(source.still)
        if target is None and self.window is None and not args.json:
            target = OUTPUT / (source.name if source.still else f"{source.name}.mp4")
        _check_targets(args, [Path(one) for one in (target, args.json) if one is not None])
        if target is not None and source.still:
            self.sink = PictureSink(target, source.folder is not None)
        elif target is not None:
            self.sink = VideoSink(target, source.fps, source.live)
        self.faces = self.frames = 0

    def draw(self, frame: Frame, faces: list[Face], style: str) -> np.ndarray:
        """The frame with faces, panel and alarm drawn on it."""
        only_once = self.source.still and self.window is None
        image = frame.image if only_once else frame.image.copy()  # saves the memory of a copy of a large picture
        if not self.source.still and style != "nothing":
            self.panel.draw(image, len(faces))
        draw_faces(image, faces, self.layout, style)
        alarm(image, faces)
        return image

    def add(self, frame: Frame, faces: list[Face], stages: dict[str, float], total: float) -> bool:
        """Send a frame to every output; False when the user closes the window.

        stages: seconds that each stage took; total: seconds of the frame so far. The panel of the next frame shows them.
        """
        start = time.perf_counter()
        self.frames, self.faces = self.frames + 1, self.faces + len(faces)
        if self.json:
            self._write_line(json_line(frame, faces))
        goes_on = True
        if self.window or self.sink:
            image = self.draw(frame, faces, self.window.style if self.window else STYLES[0])
            drawn = time.perf_counter()
            stages["draw"] = drawn - start
            if self.sink:
                self.sink.write(frame, image)
                stages["save"] = time.perf_counter() - drawn
            if self.window:
                goes_on = self._show(frame, faces, image)
        self.panel.update(stages, total + time.perf_counter() - start)
        return goes_on

    def _show(self, frame: Frame, faces: list[Face], image: np.ndarray) -> bool:
        name, seconds = Path(frame.name).stem, 0.0
        if not self.source.still:
            name = f"{name}_{frame.index:06d}"
            seconds = 0.0 if self.source.live else frame.seconds
        return self.window.show(image, seconds, lambda style: self.draw(frame, faces, style), name)

    def _write_line(self, text: str) -> None:
        if self.json == "-":
            print(text, flush=True)
            return
        with writing(self.json):
            if self._lines is None:
                make_folder(Path(self.json))
                self._lines = open(self.json, "w", encoding="utf-8", buffering=1)
            self._lines.write(text + "\n")

    def close(self) -> None:
        """Close the window and finish the files."""
        if self.window:
            cv2.destroyAllWindows()
        try:
            if self._lines:
                with writing(self.json):
                    self._lines.close()
        finally:  # an error of the JSON file must not leave the video unfinished
            if self.sink:
                self.sink.close()

    def summary(self) -> str:
        """What was found and where it is saved."""
        text = f"{plural(self.faces, 'face')} in {plural(self.frames, 'picture' if self.source.still else 'frame')}"
        if not self.source.still:
            text += f", {self.panel.fps:.0f} frames/s"
        saved = [str(self.sink.target)] if self.sink and self.sink.written else []
        if self._lines:
            saved.append(self.json)
        return f"{text}; saved {' and '.join(saved)}" if saved else text


def plural(count: int, noun: str) -> str:
    """A number with its noun."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _check_targets(args: argparse.Namespace, targets: list[Path]) -> None:
    """UserError where an output would overwrite the source or another output."""
    if len({os.path.abspath(target) for target in targets}) < len(targets):
        raise UserError(f"--save and --json are both {args.json}; give one of them another name")
    for target in targets:
        if target.exists() and os.path.exists(args.source) and os.path.samefile(args.source, target):
            raise UserError(f"{target} is the source itself; give --save or --json another place")
