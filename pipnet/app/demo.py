"""Find faces and their landmarks in pictures, videos and cameras; show them, save them, write them as JSON."""

import argparse
import signal
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from tqdm import tqdm

from pipnet import __version__
from pipnet.app.output import KEYS, OUTPUT, Lines, Output, check_targets
from pipnet.app.web import WEB, Options, serve
from pipnet.bounds import MOST_THREADS
from pipnet.console import open_console
from pipnet.detector import DETECTORS, Detector
from pipnet.errors import UserError, tell
from pipnet.flags import Add, Parser, add_face_flags, check_flags, flag
from pipnet.landmarker import Landmarker
from pipnet.shipped import LANDMARK_NETS, OPEN, SHIPPED, shipped_onnx
from pipnet.stop import SIGNALS, answer, end_when_stuck
from pipnet.video.smooth import SMOOTH
from pipnet.video.sources import open_sources, silence_opencv
from pipnet.video.stream import Faces

PAGE_NETS = "landmarks", "landmarks-fast", "landmarks-open"  # which the user of --web can choose


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Return the values of the command line."""
    name = Path(sys.argv[0]).name
    parser = Parser(
        prog="python -m pipnet" if name == "__main__.py" else name,
        description=__doc__,
        epilog=f"Keys in the window: {KEYS}.",
    )
    _add_places(parser.add_argument)
    _add_nets(parser.add_argument)
    _add_measures(parser.add_argument)
    args = parser.parse_intermixed_args(argv)  # places may stand between the flags
    given = {name for name, value in vars(args).items() if value not in (parser.get_default(name), [])}
    if args.web and (wrong := sorted(given - {"web", *WEB})):
        what = args.places[0] if wrong[0] == "places" else flag(wrong[0])
        raise UserError(f"--web goes with {', '.join(map(flag, WEB))}; leave {what} out")
    if args.places and args.source:
        raise UserError(f"{args.places[0]} and --source {args.source[0]} are two sources; name all in one of them")
    args.source = args.places or args.source
    check_flags({**vars(args), "places": None})
    _check(args)
    args.source = args.source or ["0"]
    return args


def _check(args: argparse.Namespace) -> None:
    """Raise UserError for values that do not fit."""
    if not args.source and isinstance(args.save, str) and Path(args.save).is_file():
        raise UserError(f"--save {args.save} is the file to write, and no picture is named: give {args.save} --save")
    if args.port is not None and not args.web:
        raise UserError("--port is the port of --web; give that too")
    if args.overwrite and not (args.save or args.json):
        raise UserError("--overwrite is for the files of --save and --json; give one of them too")
    if args.detect_every < 1:
        raise UserError(f"--detect-every is a number of frames, at least 1, not {args.detect_every}")
    if not 0 <= args.threads <= MOST_THREADS:
        raise UserError(
            f"--threads is a number of threads up to {MOST_THREADS}, or 0 for all cores, not {args.threads}"
        )
    if args.save == "-":
        raise UserError("--save - : pictures and videos are not written to the terminal; name a file or a folder")


def _add_places(add: Add) -> None:
    """Add the flags of what is read and written with `add`, a parser's add_argument."""
    add("places", metavar="SOURCE", nargs="*", help="the same as --source")
    add("--version", action="version", version=f"pipnet {__version__}")
    add(
        "--source",
        nargs="+",
        help="picture, folder (with its subfolders), video, pattern ('clips/*.mp4'), address (https://..., rtsp://...) or "
        "camera, by number or device file (default: camera 0); several may be named",
    )
    add(
        "--save",
        metavar="FILE",
        nargs="?",
        const=True,
        help="save the drawn picture or video (.mp4, .avi, ...); if FILE is a folder, under the name of the source; "
        f"without FILE in {OUTPUT}/, under a free name",
    )
    add("--json", metavar="FILE", help="write a line of JSON per frame to this file, or to the terminal (-)")
    add("--overwrite", action="store_true", help="replace existing files that --save and --json name")


def _add_nets(add: Add) -> None:
    """Add the flags of the nets."""
    add(
        "--exp",
        metavar="EXP",
        help=f"landmark net: one that comes with the project ({', '.join(LANDMARK_NETS)}), an exported "
        f"file, or in the checkout what main.py --exp takes (default: {SHIPPED[0]})",
    )
    add(
        "--layout",
        metavar="NAME",
        help="layout to find, or a training set that has it, if the net has learnt several "
        "(default: that of its first training set)",
    )
    add("--detector", choices=tuple(DETECTORS), default="faceboxes", help="kind of face detector (default: faceboxes)")
    add(
        "--detector-weights",
        metavar="FILE",
        help="file of the detector (faceboxes: .onnx, or .pt and .pth in the checkout; "
        "default: the one that comes with the project)",
    )
    add_face_flags(add, "8 on a CPU, where they are about twice as fast")


def _add_measures(add: Add) -> None:
    """Add the flags of videos, of what is measured in a face, and of the page."""
    add(
        "--detect-every",
        metavar="K",
        type=int,
        default=10,
        help="videos: run the detector every K frames and track faces between (default: 10)",
    )
    add(
        "--smooth",
        choices=SMOOTH,
        default="one-euro",
        help="videos: filter that smooths the landmarks (default: one-euro)",
    )
    add(
        "--pose",
        action="store_true",
        help="add pitch, yaw and roll of the head, also for nets that do not predict them",
    )
    add(
        "--drowsiness",
        action="store_true",
        help="videos: add eye aspect ratios, blinks, yawns, time with closed eyes, alarms",
    )
    add("--threads", metavar="N", type=int, default=0, help="CPU threads of each net (default: 0, all cores)")
    add(
        "--web",
        action="store_true",
        help="serve a page for the browser on this machine, for camera, pictures and videos; "
        f"nothing leaves the machine; goes with {', '.join(map(flag, WEB))}",
    )
    add("--port", metavar="N", type=int, help="port of --web (default: 8000)")


def process(faces_of: Faces, seconds: dict[str, float], output: Output) -> bool:
    """Send all frames with their faces to the output. Return False when the user quits.

    seconds: those that the landmarker has spent, by stage.

    The first Ctrl-C or SIGTERM stops after the current frame and raises KeyboardInterrupt(number) then; the second at
    once.
    """
    source, stopped, goes_on = output.source, 0, True

    def stop(number: int, stack: object) -> None:
        nonlocal stopped
        answer()
        source.close()
        if stopped:
            _interrupt(number, stack)
        stopped = number

    before = [signal.signal(number, stop) for number in SIGNALS]
    try:
        with tqdm(
            total=source.count,
            unit=" pictures" if source.still else " frames",
            disable=source.live or source.count == 1,
            mininterval=0.5 if sys.stderr.isatty() else 60,
        ) as bar:
            start, earlier = time.perf_counter(), dict(seconds)
            for frame, faces in faces_of:
                stages = {name: seconds[name] - earlier[name] for name in seconds}
                goes_on = output.add(frame, faces, stages, time.perf_counter() - start)
                bar.update()
                start, earlier = time.perf_counter(), dict(seconds)
                if stopped or not goes_on:
                    break
    finally:
        for number, handler in zip(SIGNALS, before, strict=True):
            signal.signal(number, handler)
    if stopped:
        raise KeyboardInterrupt(stopped)
    return goes_on


def _interrupt(number: int, _: object) -> None:
    raise KeyboardInterrupt(number)


def _page(name: str, args: argparse.Namespace) -> Options:
    """Return the options of the page with a landmark net: a shipped one by name, or a file."""
    detector = args.detector_weights or shipped_onnx(OPEN.get(name, "detector"), False)
    landmarks, int8 = (shipped_onnx(name, bits) if name in SHIPPED else Path(name) for bits in (False, True))
    values = {key: getattr(args, key) for key in WEB if key in Options._fields}
    return Options(landmarks, int8 if int8 != landmarks else None, Path(detector), **values)


def main(argv: list[str] | None = None) -> None:
    """Run the command. UserError for whatever cannot be done."""
    silence_opencv()
    args = parse(argv)
    if args.web:
        first = args.exp or SHIPPED[0]
        others = [name for name in PAGE_NETS if name != first and not args.layout]
        serve([_page(name, args) for name in (first, *others)], 8000 if args.port is None else args.port)
        return
    sources = open_sources(args.source)
    with ExitStack() as stack:
        for source in sources:
            stack.callback(source.close)
        weights = args.detector_weights or OPEN.get(args.exp)
        scale, threads, int8 = args.detector_scale, args.threads, args.int8
        landmarker = Landmarker(
            args.exp,
            Detector(args.detector, weights, scale=scale, threads=threads, int8=int8),
            args.max_faces,
            threads,
            not args.upright,
            layout=args.layout,
            threshold=args.threshold,
            int8=int8,
        )
        lines = Lines(args.json) if args.json else None
        if lines:
            stack.callback(lines.close)
        taken: set[Path] = set()
        outputs = [Output(args, source, landmarker.layout, lines, len(sources) > 1, taken) for source in sources]
        check_targets(args, outputs)
        options = args.detect_every, args.smooth, args.pose, args.drowsiness
        streams = [landmarker.stream(source, *options) for source in sources]
        for faces_of, output in zip(streams, outputs, strict=True):
            if not _run(faces_of, landmarker.seconds, output):
                break


def _run(faces_of: Faces, seconds: dict[str, float], output: Output) -> bool:
    """Process the source of an output, finish its files and tell what was found. Return False when the user quits."""
    output.open_window()
    try:
        return process(faces_of, seconds, output)
    finally:
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # a further Ctrl-C must not leave the video unfinished
        try:
            output.source.close()
            output.close()
        finally:
            signal.signal(signal.SIGINT, before)
        if output.frames:
            tell(output.summary())


def command(argv: list[str] | None = None) -> None:
    """Run `main` and exit as a command does: an error is one line and status 1."""
    open_console()
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _interrupt)  # stops as Ctrl-C does
    end_when_stuck(lambda: "\nstopped\n")
    try:
        try:
            main(argv)
        finally:
            sys.stdout.flush()
        _ignore_signals()  # one that has come meanwhile is raised here
    except UserError as error:
        tell(f"error: {error}")
        sys.exit(1)
    except KeyboardInterrupt as stopped:
        print("stopped", file=sys.stderr)
        sys.exit(128 + (stopped.args or SIGNALS)[0])
    finally:
        _ignore_signals()


def _ignore_signals() -> None:
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)  # nothing is left to stop
