"""Width and height of a picture, from the header of its file: they are checked before memory is taken for the pixels."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

from pipnet.errors import UserError

MOST_PIXELS = 2**28  # of a picture: those of the largest phones have 2e8
Order = Literal["little", "big"]
MARKER = re.compile(rb"\xff([^\x00\x01\xd0-\xd8\xff])")  # of a part of a JPEG that has a length, or of the end
END = 0xD9
FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # markers of the parts of a JPEG that tell its size
TEXTS = (  # headers in words: PBM to PFM, PAM, HDR
    re.compile(rb"P[1-6Ff](?:\s+|#[^\n]*\n)+(?P<width>\d{1,10})(?:\s+|#[^\n]*\n)+(?P<height>\d{1,10})"),
    re.compile(rb"P7\s(?=[^\0]*?\bWIDTH\s+(?P<width>\d{1,10}))[^\0]*?\bHEIGHT\s+(?P<height>\d{1,10})"),
    re.compile(rb"#\?[^\0]*?\n-Y (?P<height>\d{1,10}) \+X (?P<width>\d{1,10})"),
)
HEADER = 2**16  # bytes in which a header in words stands
MOST_TAGS = 2**12  # of a TIFF
WIDE = {1: 1, 3: 2, 4: 4, 13: 4, 16: 8}  # bytes of a whole number in a TIFF, by its type


def check_size(file: Path | str, width: int, height: int) -> None:
    """Raise UserError for a picture with more than MOST_PIXELS, which a small file can claim."""
    if width * height > MOST_PIXELS:
        raise UserError(
            f"{file}: a picture of {width} x {height} px is too large ({MOST_PIXELS:,} px at most); shrink it"
        )


def picture_size(data: bytes) -> tuple[int, int]:
    """Return (width, height) in px that a file claims, before it is turned upright; (0, 0) if its header does not say.

    AVIF is left to its decoder, which takes at most 2**28 px.
    """

    def number(at: int, length: int, order: Order = "little") -> int:
        return int.from_bytes(data[at : at + length], order)

    if data.startswith(b"\x89PNG"):
        return number(16, 4, "big"), number(20, 4, "big")
    if data.startswith(b"\xff\xd8"):
        return _jpeg(data)
    if data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return _tiff(data, number)
    if data.startswith(b"GIF8"):
        return number(6, 2), number(8, 2)
    if data.startswith(b"BM"):
        length = 2 if number(14, 4) == 12 else 4
        width, height = (data[at : at + length] for at in (18, 18 + length))
        signed = length == 4  # a negative height: the rows begin at the top
        return abs(int.from_bytes(width, "little", signed=signed)), abs(int.from_bytes(height, "little", signed=signed))
    if data[8:16] == b"WEBPVP8X":
        return number(24, 3) + 1, number(27, 3) + 1
    if data.startswith(b"\x59\xa6\x6a\x95"):  # Sun raster
        return number(4, 4, "big"), number(8, 4, "big")
    if (at := data.find(b"\xff\x4f\xff\x51", 0, HEADER)) >= 0:  # JPEG 2000
        return number(at + 8, 4, "big"), number(at + 12, 4, "big")
    for text in TEXTS:
        if found := text.match(data, 0, HEADER):
            return int(found["width"]), int(found["height"])
    return 0, 0


def jpeg_parts(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield (marker, place of the content) of the parts of a JPEG's first picture that have a length, and of its end."""
    place = 2
    while marker := MARKER.search(data, place):
        yield marker[1][0], marker.end()
        place = marker.end() + int.from_bytes(data[marker.end() : marker.end() + 2], "big")


def _jpeg(data: bytes) -> tuple[int, int]:
    at = next((at for marker, at in jpeg_parts(data) if marker in FRAMES), len(data))
    height, width = (int.from_bytes(data[place : place + 2], "big") for place in (at + 3, at + 5))
    return width, height


def _tiff(data: bytes, number: Callable[[int, int, Order], int]) -> tuple[int, int]:
    """Return the largest width and height in the first directory."""
    order: Order = "little" if data[:1] == b"I" else "big"
    large = b"+" in data[:4]
    word, first, row = (8, 8, 20) if large else (4, 4, 12)
    start = number(first, word, order)
    count = 8 if large else 2
    sides = {256: 0, 257: 0}
    for at in range(start + count, start + count + row * min(number(start, count, order), MOST_TAGS), row):
        tag, kind = number(at, 2, order), number(at + 2, 2, order)
        if tag in sides and kind in WIDE:
            sides[tag] = max(sides[tag], number(at + 4 + word, WIDE[kind], order))
    return sides[256], sides[257]
