"""Stub until the real registry lands."""
from typing import NamedTuple


class HeadRow(NamedTuple):
    strides: tuple
    options: tuple
    weights: tuple


HEADS = {"pip": HeadRow((32, 16, 8, 64, 128), ("num_nb", "error", "sigma"), ("cls", "reg", "sigma")),
         "coordinate": HeadRow((32,), ("error", "pool", "excite", "sigma"), ("reg", "sigma")),
         "parts": HeadRow((32,), ("error",), ("reg",)), "heatmap": HeadRow((4, 8, 16), ("score_width",), ("cls",)),
         "simcc": HeadRow((32, 16), ("score_width",), ("cls",))}
ERRORS = ("l1", "l2", "smooth-l1")
