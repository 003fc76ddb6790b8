"""What nets of other authors need: their files, their published augmentation, the local stage of DPR."""

from typing import Any


def local_parts_class() -> type:
    """Return the local stage of DPR, a wrapper around a re-initialised net."""
    from extras.systems.local_parts import LocalParts

    return LocalParts


def changes_in_steps(*args: Any) -> list:
    """Return the changes of published augmentation steps, see `extras.systems.steps.in_steps`."""
    from extras.systems.steps import in_steps

    return in_steps(*args)
