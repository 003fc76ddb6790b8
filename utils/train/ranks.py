"""Several processes: this one among them, how they start, what they tell each other, and their share of the CPU."""
import atexit
import os
import re
import sys
import time
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from pipnet.errors import UserError
from utils.cores import cores

LOST = re.compile(r"Connection (closed|reset) by peer|Broken pipe|gloo.*(timed out|Timed out|closed)", re.DOTALL)


class Ranks(NamedTuple):
    """This process among all."""
    rank: int
    count: int
    device: torch.device

    @property
    def first(self) -> bool:
        return self.rank == 0

    def wait(self) -> None:
        """Until every process is here."""
        if self.count > 1:
            dist.barrier()

    def one_by_one(self, action):
        """The result of `action`, run by the node's first process, then by the others: they find what it made.

        A UserError of any process is raised in all.
        """
        result, leads = None, os.environ.get("LOCAL_RANK", "0") == "0"
        for mine in (leads, not leads):
            error = None
            if mine:
                try:
                    result = action()
                except UserError as caught:
                    error = str(caught)
            if texts := [text for text in self.gather(error) if text is not None]:
                raise UserError(texts[0])
        return result

    def agree(self, action):
        """The first process's result of `action`, or its UserError, in all processes."""
        found = [None, None]
        if self.first:
            try:
                found[0] = action()
            except UserError as error:
                found[1] = str(error)
        if self.count > 1:
            dist.broadcast_object_list(found, device=self.device)
        if found[1] is not None:
            raise UserError(found[1])
        return found[0]

    def gather(self, value) -> list:
        """Every process's plain `value`, in the order of the ranks, in all processes."""
        values: list[Any] = [value] * self.count
        if self.count > 1:
            dist.all_gather_object(values, value)
        return values

    def sum(self, tensor: Tensor) -> Tensor:
        """Sum over all processes, in place."""
        if self.count > 1:
            dist.all_reduce(tensor)
        return tensor

    @contextmanager
    def connected(self):
        """Another process that ends in the middle is a UserError here, so late that the launcher has ended this one before it,
        where it can: the process that failed has said why. All processes leave the group together where none failed.
        """
        try:
            yield
        except RuntimeError as error:
            if self.count == 1 or not (isinstance(error, dist.DistError) or LOST.search(str(error))):
                raise
            time.sleep(20)
            raise UserError("another process has ended; its own last line, or that of its node, says why") from None
        if self.count > 1:
            dist.destroy_process_group()


def start_ranks() -> Ranks:
    """Joins the processes that torchrun started (NCCL on GPUs, gloo without), or none."""
    count, local = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("LOCAL_RANK", 0))
    here = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    cuda = torch.cuda.is_available()
    if cuda and here > torch.cuda.device_count():
        gpus = torch.cuda.device_count()
        raise UserError(f"{here} processes, but {gpus} GPUs here; start one process a GPU: bash main.sh {gpus} ...")
    device = torch.device("cuda", local) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    if count > 1:
        # hours, since the first process may prepare a large set while the others wait
        dist.init_process_group("nccl" if cuda else "gloo", timeout=timedelta(hours=12), device_id=device if cuda else None)
        atexit.register(_leave)
    return Ranks(dist.get_rank() if count > 1 else 0, count, device)


def _leave() -> None:
    """At the end of a process that has not left the group, mostly for an error."""
    if not dist.is_initialized():
        return
    if dist.get_backend() == "nccl":
        # its end waits for the other processes, which wait for this one in a collective; with this process the wait ends
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)
    dist.destroy_process_group()


def set_threads(threads: int, deterministic: bool) -> None:
    """CPU threads of this process (0: the node's cores shared by its processes), and whether kernels must be deterministic."""
    torch.set_num_threads(threads or max(cores() // int(os.environ.get("LOCAL_WORLD_SIZE", 1)), 1))
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it cuBLAS refuses, by an error
    torch.use_deterministic_algorithms(deterministic)
    torch.backends.cudnn.benchmark = not deterministic


def worker_count(wanted: int | None) -> int:
    """Loader processes of this rank: what was wanted, else the node's other cores shared by its ranks, at most 8."""
    here = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    return wanted if wanted is not None else min(max(cores() // here - 1, 1), 8)
