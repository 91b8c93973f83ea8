"""Zips that mean one thing to one reader and another to the next, or lead out of themselves."""

from __future__ import annotations

import io
import struct
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping

import torch
from building import Gadgets, Item, called, plain, saved, text, zipped

__all__ = ["archives", "crafted"]

_READ = frozenset({"index", "model"})
_CENTRAL, _END, _LOCAL = b"PK\1\2", b"PK\5\6", b"PK\3\4"


def archives(gadgets: Gadgets) -> Iterator[Item]:
    """Yield each crafted zip as a model.pt, and the same as an old file."""
    evil = called("posix:system", gadgets.command)
    for title, data in crafted(evil).items():
        yield Item(title, plain({"model.pt": data}), _READ)
        yield Item(f"{title}, named", plain({"x.pt": data}), frozenset({"open"}), target="x.pt")


def crafted(evil: bytes) -> Mapping[str, bytes]:
    """Return zips that have to be refused, by what is wrong with them."""
    sound = saved({"w": torch.arange(4.0), "b": torch.ones(2)})
    poisoned = zipped(b"}" + text("w") + evil + b"s")
    small = zipped(b"}" + text("w") + b"K\x01s", {"data/0": bytes(100), "data/1": bytes(100)})
    made = {
        **_members(sound, evil),
        **_directory(small),
        **_ends(sound, poisoned, small),
        **_prefixes(sound, poisoned),
        **_cases(evil),
    }
    made["cut in the middle"] = sound[: len(sound) // 2]
    made["a zip in a zip"] = zipped(sound, frame=False)
    return made


def _members(sound: bytes, evil: bytes) -> Mapping[str, bytes]:
    body = b"\x80\x02}" + text("w") + evil + b"s."
    names = ("../../x", "/etc/passwd", "archive/../../x", "archive\\..\\x", "C:/x", "archive//x")
    names += ("archive/./x", "..", "archive/..", "archive/a:b", "archive/\\\\host\\x", "./x")
    made = {f"a member named {name}": _with(sound, name, b"x") for name in names}
    made["a member with a NUL"] = _with(sound, "archive/x#data.pkl", b"x").replace(
        b"x#data", b"x\0data"
    )
    made["data.pkl twice, evil last"] = _with(sound, "archive/data.pkl", body)
    made["DATA.PKL beside data.pkl"] = _with(sound, "archive/DATA.PKL", body)
    made["data.pkl twice, evil first"] = _rebuilt(sound, {"archive/data.pkl": body}, first=True)
    made["deflated"] = _rebuilt(sound, {}, method=zipfile.ZIP_DEFLATED)
    made["bzip2"] = _rebuilt(sound, {}, method=zipfile.ZIP_BZIP2)
    made["lzma"] = _rebuilt(sound, {}, method=zipfile.ZIP_LZMA)
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02" + b"N" * 50_000_000 + b".")
    made["deflated, 50 MB of one byte"] = bomb.getvalue()
    return made


def _with(data: bytes, name: str, content: bytes) -> bytes:
    """Return a zip with one more member."""
    buffer = io.BytesIO(data)
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "a") as archive:
        warnings.simplefilter("ignore")
        member = zipfile.ZipInfo("x")
        member.filename = name
        archive.writestr(member, content)
    return buffer.getvalue()


def _rebuilt(
    data: bytes, more: Mapping[str, bytes], *, method: int = zipfile.ZIP_STORED, first: bool = False
) -> bytes:
    buffer = io.BytesIO()
    with (
        warnings.catch_warnings(),
        zipfile.ZipFile(io.BytesIO(data)) as old,
        zipfile.ZipFile(buffer, "w", method) as new,
    ):
        warnings.simplefilter("ignore")
        for name, content in more.items() if first else ():
            new.writestr(name, content)
        for name in old.namelist():
            new.writestr(name, old.read(name))
    return buffer.getvalue()


def _at(data: bytes, name: bytes) -> int:
    """Return where a member's entry in the directory begins."""
    return data.rindex(_CENTRAL, 0, data.rindex(name))


def _directory(small: bytes) -> Mapping[str, bytes]:
    """Return zips whose directory lies about its members."""

    def lying(name: bytes, change: Callable[[bytearray, int], None]) -> bytes:
        data = bytearray(small)
        change(data, _at(small, name))
        return bytes(data)

    def pack(form: str, place: int, *values: int) -> Callable[[bytearray, int], None]:
        return lambda data, at: struct.pack_into(form, data, at + place, *values)

    record, pickled = b"archive/data/0", b"archive/data.pkl"
    first = struct.unpack_from("<I", small, _at(small, record) + 42)[0]
    made = {
        "huge on paper": lying(record, pack("<II", 20, 2**31, 2**31)),
        "huge unpacked": lying(record, pack("<I", 24, 2**31)),
        "huge packed": lying(record, pack("<I", 20, 2**31)),
        "zip64 without its field": lying(record, pack("<II", 20, 0xFFFFFFFF, 0xFFFFFFFF)),
        "encrypted": lying(pickled, pack("<H", 8, 1)),
        "strongly encrypted": lying(pickled, pack("<H", 8, 0x41)),
        "deflated on paper": lying(pickled, pack("<H", 10, 8)),
        "on another disk": lying(pickled, pack("<H", 34, 1)),
        "overlapping": lying(b"archive/data/1", pack("<I", 42, first + 20)),
        "one place for two": lying(b"archive/data/1", pack("<I", 42, first)),
        "outside of the file": lying(record, pack("<I", 42, 2**31)),
        "in the directory": lying(record, pack("<I", 42, small.rindex(_CENTRAL))),
        "a name beyond the directory": lying(b"archive/version", pack("<H", 28, 60_000)),
        "a comment beyond the directory": lying(b"archive/version", pack("<H", 32, 60_000)),
        "another CRC": lying(pickled, pack("<I", 16, 1)),
        "a shorter pickle": lying(pickled, pack("<II", 20, 3, 3)),
    }
    for title, place in {
        "method": 8,
        "flags": 6,
        "crc": 14,
        "size": 22,
        "name": 26,
        "extra": 28,
    }.items():
        data = bytearray(small)
        data[place] ^= 0x41
        made[f"a local header with another {title}"] = bytes(data)
    # The data descriptor of one record, with the signature left out.
    data = bytearray(small)
    struct.pack_into("<H", data, 6, 8)
    made["sizes that follow, and do not"] = bytes(data)
    return made


def _end(data: bytes, start: int, size: int, count: int, comment: bytes = b"") -> bytes:
    return (
        data
        + struct.pack("<4s4H2IH", _END, 0, 0, count, count, size, start, len(comment))
        + comment
    )


def _parts(data: bytes) -> tuple[bytes, bytes, int]:
    """Return the members, the directory, and the number of its entries."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        start, count = archive.start_dir, len(archive.namelist())
    end = data.index(_CENTRAL, start)
    for _ in range(count):
        named, extra, comment = struct.unpack_from("<3H", data, end + 28)
        end += 46 + named + extra + comment
    return data[:start], data[start:end], count


def _ends(sound: bytes, poisoned: bytes, small: bytes) -> Mapping[str, bytes]:
    """Return zips with two ends, or an end that lies."""
    members, directory, count = _parts(small)
    start, size = len(members), len(directory)
    body = members + directory
    evil_members, evil_directory, evil_count = _parts(poisoned)
    hidden = _end(evil_directory, 0, len(evil_directory), evil_count)
    made = {
        "an end in the comment": _end(body, start, size, count, poisoned[-200:]),
        "a whole zip in the comment": _end(body, start, size, count, poisoned),
        "an end that names more": _end(body, start, size, count + 1),
        "an end that names fewer": _end(body, start, size, count - 1),
        "an end that names none": _end(body, start, size, 0),
        "60000 records": _end(body, start, size, 60_000),
        "a directory elsewhere": _end(body, start - 4, size, count),
        "a directory that is too short": _end(body, start, size - 1, count),
        "a directory beyond the end": _end(body, start, 2**31, count),
        "two ends, one after the other": _end(_end(body, start, size, count), start, size, count),
        "a comment that is cut": _end(body, start, size, count, b"x" * 50)[:-1],
        "a comment of 64 KiB": _end(body, start, size, count, b"P" * 65_535)[:-1],
        "junk after the end": small + b"junk",
        "two directories": _end(
            members + evil_members.replace(_LOCAL, _LOCAL) + directory + evil_directory,
            start,
            size,
            count,
        ),
        "a hidden end before the directory": _end(members + hidden + directory, start, size, count),
    }
    made |= _long_ends(body, start, size, count)
    return made


def _long_ends(body: bytes, start: int, size: int, count: int) -> Mapping[str, bytes]:
    """Return zips whose two ends, the short one and the long one, disagree."""

    def ends(
        place: int, *, start64: int = start, size64: int = size, count64: int = count
    ) -> bytes:
        long = struct.pack(
            "<4sQ2H2I4Q", b"PK\6\6", 44, 45, 45, 0, 0, count64, count64, size64, start64
        )
        locator = struct.pack("<4sIQI", b"PK\6\7", 0, place, 1)
        return _end(body + long + locator, start, size, count)

    there = len(body)
    return {
        "a long end elsewhere": ends(0),
        "a long end far away": ends(2**62),
        "a long end with another start": ends(there, start64=start - 46),
        "a long end with another size": ends(there, size64=2**62),
        "a long end with another count": ends(there, count64=2**62),
    }


def _prefixes(sound: bytes, poisoned: bytes) -> Mapping[str, bytes]:
    return {
        "junk before": b"junk" * 16 + sound,
        "a zip before": poisoned + sound,
        "a header before": sound[:64] + sound,
        "a pickle before": b"\x80\x02N." + sound,
    }


def _cases(evil: bytes) -> Mapping[str, bytes]:
    """Return zips with names that torch finds, since it ignores case, and others do not."""
    body = b"\x80\x02}" + text("w") + b"K\x01s."
    made = {}
    for title, names in {
        "BYTEORDER": {"archive/data.pkl": body, "archive/BYTEORDER": b"big"},
        "another folder's byteorder": {"archive/data.pkl": body, "ARCHIVE/byteorder": b"big"},
        "another folder's data.pkl": {
            "archive/data.pkl": body,
            "Archive/x": b"\x80\x02" + evil + b".",
        },
        "Data.pkl alone": {"archive/Data.pkl": body},
        "a byte order that is none": {"archive/data.pkl": body, "archive/byteorder": b"middle"},
        "a byte order without an end": {
            "archive/data.pkl": body,
            "archive/byteorder": b"l" * 10**6,
        },
        "no folder": {"data.pkl": body},
    }.items():
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            for name, data in names.items():
                archive.writestr(name, data)
        made[title] = buffer.getvalue()
    return made
