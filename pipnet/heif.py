"""Kind and orientation of HEIF files (.avif, .heic), which OpenCV does not tell."""

from collections.abc import Iterator

import numpy as np

from pipnet.bounds import HEADER, MOST_PARTS

READ = b"avif", b"avis"  # kinds that OpenCV reads
KINDS = {b"hei": "HEIC", b"hev": "HEIC", b"mif": "HEIF", b"msf": "HEIF"}  # by the beginning of their names


def heif_kind(data: bytes) -> str:
    """Return the kind of a HEIF file that begins with `data`: AVIF, which OpenCV reads, HEIC or HEIF; '' for other
    files.
    """
    length = int.from_bytes(data[:4], "big")
    if data[4:8] != b"ftyp":
        return ""
    brands = [data[start : start + 4] for start in (8, *range(16, min(length, len(data), 256), 4))]
    if any(brand in READ for brand in brands):
        return "AVIF"
    return next((KINDS[brand[:3]] for brand in brands if brand[:3] in KINDS), "")


def upright(image: np.ndarray, data: bytes) -> np.ndarray:
    """Return the picture of a HEIF file, turned and mirrored as its properties irot and imir say."""
    for kind, value in _properties(data):
        if kind == b"irot":
            image = np.rot90(image, value & 3)  # anti-clockwise
        elif kind == b"imir":
            image = image[:, ::-1] if value & 1 else image[::-1]
    return np.ascontiguousarray(image)


def _boxes(data: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield (kind, beginning, end) of the first MOST_PARTS boxes in a part of a file, up to one with an impossible
    length.
    """
    for _ in range(MOST_PARTS):
        if start + 8 > end:
            return
        size, body = int.from_bytes(data[start : start + 4], "big"), start + 8
        if size == 1:
            size, body = int.from_bytes(data[body : body + 8], "big"), body + 8
        size = size or end - start
        if size < body - start or start + size > end:
            return
        yield data[start + 4 : start + 8], body, start + size
        start += size


def _properties(data: bytes) -> list[tuple[bytes, int]]:
    """Return (kind, first byte) of each property of the main picture, in the order in which they are applied."""
    meta = next(((start + 4, end) for kind, start, end in _boxes(data, 0, len(data)) if kind == b"meta"), (0, 0))
    parts = {kind: (start, end) for kind, start, end in _boxes(data, *meta)}
    start, end = parts.get(b"pitm", (0, 0))
    main = int.from_bytes(data[start + 4 : min(start + (8 if data[start : start + 1] > b"\0" else 6), end)], "big")
    found: list[tuple[bytes, int]] = []
    tables = list(_boxes(data, *parts.get(b"iprp", (0, 0))))
    for kind, start, end in tables:
        if kind == b"ipco":
            found += [(name, data[body]) if body < last else (name, 0) for name, body, last in _boxes(data, start, end)]
    chosen = [index for kind, start, end in tables if kind == b"ipma" for index in _associated(data[start:end], main)]
    return [found[index - 1] for index in chosen if 0 < index <= len(found)]


def _associated(table: bytes, main: int) -> list[int]:
    """Return the numbers, from 1, of the properties that a table (ipma) gives to an item."""
    wide, size, at = table[:1] > b"\0", 2 if table[3:4] and table[3] & 1 else 1, 8
    mask = 0x7FFF if size == 2 else 0x7F
    while at < min(len(table), HEADER):
        begin = at + (4 if wide else 2)
        count = table[begin] if begin < len(table) else 0
        values = [
            int.from_bytes(table[i : i + size], "big") & mask for i in range(begin + 1, begin + 1 + count * size, size)
        ]
        if int.from_bytes(table[at:begin], "big") == main:
            return values
        at = begin + 1 + count * size
    return []
