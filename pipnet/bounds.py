"""What a file may cost: its header is read before memory and time are taken for its content. All bounds stand here.

The bounds let through what cameras, scanners and annotation tools write, and stop small files that claim much.
"""

import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Literal, NamedTuple
from zipfile import BadZipFile, ZipFile

from pipnet.errors import UserError

MOST_PIXELS = 2**28  # of a picture: those of the largest phones have 2e8
MOST_DECODED = 5 * 2**28  # bytes of its pixels: 4 channels of 8 bits of the largest one, or 1.6e8 px of 16 bits
MOST_SCANNED = 2**33  # px that the scans of a JPEG go through, in 10 to 30 s; 20 scans of 2e8 px are half of that
SMALL = 2**24  # px of a picture that may be packed at any ratio
DENSEST = 10_000  # px that a byte of a larger one may hold: PNG packs at most 8,300 black ones, photographs have 20
MOST_PARTS = 2**14  # of a file, which Python goes through: 1 GB of a camera's notes in a JPEG
MOST_BYTES = 2**31  # of a file that is read as a whole, such as labels: those of COCO's people have 1 GB
MOST_RATIO, FREELY = 100, 2**28  # bytes to which a byte of a ZIP unpacks; labels have 5 to 30. Bytes of any ratio
MOST_METADATA = 2**24  # bytes of the metadata of an exported net
MOST_YAML, MOST_VALUES = 2**20, 200_000  # bytes and values of a YAML file
MOST_TEXT = 2**22  # bytes of a mean face as text
MOST_CROP = 2**27  # bytes of a stored crop
MOST_ARRAYS = 2**28  # bytes of the arrays of a packed file
MOST_SHARED = 4  # bytes of the tensors in a file / bytes of the file: some share their values
MOST_LANDMARKS = 10_000  # of a layout
MOST_PX = 2048  # side of a net's input: its maps take 1 GB then
MOST_THREADS = 1024  # of a net; many more take minutes to start
MOST_TAGS = 2**16  # of a TIFF: its decoder takes no more
Order = Literal["little", "big"]
MARKER = re.compile(rb"\xff([^\x00\x01\xd0-\xd8\xff])")  # of a part of a JPEG that has a length, or of the end
END, SCAN = 0xD9, 0xDA
FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # markers of the parts of a JPEG that tell its size
# headers in words: PBM to PFM, PAM, HDR. No text is matched in two ways, which would take for ever
TEXTS = (
    re.compile(rb"P[1-6Ff](?:\s|#[^\n]*\n)+(?P<width>\d{1,10})(?:\s|#[^\n]*\n)+(?P<height>\d{1,10})"),
    re.compile(rb"P7\s(?=[^\0]*?\bWIDTH\s+(?P<width>\d{1,10}))[^\0]*?\bHEIGHT\s+(?P<height>\d{1,10})"),
    re.compile(rb"#\?[^\0]*?\n-Y (?P<height>\d{1,10}) \+X (?P<width>\d{1,10})"),
)
FLOATS = b"PF", b"Pf", b"#?"  # texts whose pixels are floats
HEADER = 2**16  # bytes in which a header in words, and the sizes of an AVIF, stand
SIZES = re.compile(rb"ispe\0\0\0\0(.{4})(.{4})", re.DOTALL)  # of an AVIF and its parts
WIDE = {1: 1, 3: 2, 4: 4, 13: 4, 16: 8}  # bytes of a whole number in a TIFF, by its type
WIDTH, HEIGHT, BITS, CHANNELS = 256, 257, 258, 277  # tags of a TIFF


class Claim(NamedTuple):
    """What the header of a picture says: its size in px before it is turned upright, 0 if it does not say it; bytes that
    its decoder takes for a pixel, about; and how often it goes through the pixels.
    """

    width: int = 0
    height: int = 0
    depth: int = 4
    scans: int = 1


def check_picture(file: Path | str, data: bytes) -> None:
    """Raise UserError for the content of a picture's file that would take too much time or memory."""
    width, height, depth, scans = claimed(data)
    check_size(file, width, height, depth)
    if width * height > max(SMALL, DENSEST * len(data)):
        raise UserError(f"{file}: {len(data):,} bytes cannot hold a photograph of {width} x {height} px; shrink it")
    if width * height * scans > MOST_SCANNED:
        raise UserError(
            f"{file}: a JPEG of {width} x {height} px in {scans:,} scans takes too long; save it again, not progressive"
        )
    if data.startswith(b"\xff\xd8") and len(jpeg_parts(data)) > MOST_PARTS:
        raise UserError(f"{file}: a JPEG of more than {MOST_PARTS:,} parts; save it again")


def check_size(file: Path | str, width: int, height: int, depth: int = 4) -> None:
    """Raise UserError for a picture with more than MOST_PIXELS or MOST_DECODED bytes, which a small file can claim."""
    if width * height > MOST_PIXELS:
        raise UserError(
            f"{file}: a picture of {width} x {height} px is too large ({MOST_PIXELS:,} px at most); shrink it"
        )
    if width * height * depth > MOST_DECODED:
        raise UserError(
            f"{file}: a picture of {width} x {height} px with {depth} bytes a pixel is too large ({MOST_DECODED:,} bytes "
            "at most); shrink it, or save it with 8 bits a channel"
        )


def check_unpacked(file: Path, sizes: dict[str, int]) -> None:
    """Raise UserError for a ZIP whose files have these sizes once they are unpacked, if it would fill disk or memory."""
    size = file.stat().st_size  # files in it may overlap, so that their packed sizes do not tell it
    if sum(sizes.values()) > max(FREELY, MOST_RATIO * size):
        raise UserError(
            f"{file}: its {size:,} bytes unpack to {sum(sizes.values()):,}, which no pictures and labels do; unpack it yourself"
        )
    large = max(sizes, key=lambda name: sizes[name])
    if sizes[large] > MOST_BYTES:
        raise UserError(f"{file}: {large[:80]!r} in it has {sizes[large]:,} bytes ({MOST_BYTES:,} at most); split it")


def unpacked_size(file: Path | str) -> int:
    """Return the bytes to which a zip unpacks, 0 for another file."""
    try:
        with ZipFile(file) as archive:
            return sum(part.file_size for part in archive.infolist())
    except (BadZipFile, NotImplementedError, ValueError):
        return 0


def claimed(data: bytes) -> Claim:
    """Return what the header of a picture's file claims."""

    def number(at: int, length: int, order: Order = "little") -> int:
        return int.from_bytes(data[at : at + length], order)

    if data.startswith(b"\x89PNG"):
        return Claim(number(16, 4, "big"), number(20, 4, "big"), 8 if number(24, 1) > 8 else 4)
    if data.startswith(b"\xff\xd8"):
        parts = jpeg_parts(data)
        at = next((at for marker, at in parts if marker in FRAMES), len(data))
        scans = sum(number(at + 2, 1) for marker, at in parts if marker == SCAN)  # each of one component or several
        return Claim(number(at + 5, 2, "big"), number(at + 3, 2, "big"), scans=scans)
    if data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return _tiff(data)
    if data.startswith(b"GIF8"):
        return Claim(number(6, 2), number(8, 2))
    if data.startswith(b"BM"):
        length = 2 if number(14, 4) == 12 else 4
        width, height = (data[at : at + length] for at in (18, 18 + length))
        signed = length == 4  # a negative height: the rows begin at the top
        return Claim(*(abs(int.from_bytes(side, "little", signed=signed)) for side in (width, height)))
    if data[8:16] == b"WEBPVP8X":
        return Claim(number(24, 3) + 1, number(27, 3) + 1)
    if data[8:16] == b"WEBPVP8L":
        return Claim((number(21, 4) & 0x3FFF) + 1, (number(21, 4) >> 14 & 0x3FFF) + 1)
    if data[8:16] == b"WEBPVP8 ":
        return Claim(number(26, 2) & 0x3FFF, number(28, 2) & 0x3FFF)
    if data.startswith(b"\x59\xa6\x6a\x95"):  # Sun raster
        return Claim(number(4, 4, "big"), number(8, 4, "big"))
    if (at := data.find(b"\xff\x4f\xff\x51", 0, HEADER)) >= 0:  # JPEG 2000, whose decoder takes 4 bytes for a value
        return Claim(number(at + 8, 4, "big"), number(at + 12, 4, "big"), 12)
    if data[4:8] == b"ftyp":  # AVIF
        sizes = [(int.from_bytes(width), int.from_bytes(height)) for width, height in SIZES.findall(data, 0, HEADER)]
        return Claim(*max(sizes, key=lambda size: size[0] * size[1], default=(0, 0)), 12)
    for text in TEXTS:
        if found := text.match(data, 0, HEADER):
            return Claim(int(found["width"]), int(found["height"]), 12 if data.startswith(FLOATS) else 8)
    return Claim()


def jpeg_parts(data: bytes) -> list[tuple[int, int]]:
    """Return (marker, place of the content) of the parts of a JPEG's first picture that have a length, and of its end.

    One more than MOST_PARTS stands for any number of them.
    """
    return [*islice(_parts(data), MOST_PARTS + 1)]


def _parts(data: bytes) -> Iterator[tuple[int, int]]:
    place = 2
    while marker := MARKER.search(data, place):
        yield marker[1][0], marker.end()
        if marker[1][0] == END:
            return
        place = marker.end() + int.from_bytes(data[marker.end() : marker.end() + 2], "big")


def _tiff(data: bytes) -> Claim:
    """Return the largest values in the first directory."""
    order: Order = "little" if data[:1] == b"I" else "big"
    large = b"+" in data[:4]
    word, first, row, counts = (8, 8, 20, 8) if large else (4, 4, 12, 2)

    def number(at: int, length: int) -> int:
        return int.from_bytes(data[at : at + length], order)

    start = number(first, word)
    values = {WIDTH: 0, HEIGHT: 0, BITS: 1, CHANNELS: 1}
    for at in range(start + counts, start + counts + row * min(number(start, counts), MOST_TAGS), row):
        tag, kind = number(at, 2), number(at + 2, 2)
        if tag in values and kind in WIDE:
            aside = WIDE[kind] * number(at + 4, word) > word  # several values, which stand elsewhere
            place = number(at + 4 + word, word) if aside else at + 4 + word
            values[tag] = max(values[tag], number(place, WIDE[kind]))
    return Claim(values[WIDTH], values[HEIGHT], max(4, values[BITS] * values[CHANNELS] // 8))
