"""The panel of the demo and the labels of faces."""

import numpy as np
import pytest

from pipnet.app.panel import Panel, draw_label
from pipnet.face import Face


def test_the_panel_fits_or_stays_away():
    panel = Panel()
    for _ in range(50):
        panel.update({"decode": 0.002, "detect": 0.004, "landmarks": 0.012, "track": 0.001}, 0.025)
    assert panel.fps == pytest.approx(40)
    for height, width in ((480, 640), (2160, 3840), (1, 1), (30, 400)):
        image = np.full((height, width, 3), 200, np.uint8)
        panel.draw(image, 2)
        assert ((image != 200).any(2).mean() < 0.4) and ((image != 200).any() or width <= 400)


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
