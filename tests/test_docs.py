"""README.md and docs/: links lead somewhere, commands parse, snippets run, the front page stays short."""
import re
import shlex
import shutil
import sys
from contextlib import ExitStack, contextmanager, suppress
from copy import copy
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from conftest import ROOT

import main
from nets import HEADS
from pipnet import Landmarker
from pipnet.app import demo
from utils.config import parse, read_defaults
from utils.data.parsers import DATASETS

DEFAULTS = read_defaults()
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FOLDERS = [*PAGES, *(ROOT / name / "README.md" for name in ("data", "weights", "assets"))]
COMMAND = re.compile(r"(?:\w+=\S+ )*(?:python (?:main|demo|benchmarks/[\w/]+)\.py|bash (?:main|test)\.sh)\b")


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def prose(page: Path) -> str:
    """Return a page's text without its code blocks."""
    return re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


@cache
def anchors(page: Path) -> set[str]:
    """Return the names that GitHub gives a page's headings."""
    titles = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def commands(page: Path) -> list[str]:
    """Return the commands of this project that a page shows, in blocks and in the text."""
    text = page.read_text(encoding="utf-8")
    blocks = re.findall(r"^    (.+)$", text, re.MULTILINE)
    spans = [span.replace(r"\|", "|") for span in re.findall(r"`([^`\n]+)`", prose(page))]
    return [line.strip() for line in (*blocks, *spans) if COMMAND.match(line.strip())]


@pytest.mark.parametrize("page", FOLDERS, ids=name_of)
def test_every_link_leads_somewhere(page):
    targets = re.findall(r"\]\(([^)\s]+)\)", prose(page))
    assert targets or page.parent.name == "assets"
    for target in targets:
        if re.match(r"[a-z]+://", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{name_of(page)}: {target}"
        assert not anchor or anchor in anchors(file), f"{name_of(page)}: {target}"


@pytest.mark.parametrize("page", FOLDERS, ids=name_of)
def test_every_command_parses(page):
    for line in commands(page):
        words = [word for word in shlex.split(line, comments=True) if not re.fullmatch(r"[A-Z_]+=\S+", word)]
        _, script, *flags = words
        try:
            if script == "main.sh":
                assert flags[0].isdigit(), line
                flags = flags[1:]
            if script in ("main.py", "main.sh"):
                if flags and "--help" not in flags and flags != ["..."]:  # else the program is only mentioned
                    main.check_modes(parse(flags, main.add_modes, DEFAULTS)[0])
            elif script == "demo.py":
                if "--help" not in flags:
                    demo.parse(flags)
            else:
                assert (ROOT / script).is_file(), line
        except Exception as error:
            raise AssertionError(f"{name_of(page)}: {line}") from error


def test_every_flag_exists(capsys):
    for show_help in (lambda: parse(["--help"], main.add_modes, DEFAULTS), lambda: demo.parse(["--help"])):
        with pytest.raises(SystemExit):
            show_help()
    of_benchmarks = {"--seeds", "--minutes", "--count", "--jobs", "--rows", "--start-epochs"}
    known = set(re.findall(r"--[a-z][\w-]*", capsys.readouterr().out)) | {"--help"} | of_benchmarks
    for page in FOLDERS:
        typed = re.sub(r"<!-- figures.*?<!-- end -->", "", prose(page), flags=re.DOTALL)
        unknown = set(re.findall(r"(?<![\w-])--[a-z][\w-]*", typed)) - known
        assert not unknown, f"{name_of(page)}: {unknown}"


@pytest.mark.parametrize("page", FOLDERS, ids=name_of)
def test_every_file_and_python_name_exists(page):
    spans = re.findall(r"`([^`\n]+)`", prose(page))
    for span in spans:
        for file in re.findall(r"\b(?:nets|utils|pipnet|benchmarks|tests)/[\w/]+(?:\.\w+)?", span):
            assert (ROOT / file).exists(), f"{name_of(page)}: {file}"
    for name in re.findall(r"\b(?:nets|utils|pipnet)\.(?:\w+\.)*\w+\b(?!/)", " ".join(spans)):
        modules = name.split(".")
        found = import_module(modules[0])
        for place, attribute in enumerate(modules[1:], 2):
            with suppress(ImportError):
                import_module(".".join(modules[:place]))
            assert hasattr(found, attribute), f"{name_of(page)}: {name}"
            found = getattr(found, attribute)


def test_the_pages_show_commands():
    assert sum(len(commands(page)) for page in PAGES) > 100


@pytest.mark.parametrize(("page", "rows"), [
    ("training.md", DEFAULTS.presets), ("data.md", DEFAULTS.protocols), ("data.md", DATASETS),
    ("models.md", HEADS),
], ids=("presets", "protocols", "datasets", "heads"))
def test_every_row_is_documented(page, rows):
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    assert not [name for name in rows if f"`{name}`" not in text]


def test_the_front_page_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 200


def snippets(page: Path) -> list[str]:
    """Return the Python blocks that are marked `<!-- run -->`."""
    return re.findall(r"^<!-- run -->\n```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


@contextmanager
def unchanged(module: ModuleType):
    """Give a module back the names, and its tables the rows, that they had."""
    before = dict(vars(module))
    tables = [(value, copy(value)) for value in before.values() if type(value) is dict]
    try:
        yield
    finally:
        vars(module).clear()
        vars(module).update(before)
        for table, rows in tables:
            table.clear()
            table.update(rows)


def execute(code: str, names: dict, stack: ExitStack) -> None:
    """Run a snippet. One that begins with the name of a file is run as that module, or as an addition to it."""
    if not (file := re.match(r"# (\S+)\.py\n", code)):
        exec(compile(code, "snippet", "exec"), names)
        return
    name = file[1].replace("/", ".").removesuffix(".__init__")
    if (ROOT / f"{file[1]}.py").is_file():
        module = import_module(name)
        stack.enter_context(unchanged(module))
    else:
        module = sys.modules[name] = ModuleType(name)
        stack.callback(sys.modules.pop, name)
    exec(compile(code, file[0].strip("# \n"), "exec"), vars(module))


@pytest.mark.parametrize("page", [page for page in PAGES if snippets(page)], ids=name_of)
def test_every_snippet_runs(page, tmp_path, monkeypatch):
    shutil.copy(ROOT / "assets" / "astronaut.jpg", tmp_path / "face.jpg")
    (tmp_path / "weights").symlink_to(ROOT / "weights")
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    with ExitStack() as stack:
        for code in snippets(page):
            execute(code, names, stack)
    if "faces" in names:
        assert len(names["faces"]) == 1 and names["faces"][0].landmarks.shape == (68, 2)
    if "points" in names:
        face, = Landmarker("weights/landmarks.onnx")(names["image"], second_crop=False)
        assert np.abs(names["points"] - face.landmarks).max() < 0.2
