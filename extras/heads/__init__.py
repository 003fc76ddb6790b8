"""Heads beside pip and coordinate: coordinates by facial part, heatmaps, SimCC."""

from nets.registry import HeadRow

HEADS = {
    "parts": HeadRow("extras.heads.parts:PartsHead", (32,), ("error",), {"coordinate": "reg"}),
    "heatmap": HeadRow("extras.heads.heatmap:HeatmapHead", (4, 8, 16), ("score_width",), {"score": "cls"}),
    "simcc": HeadRow("extras.heads.simcc:SimCCHead", (32, 16), ("score_width",), {"score": "cls"}),
}
