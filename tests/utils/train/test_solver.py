"""One optimizer step: schedule, accumulation, averaged weights, several processes, and a loss that is not finite."""

import copy
import json
import math
import os
import re
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import FORKS, LAYOUTS, NET, free_port, mean_face, settings, split_of, works
from small_nets import net_of, pictures

from nets import Labels
from utils.data.batches import Batch, Batches, Share, Shuffle
from utils.data.loader import train_loader
from utils.data.prepared_set import load_splits
from utils.settings.config import Settings
from utils.train.batchnorm import share_batch_norm
from utils.train.loop import train_epoch
from utils.train.optimizer import Average, make_optimizer, precision
from utils.train.ranks import Ranks, start_ranks
from utils.train.schedule import Schedule
from utils.train.solver import Solver
from utils.train.step_values import NonFinite

ONE = Ranks(0, 1, torch.device("cpu"))
LAYOUT = LAYOUTS.load("12")
EYES = mean_face()[36:48]


def plain(**given) -> Settings:
    """Settings of a training in float32 without clipping, averaging and warm-up, but for what is given."""
    return settings(**{"amp": "off", "clip": 0.0, "ema": 0.0, "warmup": 0.0, **given})


def make_solver(net: torch.nn.Module, steps: int = 1, ranks: Ranks = ONE, **given) -> Solver:
    """A solver with `plain` settings. steps: of an epoch."""
    found = plain(**given)
    return Solver(net, found.train, found.loss, steps, ranks)


def make_net(num_nb: int = 5, stride: int = 32, size: int = 64, name: str = NET) -> torch.nn.Module:
    return net_of(meanface=EYES, num_nb=num_nb, stride=stride, input_size=size, net=name)


def make_batch(count: int, size: int = 64, seed: int = 0, hidden: float = 0.0) -> Batch:
    rng = np.random.default_rng(seed)
    images, landmarks = (
        rng.integers(0, 256, (count, size, size, 3), dtype=np.uint8),
        rng.random((count, 12, 2), dtype=np.float32),
    )
    visible = rng.random((count, 12)) >= hidden
    labels = Labels.pack(landmarks, visible)
    return Batch(torch.from_numpy(images), labels, torch.arange(count))


def part(batch: Batch, begin: int, end: int) -> Batch:
    return rows_of(batch, slice(begin, end))


def rows_of(batch: Batch, rows) -> Batch:
    return Batch(batch.images[rows], batch.labels._replace(packed=batch.labels.packed[rows]), batch.index[rows])


def gradients(solver: Solver) -> list[torch.Tensor]:
    """Return the gradients of the first step; Adam's first moment is a tenth of them."""
    return [state["exp_avg"] * 10 for state in solver.optimizer.state.values()]


@pytest.mark.parametrize("part", ("norms", "backbone", None))
def test_a_frozen_part_stays_as_it_is(part):
    net = make_net()
    before = copy.deepcopy(net.state_dict())
    solver = make_solver(net, freeze=part, learning_rate=0.01)
    solver.begin()
    for seed in range(2):
        solver.train_step([make_batch(4, seed=seed)]).read()
    changed = {name for name, tensor in net.state_dict().items() if not torch.equal(tensor, before[name])}
    statistics = {
        name for name in before if name.rpartition(".")[2] in ("running_mean", "running_var", "num_batches_tracked")
    }
    backbone = {name for name in before if name.startswith("backbone.")}
    assert "head.score.weight" in changed and statistics
    assert bool(changed & backbone - statistics) == (part != "backbone")
    assert bool(changed & statistics) == (part is None)


def test_further_outputs_are_added_to_landmarks_that_stay_as_they_are():
    net = net_of(auxiliary=("visible", "pose"), refine=True)
    labels = Labels.pack(torch.rand(4, 68, 2), pose=torch.zeros(4, 3), visible=torch.eye(4, 68))
    before = copy.deepcopy(net.state_dict())
    solver = make_solver(net, freeze="landmarks", visible=1.0, pose=1.0)
    for _ in range(2):  # the first step moves only what reads the description of a landmark
        solver.begin()
        solver.train_step([Batch(pictures(4), labels, torch.arange(4))]).read()
    changed = {name for name, tensor in net.state_dict().items() if not torch.equal(tensor, before[name])}
    assert {name.partition(".")[0] for name in changed} == {"auxiliary", "visibility"} and len(changed) == 7


# ------------------------------------------------------------------------------------------------------------ schedule
def test_schedule_is_warm_up_then_cosine():
    rates = {"learning_rate": 1.0, "final_learning_rate": 0.1, "warmup_learning_rate": 0.2}
    rate = Schedule(plain(warmup=2.0, epochs=12, **rates).train, 10)
    assert rate(0) == 0.2 and rate(10) == pytest.approx(0.6) and rate(20) == 1.0 and rate(70) == pytest.approx(0.55)
    assert rate(120) == pytest.approx(0.1) == rate(500)
    values = [rate(step) for step in range(121)]
    assert all(a < b for a, b in pairwise(values[:21]))
    assert all(a > b for a, b in pairwise(values[20:]))


def test_the_schedule_of_the_fork_has_a_step_an_epoch():
    rate = Schedule(settings("irnet").train, 7)
    published = [1e-4 + 8e-5 * epoch for epoch in range(5)]
    published += [1e-5 + 0.5 * 4.9e-4 * (1 + math.cos(math.pi * epoch / 120)) for epoch in range(115)]
    assert [rate(step) for step in range(840)] == pytest.approx([one for one in published for _ in range(7)])
    assert rate(839) == pytest.approx(1.3e-5, rel=0.02)


def test_the_decay_of_pipnet_is_for_nets_without_pretraining():
    assert settings("pipnet").train.weight_decay == settings("gssl", weights="none").train.weight_decay == 0
    assert settings("pipnet", weights="none").train.weight_decay == 0.0005
    assert settings("pipnet", weights="none", weight_decay=0.1).train.weight_decay == 0.1


@pytest.mark.parametrize(
    ("preset", "epochs", "rates"),
    [
        ("pipnet", (0, 29.99, 30, 49.99, 50, 59.99), (1e-4, 1e-4, 1e-5, 1e-5, 1e-6, 1e-6)),
        ("slim", (0.5, 1.5, 24.5, 25.5, 34.5, 35.5, 74.5, 75.5), (1e-5, 1e-4, 1e-4, 5e-5, 5e-5, 1e-5, 1e-5, 1e-6)),
    ],
)
def test_schedule_in_steps(preset, epochs, rates):
    rate = Schedule(settings(preset).train, 100)
    assert [rate(round(100 * epoch)) for epoch in epochs] == pytest.approx(rates)


def test_a_run_shorter_than_its_warm_up_has_a_schedule():
    rates = {"learning_rate": 1.0, "final_learning_rate": 0.1, "warmup_learning_rate": 0.2}
    rate = Schedule(plain(warmup=2.0, epochs=1, **rates).train, 4)  # all warm-up
    assert [rate(step) for step in range(4)] == pytest.approx([0.2, 0.3, 0.4, 0.5])
    assert Schedule(plain(warmup=0.0, epochs=1, **rates).train, 0)(0) == 1.0


# ------------------------------------------------------------------------------------------------------------ one step
@pytest.mark.parametrize(("num_nb", "stride"), [(0, 32), (1, 8), (2, 16), (5, 64), (10, 128), (11, 32)])
def test_every_number_of_neighbors_and_stride_trains(num_nb, stride):
    net = make_net(num_nb, stride, 128)
    solver = make_solver(net, 4, ema=0.9, cls=7.0, reg=0.5)
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    first = solver.train_step([make_batch(4, 128)]).read()
    assert set(first) == {"loss", "score", "offset_x", "offset_y"} | ({"neighbor_x", "neighbor_y"} if num_nb else set())
    weighted = 7 * first["score"] + 0.5 * sum(value for name, value in first.items() if name not in ("loss", "score"))
    assert first["loss"] == pytest.approx(weighted)
    for _ in range(3):
        last = solver.train_step([make_batch(4, 128)]).read()
    assert last["loss"] < first["loss"] and solver.step == 4
    kept = solver.averaged()["head.score.weight"]
    assert not torch.equal(kept, net.head.score.weight) and not torch.equal(kept, before["head.score.weight"])
    unmoved = [name for name, p in net.named_parameters() if torch.equal(p, before[name])]
    assert not unmoved, unmoved


def test_accumulated_gradients_are_the_mean():
    batch, found = make_batch(8), []
    batch.labels.weight[:3, 4:] = 0  # the samples count differently
    for micro in ([batch], [part(batch, 0, 4), part(batch, 4, 8)], [part(batch, i, i + 2) for i in (0, 2, 4, 6)]):
        solver = make_solver(make_net().eval(), accumulate=len(micro))  # eval: means of batches would differ
        terms = solver.train_step(micro).read()
        found.append((gradients(solver), terms))
    for others, terms in found[1:]:
        assert terms == pytest.approx(found[0][1], rel=1e-5)
        for one, other in zip(found[0][0], others, strict=True):
            assert torch.allclose(one, other, rtol=1e-4, atol=1e-6)
    assert max(gradient.abs().max() for gradient in found[0][0]) > 1e-3


def test_clipping_bounds_the_gradient():
    solver = make_solver(make_net(), clip=0.01)
    solver.train_step([make_batch(4)])
    assert torch.stack([gradient.norm() for gradient in gradients(solver)]).norm() == pytest.approx(0.01, rel=1e-3)


def test_only_weights_decay_unless_norms_shall():
    net = make_net(name="irnet18")
    assert all(group["weight_decay"] == 0.1 for group in make_optimizer(net, "adam", 0.1, True).param_groups)
    groups = make_optimizer(net, "adamw", 0.1, False).param_groups
    decayed = {id(p) for group in groups if group["weight_decay"] for p in group["params"]}
    for name, parameter in net.named_parameters():
        plain = parameter.ndim <= 1 or "norm" in name or name.endswith("bias")
        assert (id(parameter) in decayed) != plain, name
    assert sum(len(group["params"]) for group in groups) == len(list(net.parameters()))


def test_average_follows_the_weights_with_a_ramp():
    net = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    average = Average(net, 0.9, 10)
    expected = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    for step in range(5):
        net(torch.randn(4, 2))
        with torch.no_grad():
            net[0].weight += 1
        average.update(step)
        decay = 0.9 * (1 - np.exp(-(step + 1) / 10))
        for name, tensor in net.state_dict().items():
            exact = name.endswith("num_batches_tracked")
            expected[name] = tensor.clone() if exact else decay * expected[name] + (1 - decay) * tensor
    assert all(torch.allclose(average.state[name], expected[name]) for name in expected)
    assert average.state["1.num_batches_tracked"] == 5 and average.state["0.weight"] is not net[0].weight


@pytest.mark.parametrize("spoil", ("landmarks", "weights"))
def test_reading_a_loss_that_is_not_finite_raises_an_error(spoil):
    net = make_net()
    solver = make_solver(net, ema=0.9)
    good = make_batch(4)
    solver.train_step([good])
    if spoil == "weights":
        net.head.score.weight.data[0, 0] = float("inf")
    else:
        good.labels.landmarks[0] = 3e38
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    late = solver.train_step([part(good, 0, 2), part(good, 2, 4)])
    solver.train_step([make_batch(4)])
    with pytest.raises(NonFinite, match="(inf|nan).*neighbor_y") as caught:
        late.read()
    error = caught.value
    assert error.step == 1 and torch.cat([batch.index for batch in error.batches]).tolist() == [0, 1, 2, 3]
    assert set(error.terms) >= {"score", "offset_x"}
    assert all(torch.equal(p, before[name]) for name, p in net.named_parameters()), "the weights are lost"


def test_the_average_of_a_compiled_net_follows_its_weights(monkeypatch):
    """So its validation does not freeze, and is that of the same net without --compile."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    averages = []
    for compiled in (False, True):
        solver = make_solver(make_net(), 3, ema=0.9, compile=compiled)
        averages.append([])
        for _ in range(3):
            solver.train_step([make_batch(4)]).read()
            averages[-1].append(solver.averaged()["head.score.weight"].clone())
    assert all(torch.allclose(one, other, atol=1e-6) for one, other in zip(*averages, strict=True))
    assert all(not torch.equal(before, after) for before, after in pairwise(averages[1]))


def test_a_batch_without_a_visible_landmark_has_no_loss_and_no_gradient():
    solver = make_solver(make_net(), weight_decay=0.0)
    assert set(solver.train_step([make_batch(4, hidden=2.0)]).read().values()) == {0.0}
    assert all(gradient.abs().max() == 0 for gradient in gradients(solver))


@pytest.mark.parametrize("amp", ("bf16", "off"))
def test_precision(amp):
    solver = make_solver(make_net(), amp=amp)
    terms = solver.train_step([make_batch(4)]).read()
    assert all(np.isfinite(value) for value in terms.values())
    assert all(p.dtype == torch.float32 for p in solver.net.parameters()) and not torch.is_autocast_enabled("cpu")
    with pytest.raises(ValueError, match="fp16"):
        precision("fp16", torch.device("cpu"))


@pytest.mark.parametrize(
    ("capabilities", "dtype"),
    [
        ({}, None),
        ({"avx512_bf16": True}, None),
        ({"avx512_bf16": True, "amx_bf16": True}, torch.bfloat16),
        ({"avx512_bf16": True, "sse4a": True}, torch.bfloat16),
        ({"sse4a": True}, None),
    ],
)
def test_bf16_is_chosen_where_it_is_faster(monkeypatch, capabilities, dtype):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert precision("auto", torch.device("cpu")) is dtype


# ------------------------------------------------------------------------------------------------------------ resuming
class NoBar:
    def set_postfix(self, **_): ...
    def update(self, _): ...


def dropout_net() -> torch.nn.Module:
    """A net that draws random numbers while it trains."""
    net = make_net()
    net.neck.register_forward_hook(lambda module, _, out: torch.nn.functional.dropout(out, 0.3, module.training))
    return net


def test_a_resumed_epoch_equals_the_uninterrupted_one(faces):
    several = load_splits([split_of(faces)], LAYOUT, 64, 4.0)
    views = Batches(several, plain().augment, LAYOUT.flip_index, 0)

    def epoch(solver, number):
        order = Shuffle((Share(0, len(views), 8),), 4, 0)
        batches = iter(train_loader(views, order.epochs(number, number + 1), 0, False))
        return train_epoch(solver, batches, order, number, views.name, NoBar())[0]

    whole = make_solver(dropout_net(), 2, ema=0.9, accumulate=2, epochs=3)
    torch.manual_seed(1)
    for number in range(3):
        if number == 2:
            kept = copy.deepcopy(whole.state_dict())
        terms = epoch(whole, number)
    torch.manual_seed(2)
    again = make_solver(dropout_net(), 2, ema=0.9, accumulate=2, epochs=3)
    again.load_state_dict(kept)
    assert epoch(again, 2) == terms and again.step == whole.step == 6
    for name in ("net", "average"):
        one, two = whole.state_dict()[name], again.state_dict()[name]
        assert all(torch.equal(one[key], two[key]) for key in one), name


def test_a_resumed_run_may_change_optimizer_weight_decay_and_precision():
    first = make_solver(make_net(), optimizer="adamw", weight_decay=0.1)
    first.train_step([make_batch(4)])
    again = make_solver(make_net(), optimizer="adam", weight_decay=0.2)
    again.scaler = torch.amp.GradScaler("cpu")  # a state as fp16 on a GPU has it
    again.load_state_dict(first.state_dict())
    assert [group["weight_decay"] for group in again.optimizer.param_groups] == [0.2, 0.0]
    assert not any(group["decoupled_weight_decay"] for group in again.optimizer.param_groups)
    assert all(torch.equal(one, two) for one, two in zip(gradients(first), gradients(again), strict=True))


# --------------------------------------------------------------------------------------------------- several processes
def _rank(rank: int, port: int, folder: str) -> None:
    """Take a step as one of two processes, on its half of a batch; half of the landmarks are hidden."""
    os.environ.update(
        WORLD_SIZE="2",
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        LOCAL_WORLD_SIZE="2",
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
    )
    torch.set_num_threads(1)
    ranks = start_ranks()
    batch = make_batch(8, hidden=0.5)
    mine = part(batch, 0, 4) if rank == 0 else part(batch, 4, 8)
    net = share_batch_norm(make_net(), ranks.device)
    net.head.score.bias.data += rank  # the second process starts otherwise and takes the weights of the first
    solver = make_solver(net, ranks=ranks, accumulate=2, ema=0.9)
    terms = solver.train_step([part(mine, 0, 2), part(mine, 2, 4)]).read()
    shared = {"agree": ranks.agree(lambda: f"of {rank}"), "gather": ranks.gather(rank)}
    ranks.one_by_one(lambda: (Path(folder) / "order").open("a").write(str(rank)))
    ranks.wait()
    found = {"gradients": gradients(solver), "terms": terms, "averaged": solver.averaged(), **shared}
    torch.save(found, Path(folder) / f"{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_the_step_of_two_processes_equals_that_of_one(tmp_path):
    port = free_port()
    processes = [FORKS.Process(target=_rank, args=(rank, port, str(tmp_path))) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0, 0]
    batch = make_batch(8, hidden=0.5)
    micro = [rows_of(batch, [i, i + 1, i + 4, i + 5]) for i in (0, 2)]
    solver = make_solver(make_net(), accumulate=2, ema=0.9)
    terms = solver.train_step(micro).read()
    several = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    for other in several:
        assert other["terms"] == pytest.approx(terms, rel=1e-5)
        for one, two in zip(gradients(solver), other["gradients"], strict=True):
            assert torch.allclose(one, two, rtol=1e-3, atol=1e-5)
        assert (other["agree"], other["gather"]) == ("of 0", [0, 1])
    first, second = (other["averaged"] for other in several)
    assert all(torch.equal(first[name], second[name]) for name in first), "running statistics differ"
    for name, tensor in solver.averaged().items():
        if "running" in name:
            assert torch.allclose(first[name], tensor, rtol=1e-5, atol=1e-7)
    assert (tmp_path / "order").read_text() == "01"


@pytest.mark.slow
def test_a_profile_says_where_the_time_of_a_step_goes(cli, recipe, tmp_path):
    done = works(cli("--train", *recipe, "--profile --batch-size 2 --epochs 2 --val none"))
    said = re.search(r"a step takes [\d.]+ ms: (data .*%); trace: (.*trace.json)", done.stderr)
    assert said, done.stderr
    shares = {name: int(share) for name, share in re.findall(r"(\w+) (-?\d+) %", said[1])}
    assert list(shares) == ["data", "forward", "backward", "optimiser", "idle"] and abs(sum(shares.values()) - 100) <= 3
    names = {event.get("name") for event in json.loads(Path(said[2]).read_text())["traceEvents"]}
    assert set(shares) - {"idle"} <= names
