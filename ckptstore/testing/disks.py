"""A model of a disk under a file system that promises what POSIX does: what is there, what is safe.

Files and folders have numbers; names lead to them. What was done since the last fsync of a file or
folder is pending, and may be lost or kept piece by piece (see `ckptstore.testing.power`).
"""

from __future__ import annotations

import copy
import random
from dataclasses import dataclass, field

__all__ = ["Disk", "Effect", "Name", "NewFile", "NewFolder", "Resize", "Sync", "Write"]

_BLOCK = 512


@dataclass
class File:
    """The bytes of a file: as they are read now, and as they were last fsynced."""

    data: bytearray = field(default_factory=bytearray)
    safe: bytes = b""


@dataclass
class Folder:
    """The names in a folder: as they are now, and as they were last fsynced."""

    names: dict[str, int] = field(default_factory=dict)
    safe: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Name:
    """Names that change in one step: folder, name, and what it leads to, None for nothing."""

    changes: tuple[tuple[int, str, int | None], ...]


@dataclass(frozen=True)
class NewFile:
    """A new file with a name."""

    folder: int
    name: str
    number: int


@dataclass(frozen=True)
class NewFolder:
    """A new folder with a name."""

    folder: int
    name: str
    number: int


@dataclass(frozen=True)
class Write:
    """Bytes that are written into a file."""

    number: int
    start: int
    data: bytes


@dataclass(frozen=True)
class Resize:
    """A file that gets another length."""

    number: int
    size: int


@dataclass(frozen=True)
class Sync:
    """An fsync of a file or folder."""

    number: int


Effect = Name | NewFile | NewFolder | Write | Resize | Sync


class Disk:
    """Files and folders, and what of them is safe.

    Attributes:
        files: by number.
        folders: by number; `ROOT` is the one that all others are below.
    """

    ROOT = 0

    def __init__(self) -> None:
        self.files: dict[int, File] = {}
        self.folders: dict[int, Folder] = {self.ROOT: Folder()}
        self._pending: list[Name] = []
        self._numbers = 0

    def copy(self) -> Disk:
        """Return another one that is the same."""
        return copy.deepcopy(self)

    def new_number(self) -> int:
        """Return a number that nothing has."""
        self._numbers += 1
        return self._numbers

    def find(self, path: str) -> int | None:
        """Return the number of a folder by its path below the root, or None."""
        number: int | None = self.ROOT
        for part in path.split("/"):
            if part == "." or number not in self.folders:
                continue
            number = self.folders[number].names.get(part)
        return number if number in self.folders else None

    def apply(self, effect: Effect) -> None:
        """Do one thing to the disk."""
        match effect:
            case Name(changes):
                self._rename(self._names(), changes)
                self._pending.append(effect)
            case NewFile(folder, name, number):
                self.files[number] = File()
                self.apply(Name(((folder, name, number),)))
            case NewFolder(folder, name, number):
                self.folders[number] = Folder()
                self.apply(Name(((folder, name, number),)))
            case Write(number, start, data):
                held = self.files[number].data
                held.extend(bytes(max(0, start - len(held))))
                held[start : start + len(data)] = data
            case Resize(number, size):
                held = self.files[number].data
                held.extend(bytes(max(0, size - len(held))))
                del held[size:]
            case Sync(number):
                self._sync(number)

    def sync_all(self) -> None:
        """Make everything safe."""
        for number in (*self.files, *self.folders):
            self._sync(number)

    def shape(self) -> dict[str, tuple[str, bytes] | None]:
        """Return every path with its bytes and the first name of the same file; None: a folder."""
        names, data = self.left("all")
        first: dict[int, str] = {}
        return {
            path: None if number is None else (first.setdefault(number, path), data[number])
            for path, number in sorted(names.items())
        }

    def left(self, which: str | random.Random) -> tuple[dict[str, int | None], dict[int, bytes]]:
        """Return the paths and the bytes that a loss of power may leave.

        Args:
            which: ``synced``, ``names``, ``zeros``, ``all``, or what chooses by chance.
        """
        if isinstance(which, random.Random):
            likely = which.choice((0.15, 0.5, 0.85))
            names = {number: dict(folder.safe) for number, folder in self.folders.items()}
            for step in self._pending:
                if which.random() < likely:
                    self._rename(names, step.changes)
        elif which == "synced":
            names = {number: folder.safe for number, folder in self.folders.items()}
        else:
            names = self._names()
        found: dict[str, int | None] = {}
        self._walk(names, self.ROOT, "", found)
        numbers = {number for number in found.values() if number is not None}
        return found, {number: _kept(self.files[number], which) for number in sorted(numbers)}

    def _names(self) -> dict[int, dict[str, int]]:
        return {number: folder.names for number, folder in self.folders.items()}

    def _sync(self, number: int) -> None:
        if number in self.files:
            self.files[number].safe = bytes(self.files[number].data)
            return
        self.folders[number].safe = dict(self.folders[number].names)
        kept = (tuple(c for c in step.changes if c[0] != number) for step in self._pending)
        self._pending = [Name(changes) for changes in kept if changes]

    def _walk(
        self,
        names: dict[int, dict[str, int]],
        folder: int,
        inside: str,
        found: dict[str, int | None],
    ) -> None:
        for name, number in names[folder].items():
            found[inside + name] = None if number in self.folders else number
            if number in self.folders:
                self._walk(names, number, f"{inside}{name}/", found)

    @staticmethod
    def _rename(
        names: dict[int, dict[str, int]], changes: tuple[tuple[int, str, int | None], ...]
    ) -> None:
        for folder, name, number in changes:
            if number is None:
                names[folder].pop(name, None)
            else:
                names[folder][name] = number


def _kept(file: File, which: str | random.Random) -> bytes:
    """Return the bytes of a file that a loss of power leaves."""
    data, safe = bytes(file.data), file.safe
    if which == "all" or data == safe:
        return data
    zeros = safe + bytes(max(0, len(data) - len(safe)))
    if isinstance(which, str):
        return zeros if which == "zeros" else safe
    blocks = range(0, len(data), _BLOCK)
    torn = b"".join(which.choice((data, zeros))[at : at + _BLOCK] for at in blocks)
    return which.choice((data, safe, zeros, data[: which.randrange(len(data) + 1)], torn))
