"""Paths on the command line, made independent of the folder that the program was started in."""
from pathlib import Path
from typing import Any

from utils.data.parsers import DATASETS

MEANFACE_FILES = (".txt", ".npy")  # text or an array; other names are prepared sets


def resolve_paths(given: dict[str, Any]) -> dict[str, Any]:
    """Return the typed keys with absolute folders and files, so that a run's keys mean the same from anywhere."""
    found = {key: absolute(given[key]) for key in ("train_data", "test_data", "unlabelled") if given.get(key)}
    files = ["data_dir", "detector_weights"]
    if mean := given.get("meanface"):
        found["meanface"] = absolute([mean])[0]
        if mean.endswith(MEANFACE_FILES):
            files.append("meanface")
    return {**given, **found, **{key: str(Path(given[key]).resolve()) for key in files if given.get(key)}}


def absolute(names: list[str]) -> list[str]:
    """Return names of datasets as they are, folders and files as absolute paths."""
    return [name if name in DATASETS or not Path(name).exists() else str(Path(name).resolve()) for name in names]
