"""Pictures of kinds that OpenCV reads in part or not at all."""
import struct
from pathlib import Path

import numpy as np
import pytest
from conftest import refuses
from PIL import Image, ImageOps, features

from pipnet.heif import heif_kind, upright
from pipnet.images import picture_files, read_image

SHOWN = np.uint8([[[0], [80], [160]], [[240], [120], [40]]]).repeat(32, 0).repeat(32, 1).repeat(3, 2)  # six grey fields


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow writes no AVIF")
@pytest.mark.parametrize("orientation", range(1, 9))
def test_avif_is_turned_and_mirrored(orientation, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(SHOWN).save(tmp_path / "face.avif", exif=exif, quality=95)  # Pillow writes irot and imir
    expected = np.asarray(ImageOps.exif_transpose(Image.open(tmp_path / "face.avif")).convert("RGB"))[..., ::-1].astype(int)
    image = read_image(tmp_path / "face.avif")
    assert image.shape == expected.shape == ((64, 96, 3) if orientation < 5 else (96, 64, 3))
    assert np.abs(image - expected).mean() < 4


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
        refuses(f"{file.name}: OpenCV .* does not read this {kind} picture; convert it to .jpg or", read_image, Path(file))
