"""A net for one's own points from a net for others: common landmarks, the remapped head, docs/finetuning.md."""

import re
import shlex
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from conftest import DEFAULTS, LAYOUTS, ROOT, SMALL, contents, mean_face, refuses, works, write_faces
from small_nets import net_of

from extras.shared.pts import read_pts, write_pts
from extras.synthetic.points import own_points
from nets.heads.pip import PIPHead, nearest_neighbors
from nets.heads.remap import remap
from pipnet.layout import Layout
from utils.settings.layouts import Layouts
from utils.task.experiment import with_neighbors_of
from utils.train import checkpoint, weight_files
from utils.train.initialise import initialise, nearest_origins, shared_landmarks

TUTORIAL = (ROOT / "docs" / "finetuning.md").read_text()
COMMANDS = [shlex.split(line, comments=True) for line in TUTORIAL.splitlines() if line.startswith("    python ")]
LINES = [
    *re.search(r"((?:    (?:mine:|  \w+:).*\n){5})", TUTORIAL)[1].splitlines(),
    re.search(r"(?m)^      same_as.*", TUTORIAL)[0],
]
TEXT = "\n".join(line[4:] for line in LINES)
MINE = yaml.safe_load(TEXT)
CELLS = 8


def test_a_net_that_is_trained_on_keeps_its_neighbors(monkeypatch):
    """Another set has another mean face, whose neighbors have another order; a net of another layout is remapped."""
    net, layout = net_of(), LAYOUTS.load("68")
    kept = [row[::-1] for row in net.spec["neighbor_index"]]
    known = {"net": {**net.spec, "neighbor_index": kept}, "layout": layout.to_dict()}
    monkeypatch.setattr(weight_files, "_load_one", lambda file: ({}, known))
    assert with_neighbors_of(net, "net.pt", layout).spec["neighbor_index"] == kept
    assert with_neighbors_of(net, "imagenet", layout) is net
    known["layout"] = LAYOUTS.load("98").to_dict()
    assert with_neighbors_of(net, "net.pt", layout) is net


# ------------------------------------------------------------------------------------------------- common landmarks
@pytest.mark.parametrize(
    ("new", "old", "wanted"),
    [
        ("12", "68", {i: 36 + i for i in range(12)}),
        ("98", "68", {}),
        ("mine", "68", {0: 36, 1: 45, 2: 39, 3: 42, 4: 30, 5: 48, 6: 54}),
        ("mine", "12", {0: 0, 1: 9, 2: 3, 3: 6}),
        ("mine", "yours", {0: 1, 1: 0}),
        ("mine", "theirs", {0: 1, 1: 0}),
    ],
)
def test_the_landmarks_that_two_layouts_share(new, old, wanted):
    layouts = LAYOUTS.with_rows(
        {
            **MINE,
            "yours": {"count": 2, "flip_index": [1, 0], "same_as": {"68": {0: 45, 1: 36}}},
            "theirs": {"count": 2, "flip_index": [1, 0], "same_as": {"12": {0: 9, 1: 0}}},
        }
    )
    assert shared_landmarks(layouts.load(new), layouts.load(old)) == wanted
    assert Layout.from_dict(yaml.safe_load(yaml.safe_dump(layouts.load(new).to_dict()))) == layouts.load(new)


def test_a_layout_shares_nothing_with_what_it_was_before_an_edit():
    old, new = (
        LAYOUTS.with_rows({"mine": {"count": len(flip), "flip_index": flip}}).load("mine")
        for flip in ([1, 0, 2], [1, 0, 2, 3])
    )
    assert shared_landmarks(new, old) == {}


def test_the_lines_of_the_tutorial_are_a_layout():
    layout = LAYOUTS.with_rows(MINE).load("mine")
    assert sorted(i for ids in layout.groups.values() for i in ids) == list(range(layout.count))
    assert layout.point_names()[:5] == ["eye_left_1", "eye_right_2", "eye_left_2", "eye_right_1", "nose"]
    assert layout.pupils is None and layout.closed == ()


# ---------------------------------------------------------------------------------------------------------- remap
def random_head(index: list[list[int]], seed: int = 0) -> PIPHead:
    """A head whose maps differ in every cell."""
    torch.manual_seed(seed)
    head = PIPHead(16, {"neighbor_index": index})
    for tensor in head.state_dict().values():
        tensor.normal_(std=0.3)
    return head


def remapped(old: PIPHead, old_index: list, new_index: list, sources, meanface: np.ndarray) -> PIPHead:
    head = random_head(new_index, 1)
    head.load_state_dict(remap(old.state_dict(), old_index, new_index, sources, meanface))
    return head


@pytest.mark.parametrize("num_nb", (0, 3, 11))
def test_a_permutation_of_the_same_landmarks_decodes_the_same(num_nb):
    face, order = np.random.default_rng(0).random((12, 2)) * CELLS, np.random.default_rng(1).permutation(12)
    old_index, new_index = nearest_neighbors(face, num_nb), nearest_neighbors(face[order], num_nb)
    old = random_head(old_index)
    sources = nearest_origins(dict(enumerate(order.tolist())), face[order])
    new, features = remapped(old, old_index, new_index, sources, face[order]), torch.randn(5, 16, CELLS, CELLS)
    before, after = old.decode(old(features)), new.decode(new(features))
    # the merge repeats a landmark's voters cyclically, which depends on their order: where all vote, it is a plain mean
    if num_nb in (0, 11):
        assert torch.allclose(after.landmarks, before.landmarks[:, order], atol=1e-5)
    assert torch.equal(after.score, before.score[:, order])
    for landmark, neighbors in enumerate(new_index):
        assert old_index[order[landmark]] == order[neighbors].tolist()
    slots = new.neighbor_x.bias.reshape(12, -1) if num_nb else None
    assert slots is None or torch.equal(slots, old.neighbor_x.bias.reshape(12, -1)[order])


@pytest.mark.parametrize("known", (True, False))
@pytest.mark.parametrize("num_nb", (0, 2))
def test_a_new_landmark_starts_at_its_place_on_the_meanface(num_nb, known):
    """An old head that is right on the mean face predicts each new landmark, and its neighbors, at their places there."""
    face = np.random.default_rng(3).random((20, 2)) * 0.8 + 0.1
    same = {0: 4, 1: 9, 2: 15}
    turned = (face - 0.5) @ [[0.6, 0.3], [-0.3, 0.6]] + 0.5  # the crops of the new net show faces turned
    mine = np.concatenate([turned[list(same.values())], [[0.3, 0.4], [0.6, 0.7]]])
    old_index, new_index = nearest_neighbors(face, 5), nearest_neighbors(mine, num_nb)
    old = random_head(old_index)
    sources = nearest_origins(same, mine, face if known else None)
    assert sources.landmark[:3] == [4, 9, 15] and np.allclose(sources.place[:3], mine[:3])
    assert known or set(sources.landmark) == {4, 9, 15}
    if known:
        nearest = [int(np.linalg.norm(turned - place, axis=1).argmin()) for place in mine[3:]]
        assert sources.landmark[3:] == nearest and np.allclose(sources.place, turned[sources.landmark])
    made = remap(old.state_dict(), old_index, new_index, sources._replace(place=sources.place * CELLS), mine * CELLS)
    seen = [(i, m) for i, neighbors in enumerate(new_index) for m in neighbors]
    for axis, name in enumerate("xy"):
        for landmark, source in enumerate(sources.landmark):
            way = (mine[landmark] - sources.place[landmark])[axis] * CELLS
            row = getattr(old, f"offset_{name}")
            assert torch.equal(made[f"offset_{name}.weight"][landmark], row.weight[source])
            assert made[f"offset_{name}.bias"][landmark].item() == pytest.approx(
                row.bias[source].item() + way, abs=1e-5
            )
        for slot, (cell, landmark) in enumerate(seen):
            here, there = sources.landmark[cell], sources.landmark[landmark]
            if there in old_index[here]:
                row = here * 5 + old_index[here].index(there)
                assert torch.equal(made[f"neighbor_{name}.weight"][slot], getattr(old, f"neighbor_{name}").weight[row])


def test_a_head_with_another_number_of_landmarks_than_its_index_is_refused():
    head = random_head([[1], [0]])
    with pytest.raises(ValueError, match="3 landmarks"):
        remap(head.state_dict(), [[1], [0], [0]], [[]], nearest_origins({0: 0}, np.zeros((1, 2))), np.zeros((1, 2)))


# ----------------------------------------------------------------------------------------------------------- as typed
def write_own(folder: Path, count: int, seed: int) -> None:
    """Write drawn faces with the ten points of the tutorial."""
    write_faces(folder, count, seed)
    for file in folder.glob("*.pts"):
        write_pts(file, own_points(read_pts(file)))


def nme(done) -> float:
    assert done.returncode == 0, done.stderr
    return float(next(line for line in done.stdout.splitlines() if line.startswith("| own")).split("|")[4])


@pytest.mark.slow
def test_the_tutorial(cli, raw, data_root, tmp_path):
    """The tutorial's commands on small faces, from a net of its own: means and what is tuned beat the same net from scratch. The
    tuned one takes net and size from that net, and needs no layout any more.
    """
    roots = ["--data-root", tmp_path / "data", "--run-root", tmp_path / "runs"]
    small = ["--epochs", "8", *SMALL]
    done = works(cli("--train --train-data", raw, *roots, *small, "--num-nb 3 --exp base --epochs 24"))
    for split, count in (("train", 50), ("test", 20)):
        write_own(tmp_path / "own" / split, count, seed=7 + count)
    (tmp_path / "mine.yaml").write_text(TEXT)
    places = {"mine": tmp_path / "own", "mine.yaml": tmp_path / "mine.yaml", "landmarks": tmp_path / "runs/base"}
    few, words = ([places.get(word, word) for word in command[2:]] for command in COMMANDS if "--layout" in command)
    taken, figures = ("--net", "--weights", "--input-size"), {}
    tuned = [word for flag, word in zip([""] + small, small, strict=False) if word not in taken and flag not in taken]
    ways = {
        "few": few,
        "tuned": [*words, *tuned],
        "mapped": [*words, *tuned, "--freeze", "backbone"],
        "scratch": [*words, *small, "--freeze", "null"],
    }
    for name, way in ways.items():
        done = cli(*way, *roots, "--exp", name)
        figures[name] = nme(done)
        assert ("7 of 10 landmarks mapped, 3 from their nearest" in done.stderr) == (name == "mapped")
    assert max(figures["few"], figures["tuned"], figures["mapped"]) < 0.7 * figures["scratch"], figures
    stored = checkpoint.load(tmp_path / "runs" / "tuned" / "best.pt")
    assert stored["layout"]["name"] == "mine" and np.shape(stored["meanface"]) == (10, 2)
    (tmp_path / "mine.yaml").unlink()
    places["mine.yaml"].with_name("fresh").mkdir()  # other faces; their layout stands in the checkpoint only
    write_own(tmp_path / "fresh" / "own2" / "test", 6, seed=99)
    alone = cli(
        "--test-onnx --exp",
        tmp_path / "runs/tuned/best.pt",
        "--test-data",
        tmp_path / "fresh/own2",
        "--data-root",
        tmp_path / "data2",
    )
    assert nme(alone) < 0.8 * figures["scratch"]
    done = works(cli("--train --resume --exp", tmp_path / "runs/tuned", "--epochs 9 --threads 1"))
    assert "epoch 9/9" in done.stderr


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("68:\n  count: 2\n  flip_index: [1, 0]\n", "there is another layout '68' already"),
        ("count: 2\nflip_index: [1, 0]\n", "own.yaml must hold layouts"),
        ('mine:\n  count: 2\n  flip_index: [1, 0]\n  same_as: {"68": {0: 45, 1: 37}}\n', "left and right swapped"),
        ("mine: [", "not valid YAML"),
        (None, "cannot read .*own.yaml"),
    ],
)
def test_a_bad_layout_file_is_named(tmp_path, text, message):
    file = tmp_path / "own.yaml"
    if text is not None:
        file.write_text(text)

    def read() -> Layout:
        name, layouts = LAYOUTS.with_file(str(file))
        return layouts.load(name)

    refuses(message, read)


def test_without_common_landmarks_only_the_backbone_is_loaded(tmp_path):
    face, five, said = np.random.default_rng(0).random((5, 2)), LAYOUTS.load("5"), []
    trained = net_of(meanface=np.random.default_rng(0).random((12, 2)), num_nb=3)
    for parameter in trained.parameters():
        torch.nn.init.normal_(parameter)
    checkpoint.save(tmp_path / "best.pt", contents(trained, LAYOUTS.load("12")))
    net = net_of(meanface=face, num_nb=0)
    words = initialise(net, str(tmp_path / "best.pt"), five, face, said.append, DEFAULTS).words
    assert "new: head." in words and "backbone only: layout 5 shares no landmark" in words and not said
    name = next(iter(net.backbone.state_dict()))
    assert torch.equal(net.backbone.state_dict()[name], trained.backbone.state_dict()[name])
    other = net_of(meanface=face, num_nb=0, net="irnet18")
    refuses(
        "test_efficientnet.*irnet18", initialise, other, str(tmp_path / "best.pt"), five, face, said.append, DEFAULTS
    )


def test_without_imagenet_weights_a_warning_and_random_weights():
    said, face = [], np.random.default_rng(0).random((5, 2))
    net = SimpleNamespace(spec={"net": "irnet18"}, backbone=net_of(meanface=face, num_nb=0, net="irnet18").backbone)
    assert initialise(net, "imagenet", LAYOUTS.load("5"), face, said.append, DEFAULTS).words == "random weights"
    assert "random weights" in said[0]


@pytest.mark.parametrize("head", ("coordinate", "heatmap"))
def test_all_old_landmarks_are_mapped_and_new_ones_follow(tmp_path, head):
    """The head is mapped although its shape differs."""
    rows = {
        "five": {"count": 5, "flip_index": [1, 0, 2, 4, 3]},
        "seven": {"count": 7, "flip_index": [1, 0, 2, 4, 3, 6, 5], "same_as": {"five": {i: i for i in range(5)}}},
    }
    old, new = (Layouts(rows).load(name) for name in rows)
    face = np.random.default_rng(0).uniform(0.2, 0.8, (7, 2))
    nets = [net_of(head, meanface=face[:count], num_nb=0) for count in (5, 7)]
    checkpoint.save(tmp_path / "best.pt", contents(nets[0], old, meanface=face[:5].tolist()))
    started = initialise(nets[1], str(tmp_path / "best.pt"), new, face, print, DEFAULTS)
    assert "5 of 7 landmarks mapped, 2 from their nearest" in started.words
    name, many = {"coordinate": ("head.output.weight", 10), "heatmap": ("head.score.weight", 5)}[head]
    assert torch.equal(nets[1].state_dict()[name][:many], nets[0].state_dict()[name])


def test_a_warning_if_faces_have_another_size_in_the_crop(tmp_path):
    """In a crop round points inside the face, the face is larger than in the crops of a net for the whole face."""
    face = mean_face()
    checkpoint.save(tmp_path / "best.pt", contents(net_of(num_nb=3), LAYOUTS.load("68"), meanface=face.tolist()))
    mine = LAYOUTS.with_rows(MINE).load("mine")
    for scale, words in (
        (1, []),
        (1.8, ["faces are 1.80 times as large .*--protocol whose scale_x and scale_y are 1.80 times"]),
    ):
        own, said = (own_points(face) - 0.5) * scale + 0.5, []
        initialise(net_of(meanface=own, num_nb=0), str(tmp_path / "best.pt"), mine, own, said.append, DEFAULTS)
        assert len(said) == len(words) and all(re.search(word, text) for word, text in zip(words, said, strict=True))
    initialise(
        net_of(meanface=own_points(face), num_nb=0, input_size=96),
        str(tmp_path / "best.pt"),
        mine,
        own_points(face),
        said.append,
        DEFAULTS,
    )
    assert "trained at 64 px, this net has 96" in said[-1]
