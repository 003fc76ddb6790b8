"""The life of a landmark net: prepare data, train, test, export. `python main.py --help` lists and explains every flag."""
import os
import sys

ROOT = os.path.dirname(os.path.abspath(__file__))
if sys.version_info < (3, 11):
    sys.exit("PIPNet needs Python 3.11 to 3.13, not %d.%d: `bash main.sh 1 ...` looks for another" % sys.version_info[:2])
try:
    import numpy as np
    import torch
    from loguru import logger
    from tqdm import tqdm

    from nets import build_net
    from nets.stages.distillation import without_teacher
    from pipnet.errors import UserError
    from pipnet.files import write_text
    from pipnet.layout import Layout
    from utils.config import DEFAULT_FILE, dump, load_layout, parse, read_layout_file, read_yaml, resolve
    from utils.data import sets
    from utils.data.augment import Recipe
    from utils.data.dataset import Augmented, Faces, Order, train_loader
    from utils.data.face_states import agreement, balanced, complete
    from utils.data.label_weights import DISPUTED
    from utils.data.parsers import DATASETS
    from utils.data.prepared_set import load_meta
    from utils.tasks import detect
    from utils.test import boxes, export, page, report
    from utils.test.evaluate import across, evaluate, face_norms, flip_tested, torch_predictor
    from utils.tools import audit, sweep, zoo
    from utils.tools import predict as annotate
    from utils.tools.show import show
    from utils.train import checkpoint, solver
    from utils.train import initialise as finetune
    from utils.train import run_folder as run
    from utils.train.batchnorm import share_batch_norm
    from utils.train.loop import Job, fit
    from utils.train.ranks import Ranks, set_threads, start_ranks, worker_count
    from utils.train.teacher import checksums, taught
except ImportError as missing:
    if not isinstance(missing, ModuleNotFoundError):
        sys.exit("a package cannot be loaded: %s (cv2 without a desktop: pip install opencv-python-headless)" % missing)
    python = os.path.join(ROOT, ".venv", "bin", "python")
    if os.path.exists(python) and not sys.prefix.startswith(os.path.join(ROOT, ".venv")):
        os.execv(python, [python, *sys.argv])  # main.sh has made an environment
    sys.exit("the package '%s' is missing: `bash main.sh 1` followed by the same flags installs what is needed" % missing.name)

import time
from contextlib import ExitStack
from pathlib import Path

AGREEMENT = 0.01  # points of NME by which an export may differ from torch


def modes(parser) -> None:
    """The flags that are no keys of args.yaml."""
    group = parser.add_argument_group("modes")
    group.add_argument("--prepare", action="store_true", help="make data/NAME from the raw archive (also done on first use)")
    group.add_argument("--train", action="store_true", help="train a net in weights/EXP")
    group.add_argument("--test", action="store_true", help="NME, failure rate and area under the curve on the test sets")
    group.add_argument("--test-onnx", action="store_true", help="export if need be, test the ONNX file, fail if it differs")
    group.add_argument("--show-data", metavar="N", type=int,
                       help="draw N training faces as the net gets them, and look for wrong labels")
    group.add_argument("--sweep", metavar="KEY=A,B,C", action="append",
                       help="--train (and test) once with each value of that key; several times: with each combination")
    group.add_argument("--audit", action="store_true",
                       help="find wrong labels: nets judge training faces that they have not seen; in weights/EXP/audit")
    group.add_argument("--predict", metavar="PATH",
                       help="landmarks of a picture or of all in a folder, the most uncertain first, as .pts, CSV or COCO")
    group.add_argument("--list-nets", metavar="NET", nargs="*",
                       help="print the backbones: size, cost, published NME; with names: these, measured here")
    group = parser.add_argument_group("run")
    group.add_argument("--exp", metavar="EXP",
                       help="id (018), folder or file (.pt, .onnx); without: the next free id to train, else the newest run")
    group.add_argument("--resume", action="store_true", help="go on from the last whole checkpoint of that run")
    group.add_argument("--overwrite", action="store_true", help="replace that run")
    group.add_argument("--out", metavar="PATH",
                       help="of --predict: a folder for .pts, or a file .csv or .json (COCO); without: in weights/EXP/predicted")
    group.add_argument("--predict-format", metavar="FORMAT", help="pts, csv or coco; without: by the name of --out")
    group.add_argument("--compare", metavar="RUN", nargs="+", default=[],
                       help="runs that have been tested on the same faces: beside this one in the test's table and report")


def main(argv: list[str]) -> None:
    """Runs the modes on the command line, in the order prepare, show, train, test."""
    mode, given = parse(argv, modes)
    tests = mode.test or mode.test_onnx
    works = mode.prepare or mode.train or mode.audit or tests or mode.predict or mode.show_data is not None
    if mode.list_nets is not None and (works or mode.sweep or mode.resume or mode.overwrite):
        raise UserError("--list-nets only lists; leave the other modes out")
    if not works and mode.list_nets is None:
        raise UserError("nothing to do: give --train, --test, --test-onnx, --predict PATH, --prepare, --show-data N, --audit or "
                        "--list-nets (--help explains them)")
    if mode.predict and (mode.sweep or mode.audit):
        raise UserError("--predict asks one net: leave --sweep and --audit out")
    if (mode.out or mode.predict_format) and not mode.predict:
        raise UserError("--out and --predict-format say where the landmarks of --predict go; give that too")
    if mode.show_data is not None and mode.show_data < 1:
        raise UserError(f"--show-data needs the number of faces to draw, at least 1, not {mode.show_data}")
    if mode.compare and (not tests or mode.sweep):
        raise UserError("--compare is for the report of a test: give --test with it, and no --sweep")
    if mode.list_nets is not None:
        print(zoo.list_nets(mode.list_nets))
        return
    if (mode.resume or mode.overwrite and not mode.predict) and not (mode.train or mode.audit):
        raise UserError("--resume and --overwrite say how to --train; give that too")
    if mode.audit and (mode.train or tests or mode.sweep or mode.resume and not mode.exp):
        raise UserError("--audit trains nets of its own: leave --train, --test, --sweep out, and name the one to --resume: --exp")
    if mode.sweep:
        sweep.sweep(mode, given)
        return
    ranks = start_ranks()
    run_root = Path(ROOT) / given.get("run_root", read_yaml(DEFAULT_FILE)["run_root"])
    trains = mode.train or mode.audit
    here = ranks.agree(lambda: run.find(mode.exp, run_root, trains, mode.resume)) if trains or tests or mode.predict else None
    compare = ranks.agree(lambda: [run.find(other, run_root, False) for other in mode.compare])
    kept = audit.fold_runs(here, 1)[0] if mode.audit else here  # what says how far a training has come
    if trains:
        run.take_up_restart(mode, kept)
        run.check_free(kept, mode.resume, mode.overwrite)
    args = read_args(given, mode, kept)
    if mode.audit:
        audit.check(here, args.early_stop, args.teacher)
    if mode.predict:
        place = here.folder / "predicted" / Path(mode.predict).resolve().stem
        target = annotate.check_out(mode.out and Path(mode.out), mode.predict_format, place, mode.overwrite)
    set_threads(args.threads, args.deterministic)
    logger.remove()
    if ranks.first:
        logger.add(lambda line: tqdm.write(line, end="", file=sys.stderr), format="{time:HH:mm:ss} {message}", level="INFO")
    with ExitStack() as held:
        held.enter_context(ranks.connected())
        if here and ranks.first:  # held before anything is made, so that no other run takes the folder meanwhile
            held.enter_context(checkpoint.lock(here.folder))
            if trains:
                run.check_free(kept, mode.resume, mode.overwrite)
            logger.add(here.folder / checkpoint.LOG, format="{time:YYYY-MM-DD HH:mm:ss} {level} {message}", delay=True)
        if args.task == "detect":
            detect.run_modes(mode, args, here, ranks)
            return
        if mode.prepare or trains or mode.show_data:
            folders = ranks.one_by_one(lambda: [sets.prepare(name, args) for name in args.train_data])
        if mode.show_data:
            ranks.one_by_one(lambda: ranks.first and [print(show(args, folder, mode.show_data, shift))
                                                        for folder, shift in label_shifts(args, folders).items()])
        test_parts = []
        if tests or mode.train and args.val == "test" or mode.prepare and args.test_data:
            test_parts = ranks.one_by_one(lambda: sets.test_parts(args))  # what cannot be tested is found before the training
        if mode.train:
            train(args, here, folders, test_parts, ranks, mode.resume)
        if mode.audit:
            audit_labels(args, here, folders, ranks, mode.resume)
        if tests:
            test(args, here, test_parts, ranks, mode.test_onnx, compare)
        if mode.predict and ranks.first:
            print(annotate.run(here.weights, Path(mode.predict), *target, args))


def read_args(given: dict, mode, here: run.Run | None):
    """What was typed over what the run was trained with, or over args.yaml and its preset for a new one."""
    values = read_yaml(DEFAULT_FILE)
    sets.make_lasting(given)
    again = here and (mode.resume or not (mode.train or mode.audit))
    kept = checkpoint.load(here.last if mode.resume else here.weights) if again else {}
    values["layouts"] = {**values["layouts"], **kept.get("layouts", {})}
    if str(given.get("layout")).endswith((".yaml", ".yml")):
        given["layout"], values["layouts"] = read_layout_file(given["layout"], values["layouts"])
    if kept:
        judged = {key: value for key, value in given.items() if not (mode.audit and key == "norm")}  # an audit picks no epoch
        run.check_given(judged, kept["args"], mode.resume)
        args = resolve(given, {**values, **kept["args"]}, None)
        run.check_task(given, args.task)
        return args
    preset = given.get("preset") or values["preset"]
    names = sets.lasting(sets.training_names(resolve(given, values, preset)))
    if given.get("task", values["task"]) == "detect":
        preset = preset or ("detect-quick" if names == [sets.SYNTHETIC] else "detect")
    preset = preset or ("quick" if names == [sets.SYNTHETIC] else "default")
    args = resolve({**given, "train_data": names}, values, preset)
    run.check_task(given, args.task)
    run.check_head(given, args)
    return args


def choose_layout(args, folders: list[Path]) -> Layout:
    """The layout to train: what was asked for, else that of the first set."""
    layout = load_layout(args.tables["layouts"], args.layout or load_meta(folders[0])["layout"], args.selected_index)
    if args.num_lms not in (None, layout.count):
        raise UserError(f"num_lms is {args.num_lms}, but layout {layout.name} has {layout.count} landmarks; choose another "
                        "--layout or --selected-index")
    return layout


def label_shifts(args, folders: list[Path]) -> dict[Path, float]:
    """Of each training set, as given or as the dataset table knows it. UserError for a count that is neither one nor theirs."""
    if args.label_shift is None:
        return {folder: DATASETS[load_meta(folder)["dataset"]].label_shift for folder in folders}
    if len(args.label_shift) not in (1, len(folders)):
        raise UserError(f"label_shift has {len(args.label_shift)} numbers for {len(folders)} training sets; give one or as many")
    return dict(zip(folders, args.label_shift * (len(folders) // len(args.label_shift)), strict=True))


def training_parts(args, folders: list[Path]) -> list[tuple[Path, str]]:
    """The splits that are trained on."""
    return [(folder, split) for folder in folders for split in ("train", "val")[:1 + (args.val in ("test", "none"))]]


def load_faces(args, folders: list[Path], test_parts: list, layout: Layout, fold: int | None) -> tuple[Faces, Faces | None]:
    """Faces to train and to validate on, if any; what the tests will ask of theirs is asked now, not after the training.

    fold: of an audit, held out of the training faces and validated on.
    """
    for part in test_parts:
        sets.check_protocol(part[0], load_meta(folders[0])["protocol"])
        there, _ = across(layout, load_meta(part[0])["layout"], args.tables["layouts"])
        face_norms(Faces([part], there, args.input_size, 0, input_margin=run.input_margin(args)), there, args.norm)

    def load(parts, weights=None, shifts=None):
        return complete(Faces(parts, layout, args.input_size, args.cache, args.train_hidden, weights, run.input_margin(args),
                              shifts), layout, run.outputs(args))

    parts, shifts = training_parts(args, folders), label_shifts(args, folders)
    faces, held = load(parts, args.label_weights, [shifts[folder] for folder, _ in parts]), None
    if fold is not None:  # before any face has copies, which would change the folds
        faces, held = audit.divide(faces, args.folds, args.seed, fold)
    if args.balance:
        faces = balanced(faces, layout)
    if held is not None:
        return faces, held
    if args.val == "none":
        if args.early_stop:
            raise UserError("early_stop needs validation faces; give --val 0.1, or --early-stop 0")
        return faces, None
    val = load(test_parts if args.val == "test" else [(folder, "val") for folder in folders])
    if not len(val):
        raise UserError(f"{', '.join(map(str, folders))} has no validation faces; give --val 0.1, or --val test")
    face_norms(val, layout, args.norm)
    return faces, val


def start_solver(args, layout: Layout, faces: Faces, protocol: dict, ranks: Ranks,
                 resume: bool) -> tuple[solver.Solver, Order, finetune.Started]:
    """The net with its initial weights in a solver, the order of its batches, and what the weights are."""
    torch.manual_seed(args.seed)
    meanface = faces.meanface()
    try:
        net = run.make_net(args, layout, sets.meanface(args, layout, faces))
        if args.refine:
            logger.info(zoo.refiner(net.spec))
        order = Order(len(faces), args.batch_size, args.accumulate, args.seed, ranks.rank, ranks.count)
        started = finetune.Started("the checkpoint", [])
        if not resume:
            started = run.initialise(net, args.weights, layout, meanface, logger.warning)
        if args.teacher:
            net, words = taught(net, args, layout, protocol, ranks.device)
            logger.info(words)
        if ranks.count > 1:
            net = share_batch_norm(net, ranks.device)
        net = net.to(ranks.device, memory_format=torch.channels_last)
        return solver.Solver(net, args, len(order) // args.accumulate, ranks), order, started
    except ValueError as error:
        raise UserError(str(error)) from None


def train(args, here: run.Run, folders: list[Path], test_parts: list, ranks: Ranks, resume: bool,
          fold: int | None = None) -> None:
    """Epochs of training with validation; best.pt, last.pt, step.csv, time.csv and TensorBoard events go to the run's folder."""
    layout = choose_layout(args, folders)
    faces, val = load_faces(args, folders, test_parts, layout, fold)
    if args.label_weights:
        disputed = int((faces.weight[faces.visible] < DISPUTED).sum())
        logger.info(f"{args.label_weights}: {disputed} of {int(faces.visible.sum())} labels weigh less than {DISPUTED}")
    protocol, data = load_meta(folders[0])["protocol"], run.checksums(folders) + checksums(args.teacher)
    solve, order, started = start_solver(args, layout, faces, protocol, ranks, resume)
    spec, steps = solve.net.spec, len(order) // args.accumulate
    history = run.History.load(here, spec, layout, data) if resume else run.History.start()
    if resume:
        solve.load_state_dict(history.solver)
        solve.step = history.epochs * steps  # of the schedule, if the number of steps in an epoch is another now
    elif ranks.first:
        run.clear(here)
        write_text(here.folder / "args.yaml", dump(args))
        run.report_start(here, started)
    logger.info(f"{here.folder.name}: {args.net} ({args.preset}), {layout.count} landmarks, {args.input_size} px, from "
                f"{started.words}; {len(faces)} faces of {', '.join(args.train_data)}, {len(val or ())} to validate"
                f"{' (the TEST set: --val test)' if args.val == 'test' else ''}; {ranks.count} x {ranks.device}, "
                f"{solve.dtype or 'float32'}")

    augmented = Augmented(faces, Recipe.of(args), layout.flip_index, args.seed)
    loader = train_loader(augmented, order, worker_count(args.workers), ranks.device.type == "cuda")
    tester = build_net(spec)

    def pack(kept: dict, epoch: int, nme: float) -> dict:
        return run.pack(spec, layout, protocol, args, kept, epoch=epoch, val_nme=nme, data=data,
                        meanface=faces.meanface().tolist())

    fit(Job(solve, order, loader, faces, history, lambda: validate(solve, tester, val, layout, args), pack), args, here, ranks)


def validate(solve: solver.Solver, tester, faces: Faces | None, layout: Layout, args) -> tuple[dict, float]:
    """(the weights to keep, their sigma calibrated on `faces`; NME in %, NaN without faces). `tester` is a net to put them in."""
    kept = without_teacher(solve.tested())
    if faces is None:
        if not all(torch.isfinite(tensor).all() for tensor in kept.values()):
            raise UserError("the weights are not finite: the net has diverged, lower --learning-rate")
        return kept, float("nan")
    tester.load_state_dict(kept)
    result = evaluate(torch_predictor(tester, solve.ranks.device), faces, layout, args.norm, args.test_batch_size, solve.ranks)
    if result.sigma is not None:
        kept = solve.net.head.calibrated(kept, result.calibration())
    return kept, float(np.nanmean(result.nme))


def audit_labels(args, here: run.Run, folders: list[Path], ranks: Ranks, resume: bool) -> None:
    """Trains a net without each fold, as any run is; what they say of the faces they have not seen goes to EXP/audit."""
    if ranks.first and not resume:
        audit.clear(here)
    ranks.wait()
    layout, parts = choose_layout(args, folders), training_parts(args, folders)
    faces = Faces(parts, layout, args.input_size, 0, args.train_hidden, None, run.input_margin(args))
    fold, found = audit.fold_of(faces.identities, args.folds, args.seed), np.empty_like(faces.landmarks)
    face_norms(faces, layout, args.norm)
    for number, one in enumerate(audit.fold_runs(here, args.folds)):
        if run.epochs(one) < args.epochs:
            train(args, one, folders, [], ranks, one.last.is_file(), number)
        held, predict = np.flatnonzero(fold == number), torch_predictor(run.unpack(one.last)[0], ranks.device)
        found[held] = evaluate(predict, faces.only(held), layout, args.norm, args.test_batch_size, ranks).landmarks
    if ranks.first:
        text = audit.write(here.folder / "audit", Faces(parts, layout, audit.DRAWN, 0), found, fold, layout, args.norm,
                           args.flip > 0 and not any(label_shifts(args, folders).values()))
        print(f"\n{text}\n\n{audit.closing(here)}")


def test(args, here: run.Run, parts: list, ranks: Ranks, with_onnx: bool, compare: list[run.Run]) -> None:
    """Tests the kept weights set by set, in torch and as ONNX; prints the tables, leaves them and the page of the report."""
    net, layout, stored = run.unpack(here.weights)
    if compare and "true" not in args.box:
        raise UserError("--compare shows other runs in true boxes; have them in --box too")
    ways = [across(layout, load_meta(folder)["layout"], args.tables["layouts"]) for folder, _ in parts]
    compared = [[report.read_compared(other.folder, folder, args.norm, there.name) for other in compare]
                for (folder, _), (there, _) in zip(parts, ways, strict=True)]
    models = {"torch": torch_predictor(net, ranks.device)}
    detect = annotate.landmarker(here.weights, args).detect if "detector" in args.box else None
    if with_onnx:
        ranks.one_by_one(lambda: ranks.first and run.export(here))
        models["onnx"] = export.onnx_predictor(here.onnx, torch.get_num_threads())
    if args.flip_test:
        models = {name: flip_tested(predict, layout) for name, predict in models.items()}
    written, differences = report.Report(here.folder / "report", args.norm, args.thresholds), [0.0]
    titles = sets.distinct([sets.title(folder, layout, there) for (folder, _), (there, _) in zip(parts, ways, strict=True)])
    files = sets.distinct([folder.name for folder, _ in parts])
    for part, (there, converted), *name, others in zip(parts, ways, titles, files, compared, strict=True):
        sets.check_protocol(part[0], stored["protocol"])
        own = Faces([part], there, net.spec["input_size"], args.cache, args.train_hidden, None, net.input_margin)
        complete(own, there, list(net.auxiliary) if there is layout else [])  # others may not tell what the net says beside
        for box in args.box:
            faces, missed = boxes.rebox(own, box, args, detect)
            means = []
            for model, predict in models.items():
                result = evaluate(converted(predict), faces, there, args.norm, args.test_batch_size, ranks)
                means.append(float(np.nanmean(result.nme)))
                if ranks.first:
                    written.add(part[0], name, model, box, faces, result, there, missed, others)
                if ranks.first and there is layout and (said := agreement(result, faces)):
                    logger.info(f"{name[0]}, {model}: {said}")
            differences.append(abs(means[0] - means[-1]))
    if not ranks.first:
        return
    tables = written.write(args.flip_test)
    how = f"{args.norm} norm, flip test {'on' if args.flip_test else 'off'}, {', '.join(args.box)} boxes"
    how += "; faces that the detector missed are scored in their own" if "detector" in args.box else ""
    logger.debug(f"{here.weights.name} of epoch {stored['epoch'] + 1}, {how}\n{tables}")
    page.write(here, written, stored, how, [other.folder for other in compare])
    synthetic = [sets.is_synthetic(folder) for folder, _ in parts]
    print(report.closing(tables, how, here, Path(ROOT), synthetic, stored["args"]["val"] == "test"))
    if not max(differences) <= AGREEMENT:
        raise UserError(f"{here.onnx} differs from torch by {max(differences):.4f} points of NME (allowed: {AGREEMENT}); delete "
                        "it and export again")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except UserError as error:
        if os.environ.get("LOCAL_RANK", "0") != "0":
            time.sleep(30)  # where the node's first process says the same, the launcher ends this one before it repeats it
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("stopped; what the last whole epoch left is kept: the same flags with --exp and --resume go on", file=sys.stderr)
        sys.exit(130)
