"""The start of a command: signals while its packages are loaded and while it works."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys

import pytest
from conftest import ROOT, run

from utils.settings.start import STOPPED

# in short steps: Python does not see a signal that comes between its last look and the system call until that call ends
WAIT = "for _ in range(1000): time.sleep(0.1)"
AT_WORK = f"    {WAIT}"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "package", "number"),
    [
        (["main.py", "--list-nets"], "torch", signal.SIGINT),
        (["main.py", "--version"], "numpy", signal.SIGTERM),
        (["demo.py", "--version"], "cv2", signal.SIGINT),
        (["-m", "utils.train.launch", "--", "main.py"], "torch", signal.SIGTERM),
    ],
)
def test_a_signal_while_packages_are_loaded_is_one_line(command, package, number, tmp_path):
    slow = tmp_path / package
    slow.mkdir()
    (slow / "__init__.py").write_text(f"import time\nprint('loading', flush=True)\n{WAIT}\n")
    process = subprocess.Popen(
        [sys.executable, *command],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "loading\n"
    process.send_signal(number)
    assert process.communicate(timeout=60)[1] == "stopped while packages are loaded; nothing is changed\n"
    assert process.returncode == 128 + number


NO_THREAD = """
import threading
def refuse(self):
    raise RuntimeError("can't start new thread")
threading.Thread.start = refuse
"""  # as with `ulimit -u 1`, which does not bind root


def test_a_system_without_threads_is_one_line(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(NO_THREAD)
    done = run("python", "main.py", "--version", PYTHONPATH=str(tmp_path))
    assert done.returncode == 1 and re.fullmatch("error: .*ulimit -u.*\n", done.stderr), done.stderr


def written(folder, work: str) -> str:
    """Write a command that prints `begun` and does `work`. Return its file."""
    script = folder / "script.py"
    script.write_text(
        f"import os, signal, sys, time\nsys.path.insert(0, {str(ROOT)!r})\nfrom utils.settings import start\n"
        f"def main(argv):\n    print('begun\\n', end='', flush=True)\n{work}\n"
        "start.begin_loading()\nstart.end_loading()\nstart.run_command(main)\n"
    )
    return str(script)


AGAIN = """
    try:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(100)
    finally:
        os.kill(os.getpid(), signal.SIGTERM)
        print("left", flush=True)"""
CHILD = """
    def gone(*_):
        raise RuntimeError("a loader process has ended")
    signal.signal(signal.SIGCHLD, gone)
    child = os.fork()
    if not child:
        time.sleep(100)
    try:
        os.kill(os.getpid(), signal.SIGTERM)
    finally:
        os.kill(child, signal.SIGKILL)
        time.sleep(0.5)"""
ABORTS = """
    import atexit
    start.when_stopped("stopped; see list.csv")
    print("a progress bar", end="", file=sys.stderr, flush=True)
    atexit.register(os.abort)
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(100)"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "place", "says"),
    [
        (signal.SIGINT, AT_WORK, "stopped"),
        (signal.SIGINT, AGAIN, "stopped"),
        (signal.SIGTERM, CHILD, "stopped"),
        (signal.SIGINT, ABORTS, "a progress bar\nstopped; see list.csv"),
    ],
    ids=("at work", "twice", "with a loader process", "with a library that aborts"),
)
def test_a_signal_is_one_line(number, place, says, tmp_path):
    """The first one ends the process; those that follow are ignored."""
    command = [sys.executable, "-W", "ignore", written(tmp_path, place)]  # Python warns of os.fork()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if "os.kill" not in place:  # a line read before would hide what comes with it from communicate()
        assert process.stdout.readline() == "begun\n"
        process.send_signal(number)
    output, error = process.communicate(timeout=60)
    assert error.strip() == says and process.returncode == 128 + number
    assert ("left" in output) == ("left" in place)


@pytest.mark.parametrize(
    ("given", "count"), [({}, "30000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, "")]
)
def test_threads_that_wait_spin_briefly_unless_the_user_says_so(tmp_path, given, count):
    script = written(tmp_path, "    print(os.environ.get('GOMP_SPINCOUNT', ''))")
    assert run("python", script, **given).stdout.split("\n")[1] == count


@pytest.mark.parametrize("file", ("", "last.pt", "round0/last.pt", "sweep.yaml"))
def test_a_stopped_training_prints_the_whole_command_that_goes_on(tmp_path, file):
    folder = tmp_path / "my runs"
    (folder / file).parent.mkdir(parents=True, exist_ok=True)
    (folder / file if file else tmp_path / "none").touch()
    script = written(
        tmp_path, f"    start.names_training({str(folder)!r})\n    os.kill(os.getpid(), signal.SIGINT)\n{AT_WORK}"
    )
    done = run("python", script, "--train", "--exp", "a", "--overwrite", "--box", "true", "a b", "--exp=c", "--resume")
    told = shlex.split(done.stderr.strip().rpartition(": ")[2])
    flags = ["--train", "--box", "true", "a b", "--exp", str(folder), *["--resume"] * bool(file)]
    assert told == ["python", script, *flags], done.stderr


@pytest.mark.slow
def test_a_signal_to_several_processes_is_one_line(tmp_path):
    script = written(tmp_path, AT_WORK)
    launch = [sys.executable, "-m", "utils.train.launch", "--standalone", "--nproc-per-node", "2", "--", script]
    process = subprocess.Popen(launch, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert [process.stdout.readline() for _ in range(2)] == ["begun\n"] * 2
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=60)[1].strip() == STOPPED and process.returncode == 130


PYTHON = """#!/usr/bin/env bash
case "$*" in
    *find_spec*) [ -e installed ] ;;
    "-m venv .venv") mkdir -p .venv/bin; cp "$0" .venv/bin/python ;;
    *" uv "*) false ;;
    *"pip install"*" uv") ;;
    *"pip install"*) echo begin >> log; sleep 1; echo end >> log; touch installed ;;
esac
"""  # knows no package until pip has installed it


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("flock"), reason="no flock")
def test_two_commands_install_the_packages_once(tmp_path):
    python = tmp_path / "bin" / "python3.13"
    python.parent.mkdir()
    python.write_text(PYTHON)
    python.chmod(0o755)
    script = f"source {ROOT}/utils/settings/environment.sh; environment requirements.txt no_such_module; echo $PYTHON"
    begun = [
        subprocess.Popen(
            ["bash", "-euc", script],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PATH": f"{python.parent}:{os.environ['PATH']}"},
        )
        for _ in range(2)
    ]
    assert [process.communicate(timeout=60)[0] for process in begun] == [f"{tmp_path}/.venv/bin/python\n"] * 2
    assert (tmp_path / "log").read_text() == "begin\nend\n"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ("windows", "dangling", "none"))
def test_only_an_environment_of_this_run_is_removed(tmp_path, kind):
    python, venv = tmp_path / "bin" / "python3.13", tmp_path / ".venv"
    python.parent.mkdir()
    python.write_text(
        '#!/usr/bin/env bash\ncase "$*" in *find_spec*) false ;; "-m venv"*) touch .venv/half; false ;; esac\n'
    )
    python.chmod(0o755)
    if kind == "windows":
        (venv / "Scripts").mkdir(parents=True)
        (venv / "Scripts" / "python.exe").write_text("mine")
    elif kind == "dangling":
        venv.symlink_to("gone")
    for name in ("python3", "python"):
        (python.parent / name).symlink_to(python)
    done = subprocess.run(
        ["bash", "-euc", f"source {ROOT}/utils/settings/environment.sh; environment requirements.txt no_such_module"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "PATH": f"{python.parent}:{os.environ['PATH']}"},
    )
    assert done.returncode == 1 and done.stderr.splitlines()[-1].startswith("error: ")
    if kind == "windows":
        assert [path.name for path in venv.rglob("*.exe")] == ["python.exe"] and len(list(venv.iterdir())) == 1
    else:
        assert venv.is_symlink() == (kind == "dangling") and not venv.exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "command", [("main.py", "--list-nets"), ("demo.py", "--source", "assets/astronaut.jpg", "--json", "-")]
)
def test_a_reader_that_ends_early_is_no_error(command):
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([sys.executable, *command], cwd=ROOT, stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert done.returncode == 1 and not re.search("Traceback|Exception|BrokenPipe", done.stderr), done.stderr


ECHO = """#!/usr/bin/env bash
case "$*" in *sys.exit*) ;; *) echo "in $PWD: $*" ;; esac
"""  # has every package, and says what it is asked to run


@pytest.fixture
def elsewhere(tmp_path):
    """A folder in which the project is `c1`, its Python only says what it is asked; a foreign `c1` lies in the folder
    `other`.
    """
    for name in ("main.sh", "test.sh", ".ci/run", "utils/settings/environment.sh"):
        for top in (tmp_path / "c1", tmp_path / "other" / "c1"):
            (top / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, top / name)
            if "other" in top.parts:
                (top / name).write_text("echo foreign; exit 3\n")
    python = tmp_path / "c1" / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(ECHO)
    python.chmod(0o755)
    return tmp_path


@pytest.mark.parametrize(
    ("script", "flags", "says"),
    [
        ("main.sh", ["1", "--train"], "in {0}: {0}/c1/main.py --train\n"),
        (
            "main.sh",
            ["2", "--data-dir", "a b"],
            "in {0}: -P -m utils.train.launch --standalone --nproc-per-node 2 --max-restarts 0 "
            "-- {0}/c1/main.py --data-dir a b\n",
        ),
        ("test.sh", ["-k", "a"], "in {0}/c1: -m pytest -n auto --maxprocesses 3 --dist worksteal -k a\n"),
        (
            ".ci/run",
            [],
            "in {0}/c1: -m pytest -n auto --maxprocesses 3 --dist worksteal --all --durations=25\n"
            "in {0}/c1: -m ruff check .\nin {0}/c1: -m ruff format --check .\n",
        ),
    ],
)
def test_scripts_belong_to_their_own_folder_and_paths_to_the_users(elsewhere, script, flags, says):
    env = {**os.environ, "CDPATH": str(elsewhere / "other")}
    done = subprocess.run(["bash", f"c1/{script}", *flags], cwd=elsewhere, env=env, capture_output=True, text=True)
    assert done.stdout == says.format(elsewhere), done.stderr


@pytest.mark.parametrize("script", ("main.sh", "test.sh", ".ci/run"))
def test_another_shell_is_told_to_be_bash(script):
    shell = shutil.which("dash") or pytest.skip("no dash")
    done = subprocess.run([shell, ROOT / script, "1"], capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.startswith("error: this is a script of bash: bash ")
    assert done.stderr.count("\n") == 1


WITHOUT = """
import os, sys
class Without:
    def __init__(self, finder):
        self.finder = finder
    def __getattr__(self, name):
        return getattr(self.finder, name)
    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in os.environ["MISSING"].split() else self.finder.find_spec(name, path, target)
sys.meta_path[:] = map(Without, sys.meta_path)
"""


@pytest.fixture
def without(tmp_path):
    """without(packages, *flags) runs a command in an environment that lacks these packages."""
    (tmp_path / "sitecustomize.py").write_text(WITHOUT)
    env = {"PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1"}
    return lambda packages, *flags: run("python", *map(str, flags), MISSING=packages, **env)


@pytest.mark.slow
def test_a_training_needs_only_what_it_uses(without, recipe, tmp_path):
    done = without("h5py scipy tensorboard onnx onnxruntime onnxscript", "main.py", "--train", "--test", *recipe)
    assert done.returncode == 0 and "no events for TensorBoard" in done.stderr, done.stderr
    assert (tmp_path / "runs" / "000" / "best.pt").is_file() and "--logdir" not in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("package", "flags"),
    [
        ("onnxscript", ["main.py", "--train", "--test-onnx", "--exp", "new"]),
        ("MNN", ["main.py", "--train", "--export", "mnn"]),
        ("scipy", ["main.py", "--prepare", "--dataset", "synthetic", "--data-root"]),
        ("onnx", ["main.py", "--export", "int8", "--exp"]),
        ("onnxruntime", ["main.py", "--predict", "assets/astronaut.jpg"]),
        ("onnxruntime", ["demo.py", "--source", "assets/astronaut.jpg", "--json", "-"]),
    ],
)
def test_a_missing_package_is_one_line(without, recipe, trained, tmp_path, package, flags):
    more = recipe if "--train" in flags else []
    if flags[-1] == "--exp":
        more = [shutil.copytree(trained.folder, tmp_path / "copy")]
    elif flags[-1] == "--data-root":
        more = [tmp_path / "data"]
    done = without(package, *flags, *more)
    assert done.returncode == 1 and done.stderr.splitlines()[-1].startswith("error: "), done.stderr
    assert (
        f"pip install {package}" in done.stderr and "Traceback" not in done.stderr and not (tmp_path / "runs").exists()
    )


def test_what_an_export_lacks_is_said_before_torch_is_loaded(without):
    done = without("MNN torch", "main.py", "--export", "onnx", "mnn", "--exp", "landmarks-fast")
    assert done.returncode == 1 and "pip install MNN" in done.stderr and "torch" not in done.stderr, done.stderr
