"""Ways to damage a file: functions of its bytes and a random generator."""

import pickle
import re

import numpy as np

# fmt: off
HUGE = [b"nan", b"inf", b"-1", b"0", b"1e308", b"1e-320", b"999999999999", b"-99999999999999999999", b"1_0", b"0x10", b"",
        b"null"]
# fmt: on


def truncated(data: bytes, rng: np.random.Generator) -> bytes:
    return data[: rng.integers(len(data) + 1)]


def bits(data: bytes, rng: np.random.Generator) -> bytes:
    changed = np.frombuffer(data, np.uint8).copy()
    for place in rng.integers(len(data), size=rng.integers(1, 9)):
        changed[place] ^= 1 << rng.integers(8)
    return changed.tobytes()


def head_bits(data: bytes, rng: np.random.Generator) -> bytes:
    return bits(data[:64], rng) + data[64:]


def block(data: bytes, rng: np.random.Generator) -> tuple[int, int]:
    """Return begin and end of a random part, mostly a short one."""
    begin, size = rng.integers(len(data)), int(len(data) ** rng.random())
    return int(begin), int(begin) + size


def zeros(data: bytes, rng: np.random.Generator) -> bytes:
    begin, end = block(data, rng)
    return data[:begin] + bytes(len(data[begin:end])) + data[end:]


def noise(data: bytes, rng: np.random.Generator) -> bytes:
    begin, end = block(data, rng)
    return data[:begin] + rng.bytes(len(data[begin:end])) + data[end:]


def removed(data: bytes, rng: np.random.Generator) -> bytes:
    begin, end = block(data, rng)
    return data[:begin] + data[end:]


def repeated(data: bytes, rng: np.random.Generator) -> bytes:
    begin, end = block(data, rng)
    return data[:end] + data[begin:end] * int(rng.integers(1, 20)) + data[end:]


def large(data: bytes, rng: np.random.Generator) -> bytes:
    """Overwrite four or eight bytes near the head by a large number: the sizes that headers claim."""
    size = int(rng.choice([4, 8]))
    place = rng.integers(min(len(data), 512))
    number = int(rng.choice([2**31 - 1, 10**9, 20_000, 2**16 - 1]))
    return data[:place] + number.to_bytes(size, str(rng.choice(["little", "big"]))) + data[place + size :]


def number(data: bytes, rng: np.random.Generator) -> bytes:
    """Replace a number in a text by an odd one."""
    found = list(re.finditer(rb"-?\d+(\.\d+)?", data))
    if not found:
        return bits(data, rng)
    one = found[rng.integers(len(found))]
    return data[: one.start()] + HUGE[rng.integers(len(HUGE))] + data[one.end() :]


def word(data: bytes, rng: np.random.Generator) -> bytes:
    """Replace a word of a text by another one of it."""
    found = list(re.finditer(rb"[^\s,:{}\[\]\"]+", data))
    if len(found) < 2:
        return bits(data, rng)
    one, two = (found[place] for place in rng.integers(len(found), size=2))
    return data[: one.start()] + two[0] + data[one.end() :]


def lines(data: bytes, rng: np.random.Generator) -> bytes:
    """Swap, drop or double lines."""
    parts = data.split(b"\n")
    for place in rng.integers(len(parts), size=3):
        parts[place] = parts[rng.integers(len(parts))] if rng.random() < 0.7 else b""
    return b"\n".join(parts)


def encoding(data: bytes, rng: np.random.Generator) -> bytes:
    return [
        b"\xef\xbb\xbf" + data,
        data.decode("latin1").encode("utf-16"),
        data.replace(b"\n", b"\r"),
        b"\x00" + data,
        data + b"\xff\xfe\x00",
    ][rng.integers(5)]


def stranger(data: bytes, rng: np.random.Generator) -> bytes:
    """Return something else: an empty file, noise, deep nesting, a file of another kind."""
    depth = int(rng.integers(10, 100_000))
    return [
        b"",
        rng.bytes(int(rng.integers(1, 5000))),
        b"[" * depth,
        b'{"a":' * depth,
        b"<a>" * depth,
        pickle.dumps({"a": 1}),
        b"\x89PNG\r\n\x1a\n" + rng.bytes(100),
        b"PK\x03\x04" + rng.bytes(200),
        b"a: &a [*a, *a]\n" * 9,
        b"\x93NUMPY\x01\x00v\x00{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000, 2), }"
        + b" " * 40
        + b"\n",
    ][rng.integers(10)]


BINARY = (truncated, bits, head_bits, zeros, noise, removed, repeated, large, stranger)
TEXT = (truncated, bits, number, word, lines, removed, repeated, encoding, stranger)
