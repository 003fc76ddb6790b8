"""Training batches whose pictures are made on the device, by a thread that works some batches ahead of the training."""

from collections.abc import Iterable, Iterator
from contextlib import nullcontext, suppress
from queue import Empty, Queue
from threading import Event, Thread

import numpy as np
import torch
from loguru import logger
from torch import Tensor

from extras.gpu.device_pixels import apply_changes, compile_changes, to_device
from utils.data.batches import Batch, Batches, finished
from utils.data.faces import GIB
from utils.data.threads import Threads

AHEAD = 2  # batches that wait for the training
DECODED = 256  # crops that are decoded at once


class DeviceLoader:
    """Yields batches[key] for all keys in turn, with images and labels on a device, until it is closed; it replaces a
    DataLoader.

    The crops of all faces stay on the device if they fit into half of its free memory; otherwise they are decoded batch
    by batch.
    threads: number of threads that decode. free: bytes of free memory; None: measured on a GPU, and 0 on a CPU, where
    `--cache` holds the crops.
    """

    num_workers = 0  # loader processes

    def __init__(self, batches: Batches, keys: Iterable, device: torch.device, threads: int, free: int | None = None):
        self.batches = batches
        self.keys = keys
        self.device = device
        self.faces = batches.faces
        self.side = self.faces.geometry.stored
        gpu = device.type == "cuda"
        if free is None:
            free = torch.cuda.mem_get_info(device)[0] if gpu else 0
        self.free = free
        self.stream = torch.cuda.Stream(device) if gpu else None
        self.pool = Threads(threads)
        self.made = Queue(AHEAD)
        self.closed = Event()
        self.kept = None
        self.thread = Thread(target=self._work, daemon=True)

    def close(self) -> None:
        """End the thread."""
        self.closed.set()
        while self.thread.is_alive():  # it may wait for room
            with suppress(Empty):
                self.made.get(timeout=0.1)

    def __iter__(self) -> Iterator[Batch]:
        if not self.thread.ident:
            self.thread.start()
        while (item := self.made.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            batch, done = item
            if done:
                stream = torch.cuda.current_stream(self.device)
                stream.wait_event(done)
                for tensor in (batch.images, batch.labels.packed, *(batch.labels.weak or ())):
                    tensor.record_stream(stream)  # its memory is not used again before this stream has come so far
            yield batch

    def _work(self) -> None:
        try:
            with self.pool, torch.cuda.stream(self.stream) if self.stream else nullcontext():
                self._keep()
                for key in self.keys:
                    if self.closed.is_set():
                        return
                    self.made.put((self._batch(key), self.stream and self.stream.record_event()))
            self.made.put(None)
        except BaseException as error:  # the training raises it
            self.made.put(error)

    def _keep(self) -> None:
        """Copy the crops of all faces to the device, each once, if there is room."""
        most = self.free // (6 * self.side**2)
        _, first, self.slots = np.unique(self.faces.rows, True, True)
        if len(first) <= most:
            kept = torch.empty((len(first), *[self.side] * 2, 3), dtype=torch.uint8, device=self.device)
            for part in np.split(np.arange(len(first)), range(DECODED, len(first), DECODED)):
                if self.closed.is_set():
                    return
                kept[part[0] : part[-1] + 1] = self._decoded(first[part])
            self.kept = kept
            logger.info(f"{len(first)} crops are kept on {self.device}, {kept.nbytes / GIB:.2f} GiB")

    def _decoded(self, indices: np.ndarray) -> Tensor:
        """Return stored crops (B, S, S, 3) on the device."""
        shape = (len(indices), *[self.side] * 2, 3)
        host = torch.empty(shape, dtype=torch.uint8, pin_memory=self.stream is not None)
        list(
            self.pool.map(lambda place, index: np.copyto(place, self.faces.crop(index)), host.numpy(), indices.tolist())
        )
        return host.to(self.device, non_blocking=True)

    def _batch(self, key: tuple[np.ndarray, np.ndarray]) -> Batch:
        made, batch = self.batches.drawn(key)
        slots = None if self.kept is None else self.slots[key[1]]
        labels = batch.labels
        maps = None if labels.weak is None else labels.weak.matrix.numpy()
        work, packed, maps, slots = to_device(
            [list(map(compile_changes, made)), labels.packed.numpy(), maps, slots], self.device
        )
        crops = self._decoded(key[1]) if self.kept is None else self.kept[slots]
        weak = None if labels.weak is None else labels.weak._replace(matrix=maps)
        return finished(apply_changes, crops, work, batch._replace(labels=labels._replace(packed=packed, weak=weak)))
