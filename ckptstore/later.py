"""Tensors that are read when they are written, so that no whole state has to be in memory (G6).

A reader hands them out (`Reader.model_later` and its like), and a format that says so
(`Format.takes_later`) writes them, in the places of tensors in a state dict.

Rule 1: one tensor under two names is one and the same `Later`, and tensors that share memory name
the same ``whole``, so that what was tied stays tied. Rule 2: some of what is read is proved only
at its end, so whoever begins with the pieces of one takes them all.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from ckptstore.errors import CorruptionError

__all__ = ["Later", "Opened"]

# Blocks that a manifest proves have 8 MiB: whole ones are read straight into the memory.
_BLOCK = 8 * 2**20
_PIECE = 2 * _BLOCK


@dataclass(frozen=True, eq=False)
class Later:
    """A dense tensor, as its bytes that are still to be read.

    Two are equal only where they are one and the same.

    Attributes:
        dtype: torch's name without the prefix, such as ``float32``.
        shape: the size of each dimension.
        nbytes: bytes of its elements.
        pieces: gives its elements in row-major order, as little-endian bytes in pieces of some MiB
            at most, of any length. A piece is good until the next is asked for; the call may be
            made again. Raises what `Reader.load_model` raises.
        whole: what it is a part of, where it shares memory with others or lies in it in another
            order: a tensor of ``uint8`` in one dimension, the same for all of them.
        start: where in ``whole`` it begins, in bytes.
        stride: in elements, where it lies there in another order than the row-major one.
        requires_grad: whether it asks for gradients.
        parameter: whether it is a `torch.nn.Parameter`.
    """

    dtype: str
    shape: tuple[int, ...]
    nbytes: int
    pieces: Callable[[], Iterator[memoryview]]
    whole: Later | None = None
    start: int = 0
    stride: tuple[int, ...] | None = None
    requires_grad: bool = False
    parameter: bool = False


class Opened:
    """Files that are read little by little; one of them is open at a time, since each keeps memory.

    Any thread may read. What is open is closed by `close`, and at the latest with this object.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: list[tuple[Callable[[], BinaryIO], BinaryIO]] = []
        weakref.finalize(self, _close, self._held)

    def read(
        self, opener: Callable[[], BinaryIO], start: int, memory: memoryview, where: str
    ) -> None:
        """Fill memory with the bytes of a file from ``start`` on.

        Args:
            opener: opens the file; the same object for the same file, so that it stays open.
            start: of the first byte.
            memory: is filled.
            where: what to call the file in errors.

        Raises:
            CorruptionError: the file ends before, or what opening and reading it raise.
        """
        with self._lock:
            file = self._file(opener)
            head = min(-start % _BLOCK, len(memory))
            body = (len(memory) - head) // _BLOCK * _BLOCK
            scattered = getattr(file, "fill", None)
            if scattered is None or body <= _BLOCK:
                _fill(file, start, memory, where)
                return
            _fill(file, start, memory[:head], where)
            scattered([(start + head, memory[head : head + body])])  # Several blocks at once.
            _fill(file, start + head + body, memory[head + body :], where)

    def pieces(
        self, opener: Callable[[], BinaryIO], start: int, size: int, where: str
    ) -> Iterator[memoryview]:
        """Yield the bytes of a part of a file, in order, in memory that is used again.

        Args:
            opener: as for `read`.
            start: of the first byte.
            size: how many.
            where: what to call the file in errors.

        Raises:
            CorruptionError: as `read`.
        """
        memory = memoryview(bytearray(min(size, _PIECE)))
        at, end = start, start + size
        while at < end:
            count = min(end - at, _PIECE - at % _BLOCK)
            self.read(opener, at, memory[:count], where)
            yield memory[:count]
            at += count

    def close(self) -> None:
        """Close what is open; it is opened again when it is read from."""
        with self._lock:
            _close(self._held)

    def _file(self, opener: Callable[[], BinaryIO]) -> BinaryIO:
        if not self._held or self._held[0][0] is not opener:
            _close(self._held)
            file = opener()
            self._held.append((opener, file))
            getattr(file, "keep", lambda count: None)(1)
        return self._held[0][1]


def _close(held: list[tuple[Callable[[], BinaryIO], BinaryIO]]) -> None:
    while held:
        held.pop()[1].close()


def _fill(file: BinaryIO, start: int, memory: memoryview, where: str) -> None:
    file.seek(start)
    done = 0
    while done < len(memory):
        count = file.readinto(memory[done:])  # type: ignore[attr-defined]
        if not count:
            raise CorruptionError(
                f"{where} is truncated: it ends at byte {start + done}; restore it from a good copy"
            )
        done += count
