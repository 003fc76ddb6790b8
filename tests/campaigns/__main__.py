"""Campaigns, which disturb many runs at random: `python tests/campaigns [NAME [FLAG ...]]`; without a name all, 90
minutes.

`--count` says how many cases, `--save` keeps the figures in benchmarks/results. The status is 1 if a campaign finds a
fault.
"""

import sys

from victims import campaign

CAMPAIGNS = {
    "kills": ["--count", "200"],
    "signals": ["--count", "240"],
    "disks": [],
    "files": ["--count", "5000"],
    "values": ["--values", "--count", "1012"],
    "attacks": ["--count", "300"],
    "options": ["--count", "360"],
    "learning": [],
    "gpu": [],
}

if __name__ == "__main__":
    if sys.argv[1:2] and sys.argv[1] not in CAMPAIGNS:
        sys.exit(f"there are: {', '.join(CAMPAIGNS)}")
    chosen = {sys.argv[1]: sys.argv[2:]} if sys.argv[1:] else CAMPAIGNS
    sys.exit(any([campaign(name, flags) for name, flags in chosen.items()]))
