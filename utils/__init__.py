"""Data, training, tests and tools. `from utils import DataGenerator` prepares a dataset, `utils.load` gives a net of torch.

Once this is imported, `pipnet.Landmarker` and `pipnet.Detector` also open what needs torch: runs by their id, checkpoints,
and nets that other authors published.
"""

from pipnet.openers import register
from utils.settings.extras import extra  # this import also adds the heads of extras to those of nets


def __getattr__(name):
    """Import a public name on first use, so that other modules can be imported without OpenCV and torch."""
    if name == "DataGenerator":
        from utils.data.prepare import DataGenerator

        return DataGenerator
    if name == "load":
        from utils.task.inference import load

        return load
    raise AttributeError(f"module 'utils' has no attribute '{name}'")


def _open_landmark_net(name, threads):
    from utils.task.find import find_net

    return find_net(str(name), threads)


def _open_published_graph(file, opened):
    return extra("systems").open_graph(file, opened)


def _open_detector(file, name, threads):
    return extra("detector").open_detector(file, name, threads)


register("landmark net", _open_landmark_net)  # what --exp takes, threads -> LandmarkNet
register("published graph", _open_published_graph)  # file, what `open_file` returned -> LandmarkNet
register("detector", _open_detector)  # file, name of the detector, threads -> what its loader returns
