"""The pixels of a small PNG of 8 bits a channel, by Python's own library."""

from __future__ import annotations

import struct
import zlib

__all__ = ["pixels"]

_CHANNELS = {2: 3, 6: 4}


def pixels(data: bytes) -> list[tuple[int, ...]]:
    """Return red, green and blue of each pixel, row by row (https://www.w3.org/TR/png)."""
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    at, packed, head = 8, b"", b""
    while at < len(data):
        (length,) = struct.unpack_from(">I", data, at)
        kind, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        head = body if kind == b"IHDR" else head
        packed += body if kind == b"IDAT" else b""
        at += 12 + length
    width, height, depth, colour = struct.unpack_from(">IIBB", head)
    assert depth == 8
    step = _CHANNELS[colour]
    raw = zlib.decompress(packed)
    before = bytes(width * step)
    found = []
    for row in range(height):
        start = row * (width * step + 1)
        line = _unfiltered(raw[start], raw[start + 1 : start + 1 + width * step], before, step)
        found += [tuple(line[x : x + 3]) for x in range(0, len(line), step)]
        before = line
    return found


def _unfiltered(kind: int, line: bytes, before: bytes, step: int) -> bytes:
    found = bytearray(line)
    for at in range(len(found)):
        left = found[at - step] if at >= step else 0
        corner = before[at - step] if at >= step else 0
        found[at] = (found[at] + _guess(kind, left, before[at], corner)) & 255
    return bytes(found)


def _guess(kind: int, left: int, up: int, corner: int) -> int:
    if kind == 4:
        best = left + up - corner
        return min((left, up, corner), key=lambda value: abs(best - value))
    return (0, left, up, (left + up) // 2)[kind]
