"""The settings of a new run, or of a trained run that is resumed, tested or used.

A trained run's file may come from anybody, so it never decides where files are written: such paths come from the
command line or from args.yaml.
"""

import hashlib
from pathlib import Path
from typing import Any

from nets.outside import check_typed, is_outside
from pipnet.errors import UserError
from pipnet.shipped import OPEN, shipped
from utils.data.makers import dataset_rows
from utils.data.paths import SETS, absolute, changed, dataset_of, is_unlabelled_set, prepared, with_absolute_paths
from utils.data.prepare import OPTIONS
from utils.data.prepared_set import PreparedSet
from utils.data.sets import training_names
from utils.data.table import SYNTHETIC
from utils.settings.command import Command
from utils.settings.config import ROOT, Settings, check_values, preset_values
from utils.settings.faults import Trained, faults, log_unread, refuse, unread
from utils.settings.rules import NO_NET, ROUNDS
from utils.settings.sections import KEYS
from utils.settings.union import Union, layout_of
from utils.settings.yaml_files import read_yaml
from utils.train import checkpoint, run_folder
from utils.train.run_folder import Run
from utils.train.weight_files import load_weights, weights_and_mean_face


def read_trained(command: Command, run: Run | None) -> dict[str, Any] | None:
    """Return the values of the checkpoint that a command goes on from or uses; None for a new run.

    run: the run that --exp means; None without one.
    """
    if run is None or (command.trains and not command.has("resume")):
        return None
    return checkpoint.load(run.last if command.has("resume") else run.settings_file, command.defaults)


def settings_of(command: Command, run: Run | None = None, stored: dict[str, Any] | None = None) -> Settings:
    """Return the settings of a run: those of args.yaml or of the trained run, below those of the command line.
    UserError for what contradicts itself. What is not read is logged.

    run, stored: see `read_trained`.
    """
    command = _with_files(with_absolute_paths(command))
    if run and stored:
        return _of_trained_run(command, run, stored)
    return _of_new_run(command.with_layout_files())


def _of_trained_run(command: Command, run: Run, stored: dict[str, Any]) -> Settings:
    """Return the settings of a trained run that is resumed, tested or used."""
    command = _with_code(command, stored)
    args, trained_root, view = stored["args"], None, None
    layouts, left_out = command.defaults.layouts, set()
    if "int8" in command.formats and command.given.get("train_data") and not command.has("resume"):
        left_out = {"label_shift"}  # of the sets of the training
    if run.alone:
        left_out = {"label_shift", *(key for key, row in KEYS.items() if row.path)}
        if args.get("layout") not in layouts.rows:  # else the number of landmarks of the test faces selects one
            left_out.remove("layout")
        command = _with_sets(command)
    args = {key: value for key, value in args.items() if key not in left_out}
    if run.alone and run.weights.stem in OPEN:
        args["detector_weights"] = str(shipped(f"{OPEN[run.weights.stem]}.onnx"))
    command = command.with_tables(layouts=layouts.with_rows(stored.get("layouts", {})))
    layout, learnt = command.given.get("layout"), layout_of(stored["layout"]) if stored["layout"] else None
    if layout and isinstance(learnt, Union) and not command.has("resume"):
        view = learnt.chosen(layout).layout.name
        command = command.without("layout")
    command = command.with_layout_files()
    if not run.alone:
        args, trained_root = _with_own_paths(args, command, run)
    if stored["protocol"]:  # a detector has none
        name, protocols = with_protocol(args.get("protocol"), stored["protocol"], command.defaults.protocols)
        args, command = {**args, "protocol": name}, command.with_tables(protocols=protocols)
    file, detector = run.last if command.has("resume") else run.weights, stored["args"].get("detector_weights")
    old = Trained(args, file, run.alone, "system" in stored, detector)
    return _checked(command, args, old=old)._replace(trained_root=trained_root, view=view)


def _with_code(command: Command, stored: dict[str, Any]) -> Command:
    """Return the command without the code from outside that it names for a --compare: the code may be that of another run.
    UserError if the net is built from such code and no flag has named it.
    """
    kinds = {key: KEYS[key].outside for key in ("net", "head", "error")}
    if stored["model"] and (command.trains or command.tests or command.has("export")):
        values = {**stored["net"], **stored["net"].get("head_options", {})}
        try:
            check_typed({kind: values[key] for key, kind in kinds.items() if key in values})
        except ValueError as error:
            raise UserError(str(error)) from None
    given = [key for key, kind in kinds.items() if is_outside(kind, command.given.get(key, ""))]
    return command.without(*given) if command.has("compare") else command


def _of_new_run(command: Command) -> Settings:
    """Return the settings of a new training, or of a preparation."""
    given, defaults, preset = command.given, command.defaults, command.value("preset")
    settings = Settings.of(defaults, preset_values(preset, given, defaults), given)
    names, root = absolute(training_names(settings, defaults)), ROOT / settings.data.data_root
    if preset is None:
        preset = _usual_preset(settings, names == [SYNTHETIC])
    _check_prepared(command, settings, names)
    datasets = [dataset_of(name, root) for name in names]
    start = _start(settings, command)
    row = preset_values(preset, {**start, **given}, defaults, datasets)
    return _checked(command.with_values({"train_data": names}), row, start)


def _checked(command: Command, *layers: dict[str, Any], old: Trained | None = None) -> Settings:
    """Return the settings of some layers below the command line, without what is not read, which is logged.
    UserError for what contradicts itself. old: the trained run of the layers.
    """
    settings = Settings.of(command.defaults, *layers, command.given)
    refuse(faults(command, settings, old))
    found = unread(command, settings) | _unread_by_sets(command, settings, old)
    log_unread(command, found)
    return Settings.of(command.defaults, *layers, command.without(*found).given)


def _usual_preset(settings: Settings, synthetic: bool) -> str:
    """Return the preset of a training for which none is chosen. synthetic: whether its faces are rendered."""
    if settings.train.semi in ROUNDS:
        return "gssl"
    if settings.train.task == "detect":
        return "detect-quick" if synthetic else "detect"
    return "quick" if synthetic else "default"


def _unread_by_sets(command: Command, settings: Settings, old: Trained | None) -> dict[str, str]:
    """Return {key that none of the sets reads, see `Key.sets`: sets that would}."""
    if old and command.has("predict"):  # whose pictures have a first pixel too
        return {}
    data, known, root = settings.data, dataset_rows(), ROOT / settings.data.data_root
    names = [*data.training_sets, *(data.test_data or ())]
    if not old:
        names += [name for name in data.unlabelled or () if is_unlabelled_set(name, root)]
    keys = {key: KEYS[key].sets for key in command.given if KEYS[key].sets}
    datasets = [dataset_of(name, root) for name in names] if keys else []  # else a raw folder may be gone
    rows = [known[dataset] for dataset in datasets if dataset in known]
    found = {key: words for key, (reads, words) in keys.items() if not any(map(reads, rows))}
    dataset, data_dir = command.given.get("dataset", "auto"), command.given.get("data_dir")
    if dataset != "auto" and absolute([dataset])[0] not in names:
        found["dataset"] = "it among --train-data or --test-data"
    if data_dir and not {*names, dataset} & {*known, data_dir, "auto"}:
        found["data_dir"] = "a named set such as 300w"
    return found


def _check_prepared(command: Command, settings: Settings, names: list[str]) -> None:
    """Raise UserError if a flag says that a prepared set, which its path names, should have been prepared in another
    way.
    """
    wanted = {key: getattr(settings.data, key) for key in OPTIONS if key in command.typed}
    if wanted.get("val") in ("test", "none"):  # they take the split as it is
        del wanted["val"]
    for name in names if wanted else ():
        if (Path(name) / "meta.yaml").is_file() and (
            why := PreparedSet(Path(name), settings.layouts).mismatch(**wanted)
        ):
            raise UserError(f"{why}; leave the flag out, or name the raw folder, from which the set is prepared again")


def _with_files(command: Command) -> Command:
    """Return the command with the files of the run or shipped net that --weights or --teacher names."""
    root, found = command.folder("run_root"), {}
    for key in ("weights", "teacher"):
        text = command.given.get(key)
        if text in (None, *NO_NET):
            continue
        files, mean = weights_and_mean_face(run_folder.find_run(text, root, False).weights)
        if mean and key == "teacher":
            files = [*files, mean]
        elif mean:
            found["meanface"] = str(mean.resolve())
        found[key] = ",".join(str(file.resolve()) for file in files)
    return command.with_values(found)


def _with_sets(command: Command) -> Command:
    """Return the command for a file alone, with the sets that it lacks: those that it is tested on, and those that
    calibrate an 8-bit net. Both are of --dataset or --data-dir; without these 300W, or rendered faces.
    """
    needed = {"train_data": "int8" in command.formats, "test_data": command.tests}
    lacking = [key for key, needs in needed.items() if needs and not command.given.get(key)]
    if not lacking:
        return command
    places = {key: value for key, value in command.given.items() if key in ("dataset", "data_dir", "data_root")}
    named = places.get("dataset", "auto") != "auto" or places.get("data_dir")
    if "test_data" in lacking and command.has("test", "test_onnx", "compare") and not named:
        raise UserError(
            f"--exp {command.exp} does not say on which faces to test it; name sets or folders: --test-data"
        )
    names = training_names(Settings.of(command.defaults, places), command.defaults, only_benchmarks=True)
    return command.with_values(dict.fromkeys(lacking, absolute(names)))


def _with_own_paths(args: dict, command: Command, run: Run) -> tuple[dict, Path]:
    """Return (a run's keys without the folders that are written to, the folder of its prepared sets, which are only
    read).

    The detector's file is dropped if the run lies outside the folder of the runs, since it may come from somebody else.
    """
    kept = {key: value for key, value in args.items() if key not in ("data_root", "run_root")}
    if not run.folder.resolve().is_relative_to(command.folder("run_root").resolve()):
        kept.pop("detector_weights", None)
    here = command.folder("data_root")
    trained_root = ROOT / args.get("data_root", here)
    if "data_root" in command.given or trained_root == here or not trained_root.is_dir():
        return kept, here
    return kept | changed(args, SETS, lambda name: _prepared_in(name, trained_root)), trained_root


def _prepared_in(name: str, root: Path) -> str:
    """Return the path of a prepared set in `root` if `name` is its folder there, else `name`."""
    folder = prepared(name, root)
    return str(folder) if folder and read_yaml(folder / "meta.yaml").get("dataset") != name else name


def with_protocol(name: str | None, row: dict[str, Any], known: dict[str, Any]) -> tuple[str | None, dict[str, Any]]:
    """Return (name of a net's crop protocol, all protocols with it).
    If `name` is another protocol in args.yaml, make a new name.

    row: the net's protocol. known: the protocols of args.yaml. The name becomes a part of a folder's name, so it is not
    taken from the file.
    """
    if known.get(name or "square") == row:
        return name, known
    same = next((other for other, values in known.items() if values == row), None)
    mark = hashlib.sha256(repr(sorted(row.items(), key=str)).encode()).hexdigest()[:6]
    name = same or f"own-{mark}"
    return name, {**known, name: row}


def _start(settings: Settings, command: Command) -> dict:
    """Return the settings that a training takes over from the net in --weights. UserError for a net that cannot start it."""
    source, task = settings.net.weights, settings.train.task
    if source.endswith(".onnx"):
        return {}
    tensors, known = load_weights(source)
    if known and known["args"].get("task", task) != task:
        raise UserError(
            f"--weights {source} is of --task {known['args']['task']}, this is --task {task}; give another net"
        )
    if task != "landmarks":
        return {}
    train, taken = settings.train, checkpoint.structure(tensors, known, command.defaults) if tensors else {}
    if taken and train.epochs and train.freeze == "landmarks" and "freeze" not in command.given:
        other = any(command.given.get(key, value) != value for key, value in taken.items())
        if other or not taken.get("refine") or taken.get("reinit"):  # no points can be learnt behind such a net
            taken["freeze"] = "backbone"
    freeze = taken.get("freeze", train.freeze)
    if known:
        checkpoint.built(source, known)
        if known["net"].get("points") and freeze != "landmarks":
            raise UserError(
                f"--weights {source} has points that were fitted to another net's landmarks, and cannot be trained; give that net"
            )
    elif freeze == "landmarks":
        raise UserError(f"--freeze landmarks keeps the landmarks of a net of ours, not of {source}; give its --weights")
    return check_values(taken, source)
