"""Training, whatever is trained: steps, validation, and the files of the run. tasks/base.py says what a task provides."""
import hashlib
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from loguru import logger

from pipnet.errors import UserError
from pipnet.files import write_text
from utils import memory
from utils.config import Settings
from utils.cores import cores
from utils.faces.batches import Order, make_order
from utils.faces.loader import explained, train_loader
from utils.progress import progress
from utils.train import bad_batch, checkpoint, own_files, run_folder
from utils.train.batchnorm import share_batch_norm
from utils.train.profile import Profile
from utils.train.ranks import Ranks, worker_count
from utils.train.run_folder import History, Keeper, Run
from utils.train.solver import NonFinite, Solver, one_behind


def train(task, run: Run, ranks: Ranks, resume: bool) -> None:
    """Train to the last epoch. Write best.pt, last.pt, step.csv, time.csv and TensorBoard events to the run's folder."""
    settings: Settings = task.settings
    data = task.training_data()
    checksums = list(data.checksums)
    if teacher := settings.train.teacher:  # a resumed run must have the same one
        try:
            checksums.append(hashlib.sha256(Path(teacher).read_bytes()).hexdigest())
        except OSError:
            raise UserError(f"no checkpoint at {teacher}") from None
    solver, order = _start(task, data, run, ranks, resume)
    description = {"net": solver.net.spec, **task.description(), "data": checksums}
    if resume:
        history = History.load(run, task.figure, {key: description[key] for key in ("net", "layout", "data")})
        if not settings.train.threads and history.threads not in (0, torch.get_num_threads()) and history.threads <= cores():
            torch.set_num_threads(history.threads)  # sums depend on their number in the last digits
            logger.info(f"{history.threads} CPU threads, as before")
        try:
            solver.load_state_dict(history.solver)
        except ValueError as error:
            raise UserError(f"{run.last} cannot be resumed: {error}; train a new run") from None
        solver.step = history.epochs * solver.steps  # the number of steps per epoch may have changed
    else:
        history = History(task.figure)

    def pack(state: dict, epoch: int, figure: float) -> dict:
        return {"format": checkpoint.FORMAT, **description, **task.limits, "args": settings.flat(), "epoch": epoch,
                task.figure: figure, "threads": torch.get_num_threads(),
                "model": {name: tensor.detach().cpu() for name, tensor in state.items()}}

    pin = ranks.device.type == "cuda"
    loader = train_loader(data.samples, order.epochs(history.epochs, settings.train.epochs),
                          worker_count(settings.train.workers), pin)
    keeper = Keeper(run, history) if ranks.first else None
    if settings.train.profile and keeper:
        solver.phases = Profile(run.folder / "trace.json", ranks.device)
    per_epoch, epochs = len(order) * order.batch * ranks.count, settings.train.epochs
    if history.epochs >= epochs:
        logger.info(f"{run.folder.name} is finished: all {epochs} epochs are trained; to train longer, give a larger --epochs")
    with explained(loader, lambda: f"; --resume goes on from epoch {history.epochs}" if history.epochs else ""), \
            progress(total=epochs * per_epoch, initial=history.epochs * per_epoch, unit=" images", disable=not ranks.first,
                     smoothing=0.05) as bar:
        batches = iter(loader)
        for epoch in range(history.epochs, epochs):
            if settings.train.early_stop and history.epochs_since_best() >= settings.train.early_stop:
                logger.info(f"no better validation {task.says.split()[0]} for {settings.train.early_stop} epochs: stopped early")
                break
            bar.set_description(f"epoch {epoch + 1}/{epochs}")
            smaller = memory.smaller_steps(order.batch, settings.train.accumulate, settings.net.input_size)
            later = f"; with --resume --exp {run.folder} it goes on from epoch {epoch}" if epoch else ""
            step = f"--batch-size {order.batch} and --input-size {settings.net.input_size}"
            try:
                with memory.advice(step, f"give {smaller}{later}"):
                    terms, seconds, waited = train_epoch(solver, batches, order, epoch, data.samples, bar)
            except bad_batch.BadBatch as error:
                again = f"; to repeat this step: python -m utils.tools.replay {run.bad_batch}" if error.batches else ""
                if keeper and error.batches:
                    bad_batch.save(run.bad_batch, error, pack(solver.net.state_dict(), epoch, float("nan")))
                raise UserError(f"{error}{later and f'; --resume goes on from epoch {epoch}'}{again}") from None
            state, figure = task.validate(solver)
            times = {"epoch": epoch, "seconds": seconds, "waiting": waited, "images_per_second": per_epoch / seconds}
            row = {"epoch": epoch, "lr": solver.schedule(solver.step - 1), **terms, task.figure: figure}
            better = history.add(row, times)
            if keeper:
                keeper.save(pack(state, epoch, figure), solver.state_dict(), better)
            validated = "" if np.isnan(figure) else f", validation {task.says.format(figure)}{' (best)' if better else ''}"
            logger.info(f"epoch {epoch + 1}/{epochs}: loss {terms['loss']:.4f}{validated}, {per_epoch / seconds:.0f} images/s")
    if history.rows and history.rows[-1]["loss"] > history.rows[0]["loss"]:
        logger.warning(f"the loss has risen, from {history.rows[0]['loss']:.4g} to {history.rows[-1]['loss']:.4g}: the net has "
                       "diverged; lower --learning-rate")
    ranks.wait()  # until the first process has written the last checkpoint


def _start(task, data, run: Run, ranks: Ranks, resume: bool) -> tuple[Solver, Order]:
    """Return the solver of a net with its initial weights, and the order of the batches; prepare the folder of a new run."""
    train = task.settings.train
    torch.manual_seed(train.seed)
    try:
        order = make_order(len(data.samples), data.labelled, train, ranks.rank, ranks.count)
        net, started = task.make_net(resume)
        if ranks.count > 1:
            net = share_batch_norm(net, ranks.device)
        net = net.to(ranks.device, memory_format=torch.channels_last)
        solver = Solver(net, train, task.settings.loss, len(order) // train.accumulate, ranks)
    except ValueError as error:
        raise UserError(str(error)) from None
    if ranks.first and not resume:
        own_files.clear(run.folder)
        write_text(run.folder / "args.yaml", task.settings.dump())
        started.write(run.folder / run_folder.INITIALISATION)
    logger.info(f"{run.folder.name}: {task.title}, from {started.words}; {data.words}; {ranks.count} x "
                f"{ranks.device}, {solver.dtype or 'float32'}")
    return solver, order


def train_epoch(solver: Solver, batches: Iterator, order: Order, epoch: int, samples, bar) -> tuple[dict, float, float]:
    """Return ({loss term: mean}, seconds, seconds spent waiting for data). BadBatch if a loss or gradient is not finite.

    samples: its `name(index)` says which ones the error is about.
    """
    solver.begin()
    torch.manual_seed(int(np.random.default_rng((order.seed, epoch, order.rank)).integers(2**63)))  # keys dropout too
    start, waited, sums, steps = time.perf_counter(), 0.0, {}, len(order) // solver.accumulate

    def trained():
        nonlocal waited
        for _ in range(steps):
            before = time.perf_counter()
            with solver.phases("data"):
                micro = [next(batches) for _ in range(solver.accumulate)]
            waited += time.perf_counter() - before
            losses = solver.train_step(micro)
            solver.phases.end_step()
            yield losses

    try:
        for losses in one_behind(trained()):
            terms = losses.read()
            sums = {name: sums.get(name, 0.0) + value / steps for name, value in terms.items()}
            bar.set_postfix(loss=f"{terms['loss']:.3f}", refresh=False)
            bar.update(solver.accumulate * order.batch * solver.ranks.count)
    except NonFinite as error:
        raise bad_batch.explained(error, solver, epoch, samples.name) from None
    except ValueError as error:  # batch norm cannot normalise one sample of one cell
        raise UserError(f"{error}; give a larger --batch-size or --input-size") from None
    return sums, time.perf_counter() - start, waited
