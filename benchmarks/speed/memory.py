"""How much memory a call needs, and that it finds it warm."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import resource
import sys
from collections.abc import Iterable
from pathlib import Path

__all__ = ["Usage", "drop", "mapped", "resident", "touch", "touch_page_cache"]

_PAGE = mmap.PAGESIZE
_BLOCK = 64 * 2**20
_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")


def touch(nbytes: int) -> None:
    """Touch and free memory, so that what follows does not pay for the first touch of pages.

    A virtual machine may have handed free pages back to its host, and gets them back slowly. It
    hands back large blocks, so large pages are asked for: small ones come from other places.
    """
    if nbytes:
        with mmap.mmap(-1, nbytes) as memory:
            if hasattr(mmap, "MADV_HUGEPAGE"):
                with contextlib.suppress(OSError):  # There are kernels without them.
                    memory.madvise(mmap.MADV_HUGEPAGE)
            for start in range(0, nbytes, _PAGE):
                memory[start] = 1


def touch_page_cache(folder: Path, nbytes: int) -> None:
    """Write a file and delete it, for the same reason.

    The page cache takes its memory in larger blocks than programs do, and so from elsewhere:
    without this the same write took up to ten times as long. Nothing of it reaches the disk.
    """
    path = folder / "touched"
    with mmap.mmap(-1, _BLOCK) as block, memoryview(block) as data:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            for start in range(0, nbytes, _BLOCK):
                os.write(descriptor, data[: nbytes - start])
        finally:
            os.close(descriptor)
            path.unlink()


def mapped(path: str) -> mmap.mmap:
    """Map a file or a piece of shared memory, with all of its pages there."""
    descriptor = os.open(path, os.O_RDWR)
    try:
        if hasattr(mmap, "MAP_POPULATE"):
            return mmap.mmap(descriptor, 0, mmap.MAP_SHARED | mmap.MAP_POPULATE)
        return mmap.mmap(descriptor, 0)
    finally:
        os.close(descriptor)


class Usage:
    """Processor time of this process and its children, and its peak of memory, from now on."""

    def __init__(self) -> None:
        self._cpu = _cpu()
        try:
            _CLEAR.write_text("5")  # Sets VmHWM back to VmRSS.
        except OSError:
            self._before = _peak()
        else:
            self._before = _status("VmRSS")

    def cpu(self) -> float:
        """Return seconds of processor time since then."""
        return _cpu() - self._cpu

    def growth(self) -> int:
        """Return by how many bytes the memory had grown at its peak.

        Without /proc it is the growth of the process's peak, and 0 below an earlier one.
        """
        return max(0, _peak() - self._before)


def drop(paths: Iterable[str]) -> None:
    """Have the kernel forget what it holds of files; they were written back before."""
    if not hasattr(os, "posix_fadvise"):
        return
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def resident(paths: Iterable[str]) -> float:
    """Return the share of files' pages that are in memory; 0 where that cannot be found out."""
    if sys.platform != "linux":
        return 0.0
    libc = ctypes.CDLL(None, use_errno=True)
    there = pages = 0
    for path in paths:
        size = Path(path).stat().st_size
        if not size:
            continue
        count = -(-size // _PAGE)
        found = (ctypes.c_ubyte * count)()
        with Path(path).open("r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
            first = ctypes.c_char.from_buffer(memory)
            address = ctypes.c_void_p(ctypes.addressof(first))
            failed = libc.mincore(address, ctypes.c_size_t(size), found)
            del first
        if failed:
            return 0.0
        pages += count
        there += sum(byte & 1 for byte in found)
    return there / pages if pages else 0.0


def _cpu() -> float:
    mine, children = (
        resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    return mine.ru_utime + mine.ru_stime + children.ru_utime + children.ru_stime


def _peak() -> int:
    if _STATUS.exists():
        return _status("VmHWM")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _status(name: str) -> int:
    for line in _STATUS.read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"{_STATUS} has no {name}")
