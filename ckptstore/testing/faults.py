"""The usual faults, for `FaultyStorage` and `inject`: deaths, torn writes, lost replies, refusals.

Each strikes at one operation: the one of a number, or the first that a function picks. `asked`
makes such a function: ``Lose(asked("create", "manifest.json"))``.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NoReturn

from ckptstore.errors import CkptstoreError, StorageError
from ckptstore.storage.base import AlreadyThereError, UnknownOutcomeError
from ckptstore.testing.injection import Killed, Operation

__all__ = ["ANSWERS", "Crash", "Lose", "Nothing", "Refuse", "Short", "Tear", "asked", "changes"]

At = int | Callable[[Operation], bool]

_WRITES = {"create", "writer", "write", "finish", "replace", "swap", "copy", "delete", "flush"}


def asked(name: str, path_ends: str = "") -> Callable[[Operation], bool]:
    """Return a function that picks operations by their name and the end of their path."""
    return lambda operation: operation.name == name and operation.path.endswith(path_ends)


def changes(operation: Operation) -> bool:
    """Whether an operation changes something, where it succeeds."""
    return operation.name in _WRITES


class Nothing:
    """No fault at all: operations are only counted."""

    def __call__(self, operation: Operation, perform: Callable[..., Any]) -> Any:
        """Perform it."""
        return perform()


@dataclass
class _Once:
    """Strikes at the operation of a number, or at the first that a function picks."""

    at: At
    struck: bool = field(default=False, init=False)

    def __call__(self, operation: Operation, perform: Callable[..., Any]) -> Any:
        """Perform the operation, or strike."""
        if self.struck or not _meant(self.at, operation):
            return perform()
        self.struck = True
        return self.strike(operation, perform)

    def strike(self, operation: Operation, perform: Callable[..., Any]) -> Any:
        raise NotImplementedError


@dataclass
class Crash(_Once):
    """The process dies before an operation, or after it.

    Args:
        at: which operation.
        after: whether it is performed first.
        exit: end this process for real with this status, as a signal would: nothing is cleaned
            up. By default `Killed` is raised, and the storage does nothing more.
    """

    after: bool = False
    exit: int | None = None

    def strike(self, operation: Operation, perform: Callable[..., Any]) -> NoReturn:
        """Die; what the operation would have said, nobody hears."""
        if self.after:
            with contextlib.suppress(Exception):
                perform()
        _die(self.exit)


@dataclass
class Tear(_Once):
    """The process dies in the middle of a write: the first half of its bytes arrive.

    Only pieces of large files can be torn, so ``at`` picks among ``write`` operations; at any
    other it is a crash before.
    """

    exit: int | None = None

    def strike(self, operation: Operation, perform: Callable[..., Any]) -> NoReturn:
        """Write half, and die."""
        if operation.name == "write" and operation.data is not None:
            perform(operation.data[: len(operation.data) // 2])
        _die(self.exit)


@dataclass
class Short(_Once):
    """A write that takes the first half of the bytes only, and says that all went well."""

    def strike(self, operation: Operation, perform: Callable[..., Any]) -> Any:
        """Write half."""
        if operation.data is None:
            return perform()
        return perform(operation.data[: len(operation.data) // 2])


@dataclass
class Lose(_Once):
    """No reply comes; the operation was done, or is done when `land` is called, or never.

    Args:
        at: which operation.
        done: whether it was done before the reply was lost.
    """

    done: bool = True
    _later: Callable[[], Any] | None = field(default=None, init=False)

    def strike(self, operation: Operation, perform: Callable[..., Any]) -> NoReturn:
        """Do it or keep it for later, and say that nothing is known."""
        if self.done:
            with contextlib.suppress(CkptstoreError):
                perform()
        else:
            self._later = perform
        raise UnknownOutcomeError(f"cannot {operation.name} {operation.path!r}: no reply came")

    def land(self) -> None:
        """Let the request arrive after all; what it is answered, nobody hears."""
        later, self._later = self._later, None
        if later is not None:
            with contextlib.suppress(CkptstoreError):
                later()


@dataclass
class Refuse:
    """A storage that answers with an error instead, from one operation on.

    Args:
        at: the first operation that is refused.
        answer: one of `ANSWERS`, or an error to raise.
        times: how many are refused; all that follow by default.
        writes: whether only what changes something is refused, as when a disk is full.
        done: whether it is done all the same, as when only the fsync that follows it fails.
    """

    at: At
    answer: str | Exception
    times: int | None = None
    writes: bool = False
    done: bool = False

    def __call__(self, operation: Operation, perform: Callable[..., Any]) -> Any:
        """Perform the operation, or refuse it."""
        begun = self.at == 0 or _meant(self.at, operation)
        if begun:
            self.at = 0
        if not begun or self.times == 0 or (self.writes and not changes(operation)):
            return perform()
        if self.times is not None:
            self.times -= 1
        if self.done:
            perform()
        raise self._error(operation)

    def _error(self, operation: Operation) -> Exception:
        if isinstance(self.answer, Exception):
            return self.answer
        return ANSWERS[self.answer](operation)


def _storage(said: str) -> Callable[[Operation], CkptstoreError]:
    return lambda operation: StorageError(f"cannot {operation.name} {operation.path!r}: {said}")


ANSWERS: dict[str, Callable[[Operation], CkptstoreError]] = {
    "taken": lambda operation: AlreadyThereError(
        f"{operation.path!r} is already there; nothing was written"
    ),
    "conflict": _storage("another request to it is under way (409); try again"),
    "broken": _storage("the server failed (500); try again later"),
    "busy": _storage("the server is too busy (503 SlowDown); try again later"),
    "timeout": lambda operation: (UnknownOutcomeError if changes(operation) else StorageError)(
        f"cannot {operation.name} {operation.path!r}: no answer in time"
    ),
    "no space": _storage("no space is left on the disk; free some, then try again"),
    "quota": _storage("the disk quota is used up; free some space, then try again"),
    "denied": _storage("access denied; look at the permissions"),
    "expired": _storage("the credentials have expired; renew them, then try again"),
}
"""What a storage says, by what went wrong: the errors that real ones raise after their retries."""


def _meant(at: At, operation: Operation) -> bool:
    return at(operation) if callable(at) else operation.number == at


def _die(exit: int | None) -> NoReturn:
    if exit is not None:
        os._exit(exit)
    raise Killed
