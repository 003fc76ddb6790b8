"""Campaigns, which disturb many runs at random: `python tests/campaigns [kills | damage | disks] [--count N] [--seed N]`.

Each case yields its kind and what is wrong after it. The status is 1 if anything is.
"""

import argparse
import sys
import tempfile
from collections import Counter
from importlib import import_module
from pathlib import Path

sys.path[1:1] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[2])]
CAMPAIGNS = {"kills": 200, "damage": 5000, "disks": 9}  # number of cases

if __name__ == "__main__":
    parser = argparse.ArgumentParser("tests/campaigns", description=__doc__)
    parser.add_argument("campaigns", nargs="*", metavar="campaign", default=[*CAMPAIGNS], help=", ".join(CAMPAIGNS))
    parser.add_argument("--count", type=int, help="cases of each campaign")
    parser.add_argument("--seed", type=int, default=0)
    args, faults = parser.parse_args(), 0
    for name in args.campaigns:
        outcomes: Counter = Counter()
        with tempfile.TemporaryDirectory() as folder:
            count = args.count or CAMPAIGNS[name]
            for kind, wrong in import_module(name).cases(count, args.seed, Path(folder).resolve()):
                outcomes[f"{kind}: {'FAULT' if wrong else 'good'}"] += 1
                if wrong:
                    faults += 1
                    print(f"FAULT {name}, {kind}: {wrong}", file=sys.stderr, flush=True)
        print(
            f"{name}: {outcomes.total()} cases", *(f"  {count:5d} {kind}" for kind, count in outcomes.items()), sep="\n"
        )
    sys.exit(faults > 0)
