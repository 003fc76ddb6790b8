"""--list-nets: parameters, MACs and latency of a net."""

import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from nets import NETS, NetOptions, Trainable, build_net, make_spec, net_row
from pipnet.errors import UserError
from pipnet.session import open_session
from utils.evaluate.tables import markdown_table, with_numbers
from utils.export.files import export_onnx
from utils.settings.config import ROOT
from utils.train.cost import Cost, counted_cost

FIGURES = ROOT / "benchmarks" / "results" / "zoo.json"
OF_A_PIP_HEAD = "figures of nets with head pip for 68 landmarks"
HEADER = ["net", "published NME %", "input px", "parameters M", "MACs G", "ONNX ms"]


def random_net(name: str, head: str = "pip", size: int | None = None, count: int = 68, **options) -> Trainable:
    """Return a net for `count` landmarks with random weights. size: px, None: that of its row.
    ValueError for wrong options.
    """
    face = np.random.default_rng(0).uniform(0.2, 0.8, (count, 2))
    return build_net(
        make_spec(
            NetOptions(
                name, head, input_size=size or net_row(name).input_size, num_nb=min(10, count - 1), head_options=options
            ),
            face,
        )
    )


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
    with exported_to_temporary(net) as file:
        return cost_by_name(name)._replace(latency=cpu_ms(file, net.spec["input_size"]))


@contextmanager
def exported_to_temporary(net: Trainable) -> Iterator[Path]:
    """Export the net and yield the file, which exists within this context only."""
    with tempfile.TemporaryDirectory() as folder:
        export_onnx(net, Path(folder) / "net.onnx", {})
        yield Path(folder) / "net.onnx"


def list_nets(names: list[str]) -> tuple[str, list[dict]]:
    """Return a table of the backbones with a PIP head, as text and as `figures`.

    Latencies come from benchmarks/results/zoo.json; those of `names` are measured now.
    """
    if names:
        try:
            rows = [_row(name, measured_cost(name)) for name in names]
        except ValueError as error:
            raise UserError(str(error)) from None
        return f"{markdown_table(rows, HEADER)}\n\n{OF_A_PIP_HEAD}; measured here, one thread", _figures(rows)
    stored = json.loads(FIGURES.read_text(encoding="utf-8")) if FIGURES.is_file() else {}
    known = {name: Cost(*figures) for name, figures in stored.get("nets", {}).items()}
    where = f"{OF_A_PIP_HEAD}; ONNX on {stored['machine']['cpu']}, one thread; " if stored else f"{OF_A_PIP_HEAD}; "
    rows = [_row(name, known.get(name) or cost_by_name(name)) for name in NETS]
    how = f"{where}--list-nets NAME ... measures here, timm:NAME too: any net of timm with feature maps"
    return f"{markdown_table(rows, HEADER)}\n\n{how}", _figures(rows)


def _figures(rows: list[list[str]]) -> list[dict]:
    return with_numbers(dict(zip(HEADER, row, strict=True)) for row in rows)


def _row(name: str, spent: Cost) -> list[str]:
    spoken = "" if spent.latency is None else f"{spent.latency:.1f}"
    row = net_row(name)
    return [name, row.note, str(row.input_size), f"{spent.parameters:.2f}", f"{spent.macs:.2f}", spoken]
