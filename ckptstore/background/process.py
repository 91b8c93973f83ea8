"""The program's side of the process that saves."""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import re
import socket
import subprocess
import sys
import weakref
from dataclasses import fields
from multiprocessing.connection import Connection
from multiprocessing.reduction import send_handle
from typing import TYPE_CHECKING, Any

from ckptstore.background.child import Order, Task
from ckptstore.background.recorded import Recorded, Recording, TooMuchError
from ckptstore.commit.layout import Committed
from ckptstore.commit.save import Save
from ckptstore.committer import Committer

if TYPE_CHECKING:
    from ckptstore.tensors.arena import Arena

__all__ = ["Process", "can_be_sent", "possible", "started"]

log = logging.getLogger(__name__)

_START = """
import importlib, sys
descriptor, parent = map(int, sys.argv[2:4])
sys.path[:] = sys.argv[4:]
importlib.import_module(sys.argv[1]).main(descriptor, parent)
"""
# What is embedded into another program, or frozen into one, would start that program anew.
_PYTHON = re.compile(r"(python|pypy)[0-9.]*t?")
# What writes and what reads an index are functions, and the process has its own.
_FIELDS = tuple(f.name for f in fields(Save) if f.name not in ("write", "index"))


class Process:
    """Commits in a process of its own what lies in shared memory.

    Rules: it ends with the program, whatever ended that; what it cannot do is done here, in the
    thread that asked; once it died of something, everything is.

    Args:
        committer: does here what the process cannot do, and says what was saved last.
    """

    def __init__(self, committer: Committer) -> None:
        self._committer = committer
        self._task = _task_of(committer)
        self._running: _Running | None = None
        self._owner = os.getpid()

    @property
    def possible(self) -> bool:
        """Whether there can be such a process, for this location and on this system."""
        return self._task is not None and os.getpid() == self._owner

    def start(self) -> None:
        """Start it, so that it is ready when the first save comes."""
        if self._task is None or self._running is not None or not self.possible:
            return
        try:
            self._running = _Running(self._task)
        except OSError as error:
            log.info("no process can be started, saves go on in a thread: %s", error)
            self._task = None

    def take_over(self, other: Process) -> None:
        """Take what another one has running, if there is any, for this location."""
        running = other._running
        if running is None or self._running is not None or not (self.possible and other.possible):
            return
        other._running = None
        try:
            running.turn_to(self._task)
        except OSError:
            running.end()
            return
        self._running = running

    def commit(self, save: Save, overwrite: bool, arena: Arena) -> Committed:
        """Commit what another process can see of a save; see `Committer.commit`.

        Args:
            save: what; it writes tensors whose memory is the arena's.
            overwrite: whether a step that is there may be replaced.
            arena: the shared memory.
        """
        if self._running is None or not self.possible:
            return self._committer.commit(save, overwrite)
        recording = Recording(arena.place, arena.keep)
        try:
            save.write(recording)
        except TooMuchError:
            return self._committer.commit(save, overwrite)
        try:
            outcome = self._running.do(
                recording.recorded, save, overwrite, self._committer.last, arena
            )
        except (OSError, EOFError):
            code = self._running.end()
            self._task = self._running = None
            log.warning("the process that saves has ended (%s); saves go on in a thread", code)
            return self._committer.commit(save, overwrite)
        if isinstance(outcome, BaseException):
            raise outcome
        if self._committer.keep is not None:
            self._committer.last = outcome
        return outcome

    def close(self) -> None:
        """End it; `start` starts another."""
        if self._running is not None and self.possible:
            self._running.end()
            self._running = None


def possible() -> bool:
    """Whether there can be processes of our own on this system."""
    program = os.path.basename(sys.executable or "")
    able = sys.platform == "linux" and _PYTHON.fullmatch(program) is not None
    return able and not hasattr(sys, "frozen")


def started(module: str) -> tuple[subprocess.Popen[bytes], Connection]:
    """Start a process of our own, and return it with our end of the socket to it.

    Args:
        module: its ``main`` is called with the descriptor of the other end, and our number.

    Raises:
        OSError: none can be started.
    """
    ours, theirs = socket.socketpair()
    with ours, theirs:
        words = [module, str(theirs.fileno()), str(os.getpid()), *sys.path]
        process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-c", _START, *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
        )
        return process, Connection(ours.detach())


class _Running:
    """A process that was started."""

    def __init__(self, task: Task) -> None:
        process, self._connection = started("ckptstore.background.child")
        self._process = process
        self._sent: set[int] = set()
        self.end = weakref.finalize(self, _end, process, self._connection, os.getpid())
        self.turn_to(task)

    def turn_to(self, task: Task | None) -> None:
        """Say what it is for from now on.

        Raises:
            OSError: the process ended.
        """
        self._connection.send(task)

    def do(
        self,
        recorded: Recorded,
        save: Save,
        overwrite: bool,
        last: Committed | None,
        arena: Arena,
    ) -> Committed | BaseException:
        """Have a save done; say here what is logged there.

        Raises:
            OSError, EOFError: the process ended.
        """
        slabs = arena.shared()
        new = tuple(slabs.keys() - self._sent)
        self._connection.send(
            Order(
                slabs={number: size for number, (_, size) in slabs.items()},
                new=new,
                files=recorded,
                how={n: getattr(save, n) for n in _FIELDS},
                overwrite=overwrite,
                last=last,
                level=logging.getLogger("ckptstore").getEffectiveLevel(),
            )
        )
        for number in new:
            send_handle(self._connection, slabs[number][0], self._process.pid)
        self._sent = set(slabs)
        while True:
            answer: Any = self._connection.recv()
            if not isinstance(answer, tuple):
                return answer  # type: ignore[no-any-return]
            name, level, text = answer
            logging.getLogger(name).log(level, "%s", text)


def _end(process: subprocess.Popen[bytes], connection: Connection, owner: int) -> int | None:
    """Let go of a process and wait for its end; return what it ended with."""
    with connection, contextlib.suppress(OSError):
        if os.getpid() == owner:
            connection.send(None)
    if os.getpid() != owner:
        return None  # A fork of the program, to which the process does not belong.
    with contextlib.suppress(subprocess.TimeoutExpired):
        return process.wait(5)
    process.kill()
    return process.wait()


def _task_of(committer: Committer) -> Task | None:
    """Return what another process needs to save into a location; None where it cannot."""
    able = possible() and hasattr(os, "memfd_create")
    where = committer.storage.elsewhere() if able else None
    if where is None:
        return None
    journal = committer.journal
    shown = committer.storage.location
    task = Task(where, shown, committer.keep, journal.tier, journal.optimizer)
    return task if can_be_sent(task) else None


def can_be_sent(task: object) -> bool:
    """Whether another process can be told; any object may be among what fsspec is given."""
    try:
        pickle.dumps(task)
    except Exception:  # What cannot be pickled refuses as it likes.
        return False
    return True
