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
    from torch.utils.tensorboard import SummaryWriter
    from tqdm import tqdm

    from nets import NETS, build_net, make_spec
    from utils import checkpoint, export, report, run, sets, solver
    from utils.augment import Recipe
    from utils.config import DEFAULT_FILE, dump, load_layout, parse, read_yaml, resolve
    from utils.dataset import Augmented, Faces, Order, train_loader
    from utils.errors import UserError
    from utils.evaluate import evaluate, face_norms, flip_tested, torch_predictor
    from utils.prepare import load_meta
    from utils.progress import progress
except ModuleNotFoundError as missing:
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
    group.add_argument("--list-nets", action="store_true", help="print the backbones")
    group = parser.add_argument_group("run")
    group.add_argument("--exp", metavar="EXP",
                       help="id (018), folder or file (.pt, .onnx); without: the next free id to train, else the newest run")
    group.add_argument("--resume", action="store_true", help="go on from the last whole checkpoint of that run")
    group.add_argument("--overwrite", action="store_true", help="replace that run")


def main(argv: list[str]) -> None:
    """Runs the modes on the command line, in the order prepare, train, test."""
    mode, given = parse(argv, modes)
    tests = mode.test or mode.test_onnx
    if not (mode.prepare or mode.train or tests or mode.list_nets):
        raise UserError("nothing to do: give --train, --test, --test-onnx, --prepare or --list-nets (--help explains them)")
    if mode.list_nets:
        for name, note in [*((name, row.note) for name, row in NETS.items()), ("timm:NAME", "any net of timm with feature maps")]:
            print(f"{name: <18} {note}")
        return
    if (mode.resume or mode.overwrite) and not mode.train:
        raise UserError("--resume and --overwrite say how to --train; give that too")
    if "preset" in given and (mode.resume or not (mode.train or mode.prepare)):
        raise UserError("--preset is for a new training; a run keeps what it was trained with, and single keys can be given")
    ranks = solver.start_ranks()
    run_root = Path(ROOT) / given.get("run_root", read_yaml(DEFAULT_FILE)["run_root"])
    here = ranks.agree(lambda: run.find(mode.exp, run_root, mode.train, mode.resume)) if mode.train or tests else None
    if mode.train:
        run.check_free(here, mode.resume, mode.overwrite)
    stored = None if not here or mode.train and not mode.resume else here.last if mode.resume else here.weights
    args = read_args(given, stored)
    solver.set_threads(args.threads, args.deterministic)
    logger.remove()
    if ranks.first:
        logger.add(lambda line: tqdm.write(line, end="", file=sys.stderr), format="{time:HH:mm:ss} {message}", level="INFO")

    if mode.prepare or mode.train:
        folders = ranks.one_by_one(lambda: [sets.prepare(name, args) for name in args.train_data])
    if not (mode.train or tests):
        return
    with ExitStack() as held:
        if ranks.first:
            held.enter_context(checkpoint.lock(here.folder))
            logger.add(here.folder / "log.txt", format="{time:YYYY-MM-DD HH:mm:ss} {level} {message}", delay=True)
        if mode.train:
            train(args, here, folders, ranks, mode.resume)
        if tests:
            test(args, here, ranks, mode.test_onnx)


def read_args(given: dict, stored: Path | None):
    """What was typed over what the run was trained with, or over args.yaml and its preset for a new one."""
    values = read_yaml(DEFAULT_FILE)
    if stored:
        return resolve(given, {**values, **checkpoint.load(stored)["args"]}, None)
    preset = given.get("preset") or values["preset"]
    names = sets.training_names(resolve(given, values, preset))
    preset = preset or ("quick" if names == [sets.SYNTHETIC] else "default")
    return resolve({**given, "train_data": names}, values, preset)


def train(args, here: run.Run, folders: list[Path], ranks: solver.Ranks, resume: bool) -> None:
    """Epochs of training with validation; best.pt, last.pt, step.csv, time.csv and TensorBoard events go to the run's folder."""
    layout = load_layout(args.tables["layouts"], args.layout or load_meta(folders[0])["layout"], args.selected_index)
    if args.num_lms not in (None, layout.count):
        raise UserError(f"num_lms is {args.num_lms}, but layout {layout.name} has {layout.count} landmarks; choose another "
                        "--layout or --selected-index")
    on_test = args.val == "test"
    train_parts = [(folder, split) for folder in folders for split in ("train", "val")[:1 + on_test]]
    val_parts = ranks.one_by_one(lambda: sets.test_parts(args)) if on_test else [(folder, "val") for folder in folders]
    faces, val = (Faces(parts, layout, args.input_size, args.cache, args.train_hidden) for parts in (train_parts, val_parts))
    if not len(val):
        raise UserError(f"{', '.join(str(folder) for folder in folders)} has no validation faces; give --val 0.1, or --val test")
    face_norms(val, layout, args.norm)  # what validation lacks is said before an epoch of training

    torch.manual_seed(args.seed)
    meanface = np.nanmean(faces.nominal, 0, dtype=np.float64)
    try:
        spec = make_spec(args.net, args.head, args.stride, args.input_size, meanface, args.num_nb, args.act)
        net = build_net(spec)
        order = Order(len(faces), args.batch_size, args.accumulate, args.seed, ranks.rank, ranks.count)
        started = "the checkpoint" if resume else run.initialise(net, args.weights, logger.warning)
        if ranks.count > 1 and ranks.device.type == "cuda":
            net = torch.nn.SyncBatchNorm.convert_sync_batchnorm(net)
        solve = solver.Solver(net.to(ranks.device, memory_format=torch.channels_last), args, len(order) // args.accumulate, ranks)
    except ValueError as error:
        raise UserError(str(error)) from None
    rows, times, best, first = [], [], float("inf"), 0
    if resume:
        stored = checkpoint.load(here.last)
        if "solver" not in stored:
            raise UserError(f"{here.last} has no training state, only weights; start from them: --weights {here.last}")
        if (stored["net"], stored["layout"]) != (spec, layout.to_dict()):
            raise UserError(f"{here.last} was trained with another net, layout or data than these flags say; leave them out")
        solve.load_state_dict(stored["solver"])
        rows, times, best, first = stored["rows"], stored["times"], stored["best"], stored["epoch"] + 1
    elif ranks.first:
        run.clear(here)
        checkpoint.write_text(here.folder / "args.yaml", dump(args))
    logger.info(f"{here.folder.name}: {args.net} ({args.preset}), {layout.count} landmarks, {args.input_size} px, from {started}"
                f"; {len(faces)} faces of {', '.join(args.train_data)}, {len(val)} to validate"
                f"{' (the TEST set: --val test)' if on_test else ''}; {ranks.count} x {ranks.device}, {solve.dtype or 'float32'}")

    augmented = Augmented(faces, Recipe.of(args), layout.flip_index, args.seed)
    loader = train_loader(augmented, order, solver.worker_count(args.workers, ranks), ranks.device.type == "cuda")
    tester = build_net(spec)
    events = SummaryWriter(here.folder / "events", purge_step=first + 1) if ranks.first else None
    per_epoch = len(order) * order.batch * ranks.count
    with progress(total=args.epochs * per_epoch, initial=first * per_epoch, unit=" images", disable=not ranks.first,
                  smoothing=0.05) as bar:
        for epoch in range(first, args.epochs):
            best_epoch = min((row["epoch"] for row in rows if row["val_nme"] == best), default=epoch)
            if args.early_stop and epoch - best_epoch > args.early_stop:
                logger.info(f"no better validation NME for {args.early_stop} epochs: stopped early")
                break
            bar.set_description(f"epoch {epoch + 1}/{args.epochs}")
            terms, seconds, waited = train_epoch(solve, loader, order, epoch, faces, bar)
            kept = solve.tested()
            tester.load_state_dict(kept)
            result = evaluate(torch_predictor(tester, ranks.device), val, layout, args.norm, args.test_batch_size, ranks)
            nme = float(np.nanmean(result.nme))
            if not np.isfinite(result.landmarks).all():
                raise UserError(f"the net's landmarks are not finite after epoch {epoch + 1}; lower --learning-rate; --resume "
                                f"goes on from epoch {epoch}")
            better, best = nme < best, min(nme, best)
            rows.append({"epoch": epoch, "lr": solve.schedule(solve.step - 1), **terms, "val_nme": nme, "best": best})
            times.append({"epoch": epoch, "seconds": seconds, "waiting": waited, "images_per_second": per_epoch / seconds})
            if ranks.first:
                spare = run.pack(spec, layout, load_meta(folders[0])["protocol"], args, kept, epoch=epoch, val_nme=nme)
                if better:
                    checkpoint.save(here.weights, spare)
                checkpoint.save(here.last, {**spare, "solver": solve.state_dict(), "rows": rows, "times": times, "best": best})
                for name, table in (("step.csv", rows), ("time.csv", times)):
                    report.write_csv(here.folder / name, list(table[0]), [row.values() for row in table])
                run.log_epoch(events, rows[-1], times[-1])
            logger.info(f"epoch {epoch + 1}/{args.epochs}: loss {terms['loss']:.4f}, validation NME {nme:.3f} %"
                        f"{' (best)' if better else ''}, {per_epoch / seconds:.0f} images/s")
    ranks.wait()  # until the first process has written the last checkpoint


def train_epoch(solve: solver.Solver, loader, order: Order, epoch: int, faces: Faces, bar) -> tuple[dict, float, float]:
    """({loss term: mean}, seconds, seconds spent waiting for data). A loss that is not finite stops the run."""
    solve.net.train()
    order.epoch = epoch
    torch.manual_seed(int(np.random.default_rng((order.seed, epoch, order.rank)).integers(2**63)))  # dropout is keyed as well
    start, waited, sums, micro = time.perf_counter(), 0.0, {}, []
    batches, steps = iter(loader), len(order) // solve.accumulate
    for _ in range(steps):
        before = time.perf_counter()
        micro = [next(batches) for _ in range(solve.accumulate)]
        waited += time.perf_counter() - before
        try:
            terms = solve.train_step(micro)
        except solver.NonFinite as error:
            names = ", ".join(faces.names[index] for index in error.indices[:8])
            raise UserError(f"the loss is not finite in epoch {epoch + 1}, step {solve.step} ({error}); samples: {names}, ...; "
                            f"lower --learning-rate or look at these; --resume goes on from epoch {epoch}") from None
        except ValueError as error:  # batch norm has no spread over one sample of one cell
            raise UserError(f"{error}; give a larger --batch-size or --input-size") from None
        for name, value in terms.items():
            sums[name] = sums.get(name, 0.0) + value / steps
        bar.set_postfix(loss=f"{terms['loss']:.3f}", refresh=False)
        bar.update(solve.accumulate * order.batch * solve.ranks.count)
    return sums, time.perf_counter() - start, waited


def test(args, here: run.Run, ranks: solver.Ranks, with_onnx: bool) -> None:
    """Tests the kept weights set by set, in torch and as ONNX; prints one table, leaves tables and a sheet of faces a set."""
    net, layout, stored = run.unpack(here.weights)
    models = {"torch": torch_predictor(net, ranks.device)}
    if with_onnx:
        ranks.one_by_one(lambda: ranks.first and run.export(here))
        models["onnx"] = export.onnx_predictor(here.onnx, args.threads)
    if args.flip_test:
        models = {name: flip_tested(predict, layout) for name, predict in models.items()}
    parts = ranks.one_by_one(lambda: sets.test_parts(args))
    rows, worst = [], 0.0
    for part in parts:
        faces = Faces([part], layout, net.spec["input_size"], args.cache, args.train_hidden)
        sets.check_protocol(part[0], stored["protocol"])
        name = sets.title(part[0])
        means = {}
        for model, predict in models.items():
            result = evaluate(predict, faces, layout, args.norm, args.test_batch_size, ranks)
            means[model] = float(np.nanmean(result.nme))
            rows += report.score_rows(name, model, result, faces, args.thresholds)
            if ranks.first and model == "torch":
                report.write_test(here.folder / "report", part[0].name, faces, result, layout)
        worst = max(worst, abs(means["torch"] - means.get("onnx", means["torch"])))
    if not ranks.first:
        return
    report.write_csv(here.folder / "report" / "scores.csv", report.score_header(args.thresholds), rows)
    table = report.table(rows, report.score_header(args.thresholds))
    how = f"{args.norm} norm, flip test {'on' if args.flip_test else 'off'}, true boxes"
    logger.debug(f"{here.weights.name} of epoch {stored['epoch'] + 1}, {how}\n{table}")
    synthetic, on_test = all("synthetic" in row[0] for row in rows[:1]), stored["args"]["val"] == "test"
    print(report.closing(table, here, Path(ROOT), synthetic, on_test))
    if worst > AGREEMENT:
        raise UserError(f"{here.onnx} differs from torch by {worst:.4f} points of NME (allowed: {AGREEMENT}); delete it and "
                        "export again")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except UserError as error:
        if os.environ.get("LOCAL_RANK", "0") != "0":
            time.sleep(2)  # where the node's first process says the same, the launcher ends this one before it repeats it
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("stopped; what the last whole epoch left is kept: the same flags with --exp and --resume go on", file=sys.stderr)
        sys.exit(130)
