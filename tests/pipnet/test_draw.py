"""Drawings of any landmarks: those of a diverged net, and those of a layout with few points."""

import numpy as np
import pytest
from conftest import LAYOUTS

from pipnet.draw import WHITE, draw, draw_circle, draw_line, draw_numbers, draw_text, tile


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
        layout = LAYOUTS.load(name)._replace(groups={})
        grid = np.stack(np.meshgrid(np.linspace(0.1, 0.9, 10), np.linspace(0.1, 0.9, 10)), -1).reshape(-1, 2)[
            : layout.count
        ]
        return (tile(np.zeros((224, 224, 3), np.uint8), [(grid, WHITE)], layout, 224) > 0).any(-1).sum() / layout.count

    assert inked("5") > 2 * inked("68") and inked("98") == pytest.approx(inked("68"), rel=0.1)


def test_text_that_is_no_utf8_is_drawn():
    image = np.zeros((40, 200, 3), np.uint8)
    draw_text(image, "Stra\udcdfe_1.jpg", (4, 30))
    assert image.any()
