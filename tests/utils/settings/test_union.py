"""Unions of layouts: one net for the landmarks of all its training sets."""

import json
import shutil
from dataclasses import replace

import archives
import cv2
import numpy as np
import pytest
import torch
import yaml
from conftest import LAYOUTS, ROOT, SMALL, driver, fails, made_in, mean_face, refuses, rows, table, works
from own_sets import FIVE, write_pairs

from nets.heads.pip import BEYOND, neighbors_across
from pipnet.geometry import similarity, transform
from pipnet.landmark_net import open_net
from pipnet.landmarker import Landmarker
from pipnet.layout import Layout, contradiction
from utils.data.faces import aligned
from utils.data.prepared_set import PreparedSet, Split, load_splits
from utils.settings.conversion import conversion
from utils.settings.union import Labelled, described, labelled_by, layout_of, member_of, to_union, unite
from utils.task.check_sets import check_known
from utils.task.find import find_net
from utils.task.inference import load
from utils.train import checkpoint
from utils.train.initialise import shared_landmarks

SETS = [
    Labelled("300w", "68"),
    Labelled("wflw", "98"),
    Labelled("cofw", "29"),
    Labelled("aflw", "19"),
    Labelled("lapa", "106"),
]
ALL = unite("union", SETS, LAYOUTS)
MINE = {"mine": {"count": 3, "flip_index": [1, 0, 2], "groups": {"ears": [0, 1], "hat": [2]}}}
OTHER = LAYOUTS.with_rows(MINE)


def habits(ids, layouts=LAYOUTS, name: str = "faces68"):
    return layouts.with_rows({"union": {"conventions": {name: ids}}})


# ------------------------------------------------------------------------------------------------------ which landmarks
def test_points_that_mean_the_same_are_one_landmark():
    union = unite("union", SETS[:2], LAYOUTS)
    assert union.count == 98 + 16  # brows and lids of 68 are means of those of 98
    one, two = union.members["68"], union.members["98"]
    assert one.index == tuple(range(68)) and (one.sets, two.sets) == (("300w",), ("wflw",))
    assert two.index[:33:2] == tuple(range(17)) and two.index[54] == 30 and two.index[34] >= 68
    assert union.interocular == (36, 45) and union.same_as["98"][36] == 60
    assert ALL.count < 68 + 98 and {"12", "68", "98", "29", "19", "106"} == ALL.members.keys()
    assert ALL.members["12"].index == tuple(range(36, 48)) and not ALL.members["12"].sets


def test_the_order_of_the_sets_changes_the_numbers_only():
    other = unite("union", SETS[::-1], LAYOUTS)
    assert other.count == ALL.count and list(other.members)[0] == "106"
    pairs = {
        (ALL.members[name].index[i], other.members[name].index[i])
        for name, member in ALL.members.items()
        for i in range(member.layout.count)
    }
    assert len(pairs) == ALL.count


def test_sets_of_one_layout_have_that_layout():
    assert unite("union", [SETS[0], Labelled("faces68", "68")], LAYOUTS) == LAYOUTS.load("68")


def test_a_union_survives_its_plain_form():
    values = json.loads(json.dumps(ALL.to_dict()))
    assert layout_of(values) == ALL and contradiction(ALL) is None
    assert "members" not in LAYOUTS.load("68").to_dict() and layout_of(LAYOUTS.load("68").to_dict()) == LAYOUTS.load(
        "68"
    )
    values["members"]["98"]["index"][3] = 5
    with pytest.raises(ValueError, match="98: index"):
        layout_of(values)


def test_a_member_is_found_by_its_name_and_its_sets():
    assert ALL.chosen().layout.name == "68" and ALL.chosen("wflw") == ALL.members["98"] == ALL.chosen("98")
    alone, plain = ALL.alone(ALL.chosen("68")), ALL.alone(ALL.chosen("29"))  # with the eyes, and without parts
    assert replace(alone, parts={}) == LAYOUTS.load("68") and plain == LAYOUTS.load("29")
    assert alone.parts == {"12": (LAYOUTS.load("12"), tuple(range(36, 48)))} and alone.part("68") is None
    assert Layout.from_dict(alone.to_dict()) == alone and alone.part("12").layout.count == 12
    assert ALL.whole(ALL.chosen("12")) == ALL.chosen("68") and ALL.whole(ALL.chosen("98")) == ALL.chosen("98")
    refuses("'67'.*68.*98", ALL.chosen, "67")
    refuses("'68', not '98'; choose one of 68", LAYOUTS.load("68").part, "98")


def test_a_convention_has_landmarks_of_its_own():
    layouts = habits(["jaw", 17, 26])
    union = unite("union", [SETS[0], Labelled("faces68", "68"), SETS[2]], layouts)
    one, two = union.members["68"], union.members["68-faces68"]
    assert (
        two.own == (*range(18), 26)
        and two.index[18:26] == one.index[18:26]
        and not set(two.index[:17]) & set(one.index)
    )
    assert (
        union.chosen("faces68") is two
        and member_of(union, Labelled("faces68", "68")) is two
        and member_of(union, Labelled("x", "68")) is one
    )
    # the other net starts from all its landmarks
    other = unite("union", [Labelled("faces68", "68"), SETS[2], SETS[0]], layouts)
    same = shared_landmarks(other, union)
    assert len(same) == other.count and all(
        same[there] == here
        for name in union.members
        if union.members[name].sets
        for here, there in zip(union.members[name].index, other.members[name].index, strict=True)
    )
    points = np.random.default_rng(0).uniform(0, 1, (68, 2))
    found = to_union(Labelled("faces68", "68"), union, layouts)(points)
    assert np.array_equal(found[list(two.index)], points) and np.isnan(found[list(one.index[:17])]).all()
    assert np.isnan(found[union.members["29"].index[28]]).all()  # the chin of COFW is that of 300W
    found = to_union(SETS[0], union, layouts)(points)
    assert np.array_equal(found[list(one.index)], points) and np.isnan(found[list(two.index[:17])]).all()


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (["jaw", "chin"], "conventions of faces68 names 'chin', which is neither a group nor a landmark of layout 68"),
        ([68], r"names landmark 68, but layout 68 has 0\.\.67"),
        ([0], "landmark 0 of layout 68 without its mirror partner 16"),
        ([None], "names 'None', which is neither"),
    ],
)
def test_wrong_conventions_are_refused(ids, message):
    refuses(message, unite, "union", [SETS[0], Labelled("faces68", "68")], habits(ids))


def test_malformed_rows_are_refused():
    for row, message in (
        ({"conventions": {}, "closed": []}, "so is closed"),
        ({"conventions": [1]}, "must be a table of sets"),
    ):
        refuses(message, unite, "union", SETS, LAYOUTS.with_rows({"union": row}))
    refuses("'union'", LAYOUTS.load, "union")
    for flip, same in (
        ([0, 1, 2], {"68": {0: 30}, "29": {2: 20}}),
        ([2, 1, 0], {"68": {0: 30}}),
    ):  # the mirror partner is too
        layouts = LAYOUTS.with_rows({"mine": {**MINE["mine"], "flip_index": flip, "same_as": same}})
        refuses(
            "ears_1.*hat",
            unite,
            "union",
            [SETS[0], Labelled("own", "mine")],
            layouts,
        )


# --------------------------------------------------------------------------------------------------------------- labels
@pytest.mark.parametrize("one", [*SETS, Labelled("menpo-profile", "39"), Labelled("celeba", "5")])
def test_labels_give_all_landmarks_that_follow_from_them(one):
    union = unite("union", [*SETS, Labelled("menpo-profile", "39"), Labelled("celeba", "5")], LAYOUTS)
    way, layout = to_union(one, union, LAYOUTS), LAYOUTS.load(one.stored)
    points = np.random.default_rng(1).uniform(0, 100, (layout.count, 2))
    found = way(points)
    assert np.array_equal(found[list(union.members[one.stored].index)], points)
    for name, member in union.members.items():
        if rule := conversion(one.stored, name, LAYOUTS):
            there = rule(points)
            known = np.isfinite(there).all(1)
            assert np.allclose(found[list(member.index)][known], there[known]), name
    mirrored = way((points * (-1, 1))[list(layout.flip_index)])
    assert np.allclose(mirrored, (found * (-1, 1))[list(union.flip_index)], equal_nan=True)


def test_a_set_without_a_rule_is_a_group_of_its_own_and_says_so():
    union = unite("union", [SETS[0], Labelled("own", "mine")], OTHER)
    assert union.count == 71 and len(list(described(unite("union", SETS, LAYOUTS), LAYOUTS))) == 1
    lines = list(described(union, OTHER))
    assert any(line.startswith("own: no rule relates layout mine to the others, so its 3 landmarks") for line in lines)
    related = LAYOUTS.with_rows({"mine": {**MINE["mine"], "same_as": {"68": {0: 0}}}})
    union = unite("union", [SETS[0], Labelled("own", "mine")], related)
    assert (
        union.count == 69 and union.members["mine"].index == (0, 16, 68) and len(list(described(union, related))) == 1
    )


# ---------------------------------------------------------------------------------------------- mean face and neighbors
def test_mean_faces_are_aligned_by_shared_landmarks():
    face = mean_face()
    turned = transform(face, similarity(face[:2], face[:2] * (0.8, 0.9) + (0.1, 0.05)))
    one, two, far = face.copy(), turned.copy(), np.full((68, 2), np.nan)
    one[:17], two[40:], far[60] = np.nan, np.nan, (0.5, 0.5)
    one[60] = two[60] = np.nan
    found = aligned([one, far, two])
    assert np.allclose(np.delete(found, 60, 0), np.delete(face, 60, 0)) and np.array_equal(found[60], (0.5, 0.5))


def test_neighbors_are_labelled_together_and_reach_other_layouts():
    sets = [*SETS[:3], Labelled("own", "mine")]
    union = unite("union", sets, OTHER)
    labelled, face = labelled_by(union, OTHER), np.random.default_rng(0).uniform(0, 1, (union.count, 2))
    index = np.array(neighbors_across(face, 10, labelled))
    assert index.shape == (union.count, 10)
    own = set(union.members["mine"].index)
    for landmark, near in enumerate(index):
        mine = labelled[:, landmark]
        if landmark in own:
            assert set(near) == own - {landmark}
            continue
        assert all((mine & labelled[:, other]).any() and other != landmark for other in near) and len(set(near)) == 10
        beyond = [(labelled[:, other] & ~mine).any() for other in range(union.count)]
        reachable = [other for other in range(union.count) if beyond[other] and (mine & labelled[:, other]).any()]
        assert sum(beyond[other] for other in near) >= min(np.ceil(10 * BEYOND), len(reachable))
    assert neighbors_across(face[:1], 2, np.ones((1, 1), bool)) == [[0, 0]]


@pytest.mark.filterwarnings("error:invalid value:RuntimeWarning")
def test_a_landmark_that_no_face_has_is_refused(faces):
    one = PreparedSet(faces, LAYOUTS)
    union = unite("union", [one.labelled, SETS[2]], LAYOUTS)
    loaded = load_splits([Split(one, "train")], union, 64, 0)
    assert np.isnan(loaded.meanface()).any() and np.allclose(loaded.meanface()[:68], one.meanface(), atol=1e-5)
    refuses("cofw.*union", check_known, union, loaded)
    # whose lower edges of the brows no formula gives
    loaded = load_splits([Split(one, "train")], LAYOUTS.load("29"), 64, 0)
    refuses(
        "brow_left_4.*brow_right_4.*--layout",
        check_known,
        LAYOUTS.load("29"),
        loaded,
    )


# ----------------------------------------------------------------------------------------------------------- end to end
def test_names_and_sets_that_cannot_be_meant_are_refused(tmp_path, cli):
    for name, layout in (("own", FIVE[:3]), ("own5", FIVE), ("turned", FIVE[[1, 0, 2, 4, 3]]), ("other/own", FIVE)):
        (tmp_path / name).mkdir(parents=True)
        write_pairs(tmp_path / name, [layout + i for i in range(6)])
    shutil.copytree(tmp_path / "own", tmp_path / "copy")
    named = {"copied": {"conventions": {"onw": ["hat"]}}, "plain": {"conventions": {}}}
    for name, row in named.items():
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump({name: row, **MINE}))
    for sets, flags, message in (
        (
            ["own", "own5"],
            ["--layout", tmp_path / "copied.yaml"],
            "layout 'copied': conventions names 'onw', which is no training set (there are: own, own5); did you mean 'own'?",
        ),
        (["own", "own5"], ["--shares", "own5=1", "own5=2"], "numbers above 0, each name once"),
        (["own", "other/own"], ["--shares", "own=2"], "--shares names 'own', but 2 training sets have this name"),
        (["own", "own5", "copy"], [], "hold the same faces; leave one out"),
    ):
        done = cli(
            "--train --train-data",
            *(tmp_path / name for name in sets),
            "--layout",
            tmp_path / "plain.yaml",
            *SMALL,
            "--data-root",
            tmp_path / "data",
            "--run-root",
            tmp_path / "runs",
            *flags,
        )
        assert done.error and message in done.error, done.stderr
    (tmp_path / "low").mkdir()
    write_pairs(tmp_path / "low", [FIVE[[3, 4, 2]] + i for i in range(6)])
    related = {"both": {"conventions": {}}, "mine": {**MINE["mine"], "same_as": {"5": {0: 3, 1: 4, 2: 2}}}}
    (tmp_path / "both.yaml").write_text(yaml.safe_dump(related))
    done = cli(
        "--train --train-data",
        *(tmp_path / name for name in ("own5", "turned", "low")),
        "--layout",
        tmp_path / "both.yaml",
        "--val 0.2 --norm diagonal --epochs 1",
        *SMALL,
        "--data-root",
        tmp_path / "data",
        "--run-root",
        tmp_path / "runs",
    )
    assert done.returncode == 0 and "share lie at other places in one than in the other" in done.stderr, done.stderr
    assert "faces are 1.37 times as large in the crops of" in done.stderr, done.stderr
    more = {"plain": {"conventions": {}}, "mine": {"count": 4, "flip_index": [1, 0, 2, 3]}}
    (tmp_path / "plain.yaml").write_text(yaml.safe_dump(more))
    done = cli(
        "--prepare --train-data",
        tmp_path / "own",
        tmp_path / "own5",
        "--layout",
        tmp_path / "plain.yaml",
        *SMALL,
        "--data-root",
        tmp_path / "data",
    )
    assert done.error and f"{tmp_path / 'own'} has 3 landmarks" in done.stderr, done.stderr


@pytest.fixture(scope="module")
def miniatures(tmp_path_factory):
    """The official archives of four sets in one folder, a set of one's own, and a file with its layout."""
    root = tmp_path_factory.mktemp("miniatures")
    for make in (archives.wflw, archives.cofw, archives.few_aflw, archives.lapa):
        make(root)
    for split, count in (("train", 3), ("test", 2)):
        (root / "own" / split).mkdir(parents=True)
        write_pairs(root / "own" / split, [FIVE[:3] + i for i in range(count)])
    (root / "all.yaml").write_text(yaml.safe_dump({"all": {"conventions": {}}, **MINE}))
    return root


def test_a_set_on_which_an_export_is_not_tested_is_named(raw, tmp_path, cli):
    faces = shutil.copytree(raw, tmp_path / "faces68")  # a training set of the net, with a convention of its own
    flags = ("--test-onnx --exp landmarks-fast --test-data", faces, "--data-root", tmp_path, "--run-root", tmp_path)
    line = "faces68, as 68-faces68: onnx not tested, the file has layout 68; add --layout 68-faces68"
    assert line in works(cli(*flags)).stderr
    done = works(cli(*flags, "--layout", "68-faces68"))
    assert "not tested" not in done.stderr and "onnx" in {row[1] for row in table(done.stdout)}


@pytest.mark.slow
def test_sets_of_five_layouts_train_one_net(miniatures, tmp_path, cli):
    sets, runs = ["wflw", "cofw", "aflw", "lapa", str(miniatures / "own")], tmp_path / "runs"
    places = ["--data-root", tmp_path / "data", "--run-root", runs, "--norm", "diagonal"]
    shares = ["--shares", "own=0.5", "--no-refine", "--data-dir", miniatures, "--allow-partial"]
    done = cli(
        "--train --test --test-onnx --layout",
        miniatures / "all.yaml",
        "--train-data",
        *sets,
        *shares,
        *places,
        *SMALL,
        "--epochs 2 --val 0.4 --exp one",
    )
    assert done.returncode == 0, done.stderr
    assert "landmarks of layouts 98 (wflw), 29 (cofw), 19 (aflw), 106 (lapa), mine (own)" in done.stderr
    assert "own: no rule relates layout mine" in done.stderr
    found = {row[0]: row for row in table(done.stdout)}
    assert {
        f"{name}, as {layout}" for name, layout in (("wflw", "98"), ("cofw", "29"), ("lapa", "106"), ("own", "mine"))
    } <= found.keys()
    assert all(0 < float(row["val_nme"]) < 1000 for row in rows(runs / "one/step.csv"))
    run, file = runs / "one", runs / "one/best.onnx"
    exported = {row[0] for row in table(done.stdout) if row[1] == "onnx" and ", as " in row[0]}
    assert exported == {"wflw, as 98"}  # its file has one layout
    assert "own, as mine: onnx not tested, the file has layout 98; add --layout mine" in done.stderr, done.stderr
    assert "* marks the norms that are usual" in (runs / "one/report/index.html").read_text()
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    everything = load(str(run / "best.pt")).predict(torch.from_numpy(images)).landmarks.detach().numpy()
    learnt = layout_of(checkpoint.load(run / "best.pt")["layout"])
    assert learnt.count == everything.shape[1] < 98 + 29 + 19 + 106
    for name, count in (("wflw", 98), ("29", 29), ("aflw", 19), ("106", 106), ("own", 3)):
        net = find_net(str(run / "best.pt"), 1, name)
        assert net.layout.count == len(net.meanface) == count and np.isfinite(net.meanface).all()
        index = list(learnt.chosen(name).index)
        assert np.allclose(net.predict(images)["landmarks"], everything[:, index], atol=1e-6)
    picture = cv2.imread(str(ROOT / "assets/astronaut.jpg"))
    unsure = replace(find_net(str(run / "best.pt"), 1, "cofw"), face_limit=0.0)  # of two epochs, which drops no face
    box = np.array([[180.0, 60, 280, 200]])
    landmarker = Landmarker(unsure, lambda image: (box, np.ones(1)), any_roll=False, threshold=0.0)
    assert landmarker.layout.name == "29" and [len(face.landmarks) for face in landmarker(picture)] == [29]
    assert Landmarker(file, lambda image: None, any_roll=False).layout.name == "98"  # that of the first training set

    (run / "round1").mkdir()
    shutil.copy(run / "best.pt", run / "round1")  # as --semi leaves the nets of its rounds
    done = cli("--test --test-onnx --exp one --layout lapa", *places)
    assert done.returncode == 0 and "is not tested: no rule relates its layout mine to 106" in done.stderr, done.stderr
    assert {"lapa", "wflw, net 106 as 98"} <= {row[0] for row in table(done.stdout)} and "layout 106" in done.stdout
    fails(
        cli(
            "--test --exp one --layout own",
            *places,
            script=driver(
                tmp_path,
                "foreign",
                """
from utils.task import evaluation
evaluation.comparison_of = lambda *given: None""",
            ),
        ),
        "test sets to mine",
    )
    done = cli("--test --exp one --layout lapa --test-data lapa", miniatures / "own", *places)
    assert "which a net of layout 106 cannot use" in done.error and not done.stdout  # before the first set is tested
    alone = open_net(run / "best.106.onnx", 1)
    assert alone.layout == learnt.alone(learnt.chosen("106"))
    index = list(learnt.chosen("106").index)
    assert np.allclose(alone.predict(images)["landmarks"], everything[:, index], atol=1e-5)
    done = cli(
        "--predict",
        ROOT / "assets/astronaut.jpg",
        "--exp one --layout own --detector none --out",
        tmp_path / "found.csv",
        *places[:4],
    )
    assert done.returncode == 0 and len(rows(tmp_path / "found.csv")[0]) == 8, done.stderr
    done = cli(
        "--show-data 2 --layout",
        miniatures / "all.yaml",
        "--train-data",
        *sets,
        *shares,
        *places,
        *SMALL,
        "--val 0.4",
    )
    assert done.returncode == 0 and (made_in(tmp_path / "data", "own") / "show/samples.jpg").is_file(), done.stderr
    done = cli("--test --exp one --layout 68", *places)
    assert done.error and "the net has not learnt the layout '68'; choose one of its own: 98 or wflw" in done.error
