"""NME, failure rate and area under the curve, against hand-made cases and the published figures."""

from xml.etree import ElementTree

import numpy as np
import pytest
from conftest import LAYOUTS
from hypothesis import given
from hypothesis import strategies as st

from extras.report.plot import Style, beside_dots, chart, ticks
from utils.evaluate import metric

LAYOUT = LAYOUTS.load("68")


def test_nme_of_a_known_shift():
    truth = np.random.default_rng(0).random((4, 68, 2)) * 100
    truth[:, 36], truth[:, 45] = (0, 0), (50, 0)
    norm = metric.norms(truth, LAYOUT)
    assert norm.tolist() == [50] * 4
    assert metric.nme(metric.point_errors(truth + (3, 4), truth), norm) == pytest.approx([10] * 4)


def test_zero_norm_is_counted_and_left_out():
    truth = np.random.default_rng(0).random((3, 68, 2))
    truth[1, 36] = truth[1, 45]
    values = metric.nme(metric.point_errors(truth, truth), metric.norms(truth, LAYOUT))
    scores = metric.summary(values, (10, 8))
    assert (scores.nme, scores.faces, scores.left_out) == (0, 3, 1)
    assert scores.auc == pytest.approx((1, 1))


def test_unknown_landmarks_do_not_count():
    truth = np.ones((2, 68, 2)) * np.arange(68)[:, None]
    prediction = truth + (0, 9)
    truth[0, :30] = np.nan
    values = metric.nme(metric.point_errors(prediction, truth), metric.norms(truth, LAYOUT))
    assert values == pytest.approx([100 * 9 / (9 * 2**0.5)] * 2)


def test_false_faces_are_those_that_pass_where_almost_all_faces_do():
    false = np.array([0.1, 0.3, 0.4, 0.5])
    assert metric.false_faces(np.array([0.9, 0.4]), false) == 50
    assert metric.false_faces(np.array([0.0, *[0.45] * 1999]), false) == 25  # one of 2000 faces may be lost
    assert metric.false_faces(np.array([0.0, *[0.45] * 900]), false) == 100
    none = np.zeros(0)
    assert np.isnan([metric.false_faces(none, false), metric.false_faces(false, none)]).all()


def test_reliability_compares_probabilities_with_shares():
    rows = metric.reliability(np.array([0.05, 1.0, 0.05, 0.95, 0.51]), np.array([0.0, 1, 1, 1, 0]))
    assert np.allclose(rows, [(0.05, 0.5, 2), (0.51, 0, 1), (0.975, 1, 2)])
    assert metric.reliability(np.zeros(0), np.zeros(0)) == []


def test_other_norms():
    truth = np.zeros((1, 68, 2))
    truth[0, 1], truth[0, 42:48] = (30, 40), (10, 0)
    assert metric.norms(truth, LAYOUT, "diagonal") == pytest.approx([50])
    assert metric.norms(truth, LAYOUT, "box") == pytest.approx([1200**0.5])
    assert metric.norms(truth, LAYOUT, "interpupil") == pytest.approx([10])
    assert metric.norms(truth, LAYOUT, "size", np.array([[10, 20, 40, 80.0]])) == pytest.approx([45])
    with pytest.raises(ValueError, match="layout 39.*interocular"):
        metric.norms(np.zeros((1, 39, 2)), LAYOUTS.load("39"))


def test_published_failure_rate_and_area(reference):
    stored = np.load(reference / "pip_core.npz")
    values = 100 * stored["metric_nme"]
    for threshold in (10, 8):
        fr, area = stored[f"metric_fr_auc_at_{threshold / 100:g}"]
        assert metric.summary(values, [threshold]).fr[0] == pytest.approx(100 * fr)
        assert metric.auc(values, threshold) == pytest.approx(area, abs=1e-9)


def test_area_by_hand():
    """Shares of faces at 0, 0.01, ... %; Simpson's rule, and for an odd number of steps the trapezoidal one at the end."""
    values = np.array([0.005, 0.015, 0.025, 0.035])
    assert metric.auc(values, 0.02) == pytest.approx((0 + 4 * 0.25 + 0.5) / 3 / 2)
    assert metric.auc(values, 0.03) == pytest.approx(((0 + 4 * 0.25 + 0.5) / 3 + (0.5 + 0.75) / 2) / 3)
    assert metric.auc(values, 0.01) == pytest.approx((0 + 0.25) / 2)
    assert metric.summary(values, [0.02, 0.025]).fr == (50, 25)  # an error of the threshold itself is none


def test_hidden_landmarks_found_by_a_net():
    truth = np.array([[0, 1, 1, 0], [1, np.nan, 1, 0]])
    figures = metric.hidden(np.array([[0.1, 0.9, 0.3, 0.2], [0.8, 0.0, 0.7, 0.4]]), truth)
    assert figures == pytest.approx((3 / 7, (1 + 1 + 3 / 4) / 3, 2 / 3))
    assert np.isnan(metric.hidden(np.ones((1, 2)), np.ones((1, 2)))[1:]).all()
    exact = metric.hidden(np.array([[0.1, 0.2, 0.3, 0.4, 0.5, 0.6]]), np.array([[0, 0, 0, 1, 0, 1]]))
    assert exact.recall == 1  # four of the first five are hidden: the precision is 0.8


def test_names_beside_dots_cover_no_other_name_and_no_dot():
    dots, widths = [(100.0, 100.0), (130.0, 100.0), (100.0, 108.0), (440.0, 60.0)], [90, 60, 40, 70]
    places = beside_dots(dots, widths)
    boxes = [(x, y - 7, x + width, y + 7) for (x, y), width in zip(places, widths, strict=True)]
    boxes += [(x - 4, y - 4, x + 4, y + 4) for x, y in dots]
    for i, (a, b, c, d) in enumerate(boxes[: len(dots)]):
        others = [box for k, box in enumerate(boxes) if k != i]
        assert not any(a < r and x < c and b < z and y < d for x, y, r, z in others), i


def test_a_chart_holds_what_it_is_given():
    drawn = chart({"one & two": (np.array([0.0, 1, np.nan]), np.array([0.0, 2, 3]))}, "x", "y", Style(True, True))
    root = ElementTree.fromstring(drawn)
    assert len(root.findall(".//{*}circle")) == 2 and "one & two" in [text.text for text in root.iter() if text.text]
    points = root.find(".//{*}polyline").get("points").split()
    assert len(points) == 2 and points[0].startswith("56.0,")  # the origin is where the axes meet
    with pytest.raises(ValueError, match="finite"):
        chart({"none": (np.array([np.nan]), np.array([1.0]))}, "x", "y")


@given(st.floats(-100, 100), st.floats(1e-6, 1e4))
def test_ticks_cover_the_range(low, span):
    found = ticks(low, low + span)
    assert found[0] <= low + 1e-6 * span and found[-1] >= low + span * (1 - 1e-6) and 2 <= len(found) <= 12
