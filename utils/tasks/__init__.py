"""Tasks by the name of --task: what can be trained."""
from importlib import import_module

TASKS = {"landmarks": "utils.tasks.landmarks:Landmarks", "detect": "utils.tasks.detect:Detect"}


def task_class(name: str) -> type:
    """Return the class of a task; it is imported here, since the keys of args.yaml need only the names."""
    module, _, kind = TASKS[name].partition(":")
    return getattr(import_module(module), kind)
