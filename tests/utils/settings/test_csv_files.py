"""CSV files."""

import pytest
from conftest import refuses
from hypothesis import given
from hypothesis import strategies as st

from utils.settings.csv_files import from_cell, read_csv, to_cell, write_csv


@given(st.text(st.sampled_from("'=-+@\t5a"), max_size=5))
def test_a_cell_gives_the_text_that_it_was_made_from(text):
    assert from_cell(to_cell(text)) == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epoch,loss\n0,1\n1\n", "line 3 .another number of cells"),
        ("epoch,loss\n0,1,2\n", "line 2 .another number of cells"),
        ("epoch,loss\n0,\n", "line 2 .could not convert"),
        ("epoch,lost\n0,1\n", "line 2 .no column loss"),
        ("epoch,loss\n0,1\x00\n", "line 2"),
    ],
)
def test_a_damaged_table_is_named(tmp_path, text, message):
    (tmp_path / "step.csv").write_text(text)
    refuses(f"step.csv.*{message}", read_csv, tmp_path / "step.csv", ("epoch", "loss"))


def test_text_in_a_csv_is_no_formula(tmp_path):
    cells = ["=1+1", "+a", "@b", "-c", "\td", "-1.5", "+2e3", "a=b", "'=x"[1:], "plain"]
    write_csv(tmp_path / "a.csv", list("abcdefghij"), [cells])
    text = (tmp_path / "a.csv").read_text().splitlines()[1]
    assert text == "'=1+1,'+a,'@b,'-c,'\td,-1.5,+2e3,a=b,'=x,plain"
    assert list(read_csv(tmp_path / "a.csv")[0].values()) == cells
