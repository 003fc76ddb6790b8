"""The refiner behind any head, and distillation from a teacher: units, then whole runs from the command line."""

import math
import re
import shutil
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from conftest import (
    DEFAULTS,
    LAYOUTS,
    NET,
    doomed,
    exported_predictor,
    fails,
    rows,
    table,
    two_train_as_one,
    works,
)
from conftest import settings as values_of
from hypothesis import given, settings
from hypothesis import strategies as st
from ideal import ideal
from overfitting import overfit
from small_nets import FACE, PARTS, net_of, pictures, some_labels

from extras.detector.faceboxes import FaceBoxesV2
from nets import Labels
from nets.stages.auxiliary import counts, losses
from nets.stages.refiner import Refiner, sample
from nets.wrappers.base import Wrapper
from nets.wrappers.distillation import Distillation, without_teacher
from pipnet.errors import UserError
from utils.data.batches import Batch
from utils.settings.heads import HEADS
from utils.train import checkpoint
from utils.train.checkpoint import unpack
from utils.train.make_net import lid_openings
from utils.train.ranks import Ranks
from utils.train.solver import Solver
from utils.train.teacher import add_teacher

refined = partial(net_of, refine=True)


def stirred(net):
    """Return the net with a refiner that moves landmarks."""
    plain = net
    while isinstance(plain, Wrapper):
        plain = plain.net
    torch.nn.init.normal_(plain.refiner.move, std=0.05)
    return net


# ------------------------------------------------------------------------------------------------------------- refiner
def test_it_begins_by_moving_nothing_and_has_few_parameters():
    net, plain = refined().eval(), net_of().eval()
    plain.load_state_dict(
        {name: tensor for name, tensor in net.state_dict().items() if not name.startswith("refiner.")}
    )
    one, two = net.predict(pictures(3)), plain.predict(pictures(3))
    assert torch.equal(one.landmarks, two.landmarks) and torch.equal(one.score, two.score)
    assert not torch.equal(stirred(net).predict(pictures(3)).landmarks, two.landmarks)
    assert sum(p.numel() for p in net.refiner.parameters()) < 100_000


@settings(max_examples=30)
@given(side=st.integers(1, 12), steps=st.sampled_from([(0.0,), (-0.1, 0.0, 0.1)]), seed=st.integers(0, 99))
def test_patches_are_sampled_as_torch_does(side, steps, seed):
    """Places outside the crop take its border; 16 bits elsewhere change nothing."""
    random = torch.Generator().manual_seed(seed)
    maps, places = torch.randn(2, 3, side, side, generator=random), 2 * torch.rand(2, 5, 2, generator=random) - 0.5
    grid = 2 * (places[:, :, None] + torch.cartesian_prod(*2 * [torch.tensor(steps)]).view(-1, 2)) - 1
    expected = F.grid_sample(maps, grid, padding_mode="border", align_corners=False).permute(0, 2, 3, 1)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.allclose(sample(maps, places, torch.tensor(steps)), expected, atol=1e-4)


def test_landmarks_that_are_no_numbers_are_no_crash():
    net = refined()
    features = net.extract(pictures(2))
    places = torch.full((2, 68, 2), float("nan"))
    sum(net.refiner.loss(places + net.refiner(places, *features), some_labels(2)).values()).backward()


def test_another_layout_takes_the_rows_of_its_landmarks(cli, recipe, tmp_path):
    works(cli("--train", *recipe, "--refine --exp whole"))
    whole = tmp_path / "runs" / "whole" / "best.pt"
    flags = "--refine --exp eyes --layout 12 --learning-rate 1e-9 --ema 0"
    done = works(cli("--train", *recipe, flags, "--weights", whole))
    assert re.search(r"from (\d+) of \1 tensors .*; 12 of 12 landmarks mapped", done.stderr)
    old, new = (checkpoint.load(tmp_path / "runs" / name / "best.pt") for name in ("whole", "eyes"))
    for name in ("refiner.identity", "refiner.move"):
        assert torch.allclose(old["model"][name][36:48], new["model"][name], atol=1e-2)


def test_its_loss_teaches_backbone_and_refiner_and_leaves_the_head_alone():
    net = stirred(refined())
    net.loss(pictures(4), some_labels())["refine"].backward()
    assert all(p.grad is not None and p.grad.isfinite().all() and (p.grad != 0).any() for p in net.refiner.parameters())
    assert all(p.grad is None for p in net.head.parameters()) and any(
        p.grad is not None for p in net.backbone.parameters()
    )


def test_losses_of_the_stages_by_hand():
    """Errors are means of x and y in cells of 8 px; a landmark whose visibility is unknown counts nothing."""
    labels = Labels.pack(torch.zeros(1, 68, 2), [[1, 0.5] + [0] * 66], visible=[[1, 0, 1] + [torch.nan] * 65])
    refiner, moved = refined().refiner, torch.tensor([2 * 8 / 64, -8 / 64]).expand(1, 68, 2)
    assert refiner.loss(moved, labels)["refine"].item() == pytest.approx(1.5 * (2 + 1) / 2)
    logits = torch.tensor([[0.0, 2, -1] + [5] * 65])
    wanted = math.log(2) + math.log(1 + math.exp(2)) + math.log(1 + math.exp(1))
    assert losses("visible", logits, labels)["visible"].item() == pytest.approx(wanted)
    assert refiner.denominators(labels)["refine"] == 1.5 and counts("visible", labels, 68)["visible"] == 3


@pytest.mark.parametrize(
    ("head", "stages"),
    [
        *((head, {}) for head in HEADS),
        ("pip", {"reinit": True, "hard_landmarks": 0.5}),
        ("coordinate", {"reinit": True, "local_parts": PARTS}),
    ],
)
def test_any_head_is_refined(head, stages):
    """All terms have counts, and unknown landmarks train nothing."""
    net, landmarks = stirred(refined(head, **stages)), some_labels().landmarks.clone()
    landmarks[0, 60], landmarks[1] = torch.nan, torch.nan
    labels = Labels.pack(landmarks)
    images = pictures(4, 80 if "reinit" in stages else 64)
    terms, counts = net.loss(images, labels), net.denominators(labels)
    assert terms.keys() == counts.keys() <= net.terms.keys() and counts["refine"] == 3 * 68 - 1
    sum(terms.values()).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in net.parameters())
    assert not net.loss(images, Labels.pack(torch.full((4, 68, 2), torch.nan)))["refine"]


def test_it_overfits_sixteen_faces():
    start, nme, _ = overfit(NET, "coordinate", 64, 80, stages={"refine": True})
    assert nme < 2 < 10 < start


def test_openings_of_eyes_and_mouth_are_a_loss_of_their_own(cli, recipe, tmp_path):
    layout = LAYOUTS.load("68")
    assert len(lid_openings(layout)) == 2 + 2 + 3 and {(37, 41, 36, 39), (62, 66, 60, 64)} < set(lid_openings(layout))
    net, truth = refined(openings=lid_openings(layout)), torch.tensor(FACE).float()[None]
    features = net.extract(pictures(1))

    def loss(found: torch.Tensor, truth: torch.Tensor) -> float:
        return net.refiner.loss(found + net.refiner(found, *features), Labels.pack(truth))["openings"].item()

    def lowered(landmarks: torch.Tensor) -> torch.Tensor:
        landmarks = landmarks.clone()
        landmarks[:, 37, 1] += 0.02
        return landmarks

    shut, unknown = truth.clone(), truth.clone()
    shut[:, 41], unknown[:, 37] = shut[:, 37], torch.nan
    assert loss(truth + 0.1, truth) == pytest.approx(0, abs=1e-4)  # a shift changes no opening
    assert 0 < loss(lowered(truth), truth) < 0.5 * loss(lowered(shut), shut)  # the same error costs more in a shut eye
    assert loss(lowered(truth), unknown) == 0 and [
        net.denominators(Labels.pack(one))["openings"] for one in (truth, unknown)
    ] == [7, 6]

    works(cli("--train", *recipe, "--refine --openings 1 --exp lids"))
    assert float(rows(tmp_path / "runs" / "lids" / "step.csv")[0]["openings"]) > 0
    for flags, message in (
        ("--openings 1 --no-refine", "openings.*--refine"),
        ("--refine --openings 1 --norm box --selected-index 8 30 33", "eye_left"),
    ):
        fails(cli("--train", *recipe, flags), message)


def test_a_net_without_a_fine_map_says_so():
    with pytest.raises(ValueError, match="refine.*stride 8"):
        Refiner({16: 8, 32: 8}, 8, 5, 64, [])


# ------------------------------------------------------------------------------------------------------------- teacher
def pair(student=None, teacher=None) -> Distillation:
    student, teacher = student or net_of(), teacher or net_of()
    return Distillation(student, teacher, list(range(68)), 1.0)


def test_what_a_teacher_teaches():
    """A teacher equal to its student gives a zero loss of the maps; kept weights hold neither teacher nor adapter."""
    whole, labels = pair().eval(), some_labels()
    terms, counts = whole.loss(pictures(4), labels), whole.denominators(labels)
    assert terms.keys() == counts.keys() <= whole.terms.keys()
    assert {"teacher_score", "teacher_neighbor_x", "teacher_maps", "teacher_features"} <= terms.keys()
    assert terms["teacher_maps"] == 0 < terms["teacher_features"]
    assert without_teacher(whole.state_dict()).keys() == net_of().state_dict().keys()
    sum(terms.values()).backward()
    assert all(p.grad.isfinite().all() for p in whole.parameters() if p.grad is not None)
    assert all(p.grad is None for p in whole.teacher[0].parameters())
    other = pair(teacher=net_of("coordinate", input_size=96))
    assert other.compares == {
        "maps": "of head pip, the teacher's of coordinate",
        "features": "of 2 x 2 cells, the teacher's of 3 x 3",
    }
    assert other.adapter is None and not {"teacher_maps", "teacher_features"} & other.denominators(labels).keys()


def test_what_a_teacher_teaches_by_hand():
    """Its landmarks are labels of half the weight here; its scores are higher by 0.1 in each cell."""
    teacher, images, labels = net_of(), pictures(4), some_labels()
    teacher.head.score.bias.data += 0.1
    whole = Distillation(net_of(), teacher, list(range(68)), 0.5)
    terms, imitation = (
        whole.eval().loss(images, labels),
        whole.net.loss(images, Labels.pack(whole.ask(images).landmarks)),
    )
    assert terms["teacher_maps"].item() == pytest.approx(4 * 68 * 0.1**2, rel=1e-4)
    for term, value in imitation.items():
        assert terms[f"teacher_{term}"].item() == pytest.approx(0.5 * value.item(), rel=1e-4)
    chosen = values_of(teacher_weight=0.5, amp="off")
    solver = Solver(whole, chosen.train, chosen.loss, 1, Ranks(0, 1, torch.device("cpu")))
    step = solver.train_step([Batch(images, labels, torch.arange(4))]).read()
    weights = {term: getattr(chosen.loss, key) for term, key in whole.terms.items()}
    weights["teacher_maps"] *= 10
    assert step["loss"] == pytest.approx(sum(weights[term] * value for term, value in step.items() if term != "loss"))


def test_landmarks_of_a_teacher_weigh_by_its_trust_and_by_visibility():
    teacher, labels = net_of(head_options={"sigma": True}), some_labels()
    whole, images = pair(teacher=teacher), pictures(4)
    told = whole.ask(images.float())
    sigma = teacher.eval().predict(images).sigma
    assert torch.allclose(told.trust, 1 / (1 + (sigma / 0.02) ** 2)) and "teacher_log_scale" not in whole.denominators(
        labels
    )
    none = labels.replace(weight=torch.zeros(4, 68))
    assert not any(whole.loss(images, none)[term] for term in whole.denominators(none) if term != "teacher_features")
    before = whole.loss(images, labels)["teacher_offset_x"]
    with torch.no_grad():
        teacher.head.log_scale.bias += 3  # its predicted errors become twenty times as large
    assert whole.loss(images, labels)["teacher_offset_x"] < before / 10


@pytest.mark.parametrize("head", ("heatmap", "simcc"))
def test_score_maps_of_other_heads(head):
    net, labels = net_of(head), Labels.pack(torch.tensor(FACE).float()[None] / 2 + 0.25)
    maps = ideal(net.head, labels, net.grid)
    assert (net.head.scores(maps).square().flatten(2).sum(2) - (2 if head == "simcc" else 1)).abs().max() < 0.1
    assert pair(net, net_of(head)).compares == {"maps": None, "features": None}


def test_a_wrong_teacher_is_one_line(trained, cli, recipe, tmp_path):
    good = trained.folder / "best.pt"
    stored = checkpoint.load(good)

    def learn(file, layout: str = "68", protocol: dict | None = None, net=None) -> str:
        try:
            return add_teacher(
                net or net_of(),
                Path(file),
                1.0,
                LAYOUTS.load(layout),
                protocol or stored["protocol"],
                DEFAULTS,
            )[1]
        except UserError as error:
            return str(error)

    assert learn(good).endswith("px): landmarks, maps, features") and learn(good, "12").endswith("features")
    assert "is of layout 68, which has 0 of the 98 landmarks of layout 98" in learn(good, "98")
    assert "was trained on crops of protocol" in learn(good, protocol={"scale_x": 1.1})
    finder = tmp_path / "finder.pt"
    checkpoint.save(
        finder, {**stored, "net": {"net": "faceboxes"}, "args": {**stored["args"], "task": "detect"}, "layout": {}}
    )
    assert "is a face detector" in learn(finder)
    torch.save(FaceBoxesV2().state_dict(), tmp_path / "weights.pt")
    assert "is neither a checkpoint of this project nor" in learn(tmp_path / "weights.pt")
    fails(cli("--train", *recipe, "--teacher", tmp_path / "gone.pt"), "--teacher.*gone.pt")


# ------------------------------------------------------------------------------------------------ from the command line
@pytest.mark.slow
def test_refined_and_taught_nets_resume_to_the_same_numbers_test_and_export(cli, recipe, trained, tmp_path):
    teacher = shutil.copy(trained.folder / "best.pt", tmp_path / "teacher.pt")
    flags = [*recipe, "--refine", "--teacher", teacher, "--epochs", "2"]
    whole = works(cli("--train --test --test-onnx", *flags, "--exp whole --thresholds 50"))
    assert "landmarks, maps, features" in whole.stderr
    torch_row, onnx_row = (list(map(float, row[3:])) for row in table(whole.stdout) if row[2].strip())
    assert torch_row == pytest.approx(onnx_row, abs=0.01)
    once = rows(tmp_path / "runs" / "whole" / "step.csv")
    assert all(
        float(row[term]) > 0
        for row in once
        for term in ("refine", "teacher_refine", "teacher_maps", "teacher_features")
    )
    kept = checkpoint.load(tmp_path / "runs" / "whole" / "best.pt")["model"]
    assert "refiner.move" in kept and not any(name.startswith(("adapter", "teacher")) for name in kept)

    net, images = unpack(tmp_path / "runs" / "whole" / "best.pt")[0].eval(), pictures(4)
    exported = exported_predictor(tmp_path / "runs" / "whole" / "best.onnx", 1)(images).landmarks
    with torch.inference_mode():
        own = net.head.decode(net(images)).landmarks
        assert (exported - net.predict(images).landmarks).abs().max() * 64 < 1e-3 < (exported - own).abs().max() * 64

    assert cli("--train", *flags, "--exp parts", script=doomed(tmp_path, 6)).returncode == -9
    again = ("--train", "--resume", "--exp", tmp_path / "runs" / "parts")
    fails(cli(*again, "--no-refine"), "--refine")
    works(cli(*again))
    assert rows(tmp_path / "runs" / "parts" / "step.csv") == once
    one, two = (checkpoint.load(tmp_path / "runs" / name / "last.pt")["solver"]["net"] for name in ("whole", "parts"))
    assert "adapter.weight" in one and all(torch.equal(one[name], two[name]) for name in one)
    shutil.copy(trained.folder / "last.pt", teacher)
    fails(cli(*again, "--epochs 3"), "another teacher")
    Path(teacher).unlink()
    fails(cli(*again, "--epochs 3"), "teacher.pt")


@pytest.mark.slow
def test_two_processes_refine_and_learn_from_a_teacher_as_one(cli, recipe, trained, tmp_path):
    teacher = ("--refine", "--teacher", trained.folder / "best.pt")
    two_train_as_one(cli, tmp_path / "runs", "--train", *recipe, "--amp", "off", *teacher)
