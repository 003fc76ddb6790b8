"""Nets: their cost, and the shipped ones in every format."""

import torch
from experiments import run
from photographs import require
from record import ROOT, chosen, result
from shown import rows_of

from extras.tools.zoo import measured_cost
from nets import NETS
from pipnet.files import LANDMARK_NETS, read_csv
from utils.settings.formats import TESTED

MORE = ("timm:convnext_atto", "timm:efficientnet_b0", "timm:repvgg_a0", "timm:fastvit_t8", "timm:hrnet_w18")
FLAGS = ["--train-data", "300W", "--test-data", "300W", "FACES68", "--allow-partial"]


def zoo(*nets: str) -> dict:
    """Return parameters, MACs and ONNX latency of nets with a PIP head, at their own input size; without names, of all.

    `16 faces` comes from `python tests/campaigns learning`.
    """
    torch.set_num_threads(1)
    learnt = {name: nme for name, (_, nme) in result("learning").get("learning", {}).items()}
    costs = {name: [round(figure, 3) for figure in measured_cost(name)] for name in chosen([*NETS, *MORE], nets)}
    costs = result("zoo").get("nets", {}) | costs
    rows = [
        {
            "name": f"`{name}`",
            "note": NETS[name].note if name in NETS else "",
            "after": learnt.get(name),
            **dict(zip(("parameters", "macs", "ms"), costs.get(name, ()), strict=False)),
        }
        for name in dict.fromkeys([*NETS, *costs])
    ]
    return {
        "nets": costs,
        "rows": rows_of(
            rows,
            ("`--net`", "name"),
            ("published NME %", "note"),
            ("parameters M", "parameters", ".1f"),
            ("MACs G", "macs", ".2f"),
            ("ONNX ms", "ms", ".1f"),
            ("16 faces", "after", ".2f"),
        ),
    }


def formats(*nets: str) -> dict:
    """Return errors and latencies of the shipped landmark nets in every format: `main.py --test-formats` on 300W and
    FACES68.

    8-bit numbers are calibrated on training faces of 300W. Nothing else may run on the machine meanwhile.
    """
    require("300W", "FACES68")
    rows = []
    for name in chosen(LANDMARK_NETS, nets):
        run("--test-formats", *TESTED, "--exp", name, *FLAGS)
        for row in read_csv(ROOT / "weights" / "files" / name / "report" / "formats.csv"):
            times = {
                f"ms: {cores}, {count} crop{'s' * (count > 1)}": f"{row[f'ms, {cores}, batch {count}']} / "
                f"{row[f'p95, {cores[0]}, {count}']}"
                for cores in ("1 core", "2 cores")
                for count in (1, 16)
            }
            rows.append({"net": name, **row, **times})
    columns = {
        "net": "net",
        "format": "format",
        "MB": "MB",
        "NME apart, points": "figure apart",
        "landmarks apart, px: mean": "px apart, mean",
        "99.9 %": "99.9%",
        "largest": "largest",
        **{key: key for key in times},
    }
    return {"rows": rows_of(rows, *columns.items())}
