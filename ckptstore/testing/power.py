"""What a disk may hold after the power went: a killed process never shows a missing fsync.

While a `PowerLoss` is active, every call that local storage makes to the operating system is done
and recorded. Afterwards `PowerLoss.left` says, for any moment, what a disk may hold if the power
went there, and `Remains.write_to` makes a folder of it to be opened like any other.

The model is what POSIX promises and no more. A file's bytes are safe once the file was fsynced, a
name once its folder was; a new folder's own name is one in the folder above it. What was not
fsynced is there, or not, or in part, each piece by itself. A rename is one step.
"""

from __future__ import annotations

import os
import random
import shutil
import stat
import sys
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from ckptstore.testing.disks import Disk, Effect, Name, NewFile, NewFolder, Resize, Sync, Write

__all__ = ["PowerLoss", "Remains"]

_STORAGE = "ckptstore.storage."


@dataclass(frozen=True)
class Remains:
    """What a disk holds after the power went.

    Attributes:
        names: each path, and a number that stands for a file, or None for a folder; names of one
            file share its number.
        data: the bytes of each file by its number.
    """

    names: tuple[tuple[str, int | None], ...]
    data: tuple[tuple[int, bytes], ...] = field(repr=False)

    def write_to(self, folder: str | os.PathLike[str]) -> None:
        """Make a new folder that holds this; hard links stay hard links."""
        os.makedirs(folder)
        data, first = dict(self.data), dict[int, str]()
        for name, number in self.names:
            path = os.path.join(folder, name)
            if number is None:
                os.mkdir(path)
            elif number in first:
                os.link(first[number], path)
            else:
                first[number] = path
                with open(path, "xb") as file:
                    file.write(data[number])


class PowerLoss:
    """Records what local storage does below a folder; a context manager, for one thread.

    ``with PowerLoss(folder) as power: ckptstore.save(folder / "dante", ...)``, then
    ``power.left(moment, seed).write_to(other)`` and ``ckptstore.open(other / "dante")``. What the
    folder holds at the start counts as safe on the disk.

    Args:
        folder: what the disk is; the locations are folders in it.

    Attributes:
        calls: what was asked of the operating system, in order, a line each.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._root = os.path.realpath(folder)
        self._now = _scanned(self._root)
        self._start = _scanned(self._root)
        self._replayed: tuple[int, Disk] | None = None
        self._effects: list[Effect] = []
        self.calls: list[str] = []

    def __enter__(self) -> PowerLoss:
        storages = [module for name, module in sys.modules.items() if name.startswith(_STORAGE)]
        self._patched = [
            (module, name, vars(module)[name])
            for module in storages
            for name in ("os", "shutil")
            if name in vars(module)
        ]
        recording = _Recording(self)
        for module, name, _ in self._patched:
            setattr(module, name, recording if name == "os" else _Copying(recording))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for module, name, value in self._patched:
            setattr(module, name, value)
        if kind is None and _scanned(self._root).shape() != self._now.shape():
            raise RuntimeError(
                f"{self._root} was changed by calls that were not seen; nothing can be said of it"
            )

    def left(self, moment: int, which: str | int = "synced") -> Remains:
        """Return what the disk may hold if the power goes after some of the calls.

        Args:
            moment: how many of the calls were made, from 0 to ``len(calls)``.
            which: of all that is possible. ``synced``: what was fsynced, and nothing else;
                ``names``: every name, and only bytes that were fsynced; ``zeros``: the same, with
                zeros in place of the other bytes; ``all``: everything, as after a kill; a number:
                each piece that was not fsynced is there or not, by chance, with this seed.
        """
        if self._replayed is None or self._replayed[0] > moment:
            self._replayed = (0, self._start.copy())
        done, disk = self._replayed
        for effect in self._effects[done:moment]:
            disk.apply(effect)
        self._replayed = (moment, disk)
        chance = random.Random(which) if isinstance(which, int) else None  # noqa: S311
        names, data = disk.left(chance or str(which))
        return Remains(tuple(sorted(names.items())), tuple(sorted(data.items())))

    def record(self, said: str, effect: Effect) -> None:
        """Note what was done; for the stand-ins of ``os`` and ``shutil``."""
        self.calls.append(said)
        self._effects.append(effect)
        self._now.apply(effect)

    def place(self, path: Any) -> tuple[int, str] | None:
        """Return the folder's number and the name of a path, or None where it is elsewhere."""
        above, name = os.path.split(os.path.abspath(os.fspath(path)))
        inside = os.path.relpath(os.path.realpath(above), self._root)
        if inside == ".." or inside.startswith("../"):
            return None
        folder = self._now.find(inside)
        return None if folder is None else (folder, name)

    def number(self, path: Any) -> int | None:
        """Return the number of a file or folder, or None where it is elsewhere or absent."""
        if os.path.realpath(path) == self._root:
            return Disk.ROOT
        there = self.place(path)
        return None if there is None else self._now.folders[there[0]].names.get(there[1])

    def said(self, path: Any) -> str:
        """Return a path as `calls` names it."""
        return os.path.relpath(os.path.realpath(path), self._root)

    def new_number(self) -> int:
        """Return a number for a new file or folder."""
        return self._now.new_number()


class _Recording:
    """Stands in for the module `os`: does everything, and notes what changes a disk."""

    def __init__(self, power: PowerLoss) -> None:
        self._power = power
        self._open: dict[int, int | None] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def open(self, path: Any, flags: int, mode: int = 0o777) -> int:
        before = self._power.number(path)
        descriptor = os.open(path, flags, mode)
        if before is None and flags & os.O_CREAT:
            self._new(path, NewFile, "create")
        number = self._power.number(path)
        if before is not None and number is not None and flags & os.O_TRUNC:
            self._power.record(f"truncate {self._power.said(path)}", Resize(number, 0))
        self._open[descriptor] = number
        return descriptor

    def write(self, descriptor: int, data: Any) -> int:
        start = os.lseek(descriptor, 0, os.SEEK_CUR)
        count = os.write(descriptor, data)
        number = self._open.get(descriptor)
        if number is not None:
            piece = bytes(memoryview(data).cast("B")[:count])
            self._power.record(f"write {count} bytes", Write(number, start, piece))
        return count

    def ftruncate(self, descriptor: int, length: int) -> None:
        os.ftruncate(descriptor, length)
        number = self._open.get(descriptor)
        if number is not None:
            self._power.record(f"truncate to {length}", Resize(number, length))

    def fsync(self, descriptor: int) -> None:
        os.fsync(descriptor)
        number = self._open.get(descriptor)
        if number is not None:
            kind = "folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file"
            self._power.record(f"fsync {kind}", Sync(number))

    fdatasync = fsync

    def link(self, source: Any, path: Any) -> None:
        os.link(source, path)
        number, to = self._power.number(source), self._power.place(path)
        if number is not None and to is not None:
            self._power.record(f"link {self._power.said(path)}", Name(((*to, number),)))

    def replace(self, source: Any, path: Any) -> None:
        number, held = self._power.number(source), self._power.number(path)
        from_, to = self._power.place(source), self._power.place(path)
        os.replace(source, path)
        # Between two names of one file a rename does nothing.
        if from_ is not None and to is not None and number is not None and number != held:
            changes = Name(((*from_, None), (*to, number)))
            self._power.record(f"rename to {self._power.said(path)}", changes)

    rename = replace

    def unlink(self, path: Any) -> None:
        there = self._power.place(path)
        os.unlink(path)
        if there is not None:
            self._power.record(f"unlink {self._power.said(path)}", Name(((*there, None),)))

    remove = unlink

    def rmdir(self, path: Any) -> None:
        there = self._power.place(path)
        os.rmdir(path)
        if there is not None:
            self._power.record(f"rmdir {self._power.said(path)}", Name(((*there, None),)))

    def mkdir(self, path: Any, mode: int = 0o777) -> None:
        os.mkdir(path, mode)
        self._new(path, NewFolder, "mkdir")

    def _new(self, path: Any, kind: type[NewFile] | type[NewFolder], verb: str) -> None:
        there = self._power.place(path)
        if there is not None:
            effect = kind(*there, self._power.new_number())
            self._power.record(f"{verb} {self._power.said(path)}", effect)

    def copied(self, path: Any) -> None:
        """Note that a file's bytes were written by somebody else."""
        number = self._power.number(path)
        if number is not None:
            with open(path, "rb") as file:
                data = file.read()
            self._power.record(f"copy to {self._power.said(path)}", Write(number, 0, data))


class _Copying:
    """Stands in for the module `shutil`."""

    def __init__(self, recording: _Recording) -> None:
        self._recording = recording

    def __getattr__(self, name: str) -> Any:
        return getattr(shutil, name)

    def copyfile(self, source: Any, path: Any) -> None:
        shutil.copyfile(source, path)
        self._recording.copied(path)


def _scanned(root: str) -> Disk:
    """Return a disk on which everything below a folder is safe."""
    disk, known = Disk(), dict[int, int]()
    for above, folders, files in os.walk(root):
        number = disk.find(os.path.relpath(above, root))
        assert number is not None
        for name in sorted(folders):
            disk.apply(NewFolder(number, name, disk.new_number()))
        for name in sorted(files):
            path = os.path.join(above, name)
            node = os.lstat(path).st_ino
            if node in known:
                disk.apply(Name(((number, name, known[node]),)))
                continue
            known[node] = disk.new_number()
            disk.apply(NewFile(number, name, known[node]))
            with open(path, "rb") as file:
                disk.apply(Write(known[node], 0, file.read()))
    disk.sync_all()
    return disk
