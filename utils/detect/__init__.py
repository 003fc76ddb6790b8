"""Face detection: data, metric, training and export of `--task detect`."""
from utils.detect.task import run_modes

__all__ = ["run_modes"]
