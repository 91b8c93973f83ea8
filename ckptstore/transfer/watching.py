"""Progress of files that are being written."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from ckptstore.formats.base import NewFiles
from ckptstore.progress import OnProgress, Progress
from ckptstore.storage.base import Held, Sink

__all__ = ["Watched"]


class Watched(NewFiles):
    """Passes files on, and reports how many bytes went by.

    Args:
        files: takes them.
        sizes: bytes of each.
        progress: called with `Progress` events, if at all.
    """

    def __init__(
        self, files: NewFiles, sizes: Mapping[str, int], progress: OnProgress | None
    ) -> None:
        self._files = files
        self._total = sum(sizes.values())
        self._done = 0
        self._progress = progress

    def write_text(self, name: str, text: str) -> None:
        """Pass a JSON file on."""
        self._files.write_text(name, text)
        self._report(name, len(text.encode()))

    @contextmanager
    def create(self, name: str, *, expected_size: int = 0) -> Iterator[Sink]:
        """Pass a file of bytes on."""
        with self._files.create(name, expected_size=expected_size) as sink:
            yield _WatchedSink(sink, lambda count: self._report(name, count))

    def _report(self, name: str, count: int) -> None:
        self._done += count
        if self._progress is not None:
            self._progress(Progress("convert", name, self._done, self._total))


@dataclass(frozen=True)
class _WatchedSink(Sink):
    sink: Sink
    report: Callable[[int], None]

    def write(self, data: memoryview, /) -> int:
        self.sink.write(data)
        self.report(memoryview(data).nbytes)
        return memoryview(data).nbytes

    def lend(self, data: memoryview, /, held: Held | None = None) -> int:
        self.sink.lend(data, held)
        self.report(memoryview(data).nbytes)
        return memoryview(data).nbytes
