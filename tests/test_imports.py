"""Imports point one way: main, then LAYERS from the last to the first, then pipnet and nets."""

import ast
import re
import sys
from importlib import import_module
from pathlib import Path

import pytest
from conftest import ROOT

PARSERS = "utils.faces.archives"  # it reads no args.yaml: its callers give it the layouts
LAYERS = (
    "utils.faces.archives",
    "utils.synthetic",
    "utils.faces",
    "utils.train",
    "utils.evaluate",
    "utils.export",
    "utils.detect",
    "utils.landmarks",
    "utils.tools",
)  # each may import those before it
# fmt: off
NETS = ("nets.registry", "nets.labels", "nets.losses", "nets.onednn", "nets.trainable", "nets.blocks", "nets.necks",
        "nets.backbones", "nets.heads", "nets.stages", "nets.net", "nets.wrappers", "nets.build", "nets.convert",
        "nets.detectors")  # the same inside nets; nobody there imports `nets` itself
# fmt: on
COMMON = {
    f"utils.{name}"
    for name in (
        "checks",
        "config",
        "conversion",
        "formats",
        "keys",
        "layouts",
        "locks",
        "machine",
        "memory",
        "modes",
        "partial_folders",
        "progress",
        "sections",
        "start",
        "union",
        "yaml_files",
    )
}
REEXPORTS = {"utils": "utils.faces", "utils.util": "utils.faces"}  # modules that show users a part of a layer
TORCH_SIDE = {"torch", "torchvision", "timm", "huggingface_hub", "numpy", "PIL", *sys.stdlib_module_names}


def module_of(file: Path) -> str:
    """Return the dotted name of a file of the project."""
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def is_module(name: str) -> bool:
    """Return whether the project has a module or package of that name."""
    path = ROOT.joinpath(*name.split("."))
    return path.with_suffix(".py").is_file() or path.is_dir()


def imports(text: str) -> set[str]:
    """Return the dotted names of the modules that a source imports, at its top or inside functions."""
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute in this project"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if is_module(name) else node.module for name in names}
    return found


def within(name: str, package: str) -> bool:
    """Return whether a module is a package or lies in it."""
    return name == package or name.startswith(f"{package}.")


def layer_of(name: str, layers: tuple[str, ...] = LAYERS) -> int:
    """Return the number of a module's layer; -1 for what all layers may import."""
    name = REEXPORTS.get(name, name)
    if name in COMMON:
        return -1
    number = next((number for number, layer in enumerate(layers) if within(name, layer)), None)
    assert number is not None, f"{name} belongs to no layer: put it into one, or list it in COMMON"
    return number


def is_allowed(module: str, imported: str) -> bool:
    """Return whether a module of the project may import another module."""
    top = imported.split(".")[0]
    if within(module, "nets"):
        if top == "nets":
            return module == "nets" or (imported != "nets" and layer_of(imported, NETS) <= layer_of(module, NETS))
        return top in TORCH_SIDE
    if within(module, "pipnet"):
        app = within(imported, "pipnet.app") and not within(module, "pipnet.app") and module != "pipnet.__main__"
        return top not in ("nets", "utils", "main", "demo") and not app
    if within(module, PARSERS) and imported == "utils.config":
        return False
    if within(module, "utils"):
        return top not in ("main", "demo") and (top != "utils" or layer_of(imported) <= layer_of(module))
    return True


FILES = {module_of(file): file for name in ("nets", "pipnet", "utils") for file in sorted((ROOT / name).rglob("*.py"))}


@pytest.mark.parametrize("module", FILES)
def test_imports_point_one_way(module):
    wrong = {name for name in imports(FILES[module].read_text(encoding="utf-8")) if not is_allowed(module, name)}
    assert not wrong, f"{module} may not import {sorted(wrong)}"


def test_main_sh_installs_every_package_that_is_imported():
    ours = {"nets", "pipnet", "utils", "main"}
    used = {name.split(".")[0] for file in FILES.values() for name in imports(file.read_text(encoding="utf-8"))}
    used -= {*ours, "huggingface_hub", *sys.stdlib_module_names}  # timm brings huggingface_hub
    checked = set(
        re.search(r"^environment requirements.txt (.+)$", (ROOT / "main.sh").read_text(), re.MULTILINE)[1].split()
    )
    packages = re.findall(r"^([\w-]+)", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    modules = {{"opencv-python": "cv2", "Pillow": "PIL", "PyYAML": "yaml"}.get(name, name) for name in packages}
    assert modules == checked and used <= checked


def test_what_all_may_import_is_there():
    assert COMMON <= FILES.keys()


@pytest.mark.parametrize(
    ("module", "text", "allowed"),
    [
        ("utils.train.loop", "from utils.landmarks import experiment", False),
        ("utils.train.loop", "from utils import tools", False),
        ("utils.train.loop", "def f():\n    import utils.evaluate.metric", False),
        (
            "utils.train.loop",
            "from utils import memory\nfrom utils.faces.faces import Faces\nfrom nets import Net",
            True,
        ),
        ("utils.faces.sets", "from utils.config import ROOT\nfrom pipnet.app import media", True),
        ("utils.faces.sets", "from utils.train import ranks", False),
        ("utils.config", "from utils.faces import sets", False),
        ("utils.faces.archives.w300lp", "from utils.config import read_defaults", False),
        ("utils.faces.archives.w300lp", "from utils.layouts import Layouts", True),
        ("utils.tools.audit", "from utils.landmarks.experiment import landmark_experiment", True),
        ("utils.landmarks.experiment", "from utils.tools import audit", False),
        ("utils.tools.audit", "import main", False),
        ("pipnet.landmarker", "from pipnet.app import media", False),
        ("pipnet.app.demo", "from pipnet.app import media", True),
        ("pipnet.app.demo", "from utils.tools import inference", False),
        ("pipnet.detector", "import nets", False),
        ("nets.net", "import torch\nfrom torch import nn\nfrom nets.labels import Labels\nimport math", True),
        ("nets.stages.refiner", "from nets.heads import simcc", True),
        ("nets.heads.pip", "from nets.stages.refiner import Refiner", False),
        ("nets.heads.pip", "from nets import build", False),
        ("nets.net", "from nets import Labels", False),
        ("nets.net", "import cv2", False),
        ("nets.net", "from pipnet.errors import UserError", False),
        ("nets.net", "from utils import cores", False),
    ],
)
def test_the_rules_find_what_they_should(module, text, allowed):
    assert all(is_allowed(module, name) for name in imports(text)) == allowed


@pytest.mark.parametrize(
    "file",
    sorted([*(ROOT / "benchmarks").rglob("*.py"), *(ROOT / "weights" / "making").glob("*.py")]),
    ids=lambda file: file.stem,
)
def test_benchmarks_import_what_is_there(file):
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] in ("nets", "pipnet", "utils"):
            module = import_module(node.module)
            missing = {
                name.name
                for name in node.names
                if not (hasattr(module, name.name) or is_module(f"{node.module}.{name.name}"))
            }
            assert not missing, f"line {node.lineno}: {node.module} has no {missing}"
