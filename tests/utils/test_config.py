"""Keys, types, presets and layouts of args.yaml, and what the command line makes of them."""
import numpy as np
import pytest
import yaml
from conftest import DEFAULTS, LAYOUTS, ROOT, mean_face, settings

from nets import NetOptions, build_net, make_spec
from pipnet.errors import UserError
from pipnet.layout import Layout
from utils.config import KINDS, TABLES, check, comments, dump, parse, resolve
from utils.data.augment import Recipe
from utils.layouts import Layouts


def typed(*argv: str) -> dict:
    return parse(list(argv), lambda parser: parser.add_argument("--train", action="store_true"))[1]


# ---------------------------------------------------------------------------------------------------------------- keys
def test_every_key_has_a_type_a_comment_and_a_flag():
    values = yaml.safe_load((ROOT / "args.yaml").read_text())
    assert set(values) == {*KINDS, *TABLES}
    assert set(KINDS) <= set(comments()) and all(text and section for section, text in comments().values())
    for key, value in DEFAULTS.items():
        if key not in TABLES and value is not None and not isinstance(value, bool):
            flag = f"--{key.replace('_', '-')}"
            words = [str(item) for item in value] if isinstance(value, list) else [str(value)]
            assert typed(flag, *words) == {key: value}
    assert set(Recipe._fields) <= set(KINDS)


def test_what_is_typed_wins_over_the_preset_and_the_preset_over_the_file():
    args = settings("pipnet", **{"epochs": 3})
    assert (args.epochs, args.batch_size, args.ema_ramp, args.preset) == (3, 16, 500, "pipnet")


@pytest.mark.parametrize(("argv", "value"), [
    (("--learning-rate", "1e-4"), {"learning_rate": 1e-4}),
    (("--learning-rate", "1"), {"learning_rate": 1.0}),
    (("--val", "test"), {"val": "test"}),
    (("--val", "0.25"), {"val": 0.25}),
    (("--amp", "off"), {"amp": "off"}),
    (("--layout", "68"), {"layout": "68"}),
    (("--workers", "null"), {"workers": None}),
    (("--backbone", "irnet18"), {"net": "irnet18"}),
    (("--no-train-hidden",), {"train_hidden": False}),
    (("--flip-test",), {"flip_test": True}),
    (("--thresholds", "10", "8"), {"thresholds": [10.0, 8.0]}),
    (("--thresholds", "10,8"), {"thresholds": [10.0, 8.0]}),
    (("--train-data", "300w", "a folder/faces"), {"train_data": ["300w", "a folder/faces"]}),
    (("--selected-index", "45", "36"), {"selected_index": [45, 36]}),
    (("--milestones",), {"milestones": []}),
])
def test_typed_values(argv, value):
    assert typed(*argv) == value


@pytest.mark.parametrize(("key", "value", "message"), [
    ("epochs", "abc", "epochs must be a whole number, not 'abc'"), ("epochs", 2.5, "not 2.5"), ("epochs", True, "not True"),
    ("epochs", 0, "at least 1"), ("epochs", None, "not None"), ("epochs", [3], r"not \[3\]"),
    ("learning_rate", "fast", "a number"), ("learning_rate", float("nan"), "finite"), ("learning_rate", float("inf"), "finite"),
    ("clip", -1, "at least 0"), ("compile", "yes", "true or false"),
    ("net", None, "text"), ("amp", "bf17", "did you mean 'bf16'"),
    ("thresholds", ["ten"], "a number, not 'ten'"), ("thresholds", [10, 0], "above 0"), ("milestones", 30.5j, "a number"),
    ("selected_index", [1.5], "a whole number"), ("val", 1, "between 0 and 1"), ("val", "tset", "'test'"),
    ("stride", 31, "4, 8, 16"),
    ("train_data", [None], "text"),
])
def test_wrong_values_name_key_and_value(key, value, message):
    with pytest.raises(UserError, match=message) as caught:
        check(key, value)
    assert key in str(caught.value)


def test_unknown_keys_name_the_nearest():
    with pytest.raises(UserError, match="unknown key 'epoch' in preset mine; did you mean 'epochs'"):
        values = DEFAULTS
        resolve({}, {**values, "presets": {"mine": {"epoch": 3}}}, "mine")
    with pytest.raises(UserError, match="no preset 'pipnett'.*did you mean 'pipnet'"):
        settings("pipnett")
    with pytest.raises(UserError, match=r"preset mine in args.yaml must be a table .*, not \[3\]"):
        resolve({}, {**DEFAULTS, "presets": {"mine": [3]}}, "mine")
    with pytest.raises(UserError, match="unknown flag --epoch; did you mean '--epochs'"):
        typed("--epoch", "3")


def test_written_args_give_the_same_args_again():
    args = settings("irnet", **{"train_data": ["a", "b"], "val": "test"})
    again = resolve({}, yaml.safe_load(dump(args)), None)
    assert again == args


@pytest.mark.parametrize("preset", DEFAULTS.presets)
def test_presets_resolve_and_build(preset):
    args = settings(preset)
    Recipe.of(args)
    spec = make_spec(NetOptions(args.net, args.head, args.stride, args.input_size, args.act, args.num_nb), mean_face())
    net = build_net(spec)
    wanted = {"irnet": "irnet18", "drowsiness": "irnet18", "coordinate": "mobilenetv2", "slim": "slim", "dpr": "dpr"}
    assert net.head.num_lms == 68 and net.spec["net"] == wanted.get(preset, "resnet18")
    assert net.spec["head"] == ("coordinate" if preset in ("coordinate", "slim", "dpr") else "pip")
    if preset == "drowsiness":
        assert (args.layout, args.num_nb, args.reg, args.cls) == ("12", 5, 2.0, 12.0)


# ------------------------------------------------------------------------------------------------------------- layouts
@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts_are_whole(name):
    layout = LAYOUTS.load(name)
    assert layout.count == int(name) == len(layout.flip_index) == len(layout.selected)
    assert [layout.flip_index[f] for f in layout.flip_index] == list(range(layout.count))
    assert {i for part in layout.parts.values() for i in part} == set(range(layout.count)), "a landmark in no part"
    assert all(0 <= i < layout.count for edge in layout.edges() for i in edge)
    if layout.interocular:
        assert layout.flip_index[layout.interocular[0]] == layout.interocular[1]
    if layout.pupils:
        assert {layout.flip_index[i] for i in layout.pupils[0]} == set(layout.pupils[1])
    assert Layout.from_dict(yaml.safe_load(yaml.safe_dump(layout.to_dict()))) == layout


def test_the_flip_index_mirrors_a_face():
    face, flip = mean_face(), list(LAYOUTS.load("68").flip_index)
    assert np.abs((1 - face[:, 0]) - face[flip, 0]).max() < 0.03 and np.abs(face[:, 1] - face[flip, 1]).max() < 0.03


def test_a_subset_keeps_its_norm_and_parts():
    eyes = LAYOUTS.load("12")
    assert (eyes.stored, eyes.selected) == ("68", tuple(range(36, 48)))
    assert eyes.interocular == (0, 9) and eyes.pupils == (tuple(range(6)), tuple(range(6, 12)))
    assert eyes.groups == {"eye_left": tuple(range(6)), "eye_right": tuple(range(6, 12))}
    assert eyes.flip_index == (9, 8, 7, 6, 11, 10, 3, 2, 1, 0, 5, 4)
    mouth = LAYOUTS.load("68", [54, 48])  # landmarks 48 and 54
    corners = Layouts({**LAYOUTS.rows, "corners": {"of": "12", "selected_index": [9, 0]}}).load("corners")  # a subset of a subset
    assert (corners.stored, corners.selected, corners.interocular) == ("68", (36, 45), (0, 1))
    assert (mouth.name, mouth.count, mouth.selected, mouth.flip_index, mouth.interocular) == ("68:2", 2, (48, 54), (1, 0), None)


@pytest.mark.parametrize(("row", "message"), [
    ({"count": 3, "flip_index": [1, 0], "interocular": None, "pupils": None, "parts": {}, "closed": []}, "its own inverse"),
    ({"count": 3, "flip_index": [1, 2, 0], "interocular": None, "pupils": None, "parts": {}, "closed": []}, "its own inverse"),
    ({"count": 2, "flip_index": [1, 0], "interocular": [0, 2], "pupils": None, "parts": {}, "closed": []}, r"outside 0\.\.1"),
    ({"count": 2, "flip_index": 1}, "malformed"),
    ({"count": 2}, "malformed.*flip_index"),
    ({"count": 2, "flip_index": [1, 0], "closd": []}, "unknown key 'closd' in layout 'mine'; did you mean 'closed'"),
    ({"count": 2, "flip_index": [1, 0], "pupils": [[0], [2]]}, r"outside 0\.\.1"),
    ({"count": 2, "flip_index": [1, 0], "same_as": {"68": {0: 45, 2: 36}}}, r"outside 0\.\.1"),
    ({"count": 2, "flip_index": [1, 0], "same_as": {"68": {0: 45, 1: 37}}}, "partner 1 must be 36 there, not 37; are left"),
    ({"count": 2, "flip_index": [0, 1], "same_as": {"68": {0: 30, 1: 30}}}, "two landmarks are the same one of layout 68"),
    ({"count": 2, "flip_index": [1, 0], "same_as": {"68": {0: 68}}}, r"same_as 68 names landmark 68, but there are 0\.\.67"),
    ({"count": 2, "flip_index": [1, 0], "same_as": {"67": {0: 36}}}, "no layout '67'"),
    ({"count": 2, "flip_index": [1, 0], "same_as": [36, 45]}, "malformed"),
    ([1, 0], "must be a table"),
    ({"of": "68", "selected_index": [1, 2]}, "mirror partners"),
    ({"of": "67", "selected_index": [1, 2]}, "no layout '67'"),
    ({"of": "mine", "selected_index": [0]}, "no layout 'mine'"),
    ({"of": "68", "selected_index": [54, 48], "interocular": [0, 1]}, "subset .*interocular is derived"),
    ({"count": 2, "flip_index": [1, 0], "interocular": [0]}, "interocular must be two landmarks"),
    ({"count": 2, "flip_index": [1, 0], "interocular": [1, 1]}, "interocular must be two landmarks"),
    ({"count": 2, "flip_index": [1, 0], "parts": {"eyes": [0, 1]}, "closed": ["eye"]}, "closed names 'eye'.*'eyes'"),
])
def test_bad_layouts_are_named(row, message):
    with pytest.raises(UserError, match=message):
        Layouts({**LAYOUTS.rows, "mine": row}).load("mine")
