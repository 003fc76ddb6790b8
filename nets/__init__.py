"""Nets by name: a backbone, a neck and a head, built from plain values.
`import nets` loads torch only when a name needs it.
"""

from importlib import import_module

from nets.registry import HEADS

PLACES = {
    **dict.fromkeys(
        ("NETS", "NetOptions", "build_net", "check_options", "make_spec", "net_row", "no_larger"), "nets.build"
    ),
    **dict.fromkeys(("Labels", "Prediction"), "nets.labels"),
    "Net": "nets.net",
    "Trainable": "nets.trainable",
}

__all__ = ["HEADS", *PLACES]


def __getattr__(name: str):
    """Import a public name on first use (PEP 562)."""
    if name not in PLACES:
        raise AttributeError(f"module 'nets' has no attribute '{name}'")
    return getattr(import_module(PLACES[name]), name)
