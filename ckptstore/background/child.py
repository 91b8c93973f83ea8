"""What runs in the process that saves: it is given orders until nobody is left who gives them.

It never outlives who started it: a writer that nobody knows of any more could come between the
saves of a program that was started anew. Until then no signal for the whole group ends it, since
a program that is told to end may still want to save.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import mmap
import os
import pickle
import select
import signal
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle
from typing import Any

from ckptstore import storage
from ckptstore.background.recorded import Recorded
from ckptstore.commit.layout import Committed
from ckptstore.commit.save import Save
from ckptstore.committer import Committer
from ckptstore.errors import CkptstoreError
from ckptstore.keep import Keep
from ckptstore.saving import index
from ckptstore.storage.base import Elsewhere

__all__ = ["Order", "Passing", "Task", "end_with", "main", "sendable"]

_NICE = 10
_LOOK_AGAIN = 0.2


@dataclass(frozen=True)
class Task:
    """What the process is for; another one after it turns it to another location.

    Attributes:
        where: the location.
        shown: what to call it.
        keep: what stays of a history.
        tier: where what is saved is to be copied, for people.
        optimizer: whether those copies have one.
    """

    where: Elsewhere
    shown: str
    keep: Keep | None
    tier: str | None = None
    optimizer: bool = True


@dataclass(frozen=True)
class Order:
    """One save.

    Attributes:
        slabs: number and size of every slab of shared memory that there is now.
        new: the numbers of those whose descriptors follow, in this order.
        files: what is to be written.
        how: the fields of `Save` other than its functions.
        overwrite: whether a step that is there may be replaced.
        last: the step that was saved last.
        level: from which level on the program wants to hear what is logged.
    """

    slabs: Mapping[int, int]
    new: tuple[int, ...]
    files: Recorded
    how: Mapping[str, Any]
    overwrite: bool
    last: Committed | None
    level: int


def main(descriptor: int, parent: int) -> None:
    """Do what is asked through a socket, until it is closed or the parent is gone."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    end_with(parent)
    os.nice(_NICE)
    code = 1
    try:
        _Worker(Connection(descriptor)).run()
        code = 0
    except (EOFError, OSError):
        pass  # The program is gone, or has forgotten this process.
    finally:
        os._exit(code)


def end_with(parent: int) -> None:
    """From now on end this process at once when its parent has ended, whatever it is doing."""
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    if hasattr(os, "pidfd_open") and os.getppid() == parent:
        with contextlib.suppress(OSError):  # A sandbox may not have it.
            select.select([os.pidfd_open(parent)], [], [])
    while os.getppid() == parent:
        threading.Event().wait(_LOOK_AGAIN)
    os._exit(1)


class _Worker:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lock = threading.Lock()
        self._slabs: dict[int, memoryview] = {}

    def run(self) -> None:
        logger = logging.getLogger("ckptstore")
        logger.addHandler(Passing(self._send))
        logger.propagate = False
        committer = _committer_of(self._connection.recv())
        while (order := self._connection.recv()) is not None:
            if isinstance(order, Task):
                committer = _committer_of(order)
                continue
            self._map(order)
            logger.setLevel(order.level)
            committer.last = order.last
            write = functools.partial(order.files.write, self._slabs)
            save = Save(write=write, index=index, **order.how)
            try:
                outcome: Committed | BaseException = committer.commit(save, order.overwrite)
            except BaseException as error:
                outcome = sendable(error)
            self._send(outcome)

    def _send(self, answer: object) -> None:
        with self._lock:
            self._connection.send(answer)

    def _map(self, order: Order) -> None:
        for gone in self._slabs.keys() - order.slabs.keys():
            del self._slabs[gone]  # Unmapped once nothing looks into it any more.
        for number in order.new:
            descriptor = recv_handle(self._connection)
            try:
                memory = mmap.mmap(descriptor, order.slabs[number], access=mmap.ACCESS_READ)
            finally:
                os.close(descriptor)
            self._slabs[number] = memoryview(memory)


def _committer_of(task: Task) -> Committer:
    place = storage.connect(task.where.location, task.where.options)
    place.location = task.shown
    return Committer(place, task.keep, tier=task.tier, optimizer=task.optimizer)


class Passing(logging.Handler):
    """Sends what is logged to the program, which says it in its own way."""

    def __init__(self, send: Callable[[object], None]) -> None:
        super().__init__()
        self._pass_on = send

    def emit(self, record: logging.LogRecord) -> None:
        """Send what a record says; nobody hears it where the program is gone."""
        with contextlib.suppress(OSError):
            self._pass_on((record.name, record.levelno, record.getMessage()))


def sendable(error: BaseException) -> BaseException:
    """Return an error as it is, or what it says where it cannot be sent."""
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301  (made here)
    except Exception:
        return CkptstoreError(f"{type(error).__name__}: {error}")
    return error
