"""A net for one's own points from a net for others: common landmarks, the transplanted head, the README's tutorial."""
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from conftest import NET, ROOT, SMALL, mean_face, write_faces

from nets import NetOptions, build_net, make_spec
from nets.convert.transplant import nearest_sources, transplant
from nets.heads.pip import PIPHead, nearest_neighbors
from pipnet.layout import Layout
from utils.config import defaults, load_layout
from utils.data.parsers import read_pts, write_pts
from utils.data.synthetic.points import own_points
from utils.train import checkpoint
from utils.train.initialise import shared

ROWS = defaults().tables["layouts"]
README = (ROOT / "README.md").read_text().split("## Your own points in ten minutes")[1].split("\n## ")[0]
COMMANDS = [shlex.split(line, comments=True) for line in README.splitlines() if line.startswith("    python ")]
TEXT = "\n".join(line[4:] for line in re.search(r"((?:    (?:mine:|  \w+:).*\n){5})", README)[1].splitlines())
MINE = yaml.safe_load(TEXT)
CELLS = 8


# ------------------------------------------------------------------------------------------------- common landmarks
@pytest.mark.parametrize(("new", "old", "wanted"), [
    ("68", "68", {i: i for i in range(68)}),
    ("12", "68", {i: 36 + i for i in range(12)}),
    ("68", "12", {36 + i: i for i in range(12)}),
    ("98", "68", {}),
    ("mine", "68", {0: 36, 1: 45, 2: 30, 3: 48, 4: 54}),
    ("68", "mine", {36: 0, 45: 1, 30: 2, 48: 3, 54: 4}),
    ("mine", "12", {0: 0, 1: 9}),
    ("mine", "yours", {0: 1, 1: 0}),
    ("mine", "theirs", {0: 1, 1: 0}),
])
def test_layouts_know_their_common_landmarks(new, old, wanted):
    rows = {**ROWS, **MINE, "yours": {"count": 2, "flip_index": [1, 0], "same_as": {"68": {0: 45, 1: 36}}},
            "theirs": {"count": 2, "flip_index": [1, 0], "same_as": {"12": {0: 9, 1: 0}}}}
    assert shared(load_layout(rows, new), load_layout(rows, old)) == wanted
    assert Layout.from_dict(yaml.safe_load(yaml.safe_dump(load_layout(rows, new).to_dict()))) == load_layout(rows, new)


def test_a_layout_that_was_edited_is_another():
    old = load_layout({**ROWS, "mine": {"count": 3, "flip_index": [1, 0, 2]}}, "mine")
    assert shared(load_layout({**ROWS, "mine": {"count": 4, "flip_index": [1, 0, 2, 3]}}, "mine"), old) == {}


def test_five_lines_are_a_layout():
    assert len(TEXT.splitlines()) == 5
    layout = load_layout({**ROWS, **MINE}, "mine")
    assert layout.edges() == [] and list(layout.parts.values()) == [(i,) for i in range(layout.count)]
    assert layout.pupils is None and layout.closed == ()


# ------------------------------------------------------------------------------------------------------- transplants
def random_head(index: list[list[int]], seed: int = 0) -> PIPHead:
    """A head that says something else in every cell."""
    torch.manual_seed(seed)
    head = PIPHead(16, {"neighbor_index": index})
    for tensor in head.state_dict().values():
        tensor.normal_(std=0.3)
    return head


def transplanted(old: PIPHead, old_index: list, new_index: list, sources, meanface: np.ndarray) -> PIPHead:
    head = random_head(new_index, 1)
    head.load_state_dict(transplant(old.state_dict(), old_index, new_index, sources, meanface))
    return head


@pytest.mark.parametrize("num_nb", (0, 3, 11))
def test_a_permutation_of_the_same_landmarks_decodes_the_same(num_nb):
    face, order = np.random.default_rng(0).random((12, 2)) * CELLS, np.random.default_rng(1).permutation(12)
    old_index, new_index = nearest_neighbors(face, num_nb), nearest_neighbors(face[order], num_nb)
    old = random_head(old_index)
    sources = nearest_sources(dict(enumerate(order.tolist())), face[order])
    new, features = transplanted(old, old_index, new_index, sources, face[order]), torch.randn(5, 16, CELLS, CELLS)
    before, after = old.decode(old(features)), new.decode(new(features))
    # the merge repeats a landmark's voters cyclically, which depends on their order: where all vote, it is a plain mean
    if num_nb in (0, 11):
        assert torch.allclose(after.landmarks, before.landmarks[:, order], atol=1e-5)
    assert torch.equal(after.score, before.score[:, order])
    for landmark, neighbors in enumerate(new_index):
        assert old_index[order[landmark]] == order[neighbors].tolist()
    slots = new.neighbor_x.bias.reshape(12, -1) if num_nb else None
    assert slots is None or torch.equal(slots, old.neighbor_x.bias.reshape(12, -1)[order])


def test_a_subset_decodes_the_same_without_neighbors():
    face, chosen = np.random.default_rng(0).random((12, 2)) * CELLS, [7, 2, 5]
    old_index, new_index = nearest_neighbors(face, 4), nearest_neighbors(face[chosen], 0)
    old, features = random_head(old_index), torch.randn(5, 16, CELLS, CELLS)
    new = transplanted(old, old_index, new_index, nearest_sources(dict(enumerate(chosen)), face[chosen]), face[chosen])
    corner_free = random_head([[]] * 12)
    corner_free.load_state_dict({name: tensor for name, tensor in old.state_dict().items() if "neighbor" not in name})
    wanted = corner_free.decode(corner_free(features)).landmarks[:, chosen]
    assert torch.allclose(new.decode(new(features)).landmarks, wanted, atol=1e-6)


@pytest.mark.parametrize("known", (True, False))
@pytest.mark.parametrize("num_nb", (0, 2))
def test_a_landmark_that_nobody_knows_starts_at_its_place_on_the_meanface(num_nb, known):
    """On the meanface itself an old head that is right gives every new landmark its place, neighbors included."""
    face = np.random.default_rng(3).random((20, 2)) * 0.8 + 0.1
    same = {0: 4, 1: 9, 2: 15}
    turned = (face - 0.5) @ [[0.6, 0.3], [-0.3, 0.6]] + 0.5  # the new crops show faces otherwise
    mine = np.concatenate([turned[list(same.values())], [[0.3, 0.4], [0.6, 0.7]]])
    old_index, new_index = nearest_neighbors(face, 5), nearest_neighbors(mine, num_nb)
    old = random_head(old_index)
    sources = nearest_sources(same, mine, face if known else None)
    assert sources.landmark[:3] == [4, 9, 15] and np.allclose(sources.place[:3], mine[:3])
    assert known or set(sources.landmark) == {4, 9, 15}
    if known:
        nearest = [int(np.linalg.norm(turned - place, axis=1).argmin()) for place in mine[3:]]
        assert sources.landmark[3:] == nearest and np.allclose(sources.place, turned[sources.landmark])
    made = transplant(old.state_dict(), old_index, new_index, sources._replace(place=sources.place * CELLS), mine * CELLS)
    seen = [(i, m) for i, neighbors in enumerate(new_index) for m in neighbors]
    for axis, name in enumerate("xy"):
        for landmark, source in enumerate(sources.landmark):
            way = (mine[landmark] - sources.place[landmark])[axis] * CELLS
            row = getattr(old, f"offset_{name}")
            assert torch.equal(made[f"offset_{name}.weight"][landmark], row.weight[source])
            assert made[f"offset_{name}.bias"][landmark].item() == pytest.approx(row.bias[source].item() + way, abs=1e-5)
        for slot, (cell, landmark) in enumerate(seen):
            here, there = sources.landmark[cell], sources.landmark[landmark]
            if there in old_index[here]:
                row = here * 5 + old_index[here].index(there)
                assert torch.equal(made[f"neighbor_{name}.weight"][slot], getattr(old, f"neighbor_{name}").weight[row])


def test_a_head_that_is_not_what_it_says_is_refused():
    head = random_head([[1], [0]])
    with pytest.raises(ValueError, match="not have the 3 landmarks"):
        transplant(head.state_dict(), [[1], [0], [0]], [[]], nearest_sources({0: 0}, np.zeros((1, 2))), np.zeros((1, 2)))


# ----------------------------------------------------------------------------------------------------------- as typed
def write_own(folder: Path, count: int, seed: int) -> None:
    """Drawn faces with the tutorial's eight points."""
    write_faces(folder, count, seed)
    for file in folder.glob("*.pts"):
        write_pts(file, own_points(read_pts(file)))


def nme(done) -> float:
    assert done.returncode == 0, done.stderr
    return float(next(line for line in done.stdout.splitlines() if line.startswith("| own")).split("|")[4])


def test_the_tutorial(cli, raw, data_root, tmp_path):
    """The README's commands on small faces: fine-tuned beats from scratch, and what is tuned needs no layout any more."""
    roots = ["--data-root", tmp_path / "data", "--run-root", tmp_path / "runs"]
    small = ["--epochs", "8", *SMALL]
    done = cli("--train", "--train-data", raw, *roots, *small, "--num-nb", "3", "--exp", "base", "--epochs", "24")
    assert done.returncode == 0, done.stderr
    for split, count in (("train", 50), ("test", 20)):
        write_own(tmp_path / "own" / split, count, seed=7 + count)
    (tmp_path / "mine.yaml").write_text(TEXT)
    places = {"mine": tmp_path / "own", "mine.yaml": tmp_path / "mine.yaml",
              "weights/000/best.pt": tmp_path / "runs/base/best.pt"}
    training = [[places.get(word, word) for word in command[2:]] for command in COMMANDS if "--train" in command]
    assert len(training) == 2 and all("--layout" in words and "--preset" in words for words in training)
    figures = {}
    for name, words in zip(("tuned", "scratch"), training, strict=True):
        extra = small if name == "scratch" else [word for word in small if word != "none"]
        if name == "tuned":
            extra.remove("--weights")
        done = cli(*words, *extra, *roots, "--exp", name)
        figures[name] = nme(done)
        assert ("5 of 8 landmarks mapped, 3 from their nearest" in done.stderr) == (name == "tuned")
    assert figures["tuned"] < 0.7 * figures["scratch"], figures
    stored = checkpoint.load(tmp_path / "runs" / "tuned" / "best.pt")
    assert stored["layout"]["name"] == "mine" and np.shape(stored["meanface"]) == (8, 2)
    (tmp_path / "mine.yaml").unlink()
    places["mine.yaml"].with_name("fresh").mkdir()  # other faces, prepared by nothing but what the checkpoint knows
    write_own(tmp_path / "fresh" / "own2" / "test", 6, seed=99)
    alone = cli("--test-onnx", "--exp", tmp_path / "runs/tuned/best.pt", "--test-data", tmp_path / "fresh/own2",
                "--data-root", tmp_path / "data2")
    assert nme(alone) < 0.8 * figures["scratch"]
    done = cli("--train", "--resume", "--exp", tmp_path / "runs/tuned", "--epochs", "9", "--threads", "1")
    assert done.returncode == 0 and "epoch 9/9" in done.stderr, done.stderr


@pytest.mark.parametrize(("text", "message"), [
    ("68:\n  count: 2\n  flip_index: [1, 0]\n", "there is another layout '68' already"),
    ("count: 2\nflip_index: [1, 0]\n", "must hold one layout"),
    ("mine:\n  count: 2\n  flip_index: [1, 0]\n  same_as: {\"68\": {0: 45, 1: 37}}\n", "left and right swapped"),
    ("mine: [", "not valid YAML"),
    (None, "cannot read .*own.yaml"),
])
def test_a_bad_layout_file_is_named(cli, tmp_path, raw, text, message):
    if text is not None:
        (tmp_path / "own.yaml").write_text(text)
    roots = ["--data-root", tmp_path / "data", "--run-root", tmp_path / "runs"]
    done = cli("--train", "--dataset", raw, "--layout", tmp_path / "own.yaml", *roots)
    assert done.returncode == 1 and re.search(message, done.error or ""), done.stderr
    assert not (tmp_path / "data").exists() and not (tmp_path / "runs").exists()


@pytest.mark.parametrize("head", ("coordinate", "heatmap"))
def test_further_landmarks_after_all_of_the_old_ones(tmp_path, head):
    """The old head is mapped, not left out for its shape, whatever the head."""
    from utils.train.run_folder import initialise
    rows = {"five": {"count": 5, "flip_index": [1, 0, 2, 4, 3]},
            "seven": {"count": 7, "flip_index": [1, 0, 2, 4, 3, 6, 5], "same_as": {"five": {i: i for i in range(5)}}}}
    old, new = (load_layout(rows, name) for name in rows)
    face = np.random.default_rng(0).uniform(0.2, 0.8, (7, 2))
    torch.manual_seed(0)
    nets = [build_net(make_spec(NetOptions(NET, head, None, 64, num_nb=0), face[:count])) for count in (5, 7)]
    checkpoint.save(tmp_path / "best.pt", {
        "format": checkpoint.FORMAT, "net": nets[0].spec, "layout": old.to_dict(), "protocol": {}, "args": {},
        "model": nets[0].state_dict(), "meanface": face[:5].tolist()})
    started = initialise(nets[1], str(tmp_path / "best.pt"), new, face, print)
    assert "5 of 7 landmarks mapped, 2 from their nearest" in started.words
    name, many = {"coordinate": ("head.output.weight", 10), "heatmap": ("head.score.weight", 5)}[head]
    assert torch.equal(nets[1].state_dict()[name][:many], nets[0].state_dict()[name])


def test_faces_of_another_size_in_the_crop_are_said(tmp_path):
    """The crop round points inside the face shows it larger than a net for the whole face knows it."""
    from utils.train.run_folder import initialise
    layout, face = load_layout(ROWS, "68"), mean_face()
    net = build_net(make_spec(NetOptions(NET, "pip", 32, 64, num_nb=3), face))
    values = {"format": 1, "net": net.spec, "layout": layout.to_dict(), "protocol": {}, "args": {}, "model": net.state_dict()}
    checkpoint.save(tmp_path / "best.pt", {**values, "meanface": face.tolist()})
    mine = load_layout({**ROWS, **MINE}, "mine")
    for scale, words in ((1, []), (1.8, ["faces are 1.80 times as large .*--protocol"])):
        own, said = (own_points(face) - 0.5) * scale + 0.5, []
        net = build_net(make_spec(NetOptions(NET, "pip", 32, 64, num_nb=0), own))
        initialise(net, str(tmp_path / "best.pt"), mine, own, said.append)
        assert len(said) == len(words) and all(re.search(word, text) for word, text in zip(words, said, strict=True))
    net = build_net(make_spec(NetOptions(NET, "pip", 32, 96, num_nb=0), own_points(face)))
    initialise(net, str(tmp_path / "best.pt"), mine, own_points(face), said.append)
    assert "trained at 64 px, this is 96" in said[-1]
