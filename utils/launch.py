"""torchrun that ends with the exit status of the process that failed, without a traceback: that process has said why."""
import logging
import os
import sys

from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import parse_args, run

from utils.solver import cores


def main(argv: list[str]) -> int:
    """Flags of torchrun, the script and its flags -> exit status."""
    args = parse_args(argv)
    os.environ.setdefault("OMP_NUM_THREADS", str(max(cores() // int(args.nproc_per_node), 1)))  # torchrun would set 1 and warn
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    try:
        run(args)
    except ChildFailedError as error:
        return abs(error.get_first_failure()[1].exitcode) or 1
    except SignalException as error:
        return 128 + error.sigval
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
