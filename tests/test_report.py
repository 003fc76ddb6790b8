"""What --test leaves: files of each set, boxes of other kinds, the page, comparisons."""
import shutil

import pytest
from conftest import rows, table, write_faces

from utils.prepare import DataGenerator


@pytest.fixture
def run_of(trained, tmp_path):
    """A copy of the trained run."""
    folder = tmp_path / "mine"
    shutil.copytree(trained.folder, folder)
    shutil.rmtree(folder / "report")
    return folder


def test_sets_of_one_name_have_files_of_their_own(run_of, cli, tmp_path):
    counts, places = (3, 2), []
    for number, count in enumerate(counts):
        raw = tmp_path / f"raw{number}" / "drawn"
        write_faces(raw / "test", count, seed=number + 5)
        places.append(DataGenerator(raw, 64, "points", "drawn", tmp_path / f"data{number}", layout="68").run())
    done = cli("--test", "--exp", run_of, "--test-data", *places)
    assert done.returncode == 0, done.stderr
    assert [(row[0], row[2]) for row in table(done.stdout)] == [("drawn", "3"), ("drawn-2", "2")]
    assert [len(rows(run_of / "report" / f"faces_{name}.csv")) for name in ("drawn", "drawn-2")] == [3, 2]
