"""The command: faces and landmarks in pictures, videos and cameras; in a window, as files, as JSON lines."""
import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from pipnet.app import media
from pipnet.app.drowsiness import Drowsiness
from pipnet.app.panel import STYLES, Panel, alarm, draw_faces
from pipnet.app.track import Tracker
from pipnet.errors import UserError
from pipnet.landmarker import Face, Landmarker, LandmarkNet
from pipnet.pose import head_pose, pose_points

OUTPUT = Path("output")  # where things are saved that nobody gave a place
KEYS = "q or Esc: quit, s: save this picture, d: draw edges, points, numbers or nothing, m: mirror, space: pause, next picture"
DETECTORS = ("faceboxes", "rfb320", "mtcnn", "yunet")


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog=Path(sys.argv[0]).name, description=__doc__, epilog=f"In the window, {KEYS}.")
    add = parser.add_argument
    add("--source", default="0", help="picture, folder of pictures, video, address (rtsp://...) or number of a camera (0)")
    add("--save", metavar="FILE", type=Path, help="draw to this picture or video (.mp4, .avi, ...), or folder, from a folder")
    add("--json", metavar="FILE", help="write a line of JSON a frame to this file; - is the terminal")
    add("--exp", metavar="EXP", help="landmark net: .onnx, .pt, or the id of a run; without: the one that comes with the project")
    add("--detector", choices=DETECTORS, help="another face detector than ours; needs --detector-weights")
    add("--detector-weights", metavar="FILE", help="its file; without --detector a FaceBoxesV2: .onnx or .pt of ours, or .pth")
    add("--detector-scale", metavar="X", type=float, help="resize pictures by this for the detector: 2 finds smaller faces; "
        "without: a short side above 600 px is shrunk to that")
    add("--threshold", metavar="SCORE", type=float, help="least score of a face; without: the detector's own")
    add("--max-faces", metavar="N", type=int, help="the N largest faces; without: all")
    add("--detect-every", metavar="K", type=int, default=10, help="videos: run the detector every K frames (10), track between")
    add("--smooth", choices=("one-euro", "flow", "none"), default="one-euro",
        help="videos: how landmarks are kept still (one-euro)")
    add("--pose", action="store_true", help="pitch, yaw and roll of the head")
    add("--drowsiness", action="store_true", help="videos: eye aspect ratios, blinks, yawns, time with closed eyes, alarm")
    add("--threads", metavar="N", type=int, default=0, help="CPU threads of each net; 0, as without: all cores")
    args = parser.parse_args(argv)
    if args.detect_every < 1:
        raise UserError(f"--detect-every is a number of frames, at least 1, not {args.detect_every}")
    if args.threads < 0:
        raise UserError(f"--threads is a number of threads, or 0 for all cores, not {args.threads}")
    if args.detector and not args.detector_weights:
        raise UserError(f"--detector {args.detector} needs the file of its weights: --detector-weights")
    return args


def make_landmarker(args: argparse.Namespace, find_net: Callable | None, find_detector: Callable | None) -> Landmarker:
    """The landmarker that the command line asks for. The two functions know the nets that need torch, where that is there."""
    net, detector, file = args.exp, None, args.detector_weights
    if net is not None and not net.endswith(".onnx"):
        if find_net is None:
            raise UserError(f"--exp {net}: this command takes .onnx files; runs and .pt files are for demo.py of the checkout")
        net = find_net(net, args.threads)
    name = args.detector or "faceboxes"
    if file and not (name == "faceboxes" and file.endswith(".onnx")):
        if find_detector is None:
            raise UserError(f"{name} of {file} is for demo.py of the checkout, which has torch; this command takes detectors "
                            "of ours, .onnx")
        detector = find_detector(name, file, args.threshold, args.detector_scale, args.threads)
    return Landmarker(net, detector, file, args.threshold, args.detector_scale, args.max_faces, args.threads)


class Work:
    """Turns frames into faces: pictures one by one with two looks at each face, videos by tracking."""

    def __init__(self, args: argparse.Namespace, landmarker: Landmarker, still: bool):
        self.landmarker, self.pose, self.still = landmarker, args.pose, still
        if args.pose:
            pose_points(landmarker.layout)  # says now what the layout lacks
        if args.drowsiness and still:
            raise UserError("--drowsiness needs a video or a camera: blinks and closed eyes are a matter of time")
        self.tracker = None if still else Tracker(landmarker, args.detect_every, args.smooth, args.max_faces)
        self.drowsiness = Drowsiness(landmarker.layout) if args.drowsiness else None

    def __call__(self, frame: media.Frame) -> list[Face]:
        image = frame.image
        faces = self.landmarker(image) if self.still else self.tracker.update(image, frame.seconds)
        if self.drowsiness:
            faces = [face._replace(drowsiness=self.drowsiness.update(face.id, face.landmarks, frame.seconds)) for face in faces]
        if self.pose:
            height, width = image.shape[:2]
            faces = [face._replace(pose=np.array(head_pose(face.landmarks, self.landmarker.layout, width, height)))
                     for face in faces]
        return faces


def json_line(frame: media.Frame, faces: list[Face]) -> str:
    """One frame as a line; px are rounded to hundredths, what is not known is null."""
    height, width = frame.image.shape[:2]
    return json.dumps({"frame": frame.index, "time": rounded(frame.seconds, 4), "file": frame.name,
                       "width": width, "height": height, "faces": [face_values(face) for face in faces]})


def face_values(face: Face) -> dict:
    """Plain values of a face."""
    values = {"id": face.id, "box": rounded(face.box, 2), "score": rounded(face.score, 4),
              "landmarks": rounded(face.landmarks, 2), "landmark_scores": rounded(face.scores, 3),
              "sigma": rounded(face.sigma, 3), "pose": rounded(face.pose, 2)}
    return values | {key: rounded(value, 4) for key, value in (face.drowsiness or {}).items()}


def rounded(value, digits: int):
    """Numbers of arrays, lists and dicts as plain ones; what is not finite is None."""
    if isinstance(value, dict):
        return {key: rounded(one, digits) for key, one in value.items()}
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        return [rounded(one, digits) for one in value]
    if isinstance(value, (float, np.floating)):
        return round(float(value), digits) if np.isfinite(value) else None
    return value.item() if isinstance(value, np.generic) else value


def has_display() -> bool:
    """Whether a window can be opened; asked in a process of its own, since OpenCV's window library ends the one that fails."""
    if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return False
    try:
        return subprocess.run([sys.executable, "-c", "import cv2; cv2.namedWindow('pipnet')"], capture_output=True,
                              timeout=20).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


class Window:
    """Shows pictures and obeys keys. `style` is how to draw."""

    def __init__(self, still: bool):
        self.title, self.still, self.style, self.mirrored = "PIPNet", still, 0, False
        cv2.namedWindow(self.title, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO)
        self._sized, self._offset = False, -np.inf

    def show(self, image: np.ndarray, seconds: float, redraw: Callable[[str], np.ndarray], name: str) -> bool:
        """Until a frame of that time is due (a still picture: until a key); False to quit. redraw(style) draws anew."""
        paused, now = self.still, time.monotonic()
        self._offset = max(self._offset, now - seconds)  # later after a pause, or where drawing is slower than the video
        wait = max(1, int(1000 * (seconds + self._offset - now)))
        while True:
            if not self._sized:
                scale = min(1.0, 1280 / image.shape[1], 800 / image.shape[0])
                cv2.resizeWindow(self.title, max(1, int(image.shape[1] * scale)), max(1, int(image.shape[0] * scale)))
                self._sized = True
            cv2.imshow(self.title, cv2.flip(image, 1) if self.mirrored else image)
            key = cv2.waitKey(30 if paused else wait) & 0xFF
            if key in (ord("q"), 27) or cv2.getWindowProperty(self.title, cv2.WND_PROP_VISIBLE) < 1:
                return False
            if key == ord("s"):
                file = OUTPUT / f"{name}.png"
                media.made_for(file)
                with media.writing(file):
                    media.write_image(file, image)
                tqdm.write(f"saved {file}", file=sys.stderr)
            elif key == ord("d"):
                self.style = (self.style + 1) % len(STYLES)
                image = redraw(STYLES[self.style])
            elif key == ord("m"):
                self.mirrored = not self.mirrored
            elif key == ord(" "):
                paused = not paused
                if self.still:
                    return True
            if not paused:
                return True


class Output:
    """All that frames go to: a window, a picture or video, lines of JSON. Nothing is made before the first frame is done."""

    def __init__(self, args: argparse.Namespace, source: media.Source, layout):
        self.source, self.layout, self.panel, self.json = source, layout, Panel(), args.json
        self._lines = None
        shows = source.live or not (args.save or args.json)  # a file that is to be converted needs no window
        self.window = Window(source.still) if shows and has_display() else None
        self.sink, target = None, args.save
        if target is None and self.window is None and not args.json:
            target = self._usual()
        self._check(args, [Path(one) for one in (target, args.json) if one is not None])
        if target is not None:
            folder = source.still and source.folder is not None
            self.sink = media.PictureSink(target, folder) if source.still else media.VideoSink(target, source.fps, source.live)
        self.faces = self.frames = 0

    def _usual(self) -> Path:
        if not self.source.still:
            return OUTPUT / f"{self.source.name}.mp4"
        return OUTPUT / self.source.name

    def _check(self, args: argparse.Namespace, targets: list[Path]) -> None:
        """Neither the source nor one by the other is to be written over."""
        if len({os.path.abspath(target) for target in targets}) < len(targets):
            raise UserError(f"--save and --json are both {args.json}; give one of them another name")
        for target in targets:
            if target.exists() and os.path.exists(args.source) and os.path.samefile(args.source, target):
                raise UserError(f"{target} is the source itself; give --save or --json another place")

    def drawn(self, frame: media.Frame, faces: list[Face], style: str) -> np.ndarray:
        """The frame with all that is drawn on it."""
        once = self.source.still and self.window is None  # a large picture is not needed twice
        image = frame.image if once else frame.image.copy()
        if not self.source.still and style != "nothing":
            self.panel.draw(image, len(faces))
        draw_faces(image, faces, self.layout, style)
        alarm(image, faces)
        return image

    def add(self, frame: media.Frame, faces: list[Face], stages: dict[str, float], whole: float) -> bool:
        """One frame to everything; False when the window says stop. Its times go to the panel of the next one."""
        start = time.perf_counter()
        self.frames, self.faces = self.frames + 1, self.faces + len(faces)
        if self.json:
            self._write_line(json_line(frame, faces))
        goes_on = True
        if self.window or self.sink:
            image = self.drawn(frame, faces, STYLES[self.window.style if self.window else 0])
            drawn = time.perf_counter()
            if self.sink:
                self.sink.write(frame, image)
            saved = time.perf_counter()
            if self.window:
                name = f"{Path(frame.name).stem}" + ("" if self.source.still else f"_{frame.index:06d}")
                due = 0.0 if self.source.still or self.source.live else frame.seconds
                goes_on = self.window.show(image, due, lambda style: self.drawn(frame, faces, style), name)
            stages = stages | {"draw": drawn - start} | ({"save": saved - drawn} if self.sink else {})
        self.panel.update(stages, whole + time.perf_counter() - start)
        return goes_on

    def _write_line(self, text: str) -> None:
        if self.json == "-":
            print(text, flush=True)
            return
        with media.writing(self.json):
            if self._lines is None:
                media.made_for(Path(self.json))
                self._lines = open(self.json, "w", encoding="utf-8", buffering=1)
            self._lines.write(text + "\n")

    def close(self) -> None:
        """Ends the files and says where they are."""
        if self.window:
            cv2.destroyAllWindows()
        try:
            if self._lines:
                with media.writing(self.json):
                    self._lines.close()
        finally:  # neither file may cost the other its end
            if self.sink:
                self.sink.close()

    def summary(self) -> str:
        """What was found and where it is."""
        kept = [str(self.sink.target)] if self.sink and self.sink.written else []
        kept += [str(self.json)] if self.json and self.json != "-" and self._lines else []
        unit = ("picture" if self.source.still else "frame") + "s" * (self.frames != 1)
        found = f"{self.faces} face{'s' * (self.faces != 1)} in {self.frames} {unit}"
        speed = "" if self.source.still else f", {self.panel.fps:.0f} frames/s"
        return f"{found}{speed}" + (f"; saved {' and '.join(kept)}" if kept else "")


def watch(work: Work, source: media.Source, output: Output) -> None:
    """The loop: frame -> faces -> window, video, JSON. A first Ctrl-C ends it after the frame that is begun."""
    seconds, stopped = work.landmarker.seconds, []

    def stop(number, stack) -> None:
        source.close()
        if stopped:
            raise KeyboardInterrupt
        stopped.append(number)

    before = [signal.signal(one, stop) for one in (signal.SIGINT, signal.SIGTERM)]
    try:
        with tqdm(total=source.count, unit=" pictures" if source.still else " frames", disable=source.live or source.count == 1,
                  mininterval=0.5 if sys.stderr.isatty() else 60) as bar:
            start = time.perf_counter()
            for frame in source:
                got, known = time.perf_counter(), dict(seconds)
                faces = work(frame)
                done = time.perf_counter()
                stages = {"decode": got - start, **{name: seconds[name] - known[name] for name in seconds}}
                stages["track"] = done - got - stages["detect"] - stages["landmarks"]
                goes_on = output.add(frame, faces, stages, done - start)
                bar.update()
                start = time.perf_counter()
                if not goes_on:
                    return
    finally:
        for one, handler in zip((signal.SIGINT, signal.SIGTERM), before, strict=True):
            signal.signal(one, handler)
    if stopped:
        raise KeyboardInterrupt


def main(argv: list[str] | None, find_net: Callable[[str, int], LandmarkNet] | None = None,
         find_detector: Callable | None = None) -> None:
    """Runs the command. find_net and find_detector are those of demo.py in the checkout. UserError."""
    media.quiet()
    args = parse(argv)
    source = media.open_source(args.source)
    with ExitStack() as stack:
        stack.callback(source.close)
        landmarker = make_landmarker(args, find_net, find_detector)
        output = Output(args, source, landmarker.layout)
        stack.callback(output.close)
        work = Work(args, landmarker, source.still)
        if output.window:
            print(KEYS, file=sys.stderr)
        try:
            watch(work, source, output)
        finally:
            before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C must not leave the video without its end
            stack.close()
            signal.signal(signal.SIGINT, before)
            if output.frames:
                print(output.summary(), file=sys.stderr)


def command(argv: list[str] | None = None, **finders) -> None:
    """`main`, and what comes of it as exit status: errors are one line."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a polite kill is a Ctrl-C
    try:
        main(argv, **finders)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # whoever read the lines has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
