"""Progress bars: two updates a second in a terminal, one line a minute in a log file."""

import sys
from functools import partial

from tqdm import tqdm

progress = partial(tqdm, mininterval=0.5 if sys.stderr.isatty() else 60, maxinterval=60, dynamic_ncols=True)
