"""The registry: it needs no torch, its rows fit the heads and args.yaml; wrapped nets keep the names of their tensors."""

import inspect
from importlib import import_module

import numpy as np
import pytest
import torch
from conftest import NET, run

from nets import NetOptions
from nets.backbones import irnet
from nets.build import NETS, net_row
from nets.losses import ERROR_FORMS
from nets.registry import ACTS, ERRORS
from utils.settings.heads import HEADS
from utils.settings.sections import KEYS
from utils.train.make_net import new_net

FACE = np.random.default_rng(0).uniform(0.2, 0.8, (12, 2))
PARTS = {"eye_left": [0, 1, 2], "mouth": [5, 6, 7]}


def test_the_registry_is_read_without_torch():
    code = "import sys, nets, extras; from utils.settings.heads import HEADS; print(*nets.HEADS, *HEADS, 'torch' in sys.modules)"
    done = run("python", "-c", code)
    assert done.stdout.split() == ["pip", "coordinate", *HEADS, "False"], done.stderr


@pytest.mark.parametrize("name", HEADS)
def test_a_row_fits_its_head_and_the_keys(name):
    row = HEADS[name]
    taken = inspect.signature(row.load()).parameters
    assert {*row.options} - {"num_nb"} == taken.keys() - {"channels", "spec", "sigma", "width"}
    assert ("sigma" in taken) == ("sigma" in row.weights)
    assert {*row.options, *row.weights} <= KEYS.keys()
    assert list(ERROR_FORMS) == list(ERRORS) and irnet.ACTS == ACTS


def test_each_backbone_has_its_row():
    for module in {*NETS.values()}:
        rows = import_module(module).ROWS
        assert {*rows} == {name for name, place in NETS.items() if place == module} and {*map(net_row, rows)}


def test_an_unknown_name_is_an_attribute_error():
    import nets

    with pytest.raises(AttributeError, match="no attribute 'Nett'"):
        nets.Nett  # noqa: B018


def test_a_wrapped_net_keeps_the_names_of_its_tensors():
    plain, wrapped, local = (
        new_net(NetOptions(NET, "coordinate", None, 64, refine=True, **stages), FACE)
        for stages in ({}, {"reinit": True}, {"local_parts": PARTS})
    )
    names = [list(net.state_dict()) for net in (plain, wrapped, local)]
    added = {name.partition(".")[0] for name in names[2]} - {name.partition(".")[0] for name in names[0]}
    assert names[1][: len(names[0])] == names[0] and names[2][: len(names[1])] == names[1]
    assert added == {"transformer", "places", "regressors"}
    state = {name: torch.rand(tensor.shape).to(tensor.dtype) for name, tensor in local.state_dict().items()}
    local.load_state_dict(state)
    assert all(torch.equal(tensor, state[name]) for name, tensor in local.state_dict().items())
    missing = wrapped.load_state_dict({name: state[name] for name in names[0]}, strict=False)
    assert (
        missing.missing_keys
        and all("transformer" in name for name in missing.missing_keys)
        and not missing.unexpected_keys
    )
    assert torch.equal(wrapped.net.refiner.identity, local.net.net.refiner.identity)
    with pytest.raises(RuntimeError, match="other.weight"):
        wrapped.load_state_dict({**wrapped.state_dict(), "other.weight": torch.zeros(1)})


@pytest.mark.parametrize(("options", "margin"), [({}, 1.0), ({"reinit": True}, 1.25), ({"local_parts": PARTS}, 1.25)])
def test_a_net_that_moves_the_crop_sees_more_than_the_crop(options, margin):
    net = new_net(NetOptions(NET, "coordinate", input_size=64, **options), FACE)
    assert net.input_margin == margin and bool(net.spec.get("reinit")) == (margin > 1)
