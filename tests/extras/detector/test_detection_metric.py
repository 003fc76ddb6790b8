"""Average precision and recall of detections."""

import numpy as np
import pytest
from conftest import boxed_picture

from extras.detector import metric


def found(*boxes) -> tuple[np.ndarray, np.ndarray]:
    """Return (boxes, scores) of rows x1 y1 x2 y2 score."""
    values = np.array(boxes, float).reshape(-1, 5)
    return values[:, :4], values[:, 4]


def test_average_precision_by_hand():
    one, two = (
        boxed_picture([[0, 0, 20, 20], [50, 50, 80, 80]], covered=[True, False]),
        boxed_picture([[10, 10, 40, 40]]),
    )
    scores = metric.score([found([0, 0, 20, 20, 0.9], [0, 0, 20, 19, 0.8]), found([10, 10, 40, 38, 0.7])], [one, two])
    # hit, a second box for the same face, hit; of three faces
    assert (
        scores.ap == pytest.approx(1 / 3 + 1 / 3 * 2 / 3)
        and scores.recall == pytest.approx(2 / 3)
        and scores.faces == 3
    )
    assert scores.covered == 1 and scores.plain == 0.5


def test_small_and_ignored_faces_are_neither_hits_nor_misses():
    one = boxed_picture([[0, 0, 15, 40], [50, 50, 80, 80], [100, 0, 130, 30]], ignored=[False, False, True])
    perfect = found([0, 0, 15, 40, 0.9], [100, 0, 130, 30, 0.8], [50, 50, 80, 80, 0.7])
    assert metric.score([perfect], [one])[:2] == (1, 1) and metric.score([perfect], [one]).faces == 1


def test_detections_are_no_mistakes_where_not_every_face_has_a_box():
    one = boxed_picture([[0, 0, 20, 20]], whole=False)
    scores = metric.score([found([50, 50, 80, 80, 0.9], [0, 0, 20, 20, 0.5])], [one])
    assert np.isnan(scores.ap) and scores.recall == 1
    assert np.isnan(metric.score([found()], [boxed_picture([])]).recall)
