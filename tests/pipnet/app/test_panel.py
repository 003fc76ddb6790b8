"""The panel of the demo."""

import numpy as np
import pytest

from pipnet.app.panel import Panel


def test_the_panel_fits_or_stays_away():
    panel = Panel()
    for _ in range(50):
        panel.update({"decode": 0.002, "detect": 0.004, "landmarks": 0.012, "track": 0.001}, 0.025)
    assert panel.fps == pytest.approx(40)
    for height, width in ((480, 640), (2160, 3840), (1, 1), (30, 400)):
        image = np.full((height, width, 3), 200, np.uint8)
        panel.draw(image, 2)
        assert ((image != 200).any(2).mean() < 0.4) and ((image != 200).any() or width <= 400)
