"""Keys, types, presets and layouts of args.yaml, and what the command line makes of them."""

import re

import numpy as np
import pytest
import yaml
from conftest import DEFAULTS, LAYOUTS, ROOT, mean_face, refuses, settings

from extras.datasets import DATASETS
from extras.detector.settings import DetectSettings
from extras.systems import steps
from pipnet.detector import DETECTORS
from pipnet.errors import UserError
from pipnet.layout import Layout
from utils.data import changes
from utils.evaluate.metric import NORMS
from utils.settings.config import ANCHORS, TABLES, Settings, load_protocol, preset_values, read_defaults
from utils.settings.layouts import Layouts
from utils.settings.sections import KEYS, ONLY_STEPS, SECTIONS, STEPS
from utils.settings.yaml_files import read_yaml
from utils.train.make_net import make_net


# ---------------------------------------------------------------------------------------------------------------- keys
def test_args_yaml_holds_each_key_in_its_section():
    found = yaml.safe_load((ROOT / "args.yaml").read_text())
    assert list(found) == [ANCHORS, *SECTIONS, *TABLES]
    assert {name: list(found[name]) for name in SECTIONS} == {
        name: list(section.keys) for name, section in SECTIONS.items()
    }
    assert sum(len(section.keys) for section in SECTIONS.values()) == len(KEYS) == len(DEFAULTS.values), (
        "a key in two sections"
    )
    assert {key: value for name in SECTIONS for key, value in found[name].items()} == DEFAULTS.values


@pytest.mark.parametrize("pasted", ("flip_index: [1, 0]\ntrain:\n", "train:\n  flip_index: [1, 0]\n"))
def test_a_layouts_key_elsewhere_in_args_yaml_is_told_where_it_belongs(tmp_path, pasted):
    pasted = re.sub("(?m)^train:.*\\n", pasted, (ROOT / "args.yaml").read_text())
    (tmp_path / "args.yaml").write_text(pasted)
    with pytest.raises(UserError, match="'flip_index'.*layouts") as raised:
        read_defaults(tmp_path / "args.yaml")
    assert "flip_test" not in str(raised.value)


def test_text_in_files_stays_text(tmp_path):
    values = [
        "010",
        "08",
        "1e5",
        "1:30",
        "0x1",
        "-.5",
        "1_0",
        ".5",
        "1.",
        "+1",
        "0",
        "12",
        ".inf",
        "-.inf",
        ".nan",
        "1.5e-3",
    ]
    (tmp_path / "file.yaml").write_text(yaml.safe_dump({"values": values, "numbers": [0, -7, 1e-4, 2.5, 10**20]}))
    assert read_yaml(tmp_path / "file.yaml") == {"values": values, "numbers": [0, -7, 1e-4, 2.5, 10**20]}


def test_the_choices_of_a_key_are_the_rows_of_its_table():
    """sections.py writes them out, since it may not import code that reads the keys."""
    assert list(steps.STEPS) == list(STEPS)
    assert {*ONLY_STEPS} < {key for keys in STEPS.values() for key in keys} < SECTIONS["augment"].keys.keys()
    assert KEYS["norm"].choices == NORMS and KEYS["detector"].choices == (*DETECTORS, "none")
    assert KEYS["interpolation"].choices == (*changes.INTERPOLATION, *changes.RANDOM)


def test_the_forks_args_yaml_is_told_where_its_keys_belong(tmp_path):
    """As the whole file, and as lines at the top of ours."""
    for text in ("reg: 1.00\n", "reg: 1.00\n" + (ROOT / "args.yaml").read_text()):
        (tmp_path / "args.yaml").write_text(text)
        refuses("'reg' in args.yaml; it belongs to section loss", read_defaults, tmp_path / "args.yaml")


def test_settings_hold_each_key_in_its_section():
    found = settings(epochs=3, pasted=4)
    written = yaml.safe_load(found.dump())
    assert {name: list(written[name]) for name in SECTIONS} == {name: list(SECTIONS[name].keys) for name in SECTIONS}
    assert (found.train.epochs, found.room(DetectSettings).pasted) == (3, 4) and found.flat().keys() == KEYS.keys()
    with pytest.raises(AttributeError):
        found.train.epochs = 4


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("train:  ", "trian:  ", "unknown section 'trian' in args.yaml; did you mean 'train'"),
        ("  epochs:", "  epohcs:", "unknown key 'epohcs' in section train of args.yaml; did you mean 'epochs'"),
        ("  clip:", "  flips: 1\n  clip:", "unknown key 'flips' in section train of args.yaml; did you mean 'flip'"),
        (
            "  epochs:",
            "  flip: 0.5\n  epochs:",
            "unknown key 'flip' in section train of args.yaml; it belongs to section augment of args.yaml",
        ),
        ("  clip:", "# clip:", "section train of args.yaml lacks the key 'clip'; restore its line"),
        ("  clip: 0.0", "  clip: -1", "clip must be a finite number from 0 to 1e.06, not -1"),
        ("  weak: {flip: 0.0,", "  week: {flip: 0.0,", "views in args.yaml must hold the tables weak and strong"),
        (
            "  weak: {flip: 0.0,",
            "  weak: {flop: 0.0,",
            "unknown key 'flop' in view weak of args.yaml; did you mean 'flip'?",
        ),
        ("  weak: {flip: 0.0,", "  weak: {flip: 2.0,", "flip must be a finite number from 0 to 1, not 2.0"),
        ("  strong: {rotation: 10.0,", "  strong: {steps: [],", "steps in view strong of args.yaml has no least value"),
    ],
)
def test_a_slip_in_a_file_of_settings_is_one_line(tmp_path, old, new, message):
    text = (ROOT / "args.yaml").read_text()
    assert text.count(f"\n{old}") == 1
    (tmp_path / "args.yaml").write_text(text.replace(f"\n{old}", f"\n{new}"))
    with pytest.raises(UserError, match=message) as caught:
        read_defaults(tmp_path / "args.yaml")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("name", "value"), [("train", None), ("semi", [1]), ("presets", "text"), ("views", None)])
def test_a_section_or_table_must_be_a_table(tmp_path, name, value):
    found = yaml.safe_load((ROOT / "args.yaml").read_text())
    (tmp_path / "args.yaml").write_text(yaml.safe_dump({**found, name: value}))
    refuses(f"^{name} in args.yaml", read_defaults, tmp_path / "args.yaml")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("epochs", "abc", "epochs must be a whole number from 0 to 1000000, not 'abc'"),
        ("epochs", 2.5, "not 2.5"),
        ("batch_size", 0, "from 1"),
        ("scale", 1, "below 1"),
        ("epochs", True, "not True"),
        ("epochs", -1, "from 0"),
        ("epochs", None, "not None"),
        ("epochs", [3], r"not \[3\]"),
        ("learning_rate", "fast", "a finite number"),
        ("learning_rate", float("nan"), "finite"),
        ("learning_rate", float("inf"), "finite"),
        ("clip", -1, "from 0"),
        ("compile", "yes", "true or false"),
        ("net", None, "text"),
        ("amp", "bf17", "did you mean 'bf16'"),
        ("thresholds", ["ten"], "a finite number.*'ten'"),
        ("thresholds", [10, 0], "above 0"),
        ("milestones", 30.5j, "a finite number"),
        ("thresholds", [], "one or several numbers above 0 %"),
        ("milestones", [3.0, 1.0], "numbers in rising order"),
        ("selected_index", [1.5], "a whole number"),
        ("val", 1, "between 0 and 1"),
        ("val", "tset", "'test'"),
        ("stride", 31, "4, 8, 16"),
        ("train_data", [None], "text"),
        ("target_size", 10**20, "from 32 to 8192"),
        ("seed", 10**20, "from 0"),
        ("epochs", 10**20, "to 1000000"),
        ("warmup", 1e308, "to 1e.06"),
        ("milestones", [3.0, -1e308], "from -1e.06"),
        ("workers", 10**6, "0 to 1024"),
    ],
)
def test_wrong_values_name_key_and_value(key, value, message):
    with pytest.raises(UserError, match=message) as caught:
        KEYS[key].check(value)
    assert key in str(caught.value)


def test_unknown_keys_name_the_nearest():
    with pytest.raises(UserError, match="'epoch'.*mine.*'epochs'"):
        preset_values("mine", {}, DEFAULTS._replace(presets={"mine": {"epoch": 3}}))
    refuses("'pipnett'.*'pipnet'", settings, "pipnett")
    with pytest.raises(UserError, match=r"mine.*\[3\]"):
        preset_values("mine", {}, DEFAULTS._replace(presets={"mine": [3]}))


def test_written_settings_give_the_same_settings_again():
    first = settings("irnet", train_data=["a", "b"], val="test")
    written = yaml.safe_load(first.dump())
    assert Settings.of(DEFAULTS, {key: value for name in SECTIONS for key, value in written[name].items()}) == first
    assert Settings.of(DEFAULTS, first.flat()) == first
    assert (written["protocols"], written["layouts"]) == (DEFAULTS.protocols, LAYOUTS.rows)


@pytest.mark.parametrize(("anchor", "count"), [("flip_index_eyes_anchor", 12), ("flip_index_anchor", 68)])
def test_the_flip_indices_of_the_fork_stand_before_their_use(tmp_path, anchor, count):
    text, line = (ROOT / "args.yaml").read_text(), "  selected_index: null "
    assert text.count(line) == 1
    (tmp_path / "args.yaml").write_text(text.replace(line, f"  selected_index: *{anchor} "))
    defaults = read_defaults(tmp_path / "args.yaml")
    layout = LAYOUTS.load("68", defaults.values["selected_index"])
    assert layout.selected == (tuple(range(36, 48)) if count == 12 else tuple(range(68)))
    assert defaults._replace(values=DEFAULTS.values) == DEFAULTS


@pytest.mark.parametrize("preset", ["pipnet", "irnet", "drowsiness"])
def test_the_protocol_of_a_preset_may_depend_on_the_dataset(preset):
    def protocol(*datasets, **given):
        return preset_values(preset, given, DEFAULTS, datasets)["protocol"]

    for dataset, wanted in (("wflw", "wflw"), ("cofw", "box"), ("aflw", "box"), ("300w", "pipnet"), (None, "pipnet")):
        assert protocol(dataset) == wanted and protocol(dataset, protocol="square") == "square", dataset
    assert protocol() == "pipnet" and protocol("cofw", "aflw") == "box" and protocol("wflw", protocol=None) is None
    with pytest.raises(
        UserError,
        match=f"{preset}.*300w.*--protocol",
    ):
        protocol("300w", "wflw")
    assert protocol("300w", "wflw", protocol="pipnet") == "pipnet"


def test_a_preset_with_protocols_has_a_default():
    with pytest.raises(UserError, match="mine.*'default'"):
        preset_values("mine", {}, DEFAULTS._replace(presets={"mine": {"protocol": {"wflw": "wflw"}}}))
    for row in DEFAULTS.presets.values():
        if isinstance(rows := row.get("protocol"), dict):
            assert rows.keys() <= {"default", *DATASETS} and set(rows.values()) <= DEFAULTS.protocols.keys()


@pytest.mark.parametrize(
    "wrong",
    [{"square": "yes"}, {"border": "grey"}, {"rounding": "up"}, {"scale_x": 0.0}, {"shift_y": float("nan")}, {"a": 1}],
)
def test_a_wrong_protocol_is_named(wrong):
    rows = {"mine": {**DEFAULTS.protocols["square"], **wrong}}
    refuses(next(iter(wrong)), load_protocol, rows, "mine")
    refuses("scale_x is missing", load_protocol, {"mine": {}}, "mine")


def test_flags_win_over_the_preset_or_the_trained_run_and_these_over_the_file():
    train = settings("pipnet", epochs=3).train
    assert (train.epochs, train.batch_size, train.ema_ramp, train.preset) == (3, 16, 500, "pipnet")
    trained = {**settings("pipnet").flat(), "epochs": 7}
    train = Settings.of(DEFAULTS, trained, {"batch_size": 4}).train
    assert (train.epochs, train.batch_size, train.ema_ramp, train.preset) == (7, 4, 500, "pipnet")


def test_the_sections_are_neutral_and_the_recipe_is_a_preset():
    off = "flip rotation scale translation brightness contrast saturation hue colour_prob grayscale infrared blur noise occlusion"
    assert not any(getattr(settings().augment, key) for key in off.split()) and not settings().augment.steps
    assert not any(getattr(settings().train, key) for key in ("warmup", "clip", "ema", "weight_decay"))
    ours, plain = settings("default"), settings("plain")
    assert (
        ours.net.refine
        and ours.train.ema == 0.999
        and ours.augment.occlusion == 0.5
        and plain.augment == settings().augment
    )


@pytest.mark.parametrize("preset", DEFAULTS.presets)
def test_presets_resolve_and_build(preset):
    found = settings(preset)
    net = make_net(found.net, found.loss, LAYOUTS.load("68"), mean_face())
    wanted = {"irnet": "irnet18", "drowsiness": "irnet18", "coordinate": "mobilenetv2", "slim": "slim", "dpr": "dpr"}
    assert net.head.num_lms == 68 and net.spec["net"] == wanted.get(preset, "resnet18")
    assert net.spec["head"] == ("coordinate" if preset in ("coordinate", "slim", "dpr") else "pip")
    if preset == "drowsiness":
        assert (found.data.layout, found.net.num_nb, found.loss.reg, found.loss.cls) == ("12", 5, 2.0, 12.0)


@pytest.mark.parametrize(
    ("net", "excite", "published", "classifier"),
    [  # in millions; classifier: features + 1, times 1000
        ("mobilenetv2", False, 3.74, 1281),
        ("mobilenetv2", True, 4.15, 1281),
        ("resnet18", False, 11.76, 513),
        ("res2net50", False, 26.00, 2049),
        ("res2net50", True, 27.05, 2049),
    ],
)
def test_the_nets_of_preset_coordinate_have_the_published_sizes(net, excite, published, classifier):
    """Beside the ImageNet classifiers, which are counted there but not used."""
    found = settings("coordinate", net=net, excite=excite)
    count = sum(p.numel() for p in make_net(found.net, found.loss, LAYOUTS.load("68"), mean_face()).parameters())
    assert (count + 1000 * classifier) / 1e6 == pytest.approx(published, abs=0.0065)
    assert found.net.pool == ("depthwise" if net == "mobilenetv2" else "average")
    assert settings("coordinate", net=net, pool="depthwise").net.pool == "depthwise"


# ------------------------------------------------------------------------------------------------------------- layouts
@pytest.mark.parametrize("name", [name for name in LAYOUTS.rows if not LAYOUTS.is_union(name)])
def test_layouts_fit_themselves(name):
    layout = LAYOUTS.load(name)
    assert layout.count == int(name) == len(layout.flip_index) == len(layout.selected)
    assert [layout.flip_index[f] for f in layout.flip_index] == list(range(layout.count))
    assert {i for ids in layout.groups.values() for i in ids} == set(range(layout.count)), "a landmark in no group"
    assert all(0 <= i < layout.count for edge in layout.edges() for i in edge)
    if layout.interocular:
        assert layout.flip_index[layout.interocular[0]] == layout.interocular[1]
    if layout.pupils:
        assert {layout.flip_index[i] for i in layout.pupils[0]} == set(layout.pupils[1])
    assert Layout.from_dict(yaml.safe_load(yaml.safe_dump(layout.to_dict()))) == layout


def test_the_flip_index_mirrors_a_face():
    face, flip = mean_face(), list(LAYOUTS.load("68").flip_index)
    assert np.abs((1 - face[:, 0]) - face[flip, 0]).max() < 0.03 and np.abs(face[:, 1] - face[flip, 1]).max() < 0.03


def test_a_subset_keeps_its_norm_and_groups():
    eyes = LAYOUTS.load("12")
    assert (eyes.stored, eyes.selected) == ("68", tuple(range(36, 48)))
    assert eyes.interocular == (0, 9) and eyes.pupils == (tuple(range(6)), tuple(range(6, 12)))
    assert eyes.groups == {"eye_left": tuple(range(6)), "eye_right": tuple(range(6, 12))}
    assert eyes.flip_index == (9, 8, 7, 6, 11, 10, 3, 2, 1, 0, 5, 4)
    mouth = LAYOUTS.load("68", [54, 48])  # landmarks 48 and 54
    # a subset of a subset
    corners = Layouts({**LAYOUTS.rows, "corners": {"of": "12", "selected_index": [9, 0]}}).load("corners")
    assert (corners.stored, corners.selected, corners.interocular) == ("68", (36, 45), (0, 1))
    assert (mouth.name, mouth.count, mouth.selected, mouth.flip_index, mouth.interocular) == (
        "68:2",
        2,
        (48, 54),
        (1, 0),
        None,
    )


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            {"count": 3, "flip_index": [1, 0]},
            "its own inverse",
        ),
        (
            {"count": 3, "flip_index": [1, 2, 0]},
            "its own inverse",
        ),
        (
            {"count": 2, "flip_index": [1, 0], "interocular": [0, 2]},
            r"outside 0\.\.1",
        ),
        ({"count": 2, "flip_index": 1}, "malformed"),
        ({"count": 2}, "flip_index"),
        ({"count": 2.5, "flip_index": [1, 0]}, "malformed.*2.5 is neither an index nor a range"),
        ({"count": 2, "flip_index": [1, 0], "interocular": [0.9, 1]}, "malformed.*0.9 is neither an index"),
        (
            {"count": 2, "flip_index": [1, 0], "groups": {"eyes": ["1-0"]}},
            "malformed.*1-0 is neither an index nor a range",
        ),
        ({"count": 2, "flip_index": [1, 0], "groups": {"eyes": []}}, "malformed.*the group eyes has no landmark"),
        ({"count": float("inf"), "flip_index": [1, 0]}, "malformed"),
        ({"count": 300_000_000, "flip_index": ["0-299999999"]}, "malformed.*count must be 1 to 10000"),
        ({"count": 2, "flip_index": ["0-299999999"]}, "malformed.*beyond the 10000 landmarks"),
        (
            {"count": 2, "flip_index": [1, 0], "closd": []},
            "unknown key 'closd' in layout 'mine'; did you mean 'closed'",
        ),
        ({"count": 2, "flip_index": [1, 0], "pupils": [[0], [2]]}, r"outside 0\.\.1"),
        ({"count": 2, "flip_index": [1, 0], "same_as": {"68": {0: 45, 2: 36}}}, r"outside 0\.\.1"),
        (
            {"count": 2, "flip_index": [1, 0], "same_as": {"68": {0: 45, 1: 37}}},
            "partner 1 must be 36 there, not 37; are left",
        ),
        (
            {"count": 2, "flip_index": [0, 1], "same_as": {"68": {0: 30, 1: 30}}},
            "two landmarks are the same one of layout 68",
        ),
        (
            {"count": 2, "flip_index": [1, 0], "same_as": {"68": {0: 68}}},
            r"same_as 68 names landmark 68, but there are 0\.\.67",
        ),
        ({"count": 2, "flip_index": [1, 0], "same_as": {"67": {0: 36}}}, "no layout '67'"),
        ({"count": 2, "flip_index": [1, 0], "same_as": [36, 45]}, "malformed"),
        ([1, 0], "must be a table"),
        ({"of": "68", "selected_index": [1, 2]}, "mirror partners"),
        ({"of": "67", "selected_index": [1, 2]}, "no layout '67'"),
        ({"of": "mine", "selected_index": [0]}, "no layout 'mine'"),
        ({"of": "68", "selected_index": [54, 48], "interocular": [0, 1]}, "subset .*interocular is derived"),
        ({"count": 2, "flip_index": [1, 0], "interocular": [0]}, "interocular must be two landmarks"),
        ({"count": 2, "flip_index": [1, 0], "interocular": [1, 1]}, "interocular must be two landmarks"),
        (
            {"count": 2, "flip_index": [1, 0], "groups": {"eyes": [0, 1]}, "closed": ["eye"]},
            "closed names 'eye'.*'eyes'",
        ),
    ],
)
def test_bad_layouts_are_named(row, message):
    with pytest.raises(UserError, match=message):
        Layouts({**LAYOUTS.rows, "mine": row}).load("mine")


@pytest.mark.parametrize(
    "text", ("[" * 5000, "- " * 200_000, "a: 2001-13-45", "a: !!timestamp x", "a: !!int x", "a: !!python/object:x.y {}")
)
def test_what_yaml_cannot_read_is_one_line(tmp_path, text):
    (tmp_path / "odd.yaml").write_text(text)
    with pytest.raises(UserError, match="odd.yaml") as error:
        read_yaml(tmp_path / "odd.yaml")
    assert "\n" not in str(error.value)


def test_a_key_that_is_there_twice_is_refused(tmp_path):
    (tmp_path / "twice.yaml").write_text("mine:\n  count: 2\n  same_as: {'68': {0: 36, 0: 45}}\n")
    refuses("twice.yaml.*'0'.*line 3", read_yaml, tmp_path / "twice.yaml")


def test_the_teacher_s_view_is_free_of_every_change_but_the_crop():
    """A new key of the augmentation belongs in this row, unless another one of the row switches it off."""
    of_colour, of_steps = {"brightness", "contrast", "saturation", "hue"}, {*ONLY_STEPS}
    amounts = {"blur_sigma", "noise_sigma", "noise_size", "occlusion_size", "occlusion_shapes"}
    weak = DEFAULTS.views["weak"]
    assert SECTIONS["augment"].keys.keys() - weak.keys() == {*of_colour, *of_steps, *amounts, "fill", "interpolation"}


MERGES = "a0: &a0 {x0: 1, y0: 1}\n" + "".join(
    f"a{i}: &a{i}\n  <<: [*a{i - 1}, *a{i - 1}, *a{i - 1}]\n  x{i}: 1\n" for i in range(1, 30)
)


@pytest.mark.parametrize(
    "text",
    [MERGES, MERGES.replace("<<:", "z:"), "a: &a [*a, *a]", "a: [" * 5000, "a: '" + "b" * (1 << 21) + "'"],
    ids=("merges", "aliases", "itself", "deep", "long"),
)
def test_a_yaml_file_that_grows_is_refused_before_its_values_are_made(tmp_path, text):
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(UserError, match="mine.yaml") as caught:
        LAYOUTS.with_file(str(tmp_path / "mine.yaml"))
    assert len(str(caught.value)) < 1000
