"""Nets of other authors: readers of their files, their published augmentation, the local stage of DPR."""

from typing import Any


def local_parts_class() -> type:
    """Return the local stage of DPR, a wrapper around a re-initialised net."""
    from extras.systems.local_parts import LocalParts

    return LocalParts


def changes_in_steps(*args: Any) -> list:
    """Return the changes of published augmentation steps, see `extras.systems.steps.in_steps`."""
    from extras.systems.steps import in_steps

    return in_steps(*args)


# files of other authors: functions of extras.systems.published, which loads torch
PUBLISHED = ("checkpoint_values", "graph_values", "mean_faces", "open_graph", "renamed", "settings_in")


def __getattr__(name: str) -> Any:
    """Import a function of PUBLISHED when it is asked for."""
    if name in PUBLISHED:
        from extras.systems import published

        return getattr(published, name)
    raise AttributeError(f"module 'extras.systems' has no attribute '{name}'")
