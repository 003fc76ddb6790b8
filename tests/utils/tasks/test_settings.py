"""Settings of a new training: paths and the label shift of each set."""
import shutil
from argparse import Namespace

import pytest
import torch
import yaml
from conftest import DEFAULTS

from pipnet.errors import UserError
from utils.config import Settings
from utils.data.prepared_set import PreparedSet
from utils.tasks.landmarks import Landmarks
from utils.tasks.settings import read_settings
from utils.train.ranks import Ranks


def new_settings(**given) -> Settings:
    """Settings of a new training, as main.py reads them."""
    return read_settings({"dataset": "synthetic", **given}, Namespace(resume=False, train=True, audit=False), None, DEFAULTS)


def test_paths_in_the_settings_of_a_run_are_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "raw" / "afw").mkdir(parents=True)
    data = new_settings(data_dir="raw", train_data=["300w", "raw"], test_data=["raw"]).data
    assert data.data_dir == str(tmp_path / "raw")
    assert (data.train_data, data.test_data) == (["300w", str(tmp_path / "raw")], [str(tmp_path / "raw")])
    for mean in ("mean.txt", "mean.npy"):
        (tmp_path / "best.pt").touch()
        given = {"meanface": mean, "teacher": "best.pt", "detector_weights": "faces.onnx"}
        assert {key: value for key, value in new_settings(**given).flat().items() if key in given} == {
            key: str(tmp_path / name) for key, name in given.items()}


def test_the_label_shift_of_each_training_set(faces, tmp_path):
    ours, theirs = tmp_path / "ours", tmp_path / "300w"
    for folder, dataset in ((ours, "points"), (theirs, "300w")):
        meta = {**yaml.safe_load((faces / "meta.yaml").read_text()), "dataset": dataset}
        shutil.copytree(faces, folder)
        (folder / "meta.yaml").write_text(yaml.safe_dump(meta))

    def shifts(**given):
        task = Landmarks(new_settings(dataset="300w", val=0.1, **given), DEFAULTS, Ranks(0, 1, torch.device("cpu")))
        task.training = [PreparedSet(folder, DEFAULTS.layouts) for folder in (ours, theirs)]
        assert [split.label_shift for split in task.training_splits()] == task.label_shifts()
        return task.label_shifts()

    assert shifts() == shifts(preset="short") == [0, 0.75] and shifts(preset="pipnet") == [0, 0]
    assert shifts(label_shift=[0.5]) == [0.5, 0.5] and shifts(label_shift=[0.5, 1.0]) == [0.5, 1.0]
    with pytest.raises(UserError, match="label_shift has 3 numbers for 2 training sets"):
        shifts(label_shift=[1.0, 2.0, 3.0])
