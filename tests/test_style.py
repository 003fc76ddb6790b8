"""Style beyond ruff: the shell scripts, the types, and the set of packages that was tested."""

import importlib.metadata
import re
import shutil
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest
from conftest import ROOT, run, works

SCRIPTS = ("main.sh", "test.sh", ".ci/run", "utils/settings/environment.sh")


def names(text: str) -> dict[str, str]:
    """{package: the rest of its line} of a requirements file."""
    rows = re.findall(r"^([\w.-]+)([^#\n]*)", text, re.MULTILINE)
    return {re.sub("[-_.]+", "-", name).lower(): rest.strip() for name, rest in rows if not name.startswith("-")}


def test_the_shell_scripts_pass_shellcheck():
    program = shutil.which("shellcheck", path=Path(sys.executable).parent) or shutil.which("shellcheck")
    if not program:
        pytest.skip("no shellcheck; requirements-dev.txt brings it")
    works(run(program, "-x", *SCRIPTS))


@pytest.mark.slow
def test_the_code_passes_the_type_checker(tmp_path):
    if not find_spec("mypy"):
        pytest.skip("no mypy; requirements-dev.txt brings it")
    works(run("python", "-m", "mypy", "--cache-dir", str(tmp_path)))


def test_the_lock_holds_every_package_within_its_range():
    locked = {
        name: rest.removeprefix("==") for name, rest in names((ROOT / "requirements-lock.txt").read_text()).items()
    }
    for file in ("requirements.txt", "requirements-dev.txt"):
        for name, wanted in names((ROOT / file).read_text()).items():
            least, below = re.fullmatch(r">=([\d.]+)(?:,<([\d.]+))?", wanted).groups()
            numbers = [tuple(map(int, text.split("."))) for text in (least, locked[name], below or "99999999")]
            assert numbers[0] <= numbers[1] < numbers[2], name


def test_the_extra_train_brings_what_main_py_needs():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    brought = [*project["dependencies"], *project["optional-dependencies"]["train"]]
    assert names("\n".join(brought)) == names((ROOT / "requirements.txt").read_text())


def test_uv_brings_what_the_tests_need():
    group = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]["dev"]
    assert names("\n".join(group)) == {"pipnet": "[train]", **names((ROOT / "requirements-dev.txt").read_text())}


def test_the_lock_is_whole():
    """Every package that a locked one needs is locked."""
    packaging = pytest.importorskip("packaging.requirements")
    locked = names((ROOT / "requirements-lock.txt").read_text())
    installed = {re.sub("[-_.]+", "-", one.metadata["Name"]).lower(): one for one in importlib.metadata.distributions()}
    for name in locked.keys() & installed.keys():
        for text in installed[name].requires or ():
            needed = packaging.Requirement(text)
            if needed.marker is None or needed.marker.evaluate({"extra": ""}):
                assert re.sub("[-_.]+", "-", needed.name).lower() in locked, f"{name} needs {needed.name}"
