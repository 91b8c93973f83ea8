"""What local storage asks of the operating system: names, durability, locks, clear errors."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import os
import secrets
import stat
import sys
from collections.abc import Callable, Iterator
from typing import TypeVar

from ckptstore.errors import CkptstoreError, NotFoundError, StorageError
from ckptstore.storage.base import AlreadyThereError
from ckptstore.storage.names import TEMPORARY

__all__ = [
    "begin_sync",
    "exclusively",
    "explained",
    "in_folder",
    "is_link",
    "linked",
    "new_file",
    "open_file",
    "place",
    "remove",
    "remove_empty",
    "status",
    "sync_file",
    "sync_files",
    "sync_folder",
    "sync_path",
    "temporary",
    "write_all",
]

_T = TypeVar("_T")
_BINARY = getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOINHERIT", 0)
_MOST_TRIES = 100
_MOST_AT_ONCE = 2**20  # Larger writes make some file systems look for large pages.
_WRITE = 2  # SYNC_FILE_RANGE_WRITE
_NO_FOLDER_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EBADF}
_REASONS = {
    errno.ENOSPC: "no space is left on the disk; free some, then try again",
    errno.EDQUOT: "the disk quota is used up; free some space, then try again",
    errno.EACCES: "permission denied; look at its owner and permissions, and at its folder's",
    errno.EPERM: "not permitted; look at its owner and permissions, and at its folder's",
    errno.EROFS: "the file system is read-only; choose another location, or mount it writable",
    errno.ENOTDIR: "a part of this path is a file, not a folder; choose another location",
    errno.EISDIR: "it is a folder, not a file; move it away, or choose another location",
    errno.ENAMETOOLONG: "the name is too long; choose a shorter one",
    errno.EFBIG: "it would be larger than the file system or the limit (ulimit -f) allows",
    errno.EMFILE: "too many files are open; close some, or raise the limit (ulimit -n)",
    errno.ELOOP: "its links lead in a circle; mend them",
}


@contextlib.contextmanager
def explained(action: str, path: str) -> Iterator[None]:
    """Turn what the operating system says into an error of ours.

    Args:
        action: a verb, such as ``read``.
        path: of the file or folder.

    Raises:
        NotFoundError: it is not there.
        AlreadyThereError: it is there, and must not be.
        StorageError: anything else.
    """
    try:
        yield
    except CkptstoreError:
        raise
    except FileNotFoundError as error:
        raise NotFoundError(f"cannot {action} {path!r}: there is no such file") from error
    except FileExistsError as error:
        raise AlreadyThereError(f"{path!r} is already there; nothing was written") from error
    except OSError as error:
        said = (error.strerror or str(error)).lower()
        reason = _REASONS.get(error.errno or 0, f"{said}; mend the disk, then try again")
        failure = StorageError(f"cannot {action} {path!r}: {reason}")
        failure.denied = isinstance(error, PermissionError) or error.errno == errno.EROFS
        raise failure from error


def open_file(path: str) -> int:
    """Open a regular file for reading; a pipe or a device is not waited for.

    Raises:
        NotFoundError: there is none, or something that is no file.
    """
    with explained("read", path):
        try:
            descriptor = os.open(path, os.O_RDONLY | _BINARY | getattr(os, "O_NONBLOCK", 0))
        except (NotADirectoryError, IsADirectoryError) as error:
            raise FileNotFoundError(errno.ENOENT, "no such file") from error
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise NotFoundError(f"cannot read {path!r}: it is not a file")
        return descriptor


def new_file(path: str) -> int:
    """Create a file that is not there yet, with the permissions that umask leaves."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _BINARY, 0o666)


def temporary(folder: str) -> str:
    """Return the path of a temporary file that nobody else uses."""
    return os.path.join(folder, TEMPORARY + secrets.token_hex(8))


def in_folder(folder: str, make: Callable[[], _T]) -> tuple[_T, list[str]]:
    """Make something in a folder that is made as needed.

    Somebody else's delete may take the folder away again while it is still empty, so this tries
    until it succeeds.

    Returns:
        What ``make`` returned, and the folders that were made for it.
    """
    made: list[str] = []
    for _ in range(_MOST_TRIES):
        made += _make_folders(folder)
        try:
            return make(), made
        except NotFoundError:
            raise
        except FileNotFoundError:
            continue
    raise OSError(errno.EBUSY, "its folder was removed again and again")


def _make_folders(folder: str) -> list[str]:
    try:
        os.mkdir(folder)
    except FileExistsError as error:
        found = status(folder)
        # One that is gone by now was somebody's empty folder a moment ago.
        if os.path.islink(folder) if found is None else not stat.S_ISDIR(found.st_mode):
            raise NotADirectoryError(errno.ENOTDIR, "not a folder") from error
        return []
    except FileNotFoundError:
        return _make_folders(os.path.dirname(folder)) + _make_folders(folder)
    return [folder]


def remove_empty(folder: str, root: str) -> None:
    """Remove a folder that is empty, and those above it that this empties, but not ``root``."""
    while folder != root:
        try:
            os.rmdir(folder)
        except OSError:
            return
        folder = os.path.dirname(folder)


def remove(path: str) -> None:
    """Remove a file where there is one."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def write_all(descriptor: int, data: memoryview) -> None:
    """Write all of it, in as many calls as it takes."""
    while data:
        data = data[os.write(descriptor, data[:_MOST_AT_ONCE]) :]


def sync_file(descriptor: int) -> None:
    """Return when the disk has what was written to a file."""
    if sys.platform == "darwin":
        import fcntl

        # On macOS fsync stops at the drive's own cache.
        with contextlib.suppress(OSError):
            fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
            return
    os.fsync(descriptor)


def begin_sync(descriptor: int, start: int, size: int) -> None:
    """Have the disk begin to write a part of a file, where the system can be asked to.

    It promises nothing; what it gains is that a later `sync_file` has less to wait for.
    """
    begin = _begin()
    if begin is not None:
        begin(descriptor, start, size, _WRITE)


@functools.cache
def _begin() -> Callable[[int, int, int, int], int] | None:
    if sys.platform != "linux":
        return None
    begin = getattr(ctypes.CDLL(None), "sync_file_range", None)
    if begin is not None:
        begin.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
    return begin


def sync_folder(folder: str) -> None:
    """Return when the disk has the names in a folder, where the file system can say so."""
    if os.name == "nt":
        return
    try:
        descriptor = os.open(folder, os.O_RDONLY | _BINARY)
    except FileNotFoundError:
        return  # It was removed meanwhile, and with it what was to last.
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise
    finally:
        os.close(descriptor)


def sync_files(folder: str) -> None:
    """Return when the disk has what was written to the files directly in a folder.

    Links are left alone, and so is what may not be opened: neither was made by the likes of us.
    """
    with contextlib.suppress(FileNotFoundError), os.scandir(folder) as found:
        for item in found:
            if item.is_file(follow_symlinks=False):
                with contextlib.suppress(FileNotFoundError, PermissionError):
                    sync_path(item.path)


def sync_path(path: str) -> None:
    """Return when the disk has what was written to a closed file."""
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        sync_file(descriptor)
    finally:
        os.close(descriptor)


def is_link(folder: str) -> bool:
    """Whether a folder's name stands for one that is elsewhere."""
    junction: Callable[[str], bool] | None = getattr(os.path, "isjunction", None)
    return os.path.islink(folder) or (junction is not None and junction(folder))


def status(path: str) -> os.stat_result | None:
    """Return what is known of a file or folder, links followed; None where there is none."""
    try:
        return os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if error.errno == errno.ELOOP:
            return None
        raise


def _status_of_name(path: str) -> os.stat_result | None:
    with contextlib.suppress(FileNotFoundError):
        return os.lstat(path)
    return None


def linked(source: str, path: str) -> bool:
    """Give a file a second name, and return whether the file system could.

    Raises:
        NotFoundError: there is no such source.
        FileNotFoundError: there is no folder for the second name.
        FileExistsError: the second name is taken, be it by the same file.
    """
    try:
        os.link(source, path)
    except FileExistsError:
        raise
    except OSError as error:
        if not isinstance(error, FileNotFoundError):
            return False
        if not os.path.lexists(source):
            raise NotFoundError(f"cannot copy {source!r}: there is no such file") from error
        raise
    return True


def place(source: str, path: str) -> None:
    """Give a finished temporary file its name, in one step and only if the name is free.

    Raises:
        FileExistsError: it is taken.
        IsADirectoryError: it is taken by a folder, which no writer of ours makes there.
    """
    try:
        os.link(source, path)
    except FileExistsError as error:
        held = _status_of_name(path)
        if held is not None and stat.S_ISDIR(held.st_mode):
            raise IsADirectoryError(errno.EISDIR, "a folder") from error
        # Over NFS a repeated request can be refused because of its own first success.
        if held is None or not os.path.samestat(os.stat(source), held):
            raise
    except FileNotFoundError:
        raise
    except OSError:
        # No hard links here. An empty file takes the name, the finished one replaces it; between
        # the two a crash leaves the empty one, which is as much as such file systems allow.
        os.close(new_file(path))
        try:
            os.replace(source, path)
        except BaseException:
            remove(path)
            raise


@contextlib.contextmanager
def exclusively(path: str, lock: str) -> Iterator[None]:
    """Hold a file against every other process and thread that replaces it through this.

    Args:
        path: the file; it is locked itself, so that nothing is left behind.
        lock: a file to lock instead, on Windows, where an open file cannot be replaced.

    Raises:
        FileNotFoundError: the file is not there.
    """
    if sys.platform == "win32":
        import msvcrt

        descriptor, _ = in_folder(
            os.path.dirname(lock), lambda: os.open(lock, os.O_RDWR | os.O_CREAT | _BINARY)
        )
        try:
            while True:
                # LK_LOCK gives up after ten seconds.
                with contextlib.suppress(OSError):
                    msvcrt.locking(descriptor, msvcrt.LK_LOCK, 1)
                    break
            os.stat(path)
            yield
        finally:
            os.close(descriptor)
    else:
        descriptor = _locked(path)
        try:
            yield
        finally:
            os.close(descriptor)


if sys.platform != "win32":

    def _locked(path: str) -> int:
        import fcntl

        while True:
            try:
                descriptor = os.open(path, os.O_RDWR | _BINARY)  # NFS locks nothing less.
            except PermissionError:
                descriptor = os.open(path, os.O_RDONLY | _BINARY)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                # While this waited, the file may have been replaced: then the lock holds nothing.
                if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                    return descriptor
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)
