"""Heads beside pip and coordinate: coordinates by facial part, heatmaps, SimCC."""

from nets.registry import HeadRow


def _parts() -> type:
    from extras.heads.parts import PartsHead

    return PartsHead


def _heatmap() -> type:
    from extras.heads.heatmap import HeatmapHead

    return HeatmapHead


def _simcc() -> type:
    from extras.heads.simcc import SimCCHead

    return SimCCHead


HEADS = {
    "parts": HeadRow(_parts, (32,), ("error",), {"coordinate": "reg"}),
    "heatmap": HeadRow(_heatmap, (4, 8, 16), ("score_width",), {"score": "cls"}),
    "simcc": HeadRow(_simcc, (32, 16), ("score_width",), {"score": "cls"}),
}
