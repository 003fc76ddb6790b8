"""The .pts format: what is right comes back exactly, what is wrong is named by file and line."""

from pathlib import Path

import numpy as np
import pytest
from conftest import refuses, spoilt
from hypothesis import given, settings
from hypothesis import strategies as st

from extras.shared.pts import read_pts, write_pts
from pipnet.errors import UserError


@pytest.fixture(scope="module")
def scratch(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("scratch")


@given(st.lists(st.tuples(*[st.one_of(st.floats(-1e6, 1e6), st.just(float("nan")))] * 2), max_size=120))
def test_pts_round_trip(scratch, rows):
    points = np.array(rows, dtype=np.float64).reshape(-1, 2)
    points[np.isnan(points).any(axis=1)] = np.nan
    write_pts(scratch / "trip.pts", points)
    assert np.allclose(read_pts(scratch / "trip.pts", len(points)), points, atol=1e-6, equal_nan=True)


@given(
    st.one_of(
        st.binary(max_size=400),
        st.text("version: n_pots68{}\n\r 0123456789.-+naife\ufeff\u0663", max_size=400).map(str.encode),
    )
)
@settings(max_examples=400)
def test_garbage_raises_nothing_but_user_error(scratch, data):
    (scratch / "garbage.pts").write_bytes(data)
    try:
        read_pts(scratch / "garbage.pts")
    except UserError as error:
        assert "garbage.pts" in str(error) and "\n" not in str(error)


@given(st.data())
@settings(max_examples=300)
def test_a_damaged_file_is_read_whole_or_refused(scratch, data):
    good = b"version: 1\nn_points:  5\n{\n" + b"".join(b"%d.5 %d\n" % (i, i * i) for i in range(5)) + b"}\n"
    cut_at = data.draw(st.integers(0, len(good) - 3))
    (scratch / "damaged.pts").write_bytes(good[:cut_at])
    with pytest.raises(UserError):
        read_pts(scratch / "damaged.pts")
    place, byte = data.draw(st.integers(0, len(good) - 1)), data.draw(st.integers(0, 255))
    (scratch / "damaged.pts").write_bytes(good[:place] + bytes([byte]) + good[place + 1 :])
    try:
        assert read_pts(scratch / "damaged.pts").shape == (5, 2)
    except UserError as error:
        assert "damaged.pts" in str(error)


def test_long_garbage_is_refused_at_once(scratch):
    for junk in (b"1" * 500_000 + b"x", b"." * 500_000, b"9" * 500_000 + b" 1", b"{" * 500_000):
        (scratch / "long.pts").write_bytes(b"version: 1\nn_points: 1\n{\n" + junk + b"\n}\n")
        refuses("long.pts, line 4", read_pts, scratch / "long.pts")


@pytest.mark.parametrize(
    "text",
    [
        b"version: 1\r\nn_points: 2\r\n{\r\n1 2\r\n3.5 nan\r\n}\r\n".replace(b"3.5 nan", b"nan nan"),
        b"\xef\xbb\xbfversion: 1\nn_points:  2\n{\n1 2\nnan nan\n}",
        b"\n  version:1  \n\nn_points :   2\n{ \n\n  1.0\t2.0  \n nan   nan\n\n}\n\n",
    ],
)
def test_harmless_variants_are_read(scratch, text):
    (scratch / "variant.pts").write_bytes(text)
    assert np.array_equal(read_pts(scratch / "variant.pts", 2), [[1, 2], [np.nan, np.nan]], equal_nan=True)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "not a .pts file"),
        ("version: 1\nn_points: 1\n1 2\n}\n", "line 3: '12' where '{' belongs"),
        ("version: 1\nn_points: one\n{\n1 2\n}\n", "line 2: .* where 'n_points: N' belongs"),
        ("version: 1\nn_points: 1\n{\n1 2\n", "line 4: the closing brace is missing"),
        ("version: 1\nn_points: 2\n{\n1 2\n}\n", "n_points says 2, but 1 points follow"),
        ("version: 1\nn_points: 1\n{\n1 2 3\n}\n", "line 4: 3 values where 'x y' belongs"),
        ("version: 1\nn_points: 1\n{\n1 two\n}\n", "line 4: 'two' is not a coordinate"),
        ("version: 1\nn_points: 1\n{\n1 inf\n}\n", "line 4: 'inf' is not a coordinate"),
        ("version: 1\nn_points: 1\n{\n1 1e400\n}\n", "line 4: '1e400' is not a coordinate"),
        ("version: 1\nn_points: 1\n{\n1 nan\n}\n", "line 4: one coordinate is nan"),
        ("version: 1\nn_points: 1\n{\n1 2\n}\n3 4\n", "line 6: text after the closing brace"),
        ("version: 1\nn_points: 1\n{\n1 2\n}\n", "1 points where 68 are expected"),
    ],
)
def test_faults_of_a_pts_file_are_named(scratch, text, fault):
    spoilt(scratch / "fault.pts", text, fault, read_pts, scratch / "fault.pts", 68)
    refuses("nowhere.pts", read_pts, scratch / "nowhere.pts")
