"""--list-nets: parameters, MACs and latency of a net; and overfitting a few faces, which shows that it can learn."""
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from nets import NETS, Labels, NetOptions, Trainable, build_net, make_spec, net_row
from pipnet.errors import UserError
from pipnet.geometry import box_of, crop_box, cut, to_crop
from pipnet.session import open_session
from utils.config import ROOT, load_protocol, read_defaults
from utils.evaluate.tables import figures, table
from utils.export.files import export_onnx

FIGURES = ROOT / "benchmarks" / "results" / "zoo.json"
RATE = 3e-3  # peak learning rate of overfitting
HEADER = ["net", "published NME %", "input px", "parameters M", "MACs G", "ONNX ms"]


class Cost(NamedTuple):
    """Cost of one face, as exported: parameters in millions, multiply-accumulates in billions, ms of CPU time in onnxruntime
    with one thread (None if not measured)."""
    parameters: float
    macs: float
    latency: float | None = None


def make(name: str, head: str = "pip", size: int | None = None, count: int = 68, **options) -> Trainable:
    """Return a net for `count` landmarks with random weights; size None takes its row's. ValueError for a pair that fails."""
    face = np.random.default_rng(0).uniform(0.2, 0.8, (count, 2))
    return build_net(make_spec(NetOptions(name, head, input_size=size or net_row(name).input_size, num_nb=min(10, count - 1),
                                          head_options=options), face))


def size(name: str) -> Cost:
    """Return the cost of a net with a PIP head, without latency."""
    with torch.device("meta"):
        return spent(make(name).spec)


def refiner(spec: dict) -> str:
    """Return in words what the refiner adds to the cost of a net; --reinit and --local-parts are not counted."""
    whole = {key: value for key, value in spec.items() if key not in ("reinit", "local_parts")}
    plain, whole = (spent(part) for part in ({**whole, "refine": False}, whole))
    return (f"refiner: {whole.parameters - plain.parameters:.3f} M parameters and {1e3 * (whole.macs - plain.macs):.1f} M MACs "
            f"beside {plain.parameters:.2f} M and {1e3 * plain.macs:.0f} M")


def spent(spec: dict) -> Cost:
    """Return the cost of the net of a spec, without latency; only shapes are computed."""
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"), torch.inference_mode(), FlopCounterMode(display=False) as counter:
        net = build_net(spec).eval().reparameterized()
        before, side = counter.get_total_flops(), net.spec["input_size"]
        net.predict(torch.zeros(1, side, side, 3, dtype=torch.uint8))
    return Cost(sum(p.numel() for p in net.parameters()) / 1e6, (counter.get_total_flops() - before) / 2e9)


def latency(file: Path, size: int, seconds: float = 1.0) -> float:
    """Return ms of CPU time for one face with an exported file, one thread: the best of some seconds, which other load disturbs
    least."""
    session, image = open_session(file, 1, "export it"), np.zeros((1, size, size, 3), np.uint8)
    spent: list[float] = []
    while len(spent) < 5 or sum(spent) < seconds:
        start = time.thread_time()
        session.run(None, {"image": image})
        spent.append(time.thread_time() - start)
    return 1000 * min(spent)


def cost(name: str) -> Cost:
    """Return the cost of a net with a PIP head, with latency. ValueError for an unknown net."""
    net = make(name)
    with exported(net) as file:
        return size(name)._replace(latency=latency(file, net.spec["input_size"]))


@contextmanager
def exported(net: Trainable) -> Iterator[Path]:
    """Export the net to a temporary file, which exists inside this context."""
    with tempfile.TemporaryDirectory() as folder:
        export_onnx(net, Path(folder) / "net.onnx", {})
        yield Path(folder) / "net.onnx"


def list_nets(names: list[str]) -> tuple[str, list[dict]]:
    """Return a table of the backbones with a PIP head, as text and as `figures`.

    Latencies are those of benchmarks/results/zoo.json; `names` are measured now.
    """
    if names:
        try:
            rows = [_row(name, cost(name)) for name in names]
        except ValueError as error:
            raise UserError(str(error)) from None
        return f"{table(rows, HEADER)}\n\nmeasured here, one thread", _figures(rows)
    stored = json.loads(FIGURES.read_text(encoding="utf-8")) if FIGURES.is_file() else {}
    known = {name: Cost(*figures) for name, figures in stored.get("nets", {}).items()}
    where = f"ONNX on {stored['machine']['cpu']}, one thread; " if stored else ""
    rows = [_row(name, known.get(name) or size(name)) for name in NETS]
    how = f"{where}--list-nets NAME ... measures here, timm:NAME too: any net of timm with feature maps"
    return f"{table(rows, HEADER)}\n\n{how}", _figures(rows)


def _figures(rows: list[list[str]]) -> list[dict]:
    return figures(dict(zip(HEADER, row, strict=True)) for row in rows)


def _row(name: str, spent: Cost) -> list[str]:
    spoken = "" if spent.latency is None else f"{spent.latency:.1f}"
    row = net_row(name)
    return [name, row.note, str(row.input_size), f"{spent.parameters:.2f}", f"{spent.macs:.2f}", spoken]


# ---------------------------------------------------------------------------------------------------------- overfitting
@cache
def memorable(count: int, size: int, margin: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Return `count` synthetic faces: crops (M, S, S, 3) uint8 BGR with that margin, landmarks (M, 68, 2) in the crop."""
    from utils.synthetic import render

    protocol, images, landmarks = load_protocol(read_defaults().protocols, "square"), [], []
    for index in range(count):
        face = render(0, index, 2 * size)
        crop = crop_box(box_of(face.landmarks), protocol, 2 * size, 2 * size)
        images.append(cut(face.image, crop, size, margin))
        landmarks.append(to_crop(face.landmarks, crop))
    return torch.from_numpy(np.stack(images)), torch.tensor(np.stack(landmarks), dtype=torch.float32)


def teach(net: Trainable, images: torch.Tensor, landmarks: torch.Tensor, batches: Sequence) -> None:
    """Take a step on each of `batches` (indices of faces). images (M, S, S, 3) with the net's margin, landmarks (M, N, 2).

    In the last third batch norm uses its running statistics, as in inference: those of a small batch would differ too much.
    """
    optimizer, weights = torch.optim.AdamW(net.parameters()), {"cls": 10.0, "reg": 1.0, "sigma": 0.5, "alignment": 1.0}
    net.train()
    for step, chosen in enumerate(batches):
        if step == 2 * len(batches) // 3:
            for module in net.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1, (step + 1) / 10) * (1.01 + np.cos(np.pi * step / len(batches))) / 2
        labels = Labels.pack(landmarks[chosen])
        sums, counts = net.loss(images[chosen], labels), net.count(labels)
        optimizer.zero_grad()
        sum(total / counts[term] * weights[net.terms[term]] for term, total in sums.items()).backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 10.0)
        optimizer.step()


def judge(net: Trainable, face: torch.Tensor, images: torch.Tensor, landmarks: torch.Tensor) -> tuple[float, float]:
    """Return (NME in % of the mean face (N, 2), NME in % of the net) on these faces with 68 landmarks."""
    with torch.inference_mode():
        found = net.eval().predict(images).landmarks
    norm = (landmarks[:, 36] - landmarks[:, 45]).norm(dim=-1)
    return tuple(float(((points - landmarks).norm(dim=-1).mean(1) / norm).mean() * 100) for points in (face, found))


def overfit(name: str, head: str, size: int, steps: int, stride: int | None = None, stages: dict | None = None,
            **options) -> tuple[float, float, Trainable]:
    """Return (NME in % of the mean face, of the net, the net) after `steps` steps on 16 faces, measured on these faces.

    stages: further fields of nets.NetOptions.
    """
    face = memorable(16, size)[1].mean(0)
    torch.manual_seed(0)
    net = build_net(make_spec(NetOptions(name, head, stride, size, head_options=options, **stages or {}), face.numpy()))
    images, landmarks = memorable(16, size, net.input_margin)
    teach(net, images, landmarks, [slice(None)] * steps)
    return *judge(net, face, images, landmarks), net
