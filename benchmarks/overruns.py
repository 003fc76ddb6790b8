"""Convolutions whose gradients oneDNN writes beyond their memory: `python benchmarks/overruns.py [minutes]`.

It needs Linux and a C compiler. guard.c is preloaded: it watches 64 KiB behind each block of memory. Random convolutions take a
step in float32 or bf16, each in a process of its own, since it may crash. `nets/onednn.py` names the shapes to avoid; no other
one may overrun its memory.
"""
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from record import save
from torch import nn

from nets.onednn import overruns

SEED, MINUTES, GUARD, KINDS = 0, 5.0, Path(__file__).with_name("guard.c"), ("avoided", "others")
SIDES = (4, 7, 8, 16, 17, 24, 32, 33, 48, 56, 64, 65, 96, 97, 112, 128, 160)


def drawn(rng: np.random.Generator) -> tuple[nn.Conv2d, torch.Tensor, bool]:
    """Return a convolution, its input, and whether it runs in bf16. The gradient of the input is needed in half of the cases."""
    def one(values: tuple[int, ...]) -> int:
        return int(rng.choice(values))

    channels, kernel = one((1, 2, 3, 4, 6, 8, 12, 15, 16, 17, 20, 24, 32, 48, 64)), one((1, 1, 1, 1, 2, 3, 5))
    depthwise, size = rng.random() < 0.15, (one(SIDES[2:]), one(SIDES[2:]))
    outputs = channels if depthwise else one((8, 16, 24, 32, 48, 64, 128))
    conv = nn.Conv2d(channels, outputs, kernel, one((1, 2, 2, 3, 4)), one((0, kernel // 2)), groups=channels if depthwise else 1)
    images = torch.randn(one((1, 2, 4, 8)), channels, *size if rng.random() < 0.3 else (size[0], size[0]))
    if rng.random() < 0.7:
        conv, images = conv.to(memory_format=torch.channels_last), images.to(memory_format=torch.channels_last)
    return conv, images.requires_grad_(bool(rng.random() < 0.5)), bool(rng.random() < 0.4)


def work(seconds: float) -> None:
    """Write a line about each convolution to stderr; the guard and a crash add theirs."""
    torch.set_num_threads(1)
    rng, end = np.random.default_rng(SEED), time.monotonic() + seconds
    while time.monotonic() < end:
        conv, images, half = drawn(rng)
        kind = KINDS[not (overruns(conv) and images.is_contiguous(memory_format=torch.channels_last))]
        os.write(2, f"{kind} {'bf16' if half else 'float32'} {tuple(images.shape)} {conv}\n".encode())
        child = os.fork()
        if not child:
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                out = conv(images)
            out.float().square().mean().backward()
            del out
            conv.weight.grad = images.grad = None
            os._exit(0)
        if os.waitpid(child, 0)[1]:
            os.write(2, b"overrun\n")


def search(minutes: float) -> dict:
    """Return counts of shapes and of overruns, for those that nets/onednn.py avoids and for the others, and all overruns."""
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "guard.so"
        subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-o", library, GUARD, "-ldl"], check=True)
        command = [sys.executable, __file__, "work", str(60 * minutes)]
        done = subprocess.run(command, stderr=subprocess.PIPE, text=True, env={**os.environ, "LD_PRELOAD": str(library)})
    shapes, found, last = Counter(), {}, ""
    for line in done.stderr.splitlines():
        kind, _, rest = line.partition(" ")
        if kind in KINDS:
            shapes[kind] += 1
            last = f"{kind}: {rest}"
        elif line == "overrun":
            found[last] = None
    counts = {kind: {"shapes": shapes[kind], "overruns": sum(text.startswith(kind) for text in found)} for kind in KINDS}
    return {**counts, "overruns": list(found)}


if __name__ == "__main__":
    if sys.argv[1:2] == ["work"]:
        work(float(sys.argv[2]))
    else:
        minutes = sys.argv[1:2]
        found = search(float(minutes[0]) if minutes else MINUTES)
        save("overruns", " ".join(["python benchmarks/overruns.py", *minutes]), SEED, found)
