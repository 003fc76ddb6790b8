"""A step that is not finite: the samples and terms at fault are named, and the step can be repeated."""
import re

import pytest
import torch
from conftest import driver, fails, run
from test_solver import gradients, make_batch, make_net, make_solver

from pipnet.errors import UserError
from utils.tools.replay import replay
from utils.train.solver import NonFinite

SPOILT = """
from utils.faces import batches
real = batches.labels_of
def spoilt(faces, rows, *how):
    labels = real(faces, rows, *how)
    labels[0][rows % 18 == 7] = 3e38  # two faces, of which an epoch may leave one out
    return labels
batches.labels_of = spoilt"""


def test_a_label_that_is_not_finite_is_named_and_repeated(cli, recipe, tmp_path):
    file = tmp_path / "runs" / "nan" / "bad_batch.pt"
    done = cli("--train", *recipe, "--exp", "nan", script=driver(tmp_path, "spoilt", SPOILT))
    fails(done, r"not finite in epoch 1, step \d.*gradient nan\); samples at fault: train/face\d\d.jpg \([^)]*offset_x.*\); look"
          f" at their labels; to repeat this step: python -m utils.tools.replay {file}$")
    said = run("python", "-m", "utils.tools.replay", str(file))
    assert said.returncode == 0, said.stderr
    assert "weights that are not finite: none" in said.stdout and 1 <= len(re.findall("by itself: .*offset_x", said.stdout)) <= 2
    assert re.search(r"the whole step: .*loss (nan|inf), gradient nan", said.stdout)
    assert not file.with_name("last.pt").exists()
    done = cli("--train", *recipe, "--exp", "nan")
    assert done.returncode == 0 and not file.exists(), "a new run keeps the file of the old one"


def test_a_file_without_a_step_is_not_repeated(trained):
    with pytest.raises(UserError, match="holds no step to repeat; give the bad_batch.pt"):
        replay(trained.folder / "best.pt")


def test_a_gradient_that_is_not_finite_stops_before_the_weights_are_lost():
    solver = make_solver(make_net())
    weight = solver.net.head.score.weight
    before = weight.detach().clone()
    weight.register_hook(lambda gradient: gradient * float("nan"))
    losses = solver.train_step([make_batch(4)])
    with pytest.raises(NonFinite, match="loss [0-9.]+, gradient nan"):
        losses.read()
    assert torch.equal(weight, before)


def test_an_overflow_in_fp16_recovers():
    """The loss scale halves until gradients fit; the weights wait. At a scale of 1, the gradient itself is at fault."""
    solver = make_solver(make_net())
    solver.scaler = torch.amp.GradScaler("cpu", init_scale=4.0)  # as fp16 on a GPU has it
    weight, wrong = solver.net.head.score.weight, True
    before = weight.detach().clone()
    weight.register_hook(lambda gradient: gradient * float("inf") if wrong else gradient)
    solver.train_step([make_batch(4)]).read()
    assert torch.equal(weight, before) and solver.scaler.get_scale() == 2
    wrong = False
    solver.train_step([make_batch(4)]).read()
    assert not torch.equal(weight, before) and gradients(solver)[0].isfinite().all()
    wrong = True
    solver.train_step([make_batch(4)]).read()
    with pytest.raises(NonFinite, match="gradient (inf|nan)"):
        solver.train_step([make_batch(4)]).read()


def test_a_training_whose_loss_rises_ends_with_advice(cli, recipe, tmp_path):
    rising = driver(tmp_path, "rising", """
from utils.train import loop
real = loop.train_epoch
def rising(solver, loader, order, epoch, *rest):
    terms, *times = real(solver, loader, order, epoch, *rest)
    return {**terms, "loss": 1.0 + epoch}, *times
loop.train_epoch = rising""")
    done = cli("--train", *recipe, "--epochs", "2", script=rising)
    assert done.returncode == 0 and "from 1 to 2: the net has diverged; lower --learning-rate" in done.stderr, done.stderr
