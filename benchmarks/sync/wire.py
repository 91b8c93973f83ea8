"""Counts the bytes of a program's connections without touching them."""

from __future__ import annotations

import contextlib
import os
import socket
import threading

from benchmarks.speed.counting import Counting

__all__ = ["Wire"]

_BLOCK = 2**20


class Wire(Counting):
    """Passes bytes on and counts them, in the kernel where that can; requests are not counted.

    On Linux splice(2) moves the pages from one socket to the other, so that a program which is
    measured has the cores nearly for itself. Elsewhere the bytes come through here.

    Args:
        target: the server's URL.
        limit: after so many bytes in both directions nothing is passed on any more, where splice
            is: who waits for more waits until this is closed. None is without limit.
    """

    def __init__(self, target: str, limit: int | None = None) -> None:
        super().__init__(target)
        self._limit = limit
        self._released = threading.Event()

    @property
    def moved(self) -> int:
        """Bytes in both directions so far."""
        return self.sent + self.received

    @property
    def full(self) -> bool:
        """Whether the limit is reached."""
        return self._limit is not None and self.moved >= self._limit

    def __enter__(self) -> Wire:
        super().__enter__()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._released.set()
        super().__exit__(*exc_info)

    def pass_on(self, source: socket.socket, target: socket.socket, asking: bool) -> None:
        """Pass on what comes from one side, until it ends."""
        for one in (source, target):
            with contextlib.suppress(OSError):  # The other side may have gone already.
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if not hasattr(os, "splice"):
            super().pass_on(source, target, asking)
            return
        out, into = os.pipe()
        try:
            _enlarge(into)
            with contextlib.suppress(OSError):
                while size := os.splice(source.fileno(), into, _BLOCK):
                    self._count(size, asking)
                    while size:
                        size -= os.splice(out, target.fileno(), size)
        finally:
            os.close(out)
            os.close(into)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    def _count(self, size: int, asking: bool) -> None:
        with self._lock:
            if asking:
                self.sent += size
            else:
                self.received += size
        if self.full:
            self._released.wait()


def _enlarge(pipe: int) -> None:
    import fcntl  # There is none where there is no splice.

    with contextlib.suppress(OSError):  # There is a limit to what a user's pipes hold.
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _BLOCK)
