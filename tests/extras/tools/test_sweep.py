"""--sweep: checks before the first run, the table of all runs, continuation after failures and interruptions."""

import math
import os
import re
import shutil
import signal
import sys
import time

import numpy as np
import pytest
import yaml
from conftest import ROOT, refuses, rows, works

from extras.tools.sweep import differs_in_tests, read_keys
from extras.tools.trials import load_optuna, propose

pytest.importorskip("optuna")


def fails(done, message: str) -> None:
    assert done.returncode == 1 and re.search(message, done.error or ""), done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("texts", "given", "keys"),
    [
        (["reg=1,1.5,2"], {}, {"reg": [1.0, 1.5, 2.0]}),
        (["num-nb=5,10", "flip_test=true,false"], {"reg": 1.0}, {"num_nb": [5, 10], "flip_test": [True, False]}),
        (["backbone=resnet18,irnet18"], {}, {"net": ["resnet18", "irnet18"]}),
        (["train_data=300w,mine", "workers=null,2"], {}, {"train_data": [["300w"], ["mine"]], "workers": [None, 2]}),
        (["learning_rate=1e-4..1e-2", "num_nb=3..9"], {}, {"learning_rate": (1e-4, 1e-2), "num_nb": (3, 9)}),
        (["train_data=../a,../b"], {}, {"train_data": [["../a"], ["../b"]]}),
    ],
)
def test_keys_and_values(texts, given, keys):
    assert read_keys(texts, given) == keys


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["lr=1,2"], "unknown key 'lr'; did you mean 'learning_rate'"),
        (["rge=1,2"], "unknown key 'rge'; did you mean 'reg'"),
        (["reg=1,fast"], "reg must be a finite number.*'fast'"),
        (["batch_size=16,0"], "batch_size must be a whole number from 1"),
        (["reg=1,2,1.0"], "1 is there twice"),
        (["reg"], "a value is missing"),
        (["reg=1,,2"], "a value is missing"),
        (["reg=1", "reg=2"], "reg is given twice"),
        (["epochs=1,2"], "epochs is given twice"),
        (["run_root=a,b"], "side by side"),
        (["data_root=a,b"], "--data-root once"),
        (["stride=16,24"], "stride must be one of"),
        (["reg=2..1"], "reg=2..1: a range is two numbers, the smaller one first"),
        (["workers=null..4"], "a range is two numbers"),
        (["reg=1..fast"], "reg must be.*'fast'"),
    ],
)
def test_bad_sweeps_are_named(texts, message):
    refuses(message, read_keys, texts, {"epochs": 3})


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--test --sweep reg=1,2", "--sweep goes with --train"),
        ("--train --sweep rge=1,2", "rge.*reg"),
        ("--train --sweep preset=quick,quik", "no preset 'quik'"),
        ("--train --sweep reg=1,2 --resume", "no sweep to resume"),
        ("--train --sweep reg=1..2", "reg has a range.*--trials N"),
        ("--train --sweep reg=1..2 --trials 0", "--trials needs at least 1"),
        ("--train --trials 3", "--trials.*--sweep"),
        ("--train --sweep reg=1..2 --trials 3 --val none", "--val 0.1"),
        ("--train --sweep head=pip,none_such:maximum", "--head: 'none_such:maximum' cannot be imported"),
        ("--train --sweep reg=1,2 --exp a.pt", "no file or folder a.pt"),
    ],
)
def test_nothing_is_trained_before_all_is_checked(cli, recipe, tmp_path, flags, message):
    done = cli(*recipe, flags)
    fails(done, message)
    assert len(done.stderr.splitlines()) == 1 and not (tmp_path / "runs").exists()


@pytest.mark.parametrize("foreign", [{}, {"sweep": 5, "values": {}}, {"sweep": ["reg"], "values": 5}])
def test_a_foreign_record_is_another_sweep(tmp_path, foreign):
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(foreign))
    refuses(str(tmp_path), differs_in_tests, tmp_path, {"sweep": ["reg"], "tests": [], "values": {}})


def test_proposals_lie_in_the_ranges_and_near_the_best_runs():
    """The best runs have a rate of about 1e-3 and the second name."""
    keys = read_keys(["learning_rate=1e-5..1e-1", "num_nb=3..9", "weights=none,imagenet"], {})
    done: list = []
    for seed in range(40):
        chosen = propose(keys, done, seed)
        assert chosen == propose(keys, done, seed), "a sweep that is resumed goes on alike"
        done.append((chosen, abs(math.log10(chosen["learning_rate"]) + 3) + (chosen["weights"] == "none")))
    rates = [chosen["learning_rate"] for chosen, _ in done]
    assert all(1e-5 <= rate <= 1e-1 and float(f"{rate:.3g}") == rate for rate in rates)
    assert {chosen["num_nb"] for chosen, _ in done} <= {*range(3, 10)}
    assert sum(rate < 1e-3 for rate in rates[:10]) > 2, "the scale is logarithmic"
    assert np.mean([figure for _, figure in done[25:]]) < 0.7 * np.mean([figure for _, figure in done[:10]])


def test_without_optuna_a_line_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    refuses("--trials needs the package optuna: pip install optuna", load_optuna)


# A replacement of main.py that writes the files of a run without training; the sweep cannot tell the difference.
RUN = """
import sys, time
from pathlib import Path
given = dict(flag.split("=", 1) for flag in sys.argv if "=" in flag and flag.startswith("--"))
place, nb = Path(sys.argv[sys.argv.index("--exp") + 1]), int(given["--num-nb"])
with open(Path(__file__).with_name("calls"), "a") as calls:
    calls.write(f"{place.name} {'--resume' in sys.argv} {'--overwrite' in sys.argv}\\n")
if nb == 68:
    sys.exit("error: num_nb must be 0 to 67")
place.mkdir(exist_ok=True)
(place / "args.yaml").write_text("data: {}\\nnet: {}\\ntrain: {}\\nprotocols: {}\\nlayouts: {}\\n")
(place / "last.pt").touch()
nme = ["nan"] * 3 if given.get("--val") == "none" else [f"{nb}.5", f"{nb}.25", f"{nb}.75"]
(place / "step.csv").write_text("epoch,val_nme\\n" + "".join(f"{epoch},{value}\\n" for epoch, value in enumerate(nme)))
(place / "time.csv").write_text("epoch,seconds\\n0,60\\n1,60\\n2,30\\n")
if nb == 5 and "--resume" not in sys.argv:
    time.sleep(100)
if "--test" in sys.argv:
    (place / "report").mkdir(exist_ok=True)
    (place / "report" / "scores.csv").write_text(
        "test set,model,faces,NME %,crop NME %,FR@10 %,AUC@10,FR@8 %,AUC@8\\n"
        f"300w,torch,9,{nb}.111,1,2.00,0.5,1,1\\n  common,torch,9,1,1,1,1,1,1\\n300w,onnx,9,1,1,1,1,1,1\\n"
        '300w,"torch, detector boxes",9,4.5,1,3.00,0.4,1,1\\n')
"""


@pytest.fixture
def sweeping(start, tmp_path):
    """Return sweeping(*flags), which starts a sweep of RUN; sweeping.calls() returns the new [run, resumed, replaced]
    rows.
    """
    fake, script = tmp_path / "fake", tmp_path / "sweeping.py"
    fake.mkdir()
    (fake / "main.py").write_text(RUN)
    script.write_text(
        f"import sys\nfrom pathlib import Path\nsys.path.insert(0, {str(ROOT)!r})\n"
        "from utils.settings import start\nstart.begin_loading()\nimport main\nfrom extras.tools import sweep\n"
        f"sweep.ROOT = Path({str(fake)!r})\nstart.run_command(main.main)\n"
    )

    def call(*flags):
        return start("--train --run-root", tmp_path / "runs", *flags, script=script)

    def calls() -> list[list[str]]:
        lines = (fake / "calls").read_text().splitlines() if (fake / "calls").is_file() else []
        (fake / "calls").unlink(missing_ok=True)
        return [line.split() for line in lines]

    call.calls = calls
    return call


@pytest.mark.slow
def test_failures_and_interruptions_are_gone_on_after(sweeping, tmp_path):
    root, flags = tmp_path / "runs", "--test --sweep num_nb=68,3,5 --seed 7"
    begun = sweeping(flags)
    while not (root / "000-num_nb=5" / "last.pt").is_file():
        time.sleep(0.05)
        assert begun.process.is_alive(), begun.text(".err")
    os.kill(begun.process.pid, signal.SIGINT)
    stopped = begun.result()
    assert stopped.returncode == 130 and stopped.stderr.rstrip().endswith(f"--exp {root / '000'} --resume")
    assert [row["state"] for row in rows(root / "000" / "sweep.csv")] == ["failed (1)", "done", ""]
    assert sweeping.calls() == [
        ["000-num_nb=68", "False", "False"],
        ["000-num_nb=3", "False", "False"],
        ["000-num_nb=5", "False", "False"],
    ]
    # runs that were not finished, and new values
    done = sweeping("--test --sweep num_nb=68,3,5,9 --seed 7 --resume").result()
    fails(done, "1 of 4")
    assert sweeping.calls() == [
        ["000-num_nb=68", "False", "False"],
        ["000-num_nb=5", "True", "False"],
        ["000-num_nb=9", "False", "False"],
    ]
    table = rows(root / "000" / "sweep.csv")
    assert [row["state"] for row in table] == ["failed (1)", "done", "done", "done"]
    assert list(table[1].items()) == [
        ("num_nb", "3"),
        ("best epoch", "2"),
        ("val NME %", "3.250"),
        ("test NME %", "3.111"),
        ("test FR@10 %", "2.00"),
        ("test AUC@10", "0.5"),
        ("test NME %, detector boxes", "4.5"),
        ("test FR@10 %, detector boxes", "3.00"),
        ("test AUC@10, detector boxes", "0.4"),
        ("minutes", "2.5"),
        ("run", "000-num_nb=3"),
        ("state", "done"),
    ]
    assert all(text in done.stdout for text in table[2].values()) and "Best:  000-num_nb=3 " in done.stdout
    for more, message in (
        ("--seed 7", "already holds a run.*--resume.*--overwrite"),
        ("--resume --seed 8", "seed"),
        ("--resume --sweep reg=1", "num_nb.*reg"),
    ):
        fails(sweeping("--sweep num_nb=3 --exp 000", more).result(), message)
    plan = yaml.safe_load((root / "000" / "sweep.yaml").read_text())
    plan["values"]["weight_decay"] = 0.5  # as if it had been this when the sweep began
    (root / "000" / "sweep.yaml").write_text(yaml.safe_dump(plan))
    fails(
        sweeping("--sweep num_nb=3 --exp 000 --seed 7 --resume").result(),
        "weight_decay",
    )
    assert sweeping.calls() == []
    works(sweeping("--sweep num_nb=3 --exp 000 --overwrite").result())
    assert sweeping.calls() == [["000-num_nb=3", "False", "False"]] and len(rows(root / "000" / "sweep.csv")) == 1


@pytest.mark.slow
def test_other_tests_test_all_runs_again(sweeping, tmp_path):
    flags = ["--test --sweep num_nb=3,4 --thresholds 8"]
    works(sweeping(*flags).result())
    assert len(sweeping.calls()) == 2
    flags.append("--resume")
    assert sweeping(*flags).result().returncode == 0 and not sweeping.calls()
    for flag in ("--flip-test", "--test-onnx"):
        flags.append(flag)
        works(sweeping(*flags).result())
        assert sweeping.calls() == [["000-num_nb=3", "True", "False"], ["000-num_nb=4", "True", "False"]]
        works(sweeping(*flags, "--threads 2").result())
        assert not sweeping.calls()
    fails(sweeping(*flags, "--norm box").result(), "norm")
    assert yaml.safe_load((tmp_path / "runs" / "000" / "sweep.yaml").read_text())["tests"] == ["test", "test_onnx"]


@pytest.mark.slow
def test_a_run_is_gone_on_with_in_its_first_round_and_never_named_like_a_file(sweeping, tmp_path):
    flags = "--sweep weights=none,foo.pt --num-nb 3"
    works(sweeping(flags).result())
    places = [tmp_path / "runs" / name for name, *_ in sweeping.calls()]
    assert places[0].name == "000-weights=none" and re.fullmatch(r"000-weights=foo.pt-\w{6}", places[1].name)
    for place in places:
        (place / "round0").mkdir()
        (place / "last.pt").rename(place / "round0" / "last.pt")
    works(sweeping(flags, "--resume").result())
    assert [resumed for _, resumed, _ in sweeping.calls()] == ["True", "True"]


def test_trials_are_gone_on_with_until_there_are_as_many(sweeping, tmp_path):
    flags, table = "--sweep num_nb=6..60 --sweep weights=none,imagenet", tmp_path / "runs" / "000" / "sweep.csv"
    works(sweeping(flags, "--trials 2").result())
    first = sweeping.calls()
    (tmp_path / "runs" / first[1][0] / "last.pt").unlink()  # as if it had been stopped
    done = works(sweeping(flags, "--trials 4 --resume").result())
    again, *more = sweeping.calls()
    assert again[0] == first[1][0] and len({*map(tuple, first), *map(tuple, more)}) == 4
    best = min(rows(table), key=lambda row: float(row["val NME %"]))
    assert [row["state"] for row in rows(table)] == ["done"] * 4 and f"Best:  {best['run']} " in done.stdout
    assert all(6 <= int(row["num_nb"]) <= 60 and row["run"].startswith("000-num_nb=") for row in rows(table))
    fails(sweeping("--sweep num_nb=6..70 --trials 9 --resume").result(), "6..60.*6..70")
    works(sweeping("--sweep num_nb=7,8 --trials 9 --exp few").result())
    assert len(sweeping.calls()) == 2  # there are no more


@pytest.mark.slow
def test_several_keys_are_combined(sweeping, tmp_path):
    works(sweeping("--sweep num_nb=3,4 --sweep weights=none,a/b.pt --no-decay-norms").result())
    names = [name for name, *_ in sweeping.calls()]
    assert [name[:22] for name in names[::2]] == ["000-num_nb=3-weights=n", "000-num_nb=4-weights=n"] and len(
        set(names)
    ) == 4
    assert [(row["num_nb"], row["weights"]) for row in rows(tmp_path / "runs" / "000" / "sweep.csv")] == [
        ("3", "none"),
        ("3", "a/b.pt"),
        ("4", "none"),
        ("4", "a/b.pt"),
    ]
    assert "decay_norms: false" in (tmp_path / "runs" / "000" / "sweep.yaml").read_text()


@pytest.mark.slow
def test_without_validation_the_last_epoch_counts_and_none_is_best(sweeping, tmp_path):
    flags = "--sweep num_nb=3,4 --val none"
    done = works(sweeping(flags).result())
    assert "Best:" not in done.stdout
    assert [(row["best epoch"], row["val NME %"]) for row in rows(tmp_path / "runs" / "000" / "sweep.csv")] == [
        ("3", "")
    ] * 2


@pytest.mark.slow
def test_a_run_without_a_rival_is_not_the_best(sweeping):
    done = works(sweeping("--sweep num_nb=3").result())
    assert "Best:" not in done.stdout
    done = works(sweeping("--sweep val=0.1,none --num-nb 3 --exp other").result())
    assert "Best:" not in done.stdout


@pytest.mark.slow
def test_runs_of_another_sweep_are_not_taken_for_its_own(sweeping, tmp_path):
    works(sweeping("--sweep num_nb=3,4").result())
    shutil.rmtree(tmp_path / "runs" / "000")  # the folders of its runs stay
    assert sweeping.calls()
    fails(sweeping("--sweep num_nb=4,9 --seed 1").result(), "num_nb=4.*--overwrite")
    assert sweeping.calls() == []
    works(sweeping("--sweep num_nb=4,9 --seed 1 --overwrite").result())
    assert sweeping.calls() == [["000-num_nb=4", "False", "False"], ["000-num_nb=9", "False", "False"]]
    shutil.rmtree(tmp_path / "runs" / "000-num_nb=4")  # a finished run whose folder is gone is trained again
    works(sweeping("--sweep num_nb=4,9 --seed 1 --resume").result())
    assert sweeping.calls() == [["000-num_nb=4", "False", "False"]]
    (tmp_path / "runs" / "000" / "sweep.csv").write_text("a,b\n1,2\n")
    fails(sweeping("--sweep num_nb=4,9 --seed 1 --resume").result(), "sweep.csv")


@pytest.mark.slow
def test_each_run_has_as_many_processes_as_the_sweep(start, recipe, tmp_path):
    script = tmp_path / "ranks.py"
    script.write_text(
        "import os, sys\nos.environ |= {'WORLD_SIZE': '2', 'LOCAL_WORLD_SIZE': '2', 'RANK': sys.argv[1], "
        f"'LOCAL_RANK': sys.argv[1]}}\nsys.path.insert(0, {str(ROOT)!r})\nimport main\nmain.main(sys.argv[2:])\n"
    )
    flags = ["--train --test --sweep reg=2", *recipe, "--batch-size 4"]
    assert start("1", *flags, script=script).result().returncode == 0 and not (tmp_path / "runs").exists()
    done = works(start("0", *flags, script=script).result())
    root = tmp_path / "runs"
    assert sorted(path.name for path in root.iterdir()) == ["000", "000-reg=2"]
    assert "2 x cpu" in (root / "000-reg=2" / "log.txt").read_text() and done.stdout.count("| reg") == 1
    assert yaml.safe_load((root / "000-reg=2" / "args.yaml").read_text())["loss"]["reg"] == 2
    (row,) = rows(root / "000" / "sweep.csv")
    assert float(row["val NME %"]) > 0 and float(row["test NME %"]) > 0 and row["test FR@10 %"] and row["test AUC@10"]
