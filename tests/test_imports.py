"""Imports point one way: main, then a room of extras, then the rooms of utils from the last to the first, then pipnet
and nets. No extra imports another, and no modules import each other in a circle. A string that names a module is an import.
"""

import ast
import re
import sys
from importlib import import_module
from pathlib import Path

import pytest
from conftest import ROOT

ROOMS = ("utils.settings", "utils.data", "utils.train", "utils.evaluate", "utils.export", "utils.task")  # in this order
# fmt: off
NETS = ("nets.outside", "nets.labels", "nets.losses", "nets.onednn", "nets.trainable", "nets.blocks", "nets.necks",
        "nets.backbones", "nets.heads", "nets.registry", "nets.stages", "nets.net", "nets.wrappers",
        "nets.build")  # the same inside nets
# fmt: on
DOORS = ("nets", "utils", "utils.util")  # modules that show users a part of a layer; nothing of it imports them
PLACE = re.compile(r"(extras|nets|pipnet|utils)(\.\w+)+(:\w+)?")  # MODULE:NAME, or MODULE
TORCH_SIDE = {"torch", "torchvision", "timm", "huggingface_hub", "numpy", "PIL", *sys.stdlib_module_names}


def module_of(file: Path) -> str:
    """Return the dotted name of a file of the project."""
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def is_module(name: str) -> bool:
    """Return whether the project has a module or package of that name."""
    path = ROOT.joinpath(*name.split("."))
    return path.with_suffix(".py").is_file() or path.is_dir()


def imports(text: str) -> set[str]:
    """Return the dotted names of the modules that a source imports, at its top or inside functions, or names in a string."""
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute in this project"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if is_module(name) else node.module for name in names}
        elif isinstance(node, ast.Constant) and PLACE.fullmatch(str(node.value)):
            found.add(node.value.partition(":")[0])
        elif isinstance(node, ast.Call) and "import_module" in ast.unparse(node.func):
            found |= {one.value for one in node.args if isinstance(one, ast.Constant) and is_module(str(one.value))}
    return found


def circles(graph: dict[str, set[str]]) -> list[set[str]]:
    """Return the modules that import each other in a circle. graph: {module: those that it imports}."""
    reached = {module: set(names) for module, names in graph.items()}
    for middle in graph:
        for names in reached.values():
            if middle in names:
                names |= reached[middle]
    return [
        {other for other in names if module in reached[other]} for module, names in reached.items() if module in names
    ]


def within(name: str, package: str) -> bool:
    """Return whether a module is a package or lies in it."""
    return name == package or name.startswith(f"{package}.")


def layer_of(name: str, layers: tuple[str, ...] = ROOMS) -> int:
    """Return the number of a module's layer."""
    number = next((number for number, layer in enumerate(layers) if within(name, layer)), None)
    assert number is not None, f"{name} belongs to no room: put it into one"
    return number


def is_allowed(module: str, imported: str) -> bool:
    """Return whether a module of the project may import another module."""
    top = imported.split(".")[0]
    if module in DOORS:
        return top in (module.split(".")[0], "extras", "pipnet", *TORCH_SIDE)
    if within(module, "nets"):
        if top == "nets":
            return imported not in DOORS and layer_of(imported, NETS) <= layer_of(module, NETS)
        return top in TORCH_SIDE
    if within(module, "pipnet"):
        app = within(imported, "pipnet.app") and not within(module, "pipnet.app") and module != "pipnet.__main__"
        return top not in ("extras", "nets", "utils", "main", "demo") and not app
    if within(module, "utils"):
        below = top != "utils" or (imported not in DOORS and layer_of(imported) <= layer_of(module))
        return top not in ("main", "demo", "extras") and below and not within(imported, "pipnet.app")
    if within(module, "extras"):
        same = module == "extras" or imported.split(".")[:2] in (module.split(".")[:2], ["extras", "shared"])
        return top not in ("main", "demo") and imported not in ("utils", "utils.util") and (top != "extras" or same)
    return True


FILES = {
    module_of(file): file
    for name in ("extras", "nets", "pipnet", "utils")
    for file in sorted((ROOT / name).rglob("*.py"))
}


@pytest.mark.parametrize("module", FILES)
def test_imports_point_one_way(module):
    wrong = {name for name in imports(FILES[module].read_text(encoding="utf-8")) if not is_allowed(module, name)}
    assert not wrong, f"{module} may not import {sorted(wrong)}"


def test_no_modules_import_each_other():
    graph = {}
    for module, file in FILES.items():
        graph[module] = {name for name in imports(file.read_text(encoding="utf-8")) if name in FILES}
    assert not circles(graph)


def test_main_sh_installs_every_package_that_is_imported():
    ours = {"extras", "nets", "pipnet", "utils", "main"}
    used = {name.split(".")[0] for file in FILES.values() for name in imports(file.read_text(encoding="utf-8"))}
    used -= {*ours, "huggingface_hub", *sys.stdlib_module_names}  # timm brings huggingface_hub
    checked = set(
        re.search(r"^environment requirements.txt (.+)$", (ROOT / "main.sh").read_text(), re.MULTILINE)[1].split()
    )
    packages = re.findall(r"^([\w-]+)", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    modules = {{"opencv-python": "cv2", "Pillow": "PIL", "PyYAML": "yaml"}.get(name, name) for name in packages}
    assert modules == checked and used <= checked


@pytest.mark.parametrize(
    ("module", "text", "allowed"),
    [
        ("utils.train.loop", "from utils.task import experiment", False),
        ("utils.train.loop", "from utils import task", False),
        ("utils.train.loop", "def f():\n    import utils.evaluate.metric", False),
        (
            "utils.train.loop",
            "from utils.settings import memory\nfrom utils.data.faces import Faces\nfrom nets import Net",
            True,
        ),
        ("utils.data.sets", "from utils.settings.config import ROOT\nfrom pipnet import images", True),
        ("utils.data.sets", "from pipnet.app import web", False),
        ("utils.data.sets", "from utils.train import ranks", False),
        ("utils.settings.config", "from utils.data import sets", False),
        ("extras.datasets.w300lp", "from utils.settings.layouts import Layouts", True),
        ("extras.datasets.w300lp", "from extras.synthetic import render", False),
        ("utils.data.sets", "from extras.datasets import w300lp", False),
        ("extras.tools.audit", "from utils.task.experiment import landmark_experiment", True),
        ("utils.task.experiment", "from extras.tools import audit", False),
        ("extras.tools.audit", "import main", False),
        ("pipnet.landmarker", "from pipnet.app import media", False),
        ("pipnet.app.demo", "from pipnet.app import media", True),
        ("pipnet.app.demo", "from utils.task import inference", False),
        ("pipnet.detector", "import nets", False),
        ("nets.net", "import torch\nfrom torch import nn\nfrom nets.labels import Labels\nimport math", True),
        ("nets.stages.refiner", "from nets.heads import pip", True),
        ("nets.heads.pip", "from nets.stages.refiner import Refiner", False),
        ("nets.heads.pip", "from nets import build", False),
        ("nets.net", "from nets import Labels", False),
        ("nets.net", "import cv2", False),
        ("nets.net", "from pipnet.errors import UserError", False),
        ("nets.net", "from utils import cores", False),
        ("utils.task.job", "PLACE = 'extras.tools.audit:audit'", False),
        ("utils.task.job", "import_module('extras')", False),
        ("extras.tools.audit", "PLACE = 'extras.semi.rounds:train_semi'", False),
        ("extras", "PLACE = 'extras.semi.rounds:train_semi'", True),
        ("utils.train.loop", "import utils", False),
        ("utils", "import extras", True),
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
        if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] in ("extras", "nets", "pipnet", "utils"):
            module = import_module(node.module)
            missing = {
                name.name
                for name in node.names
                if not (hasattr(module, name.name) or is_module(f"{node.module}.{name.name}"))
            }
            assert not missing, f"line {node.lineno}: {node.module} has no {missing}"
