"""Locks on files of a local disk, between all processes and threads of this machine.

The operating system lets go of them when their holder dies, whatever it died of: so nothing is
ever left behind that somebody would have to judge. Where it has no such locks (Windows), nothing
is ever held, and there is one process for each location.
"""

from __future__ import annotations

import os

from ckptstore.storage.disk import explained

__all__ = ["is_free", "lock", "unlock"]


def lock(path: str, *, shared: bool = False, wait: bool = True, make: bool = False) -> int | None:
    """Hold a file, and return what `unlock` takes.

    Args:
        path: the file.
        shared: whether others may hold it so, too.
        wait: whether to wait for who holds it.
        make: whether to create it, empty, where it is absent; its folder has to be there.

    Returns:
        None where the file is absent, or, without ``wait``, somebody else's.

    Raises:
        StorageError: the disk failed, or has no locks.
    """
    try:
        import fcntl
    except ImportError:
        return os.open(os.devnull, os.O_RDONLY)
    how = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB)
    with explained("lock", path):
        while True:
            try:
                descriptor = _opened(path, make=make)
            except (FileNotFoundError, NotADirectoryError):
                return None
            held = False
            try:
                fcntl.flock(descriptor, how)
                # While this waited the file may have been removed: then the lock holds nothing.
                held = os.path.samestat(os.fstat(descriptor), os.stat(path))
            except FileNotFoundError:
                pass
            except BlockingIOError:
                return None
            finally:
                if not held:
                    os.close(descriptor)
            if held:
                return descriptor


def unlock(descriptor: int) -> None:
    """Let go of a file, also where a fork of this process has inherited it."""
    try:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_UN)
    except ImportError:
        pass
    finally:
        os.close(descriptor)


def is_free(path: str, *, shared: bool = False) -> bool:
    """Whether nobody holds a file; an absent one nobody does.

    Args:
        path: the file.
        shared: whether holders who share it do not count.
    """
    descriptor = lock(path, shared=shared, wait=False)
    if descriptor is None:
        return not os.path.exists(path)
    unlock(descriptor)
    return True


def _opened(path: str, *, make: bool) -> int:
    flags = os.O_RDWR | (os.O_CREAT if make else 0)  # NFS locks nothing less.
    try:
        return os.open(path, flags, 0o666)
    except PermissionError:
        return os.open(path, os.O_RDONLY)
