"""The commands of main.py beside its main job: --audit, --predict, --show-data, --sweep and --list-nets."""

from typing import Any


def list_nets(names: list[str]) -> tuple[str, list[dict]]:
    """Return a table of the nets, see `extras.tools.zoo.list_nets`."""
    from extras.tools import zoo

    return zoo.list_nets(names)


def run_sweep(mode: Any, given: dict[str, Any], defaults: Any) -> list[dict]:
    """Train with each combination of some values, see `extras.tools.sweep.sweep`."""
    from extras.tools.sweep import sweep

    return sweep(mode, given, defaults)


def show_sets(sources: Any, ranks: Any, count: int) -> str:
    """Draw training faces, see `extras.tools.show.show_sets`."""
    from extras.tools import show

    return show.show_sets(sources, ranks, count)
