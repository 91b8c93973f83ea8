"""What a format writes, as places in shared memory: to be written by another process."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from ckptstore.formats.base import NewFiles
from ckptstore.storage.base import Held, Sink

__all__ = ["Place", "Recorded", "Recording", "Run", "TooMuchError"]

_PIECE = 2**20  # What is digested is still in a core's cache when it is written.
_MOST_COPIED = 64 * 2**20

Place = tuple[int, int]
"""The number of a slab of shared memory, and where in it."""


class TooMuchError(Exception):
    """More than a few bytes are not in shared memory, and a copy of them would be a second one."""


@dataclass(frozen=True)
class Run:
    """Bytes that stand in a row in a slab."""

    slab: int
    start: int
    size: int


@dataclass(frozen=True)
class Recorded:
    """Files in the order in which they are to be written.

    Attributes:
        files: name and text of a JSON file; or name, expected size and bytes of any other.
    """

    files: tuple[tuple[str, str] | tuple[str, int, tuple[Run, ...]], ...]

    def write(self, slabs: Mapping[int, memoryview], files: NewFiles) -> None:
        """Write them.

        Args:
            slabs: the memory, by number.
            files: what to write into.
        """
        for name, what, *rest in self.files:
            if isinstance(what, str):
                files.write_text(name, what)
                continue
            with files.create(name, expected_size=what) as sink:
                for run in rest[0]:
                    end = run.start + run.size
                    for at in range(run.start, end, _PIECE):
                        sink.lend(slabs[run.slab][at : min(at + _PIECE, end)])


class Recording(NewFiles):
    """Takes what a format writes, and notes where it lies; what lies elsewhere is copied.

    Args:
        find: says where some memory lies, by address and size; None if it is not shared.
        keep: copies bytes into shared memory, and says where to; None where there is none left.
    """

    def __init__(
        self,
        find: Callable[[int, int], Place | None],
        keep: Callable[[memoryview], Place | None],
    ) -> None:
        self._find = find
        self._keep = keep
        self._copied = 0
        self._files: list[tuple[str, str] | tuple[str, int, tuple[Run, ...]]] = []

    @property
    def recorded(self) -> Recorded:
        """What was written so far."""
        return Recorded(tuple(self._files))

    def write_text(self, name: str, text: str) -> None:
        """Take a JSON file."""
        self._files.append((name, text))

    @contextmanager
    def create(self, name: str, *, expected_size: int = 0) -> Iterator[Sink]:
        """Take a file of bytes.

        Raises:
            TooMuchError: while it is written.
        """
        sink = _Sink(self)
        yield sink
        self._files.append((name, expected_size, tuple(sink.runs)))

    def lying(self, data: memoryview) -> Place:
        """Return where bytes that stay as they are lie, in shared memory."""
        place = self._find(_address(data), len(data)) if not data.readonly else None
        return place or self.copied(data)

    def copied(self, data: memoryview) -> Place:
        """Return where a copy of some bytes lies."""
        self._copied += len(data)
        place = self._keep(data) if self._copied <= _MOST_COPIED else None
        if place is None:
            raise TooMuchError
        return place


@dataclass(frozen=True)
class _Sink(Sink):
    recording: Recording
    runs: list[Run] = field(default_factory=list)

    def write(self, data: memoryview, /) -> None:
        view = memoryview(data).cast("B")
        if view:
            self._add(self.recording.copied(view), len(view))

    def lend(self, data: memoryview, /, held: Held | None = None) -> None:
        view = memoryview(data).cast("B")
        if view:
            self._add(self.recording.lying(view), len(view))

    def _add(self, place: Place, size: int) -> None:
        slab, start = place
        last = self.runs[-1] if self.runs else None
        if last is not None and (last.slab, last.start + last.size) == (slab, start):
            self.runs[-1] = Run(slab, last.start, last.size + size)
        else:
            self.runs.append(Run(slab, start, size))


def _address(data: memoryview) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(data))
