"""The life of a net: prepare data, train, test, export. `python main.py --help` lists and explains every flag."""
import sys

from utils.start import ROOT, begin_loading, end_loading, run_command, stop_without

if __name__ == "__main__":
    begin_loading()
try:
    from pipnet import __version__
    from pipnet.app.flags import FACES, add_face_flags
    from pipnet.errors import UserError, printable
    from pipnet.files import SHIPPED, read_csv
    from utils.config import check_files, parse, read_defaults
    from utils.faces.paths import check_sets
    from utils.formats import EXPORTS, TESTED, lacking
    from utils.keys import check_prediction
except ImportError as missing:
    stop_without(missing)

from argparse import ArgumentParser, Namespace
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple


class Mode(NamedTuple):
    """Which modes go with one. needs: one of these must be given too; excludes: none of these; says: the message if not."""

    needs: tuple[str, ...]
    excludes: tuple[str, ...]
    says: str


TESTS = ("test", "test_onnx", "test_formats")
TABLES = {"train": "step.csv", "audit": "audit/labels.csv", "scores": "report/scores.csv", "groups": "report/groups.csv",
          "formats": "report/formats.csv"}  # figures that a run's folder keeps
WORK = ("prepare", "train", *TESTS, "export", "show_data", "audit", "predict")
MODES = {  # checked in this order
    "list_nets": Mode((), (*WORK, "sweep", "resume", "overwrite"), "--list-nets only lists; leave the other modes out"),
    "predict": Mode((), ("sweep", "audit"), "--predict uses one trained net; leave --sweep and --audit out"),
    "predict_format": Mode(("predict",), (), "--predict-format is the format of --predict; give that too"),
    **{name: Mode(("predict",), (), f"--{name.replace('_', '-')} is for --predict; give that too") for name in FACES},
    "compare": Mode(TESTS, ("sweep",),
                    "--compare is for the report of a test; give --test with it, and no --sweep"),
    "resume": Mode(("train", "audit"), (), "--resume says how to --train; give that too"),
    "overwrite": Mode(("train", "audit", "predict", "prepare", "export"), (), "--overwrite says how to --train; give that too"),
    "audit": Mode((), ("train", *TESTS, "export", "sweep"),
                  "--audit trains nets of its own; leave --train, --test, --sweep out"),
    "sweep": Mode(("train",), ("show_data", "export", "test_formats"),
                  "--sweep goes with --train, and with --test or --test-onnx; leave other modes out"),
}


def add_modes(parser: ArgumentParser) -> None:
    """Add the flags that are not keys of args.yaml."""
    add = parser.add_argument_group("modes").add_argument
    add("--version", action="version", version=f"pipnet {__version__}")
    add("--prepare", action="store_true", help="write data/NAME from the raw archive (also done on first use)")
    add("--train", action="store_true", help="train a net in weights/EXP")
    add("--test", action="store_true", help="NME, failure rate and area under the curve on the test sets")
    add("--test-onnx", action="store_true", help="export the net if necessary, test the ONNX file, fail if it differs from torch")
    add("--export", metavar="FORMAT", nargs="+", choices=EXPORTS, action="extend", default=[],
        help=f"write the net for other runtimes: {', '.join(TESTED)}; pipeline: one ONNX file that takes a picture and returns "
             "its faces; web: a page for the browser")
    add("--export-raw", dest="export", action="append_const", const="raw", help="write an ONNX file that returns the head's maps")
    add("--test-formats", metavar="FORMAT", nargs="+", choices=TESTED, default=[],
        help="export these formats if necessary, test them, measure their time; fail if one differs from torch by more than its "
             "bound")
    add("--show-data", metavar="N", type=int, help="draw N augmented training faces, and list suspicious labels")
    add("--sweep", metavar="KEY=A,B,C", action="append",
        help="--train (and test) once with each value of this key; given several times: with each combination")
    add("--audit", action="store_true",
        help="find wrong labels: compare training faces with nets that were not trained on them; into weights/EXP/audit")
    add("--predict", metavar="PATH",
        help="write the landmarks of a picture, or of all pictures in a folder, most uncertain first, as .pts, CSV or COCO")
    add("--list-nets", metavar="NET", nargs="*",
        help="print the backbones with size, cost and published NME; with names: measure these on this machine")
    add = parser.add_argument_group("run").add_argument
    add("--exp", metavar="EXP",
        help=f"id (018), folder, file (.pt, .onnx, a published one) or shipped net ({', '.join(SHIPPED)}); default: the next "
             f"free id for a training, the newest run for tests, {SHIPPED[0]} for --predict")
    add("--resume", action="store_true", help="continue from the last whole checkpoint of that run")
    add("--overwrite", action="store_true",
        help="replace that run, what --predict or --export web has written, or a prepared set whose archive is gone")
    add("--out", metavar="PATH",
        help="for --predict: a folder for .pts, or a file .csv or .json (COCO); default: in weights/EXP/predicted. For --export "
             "web: the folder of the page; default: weights/EXP/web")
    add("--predict-format", metavar="FORMAT", help="pts, csv or coco; default: by the ending of --out")
    add_face_flags(add, "for --predict 32")
    add("--compare", metavar="RUN", nargs="+", default=[],
        help="show these runs, tested on the same faces, beside this one in the test's table and report")


def check_modes(mode: Namespace) -> None:
    """Raise UserError for modes that do not go together."""
    given = {name for name, value in vars(mode).items() if value is not None and value is not False and value != []}
    if mode.list_nets is not None:
        given.add("list_nets")  # without names it is an empty list
    if not given & {*WORK, "list_nets"}:
        raise UserError("nothing to do: give --train, --test, --test-onnx, --predict PATH, --prepare, --show-data N, --audit or "
                        "--list-nets (--help explains them)")
    if mode.show_data is not None and mode.show_data < 1:
        raise UserError(f"--show-data needs the number of faces to draw, at least 1, not {mode.show_data}")
    for name, rule in MODES.items():
        if name in given and (rule.needs and not given & set(rule.needs) or given & set(rule.excludes)):
            raise UserError(rule.says)
    if mode.out and bool(mode.predict) == ("web" in mode.export):
        raise UserError("--out says where the landmarks of --predict or the page of --export web go; give one of these")
    if mode.audit and mode.resume and not mode.exp:
        raise UserError("--audit --resume needs the name of the audit: --exp")


def main(argv: list[str]) -> dict[str, list[dict]]:
    """Run the modes on the command line: prepare, show, train, test, predict.

    Return the figures that they print, {table: its rows}; none in processes other than the first.
    """
    defaults = read_defaults()
    mode, given = parse(argv, add_modes, defaults)
    check_modes(mode)
    if mode.predict and not any(getattr(mode, name) for name in WORK if name != "predict"):
        check_prediction(given)
    check_files({**given, **{name: getattr(mode, name) for name in ("exp", "predict", "out", "compare")}})
    check_sets(given, defaults)
    if mode.train and (missing := lacking([*mode.export, *mode.test_formats, *["onnx"] * mode.test_onnx])):
        stop_without(ModuleNotFoundError(name=missing))
    try:  # torch takes seconds to load, so the flags are checked before
        from loguru import logger
        from tqdm import tqdm

        from pipnet.app.web import check_page
        from utils.evaluate.tables import figures
        from utils.locks import LOG
        from utils.tasks import task_class
        from utils.tasks.settings import read_settings
        from utils.tools import audit, predict, rounds, sweep, zoo
        from utils.tools.run_tests import run_tests
        from utils.train import own_files, run_folder
        from utils.train.ranks import keep_memory, set_threads, start_ranks
    except ImportError as missing:
        stop_without(missing)
    end_loading()
    if mode.list_nets is not None:
        text, nets = zoo.list_nets(mode.list_nets)
        print(text)
        return {"nets": nets}
    if mode.sweep:
        return {"sweep": sweep.sweep(mode, given, defaults)}
    ranks = start_ranks(given.get("rank_timeout", defaults.values["rank_timeout"]))
    root = Path(ROOT) / given.get("run_root", defaults.values["run_root"])
    trains, tests = mode.train or mode.audit, any(getattr(mode, name) for name in TESTS)
    needed = trains or tests or mode.export or mode.predict or mode.show_data and mode.exp
    exp = mode.exp or (None if trains or tests or mode.export else SHIPPED[0])
    run = ranks.agree(lambda: run_folder.find(exp, root, trains, mode.resume)) if needed else None
    if run and given.keys() & {"dataset", "data_dir", "train_data"}:  # faces that calibrate 8-bit numbers anew
        run = run._replace(given=tuple(file for file in run.given if file == run.fastest))
    compare = ranks.agree(lambda: [run_folder.find(other, root, False) for other in mode.compare])
    # the run whose files tell how far a training has come
    progress = audit.fold_runs(run, 1)[0] if mode.audit else rounds.begun(run) if trains else run

    def check_folder() -> None:
        if not mode.resume:
            own_files.check_place(run.folder, [Path(ROOT), root], audit.MARKS if mode.audit else own_files.MARKS)
        run_folder.check_free(progress, mode.resume, mode.overwrite)

    def target_of(folder: Path) -> tuple[Path, str]:
        place = folder / "predicted" / Path(mode.predict).resolve().stem
        return predict.check_out(mode.out, mode.predict_format, place, mode.overwrite)

    if trains:
        run_folder.continue_after_restart(mode, progress)
        ranks.agree(check_folder)
    settings = read_settings(given, mode, progress, defaults)
    kind = task_class(settings.train.task)
    for name, says in kind.excludes.items():
        if getattr(mode, name):
            raise UserError(says)
    if mode.audit:
        audit.check(run, settings.train)
    if mode.out and "web" in mode.export:
        check_page(Path(mode.out), mode.overwrite)
    if mode.predict:
        target_of(run.folder)
    logger.remove()
    logger.configure(patcher=lambda record: record.update(message=printable(record["message"])))
    if ranks.first:
        logger.add(lambda line: tqdm.write(line, end="", file=sys.stderr), format="{time:HH:mm:ss} {message}", level="INFO")
    printed: dict[str, list[dict]] = {}
    with ExitStack() as held:
        held.enter_context(ranks.connected())
        writes = run and (trains or tests or mode.export or mode.show_data or not mode.out)  # else only --out is written to
        if writes:  # before anything is made, so that no other run takes the folder meanwhile
            new = trains and not (mode.exp or mode.resume)
            run = ranks.agree(lambda: held.enter_context(run_folder.hold(run, new)))
        if writes and ranks.first:
            if trains and not new:
                check_folder()
            own_files.tidy(run.folder)
            logger.add(run_folder.log_to(run.folder / LOG), format="{time:YYYY-MM-DD HH:mm:ss} {level} {message}")
        set_threads(settings.train.threads, settings.train.deterministic)
        keep_memory()
        task = kind(settings, defaults, ranks)
        task.sets.overwrite = mode.overwrite
        if trains:
            logger.info(f"training on {', '.join(settings.data.train_data)}")
        calibrates = "int8" in {*mode.export, *mode.test_formats} and not (trains or run.has("int8"))
        if mode.prepare or trains or mode.show_data or calibrates:
            task.prepare()
        if tests or mode.train and settings.data.val == "test" or mode.prepare and settings.data.test_data:
            task.prepare_tests()  # before the training, so that a test set that cannot be used is found now
        if mode.show_data:
            text = task.show(mode.show_data, run)
            if ranks.first:
                print(text)
        if mode.train:
            task.train(run, mode.resume)
        if mode.audit:
            audit.audit(task.with_fold, run, ranks, mode.resume)
        if mode.export:
            logger.info(ranks.agree(lambda: task.tests(run, compare).export(mode.export, mode.out, mode.overwrite)))
        if tests:
            formats = mode.test_formats or ["onnx"] * mode.test_onnx
            run_tests(task.tests(run, compare), ranks, formats, bool(mode.test_formats))
        if mode.predict and ranks.first:
            text, printed["predict"] = predict.run_prediction(exp, run.fastest, target_of(run.folder), mode, settings)
            print(text)
        shown = {"train": mode.train, "audit": mode.audit, "scores": tests, "groups": tests, "formats": mode.test_formats}
        for name, file in TABLES.items():
            if shown[name] and ranks.first:
                printed[name] = figures(read_csv(run.folder / file))
        return printed


if __name__ == "__main__":
    run_command(main)
