"""--list-nets: parameters, MACs and latency of a net."""

import json
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from extras.tools.cost import Cost, counted_cost
from nets import NETS, NetOptions, Trainable, net_row
from pipnet.errors import UserError, lines
from pipnet.session import open_session
from utils.evaluate.tables import markdown_table, with_numbers
from utils.export.files import export_onnx
from utils.settings.config import ROOT
from utils.train.make_net import new_net

FIGURES = ROOT / "benchmarks" / "results" / "zoo.json"
OF_A_PIP_HEAD = "figures of nets with head pip for 68 landmarks"
HEADER = ["net", "published NME %", "input px", "parameters M", "MACs G", "ONNX ms"]


def random_net(name: str, head: str = "pip", size: int | None = None, count: int = 68, **options) -> Trainable:
    """Return a net for `count` landmarks with random weights. size: px, None: that of its row.
    ValueError for wrong options.
    """
    face = np.random.default_rng(0).uniform(0.2, 0.8, (count, 2))
    size = size or net_row(name).input_size
    return new_net(NetOptions(name, head, None, size, num_nb=min(10, count - 1), head_options=options), face)


def cost_by_name(name: str) -> Cost:
    """Return the cost of a net with a PIP head; its latency is None."""
    with torch.device("meta"):
        return counted_cost(random_net(name).spec)


def cpu_ms(file: Path, size: int, seconds: float = 1.0) -> float:
    """Return ms of CPU time for one face with an exported file and one thread.

    It is the time of the fastest call within `seconds`, which other processes disturbed least.
    """
    session, image = open_session(file, 1, "export it"), np.zeros((1, size, size, 3), np.uint8)
    spent: list[float] = []
    while len(spent) < 5 or sum(spent) < seconds:
        start = time.thread_time()
        session.run(None, {"image": image})
        spent.append(time.thread_time() - start)
    return 1000 * min(spent)


def measured_cost(name: str) -> Cost:
    """Return the cost of a net with a PIP head, with its latency on this machine. ValueError for an unknown net."""
    net = random_net(name)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "net.onnx"
        export_onnx(net, file, {})
        return cost_by_name(name)._replace(latency=cpu_ms(file, net.spec["input_size"]))


def list_nets(names: list[str]) -> list[dict]:
    """Print a table of the backbones with a PIP head and return its rows.

    Latencies come from benchmarks/results/zoo.json; those of `names` are measured now.
    """
    if names:
        try:
            rows = [_row(name, measured_cost(name)) for name in names]
        except ValueError as error:
            raise UserError(str(error)) from None
        how = "measured here, one thread"
    else:
        stored = json.loads(FIGURES.read_text(encoding="utf-8")) if FIGURES.is_file() else {}
        known = {name: Cost(*figures) for name, figures in stored.get("nets", {}).items()}
        rows = [_row(name, known.get(name) or cost_by_name(name)) for name in NETS]
        how = f"ONNX on {stored['machine']['cpu']}, one thread; " if stored else ""
        how += "--list-nets NAME ... measures here, timm:NAME too: any net of timm with feature maps"
    print(lines(f"{markdown_table(rows, HEADER)}\n\n{OF_A_PIP_HEAD}; {how}"))
    return with_numbers(dict(zip(HEADER, row, strict=True)) for row in rows)


def _row(name: str, spent: Cost) -> list[str]:
    spoken = "" if spent.latency is None else f"{spent.latency:.1f}"
    row = net_row(name)
    return [name, row.note, str(row.input_size), f"{spent.parameters:.2f}", f"{spent.macs:.2f}", spoken]
