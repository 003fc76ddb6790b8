"""Preparation: correct annotations come back exactly; a fault is named and nothing is written."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from archives import parse
from conftest import DEFAULTS, LAYOUTS, mean_face, mismatch, refuses, settings, split_of
from small_nets import net_of

from extras.datasets import infer
from extras.datasets.w300 import PARTS
from extras.shared.pts import read_pts, write_pts
from pipnet.errors import UserError
from pipnet.geometry import Protocol, cut, to_crop, to_image
from utils.data.batches import Batches, plain
from utils.data.disk import rounded
from utils.data.faces import Faces
from utils.data.prepare import DataGenerator, split_identities
from utils.data.prepared_set import PreparedSet, load_splits, read_meta, read_source_image

ROOT = Path(__file__).resolve().parents[3]
SQUARE = Protocol(1.2, 1.2, 0.0, "max", "real", "float")


def face(folder: Path, name: str, count: int = 68, suffix: str = ".jpg") -> Path:
    """Write a noise image of 160 x 120 px and a .pts with random landmarks. Return the image's path."""
    rng = np.random.default_rng([*name.encode(errors="surrogateescape")])
    folder.mkdir(parents=True, exist_ok=True)
    image = cv2.GaussianBlur(rng.integers(0, 256, (120, 160, 3), dtype=np.uint8), (0, 0), 2)
    file = folder / f"{name}{suffix}"
    file.write_bytes(cv2.imencode(suffix, image)[1].tobytes())
    write_pts(file.with_suffix(".pts"), rng.uniform(0.2, 0.8, (count, 2)) * (160, 120))
    return file


def points_folder(
    folder: Path, splits: tuple[str, ...] = ("train", "test"), people: int = 6, frames: int = 3, count: int = 68
) -> Path:
    """Write a custom set, PERSON_FRAME.jpg with .pts in every split. Return its folder."""
    for split in splits:
        for person in range(people):
            for frame in range(frames):
                face(folder / split, f"{split}{person:02d}_{frame}", count)
    return folder


def tree_300w(folder: Path, names: dict[str, str] | None = None, faces: int = 4) -> Path:
    """Write the folders of 300W with a few faces each. Return the root. names: {part: another folder}."""
    for part in PARTS:
        for index in range(faces):
            face(folder / (names or {}).get(part, part), f"{part.split('/')[0]}{index:03d}_1")
    return folder


def prepare(source: Path, out: Path, **options) -> Path:
    return DataGenerator(source, **{"target_size": 32, "out": out, "workers": 1, **options}).run()


def load_split(folder: Path, split: str) -> Faces:
    return PreparedSet(folder, LAYOUTS).read(split)


def load_meanface(folder: Path) -> np.ndarray:
    return PreparedSet(folder, LAYOUTS).meanface()


def leftovers(out: Path) -> list[str]:
    return sorted(p.name for p in out.iterdir()) if out.exists() else []


# ------------------------------------------------------------------------------------------------------------- archives
@pytest.mark.parametrize(
    "names",
    [
        None,
        {
            "afw": "AFW/afw",
            "helen/trainset": "HELEN/trainset",
            "helen/testset": "HELEN/testset",
            "lfpw/trainset": "LFPW/trainset",
            "lfpw/testset": "LFPW/testset",
            "ibug": "IBUG/ibug",
        },
    ],
)
def test_both_trees_of_300w(tmp_path, names):
    tree_300w(tmp_path, names, faces=2)
    assert infer(tmp_path) == "300w"
    splits = parse("300w", tmp_path, allow_partial=True)
    assert [record.subset for record in splits["test"]] == ["common/helen"] * 2 + ["common/lfpw"] * 2 + [
        "challenge/ibug"
    ] * 2
    assert len(splits["train"]) == 6
    refuses("ibug: 2 of 135", parse, "300w", tmp_path)


def test_points_folders(tmp_path):
    flat = parse("points", points_folder(tmp_path / "flat", ("",), people=3, frames=2))
    assert list(flat) == ["train"] and len({record.identity for record in flat["train"]}) == 3
    one = parse("points", points_folder(tmp_path / "one", ("",), people=1, frames=4))
    assert len({record.identity for record in one["train"]}) == 4  # a prefix that all files share names no person
    face(tmp_path / "one", "me_1", 68)
    # nor does one that most share
    assert len({record.identity for record in parse("points", tmp_path / "one")["train"]}) == 5
    face(tmp_path / "deep" / "train" / "night", "a_1", 5)
    face(tmp_path / "deep" / "train", "b", 5, suffix=".png")
    face(tmp_path / "deep" / "Test" / "x" / "y", "c", 5)
    deep = parse("points", tmp_path / "deep")
    assert [record.subset for record in deep["train"]] == ["all", "night"] and deep["test"][0].subset == "x"
    refuses("no image", parse, "points", (tmp_path / "empty").mkdir() or tmp_path / "empty")


def test_odd_file_names_and_mac_leftovers(tmp_path):
    names = ["image_092 _01", "\u00e9t\u00e9 portrait"]
    try:
        face(tmp_path / "afw", os.fsdecode(b"caf\xe9 1"))  # a latin-1 name from an old archive
        names.append(os.fsdecode(b"caf\xe9 1"))
    except (OSError, UnicodeError):
        pass  # the file system allows only Unicode names
    for name in names:
        face(tmp_path / "afw", name)
    (tmp_path / "afw" / "._image_092 _01.jpg").write_bytes(b"mac")
    folder = prepare(tmp_path, tmp_path / "out", dataset="300w", allow_partial=True, val=0)
    assert sorted(Path(name).stem for name in load_split(folder, "train")["file"]) == sorted(names)


# -------------------------------------------------------------------------------------------------------- prepared sets
def test_a_prepared_set_comes_back(tmp_path):
    source = points_folder(tmp_path / "mine")
    folder = prepare(source, tmp_path / "data", margin=1.25, val=0.3)
    assert re.fullmatch("mine-[0-9a-f]{8}", folder.name) and leftovers(tmp_path / "data") == [folder.name]
    meta = read_meta(folder)
    assert (meta["layout"], meta["count"], meta["found"], meta["origin"]) == ("68", 68, {"all": 36}, 0.0)
    tables = {split: load_split(folder, split) for split in ("train", "val", "test")}
    assert [len(table) for table in tables.values()] == [12, 6, 18]
    assert not set(tables["train"]["identity"]) & set(tables["val"]["identity"])
    for table in tables.values():
        for i, name in enumerate(table["file"]):
            annotated = read_pts((source / name).with_suffix(".pts"))
            assert np.allclose(table["landmarks"][i], annotated + 0.5, atol=1e-4)  # 0-based pixel centres
            stored = table.crop(i)
            exact = cut(read_source_image(source / name), table["crop"][i], 32, 1.25)
            assert stored.shape == (40, 40, 3) and abs(stored.astype(int) - exact).mean() < 4  # JPEG at 95
        assert np.isnan(table["visible"]).all() and (table["size"] == (160, 120)).all()
    mean = to_crop(tables["train"]["landmarks"][:], tables["train"]["crop"][:]).mean(axis=0)
    assert np.allclose(load_meanface(folder), mean, atol=1e-5)
    assert (
        len((folder / "meanface.txt").read_text().split()) == 136
        and (folder / "meanface.txt").read_text().count("\n") == 1
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_blue_stays_blue_from_the_picture_to_the_input_of_a_net(tmp_path):
    """The numbers of a plain picture, and those that ResNet, which takes RGB, and Slim, which takes BGR, make of them."""
    colour, points, layout = (200, 90, 30), mean_face() * 60 + 18, LAYOUTS.load("68")  # blue, green, red
    for split in ("train", "test"):
        (tmp_path / "raw" / split).mkdir(parents=True)
        for name in ("a", "b"):
            cv2.imwrite(str(tmp_path / "raw" / split / f"{name}.png"), np.full((96, 96, 3), colour, np.uint8))
            write_pts(tmp_path / "raw" / split / f"{name}.pts", points)
    several = load_splits(
        [split_of(DataGenerator(tmp_path / "raw", 64, "points", out=tmp_path / "data").run())], layout, 64, 0
    )
    turned = replace(settings("default").augment, colour_prob=0.0, grayscale=0.0, infrared=0.0, gamma=1.0, blur=0.0)
    turned = replace(turned, noise=0.0, occlusion=0.0, shadow=0.0, edge=0.0, fill="real", rotation_prob=1.0)
    for batch in (
        plain(several, np.zeros(1, int)),
        Batches(several, turned, layout.flip_index, 0)[np.zeros(1, int), np.zeros(1, int)],
    ):
        middle = batch.images[0, 24:40, 24:40].float()
        assert (middle - torch.tensor(colour)).abs().max() < 4  # JPEG
        for net, order in (("resnet18", (2, 1, 0)), ("slim", (0, 1, 2))):
            built = net_of("coordinate", net=net)
            row = built.spec["preprocess"]
            wanted = [
                (colour[c] / 255 - mean) / std for c, mean, std in zip(order, row["mean"], row["std"], strict=True)
            ]
            assert built.preprocess(batch.images)[0, :, 24:40, 24:40].mean((1, 2)).tolist() == pytest.approx(
                wanted, abs=0.1
            )


def test_preparation_is_deterministic_and_another_recipe_is_another_folder(tmp_path):
    source = points_folder(tmp_path / "mine", people=3, frames=2)
    folder = prepare(source, tmp_path / "a", workers=1)
    same = prepare(source, tmp_path / "b", workers=3)
    assert contents(same) == contents(folder) and same.name == folder.name
    assert prepare(source, tmp_path / "b", allow_partial=True) == same
    others = [{"target_size": 48}, {"margin": 1.5}, {"val": 0.5}, {"protocol": "pipnet"}, {"labels": "published"}]
    made = {same, *(prepare(source, tmp_path / "b", **other) for other in others)}
    assert len(made) == 6 and contents(same) == contents(folder)
    file = min(source.rglob("*.pts"))
    file.write_text(file.read_text() + "\n")
    assert prepare(source, tmp_path / "b") not in made
    assert len(leftovers(tmp_path / "b")) == 7


def test_overwrite_moves_the_earlier_set_aside(tmp_path, said):
    source = points_folder(tmp_path / "mine", people=2, frames=1)
    folder = prepare(source, tmp_path / "data")
    (folder / "train" / "crops.jpegs").write_bytes(b"damaged")
    refuses("a crop|crops.jpegs", lambda: load_split(folder, "train").crop(0))
    assert prepare(source, tmp_path / "data", overwrite=True) == folder and not mismatch(folder)
    (aside,) = set(leftovers(tmp_path / "data")) - {folder.name}
    assert aside.startswith(f"{folder.name}-20") and any(aside in line for line in said)
    assert (tmp_path / "data" / aside / "train" / "crops.jpegs").read_bytes() == b"damaged"
    refuses("no such folder", prepare, tmp_path / "nowhere", tmp_path / "data")


def test_values_and_damage_are_named(tmp_path):
    source = points_folder(tmp_path / "mine", people=2, frames=1)
    folder = prepare(source, tmp_path / "data")
    assert not mismatch(folder, target_size=32, margin=1.25, val=0.1, seed=0, layout="68", source=str(source))
    assert not mismatch(folder, protocol=SQUARE._asdict())
    assert mismatch(folder, target_size=64).endswith("target_size 32, not 64")
    assert "protocol" in mismatch(folder, protocol=DEFAULTS.protocols["pipnet"])
    os.truncate(folder / "train" / "crops.jpegs", 1000)
    assert "crops.jpegs has not the " in mismatch(folder)
    (folder / "train" / "crop.npy").unlink()
    assert "crop.npy holds no column (no such file)" in mismatch(folder)
    file = folder / "meta.yaml"
    text = file.read_text()
    slips = {
        "count: 68": "count:",
        "scale_x: ": "scale: ",
        "margin: 1.25": "margin: wide",
        "format: 5": "format: 0",
        "- jpeg": "- ../jpeg",
        "margin: 1.25\n": "margin: .inf\n",
        "count: 68\n": "count: 300000000\n",
        "shift_y: ": "shift_y: x",
        "val: 0.1": "val: .inf",
        "scale_y: ": "scale_y: .inf #",
        "target_size: 32": "target_size: 3200000000",
        "origin: ": "origin: .nan #",
    }
    for old, new in slips.items():
        assert old in text
        file.write_text(text.replace(old, new, 1))
        assert "meta.yaml" in mismatch(folder) and "--overwrite" in mismatch(folder)
        refuses("meta.yaml", prepare, source, tmp_path / "data")


@pytest.mark.parametrize("value", ("inf", "1e9", "-1e300"))
def test_a_coordinate_that_is_no_place_is_named(tmp_path, value):
    folder = prepare(points_folder(tmp_path / "raw"), tmp_path / "data")
    for name in ("crop", "box", "landmarks"):
        file = folder / "train" / f"{name}.npy"
        values = np.load(file)
        values[0].flat[0] = float(value)
        np.save(file, values)
        with pytest.raises(UserError, match=f"{name}.npy"):
            load_split(folder, "train").row(0)
        load_split(folder, "train").row(1)


def test_splits_follow_the_archive_and_val(tmp_path):
    everything = prepare(points_folder(tmp_path / "all", ("",), people=10, frames=2), tmp_path / "data", val=0.2)
    assert [len(load_split(everything, split)) for split in ("train", "val")] == [16, 4]
    refuses("test split", load_split, everything, "test")
    only = prepare(points_folder(tmp_path / "only", ("test",)), tmp_path / "data")
    assert len(load_split(only, "test")) == 18 and load_split(only, "val")["landmarks"][:].shape == (0, 68, 2)
    refuses("train split", load_meanface, only)
    own = prepare(points_folder(tmp_path / "own", ("train", "val", "test"), people=2), tmp_path / "data", val=0.5)
    assert [len(load_split(own, split)) for split in ("train", "val", "test")] == [6, 6, 6]
    ancestor = prepare(points_folder(tmp_path / "ancestor"), tmp_path / "data", val="test")
    assert len(load_split(ancestor, "train")) == 18 and len(load_split(ancestor, "val")) == 0


def test_identities_stay_together_and_hardly_move_when_faces_are_added(tmp_path):
    records = parse("points", points_folder(tmp_path / "mine", ("",), people=30, frames=2, count=5))["train"]
    names = [record.identity for record in records]
    val = split_identities(names, 0.2, 0)
    held = set(np.array(names)[val])
    assert val.sum() == 12 and not held & set(np.array(names)[~val])
    assert set(np.array(names[:40])[split_identities(names[:40], 0.2, 0)]) & held
    assert set(np.array(names)[split_identities(names, 0.2, 1)]) != held
    assert not split_identities(names[:1], 0.5, 0).any()  # a single identity is trained on
    assert not split_identities(names, 0.0, 0).any()


def test_points_that_are_nan_are_unknown(tmp_path):
    source = points_folder(tmp_path / "mine", ("train",), people=3, frames=1, count=5)
    file = min((source / "train").glob("*.pts"))
    points = read_pts(file)
    points[2] = np.nan
    write_pts(file, points)
    folder = prepare(source, tmp_path / "data", val=0)
    table = load_split(folder, "train")
    assert np.argwhere(np.isnan(table["landmarks"][..., 0])).tolist() == [[0, 2]]
    assert np.isfinite(load_meanface(folder)).all()
    for file in (source / "train").glob("*.pts"):
        write_pts(file, np.where(np.arange(5)[:, None] == 2, np.nan, read_pts(file)))
    refuses("landmark 2 ", prepare, source, tmp_path / "data", val=0)


def test_documented_calls(tmp_path):
    tree = tree_300w(tmp_path / "300W", faces=1)
    options = f"data_dir={str(tree)!r}, target_size=256, out={str(tmp_path / 'data')!r}, allow_partial=True"
    code = f"from utils import util, DataGenerator as it; assert util.DataGenerator is it; util.DataGenerator({options}).run()"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    (folder,) = (tmp_path / "data").iterdir()
    assert folder.name.startswith("300w-") and load_split(folder, "test").crop(0).shape == (320, 320, 3)
    assert "300W is partial: ibug: 1 of 135 faces" in run.stderr


@pytest.mark.parametrize("protocol", DEFAULTS.protocols)
def test_crops_give_the_annotations_back(tmp_path, protocol):
    source = points_folder(tmp_path / "mine", ("train",), people=3, frames=1)
    folder = prepare(source, tmp_path / "data", val=0, protocol=protocol)
    faces = load_splits([split_of(folder)], LAYOUTS.load("68"), 32, 1.0)
    annotated = np.array([read_pts((source / name).with_suffix(".pts")) + 0.5 for name in faces["file"]])
    assert np.abs(to_image(faces["nominal"].astype(np.float64), faces["crop"]) - annotated).max() < 1e-3


# --------------------------------------------------------------------------------------------------------------- faults
def moved(points: np.ndarray, landmarks: slice, by: float) -> np.ndarray:
    points[landmarks] += by
    return points


@pytest.mark.parametrize(
    ("suffix", "spoil", "message"),
    [
        (".jpg", lambda file: os.truncate(file, file.stat().st_size - 200), "{0}.jpg: the image is cut short"),
        (".jpg", lambda file: file.write_bytes(b""), "{0}.jpg: not a readable image"),
        (".jpg", Path.unlink, "{0}.pts: no image of the same stem"),
        (".pts", Path.unlink, "{0}.jpg: no {0}.pts beside it"),
        (".pts", lambda file: write_pts(file, read_pts(file)[:-1]), "{0}.pts: 67 points where the others have 68"),
        (".jpg", lambda file: shutil.copy(file, file.with_suffix(".png")), "shares its .pts"),
        (".pts", lambda file: shutil.copy(file, file.with_suffix(".PTS")), "shares its image"),
        (".pts", lambda file: write_pts(file, moved(read_pts(file), slice(None), 1e3)), "its landmarks lie outside"),
        (".pts", lambda file: write_pts(file, moved(read_pts(file), slice(5, 6), 9e5)), "{0}.*landmark 5 at"),
    ],
)
def test_a_fault_is_named_and_nothing_is_written(tmp_path, suffix, spoil, message):
    source = points_folder(tmp_path / "mine", people=2, frames=2)
    file = sorted(source.rglob(f"*{suffix}"))[3]
    spoil(file)
    assert "\n" not in refuses(message.format(file.stem), prepare, source, tmp_path / "data")
    assert leftovers(tmp_path / "data") == []


def test_faults_of_several_files_and_of_links(tmp_path):
    source = points_folder(tmp_path / "mine", people=2, frames=2)
    for file in sorted(source.rglob("*.jpg"))[:2]:
        file.write_text("not a picture")
    refuses(r"not a readable image.*\(and 1 more such files\)", prepare, source, tmp_path / "data")
    outside = face(tmp_path / "elsewhere", "secret")
    link = source / "train" / "link"
    link.symlink_to(outside.parent)
    refuses("link: a link that leaves", prepare, source, tmp_path / "data")
    link.unlink()
    link.with_suffix(".jpg").symlink_to(outside)
    shutil.copy(outside.with_suffix(".pts"), link.with_suffix(".pts"))
    refuses("link.jpg: a link that leaves", prepare, source, tmp_path / "data")
    png = face(tmp_path / "more", "zz_1", suffix=".png")
    os.truncate(png, png.stat().st_size - 200)
    refuses("zz_1.png: the image is cut short", prepare, png.parent, tmp_path / "data")
    assert leftovers(tmp_path / "data") == []


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"dataset": "300W"}, "no dataset '300W'.*did you mean '300w'"),
        ({"protocol": "squared"}, "no crop protocol 'squared'.*did you mean 'square'"),
        ({"layout": "69"}, "no layout '69'"),
        ({"layout": "98"}, "68 points where 98 are expected; .*--prepare the set without --layout first"),
        ({"target_size": 0}, "target_size"),
        ({"margin": 0.5}, "margin"),
        ({"val": 1.5}, "val"),
        ({"val": "tset"}, "val"),
        ({"frame_step": 0}, "frame_step"),
        ({"labels": "truncated"}, "labels.*'truncated'"),
        ({"name": "../up"}, "cannot be the name"),
        ({"protocol": SQUARE._replace(square="yes")}, "square"),
    ],
)
def test_wrong_options_are_named(tmp_path, options, fault):
    source = points_folder(tmp_path / "mine", people=1, frames=2)
    refuses(fault, prepare, source, tmp_path / "data", **options)
    assert leftovers(tmp_path / "data") == []


def test_all_landmarks_are_stored_and_a_layout_is_known_by_its_count(tmp_path):
    source = points_folder(tmp_path / "mine", people=1, frames=2)
    assert read_meta(prepare(source, tmp_path / "data", layout="12"))["layout"] == "68"
    odd = points_folder(tmp_path / "odd", people=1, frames=2, count=7)
    refuses(f"{odd}.*7 landmarks", prepare, odd, tmp_path / "data")


def test_malformed_columns_are_named(tmp_path):
    folder = prepare(points_folder(tmp_path / "mine", people=2, frames=2), tmp_path / "data", val=0)
    whole = {file: file.read_bytes() for file in (folder / "train").iterdir()}

    def saved(name: str, change) -> Callable[[], None]:
        file = folder / "train" / f"{name}.npy"
        return lambda: np.save(file, change(np.load(file, allow_pickle=False)), allow_pickle=True)

    def written(name: str, change) -> Callable[[], None]:
        file = folder / "train" / name
        return lambda: file.write_bytes(change(whole[file]))

    claim = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000, 4), }".ljust(117)
    huge = np.lib.format.magic(1, 0) + b"\x76\x00" + claim + b"\n"
    for spoil, fault in [
        (
            saved("crop", lambda values: values[:, :3]),
            "crop.npy holds float64 .4, 3., not a row of float64 .4,. for each face",
        ),
        (saved("crop", lambda values: values.astype(np.float32)), "crop.npy holds float32"),
        (saved("crop", lambda values: values[0, 0]), "crop.npy holds no column .a single value"),
        (saved("landmarks", lambda values: values[:, :5]), "landmarks.npy holds float64"),
        (saved("size", lambda values: values / 2), "size.npy holds"),
        (saved("file.text", lambda values: values.astype(object)), "file.text.npy holds no column"),
        (saved("box", lambda values: values[1:]), "train has columns of 3, 4 rows"),
        (saved("jpeg", lambda values: values[:0]), "train has columns of 0, 4 rows"),
        (saved("jpeg", lambda values: values + 1), "crops.jpegs has not the .* bytes that .*jpeg.npy says"),
        (written("box.npy", lambda _: b""), "box.npy"),
        (written("box.npy", lambda _: huge), "box.npy"),
        (written("box.npy", lambda data: data[:-1]), "box.npy"),
        (written("box.npy", lambda data: b"PK" + data[2:]), "box.npy"),
    ]:
        spoil()
        refuses(f"{fault}.*prepare the set again", load_split, folder, "train")
        for file, data in whole.items():
            file.write_bytes(data)
    for name, values, fault in (
        ("jpeg", (-5, 10), "crops.jpegs: a crop is not within it"),
        ("jpeg", (0, 0), "crops.jpegs: a crop is not within it"),
        ("file.text", (0, 1 << 60), "file.text.npy: a name is not in text.utf8"),
        ("crop", (5, 5, 1, 1), "crop.npy: not a crop box"),
        ("box", [np.nan] * 4, "box.npy: a coordinate that is no number"),
    ):
        saved(name, lambda old, values=values: np.concatenate([[values], old[1:]]))()
        table = load_split(folder, "train")
        with pytest.raises(UserError, match=fault):
            table.row(0) if name != "jpeg" else table.crop(0)
        for file, data in whole.items():
            file.write_bytes(data)
    os.mkfifo(folder / "train" / "pipe")
    os.replace(folder / "train" / "pipe", folder / "train" / "box.npy")
    refuses("box.npy", load_split, folder, "train")
    refuses("not a prepared set", load_split, tmp_path, "train")


def test_values_are_rounded_as_their_text_is():
    ties = np.arange(2000) / 1e5 + 0.00005
    values = np.concatenate([np.random.default_rng(0).uniform(-1000, 1000, 2000), ties, [np.nan, -0.0]])
    assert np.array_equal(rounded(values, 4), [float(f"{value:.4f}") for value in values], equal_nan=True)


def test_opening_a_set_reads_no_values(tmp_path):
    """Faces of a join and of a part are not copied either."""
    folder = prepare(points_folder(tmp_path / "mine"), tmp_path / "data")
    train, val = load_split(folder, "train"), load_split(folder, "val")
    both = Faces.join([train, val]).only(slice(1, 17))
    kept = both.parts[0].columns
    assert kept["size"] is train.parts[0].columns["size"] and not kept["landmarks"].values.flags.owndata
    assert np.array_equal(both["landmarks"][2:4], train["landmarks"][3:5])
    assert both["file"][15] == val["file"][16 - len(train)] and len(both.crop(0)) == 40
