"""A storage that fails where it is told to, one operation at a time.

Every call of a `Storage`, and every write into a file and read of a range, is an `Operation` with
a number from 1. A fault is any callable that gets the operation and a function that performs it:
it may call that, not call it, call it with other bytes, or raise before or after. The usual ones
are in `ckptstore.testing.faults`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any

from ckptstore import storage as storages
from ckptstore.storage.base import Entry, Held, Listing, RangeReader, Sink, Storage, Unfinished

__all__ = ["Fault", "FaultyStorage", "Killed", "Operation", "Seen", "inject"]

Fault = Callable[["Operation", Callable[..., Any]], Any]


class Killed(BaseException):
    """The process is gone: nothing that would run after this may have an effect any more."""


@dataclass(frozen=True)
class Operation:
    """One thing that a storage is asked.

    Attributes:
        number: counted from 1, over all storages that share a `Seen`.
        name: the method: ``create``, ``delete``, … A file of bytes is ``writer``, then a ``write``
            for each piece, then ``finish``; a range of a file that was opened is ``readinto``.
        path: the name below the location that it is about.
        data: the bytes that it carries, where it carries any.
    """

    number: int
    name: str
    path: str
    data: bytes | memoryview | None = None

    def __str__(self) -> str:
        return f"{self.name} {self.path}".rstrip()


@dataclass
class Seen:
    """What was asked so far, and whether the process that asks is dead."""

    operations: list[Operation] = field(default_factory=list)
    dead: bool = False

    def __post_init__(self) -> None:
        self._lock = threading.Lock()

    def next(self, name: str, path: str, data: bytes | memoryview | None) -> Operation:
        """Count an operation.

        Raises:
            Killed: the process died before.
        """
        with self._lock:
            if self.dead:
                raise Killed
            operation = Operation(len(self.operations) + 1, name, path, data)
            self.operations.append(operation)
            return operation


class FaultyStorage(Storage):
    """A real storage, every operation of which goes through a fault.

    After `Killed` nothing reaches the real storage, and what was being written is neither
    finished nor taken back, as long as this object lives.

    Args:
        storage: does the work.
        fault: decides on each operation.
        seen: where operations are counted, to be shared between storages.
    """

    def __init__(self, storage: Storage, fault: Fault, seen: Seen | None = None) -> None:
        self.location = storage.location
        self.content_versions = storage.content_versions
        self.taking_over = storage.taking_over
        self.lists_in_order = storage.lists_in_order
        self.seen = seen or Seen()
        self._real = storage
        self._fault = fault
        self._unfinished: list[object] = []

    def elsewhere(self) -> None:
        """Return None: no other process has the fault."""

    def on_disk(self, name: str) -> str | None:
        """See `Storage.on_disk`; asks nobody, so that it is no operation."""
        return self._real.on_disk(name)

    def list(self, folder: str = "") -> Listing:
        """See `Storage.list`."""
        found: Listing = self._do("list", folder, lambda: self._real.list(folder))
        return found

    def holding(self, folder: str, prefix: str, name: str) -> tuple[str, ...]:
        """See `Storage.holding`."""
        found: tuple[str, ...] = self._do(
            "holding", folder, lambda: self._real.holding(folder, prefix, name)
        )
        return found

    def held(self, folder: str, prefix: str, names: Sequence[str]) -> dict[str, dict[str, Entry]]:
        """See `Storage.held`; the same operation as `holding`."""
        found: dict[str, dict[str, Entry]] = self._do(
            "holding", folder, lambda: self._real.held(folder, prefix, names)
        )
        return found

    def entry(self, name: str) -> Entry | None:
        """See `Storage.entry`."""
        found: Entry | None = self._do("entry", name, lambda: self._real.entry(name))
        return found

    def leads_out(self, name: str) -> bool:
        """See `Storage.leads_out`."""
        leads: bool = self._do("leads_out", name, lambda: self._real.leads_out(name))
        return leads

    def read(self, name: str, limit: int | None = None) -> bytes:
        """See `Storage.read`."""
        data: bytes = self._do("read", name, lambda: self._real.read(name, limit))
        return data

    def open(self, name: str) -> RangeReader:
        """See `Storage.open`."""
        reader: RangeReader = self._do("open", name, lambda: self._real.open(name))
        return _FaultyReader(reader, name, self._do)

    def create_only(self, name: str, data: bytes) -> bool:
        """See `Storage.create_only`."""
        honoured: bool = self._do("create_only", name, lambda: self._real.create_only(name, data))
        return honoured

    def create(self, name: str, data: bytes, *, durable: bool = True) -> None:
        """See `Storage.create`."""

        def perform(data: bytes = data) -> None:
            self._real.create(name, data, durable=durable)

        self._do("create", name, perform, data)

    @contextmanager
    def writer(
        self,
        name: str,
        *,
        expected_size: int = 0,
        durable: bool = True,
        resident: bool = True,
        lasting: bool = False,
    ) -> Iterator[Sink]:
        """See `Storage.writer`."""
        real = self._real.writer(
            name,
            expected_size=expected_size,
            durable=durable,
            resident=resident,
            lasting=lasting,
        )
        with self._writing(name, real) as sink:
            yield sink

    @contextmanager
    def whole(self, name: str, *, expected_size: int = 0, durable: bool = True) -> Iterator[Sink]:
        """See `Storage.whole`; its operations are those of `writer`."""
        real = self._real.whole(name, expected_size=expected_size, durable=durable)
        with self._writing(name, real) as sink:
            yield sink

    @contextmanager
    def _writing(self, name: str, real: AbstractContextManager[Sink]) -> Iterator[Sink]:
        sink = self._do("writer", name, real.__enter__)
        # The garbage collector would end a writer that is left alone, and that cleans up.
        self._unfinished.append(real)
        finished = False

        def finish() -> None:
            nonlocal finished
            finished = True
            real.__exit__(None, None, None)

        try:
            yield _FaultySink(sink, name, self._do)
            self._do("finish", name, finish)
        except Killed:
            raise
        except BaseException as error:
            if not finished:
                real.__exit__(type(error), error, error.__traceback__)
            raise

    def replace(self, name: str, data: bytes, *, durable: bool = True) -> None:
        """See `Storage.replace`."""

        def perform(data: bytes = data) -> None:
            self._real.replace(name, data, durable=durable)

        self._do("replace", name, perform, data)

    def swap(self, name: str, expected: bytes, data: bytes, *, durable: bool = True) -> bool:
        """See `Storage.swap`."""

        def perform(data: bytes = data) -> bool:
            return self._real.swap(name, expected, data, durable=durable)

        swapped: bool = self._do("swap", name, perform, data)
        return swapped

    def copy(self, source: str, name: str, *, durable: bool = True, only_new: bool = False) -> None:
        """See `Storage.copy`."""
        options = {"durable": durable, "only_new": only_new}
        self._do("copy", name, lambda: self._real.copy(source, name, **options))

    def delete(self, name: str) -> None:
        """See `Storage.delete`."""
        self._do("delete", name, lambda: self._real.delete(name))

    def flush(self, folder: str) -> None:
        """See `Storage.flush`."""
        self._do("flush", folder, lambda: self._real.flush(folder))

    def time(self) -> float | None:
        """See `Storage.time`."""
        said: float | None = self._do("time", "", self._real.time)
        return said

    def unfinished(self) -> tuple[Unfinished, ...]:
        """See `Storage.unfinished`."""
        found: tuple[Unfinished, ...] = self._do("unfinished", "", self._real.unfinished)
        return found

    def beside(self, other: Storage) -> bool:
        """Return False: what two storages do by themselves, no fault comes to."""
        return False

    def fetch(self, origin: Storage, source: str, name: str) -> bool:
        """See `Storage.fetch`."""
        done: bool = self._do("fetch", name, lambda: self._real.fetch(origin, source, name))
        return done

    def composes(self) -> bool:
        """See `Storage.composes`."""
        able: bool = self._do("composes", "", self._real.composes)
        return able

    @contextmanager
    def continued(self, upload: Unfinished, *, expected_size: int) -> Iterator[Sink]:
        """See `Storage.continued`."""
        real = self._real.continued(upload, expected_size=expected_size)
        with self._do("continued", upload.name, lambda: real) as sink:
            yield sink

    def give_up(self, upload: Unfinished) -> None:
        """See `Storage.give_up`."""
        self._do("give_up", upload.name, lambda: self._real.give_up(upload))

    def _do(
        self,
        name: str,
        path: str,
        perform: Callable[..., Any],
        data: bytes | memoryview | None = None,
    ) -> Any:
        operation = self.seen.next(name, path, data)
        try:
            return self._fault(operation, perform)
        except Killed:
            self.seen.dead = True
            raise


@contextmanager
def inject(fault: Fault) -> Iterator[Seen]:
    """Send every operation of every storage that ckptstore connects to meanwhile through a fault.

    Storages that were connected to before keep working as they did. For tests: it changes what
    `ckptstore.storage.connect` and `locate` return, for all threads of this process.

    Args:
        fault: decides on each operation.

    Yields:
        What was asked so far, all storages counted together.
    """
    seen = Seen()
    connect, locate = storages.connect, storages.locate

    def faulty_connect(*args: Any, **options: Any) -> Storage:
        return FaultyStorage(connect(*args, **options), fault, seen)

    def faulty_locate(*args: Any, **options: Any) -> tuple[Storage, str | None]:
        found, name = locate(*args, **options)
        return FaultyStorage(found, fault, seen), name

    storages.connect, storages.locate = faulty_connect, faulty_locate
    try:
        yield seen
    finally:
        storages.connect, storages.locate = connect, locate


class _FaultySink(Sink):
    def __init__(self, sink: Sink, name: str, do: Callable[..., Any]) -> None:
        self._sink = sink
        self._name = name
        self._do = do

    @property
    def part_size(self) -> int:  # type: ignore[override]
        return self._sink.part_size

    @property
    def waiting(self) -> int:  # type: ignore[override]
        return self._sink.waiting

    @property
    def spared(self) -> int:  # type: ignore[override]
        return self._sink.spared

    @property
    def takes_held(self) -> bool:  # type: ignore[override]
        return self._sink.takes_held

    def write(self, data: memoryview, /) -> None:
        def perform(part: memoryview = data) -> None:
            self._sink.write(part)

        self._do("write", self._name, perform, memoryview(data).cast("B"))

    def lend(self, data: memoryview, /, held: Held | None = None) -> None:
        def perform(part: memoryview = data) -> None:
            self._sink.lend(part, held if len(part) == len(data) else None)

        self._do("write", self._name, perform, memoryview(data).cast("B"))


class _FaultyReader(RangeReader):
    def __init__(self, reader: RangeReader, name: str, do: Callable[..., Any]) -> None:
        self.size = reader.size
        self._reader = reader
        self._name = name
        self._do = do

    def readinto(self, start: int, target: memoryview) -> None:
        self._do("readinto", self._name, lambda: self._reader.readinto(start, target))

    def readinto_parts(self, start: int, targets: Sequence[memoryview]) -> None:
        self._do("readinto", self._name, lambda: self._reader.readinto_parts(start, targets))

    def interrupt(self) -> None:
        self._reader.interrupt()

    def close(self) -> None:
        self._reader.close()
