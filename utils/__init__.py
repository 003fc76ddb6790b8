"""Data, training, tests and tools. `from utils import DataGenerator` prepares a dataset, `utils.load` gives a net of torch.

Once this is imported, `pipnet.Landmarker` and `pipnet.Detector` also open what needs torch: runs by their id, checkpoints,
and nets that other authors published.
"""

from importlib import import_module

from pipnet.openers import OPENERS

PLACES = {"DataGenerator": "utils.data.prepare", "load": "utils.task.inference"}


def __getattr__(name):
    """Import a public name on first use, so that other modules can be imported without OpenCV and torch."""
    if name not in PLACES:
        raise AttributeError(f"module 'utils' has no attribute '{name}'")
    return getattr(_module(PLACES[name]), name)


def _module(name):
    """Return a module of the core, whose tables the rooms of extras have filled."""
    import extras  # noqa: F401

    return import_module(name)


def _open_landmark_net(name, threads, layout):
    return _module("utils.task.find").find_net(str(name), threads, layout)


def _open_published_graph(file, opened):
    return _module("utils.settings.rooms").systems.open_graph(file, opened)


def _open_detector(file, name, threads):
    return _module("utils.settings.rooms").detector.open_detector(file, name, threads)


OPENERS["landmark net"] = _open_landmark_net  # what --exp takes, threads, layout -> LandmarkNet
OPENERS["published graph"] = _open_published_graph  # file, what `open_file` returned -> LandmarkNet
OPENERS["detector"] = _open_detector  # file, name of the detector, threads -> what its loader returns
