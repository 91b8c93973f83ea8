"""Local disk, by plain calls of the operating system: fsspec never makes anything durable.

An unfinished file of `writer` has its name already, and a temporary file (its name starts with
``.tmp-``) shows in listings: after a kill they are there for whoever cleans up.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import shutil
import stat
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from ckptstore.errors import CorruptionError, NotFoundError, UnsafeError, UnsupportedError
from ckptstore.storage import disk
from ckptstore.storage.base import (
    Elsewhere,
    Entry,
    Listing,
    RangeReader,
    Sink,
    Storage,
    worth_keeping,
)
from ckptstore.storage.names import checked, held_by_looking

__all__ = ["LocalStorage"]

_BEGUN_AT_ONCE = 16 * 2**20
_MOST_PARTS = 1024  # of one call, on every system that has such calls


class LocalStorage(Storage):
    """The files below a folder of this machine; makes no call before it is asked something.

    Args:
        root: the folder, which need not exist. A relative one is taken from the working folder
            of this moment.
    """

    taking_over = "proof"

    def __init__(self, root: str) -> None:
        self.location = root
        self._root = os.path.abspath(root)
        self._root_is_durable = False

    def elsewhere(self) -> Elsewhere:
        """See `Storage.elsewhere`."""
        return Elsewhere(Path(self._root))

    def on_disk(self, name: str) -> str:
        """See `Storage.on_disk`."""
        return self._path(name, folder=True)

    def list(self, folder: str = "") -> Listing:
        """See `Storage.list`."""
        path = self._path(folder, folder=True)
        files: dict[str, Entry] = {}
        folders: list[str] = []
        inside = f"{folder}/" if folder else ""
        with disk.explained("list", path):
            try:
                found = os.scandir(path)
            except FileNotFoundError:
                return Listing({}, ())
            with found:
                for item in found:
                    if item.is_dir(follow_symlinks=False):  # Of it nothing but its name is asked.
                        folders.append(item.name)
                        continue
                    status = disk.status(item.path)
                    if status is None:
                        continue
                    if stat.S_ISDIR(status.st_mode):
                        folders.append(item.name)
                    elif stat.S_ISREG(status.st_mode):
                        files[item.name] = _entry(inside + item.name, status)
        return Listing(dict(sorted(files.items())), tuple(sorted(folders)))

    def holding(self, folder: str, prefix: str, name: str) -> tuple[str, ...]:
        """See `Storage.holding`."""
        return tuple(self.held(folder, prefix, (name,)))

    def held(self, folder: str, prefix: str, names: Sequence[str]) -> dict[str, dict[str, Entry]]:
        """See `Storage.held`."""
        return held_by_looking(self, folder, prefix, names)

    def entry(self, name: str) -> Entry | None:
        """See `Storage.entry`."""
        path = self._path(name)
        with disk.explained("look at", path):
            status = disk.status(path)
        return _entry(name, status) if status and stat.S_ISREG(status.st_mode) else None

    def leads_out(self, name: str) -> bool:
        """See `Storage.leads_out`."""
        inside = os.path.join(os.path.realpath(self._root), "")
        return not os.path.realpath(self._path(name)).startswith(inside)

    def read(self, name: str, limit: int | None = None) -> bytes:
        """See `Storage.read`."""
        path = self._path(name)
        descriptor = disk.open_file(path)
        with disk.explained("read", path), os.fdopen(descriptor, "rb") as file:
            # As much memory is asked for as the limit is, whatever the file has.
            size = os.fstat(descriptor).st_size + 1
            return file.read(-1 if limit is None else min(limit, size))

    def open(self, name: str) -> RangeReader:
        """See `Storage.open`."""
        path = self._path(name)
        return _FileReader(path, disk.open_file(path))

    def create_only(self, name: str, data: bytes) -> bool:
        """Return True: the operating system itself refuses a name that is taken."""
        return True

    def create(self, name: str, data: bytes, *, durable: bool = True) -> None:
        """See `Storage.create`: a temporary file, synced, then linked to its name."""
        self._put(self._own(name), data, durable=durable, place=disk.place)

    @contextlib.contextmanager
    def writer(
        self,
        name: str,
        *,
        expected_size: int = 0,
        durable: bool = True,
        resident: bool = True,
        lasting: bool = False,
    ) -> Iterator[Sink]:
        """See `Storage.writer`: the file has its name from the start, and loses it on failure."""
        path = self._own(name)
        with disk.explained("create", path):
            descriptor, made = disk.in_folder(os.path.dirname(path), lambda: disk.new_file(path))
        sink = _FileSink(path, descriptor, durable=durable)
        try:
            yield sink
            sink.finish()
            if durable:
                self._sync_folders(os.path.dirname(path), made)
        except BaseException as error:
            if lasting and worth_keeping(error):
                sink.close()
                raise
            sink.take_back()
            disk.remove_empty(os.path.dirname(path), self._root)
            raise

    @contextlib.contextmanager
    def whole(self, name: str, *, expected_size: int = 0, durable: bool = True) -> Iterator[Sink]:
        """See `Storage.whole`: a temporary file, synced, then linked to its name."""
        path = self._own(name)
        folder = os.path.dirname(path)
        temporary = disk.temporary(folder)
        with disk.explained("create", path):
            if os.path.lexists(path):
                raise FileExistsError
            descriptor, made = disk.in_folder(folder, lambda: disk.new_file(temporary))
        sink = _FileSink(temporary, descriptor, durable=durable, called=path)
        try:
            yield sink
            sink.finish()
            with disk.explained("create", path):
                disk.place(temporary, path)
        finally:
            sink.take_back()
            disk.remove_empty(folder, self._root)
        if durable:
            self._sync_folders(folder, made)

    def replace(self, name: str, data: bytes, *, durable: bool = True) -> None:
        """See `Storage.replace`: a temporary file, synced, then renamed; a link is replaced."""
        self._put(self._own(name), data, durable=durable, place=os.replace)

    def swap(self, name: str, expected: bytes, data: bytes, *, durable: bool = True) -> bool:
        """See `Storage.swap`: among all who use this, by a lock on the file itself."""
        path, lock = self._own(name), self._own(".ckptstore/swap.lock")
        try:
            with disk.explained("replace", path), disk.exclusively(path, lock):
                if self.read(name) != expected:
                    return False
                self._put(path, data, durable=durable, place=os.replace)
                return True
        except NotFoundError:
            return False

    def copy(self, source: str, name: str, *, durable: bool = True, only_new: bool = False) -> None:
        """See `Storage.copy`: a hard link where there can be one, else the bytes once more.

        A new name is a hard link, or nothing.
        """
        old, path = self._path(source), self._own(name)
        if only_new:
            self._link(old, path, durable=durable)
            return

        def duplicate(temporary: str) -> None:
            # What the user linked is the user's, and may be overwritten in place.
            if os.path.islink(old) or not disk.linked(old, temporary):
                os.close(disk.new_file(temporary))
                shutil.copyfile(old, temporary)

        os.close(disk.open_file(old))
        self._place_new(path, duplicate, durable=durable, place=os.replace)

    def _link(self, old: str, path: str, *, durable: bool) -> None:
        """Give a file a second name, if that is free.

        Rivals may link the same file to the same name, and whoever loses must not remove it: so
        here, other than in `disk.place`, a name that the very same file has is taken.
        """
        folder = os.path.dirname(path)
        os.close(disk.open_file(old))
        # What the user linked is the user's, and may be overwritten in place.
        able = not os.path.islink(old)
        with disk.explained("create", path):
            if durable and able:
                disk.sync_path(old)  # Who wrote it may not have asked for that.
            done, made = disk.in_folder(folder, lambda: able and disk.linked(old, path))
        if not done:
            disk.remove_empty(folder, self._root)
            raise UnsupportedError(
                f"{old!r} cannot have a second name on this file system; write its bytes anew"
            )
        try:
            if durable:
                self._sync_folders(folder, made)
        except BaseException:
            disk.remove(path)
            raise

    def delete(self, name: str) -> None:
        """See `Storage.delete`; the location's own folder stays."""
        path = self._own(name)
        with disk.explained("delete", path):
            try:
                os.unlink(path)
            except FileNotFoundError:
                pass  # What a killed writer left may be no more than its empty folder.
            except NotADirectoryError:
                return
            except OSError:
                if os.path.isdir(path):
                    return
                raise
        disk.remove_empty(os.path.dirname(path), self._root)

    def flush(self, folder: str) -> None:
        """See `Storage.flush`."""
        path = self._path(folder, folder=True)
        with disk.explained("sync", path):
            disk.sync_files(path)
        self._sync_folders(path, [])

    def _path(self, name: str, *, folder: bool = False) -> str:
        checked(name, folder=folder)
        if os.name == "nt" and any(char in name for char in '\\:*?"<>|'):
            raise UnsafeError(f"{name!r} holds a character that Windows does not allow in a name")
        return os.path.join(self._root, *name.split("/")) if name else self._root

    def _own(self, name: str) -> str:
        """Return the path of a file that is to be changed, once no link leads away to it (G5).

        The location itself may be a link: whoever named it meant what is behind it.

        Raises:
            UnsafeError: a folder between the location and the file is a link.
        """
        path = self._path(name)
        folder = os.path.dirname(path)
        while folder != self._root:
            if disk.is_link(folder):
                raise UnsafeError(
                    f"{folder!r} is a link, and nothing is written or deleted through it; put a "
                    "real folder in its place, or name what is behind it as a location of its own"
                )
            folder = os.path.dirname(folder)
        return path

    def _put(
        self, path: str, data: bytes, *, durable: bool, place: Callable[[str, str], None]
    ) -> None:
        def write(temporary: str) -> None:
            descriptor = disk.new_file(temporary)
            try:
                disk.write_all(descriptor, memoryview(data))
            finally:
                os.close(descriptor)

        self._place_new(path, write, durable=durable, place=place)

    def _place_new(
        self,
        path: str,
        make: Callable[[str], None],
        *,
        durable: bool,
        place: Callable[[str, str], None],
    ) -> None:
        """Make a temporary file beside ``path``, sync it, and give it that name."""
        folder = os.path.dirname(path)
        temporary = disk.temporary(folder)
        try:
            with disk.explained("write", path):
                _, made = disk.in_folder(folder, lambda: make(temporary))
                if durable:
                    disk.sync_path(temporary)
                place(temporary, path)
        finally:
            # A rename between two names of one file does nothing, and leaves both.
            with contextlib.suppress(OSError):
                disk.remove(temporary)
            disk.remove_empty(folder, self._root)
        if durable:
            self._sync_folders(folder, made)

    def _sync_folders(self, folder: str, made: Iterable[str]) -> None:
        """Make the name of a folder durable, up to the location and to what was made for it."""
        folders = {self._root, *(os.path.dirname(path) for path in made)}
        while folder != self._root:
            folders.add(folder)
            folder = os.path.dirname(folder)
        for path in folders:
            with disk.explained("sync", path):
                disk.sync_folder(path)
        if not self._root_is_durable:
            # Another process may have made the location a moment ago. Where the folder above
            # cannot be opened, it was not made by the likes of us.
            with contextlib.suppress(PermissionError):
                disk.sync_folder(os.path.dirname(self._root))
            self._root_is_durable = True


class _FileSink(Sink):
    def __init__(
        self, path: str, descriptor: int, *, durable: bool, called: str | None = None
    ) -> None:
        self._path = path
        self._called = called or path
        self._descriptor = descriptor
        self._durable = durable
        self._status = os.fstat(descriptor)
        self._size = self._begun = 0

    def write(self, data: memoryview, /) -> None:
        view = memoryview(data).cast("B")
        with disk.explained("write", self._called):
            disk.write_all(self._descriptor, view)
        self._size += len(view)
        # The disk writes these while the next are digested, and not only when all are there.
        if self._durable and self._size - self._begun >= _BEGUN_AT_ONCE:
            disk.begin_sync(self._descriptor, self._begun, self._size - self._begun)
            self._begun = self._size

    def finish(self) -> None:
        with disk.explained("write", self._called):
            if self._durable:
                disk.sync_file(self._descriptor)
            self.close()

    def take_back(self) -> None:
        """Remove the file, unless somebody else's has its name by now."""
        with contextlib.suppress(OSError):
            self.close()
        with contextlib.suppress(OSError):
            if os.path.samestat(self._status, os.lstat(self._path)):
                os.unlink(self._path)

    def close(self) -> None:
        """Let go of the file, as far as it was written."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


class _FileReader(RangeReader):
    at_once = min(4, os.cpu_count() or 1)
    _descriptor = -1  # As long as an interrupt may still come before there is one.

    def __init__(self, path: str, descriptor: int) -> None:
        self._descriptor = descriptor
        self.size = os.fstat(descriptor).st_size
        self._path = path
        self._lock = threading.Lock()
        self._asks = hasattr(os, "RWF_NOWAIT")
        self._turn: contextlib.AbstractContextManager[object] = contextlib.nullcontext()

    def readinto(self, start: int, target: memoryview) -> None:
        self.readinto_parts(start, (target,))

    def readinto_parts(self, start: int, targets: Sequence[memoryview]) -> None:
        rest = [target.cast("B") for target in targets if target.nbytes]
        place, end = start, start + sum(map(len, rest))
        while rest:
            with disk.explained("read", self._path):
                count = self._read_some(place, rest)
            if not count:
                raise CorruptionError(
                    f"{self._path!r} ends after {place} bytes, where {end} were "
                    "expected; restore it from a good copy"
                )
            place += count
            while rest and count >= len(rest[0]):
                count -= len(rest.pop(0))
            if count:
                rest[0] = rest[0][count:]

    def map(self) -> memoryview | None:
        if not self.size:
            return memoryview(b"")
        with disk.explained("map", self._path):
            return memoryview(mmap.mmap(self._descriptor, self.size, access=mmap.ACCESS_COPY))

    def _read_some(self, start: int, targets: Sequence[memoryview]) -> int:
        first = targets[0][: 2**30]
        if hasattr(os, "preadv"):
            parts = targets[:_MOST_PARTS] if len(first) == len(targets[0]) else [first]
            return self._read_parts(start, parts)
        with self._lock:
            os.lseek(self._descriptor, start, os.SEEK_SET)
            data = os.read(self._descriptor, min(len(first), 2**24))
        first[: len(data)] = data
        return len(data)

    def _read_parts(self, start: int, parts: Sequence[memoryview]) -> int:
        """Copy what the page cache has, by any thread; what the disk has one after the other.

        The system reads ahead of one place in a file, which it loses to several threads.
        """
        if self._asks:
            try:
                return os.preadv(self._descriptor, parts, start, os.RWF_NOWAIT)
            except BlockingIOError:
                self._turn = self._lock
            except OSError:  # Not all file systems can say so.
                pass
            self._asks = False
        with self._turn:
            return os.preadv(self._descriptor, parts, start)

    def close(self) -> None:
        # An interrupt after the close must not have somebody else's file closed in its place.
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def __del__(self) -> None:
        self.close()


def _entry(name: str, status: os.stat_result) -> Entry:
    # A hard link keeps the time of bytes that may be old, made as it was a moment ago.
    modified = max(status.st_mtime, status.st_ctime)
    return Entry(name, status.st_size, modified, f"{status.st_ino}-{status.st_size}")
