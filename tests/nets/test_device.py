"""A training step never waits for its device: no number comes back, nothing is copied to it, and all shapes follow from
those of the batch. So a CUDA graph can hold a whole step, see `Trainable`. Tensors of the device `meta` have no
values to read.
"""

import math
from contextlib import contextmanager

import pytest
import small_nets
import torch
from conftest import LAYOUTS
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from extras.detector.faceboxes import BoxTargets, FaceBoxesV2, anchors
from extras.semi.mean_teacher import MeanTeacher
from nets import Labels
from nets.labels import Weak
from nets.registry import ERRORS
from nets.trainable import Trainable
from nets.wrappers.distillation import Distillation
from utils.settings.heads import HEADS
from utils.train.make_net import lid_openings

BATCH, SIZE, LAYOUT = 4, 64, LAYOUTS.load("68")
PARTS = {"eyes": list(range(36, 48)), "mouth": list(range(48, 68))}
# fmt: off
WAITING = ("local_scalar_dense", "nonzero", "masked_select", "equal", "unique", "bincount", "repeat_interleave", "linalg_det",
           "linalg_inv", "linalg_lu", "linalg_solve")  # operators whose shapes are values, or whose kernels report to the host
# fmt: on


class NoValues(TorchDispatchMode):
    """Raise AssertionError at an operator that waits for the device, or that has a tensor on another device than
    `meta`.
    """

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        tensors = [leaf for leaf in tree_leaves((args, kwargs, made)) if isinstance(leaf, Tensor)]
        assert all(tensor.is_meta for tensor in tensors), f"{function} has a tensor on the host"
        assert not function.overloadpacket.__name__.strip("_").startswith(WAITING), f"{function} waits"
        return made


class NoCopies(TorchFunctionMode):
    """Raise AssertionError where numbers of Python become a tensor: that is copied from the host, unseen by a dispatch
    mode.
    """

    def __torch_function__(self, function, types, args=(), kwargs=None):
        name = function.__name__
        copies = name in ("tensor", "new_tensor") or (name == "as_tensor" and not isinstance(args[0], Tensor))
        indexed = name in ("__getitem__", "__setitem__") and (args[1] if isinstance(args[1], tuple) else [args[1]])
        copies = copies or (indexed and any(isinstance(index, list) for index in indexed))
        assert not copies, f"{name} copies from the host; make a buffer in the constructor"
        return function(*args, **(kwargs or {}))


@contextmanager
def watched():
    """Raise AssertionError where a device would wait for the host."""
    with NoCopies(), NoValues():
        yield


def net_of(head: str = "pip", levels: int = 1, **options):
    return small_nets.net_of(head, levels, **options).to("meta")


def labels_of(count: int = BATCH, **more) -> Labels:
    return Labels.pack(torch.rand(count, 68, 2), torch.ones(count, 68), **more).to("meta")


def step(net: Trainable, labels, images: int = BATCH) -> None:
    """Count, loss and backward, as the solver calls them."""
    side = 2 * math.ceil(SIZE * net.input_margin / 2)
    pictures = torch.zeros(images, side, side, 3, dtype=torch.uint8, device="meta")
    net.train()
    with watched():
        counts, sums = net.denominators(labels), net.loss(pictures, labels)
        assert counts.keys() == sums.keys() <= net.terms.keys()
        sum(sums[term] / counts[term].clamp(min=1) for term in sums).backward()
    assert any(p.grad is not None for p in net.parameters())


STAGES = [
    {"refine": True, "openings": lid_openings(LAYOUT)},
    {"hard_landmarks": 1.0},
    {"auxiliary": ("pose", "states", "face")},
    {"local_parts": PARTS},
]


@pytest.mark.parametrize(
    ("head", "more"),
    [
        *((head, {}) for head in HEADS),
        *((head, {"reinit": True, "refine": True, "hard_landmarks": 1.0}) for head in HEADS),
        *((head, more) for head in ("pip", "coordinate") for more in STAGES),
    ],
)
def test_no_head_and_no_stage_waits(head, more):
    pose, states = (torch.zeros(BATCH, width) for width in (3, 4)) if "auxiliary" in more else (None, None)
    groups = [list(range(36)), list(range(36, 68))] if head == "parts" else None
    step(net_of(head=head, groups=groups, **more), labels_of(pose=pose, states=states, face=torch.zeros(BATCH)))


@pytest.mark.parametrize(
    ("head", "options"),
    [
        *(("pip", {"error": error}) for error in ERRORS),
        ("pip", {"sigma": True}),
        ("coordinate", {"sigma": True}),
        ("coordinate", {"pool": "depthwise", "excite": True}),
    ],
)
def test_no_option_of_a_head_waits(head, options):
    step(net_of(head=head, head_options=options, refine=True), labels_of())


@pytest.mark.parametrize("name", ("resnet18", "mobilenetv3_large", "irnet18", "slim", "dpr"))
def test_no_backbone_waits(name):
    step(net_of(net=name, head="coordinate"), labels_of())


@pytest.mark.parametrize("more", [{}, {"stride": 8}, {"num_nb": 0}, {"auxiliary": ("pose",)}], ids=str)
def test_levels_of_pseudo_labels_do_not_wait(more):
    step(net_of(levels=3, **{"stride": 16, **more}), labels_of(level=torch.tensor([0, 1, 2, 0])))


@pytest.mark.parametrize(
    "teacher",
    [{}, {"head": "coordinate", "input_size": 96}, {"refine": True, "head_options": {"sigma": True}}],
    ids=str,
)
def test_a_teacher_does_not_wait(teacher):
    net = Distillation(net_of(refine=True), net_of(**teacher), list(range(68)), 1.0).to("meta")
    step(net, labels_of())


@pytest.mark.parametrize("more", [{}, {"refine": True, "head_options": {"sigma": True}}, {"head": "heatmap"}], ids=str)
def test_a_mean_teacher_does_not_wait(more):
    net = MeanTeacher(net_of(**more), LAYOUT, 0.001).to("meta")
    net.set_average(net.state_dict())
    weak = Weak(torch.zeros(3, SIZE, SIZE, 3, dtype=torch.uint8), torch.eye(2, 3).expand(3, 2, 3)).to("meta")
    step(net, labels_of()._replace(weak=weak), images=BATCH + 3)


def test_a_detector_does_not_wait():
    targets = BoxTargets(torch.zeros(BATCH, len(anchors(SIZE, SIZE)), 5)).to("meta")
    step(FaceBoxesV2().to("meta"), targets)


@pytest.mark.parametrize(
    "slip",
    [
        lambda x: x.sum().item(),
        lambda x: bool(x.any()),
        lambda x: x[x > 0],
        lambda x: torch.linalg.det(x[None, :3, :3]),
        lambda x: x + torch.ones(68),
        lambda x: x[:, [0, 1]],
        lambda x: torch.tensor(1.0),
        lambda x: torch.as_tensor([1.0]),
    ],
)
def test_a_slip_is_seen(slip):
    weight = labels_of().weight
    with pytest.raises((AssertionError, RuntimeError, NotImplementedError)), watched():
        slip(weight)
