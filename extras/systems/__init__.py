"""What nets of other authors need: their files, their published augmentation, the local stage of DPR."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipnet.landmark_net import LandmarkNet
    from pipnet.runtimes import Opened


def local_parts_class() -> type:
    """Return the local stage of DPR, a wrapper around a re-initialised net."""
    from extras.systems.local_parts import LocalParts

    return LocalParts


def changes_in_steps(*args: Any) -> list:
    """Return the changes of published augmentation steps, see `extras.systems.steps.in_steps`."""
    from extras.systems.steps import in_steps

    return in_steps(*args)


def open_graph(file: Path, opened: "Opened") -> "LandmarkNet":
    """Return the landmark net of an exported file that another author has published. UserError for an unknown one."""
    from extras.systems import published

    return published.open_graph(file, opened)
