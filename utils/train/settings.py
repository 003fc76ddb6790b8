"""The settings of a new run, or of a trained run that is resumed or tested.

A trained run's file may come from anybody, so it never decides where files are written: such paths come from the
command line or from args.yaml.
"""

import hashlib
import re
from argparse import Namespace
from pathlib import Path
from typing import Any

from nets import NetOptions, check_options
from pipnet.errors import UserError
from pipnet.layout import Layout
from utils.data.makers import ORIGIN_IS_KNOWN, dataset_rows
from utils.data.paths import absolute, dataset_of, is_unlabelled_set, prepared, resolve_paths
from utils.data.prepared_set import SYNTHETIC, PreparedSet
from utils.data.sets import SetFinder
from utils.settings.checks import check_given, check_read, check_rooms
from utils.settings.config import ROOT, Defaults, Settings, check_values, make_settings
from utils.settings.extras import extra
from utils.settings.layouts import Layouts
from utils.settings.rules import ROUNDS
from utils.settings.sections import KEYS
from utils.settings.yaml_files import read_yaml
from utils.train import checkpoint, run_folder
from utils.train.checkpoint import weights_and_mean_face
from utils.train.run_folder import Run

SETS = ("train_data", "test_data", "unlabelled")
# fmt: off
ELSEWHERE = ("dataset", "data_dir", "train_data", "label_shift", "test_data", "unlabelled", "backgrounds", "data_root",
             "run_root", "detector_weights", "meanface", "teacher", "weights")
# fmt: on


def read_trained(mode: Namespace, run: Run | None, defaults: Defaults) -> dict[str, Any] | None:
    """Return the values of the checkpoint that a command goes on from or uses; None for a new run.

    run: the run that --exp means; None without one.
    """
    if run is None or not (mode.resume or not (mode.train or mode.audit)):
        return None
    return checkpoint.load(run.last if mode.resume else run.settings_file, defaults)


def read_settings(
    given: dict, mode: Namespace, run: Run | None, defaults: Defaults, stored: dict[str, Any] | None = None
) -> Settings:
    """Return the settings of a run.
    The command line overrides the settings of a trained run, or args.yaml for a new run.

    given: keys from the command line. run, stored: see `read_trained`.
    """
    given = _resolve_files(resolve_paths(given), defaults)
    if run and stored:
        return _of_trained_run(given, mode, run, stored, defaults)
    return _of_new_run(*_with_layout_file(given, defaults), mode)


def _with_layout_file(given: dict, defaults: Defaults) -> tuple[dict, Defaults]:
    """Return the given keys, and args.yaml with the layouts of the files that --layouts and --layout name, if they do."""
    if given.get("layouts"):
        defaults = defaults._replace(layouts=defaults.layouts.with_rows_of(given["layouts"])[1])
    if not str(given.get("layout")).endswith((".yaml", ".yml")):
        return given, defaults
    name, layouts = defaults.layouts.with_file(given["layout"])
    return {**given, "layout": name}, defaults._replace(layouts=layouts)


def _of_trained_run(given: dict, mode: Namespace, run: Run, stored: dict[str, Any], defaults: Defaults) -> Settings:
    """Return the settings of a trained run that is resumed, tested or used."""
    args, trained_root, view = stored["args"], None, None
    if run.alone:
        args = _elsewhere(args, defaults.layouts)
        if not given.get("test_data") and (mode.test or mode.test_onnx):
            given = _with_test_data(given, mode, defaults)
    defaults = defaults._replace(layouts=defaults.layouts.with_rows(stored.get("layouts", {})))
    if stored.get("layout", {}).get("members") and not mode.resume and "layout" in given:
        view = Layout.from_dict(stored["layout"]).chosen(given.pop("layout")).layout.name
    given, defaults = _with_layout_file(given, defaults)
    if not run.alone:
        args, trained_root = _with_own_paths(args, given, run, defaults)
    if stored["protocol"]:  # a detector has none
        name, protocols = _with_protocol(args.get("protocol"), stored["protocol"], defaults.protocols)
        args, defaults = {**args, "protocol": name}, defaults._replace(protocols=protocols)
    free = {"norm"} if mode.audit else set()  # an audit picks no epoch
    if "system" in stored:  # nothing in a published file says how its training faces were cropped
        free.add("protocol")
    if "int8" in {*mode.export, *mode.test_formats} and not mode.resume:
        free |= {"dataset", "data_dir", "train_data", "label_shift"}  # other faces may calibrate the 8-bit net
        if given.get("train_data"):
            args.pop("label_shift", None)  # it belongs to the sets that the run was trained on
    check_given({key: value for key, value in given.items() if key not in free}, args, mode.resume)
    if mode.resume and args["val"] == "test" and given.get("test_data", args["test_data"]) != args["test_data"]:
        raise UserError(
            "--test-data picks the best epoch of this run (--val test), so --resume keeps it; leave it out, "
            "and test on other faces later: --test --test-data"
        )
    foreign = [name for name in args.get("log") or () if ":" in name]
    if mode.resume and foreign and "log" not in given:
        raise UserError(
            f"{run.last} was logged by {foreign[0]}, and a checkpoint imports nothing; type it again: "
            f"--log {' '.join(args['log'])}"
        )
    settings = make_settings(given, defaults, trained=args)
    needed = {"train_data": "int8" in {*mode.export, *mode.test_formats}, "test_data": bool(mode.test_formats)}
    if run.alone and (lacking := [key for key, needs in needed.items() if needs and not given.get(key)]):
        names = absolute(SetFinder(settings, defaults).training_names(only_benchmarks=True))
        settings = make_settings(given | dict.fromkeys(lacking, names), defaults, trained=args)
    check_read(given, settings)
    if not mode.predict:  # whose files have a first pixel too
        names = [*(settings.data.test_data or ()), *(settings.data.train_data or ())]
        _check_archives(given, names, ROOT / settings.data.data_root)
    if {"pipeline", "web"} & {*mode.export} and settings.test.detector != "faceboxes":
        raise UserError(
            f"--export pipeline and web take a detector faceboxes, not {settings.test.detector}; give --detector "
            "faceboxes, and --detector-weights for a file of yours"
        )
    detects = mode.predict or "detector" in settings.test.box or {"pipeline", "web"} & {*mode.export}
    tests = mode.test or mode.test_onnx or mode.test_formats
    if tests and given.get("first_pixel") not in (None, args.get("first_pixel")) and not given.get("test_data"):
        raise UserError(
            "--first-pixel would change the labels that this run was trained on; leave it out, train a new run, or "
            "name other faces: --test-data"
        )
    if (unread := {"detector", "detector_weights"} & given.keys()) and not (detects or mode.resume):
        raise UserError(
            f"{KEYS[min(unread)].flag} is for tests in detected boxes; give --box true detector too, or leave it out"
        )
    if detects and stored["args"].get("detector_weights") and not settings.test.detector_weights:
        raise UserError(
            f"{run.weights} names the file of a detector, and it lies outside of --run-root, so that file is not "
            "opened; name it: --detector-weights FILE"
        )
    return settings._replace(trained_root=trained_root, view=view)


def _of_new_run(given: dict, defaults: Defaults, mode: Namespace) -> Settings:
    """Return the settings of a new training, or of a preparation."""
    preset = given.get("preset") or defaults.values["preset"]
    settings = make_settings(given, defaults, preset)
    sets = SetFinder(settings, defaults)
    names = absolute(sets.training_names())
    used = names + absolute([*(settings.data.test_data or ()), *(settings.data.unlabelled or ())])
    if given.get("dataset", "auto") != "auto" and absolute([given["dataset"]])[0] not in used:
        raise UserError(
            f"--dataset {given['dataset']} is not among the sets of --train-data and --test-data; add it to one of "
            "them, or leave it out"
        )
    chosen = {*used, given.get("dataset", "auto")}
    if given.get("data_dir") and not chosen & {*dataset_rows(), given["data_dir"], "auto"}:
        raise UserError(
            f"--data-dir is the raw folder of a named set such as 300w, which {given['dataset']} is not; leave it out"
        )
    if preset is None:
        preset = "quick" if names == [SYNTHETIC] else "default"
        if settings.train.semi in ROUNDS:
            preset = "gssl"
        elif settings.train.task == "detect":
            preset = "detect-quick" if names == [SYNTHETIC] else "detect"
    unlabelled = [name for name in settings.data.unlabelled or () if is_unlabelled_set(name, sets.root)]
    _check_archives(given, [*names, *(settings.data.test_data or ()), *unlabelled], sets.root)
    _check_prepared(given, settings, names)
    datasets = [dataset_of(name, sets.root) for name in names]
    start = _start(settings, defaults)
    settings = make_settings({**given, "train_data": names}, defaults, preset, datasets=datasets, start=start)
    check_read(given, settings)
    check_rooms(settings)
    if settings.train.semi:
        extra("semi", "settings").check(settings)
    if (mode.train or mode.audit) and settings.train.task == "landmarks":  # before sets are prepared
        net = settings.net
        try:
            stride = check_options(NetOptions(net.net, net.head, net.stride, net.input_size, net.act))
        except ValueError as error:
            raise UserError(str(error)) from None
        if settings.train.semi == "gssl" and -(-net.input_size // stride) < 4:
            raise UserError(
                "gssl pools the feature map twice, which needs 4 x 4 cells at least; give a larger --input-size or a "
                "smaller --stride"
            )
    return settings


def _check_archives(given: dict, names: list[str], root: Path) -> None:
    """Raise UserError if a given key is read by none of the archives that `names` mean. root: of the prepared sets."""
    if not {"first_pixel", "frame_step", "allow_partial", "identity", "test_split"} & given.keys():
        return
    known = dataset_rows()
    rows = [known[dataset] for dataset in (dataset_of(name, root) for name in names) if dataset in known]
    if given.get("first_pixel") is not None and not any(row.origin_is_ambiguous for row in rows):
        raise UserError(ORIGIN_IS_KNOWN)
    if "frame_step" in given and not any("frame_step" in row.options for row in rows):
        raise UserError("--frame-step is for the videos of 300vw and peppa; leave it out")
    if "identity" in given and not any("identity" in row.options for row in rows):
        raise UserError("--identity is for own sets, official ones say who is who; leave it out")
    if "test_split" in given and not any(row.layout is None for row in rows):
        raise UserError("--test-split is for own sets, official ones have a test; leave it out")
    if "allow_partial" in given and all(row.layout is None for row in rows):
        raise UserError("--allow-partial is for official archives, own sets may have any number of faces; leave it out")


def _check_prepared(given: dict, settings: Settings, names: list[str]) -> None:
    """Raise UserError if a given key says that a prepared set, which its path names, should have been prepared in
    another way.
    """
    wanted = {
        key: getattr(settings.data, key)
        for key in ("val", "test_split", "target_size", "margin", "frame_step", "identity")
        if key in given
    }
    if wanted.get("val") in ("test", "none"):  # they take the split as it is
        del wanted["val"]
    for name in names if wanted else ():
        if (Path(name) / "meta.yaml").is_file() and (
            why := PreparedSet(Path(name), settings.layouts).mismatch(**wanted)
        ):
            raise UserError(f"{why}; leave the flag out, or name the raw folder, from which the set is prepared again")


def _resolve_files(given: dict, defaults: Defaults) -> dict:
    """Return the given keys. A run or a shipped net that --weights or --teacher names is replaced by its file."""
    root, found = ROOT / given.get("run_root", defaults.values["run_root"]), {}
    for key in ("weights", "teacher"):
        if given.get(key) not in (None, "none", "imagenet"):
            files, mean = weights_and_mean_face(run_folder.find_run(given[key], root, False).weights)
            face = [mean] if mean and key == "teacher" else []
            found[key] = ",".join(str(file.resolve()) for file in [*files, *face])
            if mean and key == "weights":
                found["meanface"] = str(mean.resolve())
    return {**given, **found}


def _elsewhere(args: dict, known: Layouts) -> dict:
    """Return the keys of a foreign file without its paths, and without its layout if args.yaml has a layout of that
    name.

    Without a layout, the number of landmarks of the test faces selects one.
    """
    return {
        key: value
        for key, value in args.items()
        if key not in ELSEWHERE and not (key == "layout" and value in known.rows)
    }


def _with_test_data(given: dict, mode: Namespace, defaults: Defaults) -> dict:
    """Return the given keys with the sets on which a file alone is tested: of --dataset or --data-dir, which for it mean
    nothing else, unless they calibrate an 8-bit net too.
    """
    said = {key: given[key] for key in ("dataset", "data_dir", "data_root") if key in given}
    if said.get("dataset", "auto") == "auto" and not said.get("data_dir"):
        raise UserError(f"--exp {mode.exp} does not say on which faces to test it; name sets or folders: --test-data")
    names = absolute(SetFinder(make_settings(said, defaults), defaults).training_names())
    kept = {key: value for key, value in given.items() if key != "dataset" or "int8" in mode.export}
    return {**kept, "test_data": names}


def _with_own_paths(args: dict, given: dict, run: Run, defaults: Defaults) -> tuple[dict, Path]:
    """Return (a run's keys without the folders that are written to, the folder of its prepared sets, which are only
    read).

    The detector's file is dropped if the run lies outside the folder of the runs, since it may come from somebody else.
    """
    kept = {key: value for key, value in args.items() if key not in ("data_root", "run_root")}
    runs = (ROOT / given.get("run_root", defaults.values["run_root"])).resolve()
    if not run.folder.resolve().is_relative_to(runs):
        kept.pop("detector_weights", None)
    here = ROOT / given.get("data_root", defaults.values["data_root"])
    trained_root = ROOT / args.get("data_root", here)
    if "data_root" in given or trained_root == here or not trained_root.is_dir():
        return kept, here
    names = {key: [_prepared_in(name, trained_root) for name in args[key]] for key in SETS if args.get(key)}
    if args.get("meanface"):
        names["meanface"] = _prepared_in(args["meanface"], trained_root)
    return kept | names, trained_root


def _prepared_in(name: str, root: Path) -> str:
    """Return the path of a prepared set in `root` if `name` is its folder there, else `name`."""
    folder = prepared(name, root)
    return str(folder) if folder and read_yaml(folder / "meta.yaml").get("dataset") != name else name


def _with_protocol(name: str | None, row: dict[str, Any], known: dict[str, Any]) -> tuple[str | None, dict[str, Any]]:
    """Return (name of a net's crop protocol, all protocols with it).
    If `name` is another protocol in args.yaml, make a new name.

    row: the net's protocol. known: the protocols of args.yaml. The name becomes a part of a folder's name, so a name
    that is not a plain word is changed.
    """
    if known.get(name or "square") == row:
        return name, known
    if name is None or name in known or not re.fullmatch(r"\w[\w-]{0,39}", name):
        same = next((other for other, values in known.items() if values == row), None)
        mark = hashlib.sha256(repr(sorted(row.items(), key=str)).encode()).hexdigest()[:6]
        name = same or f"{re.sub(r'[^a-zA-Z0-9]', '_', name or 'own')[:40]}-{mark}"
    return name, {**known, name: row}


def _start(settings: Settings, defaults: Defaults) -> dict:
    """Return the settings that a training takes over from the net in --weights. UserError for a net of another task."""
    source, task = settings.net.weights, settings.train.task
    if source in ("none", "imagenet") or source.endswith(".onnx"):
        return {}
    tensors, known = checkpoint.load_weights(source)
    if known and known["args"].get("task", task) != task:
        raise UserError(
            f"--weights {source} is of --task {known['args']['task']}, this is --task {task}; give another net"
        )
    if task != "landmarks":
        return {}
    if known:
        checkpoint.built(source, known)
    return check_values(checkpoint.structure(tensors, known, defaults), source)
