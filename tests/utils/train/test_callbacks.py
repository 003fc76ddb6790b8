"""--log: where the figures and pictures of each epoch go."""

import json
from importlib import import_module

import pytest
from conftest import fails, refuses, rows

from utils.train.callbacks import make_callback

RECORDER = """
import json
class Recorder:
    def start(self, folder, settings, history):
        self.file = open(folder / "told.jsonl", "a")
        self.tell("start", settings["epochs"], history.epochs)
    def epoch(self, values, pictures):
        self.tell("epoch", values, {name: [str(one.dtype), *one.shape] for name, one in pictures.items()})
        if values["epoch"] == 2:
            raise ValueError("the server is down")
    def end(self, failed):
        self.tell("end", failed)
    def tell(self, *what):
        print(json.dumps(what), file=self.file, flush=True)
class Half:
    def start(self, folder, settings, history): ...
"""


@pytest.fixture
def recorder(tmp_path, monkeypatch):
    (tmp_path / "recorder.py").write_text(RECORDER)
    monkeypatch.syspath_prepend(tmp_path)


def test_a_class_of_ones_own_is_told_each_epoch(cli, recipe, recorder, tmp_path):
    folder = tmp_path / "runs" / "told"
    flags = ["--train", *recipe, "--exp told --epochs 2"]
    assert cli(*flags, "--log recorder:Recorder").returncode == 0
    first, *epochs, last = map(json.loads, (folder / "told.jsonl").read_text().splitlines())
    assert first == ["start", 2, 0] and last == ["end", False] and not (folder / "events").exists()
    for (_, values, pictures), row in zip(epochs, rows(folder / "step.csv"), strict=True):
        assert {key: float(value) for key, value in row.items()}.items() <= values.items()
        assert values["time/seconds"] > 0 and pictures == {"worst/68": ["uint8", 224, 896, 3]}
    flags[-1] = "--exp told --epochs 4 --resume"
    fails(cli(*flags), "last.pt.*--log recorder:Recorder")  # a checkpoint imports nothing
    fails(cli(*flags, "--log recorder:Recorder"), "--log recorder:Recorder.*ValueError.*epoch")
    told = [json.loads(line) for line in (folder / "told.jsonl").read_text().splitlines()]
    assert told[4] == ["start", 4, 2] and told[-1] == ["end", True] and len(rows(folder / "step.csv")) == 3


def test_what_cannot_be_imported_is_one_line(recorder, cli, recipe, tmp_path):
    refuses("recorder:Half.* epoch", make_callback, "recorder:Half")
    refuses("recorder:None.*attribute", make_callback, "recorder:None")
    refuses("no.such:Class.*PYTHONPATH", make_callback, "no.such:Class")
    fails(cli("--train", *recipe, "--log csv nothing"), "log .*nothing")


@pytest.mark.parametrize("name", ("wandb", "mlflow"))
def test_a_tracker_gets_figures_and_pictures_and_goes_on_with_its_run(cli, recipe, tmp_path, monkeypatch, name):
    try:
        import_module(name)
    except ImportError:
        refuses(f"--log {name}.*pip install {name}", make_callback, name)
        pytest.skip(f"{name} is not installed; its refusal is tested")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    if name == "mlflow":
        monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "told")
        import_module("mlflow").create_experiment("told", artifact_location=str(tmp_path / "artifacts"))
    for more in ("--epochs 1", "--epochs 2 --resume"):
        done = cli("--train", *recipe, "--exp told", more, "--log", name)
        assert done.returncode == 0, done.stderr
    told = (tmp_path / "runs" / "told" / f"{name}.txt").read_text()
    if name == "wandb":
        assert len(list((tmp_path / "wandb").glob(f"*run-*{told}"))) == 2
        return
    mlflow = import_module("mlflow")
    run = mlflow.get_run(told)
    assert run.info.status == "FINISHED"
    history = mlflow.MlflowClient().get_metric_history(told, "val_nme")
    assert [(one.step, f"{one.value}") for one in history] == [
        (int(row["epoch"]) + 1, row["val_nme"]) for row in rows(tmp_path / "runs/told/step.csv")
    ]
