"""The command line: values of flags, and files of settings for --config."""

import pytest
import yaml
from conftest import DEFAULTS, ROOT, refuses, settings, typed

import main
from pipnet.app import demo
from utils.settings.command import flags_of
from utils.settings.sections import KEYS
from utils.settings.yaml_files import read_yaml


def given(*flags: str) -> dict:
    return typed(*flags).given


def test_each_key_has_a_flag():
    for key, value in DEFAULTS.values.items():
        if value is not None and not isinstance(value, bool):
            words = [str(item) for item in value] if isinstance(value, list) else [str(value)]
            assert given(KEYS[key].flag, *words) == {key: value}


@pytest.mark.parametrize(
    ("flags", "value"),
    [
        ("--learning-rate 1e-4", {"learning_rate": 1e-4}),
        ("--learning-rate 1", {"learning_rate": 1.0}),
        ("--val test", {"val": "test"}),
        ("--val 0.25", {"val": 0.25}),
        ("--layout 68", {"layout": "68"}),
        ("--workers null", {"workers": None}),
        ("--backbone irnet18", {"net": "irnet18"}),
        ("--no-decay-norms", {"decay_norms": False}),
        ("--flip-test", {"flip_test": True}),
        ("--thresholds 10 8", {"thresholds": [10.0, 8.0]}),
        ("--thresholds 10,8", {"thresholds": [10.0, 8.0]}),
        ("--train-data 300w 'a folder/faces'", {"train_data": ["300w", "a folder/faces"]}),
        ("--milestones", {"milestones": []}),
    ],
)
def test_values_of_flags(flags, value):
    command = typed(flags)
    assert (command.given, command.typed, command.modes) == (value, {*value}, {})


def test_a_command_holds_the_modes_that_were_typed():
    command = typed("--train --export onnx --export-raw --exp 003 --show-data 4 --no-int8")
    assert command.modes == {"train": True, "export": ["onnx", "raw"], "exp": "003", "show_data": 4, "int8": False}
    assert command.trains and not command.tests and command.has("export", "test") and not command.has("resume")
    assert (command.exp, command.mode("out"), command.formats) == ("003", None, {"onnx", "raw"})


# fmt: off
@pytest.mark.parametrize(
    ("text", "value"),
    [("010", 10), ("08", 8), ("+5", 5), ("1:30", None), ("0x10", None), ("0b1", None), ("1_000", None), ("9" * 5000, None)],
)
# fmt: on
def test_numbers_are_decimal(tmp_path, text, value):
    """On the command line and in files; YAML 1.1 reads 010 as 8 and 1:30 as 90."""
    file = tmp_path / "file.yaml"
    file.write_text(f"epochs: {text}\nmilestones: [0, {text}]\n")
    if value is None:
        refuses("epochs must be", given, "--epochs", text)
        refuses("milestones must be", given, "--milestones", "0", text)
        refuses("epochs must be", KEYS["epochs"].check, read_yaml(file)["epochs"])
    else:
        assert given("--epochs", text, "--milestones", f"0,{text}") == {"epochs": value, "milestones": [0, value]}
        assert given("--config", str(file)) == {"epochs": value, "milestones": [0, value]}


@pytest.mark.parametrize("text", ("1_0", "\u0663"))
def test_numbers_of_modes_and_of_the_demo_are_decimal(text):
    refuses("--show-data", main.main, ["--show-data", text])
    for flag in ("--max-faces", "--threshold"):
        with pytest.raises(SystemExit, match="2"):
            demo.main(["x.jpg", flag, text])


def test_the_flags_of_values_give_these_values_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a,b").mkdir()
    values = {
        "learning_rate": 1e-7,
        "layout": "--overwrite",
        "flip_test": True,
        "decay_norms": False,
        "workers": None,
        "milestones": [],
        "label_shift": [-1.5, 0.0],
        "train_data": ["--exp", "x", "--overwrite"],
        "test_data": ["a,b", "c"],
    }
    assert type(typed()).of(flags_of(values), DEFAULTS).given == values
    refuses("--train-data: -x ", flags_of, {"train_data": ["a,b", "-x"]})


def test_a_comma_divides_names_unless_it_is_in_the_name_of_a_folder(tmp_path):
    folder = tmp_path / "a,b"
    folder.mkdir()
    assert given("--train-data", str(folder), "c,d", "e" * 999) == {"train_data": [str(folder), "c", "d", "e" * 999]}


def test_unknown_flags_name_the_nearest():
    for flag, key in (
        ("--epoch", "--epochs"),
        ("--lr", "--learning-rate"),
        ("--wd", "--weight-decay"),
        ("--bs", "--batch-size"),
    ):
        refuses(f"{flag}.*'{key}'", given, flag, "3")


# --------------------------------------------------------------------------------------------------------------- --config
def test_a_file_of_settings_lies_between_preset_and_flags(tmp_path):
    file = tmp_path / "mine.yaml"
    for text in ("preset: quick\nepochs: 3\nclip: 2\n", "train: {preset: quick, epochs: 3}\nclip: 2\n"):
        file.write_text(text)
        command = typed("--train --clip 1 --config", str(file))
        assert command.given == {"preset": "quick", "epochs": 3, "clip": 1.0}
        assert command.typed == {"preset", "epochs", "clip"} and not command.untaken


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epohcs: 3", "unknown key 'epohcs' in .*mine.yaml; did you mean 'epochs'"),
        ("train: {epohcs: 3}", "'epohcs'.*mine.yaml"),
        ("epochs: many", "mine.yaml: epochs must be a whole number from 0 to 1000000, not 'many'"),
        ("presets: {a: {}}", "'presets'"),
        ("[1, 2]", "mine.yaml"),
    ],
)
def test_a_slip_in_a_file_of_settings_is_named(tmp_path, text, message):
    (tmp_path / "mine.yaml").write_text(text)
    refuses(message, given, "--config", str(tmp_path / "mine.yaml"))


def test_the_settings_of_a_run_are_taken_without_its_paths(tmp_path):
    file = tmp_path / "args.yaml"
    left = settings("quick", train_data=["/a/b", "300w"], dataset="synthetic", weights="/a/best.pt", run_root="mine")
    file.write_text(left.dump())
    command = typed("--epochs 9 --config", str(file))
    assert {*command.untaken} == {"train_data", "weights", "run_root"}
    assert command.given == {key: 9 if key == "epochs" else left.flat()[key] for key in KEYS.keys() - {*command.untaken}}
    assert command.typed == {"epochs"}
    written = yaml.safe_load((ROOT / "args.yaml").read_text())
    file.write_text(yaml.safe_dump({"exp": "003", **{name: written[name] for name in ("train", "loss")}}))
    command = typed("--config", str(file))
    assert command.untaken == ("exp",) and command.given["epochs"] == DEFAULTS.values["epochs"]
