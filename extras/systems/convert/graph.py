"""What the readers of published graphs need of an opened file, whatever its runtime."""

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np


class Graph(Protocol):
    """An opened exported file, such as `pipnet.runtimes.Opened`."""

    @property
    def run(self) -> Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]:
        """Return the function {input: array} -> {output: array}."""

    @property
    def inputs(self) -> list[str]:
        """Return the names of the inputs."""

    @property
    def outputs(self) -> list[str]:
        """Return the names of the outputs."""

    @property
    def values(self) -> dict[str, Any]:
        """Return the metadata, with `inputs` and `outputs`, {name: shape without the batch}, and `weights`, the shapes of
        its tensors, where they are known.
        """
