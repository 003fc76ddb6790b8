"""Drawings of any landmarks: those of a diverged net, and those of a layout with few points."""

from dataclasses import replace

import numpy as np
import pytest
from conftest import LAYOUTS

from pipnet.draw import (
    WHITE,
    draw,
    draw_circle,
    draw_faces,
    draw_label,
    draw_line,
    draw_numbers,
    draw_text,
    group_colours,
    tile,
)
from pipnet.face import Face
from pipnet.geometry import box_of
from pipnet.layout import Layout


@pytest.mark.parametrize("far", (1e7, -1e12, 1e300, -1e300))
def test_places_that_no_picture_has_are_drawn(far):
    layout, image = LAYOUTS.load("5"), np.zeros((64, 64, 3), np.uint8)
    landmarks = np.array([(20.0, 20.0), (40, 20), (30, 30), (far, 40), (far, far)])
    draw(image, landmarks, layout, WHITE)
    assert image[20, 20].all()
    draw(image, landmarks, layout, WHITE, hollow=np.ones(5, bool))
    draw_numbers(image, landmarks, layout, [WHITE] * 5)
    draw_line(image, landmarks[0], landmarks[3], WHITE)
    draw_circle(image, landmarks[4], WHITE, 6)
    assert tile(image, [(landmarks, WHITE)], layout, 64, "title").shape == (64, 64, 3)


def test_the_points_of_a_sparse_layout_are_larger():
    def inked(name: str) -> float:
        """Share of a thumbnail's px that one landmark covers."""
        layout = replace(LAYOUTS.load(name), groups={})
        grid = np.stack(np.meshgrid(np.linspace(0.1, 0.9, 10), np.linspace(0.1, 0.9, 10)), -1).reshape(-1, 2)[
            : layout.count
        ]
        return (tile(np.zeros((224, 224, 3), np.uint8), [(grid, WHITE)], layout, 224) > 0).any(-1).sum() / layout.count

    assert inked("5") > 2 * inked("68") and inked("98") == pytest.approx(inked("68"), rel=0.1)


EIGHT = [
    "left_eye_outer",
    "left_eye_inner",
    "rightEyeInner",
    "rightEyeOuter",
    "nose_tip",
    "left_mouth",
    "right_mouth",
    "chin",
]


def named(names: list[str]) -> Layout:
    """Return a layout with a group for each name."""
    groups = {name: [i] for i, name in enumerate(names)}
    return LAYOUTS.with_rows({"own": {"count": len(names), "flip_index": [*range(len(names))], "groups": groups}}).load(
        "own"
    )


def test_points_of_one_word_are_one_group():
    layout = named(EIGHT)
    assert layout.edges() == [(0, 1), (2, 3), (5, 6)] and layout.point_names() == EIGHT
    colours = group_colours(layout)
    assert colours[5] == colours[6] and len({*colours}) == 5
    assert named(["left_eye", "right_eye", "a1", "a2"]).edges() == [(0, 1)]
    whole = LAYOUTS.load("68")
    assert whole.drawn_groups() == whole.groups


def test_few_points_of_a_small_face_are_seen():
    """Their dots have 2 px and more. Without a line between two of them, they have their numbers."""
    inked = []
    for layout in (named(EIGHT), named(["a", "b", "c", "d", "e", "f", "g", "h"])):
        image = np.zeros((256, 256, 3), np.uint8)
        points = np.array(
            [(90, 100), (110, 100), (140, 100), (160, 100), (125, 130), (105, 150), (145, 150), (125, 170.0)]
        )
        draw_faces(image, [Face(box_of(points), np.nan, points, np.ones(8))], layout, "edges")
        dot = image[127:134, 122:129].any(-1).sum()
        inked.append(bool(image[175:].any()))  # below all points
        assert dot >= 12
    assert inked == [False, True]


def test_text_that_is_no_utf8_is_drawn():
    image = np.zeros((40, 200, 3), np.uint8)
    draw_text(image, "Stra\udcdfe_1.jpg", (4, 30))
    assert image.any()


def test_a_label_is_never_cut():
    def lit(height: int, width: int, box: tuple) -> int:
        image = np.zeros((height, width, 3), np.uint8)
        face = Face(
            np.array(box, float),
            0.9,
            np.zeros((68, 2)),
            np.ones(68),
            pose=np.array([10.0, -20, 30]),
            states={"left_eye_closed": 0.9, "mouth_closed": 0.1},
        )
        draw_label(image, face, 100)
        return int(image.any(2).sum())

    whole = lit(900, 900, (300, 300, 400, 400))
    for box in ((2, 2, 298, 298), (280, 100, 380, 200), (-50, 3, 50, 103), (100, 180, 200, 310)):
        assert lit(300, 300, box) == whole > 300
