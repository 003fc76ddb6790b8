"""Training on a GPU: pictures are augmented on the device, and a step is replayed as one CUDA graph."""

from typing import Any


def make_loader(*args: Any) -> Any:
    """Return a loader of batches that are made on the device, see `extras.gpu.feed.DeviceLoader`."""
    from extras.gpu.feed import DeviceLoader

    return DeviceLoader(*args)


def make_graph(*args: Any) -> Any:
    """Return a training step that is replayed as one CUDA graph, see `extras.gpu.graph.Graph`."""
    from extras.gpu.graph import Graph

    return Graph(*args)
