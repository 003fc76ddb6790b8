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
    from pipnet.errors import UserError
    from pipnet.files import write_text
    from pipnet.layout import Layout
    from utils import audit, checkpoint, export, finetune, memory, report, run, sets, solver, sweep, zoo
    from utils.augment import Recipe
    from utils.batchnorm import share_batch_norm
    from utils.config import DEFAULT_FILE, dump, load_layout, parse, read_layout_file, read_yaml, resolve
    from utils.dataset import Augmented, Faces, Order, train_loader
    from utils.evaluate import evaluate, face_norms, flip_tested, torch_predictor
    from utils.face_states import agreement, balanced, complete
    from utils.label_weights import DISPUTED
    from utils.prepared import load_meta
    from utils.progress import progress
    from utils.ranks import Ranks, set_threads, start_ranks, worker_count
    from utils.show import show
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
    group.add_argument("--list-nets", metavar="NET", nargs="*",
                       help="print the backbones: size, cost, published NME; with names: these, measured here")
    group = parser.add_argument_group("run")
    group.add_argument("--exp", metavar="EXP",
                       help="id (018), folder or file (.pt, .onnx); without: the next free id to train, else the newest run")
    group.add_argument("--resume", action="store_true", help="go on from the last whole checkpoint of that run")
    group.add_argument("--overwrite", action="store_true", help="replace that run")


def main(argv: list[str]) -> None:
    """Runs the modes on the command line, in the order prepare, show, train, test."""
    mode, given = parse(argv, modes)
    tests = mode.test or mode.test_onnx
    if not (mode.prepare or mode.train or mode.audit or tests or mode.list_nets is not None or mode.show_data is not None):
        raise UserError("nothing to do: give --train, --test, --test-onnx, --prepare, --show-data N, --audit or --list-nets "
                        "(--help explains them)")
    if mode.show_data is not None and mode.show_data < 1:
        raise UserError(f"--show-data needs the number of faces to draw, at least 1, not {mode.show_data}")
    if mode.list_nets is not None:
        print(zoo.list_nets(mode.list_nets))
        return
    if (mode.resume or mode.overwrite) and not (mode.train or mode.audit):
        raise UserError("--resume and --overwrite say how to --train; give that too")
    if mode.audit and (mode.train or tests or mode.sweep or mode.resume and not mode.exp):
        raise UserError("--audit trains nets of its own: leave --train, --test, --sweep out, and name the one to --resume: --exp")
    if mode.sweep:
        sweep.sweep(mode, given)
        return
    ranks = start_ranks()
    run_root = Path(ROOT) / given.get("run_root", read_yaml(DEFAULT_FILE)["run_root"])
    trains = mode.train or mode.audit
    here = ranks.agree(lambda: run.find(mode.exp, run_root, trains, mode.resume)) if trains or tests else None
    kept = audit.fold_runs(here, 1)[0] if mode.audit else here  # what says how far a training has come
    if trains:
        run.take_up_restart(mode, kept)
        run.check_free(kept, mode.resume, mode.overwrite)
    args = read_args(given, mode, kept)
    if mode.audit:
        audit.check(here, args.early_stop)
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
        if mode.prepare or trains or mode.show_data:
            folders = ranks.one_by_one(lambda: [sets.prepare(name, args) for name in args.train_data])
        if mode.show_data:
            ranks.one_by_one(lambda: ranks.first and [print(show(args, folder, mode.show_data)) for folder in folders])
        test_parts = []
        if tests or mode.train and args.val == "test" or mode.prepare and args.test_data:
            test_parts = ranks.one_by_one(lambda: sets.test_parts(args))  # what cannot be tested is found before the training
        if mode.train:
            train(args, here, folders, test_parts, ranks, mode.resume)
        if mode.audit:
            audit_labels(args, here, folders, ranks, mode.resume)
        if tests:
            test(args, here, test_parts, ranks, mode.test_onnx)


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
        return resolve(given, {**values, **kept["args"]}, None)
    preset = given.get("preset") or values["preset"]
    names = sets.lasting(sets.training_names(resolve(given, values, preset)))
    preset = preset or ("quick" if names == [sets.SYNTHETIC] else "default")
    args = resolve({**given, "train_data": names}, values, preset)
    run.check_head(given, args.head)
    return args


def choose_layout(args, folders: list[Path]) -> Layout:
    """The layout to train: what was asked for, else that of the first set."""
    layout = load_layout(args.tables["layouts"], args.layout or load_meta(folders[0])["layout"], args.selected_index)
    if args.num_lms not in (None, layout.count):
        raise UserError(f"num_lms is {args.num_lms}, but layout {layout.name} has {layout.count} landmarks; choose another "
                        "--layout or --selected-index")
    return layout


def training_parts(args, folders: list[Path]) -> list[tuple[Path, str]]:
    """The splits that are trained on."""
    return [(folder, split) for folder in folders for split in ("train", "val")[:1 + (args.val in ("test", "none"))]]


def load_faces(args, folders: list[Path], test_parts: list, layout: Layout, fold: int | None) -> tuple[Faces, Faces | None]:
    """Faces to train and to validate on, if any; what the tests will ask of theirs is asked now, not after the training.

    fold: of an audit, held out of the training faces and validated on.
    """
    for part in test_parts:
        sets.check_protocol(part[0], load_meta(folders[0])["protocol"])
        face_norms(Faces([part], layout, args.input_size, 0), layout, args.norm)

    def load(parts, weights=None):
        return complete(Faces(parts, layout, args.input_size, args.cache, args.train_hidden, weights, run.input_margin(args)),
                        layout, run.outputs(args))

    faces = load(training_parts(args, folders), args.label_weights)
    if args.balance:
        faces = balanced(faces, layout)
    if fold is not None:
        return audit.divide(faces, args.folds, args.seed, fold)
    if args.val == "none":
        if args.early_stop:
            raise UserError("early_stop needs validation faces; give --val 0.1, or --early-stop 0")
        return faces, None
    val = load(test_parts if args.val == "test" else [(folder, "val") for folder in folders])
    if not len(val):
        raise UserError(f"{', '.join(map(str, folders))} has no validation faces; give --val 0.1, or --val test")
    face_norms(val, layout, args.norm)
    return faces, val


def start_solver(args, layout: Layout, faces: Faces, ranks: Ranks, resume: bool) -> tuple[solver.Solver, Order, finetune.Started]:
    """The net with its initial weights in a solver, the order of its batches, and what the weights are."""
    torch.manual_seed(args.seed)
    meanface = faces.meanface()
    try:
        net = run.make_net(args, layout, sets.meanface(args, layout, faces))
        order = Order(len(faces), args.batch_size, args.accumulate, args.seed, ranks.rank, ranks.count)
        started = finetune.Started("the checkpoint", [])
        if not resume:
            started = run.initialise(net, args.weights, layout, meanface, logger.warning)
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
    solve, order, started = start_solver(args, layout, faces, ranks, resume)
    spec, steps = solve.net.spec, len(order) // args.accumulate
    history = run.History.load(here, spec, layout, folders) if resume else run.History.start()
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
    keeper = run.Keeper(here, history) if ranks.first else None
    per_epoch = len(order) * order.batch * ranks.count
    with progress(total=args.epochs * per_epoch, initial=history.epochs * per_epoch, unit=" images", disable=not ranks.first,
                  smoothing=0.05) as bar:
        for epoch in range(history.epochs, args.epochs):
            if args.early_stop and history.epochs_since_best() >= args.early_stop:
                logger.info(f"no better validation NME for {args.early_stop} epochs: stopped early")
                break
            bar.set_description(f"epoch {epoch + 1}/{args.epochs}")
            smaller = memory.smaller_steps(order.batch, args.accumulate, args.input_size)
            later = f"; with --resume --exp {here.folder} it goes on from epoch {epoch}" if epoch else ""
            with memory.advice(f"--batch-size {order.batch} and --input-size {args.input_size}", f"give {smaller}{later}"):
                terms, seconds, waited = train_epoch(solve, loader, order, epoch, faces, bar)
            kept, nme = validate(solve, tester, val, layout, args)
            times = {"epoch": epoch, "seconds": seconds, "waiting": waited, "images_per_second": per_epoch / seconds}
            better = history.add({"epoch": epoch, "lr": solve.schedule(solve.step - 1), **terms, "val_nme": nme}, times)
            if keeper:
                inference = run.pack(spec, layout, load_meta(folders[0])["protocol"], args, kept, epoch=epoch, val_nme=nme,
                                     data=run.checksums(folders), meanface=faces.meanface().tolist())
                keeper.save(inference, solve.state_dict(), better)
            validated = f", validation NME {nme:.3f} %{' (best)' if better else ''}" if val else ""
            logger.info(f"epoch {epoch + 1}/{args.epochs}: loss {terms['loss']:.4f}{validated}, "
                        f"{per_epoch / seconds:.0f} images/s")
    ranks.wait()  # until the first process has written the last checkpoint


def validate(solve: solver.Solver, tester, faces: Faces | None, layout: Layout, args) -> tuple[dict, float]:
    """(the weights to keep, their sigma calibrated on `faces`; NME in %, NaN without faces). `tester` is a net to put them in."""
    kept = solve.tested()
    if faces is None:
        if not all(torch.isfinite(tensor).all() for tensor in kept.values()):
            raise UserError("the weights are not finite: the net has diverged, lower --learning-rate")
        return kept, float("nan")
    tester.load_state_dict(kept)
    result = evaluate(torch_predictor(tester, solve.ranks.device), faces, layout, args.norm, args.test_batch_size, solve.ranks)
    if result.sigma is not None:
        kept = solve.net.head.calibrated(kept, result.calibration())
    return kept, float(np.nanmean(result.nme))


def train_epoch(solve: solver.Solver, loader, order: Order, epoch: int, faces: Faces, bar) -> tuple[dict, float, float]:
    """({loss term: mean}, seconds, seconds spent waiting for data). A loss that is not finite stops the run."""
    solve.net.train()
    order.epoch = epoch
    torch.manual_seed(int(np.random.default_rng((order.seed, epoch, order.rank)).integers(2**63)))  # dropout is keyed as well
    start, waited, sums, batches, steps = time.perf_counter(), 0.0, {}, iter(loader), len(order) // solve.accumulate

    def trained():
        nonlocal waited
        for _ in range(steps):
            before = time.perf_counter()
            micro = [next(batches) for _ in range(solve.accumulate)]
            waited += time.perf_counter() - before
            yield solve.train_step(micro)

    try:
        for losses in solver.one_behind(trained()):
            terms = losses.read()
            sums = {name: sums.get(name, 0.0) + value / steps for name, value in terms.items()}
            bar.set_postfix(loss=f"{terms['loss']:.3f}", refresh=False)
            bar.update(solve.accumulate * order.batch * solve.ranks.count)
    except solver.NonFinite as error:
        indices = [index for row in zip(*solve.ranks.gather(error.indices), strict=True) for index in row]  # of all processes
        more = f" and {len(indices) - 32} more" if len(indices) > 32 else ""
        names = ", ".join(faces.names[index] for index in indices[:32]) + more
        later = f"; --resume goes on from epoch {epoch}" if epoch else ""
        raise UserError(f"the loss is not finite in epoch {epoch + 1}, step {error.step} ({error}); samples: {names}; "
                        f"lower --learning-rate or look at these{later}") from None
    except ValueError as error:  # batch norm has no spread over one sample of one cell
        raise UserError(f"{error}; give a larger --batch-size or --input-size") from None
    return sums, time.perf_counter() - start, waited


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
        text = audit.write(here.folder / "audit", Faces(parts, layout, audit.DRAWN, 0), found, fold, layout, args.norm)
        print(f"\n{text}\n\n{audit.closing(here)}")


def test(args, here: run.Run, parts: list, ranks: Ranks, with_onnx: bool) -> None:
    """Tests the kept weights set by set, in torch and as ONNX; prints the tables, leaves them and a sheet of faces a set."""
    net, layout, stored = run.unpack(here.weights)
    models = {"torch": torch_predictor(net, ranks.device)}
    if with_onnx:
        ranks.one_by_one(lambda: ranks.first and run.export(here))
        models["onnx"] = export.onnx_predictor(here.onnx, torch.get_num_threads())
    if args.flip_test:
        models = {name: flip_tested(predict, layout) for name, predict in models.items()}
    rows, part_rows, differences = [], [], []
    for part in parts:
        sets.check_protocol(part[0], stored["protocol"])
        faces = Faces([part], layout, net.spec["input_size"], args.cache, args.train_hidden, None, net.input_margin)
        complete(faces, layout, list(net.others))
        name, means = sets.title(part[0]), {}
        for model, predict in models.items():
            result = evaluate(predict, faces, layout, args.norm, args.test_batch_size, ranks)
            means[model] = float(np.nanmean(result.nme))
            rows += report.score_rows(name, model, result, faces, args.thresholds)
            part_rows += report.part_rows(name, model, result, faces, args.thresholds)
            if ranks.first and (said := agreement(result, faces)):
                logger.info(f"{name}, {model}: {said}")
            if ranks.first and model == "torch":
                report.write_test(here.folder / "report", part[0].name, faces, result, layout)
        differences.append(abs(means["torch"] - means.get("onnx", means["torch"])))
    if not ranks.first:
        return
    headers = report.score_header(args.thresholds), report.part_header(args.thresholds)
    for file, header, table in zip(("scores.csv", "parts.csv"), headers, (rows, part_rows), strict=True):
        report.write_csv(here.folder / "report" / file, header, table)
    tables = f"{report.table(rows, headers[0])}\n\n{report.part_table(part_rows)}"
    how = f"{args.norm} norm, flip test {'on' if args.flip_test else 'off'}, true boxes"
    logger.debug(f"{here.weights.name} of epoch {stored['epoch'] + 1}, {how}\n{tables}")
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
            time.sleep(10)  # where the node's first process says the same, the launcher ends this one before it repeats it
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("stopped; what the last whole epoch left is kept: the same flags with --exp and --resume go on", file=sys.stderr)
        sys.exit(130)
