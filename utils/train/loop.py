"""Training, whatever is trained: epochs of steps, validation, and the files of the run."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from typing import Any

import numpy as np
import torch
from loguru import logger
from torch.utils.data import Dataset

from pipnet.cores import cores
from pipnet.errors import UserError
from pipnet.files import write_text
from utils.data.batches import Batches, Shuffle, make_order
from utils.data.loader import explaining_errors, train_loader
from utils.settings import memory, rooms
from utils.settings.config import ROOT, Settings
from utils.settings.progress import progress
from utils.settings.sections import TrainSettings
from utils.train import checkpoint, nonfinite
from utils.train.batchnorm import share_batch_norm
from utils.train.callbacks import Callbacks
from utils.train.experiment import Experiment, ValidationResult
from utils.train.history import History, make_whole, resumable, save
from utils.train.profile import Profile
from utils.train.ranks import Ranks, worker_count
from utils.train.run_folder import Run, net_checksum
from utils.train.schema import FORMAT
from utils.train.solver import Solver
from utils.train.step_values import NonFinite, StepValues, one_behind


def train(experiment: Experiment, run: Run, ranks: Ranks, resume: bool) -> None:
    """Train until the last epoch. Write best.pt and last.pt to the run's folder, and what the callbacks of --log write."""
    settings, samples = experiment.settings, experiment.samples
    callbacks = Callbacks(settings.train.log if ranks.first else [])
    solver, order, doubt = make_solver(experiment, run, ranks, resume)
    described = {"net": solver.net.spec, **experiment.description, "data": samples.checksums}
    if settings.train.teacher:
        described["teacher"] = net_checksum(settings.train.teacher)
    ranks.check_alike(described)
    history = restore(experiment, solver, described, run) if resume else History(experiment.figure)
    first, last = history.epochs, settings.train.epochs
    validate = experiment.validator(solver)
    if not last:
        _keep(experiment, validate(), described, run, ranks)
        return
    loader = make_loader(samples.batches, order.epochs(first, last), settings.train, ranks.device)
    images = len(order) * order.batch * ranks.count  # of an epoch
    if first >= last:
        logger.info(f"{run.folder.name} is finished: all {last} epochs are trained; a larger --epochs trains longer")
    with (
        callbacks,
        closing(loader),
        closing(solver.phases),
        explaining_errors(loader, lambda: f"; --resume goes on from epoch {history.epochs}" if history.epochs else ""),
        progress(
            total=last * images, initial=first * images, unit=" images", disable=not ranks.first, smoothing=0.05
        ) as bar,
    ):
        callbacks.start(run.folder, settings.flat(), history)
        batches = iter(loader)
        for epoch in range(first, last):
            if 0 < settings.train.early_stop <= history.epochs_since_best():
                figure = experiment.says.partition(" {")[0]
                logger.info(f"no better validation {figure} for {settings.train.early_stop} epochs: stopped early")
                break
            bar.set_description(f"epoch {epoch + 1}/{last}")
            with _memory(settings, order.batch, run, epoch):
                terms, seconds, waited = train_epoch(solver, batches, order, epoch, samples.batches.name, bar)
            result = validate()
            speed = images / seconds
            better = history.add(
                {"epoch": epoch, "lr": solver.schedule(solver.step - 1), **terms, **result.figures},
                {"epoch": epoch, "seconds": seconds, "waiting": waited, "images_per_second": speed},
            )
            if ranks.first:
                save(run, history, _values(described, settings, epoch, result), solver.state_dict(), better)
                callbacks.epoch(history.last_epoch(), result.pictures)
                if resume:  # its values may differ from those of the epochs before
                    write_text(run.folder / "args.yaml", settings.dump())
            validated = _in_words(experiment, result.figures[experiment.figure], better)
            logger.info(f"epoch {epoch + 1}/{last}: loss {terms['loss']:.4f}{validated}, {speed:.0f} images/s")
    if history.diverged():
        logger.warning(
            f"the loss has risen, from {history.rows[0]['loss']:.4g} to {history.rows[-1]['loss']:.4g}: the net has "
            "diverged; lower --learning-rate"
        )
    if doubt:
        logger.warning(doubt)
    ranks.wait()  # until the first process has written the last checkpoint


def _keep(experiment: Experiment, result: ValidationResult, described: dict[str, Any], run: Run, ranks: Ranks) -> None:
    """Write best.pt of a training without epochs: the net as it begins."""
    if ranks.first:
        checkpoint.save(run.weights, _values(described, experiment.settings, None, result))
    logger.info(
        f"no epochs: the net is kept as it begins{_in_words(experiment, result.figures[experiment.figure], False)}"
    )
    ranks.wait()  # until the first process has written the checkpoint


def _in_words(experiment: Experiment, figure: float, better: bool) -> str:
    """Return the validation figure of an epoch in words, empty without validation faces."""
    return "" if np.isnan(figure) else f", validation {experiment.says.format(figure)}{' (best)' if better else ''}"


def _values(
    described: dict[str, Any], settings: Settings, epoch: int | None, result: ValidationResult
) -> dict[str, Any]:
    """Return the values of a checkpoint but for the state of the training."""
    return {
        "format": FORMAT,
        **described,
        **result.limits,
        "args": settings.flat(),
        **({} if epoch is None else {"epoch": epoch}),
        **result.figures,
        "threads": torch.get_num_threads(),
        "model": {name: tensor.detach().cpu() for name, tensor in result.state.items()},
    }


def make_loader(batches: Dataset, keys: Iterable, train: TrainSettings, device: torch.device) -> Any:
    """Return a loader of batches[key] for all keys in turn.
    The setting `pixels` tells where pictures are made: CPU or device.
    """
    gpu = device.type == "cuda"
    workers = worker_count(train.workers, 16 if gpu else 8)
    on_device = train.pixels == "device" or (train.pixels == "auto" and gpu and rooms.gpu)
    if isinstance(batches, Batches) and on_device:
        return rooms.gpu.DeviceLoader(batches, keys, device, max(workers, 1))
    return train_loader(batches, keys, workers, gpu)


def make_solver(experiment: Experiment, run: Run, ranks: Ranks, resume: bool) -> tuple[Solver, Shuffle, str]:
    """Return the solver of a net with initial weights, the order of the batches, and the doubt about these weights, see
    `InitialWeights`. Write the settings of a new run.
    """
    settings, samples = experiment.settings, experiment.samples
    train = settings.train
    torch.manual_seed(train.seed)
    try:
        order = make_order(
            len(samples.batches),
            samples.labelled,
            train,
            ranks.rank,
            ranks.count,
            samples.shares,
            samples.unlabelled_share,
        )
        net, started = experiment.net(run.last if resume else None)
        if ranks.count > 1:
            net = share_batch_norm(net, ranks.device)
        net = net.to(ranks.device, memory_format=torch.channels_last)
        phases = Profile(run.folder / "trace.json", ranks.device) if train.profile and ranks.first else None
        if train.warmup >= train.epochs > 0 and ranks.first:
            logger.warning(
                f"the warm-up of {train.warmup:g} epochs (--warmup) is as long as the training of {train.epochs}: its rate "
                f"stays below --learning-rate {train.learning_rate:g}"
            )
        solver = Solver(net, train, settings.loss, len(order) // train.accumulate, ranks, phases)
    except ValueError as error:
        raise UserError(str(error)) from None
    if ranks.first and not resume:
        run.folder.mkdir(exist_ok=True)
        write_text(run.folder / "args.yaml", settings.dump())
        started.write(run.folder / "initialisation.csv")
    logger.info(
        f"{run.folder.name}: {experiment.title}, from {started.words}; {samples.words}; {ranks.count} x "
        f"{ranks.device}, {solver.dtype or 'float32'}"
    )
    if started.doubt:
        logger.warning(started.doubt)
    return solver, order, started.doubt


def restore(experiment: Experiment, solver: Solver, described: dict[str, Any], run: Run) -> History:
    """Restore the solver from a run's last checkpoint. Return the history of its epochs.

    described: what a checkpoint of this training would hold except weights. UserError if the checkpoint holds something
    else.
    """
    stored = resumable(
        run,
        {key: described[key] for key in ("net", "layout", "data", "teacher") if key in described},
        ROOT / experiment.settings.data.data_root,
    )
    stored["best"] = solver.ranks.agree(lambda: make_whole(run, experiment.figure, stored))
    stored["rows"][-1]["best"] = stored["best"]
    history = History(experiment.figure, stored["rows"], stored["times"], stored["best"])
    threads = stored.get("threads", 0)
    if not experiment.settings.train.threads and threads not in (0, torch.get_num_threads()) and threads <= cores():
        torch.set_num_threads(threads)  # the last digits of sums depend on the number of threads
        logger.info(f"{threads} CPU threads, as before")
    try:
        solver.load_state_dict(stored["solver"])
    except ValueError as error:
        raise UserError(f"{run.last} cannot be resumed: {error}; train a new run") from None
    solver.step = history.epochs * solver.schedule.steps  # the number of steps per epoch may have changed
    return history


def _memory(settings: Settings, batch: int, run: Run, epoch: int):
    """Return a context in which a lack of memory raises UserError, which names flags that need less memory."""
    smaller = memory.smaller_steps(batch, settings.train.accumulate, settings.net.input_size)
    later = f"; with --resume --exp {run.folder} it goes on from epoch {epoch}" if epoch else ""
    return memory.advice(f"--batch-size {batch} and --input-size {settings.net.input_size}", f"give {smaller}{later}")


def train_epoch(
    solver: Solver, batches: Iterator, order: Shuffle, epoch: int, name: Callable[[int], str], bar
) -> tuple[dict, float, float]:
    """Train one epoch. Return ({loss term: mean}, seconds, seconds spent waiting for data).

    name(index): the name of a sample. UserError, with the names of the samples, if a loss or gradient is not finite.
    """
    solver.begin()
    torch.manual_seed(int(np.random.default_rng((order.seed, epoch, order.rank)).integers(2**63)))  # for dropout
    start, waited, sums, steps = time.perf_counter(), 0.0, {}, len(order) // solver.accumulate

    def trained() -> Iterator[StepValues]:
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
        raise UserError(nonfinite.error_with_samples(error, solver, epoch, name)) from None
    except ValueError as error:  # batch norm cannot normalise a single value per channel
        raise UserError(f"{error}; give a larger --batch-size or --input-size") from None
    return sums, time.perf_counter() - start, waited
