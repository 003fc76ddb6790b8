"""README.md and docs/: links lead somewhere, commands parse, snippets run, the front page stays short, the site is
built.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from contextlib import closing, suppress
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from itertools import dropwhile
from pathlib import Path

import cv2
import measure
import pytest
import record
import speed
import torch
from conftest import ROOT, run, works

import pipnet
from extras.datasets import DATASETS
from pipnet.app import demo
from pipnet.app.sinks import VideoSink
from pipnet.video.sources import Frame
from utils.settings.command import Command
from utils.settings.config import read_defaults
from utils.settings.faults import faults, refuse
from utils.settings.heads import HEADS

DEFAULTS = read_defaults()
BENCHMARKS = {"benchmarks/measure.py": measure.MEASURES, "benchmarks/speed.py": speed.SPEEDS}
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FOLDERS = [*PAGES, ROOT / "CONTRIBUTING.md", *(ROOT / name / "README.md" for name in ("data", "weights", "assets"))]
COMMAND = re.compile(
    r"(?:\w+=\S+ )*(?:python (?:(?:main|demo|benchmarks/[\w/]+|weights/making/make)\.py|tests/campaigns)|"
    r"bash (?:main|test)\.sh)\b"
)


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
        _, script, *flags = dropwhile(re.compile(r"[A-Z_]+=").match, shlex.split(line, comments=True))
        try:
            if script == "main.sh":
                assert flags[0].isdigit(), line
                flags = flags[1:]
            if script in ("main.py", "main.sh"):
                if flags and "--help" not in flags and flags != ["..."]:  # else the program is only mentioned
                    refuse(faults(Command.of(flags, DEFAULTS)))
            elif script == "demo.py":
                if "--help" not in flags:
                    demo.parse(flags)
            elif script in BENCHMARKS:
                record.parse(BENCHMARKS[script], flags, "")
            else:
                assert (ROOT / script).exists(), line
        except Exception as error:
            raise AssertionError(f"{name_of(page)}: {line}") from error


def test_every_flag_exists(capsys):
    for show_help in (lambda: Command.of(["--help"], DEFAULTS), lambda: demo.parse(["--help"])):
        with pytest.raises(SystemExit):
            show_help()
    benchmarks = "--minutes --count --into --faces --split".split()
    # of git, of test.sh, of older campaigns; added by docs/contributing.md
    others = {"--depth", "--unshallow", "--all", "--jobs", "--values", "--compression", "--cells"}
    known = set(re.findall(r"--[a-z][\w-]*", capsys.readouterr().out)) | {"--help"} | {*benchmarks} | others
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


@pytest.mark.parametrize(
    ("page", "rows"),
    [
        ("training.md", DEFAULTS.presets),
        ("data.md", DEFAULTS.protocols),
        ("data.md", DATASETS),
        ("models.md", HEADS),
    ],
    ids=("presets", "protocols", "datasets", "heads"),
)
def test_every_row_is_documented(page, rows):
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    assert not [name for name in rows if f"`{name}`" not in text]


def test_the_front_page_is_short():
    assert len(re.sub("<!--.*?-->", "", (ROOT / "README.md").read_text(encoding="utf-8")).split()) <= 700


CHECKS = {  # page: what its snippets have found, beside that they run
    "README.md": "assert len(faces) == 1 and faces[0].landmarks.shape == (68, 2) and face.id == face.drowsiness['blinks'] == 0",
    "docs/contributing.md": "from nets.build import net_row\nassert net_row('convnext_atto').imagenet",
    "docs/runtimes.md": "from pipnet import Detector, Landmarker\n"
    "names = [f'weights/{name}.onnx' for name in ('landmarks', 'detector', 'finder')]\n"
    "landmarker = Landmarker(names[0], Detector(weights=names[1]), finder=names[2], any_roll=False)\n"
    "aimed, _ = landmarker.aim(landmarker._landmark_boxes(image, landmarker.detector.once(image)))\n"
    "face, = filter(landmarker.is_face, landmarker.read(aimed))\n"
    "assert np.abs(points - face.landmarks).max() < 0.2",
}
EDITED = re.compile(r"# (\S+\.(?:py|yaml))(?:, below: (.+))?\n")  # first line of a snippet that belongs into a file


def snippets(page: Path) -> list[str]:
    """Return the blocks that are marked `<!-- run -->`."""
    return re.findall(r"^<!-- run -->\n```\w+\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def checkout(folder: Path) -> Path:
    """Return a folder with what a fresh checkout holds, a picture and a video."""
    for name in ("nets", "pipnet", "utils", "extras", "benchmarks"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.tgz"))
    for name in ("main.py", "demo.py", "args.yaml", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    for name in ("assets", "weights"):
        (folder / name).symlink_to(ROOT / name)
    shutil.copy(ROOT / "assets" / "astronaut.jpg", folder / "face.jpg")
    with closing(VideoSink(folder / "talk.mp4", 25)) as video:
        for index in range(5):
            image = cv2.imread(str(folder / "face.jpg"))
            video.write(Frame(image, index, index / 25, "talk.mp4"), image)
    return folder


def edit(folder: Path, snippet: str) -> None:
    """Put a snippet into its file: as a new one, at its end, or below the first line with a text."""
    name, below = EDITED.match(snippet).groups()
    file, code = folder / name, snippet.split("\n", 1)[1]
    if not file.exists():
        file.write_text(code)
        return
    lines = file.read_text().splitlines(keepends=True)
    place = next(i for i, line in enumerate(lines) if below in line) + 1 if below else len(lines)
    file.write_text("".join([*lines[:place], code, *lines[place:]]))


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if snippets(page)], ids=name_of)
def test_snippets_run_as_a_reader_types_them(page, tmp_path, cli, recipe):
    folder = checkout(tmp_path)
    typed = [code for code in snippets(page) if not EDITED.match(code)]
    edits = [code for code in snippets(page) if EDITED.match(code)]
    for code in edits:
        edit(folder, code)
    lines = "\n".join([*typed, CHECKS.get(name_of(page), "")])
    done = subprocess.run([sys.executable, "-"], input=lines, cwd=folder, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    if not edits:
        return
    extended = ("--net", "tiny", "--head", "maximum", "--error", "charbonnier", "--cells", "2", "--compression", "1")
    for flags in (
        ("--show-data", "4", "--train", "--test", *recipe, *extended),
        ("--prepare", "--dataset", "lines", "--data-dir", folder / "archive", "--val", "none"),
        ("--prepare", "--dataset", "mine:read", "--data-dir", folder / "archive", "--val", "none"),
        ("--train", "--test-onnx", *recipe, "--net", "mine:Small", "--head", "mine:grey", "--error", "mine:half"),
    ):
        done = works(cli(*flags, script=folder / "main.py"))
    cv2.imwrite(str(folder / "close.jpg"), cv2.imread(str(folder / "face.jpg"))[30:170, 155:295])
    demo_flags = ("--source", "close.jpg", "--detector", "whole", "--detector-weights", "face.jpg", "--json", "-")
    done = subprocess.run(
        [sys.executable, "demo.py", *demo_flags], cwd=folder, capture_output=True, text=True, timeout=200
    )
    assert len(json.loads(done.stdout)["faces"]) == 1, done.stderr


def test_own_code_needs_no_other_snippet():
    (code,) = (code for code in snippets(ROOT / "docs/contributing.md") if code.startswith("# mine.py"))
    found: dict = {"__name__": "mine"}
    exec(code, found)
    small = found["Small"]()
    maps = small(torch.zeros(1, 3, 64, 64))
    assert {stride: tuple(one.shape[1:]) for stride, one in maps.items()} == {
        stride: (channels, 64 // stride, 64 // stride) for stride, channels in small.channels.items()
    }


@pytest.mark.slow
def test_uses_of_the_package_pass_the_strict_type_checker(tmp_path):
    if not find_spec("mypy"):
        pytest.skip("no mypy; requirements-dev.txt brings it")
    readme = tmp_path / "readme.py"
    readme.write_text("\n".join(snippets(ROOT / "README.md")))
    strict = "-m", "mypy", "--strict", "--follow-imports", "silent", "--config-file", "", "--cache-dir", str(tmp_path)
    works(run("python", *strict, "tests/data/typed_use.py", readme))


@pytest.mark.slow
def test_the_site_is_built_without_a_warning(tmp_path):
    if not (find_spec("material") and find_spec("mkdocstrings_handlers")):
        pytest.skip("no mkdocs-material and mkdocstrings-python; requirements-dev.txt brings them")
    works(run("python", "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)))
    public = (tmp_path / "api" / "index.html").read_text(encoding="utf-8")
    assert not [name for name in pipnet.__all__ if f'id="pipnet.{name}"' not in public]
    assert (tmp_path / "assets" / "demo.jpg").is_file() and (tmp_path / "benchmarks" / "results").is_dir()


def test_the_notebook_is_stored_with_small_outputs_that_name_no_machine():
    text = (ROOT / "examples" / "quickstart.ipynb").read_text(encoding="utf-8")
    outputs = [output for cell in json.loads(text)["cells"] for output in cell.get("outputs", ())]
    assert sum("image/jpeg" in output.get("data", {}) for output in outputs) == 2 and len(text) < 200_000
    assert not any(output.get("name") == "stderr" or output["output_type"] == "error" for output in outputs)
    assert "/tmp/" not in text and "/home/" not in text


@pytest.mark.slow
def test_the_notebook_runs(tmp_path):
    file = ROOT / "examples" / "quickstart.ipynb"
    cells = [cell for cell in json.loads(file.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    wanted = (
        "assert len(faces) == state['blinks'] == 3 and figures['scores'][0]['NME %'] < 8\n"
        "assert len(found) == 1 and found[0].landmarks.shape == (10, 2)"
    )
    code = "\n".join([*("".join(cell["source"]) for cell in cells), wanted])
    done = subprocess.run(
        [sys.executable, "-"],
        input=code,
        cwd=file.parent,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr
