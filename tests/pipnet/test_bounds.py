"""What files may cost: small ones that claim much are refused at once, and large ones of cameras are read."""

import io
import struct
import time
import zlib

import cv2
import numpy as np
import pytest
from conftest import refuses
from PIL import Image

from pipnet.bounds import MOST_BYTES, MOST_DECODED, MOST_PARTS, check_picture, check_unpacked, claimed
from pipnet.heif import upright
from pipnet.images import read_image

AT_ONCE = 5  # s, on a busy machine


def png_of(width: int, height: int, bits: int = 8, kind: int = 2, data: bytes = b"") -> bytes:
    """A PNG that claims a size, and holds the rows `data`, or no pixels."""
    header = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(data)), (b"IEND", b""))
    body = (
        struct.pack(">I", len(part)) + kind + part + struct.pack(">I", zlib.crc32(kind + part)) for kind, part in parts
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(body)


def jpeg_part(marker: int, data: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(data) + 2) + data


def jpeg_of(width: int, height: int, scans: int) -> bytes:
    """A grey progressive JPEG. Each scan goes through all coefficients and changes none."""
    blocks = -(-width // 8) * -(-height // 8)
    one_code = bytes([1] + [0] * 15)
    runs = "".join("0" + f"{max(min(blocks - at, 32767), 16384) - 16384:014b}" for at in range(0, blocks, 32767))
    bits = [text + "1" * (-len(text) % 8) for text in ("0" * blocks, runs)]
    packed = [bytes(int(text[at : at + 8], 2) for at in range(0, len(text), 8)) for text in bits]
    first, later = (data.replace(b"\xff", b"\xff\0") for data in packed)
    return b"".join(
        [
            b"\xff\xd8",
            jpeg_part(0xDB, b"\0" + bytes([1] * 64)),
            jpeg_part(0xC2, struct.pack(">BHHB", 8, height, width, 1) + b"\1\x11\0"),
            jpeg_part(0xC4, b"\0" + one_code + b"\0"),
            jpeg_part(0xC4, b"\x10" + one_code + b"\xe0"),
            jpeg_part(0xDA, b"\1\1\0\0\0\1") + first,
            (jpeg_part(0xDA, b"\1\1\0\1\x3f\x10") + later) * (scans - 1),
            b"\xff\xd9",
        ]
    )


def bmp_of(side: int) -> bytes:
    """A BMP of run lengths, which end at once."""
    header = struct.pack("<IiiHHIIiiII", 40, side, side, 1, 8, 1, 2, 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHHI", 1080, 0, 0, 1078) + header + bytes(1024) + b"\0\1"


def saved(kind: str, image: Image.Image, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def tiff_of(width: int, height: int, bits: int, channels: int, others: int = 0) -> bytes:
    """A TIFF of which only the tags are there, after `others`; the bits of each channel stand behind them."""
    count = others + 4
    tags = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, channels, 10 + 12 * count), (277, 3, 1, channels)]
    packed = bytes(12 * others) + b"".join(struct.pack("<HHII", *tag) for tag in tags)
    return b"II*\0\x08\0\0\0" + struct.pack("<H", count) + packed + struct.pack("<H", bits) * 4


@pytest.mark.parametrize(
    "data",
    [
        png_of(30_000, 30_000),
        b"\xff\xd8\xff\xe0\0\4\xff\xc0\xff\xc2\0\x11\x08" + struct.pack(">HH", 30_000, 30_000) + b"\x03\xff\xd9",
        b"GIF89a" + struct.pack("<HH", 30_000, 30_000),
        b"BM" + bytes(12) + struct.pack("<Iii", 40, 30_000, -30_000),
        b"II*\0\x08\0\0\0\2\0" + struct.pack("<HHII", 256, 4, 1, 30_000) + struct.pack("<HHII", 257, 3, 1, 30_000),
        b"MM\0*\0\0\0\x08\0\2" + struct.pack(">HHIHH", 256, 3, 1, 30_000, 0) + struct.pack(">HHII", 257, 4, 1, 30_000),
        b"RIFF\0\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0" + (29_999).to_bytes(3, "little") * 2,
        b"\xff\x4f\xff\x51\0\x2f\0\0" + struct.pack(">II", 30_000, 30_000),
        b"\0\0\0\x10ftypavif\0\0\0\0ispe\0\0\0\0" + struct.pack(">II", 30_000, 30_000),
        b"\x59\xa6\x6a\x95" + struct.pack(">II", 30_000, 30_000),
        b"P6 # a comment\n30000 30000 255\n",
        b"P7\nHEIGHT 30000\nWIDTH 30000\nDEPTH 3\nMAXVAL 255\nENDHDR\n",
        b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 30000 +X 30000\n",
    ],
)
def test_a_small_file_of_a_huge_picture_is_refused(data, tmp_path):
    """Before memory is taken: decoding 30,000 x 30,000 px would take 3 to 6 GB."""
    (tmp_path / "bomb").write_bytes(data)
    refuses("bomb: a picture of 30000 x 30000 px is too large", read_image, tmp_path / "bomb")


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (jpeg_of(4000, 4000, 2000), "4000 x 4000 px in 2,000 scans"),  # 60 s
        (bmp_of(16_000), "1,080 bytes.*16000 x 16000 px"),  # 20 s, 2.6 GB
        (png_of(14_000, 14_000, 16, 6), "14000 x 14000 px with 8 bytes"),  # 4 GB
        (tiff_of(10_000, 10_000, 64, 3), "10000 x 10000 px with 24 bytes"),
        (tiff_of(30_000, 30_000, 8, 3, 60_000), "30000 x 30000 px is too large"),
        (b"Pf\n11000 11000\n-1\n", "11000 x 11000 px with 12 bytes"),
        (saved("WEBP", Image.new("L", (8000, 8000)), lossless=True), "bytes.*8000 x 8000 px"),
        (saved("TIFF", Image.new("1", (16_000, 16_000)), compression="group4"), "bytes.*16000 x 16000 px"),
        (b"\xff\xd8" + b"\xff\xfe\0\2" * 2**22 + b"\xff\xd9", "16,384 parts"),  # 30 s in Python
        (b"P6" + b" " * 60_000, "not a readable image"),  # for ever, where a pattern matches it in many ways
        (b"P6" + b"#\n" * 30_000, "not a readable image"),
        (b"P7" + b"\nWIDTH  " * 8000, "not a readable image"),
    ],
    ids=range(12),  # not the bytes
)
def test_a_file_that_would_take_much_time_or_memory_is_refused(data, why, tmp_path):
    (tmp_path / "bomb").write_bytes(data)
    begun = time.process_time()
    refuses(f"bomb: .*{why}", read_image, tmp_path / "bomb")
    assert time.process_time() - begun < AT_ONCE


def test_the_properties_of_an_avif_are_read_up_to_a_bound():
    """Nested headers of 8 bytes each, a million of them, and a table of as many rows."""
    begun, image = time.process_time(), np.zeros((4, 6, 3), np.uint8)
    box = struct.Struct(">I4s")
    rows = bytes(3) * 4_000_000
    table = box.pack(16 + len(rows), b"ipma") + bytes(8) + rows
    inner = b"\0" * 4 + box.pack(8 + len(table), b"iprp") + table
    for data in (box.pack(8, b"free") * 4_000_000, box.pack(8 + len(inner), b"meta") + inner):
        assert upright(image, data).shape == image.shape
    assert time.process_time() - begun < AT_ONCE


@pytest.mark.parametrize(
    ("width", "height", "size", "scans"),
    [(11_600, 8_700, 2e7, 20), (20_000, 10_000, 5e7, 14), (4000, 3000, 1e6, 1), (1000, 1000, 2e5, 1000)],
)
def test_large_photographs_are_within_the_bounds(width, height, size, scans):
    """Their headers; 100 megapixels in as many scans as cameras and packers write."""
    head = jpeg_part(0xC2, struct.pack(">BHHB", 8, height, width, 3) + bytes(9))
    scan = jpeg_part(0xDA, b"\1\1\0\1\x3f\x10") + bytes(int(size / scans))
    note = jpeg_part(0xE1, bytes(60_000))  # 12 MB of notes: a video in a photograph
    check_picture("photo", b"\xff\xd8" + note * 200 + head + scan * scans + b"\xff\xd9" + note)
    for data in (png_of(width, height, 8, 6), png_of(width, min(height, 8000), 16, 2), tiff_of(width, height, 8, 3)):
        check_picture("photo", data + bytes(int(size)))


def test_a_large_picture_is_read(tmp_path):
    """Above SMALL; a progressive JPEG of ten scans."""
    file, image = tmp_path / "photo", np.zeros((4000, 5000, 3), np.uint8)
    image[:2000] = 200
    file.write_bytes(saved("JPEG", Image.fromarray(image), progressive=True))
    assert np.abs(read_image(file)[::500, ::500].astype(int) - image[::500, ::500]).max() < 9


def test_large_archives_are_within_the_bounds(tmp_path):
    """100,000 small pictures, which are packed already, and their labels, which pack well."""
    with open(tmp_path / "set.zip", "wb") as file:
        file.truncate(100_000 * 5000 + 40_000_000)  # bytes, of which the disk holds none
    pictures = {f"{number}.jpg": 5000 for number in range(100_000)}
    check_unpacked(tmp_path / "set.zip", {**pictures, "labels.json": 1_000_000_000})
    refuses("set.zip", check_unpacked, tmp_path / "set.zip", {"labels.json": MOST_BYTES + 1})


@pytest.mark.parametrize(
    "suffix", [".jpg", ".png", ".bmp", ".tif", ".gif", ".webp", ".ppm", ".pam", ".pfm", ".ras", ".hdr"]
)
def test_the_size_in_a_header_is_that_of_the_pixels(suffix):
    image = np.zeros((30, 50, 3), np.float32 if suffix in (".pfm", ".hdr") else np.uint8)
    assert claimed(cv2.imencode(suffix, image)[1].tobytes())[:2] == (50, 30)


def test_the_size_that_other_writers_give():
    image = Image.new("RGBA", (50, 30), (200, 0, 0, 9))
    for kind, options in (("WEBP", {}), ("WEBP", {"lossless": True}), ("TIFF", {}), ("TIFF", {"big_tiff": True})):
        for one in (image, image.convert("RGB"), image.convert("L")):
            assert claimed(saved(kind, one, **options))[:2] == (50, 30), (kind, options, one.mode)
    assert claimed(cv2.imencode(".tif", np.zeros((30, 50, 3), np.uint16))[1].tobytes()) == (50, 30, 6, 1)
    assert claimed(cv2.imencode(".jp2", np.zeros((300, 500, 3), np.uint8))[1].tobytes())[:2] == (500, 300)
    assert claimed(saved("JPEG", image.convert("RGB"), progressive=True)).scans == 14  # three components in two of ten
    assert MOST_DECODED >= 4 * 2**28 and MOST_PARTS > 10_000
