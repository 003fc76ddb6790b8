"""Pictures of kinds that OpenCV reads in part or not at all."""

import io
import re
import shutil
import struct
import subprocess
import sys
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


def kinds(folder: Path) -> dict[str, Image.Image]:
    """Files of all kinds that show SHOWN, some of them turned by their EXIF, and the same as pictures of Pillow."""
    plain, exif = Image.fromarray(SHOWN), Image.Exif()
    exif[0x0112] = 6
    turned, grey = plain.rotate(90, expand=True), plain.convert("L")
    saved = {
        "rgb.png": (plain, {}),
        "rgb.tif": (plain, {}),
        "rgb.bmp": (plain, {}),
        "rgb.gif": (plain, {}),
        "rgb.webp": (plain, {"lossless": True}),
        "rgb.jpg": (plain, {"quality": 98}),
        "turned.png": (turned, {"exif": exif}),
        "turned.jpg": (turned, {"exif": exif, "quality": 98}),
        "cmyk.tif": (plain.convert("CMYK"), {}),
        "cmyk.jpg": (plain.convert("CMYK"), {"quality": 98}),
        "grey.jpg": (grey, {"quality": 98}),
        "grey.png": (grey, {}),
        "opaque.png": (plain.convert("RGBA"), {}),
        "opaque_grey.png": (plain.convert("LA"), {}),
        "palette.png": (plain.quantize(16), {}),
        "deep.png": (Image.fromarray(np.asarray(grey).astype(np.uint16) * 257), {}),
        "deep.tif": (Image.fromarray(np.asarray(grey).astype(np.uint16) * 257), {}),
    }
    for name, (image, options) in saved.items():
        image.save(folder / name, **options)
    return {name: Image.open(folder / name) for name in saved}


def test_pictures_of_every_kind_are_read_alike_as_files_and_from_pillow(tmp_path):
    for name, opened in kinds(tmp_path).items():
        lossy = 4 if name.endswith((".jpg", ".gif")) or "cmyk" in name or "palette" in name else 0
        assert np.abs(read_image(tmp_path / name).astype(int) - SHOWN).max() <= lossy, name
        assert np.abs(as_bgr(opened).astype(int) - read_image(tmp_path / name)).max() <= ("cmyk" in name), name
    Image.fromarray(SHOWN).convert("1").save(tmp_path / "bit.png")
    assert set(np.unique(read_image(tmp_path / "bit.png"))) == {0, 255}
    clear = Image.fromarray(SHOWN).quantize(16)
    clear.save(tmp_path / "clear.png", transparency=3)
    with Image.open(tmp_path / "clear.png") as opened:
        assert np.array_equal(as_bgr(opened), as_bgr(tmp_path / "clear.png"))


def test_arrays_of_every_kind_are_pictures():
    colours = SHOWN * np.uint8([1, 0, 1])
    opaque = np.dstack([colours, np.full(SHOWN.shape[:2], 255, np.uint8)])
    for array, rgb in (
        (colours, False),
        (colours[..., ::-1], True),
        (opaque, False),
        (opaque[..., [2, 1, 0, 3]], True),
    ):
        assert np.array_equal(as_bgr(array, rgb), colours)
    for array in (SHOWN[..., 0], SHOWN[..., :1], Image.fromarray(SHOWN[..., 0])):
        assert np.array_equal(as_bgr(array), SHOWN)
    for wrong in (SHOWN[..., :2], SHOWN.astype(float), SHOWN[:0], None):
        refuses("uint8", as_bgr, wrong)


def test_a_damaged_picture_of_pillow_is_one_line(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "face.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "face.png").read_bytes()[:3000])
    with Image.open(tmp_path / "cut.png") as opened:
        refuses("Pillow", as_bgr, opened)


@pytest.mark.slow
def test_a_picture_that_needs_more_memory_than_there_is_is_named(tmp_path):
    cv2.imwrite(str(tmp_path / "large.png"), np.zeros((16_000, 16_000), np.uint8))
    code = (
        "import resource, sys\nfrom pathlib import Path\nfrom pipnet.images import read_image\n"
        "resource.setrlimit(resource.RLIMIT_AS, (2 ** 30, 2 ** 30))\n"
        "try: read_image(Path(sys.argv[1]))\nexcept Exception as error: print(type(error).__name__, error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "large.png"], capture_output=True, text=True, cwd=ROOT
    )
    assert (
        "Unreadable" in done.stdout and "large.png: there is not enough memory for an image of this size" in done.stdout
    ), done
