"""What contradicts itself in a command, and which flags a run does not read. Nothing here starts a run."""

import re
from pathlib import Path

import pytest
from conftest import DEFAULTS, settings, typed

from utils.settings.config import Settings, preset_values
from utils.settings.faults import Trained, faults, reader, unread
from utils.settings.heads import HEADS
from utils.settings.sections import KEYS

NOT_WHEN_RESUMED = set(
    """
    task preset dataset data_dir train_data layout selected_index protocol target_size margin val synthetic_train
    synthetic_test net head stride pool excite num_lms num_nb input_size act meanface error cls_error score_width sigma weights
    seed identity label_shift folds norm reinit local_parts refine hard_landmarks openings balance first_pixel frame_step
    partial_events teacher face_sides pasted touching parts mosaic crops scales labels least_box test_split
    labelled_fraction unlabelled backgrounds least_face_score least_sharpness semi freeze same_as""".split()
)
IN_TESTS = set(
    """
    test_data data_dir data_root run_root allow_partial layouts
    cache norm thresholds flip_test threads workers deterministic graph
    profile box detector detector_weights first_pixel frame_step scales partial_events""".split()
)


def chosen(flags: str):
    """A command, and the settings of its run."""
    command = typed(flags)
    row = preset_values(command.value("preset"), command.given, DEFAULTS)
    return command, Settings.of(DEFAULTS, row, command.given)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--epochs 3", "nothing to do"),
        ("--test --resume", "--resume continues a --train or an --audit"),
        ("--predict a --export onnx --out b", "--out says where"),
        ("--export onnx web --out b", "--out says where"),
        ("--list-nets --train", "--list-nets only lists"),
        ("--predict a --audit", "--predict uses one trained net"),
        ("--audit --test", "--audit trains nets of its own"),
        ("--audit --resume", "needs the name of the audit"),
        ("--test --sweep reg=1,2", "--sweep goes with --train"),
        ("--train --sweep reg=1,2 --export onnx", "--sweep goes with --train"),
        ("--show-data 0", "at least 1, not 0"),
    ],
)
def test_modes_that_do_not_go_together(flags, message):
    assert next(faults(typed(flags))).find(message) >= 0


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--train --steps sides", "the step sides needs --sides"),
        ("--train --val none --early-stop 3", "early_stop needs validation faces"),
        ("--train --schedule steps --milestones 1 2 --factors 0.5", "factors.*2 milestones"),
        ("--train --teacher a --reinit", "two nets cannot be compared"),
        ("--train --weights a.onnx", "a.onnx is an exported file"),
        ("--train --openings 1 --no-refine", "openings.*--refine"),
        ("--train --visible 1 --no-refine", "visible.*--refine"),
        ("--train --layout union --selected-index 1 0", "--selected-index is of one layout"),
        ("--compare 1", "--compare needs two runs: --compare 1 RUN"),
        ("--train --semi gssl", "needs faces to learn from"),
        ("--train --semi gssl --labelled-fraction 0.5 --teacher a", "leave out --teacher"),
        ("--train --semi gssl --labelled-fraction 0.5 --head heatmap", "give --semi self-training"),
        ("--train --semi gssl --labelled-fraction 0.5 --input-size 64", "4 x 4 cells.*--input-size"),
        ("--train --semi mean-teacher --labelled-fraction 0.5 --ema 0.9 --reinit", "make a crop of their own"),
        ("--train --semi mean-teacher --labelled-fraction 0.5", "average of the weights.*--ema above 0"),
        ("--audit --labelled-fraction 0.5", "--labelled-fraction hides labels"),
        ("--audit --layout union", "labels of one layout"),
        ("--audit --early-stop 2", "--early-stop would pick"),
        ("--audit --semi gssl --unlabelled a", "--semi learns from further faces"),
        ("--audit --teacher a", "a --teacher may have seen"),
        ("--train --task detect --weights imagenet", "no ImageNet weights of a detector"),
        ("--audit --task detect", "--audit judges landmarks"),
        ("--predict a --task detect", "--predict is for landmark nets"),
        ("--test --task detect --compare a", "--compare is for landmark nets"),
    ],
)
def test_settings_that_contradict_each_other(flags, message):
    (fault,) = faults(*chosen(flags))
    assert re.search(message, fault), fault


@pytest.mark.parametrize("flags", ("--train", "--train --test --export int8", "--audit --exp a --resume", "--prepare"))
def test_commands_without_a_fault(flags):
    assert not [*faults(*chosen(flags))] and not unread(*chosen(flags))


# ----------------------------------------------------------------------------------------------------------- trained runs
def of_trained(flags: str, published: bool = False, finds: str | None = None, **values) -> list[str]:
    """The faults of a command on a trained run with these values."""
    command, old = typed(flags), {**settings().flat(), **values}
    run = Trained(old, Path("best.pt"), False, published, finds)
    return [*faults(command, Settings.of(DEFAULTS, old, command.given), run)]


@pytest.mark.parametrize(
    ("mode", "changes"), [("--train --resume", KEYS.keys() - NOT_WHEN_RESUMED), ("--test", IN_TESTS)]
)
def test_what_a_resumed_run_and_a_test_may_change(mode, changes):
    assert NOT_WHEN_RESUMED | IN_TESTS <= KEYS.keys()
    for key in KEYS:
        old = Trained({**settings().flat(), key: "old"}, Path("best.pt"))
        found = [*faults(typed(mode).with_values({key: "new"}), settings(), old)]
        fixed = f"{KEYS[key].flag} belongs to a new training, this run has old"
        assert any(fault.startswith(fixed) for fault in found) == (key not in changes), key
        assert not any(fixed in fault for fault in faults(typed(mode).with_values({key: "old"}), settings(), old))


@pytest.mark.parametrize(
    ("flags", "values", "message"),
    [
        ("--train --resume --test-data b", {"val": "test", "test_data": ["a"]}, "--test-data picks the best epoch"),
        ("--train --resume", {"log": ["csv", "mine:Log"]}, "type it again: --log csv mine:Log"),
        ("--train --resume --norm box", {}, "--norm belongs"),
        ("--train --resume --export int8 --label-shift 2", {}, "--label-shift belongs"),
        ("--test --first-pixel 1", {}, "--first-pixel would change the labels"),
        ("--export pipeline --detector yunet", {}, "take a detector faceboxes, not yunet"),
        ("--export web --detector yunet", {}, "take a detector faceboxes, not yunet"),
        ("--test --box detector", {"finds": "faces.onnx"}, "name it: --detector-weights FILE"),
        ("--test --layout 68", {"layout": "98"}, "--layout belongs.*98.*converts"),
    ],
)
def test_what_a_trained_run_cannot_be_given(flags, values, message):
    (fault,) = of_trained(flags, **values)
    assert re.search(message, fault), fault


def test_what_a_trained_run_can_be_given():
    assert not of_trained("--audit --resume --exp a --norm box")  # an audit picks no epoch
    assert not of_trained("--test --protocol pipnet", published=True)
    assert not of_trained("--export int8 --train-data a --label-shift 0.5")
    assert not of_trained("--test --first-pixel 1 --test-data a")
    assert not of_trained("--train --resume --log csv mine:Log", log=["csv", "mine:Log"])
    assert not of_trained("--test --box detector --detector-weights a.onnx", finds="b.onnx")


# ------------------------------------------------------------------------------------------------------ flags without use
@pytest.mark.parametrize(
    ("flags", "needs"),
    [
        ("--train --head coordinate --num-nb 5", "--head pip"),
        ("--train --head coordinate --cls 5", "--head pip or heatmap or simcc"),
        ("--train --head heatmap --reg 2", "--head pip or coordinate or parts"),
        ("--train --alignment 2", "--reinit or --local-parts"),
        ("--train --milestones 3", "--schedule steps"),
        ("--train --schedule steps --final-learning-rate 0.1", "--schedule cosine or epochs"),
        ("--train --ema-ramp 9", "--ema"),
        ("--train --pasted 3", "--task detect"),
        ("--train --task detect --net resnet50", "--task landmarks"),
        ("--train --preset detect --task detect --flip-test", "--task landmarks"),
        ("--train --teacher-weight 2", "--teacher"),
        ("--train --shear 0.2", "other --steps"),
        ("--train --steps flip --shear 0.2", "other --steps"),
        ("--train --misplaced 0.2", "--face"),
        ("--train --unlabelled a", "--semi"),
        ("--train --semi gssl --labelled-fraction 0.5 --shares a=1", "no --semi, or --semi mean-teacher"),
        ("--train --semi gssl --labelled-fraction 0.5 --unlabelled-share 0.1", "--semi mean-teacher"),
        ("--train --folds 3", "--audit"),
        ("--test --overwrite", "--train or --audit or --predict or --prepare or --export"),
        ("--test --out a", "--predict or --export"),
        ("--test --predict-format csv", "--predict"),
        ("--test --int8", "--predict"),
        ("--test --detector yunet", "--box detector"),
        ("--predict a --norm box", "--test"),
        ("--predict a --detector none --threshold 0.3", "a --detector"),
        ("--audit --thresholds 3", "--test"),
        ("--list-nets resnet18 --input-size 64", "another mode"),
    ],
)
def test_flags_that_a_run_does_not_read(flags, needs):
    assert [*unread(*chosen(flags)).values()] == [needs]


def test_flags_that_a_run_reads():
    for flags in (
        "--train --head heatmap --local-parts --reg 2",
        "--train --reinit --alignment 2",
        "--train --head simcc --cls 2",
        "--train --steps shear --shear 0.2",
        "--test --box detector --detector yunet",
        "--predict a --norm box --test",
        "--audit --norm box --folds 3",
    ):
        assert not unread(*chosen(flags)), flags
    for head, row in HEADS.items():
        for key in {option for other in HEADS.values() for option in other.options}:
            assert bool(reader(key, typed("--train"), settings(head=head))) == (key not in row.options)
