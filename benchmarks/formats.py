"""Errors and latencies of a landmark net in every format that it is exported to: `python benchmarks/formats.py [NET]`.

It runs `main.py --test-formats` on the test faces of 300W and FACES68 (photographs.py says where they come from); 8-bit numbers
are calibrated on training faces of 300W. Nothing else may run on the machine meanwhile.
"""
import sys

from photographs import require
from record import ROOT, save
from runs import run

from pipnet.files import SHIPPED, read_csv
from utils.formats import TESTED

FLAGS = ["--train-data", "300W", "--test-data", "300W", "FACES68", "--allow-partial"]

if __name__ == "__main__":
    net = sys.argv[1] if len(sys.argv) > 1 else SHIPPED[0]
    require("300W", "FACES68")
    run("--test-formats", *TESTED, "--exp", net, *FLAGS)
    rows = read_csv(ROOT / "weights" / "files" / net / "report" / "formats.csv")
    save("formats", f"python benchmarks/formats.py {net}", 0, {"net": net, "rows": rows})
