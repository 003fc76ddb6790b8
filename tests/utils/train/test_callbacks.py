"""--log: where the figures and pictures of each epoch go."""

import json
import re
from importlib import import_module

import pytest
from conftest import ROOT, fails, refuses, rows, typed, works

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


TOLD = """
def __getattr__(name):
    return lambda *values, **more: print("told", name, *values, *more.values(), flush=True)
"""


def test_the_documented_class_tells_mlflow(cli, recipe, tmp_path, monkeypatch):
    refuses("log must be.*module:Class.*docs/training.md", typed, "--log mlflow")
    page = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    code = re.search(r"^```python\n# my_logs.py\n(.*?)^```", page, re.DOTALL | re.MULTILINE)[1]
    (tmp_path / "my_logs.py").write_text(code)
    (tmp_path / "mlflow.py").write_text(TOLD)
    monkeypatch.syspath_prepend(tmp_path)
    done = works(cli("--train", *recipe, "--exp told --epochs 1 --log my_logs:MLflow"))
    told = [line.split() for line in done.stdout.splitlines() if line.startswith("told ")]
    assert [line[1] for line in told] == ["start_run", "log_dict", "log_metrics", "end_run"]
    assert told[0][2:] == ["told"] and "'val_nme':" in told[2] and told[2][-1] == "1" and told[3][2:] == ["FINISHED"]


def test_wandb_gets_figures_and_goes_on_with_its_run(cli, recipe, tmp_path, monkeypatch):
    try:
        import_module("wandb")
    except ImportError:
        refuses("--log wandb.*pip install wandb", make_callback, "wandb")
        pytest.skip("wandb is not installed; its refusal is tested")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    for more in ("--epochs 1", "--epochs 2 --resume"):
        works(cli("--train", *recipe, "--exp told", more, "--log wandb"))
    told = (tmp_path / "runs" / "told" / "wandb.txt").read_text()
    assert len(list((tmp_path / "wandb").glob(f"*run-*{told}"))) == 2
