"""Pictures of kinds that OpenCV reads in part or not at all."""

import io
import re
import shutil
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import ROOT, refuses
from PIL import Image, ImageOps, features

from pipnet.heif import heif_kind, upright
from pipnet.images import as_bgr, picture_files, read_image

SHOWN = np.uint8([[[0], [80], [160]], [[240], [120], [40]]]).repeat(32, 0).repeat(32, 1).repeat(3, 2)  # six grey fields


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow writes no AVIF")
@pytest.mark.parametrize("orientation", range(1, 9))
def test_avif_is_turned_and_mirrored(orientation, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(SHOWN).save(tmp_path / "face.avif", exif=exif, quality=95)  # Pillow writes irot and imir
    expected = np.asarray(ImageOps.exif_transpose(Image.open(tmp_path / "face.avif")).convert("RGB"))[..., ::-1].astype(
        int
    )
    image = read_image(tmp_path / "face.avif")
    assert image.shape == expected.shape == ((64, 96, 3) if orientation < 5 else (96, 64, 3))
    assert np.abs(image - expected).mean() < 4


@pytest.mark.parametrize("suffix", ["png", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_transparent_parts_are_turned_as_the_picture(orientation, suffix, tmp_path):
    exif, file = Image.Exif(), tmp_path / f"face.{suffix}"
    exif[0x0112] = orientation
    alpha = np.where(np.arange(96) < 30, 0, 255).astype(np.uint8)[None].repeat(64, 0)
    Image.fromarray(np.dstack([SHOWN, alpha])).save(file, exif=exif, lossless=True, exact=True)
    turned = np.asarray(ImageOps.exif_transpose(Image.open(file)))
    assert (read_image(file) == np.where(turned[..., 3:] == 0, 255, turned[..., 2::-1])).all()


@pytest.mark.parametrize("cut", range(0, 400, 7))
def test_a_damaged_heif_is_not_turned_or_wrong(cut):
    data = np.random.default_rng(cut).integers(0, 256, 400, dtype=np.uint8).tobytes()
    data = struct.pack(">I4s4sI", 16, b"ftyp", b"avif", 0) + struct.pack(">I4sI", 300, b"meta", 0) + data[:cut]
    assert heif_kind(data) == "AVIF" and upright(SHOWN, data).size == SHOWN.size


def test_what_no_reader_knows_is_named_with_the_remedy(tmp_path):
    heic = struct.pack(">I4s4sI4s4s", 24, b"ftyp", b"mif1", 0, b"mif1", b"heic") + bytes(100)
    for name in ("photo.HEIC", "without_ending", "raw.cr2", "photoshop.psd"):
        (tmp_path / name).write_bytes(heic if name != "raw.cr2" else b"II*\0" + bytes(20))
    (tmp_path / "notes.txt").write_text("no picture")
    found = picture_files(tmp_path)
    assert sorted(file.name for file in found) == ["photo.HEIC", "photoshop.psd", "raw.cr2", "without_ending"]
    for file in found:
        kind = "CR2" if file.name == "raw.cr2" else "HEI[CF]"
        refuses(f"{file.name}.*{kind}", read_image, Path(file))


def test_folders_of_systems_are_left_out(tmp_path, caplog):
    shown = cv2.imencode(".jpg", np.zeros((9, 9, 3), np.uint8))[1].tobytes()
    for name in (
        "a.jpg",
        "@eaDir/a.jpg/SYNOPHOTO_THUMB_M.jpg",
        "#recycle/b.jpg",
        "x/$RECYCLE.BIN/c.jpg",
        ".thumbnails/d.jpg",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(shown)
    assert picture_files(tmp_path) == [tmp_path / "a.jpg"]
    (said,) = [record.getMessage() for record in caplog.records]
    assert "and 3 more" in said and "folder of the system" in said


def test_a_video_among_pictures_is_named(tmp_path, caplog):
    for name in ("more/b.MP4", "a.mov", ".hidden.avi"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(bytes(100))
    assert picture_files(tmp_path) == [] and not caplog.messages  # the caller says how videos are named
    shutil.copy(ROOT / "assets" / "astronaut.jpg", tmp_path)
    assert [file.name for file in picture_files(tmp_path)] == ["astronaut.jpg"]
    (said,) = caplog.messages
    assert re.search("(a.mov|b.MP4) and 1 more: a video", said)


def test_what_follows_the_end_of_a_jpeg_is_no_part_of_it(tmp_path):
    """Phones put a second picture or a video there."""
    data = (ROOT / "assets" / "astronaut.jpg").read_bytes()
    for name, rest in (("video", b"ftyp \xff\xda no end"), ("picture", data[:-2])):
        (tmp_path / f"{name}.jpg").write_bytes(data + rest)
        assert (read_image(tmp_path / f"{name}.jpg") == read_image(ROOT / "assets" / "astronaut.jpg")).all()
    (tmp_path / "cut.jpg").write_bytes(data[:-1])
    refuses("cut.jpg", read_image, tmp_path / "cut.jpg")


def test_every_cut_of_a_jpeg_is_seen(tmp_path):
    """One with a thumbnail, and a progressive one, whose scans have markers between them."""
    for name, options in (
        ("plain", {}),
        ("progressive", {"progressive": True}),
        ("restarts", {"restart_marker_blocks": 2}),
    ):
        file, small = tmp_path / f"{name}.jpg", io.BytesIO()
        Image.new("RGB", (8, 8)).save(small, "JPEG")
        noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8))
        noise.save(file, comment=small.getvalue(), **options)
        data = file.read_bytes()
        assert read_image(file).shape == (40, 40, 3)
        for length in range(2, len(data) - 1, 7):
            file.write_bytes(data[:length])
            refuses("cut short|not a readable", read_image, file)


@pytest.mark.parametrize("bits", (8, 10, 12, 16))
@pytest.mark.parametrize("suffix", ("png", "tif"))
@pytest.mark.parametrize("grey", (True, False))
def test_values_of_a_camera_in_16_bits(bits, suffix, grey, tmp_path):
    """12-bit values in a 16-bit file have no upper bits; a picture of them is as bright as one of 8 bits."""
    file = tmp_path / f"face.{suffix}"
    deep = (SHOWN + 15).astype(np.uint16) << (bits - 8)
    assert cv2.imwrite(str(file), deep[..., 0] if grey else deep)
    assert np.abs(read_image(file).astype(int) - SHOWN - 15).max() <= (suffix == "tif")  # OpenCV rounds 16 bits there
    if grey and suffix == "png":
        assert (as_bgr(Image.open(file)) == SHOWN + 15).all()
