"""Runs torchrun, returns the exit status of the failed process, and prints no traceback of torchrun itself."""

import logging
import os
import signal
import sys

from utils.settings.start import SIGNALS, STOPPED, SWEPT, begin_loading, end_loading, ignore_signals

if __name__ == "__main__":
    begin_loading()
from torch.distributed import DistError
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import parse_args, run

from pipnet.cores import cores
from utils.train.ranks import cannot_meet


def main(argv: list[str]) -> int:
    """Run torchrun with its flags, `--`, the script and the script's flags; return the exit status."""
    args = parse_args(argv)
    # else torchrun sets 1 and warns
    os.environ.setdefault("OMP_NUM_THREADS", str(max(cores() // int(args.nproc_per_node), 1)))
    for name in logging.root.manager.loggerDict:  # some of torchrun's loggers have a level of their own
        if name.startswith("torch.distributed.elastic"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
    end_loading()
    try:
        run(args)
        return 0
    except ChildFailedError as error:
        rank, failed = error.get_first_failure()
        status = abs(failed.exitcode) or 1
        if status % 128 not in SIGNALS:
            if failed.exitcode < 0:
                how = signal.Signals(status).name
                print(f"error: process {rank} was ended by {how} (SIGKILL: usually out of memory)", file=sys.stderr)
            return status
    except DistError as error:
        print(f"error: {cannot_meet(args.master_addr, args.master_port, error)}", file=sys.stderr)
        return 1
    except (SignalException, KeyboardInterrupt) as stopped:
        status = 128 + (stopped.sigval if isinstance(stopped, SignalException) else (stopped.args or SIGNALS)[0])
    if not SWEPT:
        print(STOPPED, file=sys.stderr)
    return status


if __name__ == "__main__":
    status = main(sys.argv[1:])
    ignore_signals()
    sys.exit(status)
