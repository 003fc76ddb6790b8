"""Processes of a distributed run: start, communication, and the CPU cores of each."""

import atexit
import ctypes
import hashlib
import os
import platform
import re
import sys
import time
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from loguru import logger
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from pipnet.cores import cores, free_cores
from pipnet.errors import UserError, one_line

LOST = re.compile("Connection (closed|reset) by peer|Broken pipe|gloo.*([Tt]imed out|closed)", re.DOTALL)
TIMEOUT = timedelta(minutes=30)  # a collective operation of the training waits so long for the other processes
PATIENCE = timedelta(hours=12)  # the processes wait so long while one of them prepares data or exports a net
TRIM_THRESHOLD, MMAP_MAX = -1, -4  # of glibc's mallopt(): M_TRIM_THRESHOLD, M_MMAP_MAX


class Ranks(NamedTuple):
    """This process among those of the run.

    patient: the process group for waits that may take hours.
    """

    rank: int
    count: int
    device: torch.device
    patient: dist.ProcessGroup | None = None

    @property
    def first(self) -> bool:
        """Return whether this process is the one that writes files and prints."""
        return self.rank == 0

    def wait(self) -> None:
        """Wait until every process has called this."""
        if self.count > 1:
            dist.barrier()

    def one_by_one(self, action):
        """Run `action` in the node's first process, then in the others, which find its files.
        Return the result in this process.

        A UserError in any process is raised in all.
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
        """Run `action` in the first process; return its result, or raise its UserError, in all processes."""
        outcome: list[Any] = [None, None]  # result, message of the error
        if self.first:
            try:
                outcome[0] = action()
            except UserError as error:
                outcome[1] = str(error)
        if self.count > 1:
            dist.broadcast_object_list(outcome, group=self.patient)
        result, error = outcome
        if error is not None:
            raise UserError(error)
        return result

    def gather(self, value) -> list:
        """Return the picklable `value` of every process, in the order of the ranks."""
        values: list[Any] = [value] * self.count
        if self.count > 1:
            dist.all_gather_object(values, value, group=self.patient)
        return values

    def check_alike(self, facts: dict[str, Any]) -> None:
        """Raise UserError in all processes, naming the first key, if one of them has other facts than the first one.

        Otherwise nodes with other settings would train another net together, or wait for each other for ever.
        """
        if self.count == 1:
            return
        first, *others = self.gather((platform.node(), {key: _short(value) for key, value in facts.items()}))
        for rank, (node, found) in enumerate(others, 1):
            for key in {**first[1], **found}:
                here, there = first[1].get(key, "not given"), found.get(key, "not given")
                if here != there:
                    raise UserError(
                        f"{key} is {here} in process 0 on {first[0]}, but {there} in process {rank} on {node}; all nodes "
                        "need the same flags, args.yaml, code, versions and sets"
                    )

    def sum(self, tensor: Tensor) -> Tensor:
        """Sum a tensor over all processes, in place, and return it."""
        if self.count > 1:
            dist.all_reduce(tensor)
        return tensor

    def sum_each(self, tensors: list[Tensor]) -> None:
        """Sum each tensor over all processes, in place, with one message. All tensors must have one type."""
        if self.count > 1 and tensors:
            flat = self.sum(torch.cat([tensor.flatten() for tensor in tensors])).split(
                [tensor.numel() for tensor in tensors]
            )
            torch._foreach_copy_(tensors, [part.view(tensor.shape) for part, tensor in zip(flat, tensors, strict=True)])

    def broadcast(self, tensors: list[Tensor]) -> None:
        """Overwrite the tensors in all processes with those of the first one."""
        if self.count > 1:
            for tensor in tensors:
                dist.broadcast(tensor.detach(), 0)

    @contextmanager
    def connected(self):
        """Leave the process group together at the end of the body.
        Raise UserError when another process has ended or hangs.

        The error is raised 20 s late: by then the launcher has usually stopped this process, so that only the message
        of the process that failed is shown.
        """
        try:
            yield
        except RuntimeError as error:
            if self.count == 1 or not (isinstance(error, dist.DistError) or LOST.search(str(error))):
                raise
            time.sleep(20)
            raise UserError(
                f"another process has ended, or has not answered for {TIMEOUT.total_seconds() / 60:g} minutes; its own "
                "last line, or that of its node, names the cause; go on with --resume"
            ) from None
        if self.count > 1:
            dist.destroy_process_group()


def cannot_meet(address: str, port: str | int, error: Exception) -> str:
    """Return the message of an error of torch when the processes of a run meet."""
    return (
        f"the processes cannot meet at MASTER_ADDR {address} and MASTER_PORT {port} ({one_line(error)}); give others, "
        "the same on all nodes"
    )


def _short(value: Any) -> str:
    """Return a value as text; a long one as a checksum."""
    text = repr(value)
    return text if len(text) <= 60 else f"checksum {hashlib.sha256(text.encode(errors='replace')).hexdigest()[:12]}"


def start_ranks() -> Ranks:
    """Join torchrun's process group (NCCL on GPUs, else gloo), if there is one. Return this process's place in it."""
    count, local = variable("WORLD_SIZE", 1), variable("LOCAL_RANK", 0)
    cuda, gpus = torch.cuda.is_available(), torch.cuda.device_count()
    if cuda and _local_count() > gpus:
        raise UserError(
            f"{_local_count()} processes, but {gpus} GPUs here; start one process per GPU: bash main.sh {gpus} ..."
        )
    device = torch.device("cuda", local) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    if count == 1:
        return Ranks(0, 1, device)
    try:
        store, rank, count = next(rendezvous("env://"))
        if os.environ.get("GROUP_WORLD_SIZE") == "1":  # the launcher's store still holds what a stopped attempt wrote
            store = PrefixStore(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"), store)
        dist.init_process_group(
            "nccl" if cuda else "gloo",
            store=store,
            rank=rank,
            world_size=count,
            timeout=TIMEOUT,
            device_id=device if cuda else None,
        )
    except ValueError as error:
        raise UserError(
            f"WORLD_SIZE is {count}, but {one_line(error)}; start several processes with bash main.sh {count} ..., "
            "or unset WORLD_SIZE"
        ) from None
    except dist.DistError as error:  # a port that is in use, an address that nobody has or answers at
        raise UserError(cannot_meet(os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"], error)) from None
    atexit.register(_leave)
    patient: Any = dist.new_group(timeout=PATIENCE, backend="gloo")
    return Ranks(rank, count, device, patient)


def _local_count() -> int:
    """Return the number of this run's processes on this node."""
    return variable("LOCAL_WORLD_SIZE", 1)


def variable(name: str, default: int) -> int:
    """Return the whole number in an environment variable that torchrun sets. UserError if it holds something else."""
    text = os.environ.get(name, str(default))
    if not text.isdecimal():
        raise UserError(
            f"the environment variable {name} must be a whole number, not '{text}'; start several processes with "
            "bash main.sh N ..."
        )
    return int(text)


def _leave() -> None:
    """End a process that has not left the process group, mostly after an error.

    NCCL's shutdown would wait for the other processes, which wait for this one in a collective.
    """
    if dist.is_initialized():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)


def set_threads(threads: int, deterministic: bool) -> None:
    """Set the number of this process's CPU threads, and whether kernels must be deterministic.

    threads: 0 takes the process's share of the node's cores, without a GPU only of the idle ones. More threads than
    idle cores are many times slower, because the threads wait for each other.
    """
    processes = _local_count()
    wanted = threads or max(cores() // processes, 1)
    if not threads and wanted > 1 and not torch.cuda.is_available():
        if dist.is_initialized():
            dist.barrier()  # so that no process measures the work of another one of this run
        free = free_cores()
        wanted = min(wanted, max(round(free / processes), 1))
        logger.info(
            f"CPU threads: {wanted} per process, because {free:.1f} of {cores()} cores are free; "
            "--threads N sets another number"
        )
    torch.set_num_threads(wanted)
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS raises an error without it
    torch.use_deterministic_algorithms(deterministic)
    torch.backends.cudnn.benchmark = not deterministic


def keep_memory() -> None:
    """Let glibc keep the memory of freed tensors for the next ones; with another C library do nothing.

    Otherwise glibc gives large tensors back to the system, which then zeroes new pages for them in each step: with
    ResNet-18, 128 px and a batch of 16 on one core, a step takes 11 % more of the processor's time.
    """
    if platform.libc_ver()[0] == "glibc":
        library = ctypes.CDLL(None)
        library.mallopt(MMAP_MAX, 0)
        library.mallopt(TRIM_THRESHOLD, 2**31 - 1)


def worker_count(wanted: int | None, most: int) -> int:
    """Return the number of this process's loader processes: `wanted`; None: its share of the cores minus 1, from 1 to
    `most`.
    """
    return wanted if wanted is not None else min(max(cores() // _local_count() - 1, 1), most)
