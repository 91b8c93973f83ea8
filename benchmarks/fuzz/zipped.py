"""Takes a `.pt` apart and puts it together again, with checksums and offsets that are right.

A change to a record would end at its CRC-32, and one to the directory at its own checks. So the
members are changed, and the zip is written anew around them; now and then with one lie.
"""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from benchmarks.fuzz.pickled import mutated_pickle

__all__ = ["Member", "members_of", "mutated_pt", "put_together"]

Bytes = Callable[[bytes], bytes]

_CENTRAL = struct.Struct("<4s6H3I5H2I")
_LOCAL = struct.Struct("<4s5H3I2H")
_END = struct.Struct("<4s4H2IH")
_MOST_MEMBERS = 200
_NAMES = (
    *("data.pkl", "byteorder", "version", ".data/serialization_id", ".format_version"),
    *(
        "data/0",
        "data/1",
        "data/2",
        "DATA/0",
        "data/00",
        "data/-1",
        "data/../data/0",
        "constants.pkl",
    ),
    *("code/__torch__.py", "data/", "../x", "/x", "data//0", "C:x", "data\\0", "é", "data/\ud800"),
)
_SIZES = (0, 1, 2, 7, 16, 29, 2**15, 2**16 - 1, 2**31, 2**32 - 2, 2**32 - 1)
# What the directory's and the local header's fields are called here, and their places.
_CENTRAL_FIELDS = ("made", "needs", "flags", "method", "time", "day", "crc32", "packed", "size")
_CENTRAL_LATER = ("named", "extra", "comment", "disk", "inner", "outer", "header")
_LOCAL_FIELDS = ("needs", "flags", "method", "time", "day", "crc32", "packed", "size")
_PLACES = (
    *(f"c.{name}" for name in (*_CENTRAL_FIELDS, *_CENTRAL_LATER)),
    *(f"l.{name}" for name in (*_LOCAL_FIELDS, "named", "extra")),
)


@dataclass(frozen=True)
class Member:
    """One member of a zip.

    Attributes:
        name: whole, as bytes.
        data: its bytes, STORED.
        flags: of its headers.
        padding: bytes of the local header's extra field.
        lies: field to the wrong value, in the directory (``c.size``) or the local header
            (``l.size``).
    """

    name: bytes
    data: bytes
    flags: int = 0
    padding: int = 0
    lies: dict[str, int] = field(default_factory=dict)


def members_of(data: bytes) -> list[Member] | None:
    """Return the members that a directory lists, as far as it can be followed; None without one."""
    end = data.rfind(b"PK\5\6")
    if end < 0 or end + _END.size > len(data):
        return None
    count, at = _END.unpack_from(data, end)[4], _END.unpack_from(data, end)[6]
    found: list[Member] = []
    for _ in range(min(count, _MOST_MEMBERS)):
        if data[at : at + 4] != b"PK\1\2" or at + _CENTRAL.size > len(data):
            break
        values = _CENTRAL.unpack_from(data, at)
        size, named, extra, comment, header = values[9], *values[10:13], values[16]
        name = data[at + _CENTRAL.size :][:named]
        at += _CENTRAL.size + named + extra + comment
        if header + _LOCAL.size > len(data):
            continue
        local = _LOCAL.unpack_from(data, header)
        start = header + _LOCAL.size + local[9] + local[10]
        found.append(Member(name, data[start : start + size], local[2] & 0x0808, local[10]))
    return found


def put_together(members: Sequence[Member], *, comment: bytes = b"", zip64: bool = False) -> bytes:
    """Return a zip of members, each field right but for their lies."""
    body, directory = bytearray(), bytearray()
    for member in members:
        header = len(body)
        crc32 = zlib.crc32(member.data)
        follows = bool(member.flags & 8)
        fields = {
            **dict.fromkeys((*_CENTRAL_FIELDS, *_CENTRAL_LATER), 0),
            **{"flags": member.flags, "named": len(member.name), "header": header},
        }
        sizes = {"crc32": crc32, "packed": len(member.data), "size": len(member.data)}
        padding = b"FB" + struct.pack("<H", max(0, member.padding - 4)) if member.padding else b""
        padding = padding.ljust(member.padding, b"Z")
        local = {**fields, **({} if follows else sizes), "extra": len(padding)}
        local |= {name[2:]: value for name, value in member.lies.items() if name[0] == "l"}
        central = fields | sizes
        central |= {name[2:]: value for name, value in member.lies.items() if name[0] == "c"}
        body += b"PK\3\4" + struct.pack("<5H3I2H", *_places(local, _LOCAL_FIELDS, "named", "extra"))
        body += member.name + padding + member.data
        if follows:
            body += struct.pack("<4s3I", b"PK\7\x08", crc32, len(member.data), len(member.data))
        directory += b"PK\1\2" + struct.pack(
            "<6H3I5H2I", *_places(central, _CENTRAL_FIELDS, *_CENTRAL_LATER)
        )
        directory += member.name
    start, count = len(body), len(members)
    whole = bytes(body + directory)
    if zip64:
        whole += struct.pack(
            "<4sQ2H2I4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, len(directory), start
        )
        whole += struct.pack("<4sIQI", b"PK\6\7", 0, start + len(directory), 1)
    count = min(count, 0xFFFF)
    return (
        whole
        + _END.pack(b"PK\5\6", 0, 0, count, count, len(directory), start, len(comment))
        + comment
    )


def mutated_pt(
    data: bytes, rng: random.Random, plain: Bytes, donors: Sequence[bytes] = ()
) -> bytes:
    """Return a `.pt` with a member or the zip itself changed.

    Args:
        data: a `.pt`.
        rng: what decides.
        plain: changes bytes as such.
        donors: pickles, parts of which may be put into its own.
    """
    members = members_of(data)
    if not members or rng.random() < 0.04:
        return plain(data)
    choice = rng.random()
    if choice < 0.7:
        _change_pickle(members, rng, plain, donors)
    elif choice < 0.8:
        _change_record(members, rng, plain)
    elif choice < 0.9:
        _change_members(members, rng, plain)
    else:
        _lie(members, rng)
    if rng.random() < 0.02:
        return put_together(members, comment=plain(b"comment")[:100], zip64=rng.random() < 0.5)
    return put_together(members, zip64=rng.random() < 0.04)


def _change_pickle(
    members: list[Member], rng: random.Random, plain: Bytes, donors: Sequence[bytes]
) -> None:
    for at, member in enumerate(members):
        if member.name.endswith(b"data.pkl"):
            changed = mutated_pickle(member.data, rng, plain, donors)
            members[at] = replace(member, data=changed)


def _change_record(members: list[Member], rng: random.Random, plain: Bytes) -> None:
    at = rng.randrange(len(members))
    data = members[at].data
    how = rng.random()
    if how < 0.4:
        data = plain(data or b"x")
    elif how < 0.6:
        data = bytes(rng.choice((0, 1, 2, 3, 4, 8, 12, 16, 24, 32, 64, 100, 1024)))
    elif how < 0.8:
        # Indices of sparse tensors, offsets of nested ones, scales of quantized ones.
        words = [rng.choice((0, 1, 2, 3, -1, 4, 2**40, -(2**63))) for _ in range(len(data) // 8)]
        data = struct.pack(f"<{len(words)}q", *words) + data[len(words) * 8 :]
    else:
        data = rng.choice((b"big", b"little", b"\xff\xfe", b"3\n", b"LITTLE"))
    members[at] = replace(members[at], data=data)


def _change_members(members: list[Member], rng: random.Random, plain: Bytes) -> None:
    at = rng.randrange(len(members))
    how = rng.random()
    folder = members[0].name.partition(b"/")[0] + b"/"
    name = folder + rng.choice(_NAMES).encode("utf-8", "surrogatepass")
    if how < 0.25:
        del members[at]
    elif how < 0.5:
        members.insert(at, Member(name, rng.choice((b"", b"\x80\x02}.", bytes(16)))))
    elif how < 0.7:
        members[at] = replace(members[at], name=name)
    elif how < 0.8:
        members[at] = replace(members[at], name=plain(members[at].name)[:200])
    elif how < 0.9:
        members[at] = replace(members[at], padding=rng.randrange(128), flags=rng.choice((0, 8)))
    else:
        rng.shuffle(members)


def _lie(members: list[Member], rng: random.Random) -> None:
    at = rng.randrange(len(members))
    place = rng.choice(_PLACES)
    wide = place[2:] in ("crc32", "packed", "size", "header", "outer")
    value = rng.choice(_SIZES) if rng.random() < 0.6 else rng.randrange(600)
    lies = {**members[at].lies, place: value if wide else value & 0xFFFF}
    if place[2:] in ("size", "packed") and rng.random() < 0.5:
        lies |= {f"{place[:2]}size": value, f"{place[:2]}packed": value}
    members[at] = replace(members[at], lies=lies)


def _places(values: dict[str, int], *names: str | tuple[str, ...]) -> list[int]:
    flat = [name for part in names for name in ((part,) if isinstance(part, str) else part)]
    return [values[name] for name in flat]
