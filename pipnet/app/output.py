"""Outputs of the demo: a window, a picture or video, lines of JSON."""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

import cv2
import numpy as np
from tqdm import tqdm

from pipnet.app.encoders import CODECS, drawback
from pipnet.app.panel import Panel, plural
from pipnet.app.sinks import (
    PictureSink,
    VideoSink,
    make_folder,
    named_as_picture,
    names_picture,
    save_picture,
    unused,
    writing,
)
from pipnet.draw import STYLES, Style, draw_faces
from pipnet.errors import UserError, printable, tell
from pipnet.face import Face, plain_values
from pipnet.files import names_folder
from pipnet.layout import Layout
from pipnet.module_path import python
from pipnet.video.sources import Frame, Source

OUTPUT = Path("output")  # folder for what is saved without a name
KEYS = "q or Esc: quit; s: save this picture; d: draw edges, points, numbers or nothing; m: mirror; space: pause, next picture"
LARGEST = (1280, 800)  # px of the window at first
FIRST = b'{"frame": '  # how our lines of JSON begin


def json_line(frame: Frame, faces: list[Face]) -> str:
    """Return a frame as a line of JSON. Coordinates are rounded to 0.01 px; unknown and non-finite values are null."""
    height, width = frame.image.shape[:2]
    return json.dumps(
        {
            "frame": frame.index,
            "time": plain_values(frame.seconds, 4),
            "file": frame.name,
            "width": width,
            "height": height,
            "faces": [face.to_dict() for face in faces],
        }
    )


def has_display() -> bool:
    """Return whether a window can be opened. A process of its own tries it, since a failure ends the process."""
    if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return False
    try:
        command = python("import cv2; cv2.namedWindow('pipnet')")
        return subprocess.run(command, capture_output=True, timeout=20).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


class Window:
    """A window. still: every picture waits for a key. aspect: width / height of a pixel.

    `style`: how faces are drawn, one of STYLES.
    """

    def __init__(self, still: bool, aspect: float = 1.0):
        self._aspect = aspect
        self.title, self.still, self.style = "PIPNet", still, STYLES[0]
        cv2.namedWindow(self.title, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO)
        self._sized, self._mirrored, self._offset = False, False, -np.inf

    def show(self, image: np.ndarray, seconds: float, redraw: Callable[[Style], np.ndarray], name: str) -> bool:
        """Show a frame until the next one is due. Return False when the user quits.

        seconds: time of the frame in its video, 0 for still and live sources. redraw(style): returns the frame in
        another style.
        name: of the file that the key s saves, without suffix.
        """
        paused, now = self.still, time.monotonic()
        # when the video began; later if it was paused, or if frames were late
        self._offset = max(self._offset, now - seconds)
        wait = max(1, int(1000 * (seconds + self._offset - now)))
        if not self._sized:
            height, width = image.shape[0], image.shape[1] * self._aspect
            scale = min(1.0, LARGEST[0] / width, LARGEST[1] / height)
            cv2.resizeWindow(self.title, max(1, int(width * scale)), max(1, int(height * scale)))
            self._sized = True
        while True:
            shown = image if self._aspect == 1 else cv2.resize(image, None, fx=self._aspect, fy=1)
            cv2.imshow(self.title, cv2.flip(shown, 1) if self._mirrored else shown)
            key = cv2.waitKey(30 if paused else wait) & 0xFF
            if key in (ord("q"), 27) or cv2.getWindowProperty(self.title, cv2.WND_PROP_VISIBLE) < 1:
                return False
            if key == ord("s"):
                file = unused(OUTPUT / f"{name}.png", os.path.lexists)
                save_picture(file, image)
                tqdm.write(printable(f"saved {file}"), file=sys.stderr)
            elif key == ord("d"):
                self.style = STYLES[(STYLES.index(self.style) + 1) % len(STYLES)]
                image = redraw(self.style)
            elif key == ord("m"):
                self._mirrored = not self._mirrored
            elif key == ord(" "):
                if self.still:
                    return True
                paused = not paused
            if not paused:
                return True


class Lines:
    """Lines of JSON in a file, or on the terminal (-). The file is made with the first line."""

    def __init__(self, place: str):
        self.place = place
        self.file: TextIO | None = None

    def write(self, text: str) -> None:
        """Write one line."""
        if self.place == "-":
            print(text, flush=True)
            return
        with writing(self.place):
            if self.file is None:
                make_folder(Path(self.place))
                self.file = open(self.place, "w", encoding="utf-8", buffering=1)
            self.file.write(text + "\n")

    def close(self) -> None:
        """Finish the file."""
        if self.file:
            with writing(self.place):
                self.file.close()


class Output:
    """The outputs of one source that the command line asks for. No file is made before the first frame is processed.

    A live source, and a source with no other output, is shown in a window. Without a display, a source with no other
    output is saved to OUTPUT, as with --save without a name. lines: of all sources. several: whether there are more
    sources. taken: files that those before write. The attribute `targets` holds the files that will be written, except
    that of the lines.
    """

    def __init__(
        self,
        args: argparse.Namespace,
        source: Source,
        layout: Layout,
        lines: Lines | None,
        several: bool,
        taken: set[Path],
    ):
        self.source, self.layout, self.panel, self.lines = source, layout, Panel(), lines
        self.window: Window | None = None
        self.sink: PictureSink | VideoSink | None = None
        self.shows, target = (source.live or not (args.save or args.json)) and has_display(), args.save
        self.targets: list[Path] = []
        if target is True or (target is None and not self.shows and not args.json):
            self._save_unnamed(taken, args.overwrite)
        elif target:
            self._save(target, several or (source.still and source.folder is not None))
        self.faces = self.frames = 0
        self.seconds = 0.0  # that all frames have taken

    def open_window(self) -> None:
        """Open the window if the source is shown, and tell its keys."""
        if self.shows:
            self.window = Window(self.source.still, float(self.source.aspect))
            print(KEYS, file=sys.stderr)

    def _save_unnamed(self, taken: set[Path], overwrite: bool) -> None:
        """Open the sink of a source that is saved to OUTPUT, under free names unless `overwrite`."""
        source, folder = self.source, OUTPUT
        used = taken.__contains__ if overwrite else lambda path: path in taken or os.path.lexists(path)
        if source.still and source.searched:
            source.leave_out(OUTPUT)
            folder = unused(OUTPUT / source.name, used, folder=True)
        names = [named_as_picture(Path(name)) for name in source.names] if source.still else [f"{source.name}.mp4"]
        for name in names:
            self.targets.append(unused(folder / name, used))
            taken.add(self.targets[-1])
        self._open_sink(folder)

    def _save(self, target: str, several: bool) -> None:
        """Open the sink of --save. several: whether more than one picture or video is saved there."""
        source, place = self.source, Path(target)
        if names_folder(target):
            if source.still and source.folder is not None:
                source.leave_out(place)
            names = source.names if source.still else [f"{source.name}.mp4"]
            self.targets = [place / name for name in names]
        elif several:
            raise UserError(
                f"--save {target}: several pictures or videos go into a folder; give a name without "
                f"{place.suffix}, or {target}{os.sep}"
            )
        elif source.still and not names_picture(place):
            raise UserError(f"--save {target}: no picture's name; give one that ends in .jpg or .png")
        else:
            self.targets = [place]
        if source.still:
            self.targets = list(map(named_as_picture, self.targets))
        self._open_sink(place)

    def _open_sink(self, place: Path) -> None:
        """Open the sink of `targets`, which lie in `place` or are that file."""
        source = self.source
        if source.still:
            self.sink = PictureSink(self.targets, place)
            return
        self.sink = VideoSink(self.targets[0], source.fps, next(iter(source.files), None), source.aspect)
        if lacks := drawback(self.targets[0].suffix.lower(), not source.live):
            tell(f"{self.targets[0]}: {lacks}")

    def draw(self, frame: Frame, faces: list[Face], style: Style) -> np.ndarray:
        """Return the frame with faces, panel and alarm drawn on it."""
        only_once = self.source.still and self.window is None
        image = frame.image if only_once else frame.image.copy()  # saves the memory of a copy of a large picture
        if not self.source.still and style != "nothing":
            self.panel.draw(image, len(faces))
        draw_faces(image, faces, self.layout, style)
        return image

    def add(self, frame: Frame, faces: list[Face], stages: dict[str, float], total: float) -> bool:
        """Send a frame to every output. Return False when the user closes the window.

        stages: seconds that each stage took; total: seconds of the frame so far. The panel of the next frame shows
        them.
        """
        start = time.perf_counter()
        self.frames, self.faces = self.frames + 1, self.faces + len(faces)
        if self.lines:
            self.lines.write(json_line(frame, faces))
        goes_on = True
        if self.window or self.sink:
            image = self.draw(frame, faces, self.window.style if self.window else STYLES[0])
            drawn = time.perf_counter()
            stages["draw"] = drawn - start
            if self.sink:
                self.sink.write(frame, image)
                stages["save"] = time.perf_counter() - drawn
            if self.window:
                name = Path(frame.name).stem + ("" if self.source.still else f"_{frame.index:06d}")
                seconds = 0.0 if self.source.live else frame.seconds or 0.0
                goes_on = self.window.show(image, seconds, lambda style: self.draw(frame, faces, style), name)
        seconds = total + time.perf_counter() - start
        self.seconds += seconds
        self.panel.update(stages, seconds)
        return goes_on

    def close(self) -> None:
        """Close the window and finish the picture or video."""
        if self.window:
            cv2.destroyAllWindows()
        if self.sink:
            self.sink.close()

    def summary(self) -> str:
        """Return a summary of the run: numbers of faces and frames, and the files that were written."""
        text = f"{plural(self.faces, 'face')} in {plural(self.frames, 'picture' if self.source.still else 'frame')}"
        if not self.source.still:
            paused = self.window is not None  # or it may have been: then the rate is that of the last second
            rate = self.panel.fps if paused else self.frames / max(self.seconds, 1e-4)
            text += f", {rate:.0f} frames/s"
        saved = [str(self.sink.target)] if self.sink and self.sink.written else []
        if self.lines and self.lines.file:
            saved.append(self.lines.place)
        if saved:
            text += f"; saved {' and '.join(saved)}"
        note = self.sink.note if isinstance(self.sink, VideoSink) else ""
        return f"{text}; the video is written {note}" if note else text


def check_targets(args: argparse.Namespace, outputs: list[Output]) -> None:
    """Raise UserError if an output would overwrite a source, another output or, without --overwrite, an existing file."""
    sources = [file for output in outputs for file in output.source.files]
    targets = [file for output in outputs for file in output.targets]
    targets += [Path(args.json)] if args.json and args.json != "-" else []
    seen: set[str] = set()
    for target in targets:
        if (place := os.path.abspath(target)) in seen:
            raise UserError(
                f"{target} would be written twice, by --save and --json or for two pictures; change one of the names"
            )
        seen.add(place)
    inodes = {(found.st_dev, found.st_ino) for found in map(os.stat, filter(os.path.exists, sources))}
    there = []
    for target in targets:
        if os.path.lexists(target):
            if target.exists() and (target.stat().st_dev, target.stat().st_ino) in inodes:
                raise UserError(f"{target} is the source itself; give --save or --json another place")
            there += [target] * _is_kept(target)
    if args.json and (Path(args.json).suffix.lower() in CODECS or names_picture(args.json)):
        raise UserError(f"--json {args.json}: the name of a picture or video; give one that ends in .jsonl")
    if there and not args.overwrite:
        more = f" and {len(there) - 1} more are" if len(there) > 1 else " is"
        raise UserError(f"{there[0]}{more} there already; give --save or --json another place, or --overwrite")


def _is_kept(file: Path) -> bool:
    """Return whether a file needs --overwrite to be replaced: not a device, an empty file or our own lines of JSON."""
    if not file.is_file():
        return not file.exists()  # a link that leads nowhere
    try:
        with open(file, "rb") as content:
            return content.read(len(FIRST)) not in (b"", FIRST)
    except OSError:
        return True
