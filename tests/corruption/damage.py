"""Ways to damage a file: every kind of place in a `.pt`, and what happens to whole files."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Iterator


def flipped(data: bytes, at: int, mask: int = 0x10) -> bytes:
    """Return the bytes with some bits of one of them turned round."""
    changed = bytearray(data)
    changed[at] ^= mask
    return bytes(changed)


def places(data: bytes) -> dict[str, int]:
    """Return one place of every kind in a `.pt`, by what it is."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        infos = archive.infolist()
        directory = archive.start_dir
    found = {"the first byte": 0}
    for info in infos:
        name = info.filename.partition("/")[2]
        starts = _start(data, info)
        found |= {
            f"the header of {name}: its signature": info.header_offset + 1,
            f"the header of {name}: its flags": info.header_offset + 6,
            f"the header of {name}: its name": info.header_offset + 30,
            f"the padding before {name}": starts - 1,
            f"the first byte of {name}": starts,
            f"the middle of {name}": starts + info.file_size // 2,
            f"the last byte of {name}": starts + info.file_size - 1,
            f"what follows {name}: its CRC": starts + info.file_size + 4,
        }
    end = data.rindex(b"PK\5\6")
    found |= {
        "the directory: a signature": directory,
        "the directory: a time": directory + 12,
        "the directory: a CRC": directory + 16,
        "the directory: a size": directory + 20,
        "the directory: an offset": directory + 42,
        "the directory: a name": directory + 46,
        "the directory's last byte": end - 1,
        "the end: its signature": end,
        "the end: its count": end + 10,
        "the end: its offset": end + 16,
        "the last byte": len(data) - 1,
    }
    if b"PK\6\6" in data[directory:]:
        found["the long end: its size"] = data.rindex(b"PK\6\6") + 40
        found["the locator of the long end"] = data.rindex(b"PK\6\7") + 8
    return found


def damaged(data: bytes, others: dict[str, bytes]) -> Iterator[tuple[str, bytes]]:
    """Give damaged versions of a `.pt`, by what was done to it.

    Args:
        data: the file.
        others: files of the same size from elsewhere, by what they are.
    """
    for what, at in places(data).items():
        yield f"a bit in {what}", flipped(data, at)
    yield from changed_sizes(data)
    for what, other in others.items():
        assert len(other) == len(data), what
        assert other != data, what
        yield f"{what} in its place", other


def changed_sizes(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Give versions of any file that are too short or too long, by what was done to it."""
    yield "cut off by a byte", data[:-1]
    yield "cut off in the middle", data[: len(data) // 2]
    yield "emptied", b""
    yield "a byte longer", data + b"\0"
    yield "garbage after its end", data + bytes(range(256)) * 4


def _start(data: bytes, info: zipfile.ZipInfo) -> int:
    named, extra = struct.unpack_from("<2H", data, info.header_offset + 26)
    return int(info.header_offset) + 30 + int(named) + int(extra)
