"""A step that is not finite: the samples and terms at fault are named, and the training can go on."""

import pytest
import torch
from conftest import driver, fails, works
from test_solver import gradients, make_batch, make_net, make_solver

from utils.train.step_values import NonFinite

SPOILT = """
from utils.data import batches
real = batches.Batches.drawn
def spoilt(self, key):
    made, batch = real(self, key)
    batch.labels.packed[key[1] % 18 == 7] = 3e38  # two faces, of which an epoch may leave one out
    return made, batch
batches.Batches.drawn = spoilt"""


def test_a_label_that_is_not_finite_is_named_in_every_try(cli, recipe, tmp_path):
    """Random numbers are keyed, so the same step fails again when the run is resumed."""
    spoilt, flags = driver(tmp_path, "spoilt", SPOILT), ["--train", *recipe, "--exp", "nan"]
    fault = (
        r"not finite in epoch {}, step \d+ .*gradient nan\); samples at fault: train/face\d\d.jpg \([^)]*offset_x.*\); look"
        " at their labels"
    )
    first = cli(*flags, script=spoilt)
    fails(first, fault.format(1) + "$")
    again = cli(*flags, "--overwrite", script=spoilt)
    assert again.error == first.error and not list((tmp_path / "runs").rglob("*.pt"))
    works(cli(*flags, "--overwrite"))
    kept = (tmp_path / "runs" / "nan" / "last.pt").read_bytes()
    resumed = cli("--train --resume --exp", tmp_path / "runs" / "nan", "--epochs 2", script=spoilt)
    fails(resumed, fault.format(2) + "; --resume goes on from epoch 1$")
    assert (tmp_path / "runs" / "nan" / "last.pt").read_bytes() == kept


def test_a_gradient_that_is_not_finite_stops_before_the_weights_are_lost():
    solver = make_solver(make_net())
    weight = solver.net.head.score.weight
    before = weight.detach().clone()
    weight.register_hook(lambda gradient: gradient * float("nan"))
    losses = solver.train_step([make_batch(4)])
    with pytest.raises(NonFinite, match="gradient nan"):
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


@pytest.mark.parametrize("figures", [(9.0, 8.0), (8.0, 9.0)])
def test_a_training_whose_loss_rises_ends_with_advice(cli, recipe, tmp_path, figures):
    """Check that a risen loss gives no advice if the validation has improved: a stronger augmentation may explain the
    loss.
    """
    rising = driver(
        tmp_path,
        "rising",
        f"""
from utils.task import experiment
from utils.train import loop
real, made = loop.train_epoch, experiment.validator
def rising(solver, loader, order, epoch, *rest):
    terms, *times = real(solver, loader, order, epoch, *rest)
    return {{**terms, "loss": 1.0 + epoch}}, *times
def validator(*given):
    validate, figures = made(*given), iter({figures})
    return lambda: validate()._replace(figures={{"val_nme": next(figures)}})
loop.train_epoch, experiment.validator = rising, validator""",
    )
    done = works(cli("--train", *recipe, "--epochs 2", script=rising))
    assert done.stderr.count("epoch 2/2: loss") == 1
    assert ("from 1 to 2: the net has diverged; lower --learning-rate" in done.stderr) == (figures[1] > figures[0])
