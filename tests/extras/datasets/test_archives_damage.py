"""Annotations of every set, damaged in every way: they are read or the fault is named, and with it the archive."""

import json
import shutil
from pathlib import Path

import archives
import numpy as np
import pytest
from archives import coco, parse, prepared, write_csv
from conftest import load_split
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from pipnet.errors import UserError
from utils.data.prepared_set import SPLITS

KINDS = (".txt", ".mat", ".csv", ".json", ".pts", ".rect")


def csv_set(folder: Path) -> tuple:
    root, faces = archives.table(folder)
    write_csv(root / "faces.csv", faces["train"])
    return root, faces


def coco_set(folder: Path) -> tuple:
    root, faces = archives.table(folder)
    (root / "faces.json").write_text(json.dumps(coco(faces["train"])))
    return root, faces


SETS = {
    "wflw": archives.wflw,
    "lapa": archives.lapa,
    "cofw": archives.cofw,
    "300wlp": archives.lp,
    "csv": csv_set,
    "coco": coco_set,
    "jd106": archives.jd,
    "celeba": archives.celeba,
    "celeba-wild": archives.celeba,
    "mtfl": archives.mtfl,
    "menpo": archives.menpo,
    "300vw": archives.vw,
    "300w-private": archives.private,
    "aflw": archives.few_aflw,
    "cofw68": archives.cofw68,
    "300w+wflw-all": archives.both,
    "lmk": archives.lmk,
    "300w": lambda folder: (archives.both(folder)[0] / "300W",),
    "points": archives.private,
}


@pytest.fixture(scope="module", params=SETS)
def archive(request, tmp_path_factory) -> tuple[str, Path]:
    """(dataset, a small archive of it)."""
    return request.param, SETS[request.param](tmp_path_factory.mktemp("damaged"))[0]


def spoilt(good: bytes, draw) -> bytes:
    """The file cut short, with other bytes or words in it, shuffled, repeated, huge, NaN, of another encoding, with
    CRLF.
    """
    place, end = sorted((draw(st.integers(0, len(good))), draw(st.integers(0, len(good)))))
    words = good.split(b" ")
    some = draw(st.integers(0, len(words) - 1))
    other = [b"nan", b"inf", b"-1e308", b"9" * 400, b"", b"a b", b"\0", "\u00e9\u4e2d".encode(), b"../x", b"/"]
    junk, noise = draw(st.sampled_from(other)), draw(st.binary(max_size=8))
    return draw(
        st.sampled_from(
            [
                good[:place],
                good[:place] + good[end:],
                good[:end] + good[place:],
                good[:place] + noise + good[place:],
                b" ".join([*words[:some], junk, *words[some + 1 :]]),
                b" ".join(words[some:] + words[:some]),
                good.replace(b"\n", b"\r\n"),
                good.replace(b"\n", junk),
                good.replace(b" ", b"\t"),
                good.replace(b".", b","),
                good.decode("latin-1").encode("utf-16"),
                b"\xef\xbb\xbf" + good,
                junk,
            ]
        )
    )


@pytest.mark.slow
@settings(
    max_examples=12,
    phases=[Phase.reuse, Phase.generate],  # a smaller example would take minutes to find
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
def test_damaged_annotations_are_named_or_the_set_is_whole(archive, data):
    name, root = archive
    out = root.parent / "prepared"
    shutil.rmtree(out, ignore_errors=True)
    files = [path for path in sorted(root.rglob("*")) if path.suffix in KINDS]
    file = data.draw(st.sampled_from(files))
    good = file.read_bytes()
    try:
        file.write_bytes(spoilt(good, data.draw))
        folder = prepared(name, root, out)
        for split in SPLITS:
            if (folder / split).is_dir():
                faces = load_split(folder, split)
                assert np.isfinite(faces["box"]).all() and all(map(faces.encoded, range(len(faces))))
                assert not np.isinf(faces["landmarks"]).any()
    except UserError as error:
        assert str(root) in str(error) and not list(out.rglob("meta.yaml"))  # nothing that looks like a set
    finally:
        file.write_bytes(good)


def test_names_of_other_scripts_and_with_spaces(tmp_path):
    root, lists = archives.wflw(tmp_path)
    for split in ("train", "test"):
        file = root / f"WFLW_annotations/list_98pt_rect_attr_train_test/list_98pt_rect_attr_{split}.txt"
        file.write_text(file.read_text().replace("--Event/", "--\u00c9t\u00e9 \u4e2d/"), newline="\r\n")
    for folder in (root / "WFLW_images").iterdir():
        folder.rename(folder.with_name(folder.name.replace("Event", "\u00c9t\u00e9 \u4e2d")))
    for file in (root / "WFLW_annotations/list_98pt_test").iterdir():
        file.write_text(file.read_text().replace("--Event/", "--\u00c9t\u00e9 \u4e2d/"))
    splits = parse("wflw", root, allow_partial=True)
    assert [len(records) for records in splits.values()] == [3, 3]
    assert splits["train"][0].identity == lists["train"][0][3].replace("Event", "\u00c9t\u00e9 \u4e2d")
