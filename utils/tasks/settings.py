"""The settings of a run: of a new one, or of a trained one that is resumed or tested."""
from argparse import Namespace

from utils.config import Defaults, Settings, resolve
from utils.data.prepared_set import SYNTHETIC
from utils.data.sets import Sets, absolute, resolve_paths
from utils.keys import check_given, check_head, check_task
from utils.train import checkpoint
from utils.train.run_folder import Run


def read_settings(given: dict, mode: Namespace, run: Run | None, defaults: Defaults) -> Settings:
    """Return the settings: the command line over those of a trained run, or over args.yaml and a preset for a new one."""
    given = resolve_paths(given)
    again = run and (mode.resume or not (mode.train or mode.audit))
    stored = checkpoint.load(run.last if mode.resume else run.weights) if again else {}
    defaults = defaults._replace(layouts=defaults.layouts.with_rows(stored.get("layouts", {})))
    if str(given.get("layout")).endswith((".yaml", ".yml")):
        given["layout"], layouts = defaults.layouts.with_file(given["layout"])
        defaults = defaults._replace(layouts=layouts)
    if stored:
        free = {"norm"} if mode.audit else set()  # an audit picks no epoch
        if "int8" in {*mode.export, *mode.test_formats}:
            free |= {"dataset", "data_dir", "train_data"}  # other faces may calibrate it
        check_given({key: value for key, value in given.items() if key not in free}, stored["args"], mode.resume)
        settings = resolve(given, defaults, trained=stored["args"])
        check_task(given, settings.train.task)
        return settings
    preset = given.get("preset") or defaults.values["preset"]
    settings = resolve(given, defaults, preset)
    sets = Sets(settings, defaults)
    names = absolute(sets.training_names())
    if preset is None:
        preset = "quick" if names == [SYNTHETIC] else "default"
        if settings.train.task == "detect":
            preset = "detect-quick" if names == [SYNTHETIC] else "detect"
    settings = resolve({**given, "train_data": names}, defaults, preset, datasets=[sets.dataset_of(name) for name in names])
    check_task(given, settings.train.task)
    check_head(given, settings.net, settings.train.teacher)
    return settings
