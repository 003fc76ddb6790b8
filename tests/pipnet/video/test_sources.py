"""Times of a video's frames."""

import pytest

from pipnet.video.sources import next_time


@pytest.mark.parametrize(
    ("stamps", "times"),
    [
        ([0.04, 0.08, 0.5], [0.04, 0.08, 0.5]),
        ([0, 0, 0], [0.04, 0.08, 0.12]),  # missing
        ([0.04, 0.04, 0.08], [0.04, 0.041, 0.08]),  # equal
        ([1.96, 2.0, 0, 0.04], [1.96, 2.0, 2.04, 2.08]),  # a broadcast that starts its time anew
    ],
)
def test_times_increase_whatever_the_stamps_are(stamps, times):
    seconds, found = 0.0, []
    for stamp in stamps:
        seconds = next_time(seconds, stamp, 0.04)
        found.append(seconds)
    assert found == pytest.approx(times)
