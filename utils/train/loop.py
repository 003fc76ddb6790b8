"""The epochs of a training, whatever is trained: steps, validation, the files of the run."""
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import torch
from loguru import logger
from torch import Tensor
from torch.utils.data import DataLoader

from pipnet.errors import UserError
from utils import memory
from utils.data.dataset import Order
from utils.progress import progress
from utils.train import run_folder as run
from utils.train import solver
from utils.train.ranks import Ranks


class Job(NamedTuple):
    """What a task gives the epochs.

    samples: has `names`, for errors; validate() -> (weights to keep, figure, the lower the better, NaN without validation);
    pack(weights, epoch, figure) -> the checkpoint that inference needs; says: how the log writes the figure.
    """

    solve: solver.Solver
    order: Order
    loader: DataLoader
    samples: object
    history: run.History
    validate: Callable[[], tuple[dict[str, Tensor], float]]
    pack: Callable[[dict[str, Tensor], int, float], dict]
    says: str = "NME {:.3f} %"


def fit(job: Job, args: SimpleNamespace, here: run.Run, ranks: Ranks) -> None:
    """Trains to the last epoch; best.pt, last.pt, step.csv, time.csv and TensorBoard events go to the run's folder."""
    solve, order, history = job.solve, job.order, job.history
    keeper = run.Keeper(here, history) if ranks.first else None
    per_epoch = len(order) * order.batch * ranks.count
    with progress(total=args.epochs * per_epoch, initial=history.epochs * per_epoch, unit=" images", disable=not ranks.first,
                  smoothing=0.05) as bar:
        for epoch in range(history.epochs, args.epochs):
            if args.early_stop and history.epochs_since_best() >= args.early_stop:
                logger.info(f"no better validation {job.says.split()[0]} for {args.early_stop} epochs: stopped early")
                break
            bar.set_description(f"epoch {epoch + 1}/{args.epochs}")
            smaller = memory.smaller_steps(order.batch, args.accumulate, args.input_size)
            later = f"; with --resume --exp {here.folder} it goes on from epoch {epoch}" if epoch else ""
            with memory.advice(f"--batch-size {order.batch} and --input-size {args.input_size}", f"give {smaller}{later}"):
                terms, seconds, waited = train_epoch(solve, job.loader, order, epoch, job.samples, bar)
            kept, figure = job.validate()
            times = {"epoch": epoch, "seconds": seconds, "waiting": waited, "images_per_second": per_epoch / seconds}
            better = history.add({"epoch": epoch, "lr": solve.schedule(solve.step - 1), **terms, history.figure: figure}, times)
            if keeper:
                keeper.save(job.pack(kept, epoch, figure), solve.state_dict(), better)
            validated = "" if np.isnan(figure) else f", validation {job.says.format(figure)}{' (best)' if better else ''}"
            logger.info(f"epoch {epoch + 1}/{args.epochs}: loss {terms['loss']:.4f}{validated}, "
                        f"{per_epoch / seconds:.0f} images/s")
    ranks.wait()  # until the first process has written the last checkpoint


def train_epoch(solve: solver.Solver, loader: DataLoader, order: Order, epoch: int, samples, bar) -> tuple[dict, float, float]:
    """({loss term: mean}, seconds, seconds spent waiting for data). A loss that is not finite stops the run.

    samples: has the `names` that its error lists.
    """
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
        names = ", ".join(samples.names[index] for index in indices[:32]) + more
        later = f"; --resume goes on from epoch {epoch}" if epoch else ""
        raise UserError(f"the loss is not finite in epoch {epoch + 1}, step {error.step} ({error}); samples: {names}; "
                        f"lower --learning-rate or look at these{later}") from None
    except ValueError as error:  # batch norm has no spread over one sample of one cell
        raise UserError(f"{error}; give a larger --batch-size or --input-size") from None
    return sums, time.perf_counter() - start, waited
