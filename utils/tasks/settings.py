"""The settings of a run: of a new one, or of a trained one that is resumed or tested."""
from argparse import Namespace

from pipnet.errors import UserError
from utils.config import ROOT, Defaults, Settings, resolve
from utils.data.parsers import DATASETS, NOT_COUNTABLE
from utils.data.paths import absolute, dataset_of, resolve_paths
from utils.data.prepared_set import SYNTHETIC
from utils.data.sets import Sets
from utils.keys import ROUNDS, check_given, check_head, check_semi, check_steps, check_task
from utils.layouts import Layouts
from utils.train import checkpoint, run_folder
from utils.train.published import split_files, structure
from utils.train.run_folder import Run

ELSEWHERE = ("dataset", "data_dir", "train_data", "label_shift", "test_data", "unlabelled", "data_root", "run_root",
             "detector_weights", "meanface", "teacher", "weights")


def read_settings(given: dict, mode: Namespace, run: Run | None, defaults: Defaults) -> Settings:
    """Return the settings: the command line over those of a trained run, or over args.yaml and a preset for a new one."""
    given = _resolve_files(resolve_paths(given), defaults)
    again = run and (mode.resume or not (mode.train or mode.audit))
    stored = checkpoint.load(run.last if mode.resume else run.settings) if again else {}
    if stored and run.alone:
        stored["args"] = _elsewhere(stored["args"], defaults.layouts)
        if not given.get("test_data") and (mode.test or mode.test_onnx):
            raise UserError(f"--exp {mode.exp} does not say on which faces to test it; name sets or folders: --test-data")
    defaults = defaults._replace(layouts=defaults.layouts.with_rows(stored.get("layouts", {})))
    if str(given.get("layout")).endswith((".yaml", ".yml")):
        given["layout"], layouts = defaults.layouts.with_file(given["layout"])
        defaults = defaults._replace(layouts=layouts)
    if stored:
        if (protocol := stored["args"].get("protocol")) not in (None, *defaults.protocols):
            defaults = defaults._replace(protocols={**defaults.protocols, protocol: stored["protocol"]})
        free = {"norm"} if mode.audit else set()  # an audit picks no epoch
        if "int8" in {*mode.export, *mode.test_formats}:
            free |= {"dataset", "data_dir", "train_data", "label_shift"}  # other faces may calibrate it
            if given.get("train_data"):
                stored["args"].pop("label_shift", None)  # it belongs to the sets that the run was trained on
        check_given({key: value for key, value in given.items() if key not in free}, stored["args"], mode.resume)
        settings = resolve(given, defaults, trained=stored["args"])
        needed = {"train_data": "int8" in {*mode.export, *mode.test_formats}, "test_data": bool(mode.test_formats)}
        if run.alone and (lacking := [key for key, needs in needed.items() if needs and not given.get(key)]):
            names = absolute(Sets(settings.data, settings.layouts, defaults).training_names())
            settings = resolve(given | dict.fromkeys(lacking, names), defaults, trained=stored["args"])
        check_task(given, settings.train.task)
        check_steps(given, settings.augment)
        return settings
    preset = given.get("preset") or defaults.values["preset"]
    settings = resolve(given, defaults, preset)
    sets = Sets(settings.data, settings.layouts, defaults)
    names = absolute(sets.training_names())
    if preset is None:
        preset = "quick" if names == [SYNTHETIC] else "default"
        if settings.train.semi in ROUNDS:
            preset = "gssl"
        elif settings.train.task == "detect":
            preset = "detect-quick" if names == [SYNTHETIC] else "detect"
    if settings.data.first_pixel is not None and not any(DATASETS[dataset_of(name, sets.root)].countable
                                                         for name in [*names, *(settings.data.test_data or ())]):
        raise UserError(NOT_COUNTABLE)
    settings = resolve({**given, "train_data": names}, defaults, preset, datasets=[dataset_of(name, sets.root) for name in names],
                       start=_start(settings))
    check_task(given, settings.train.task)
    check_steps(given, settings.augment)
    check_head(given, settings.net, settings.train.teacher)
    check_semi(given, settings)
    return settings


def _resolve_files(given: dict, defaults: Defaults) -> dict:
    """Return the typed keys with a file in place of a run or a shipped net that --weights or --teacher names."""
    root, found = ROOT / given.get("run_root", defaults.values["run_root"]), {}
    for key in ("weights", "teacher"):
        if given.get(key) not in (None, "none", "imagenet"):
            files, mean = split_files(run_folder.find(given[key], root, False).weights)
            found[key] = ",".join(str(file.resolve()) for file in files)
            if mean and key == "weights":
                found["meanface"] = str(mean.resolve())
    return {**given, **found}


def _elsewhere(args: dict, known: Layouts) -> dict:
    """Return the keys of a file from elsewhere that mean something here: without paths, and without a layout of args.yaml, since
    test faces then have that of their number of landmarks."""
    return {key: value for key, value in args.items() if key not in ELSEWHERE and not (key == "layout" and value in known.rows)}


def _start(settings: Settings) -> dict:
    """Return the keys that a training takes from the net that it starts from. UserError for a net of another task."""
    source, task = settings.net.weights, settings.train.task
    if source in ("none", "imagenet") or source.endswith(".onnx"):
        return {}
    tensors, known = checkpoint.load_weights(source)
    if known and known["args"].get("task", task) != task:
        raise UserError(f"--weights {source} is of --task {known['args']['task']}, this is --task {task}; give another net")
    return structure(tensors, known)
