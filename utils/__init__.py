"""Data, training, tests and tools. `from utils import DataGenerator` prepares a dataset."""

from typing import Any

import utils.settings.extras  # noqa: F401 adds the heads of extras to those of nets


def __getattr__(name: str) -> Any:
    """Import DataGenerator on first use, so that other modules can be imported without OpenCV."""
    if name == "DataGenerator":
        from utils.data.prepare import DataGenerator

        return DataGenerator
    raise AttributeError(f"module 'utils' has no attribute '{name}'")
