"""Runs torchrun, returns the exit status of the failed process, and prints no traceback of torchrun itself."""

import logging
import os
import signal
import sys

from utils.settings.start import GRACE, SIGNALS, STOPPED, SWEPT, begin_loading, end_loading, ignore_signals

if __name__ == "__main__":
    begin_loading()
from torch.distributed import DistError
from torch.distributed.elastic.multiprocessing.api import PContext, SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import parse_args, run

from pipnet.cores import cores
from utils.train.ranks import cannot_meet


def main(argv: list[str]) -> int:
    """Run torchrun with its flags, `--`, the script and the script's flags; return the exit status."""
    args = parse_args(argv)
    os.environ.setdefault(
        "OMP_NUM_THREADS", str(max(cores() // int(args.nproc_per_node), 1))
    )  # else torchrun sets 1 and warns
    for name in logging.root.manager.loggerDict:  # some of torchrun's loggers have a level of their own
        if name.startswith("torch.distributed.elastic"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
    close = PContext.close
    # torch would pass Ctrl-C on to its processes, where a starting one prints a traceback, and would wait 30 s for them
    PContext.close = lambda self, death_sig=None, timeout=GRACE: close(self, signal.SIGTERM, min(timeout, GRACE))
    end_loading()
    try:
        run(args)
    except ChildFailedError as error:
        rank, failed = error.get_first_failure()
        if failed.exitcode < 0 and failed.exitcode not in (-signal.SIGINT, -signal.SIGTERM):
            how = signal.Signals(-failed.exitcode).name
            print(f"error: process {rank} was ended by {how} (SIGKILL: usually out of memory)", file=sys.stderr)
        elif abs(failed.exitcode) % 128 in (signal.SIGINT, signal.SIGTERM) and not SWEPT:
            print(STOPPED, file=sys.stderr)
        return abs(failed.exitcode) or 1
    except DistError as error:
        print(f"error: {cannot_meet(args.master_addr, args.master_port, error)}", file=sys.stderr)
        return 1
    except (SignalException, KeyboardInterrupt) as stopped:
        if not SWEPT:
            print(STOPPED, file=sys.stderr)
        return 128 + (stopped.sigval if isinstance(stopped, SignalException) else (stopped.args or SIGNALS)[0])
    return 0


if __name__ == "__main__":
    status = main(sys.argv[1:])
    ignore_signals()
    sys.exit(status)
