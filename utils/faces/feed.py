"""Batches of faces whose pictures are made on the device of the training, by a thread that is some batches ahead of it."""
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from queue import Empty, Queue
from threading import Event, Thread

import numpy as np
import torch
from loguru import logger
from torch import Tensor

from utils.faces.batches import Batch, Batches, assembled
from utils.faces.device_pixels import carried_out, orders, uploaded
from utils.faces.faces import GIB

AHEAD = 2      # batches that wait for the training
DECODED = 256  # crops that are decoded at once


class Feed:
    """Yields batches[key] for all keys in turn, with images and labels on a device; in place of a DataLoader, until it is left.

    The crops of all faces stay on the device if half of its free memory holds them. Those of a larger set are decoded batch by
    batch. threads: that decode. free: bytes; None: those of a GPU, and none on a CPU, where crops are in `--cache`.
    """
    num_workers = 0  # loader processes

    def __init__(self, batches: Batches, keys: Iterable, device: torch.device, threads: int, free: int | None = None):
        self.batches, self.keys, self.device, self.threads, self.kept = batches, keys, device, threads, None
        gpu = device.type == "cuda"
        self.free = (torch.cuda.mem_get_info(device)[0] if gpu else 0) if free is None else free
        self.stream = torch.cuda.Stream(device) if gpu else None
        self.made, self.left = Queue(AHEAD), Event()
        self.thread = Thread(target=self._work, daemon=True)

    def __enter__(self) -> "Feed":
        return self

    def __exit__(self, *_) -> None:
        self.left.set()
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
            with ThreadPoolExecutor(self.threads) as self.pool, torch.cuda.stream(self.stream) if self.stream else nullcontext():
                self._keep()
                for key in self.keys:
                    if self.left.is_set():
                        return
                    self.made.put((self._batch(key), self.stream and self.stream.record_event()))
            self.made.put(None)
        except BaseException as error:  # the training raises it
            self.made.put(error)

    def _keep(self) -> None:
        """Bring the crops of all faces to the device, each once, if there is room."""
        crops, most = self.batches.faces.crops, self.free / 2 / (3 * self._side() ** 2)
        if crops.rows is None and len(crops) > most:
            return
        _, first, slots = np.unique(np.arange(len(crops)) if crops.rows is None else crops.rows, True, True)
        if len(first) > most:
            return
        kept = torch.empty((len(first), *[self._side()] * 2, 3), dtype=torch.uint8, device=self.device)
        for start in range(0, len(first), DECODED):
            if self.left.is_set():
                return
            kept[start:start + DECODED] = self._decoded(first[start:start + DECODED])
        self.kept, self.slots = kept, slots
        logger.info(f"{len(first)} crops are kept on {self.device}, {kept.nbytes / GIB:.2f} GiB")

    def _side(self) -> int:
        return self.batches.faces.crops.size + 2 * self.batches.faces.crops.border

    def _decoded(self, indices: np.ndarray) -> Tensor:
        """Return stored crops (B, S, S, 3) on the device."""
        host = torch.empty((len(indices), *[self._side()] * 2, 3), dtype=torch.uint8, pin_memory=self.stream is not None)
        crops = self.batches.faces.crops
        list(self.pool.map(lambda place, index: np.copyto(place, crops[index]), host.numpy(), indices.tolist()))
        return host.to(self.device, non_blocking=True)

    def _batch(self, key: tuple[np.ndarray, np.ndarray]) -> Batch:
        drawings, labels, matrix = self.batches.planned(key)
        numbers = [[orders(drawing) for drawing in drawings], labels.packed.numpy(), matrix,
                   None if self.kept is None else self.slots[key[1]]]
        work, packed, matrix, slots = uploaded(numbers, self.device)
        crops = self._decoded(key[1]) if self.kept is None else self.kept[slots]
        return assembled(carried_out, crops, work, labels._replace(packed=packed), matrix, torch.from_numpy(key[1]))
