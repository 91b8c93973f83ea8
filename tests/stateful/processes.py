"""Actors' processes: threads of real code that stop before every operation of their storage.

One rule: at any moment at most one thread runs, and the others wait. So what happens is decided
by whoever tells a process to go on, and by nobody else.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from ckptstore.errors import CkptstoreError
from ckptstore.storage.base import Entry, Listing, Storage, UnknownOutcomeError
from ckptstore.storage.names import held_by_looking
from ckptstore.testing.injection import FaultyStorage, Killed, Operation, Seen

__all__ = ["CHANGES", "LOSABLE", "Late", "Process", "Stepped", "current"]

CHANGES = frozenset({"create", "finish", "replace", "swap", "copy", "delete", "writer"})
"""The operations after which a storage may hold something else."""

LOSABLE = frozenset({"create", "replace", "swap", "copy", "delete"})
"""The operations that are one request, whose reply may be lost."""

_PATIENCE = 120.0
_SILENT = ("write", "create_only", "flush")  # Nobody else sees a difference.
_here = threading.local()


def current() -> Process | None:
    """Return the process whose thread this is."""
    return getattr(_here, "process", None)


class Late:
    """A request that is still under way, and may land at any later moment."""

    def __init__(self, said: str, perform: Callable[[], Any]) -> None:
        self.said = said
        self._perform = perform

    def land(self) -> None:
        """Let it be done; what it is answered, nobody hears."""
        with contextlib.suppress(CkptstoreError):
            self._perform()


class Process:
    """One act of an actor, in a thread of its own.

    Attributes:
        actor: who.
        said: what the act is called.
        pending: the operation before which it stands, or None once it is over.
        result: what the act returned.
        error: what it raised.
        begun: the moment when it began, as the caller counts moments.
        slept: whether hours passed in it.
        lost: whether it was left without a reply.
        alone: whether nobody else was at work from its beginning to its end.
        fresh: a person's edit, which was there when it began.
    """

    def __init__(self, actor: str, said: str, act: Callable[[], Any], begun: int) -> None:
        self.actor = actor
        self.said = said
        self.begun = begun
        self.pending: Operation | None = None
        self.result: Any = None
        self.error: BaseException | None = None
        self.seen = Seen()
        self.slept = False
        self.lost = False
        self.alone = True
        self.fresh: tuple[str, str] | None = None
        self._act = act
        self._order: Callable[[Callable[..., Any]], Any] = lambda perform: perform()
        self._go = threading.Semaphore(0)
        self._stood = threading.Semaphore(0)
        self._thread = threading.Thread(target=self._main, name=actor, daemon=True)
        self._opened = ""
        self._dead = False

    @property
    def over(self) -> bool:
        """Whether it has ended, by itself or killed."""
        return self.pending is None

    @property
    def killed(self) -> bool:
        """Whether it was killed."""
        return self._dead

    def start(self) -> None:
        """Run up to the first operation."""
        self._thread.start()
        self._wait()

    def go(self) -> None:
        """Do the pending operation, and run up to the next one."""
        self._tell(lambda perform: perform())

    def kill(self, *, after: bool) -> None:
        """End it before its pending operation, or when that is done."""

        self._dead = True

        def die(perform: Callable[..., Any]) -> Any:
            if after:
                with contextlib.suppress(CkptstoreError):
                    perform()
            raise Killed

        self._tell(die)

    def lose(self, how: str) -> Late | None:
        """Let the reply of the pending operation be lost.

        Args:
            how: ``done``, ``not done``, ``late``: done when the request that is returned lands;
                or ``repeated``: answered, and done once more when that lands.
        """
        operation, late = self.pending, []

        def answer(perform: Callable[..., Any]) -> Any:
            if how in ("late", "repeated"):
                late.append(Late(f"{self.actor}'s {operation}", perform))
            result = perform() if how in ("done", "repeated") else None
            if how == "repeated":
                return result
            raise UnknownOutcomeError(f"cannot {operation}: no reply came")

        self._tell(answer)
        return late[0] if late else None

    def fault(self, operation: Operation, perform: Callable[..., Any]) -> Any:
        """Stand before an operation until told what is to be done; called by the thread."""
        again = operation.name == "readinto" and self._opened == operation.path
        self._opened = operation.path if operation.name == "readinto" else self._opened
        if operation.name in _SILENT or again:
            return perform()
        self.pending = operation
        self._stood.release()
        self._go.acquire()
        return self._order(perform)

    def _tell(self, order: Callable[[Callable[..., Any]], Any]) -> None:
        self._order = order
        self._go.release()
        self._wait()

    def _wait(self) -> None:
        if not self._stood.acquire(timeout=_PATIENCE):
            raise TimeoutError(f"{self.actor} hangs after {self.pending}")

    def _main(self) -> None:
        _here.process = self
        try:
            self.result = self._act()
        except BaseException as error:
            self.error = error
        finally:
            self.pending = None
            self._stood.release()


class Stepped(FaultyStorage):
    """The storage as one process has it: each operation waits, and files have the world's age.

    Args:
        storage: does the work.
        process: whose it is.
        looks_twice: whether listing the folders that hold a file is many operations.
        aged: returns an entry with the time of the world instead of the machine's.
    """

    def __init__(
        self,
        storage: Storage,
        process: Process,
        *,
        looks_twice: bool,
        aged: Callable[[float], float],
    ) -> None:
        super().__init__(storage, _of_this_thread, process.seen)
        self._looks_twice = looks_twice
        self._aged = aged

    def holding(self, folder: str, prefix: str, name: str) -> tuple[str, ...]:
        if self._looks_twice:
            return tuple(held_by_looking(self, folder, prefix, (name,)))
        return super().holding(folder, prefix, name)

    def list(self, folder: str = "") -> Listing:
        found = super().list(folder)
        return Listing({n: self._dated(e) for n, e in found.files.items()}, found.folders)

    def entry(self, name: str) -> Entry | None:
        found = super().entry(name)
        return None if found is None else self._dated(found)

    def _dated(self, entry: Entry) -> Entry:
        return replace(entry, modified=self._aged(entry.modified))


def _of_this_thread(operation: Operation, perform: Callable[..., Any]) -> Any:
    """Ask the process that does it: a handle that one act has opened may be read by the next."""
    process = current()
    return perform() if process is None else process.fault(operation, perform)
