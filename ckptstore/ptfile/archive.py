"""The zip around a `.pt`: which record is where, read from the directory at the file's end.

torch looks records up by name and believes the directory, so the rules are:

1. Every member is STORED, and its name stays below the archive's one folder.
2. No name stands there twice, in any case: torch's lookup ignores case. For the same reason
   none differs only by case from one that torch asks for: torch would find it, others not.
3. No two members overlap, and all lie between the file's start and its directory.
4. A local header says the same as the directory; it is looked at when its record is read.
5. No attribute calls a member a folder whose name does not: torch would take it for read without
   reading it, and give out whatever was in that memory before.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import BinaryIO

from ckptstore.errors import CkptstoreError, CorruptionError, UnsafeError

__all__ = ["Archive", "Record", "Spans", "read_archive", "read_at"]

_WINDOW = 64 * 2**10
_MOST_BROUGHT = 64 * 2**20
_MOST_RECORDS = 2**20
_MOST_DIRECTORY = 128 * 2**20
_END = struct.Struct("<4s4H2IH")
_END64_LOCATOR = struct.Struct("<4sIQI")
_END64 = struct.Struct("<4sQ2H2I4Q")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_LOCAL = struct.Struct("<4s5H3I2H")
_HARMLESS_FLAGS = 0x0808  # sizes follow the data; the name is UTF-8
_SIZES_FOLLOW = 0x0008
_IS_FOLDER = 0x10
_ASKED_FOR = {b"data.pkl", b"byteorder", b"version", b".data/version", b"constants.pkl"}
_ASKED_FOR |= {b".format_version", b".storage_alignment"}

_Member = tuple[bytes, int, int, int, int]


@dataclass(frozen=True)
class Record:
    """One member of the archive.

    Attributes:
        name: its name below the archive's folder, such as ``data/0``.
        member: its whole name, as bytes.
        header: where its local header begins.
        limit: where the next member, or the directory, begins.
        size: bytes.
        crc32: of its bytes, as the directory says.
        flags: of the zip, as the directory says.
    """

    name: str
    member: bytes
    header: int
    limit: int
    size: int
    crc32: int
    flags: int

    @property
    def header_size(self) -> int:
        """Bytes of its local header that say where its own bytes begin."""
        return _LOCAL.size + len(self.member)

    @property
    def expected_start(self) -> int:
        """Where its bytes begin, if its local header agrees with the directory."""
        return self.limit - self.size - _trailer(self, self.flags)


@dataclass(frozen=True)
class Archive:
    """The directory of a `.pt`.

    Attributes:
        where: what to call the file in errors.
        size: bytes of the whole file.
        records: by name below the archive's folder.
    """

    where: str
    size: int
    records: Mapping[str, Record]

    def start(self, file: BinaryIO | Spans, record: Record) -> int:
        """Return where a record's bytes begin, once its local header agrees with the directory.

        Raises:
            CorruptionError: it does not agree, or is no header at all.
        """
        return self.agreed(record, read_at(file, record.header, record.header_size, self.where))

    def agreed(self, record: Record, raw: bytes | memoryview) -> int:
        """Return where a record's bytes begin, by the ``header_size`` bytes of its local header.

        Raises:
            CorruptionError: it does not agree with the directory, or is no header at all.
        """
        signature, _, flags, method, _, _, crc32, packed, size, named, extra = _LOCAL.unpack_from(
            raw
        )
        sizes = {packed, size} - {record.size, 0xFFFFFFFF}
        start: int = record.header + _LOCAL.size + named + extra
        if (
            signature != b"PK\3\4"
            or method != 0
            or flags & ~_HARMLESS_FLAGS
            or bytes(raw[_LOCAL.size :]) != record.member
            or named != len(record.member)
            or (not flags & _SIZES_FOLLOW and (sizes or crc32 != record.crc32))
            or record.limit - start - record.size != _trailer(record, flags)
        ):
            raise CorruptionError(
                f"{self.where} is damaged: the header of its record {record.name!r} contradicts "
                "the directory; restore it from a good copy"
            )
        return start


def _trailer(record: Record, flags: int) -> int:
    """Return the bytes between a record and the next header; so its start cannot be shifted."""
    if not flags & _SIZES_FOLLOW:
        return 0
    return 24 if max(record.size, record.header) >= 0xFFFFFFFF else 16


class Spans:
    """A file of which some parts are at hand, so that an index takes few reads: at first its end.

    Args:
        file: seekable; left open.
        where: what to call it in errors.
    """

    def __init__(self, file: BinaryIO, where: str) -> None:
        self._file = file
        self._where = where
        self.size: int = file.seek(0, 2)
        if not self.size:
            raise CorruptionError(f"{where} is empty; restore it from a good copy")
        self.tail_start = max(0, self.size - _WINDOW)
        self.tail = read_at(file, self.tail_start, self.size - self.tail_start, where)
        self._near = b""  # What is at hand from ``_near_start`` on.
        self._near_start = 0

    def bring(self, start: int, length: int) -> None:
        """Have some bytes at hand, by one read."""
        self._near, self._near_start = self.get(start, length), start

    def get(self, start: int, length: int) -> bytes:
        """Return bytes of the file, without reading where they are at hand."""
        near = start - self._near_start
        if near >= 0 and near + length <= len(self._near):
            return self._near[near : near + length]
        if start >= self.tail_start:
            return self.tail[start - self.tail_start :][:length]
        end = self.tail[: max(0, start + length - self.tail_start)]
        return read_at(self._file, start, length - len(end), self._where) + end


def read_at(file: BinaryIO | Spans, start: int, length: int, where: str) -> bytes:
    """Return exactly these bytes of a file.

    Raises:
        CorruptionError: the file ends before them.
    """
    if isinstance(file, Spans):
        data = file.get(start, length)
    else:
        file.seek(start)
        data = file.read(length)
        while 0 < len(data) < length:
            more = file.read(length - len(data))
            if not more:
                break
            data += more
    if len(data) != length:
        raise CorruptionError(
            f"{where} is truncated: it ends at byte {start + len(data)}, its directory reaches to "
            f"{start + length}; restore it from a good copy"
        )
    return data


def read_archive(spans: Spans, where: str) -> Archive:
    """Read and check the directory of a `.pt`.

    Raises:
        CorruptionError: the file is no zip, is truncated, or its directory is malformed.
        UnsafeError: it is a bare pickle, holds code, or names a member outside its folder.
    """
    try:
        archive = _read_directory(spans, where)
    except CkptstoreError:
        _check_kind(spans, where)  # What it is comes before what is wrong with it.
        raise
    _bring_pickle(spans, archive)
    _check_kind(spans, where)
    return archive


def _bring_pickle(spans: Spans, archive: Archive) -> None:
    """Have the records that an index needs at hand; torch writes them first, and side by side."""
    pickle = archive.records["data.pkl"]
    near = [archive.records.get("byteorder", pickle), pickle]
    start, end = min(r.header for r in near), max(r.limit for r in near)
    if end - start > pickle.size + _WINDOW:
        start, end = pickle.header, min(pickle.limit, pickle.header + pickle.size + _WINDOW)
    if start < _WINDOW:
        start = 0
    if end - start <= _MOST_BROUGHT:
        spans.bring(start, end - start)


def _read_directory(spans: Spans, where: str) -> Archive:
    start, size, count = _find_directory(spans, where)
    if size > _MOST_DIRECTORY or count > min(_MOST_RECORDS, size // _CENTRAL.size):
        raise _damaged(where, f"its directory claims {count} records in {size} bytes")
    members = _parse_directory(spans.get(start, size), count, where)
    _check_layout(members, start, where)
    folder = members[0][0].split(b"/")[0] + b"/" if members else b""
    for member, *_ in members:
        inside = member[len(folder) :]
        if member.lower().startswith(folder.lower()) and (
            not member.startswith(folder) or inside.lower() in _ASKED_FOR - {inside}
        ):
            raise _damaged(where, f"its member {_shown(member)} is in capitals")
    limits = sorted(header for _, header, _, _, _ in members)
    after = dict(zip(limits, [*limits[1:], start], strict=True))
    records = {
        member[len(folder) :].decode("utf-8", "surrogateescape"): Record(
            name=member[len(folder) :].decode("utf-8", "surrogateescape"),
            member=member,
            header=header,
            limit=after[header],
            size=length,
            crc32=crc32,
            flags=flags,
        )
        for member, header, length, crc32, flags in members
        if member.startswith(folder) and not member.endswith(b"/")
    }
    if "data.pkl" not in records:
        raise CorruptionError(f"{where} is a zip file, but no .pt: it holds no data.pkl")
    if "constants.pkl" in records:
        raise UnsafeError(
            f"{where} is a TorchScript archive, which holds code; nothing was run. "
            "Load it with torch.jit.load where you trust it, and save its state_dict()"
        )
    return Archive(where=where, size=spans.size, records=records)


def _check_kind(spans: Spans, where: str) -> None:
    head = spans.get(0, min(spans.size, 8))
    if head.startswith(b"\x80"):
        raise UnsafeError(
            f"{where} is a bare pickle, or in the format that torch wrote before 1.6: neither can "
            "be checked before it is read, and nothing was run; convert it once with "
            "torch.save(torch.load(OLD, weights_only=True), NEW)"
        )
    if not head.startswith(b"PK\3\4"):
        raise CorruptionError(
            f"{where} is not a .pt file: it begins with {head!r}, not with a zip's "
            f"{b'PK'!r}; restore it from a good copy"
        )


def _find_directory(spans: Spans, where: str) -> tuple[int, int, int]:
    """Return the directory's start, its size and the number of its entries."""
    at = spans.tail.rfind(b"PK\5\6")
    if at < 0 or at + _END.size > len(spans.tail):
        raise _truncated(where)
    _, disk, first_disk, here, count, size, start, comment = _END.unpack_from(spans.tail, at)
    end = spans.tail_start + at
    if end + _END.size + comment != spans.size:
        raise _truncated(where)
    locator = end - _END64_LOCATOR.size
    if locator >= 0 and spans.get(locator, 4) == b"PK\6\7":
        _, disk64, end64, disks = _END64_LOCATOR.unpack(spans.get(locator, _END64_LOCATOR.size))
        if end64 != locator - _END64.size or disk64 or disks > 1:
            raise _damaged(where, "the two ends of its directory disagree")
        signature, _, _, _, disk, first_disk, here64, count64, size64, start64 = _END64.unpack(
            spans.get(end64, _END64.size)
        )
        for short, long, most in (
            (here, here64, 0xFFFF),
            (count, count64, 0xFFFF),
            (size, size64, 0xFFFFFFFF),
            (start, start64, 0xFFFFFFFF),
        ):
            if signature != b"PK\6\6" or short not in (long, most):
                raise _damaged(where, "the two ends of its directory disagree")
        end, here, count, size, start = end64, here64, count64, size64, start64
    if disk or first_disk or here != count or start + size != end:
        raise _damaged(where, "its directory is not where the file's end says")
    return start, size, count


def _parse_directory(raw: bytes, count: int, where: str) -> list[_Member]:
    """Return each member's name, header offset, size, CRC-32 and flags, in order."""
    members = []
    at = 0
    for _ in range(count):
        if at + _CENTRAL.size > len(raw):
            raise _damaged(where, "its directory is cut off")
        fields = _CENTRAL.unpack_from(raw, at)
        signature, _, _, flags, method, _, _, crc32, packed, size = fields[:10]
        named, extra, comment, disk, _, attributes, header = fields[10:]
        name = raw[at + _CENTRAL.size :][:named]
        tail = raw[at + _CENTRAL.size + named :][:extra]
        at += _CENTRAL.size + named + extra + comment
        if signature != b"PK\1\2" or at > len(raw) or disk:
            raise _damaged(where, "its directory is malformed")
        size, packed, header = _long_sizes(tail, size, packed, header, where)
        if method != 0 or packed != size or flags & ~_HARMLESS_FLAGS:
            raise _damaged(
                where,
                f"its member {_shown(name)} is compressed or encrypted, which torch never does",
            )
        if attributes & _IS_FOLDER and not name.endswith(b"/"):
            raise _damaged(where, f"its member {_shown(name)} is called a folder")
        _check_name(name, size, where)
        members.append((name, header, size, crc32, flags))
    if at != len(raw):
        raise _damaged(where, "its directory is longer than its entries")
    return members


def _long_sizes(
    extra: bytes, size: int, packed: int, header: int, where: str
) -> tuple[int, int, int]:
    """Return the three numbers, from the zip64 field where the short ones are full."""
    values = [size, packed, header]
    while len(extra) >= 4:
        kind, length = struct.unpack_from("<HH", extra)
        field, extra = extra[4 : 4 + length], extra[4 + length :]
        if kind != 1:
            continue
        for index, value in enumerate(values):
            if value == 0xFFFFFFFF and len(field) >= 8:
                values[index] = struct.unpack_from("<Q", field)[0]
                field = field[8:]
        break
    if 0xFFFFFFFF in values:
        raise _damaged(where, "its directory lacks a size")
    return values[0], values[1], values[2]


def _check_name(name: bytes, size: int, where: str) -> None:
    parts = name.split(b"/")
    if parts[-1] == b"" and not size:
        parts.pop()  # A folder's own entry, as zip programs write it.
    if (
        not parts
        or any(part in (b"", b".", b"..") for part in parts)
        or any(bad in name for bad in (b"\\", b":", b"\0"))
    ):
        raise UnsafeError(
            f"{where} holds a member named {_shown(name)}, which leads outside its folder; "
            "nothing was read from it"
        )


def _check_layout(members: list[_Member], limit: int, where: str) -> None:
    if not members:
        raise _damaged(where, "its directory is empty")
    seen: set[bytes] = set()
    for name, *_ in members:
        if name.lower() in seen:
            raise _damaged(where, f"its member {_shown(name)} stands there twice")
        seen.add(name.lower())
    ordered = sorted((header, name, size) for name, header, size, _, _ in members)
    following = [*(header for header, _, _ in ordered[1:]), limit]
    for (header, name, size), after in zip(ordered, following, strict=True):
        if header + _LOCAL.size + len(name) + size > after:
            raise _damaged(where, f"its member {_shown(name)} overlaps what follows it")


def _shown(name: bytes) -> str:
    return repr(name.decode("utf-8", "backslashreplace"))


def _truncated(where: str) -> CorruptionError:
    return CorruptionError(
        f"{where} is truncated: a zip's directory belongs at its end, and there is none; "
        "restore it from a good copy"
    )


def _damaged(where: str, what: str) -> CorruptionError:
    return CorruptionError(f"{where} is damaged: {what}; restore it from a good copy")
