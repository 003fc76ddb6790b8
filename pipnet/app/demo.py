"""Find faces and their landmarks in pictures, videos and cameras; show them, save them, write them as JSON."""

import argparse
import signal
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from tqdm import tqdm

from pipnet import __version__
from pipnet.app.flags import Parser, add_face_flags, check_flags
from pipnet.app.output import KEYS, OUTPUT, Lines, Output, check_targets
from pipnet.app.web import WEB, Options, serve
from pipnet.console import open_console
from pipnet.detector import DETECTORS, Detector, shipped_weights
from pipnet.errors import UserError, tell
from pipnet.files import LANDMARK_NETS, OPEN, SHIPPED
from pipnet.landmarker import Landmarker
from pipnet.runtimes import MOST_THREADS
from pipnet.session import shipped_onnx
from pipnet.stop import SIGNALS, answer, end_when_stuck
from pipnet.video.smooth import SMOOTH
from pipnet.video.sources import open_sources, silence_opencv
from pipnet.video.stream import Faces


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Return the values of the command line."""
    name = Path(sys.argv[0]).name
    parser = Parser(
        prog="python -m pipnet" if name == "__main__.py" else name,
        description=__doc__,
        epilog=f"Keys in the window: {KEYS}.",
    )
    add = parser.add_argument
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
        f"nothing leaves the machine; goes with {', '.join(map(_flag, WEB))}",
    )
    add("--port", metavar="N", type=int, help="port of --web (default: 8000)")
    args = parser.parse_intermixed_args(argv)  # places may stand between the flags
    args.places = args.places or None
    given = {name for name, value in vars(args).items() if value != parser.get_default(name)}
    if args.web and (wrong := sorted(given - {"web", *WEB})):
        raise UserError(
            f"--web goes with {', '.join(map(_flag, WEB))}; leave "
            f"{args.places[0] if wrong[0] == 'places' else _flag(wrong[0])} out"
        )
    if args.places:
        if args.source:
            raise UserError(f"{args.places[0]} and --source {args.source[0]} are two sources; name all in one of them")
        args.source = args.places
    check_flags(vars(args) | {"places": None})
    if not args.source and isinstance(args.save, str) and Path(args.save).is_file():
        raise UserError(f"--save {args.save} is the file to write, and no picture is named: give {args.save} --save")
    args.source = args.source or ["0"]
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
    return args


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def process(faces_of: Faces, seconds: dict[str, float], output: Output) -> bool:
    """Send all frames with their faces to the output. Return False when the user quits.

    seconds: those that the landmarker has spent, by stage.

    The first Ctrl-C or SIGTERM stops after the current frame and raises KeyboardInterrupt(number) then; the second at
    once.
    """
    source, stopped, goes_on = output.source, 0, True

    def stop(number, stack) -> None:
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


def _interrupt(number, _) -> None:
    raise KeyboardInterrupt(number)


def _net(args: argparse.Namespace, int8: bool | None) -> Path | str:
    """Return the landmark net that --exp means. int8: which file of a shipped one without --int8, see `shipped_onnx`."""
    name = args.exp or SHIPPED[0]
    return shipped_onnx(name, int8 if args.int8 is None else args.int8) if name in SHIPPED else name


def main(argv: list[str] | None = None) -> None:
    """Run the command. UserError for whatever cannot be done."""
    silence_opencv()
    args = parse(argv)
    if args.web:
        weights = args.detector_weights and Path(args.detector_weights)
        landmarks, int8 = (Path(_net(args, bits)) for bits in (False, True))
        serve(
            Options(
                landmarks,
                int8 if int8 != landmarks else None,
                weights,
                **{name: getattr(args, name) for name in WEB if name in Options._fields},
            ),
            8000 if args.port is None else args.port,
        )
        return
    sources = open_sources(args.source)
    with ExitStack() as stack:
        for source in sources:
            stack.callback(source.close)
        weights = args.detector_weights or shipped_weights(args.detector, args.int8, OPEN.get(args.exp))
        detector = Detector(args.detector, weights, None, None, args.detector_scale, args.threads)
        landmarker = Landmarker(
            _net(args, None),
            detector,
            args.max_faces,
            args.threads,
            not args.upright,
            finder="none" if args.exp in OPEN else shipped_onnx("finder", args.int8),
            layout=args.layout,
            threshold=args.threshold,
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
