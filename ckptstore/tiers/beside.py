"""The program's side of what uploads: a thread that waits for a process, or does it itself."""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import subprocess
import threading
import time
import weakref
from multiprocessing.connection import Connection
from typing import Any

from ckptstore import storage
from ckptstore.background.process import can_be_sent, possible, started
from ckptstore.background.running import step_back
from ckptstore.errors import CkptstoreError, StorageError, UnsupportedError
from ckptstore.keep import Keep
from ckptstore.storage.base import Storage
from ckptstore.tiers.child import Task
from ckptstore.tiers.journal import Entry, Journal
from ckptstore.tiers.rounds import called
from ckptstore.tiers.tier import Tier, Uploads
from ckptstore.tiers.uploader import Heard, Plan, Told, Uploader, needs_mending

__all__ = ["Uploading", "connected", "finalized"]

log = logging.getLogger(__name__)

_LOOK_AGAIN = 0.1
_GRACE = 2.0
_TO_TIDY = 10.0
_FIRST_RESTART = 0.2
_LAST_RESTART = 30.0
_MOST_SILENT = 3


class _EndedError(BaseException):
    """The program ends, and what is copied in a thread of it is left as it is."""


def connected(local: Storage, tier: Tier, keep: Keep | None) -> Storage:
    """Return the storage of a tier, once it is one for this location.

    Raises:
        UnsupportedError: the location is on no local disk, or the tier does not go with it.
    """
    if local.on_disk("") is None:
        raise UnsupportedError(
            f"{local.location} is on no local disk, and a tier is copied from one; save to a "
            "folder, or without tier= straight to where the states are to be"
        )
    if tier.keep is not None and keep is None:
        raise UnsupportedError(
            "a tier of a single checkpoint holds its newest generation, and Tier(keep=...) is "
            "for the steps of a history; pass keep= to the store too"
        )
    place = storage.connect(tier.location, tier.storage_options)
    if called(place) == called(local):
        raise UnsupportedError(f"{local.location} is the location and its tier at once")
    return place


class Uploading:
    """What copies the states of a store to its tier, beside the training.

    Rules: nothing here raises because of an upload; a process that dies is started again; what
    waits is what the journal says, whoever copies it.

    Args:
        local: the location.
        place: of the tier.
        tier: what was asked for.
        keep: what stays on the local disk; None for a single checkpoint.
    """

    def __init__(self, local: Storage, place: Storage, tier: Tier, keep: Keep | None) -> None:
        self.tier = called(place)
        self._local = local
        self._place = place
        self._asked_for = tier
        self._plan = Plan(keep, tier.keep, tier.retry_after, tier.retry_at_most)
        self._journal = Journal(local)
        self._task = self._task_of(tier)
        self._owner = os.getpid()
        self._told = Told()
        self._before: tuple[int, int] = (0, 0)
        self._changed = threading.Condition()
        self._said: queue.SimpleQueue[Heard] = queue.SimpleQueue()
        self._sending = threading.Lock()
        self._connection: Connection | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._thread: threading.Thread | None = None
        self._leaving, self._ending = threading.Event(), threading.Event()
        self._waits = 0

    # -- for the store ------------------------------------------------------------------------

    @property
    def active(self) -> bool:
        """Whether it was started, and not ended since."""
        return self._thread is not None

    def start(self) -> None:
        """Start copying, if it is not under way."""
        if self._thread is not None or self._asked_for.uploader == "none":
            return
        self._ending.clear()
        self._leaving.clear()
        self._start_over()
        self._thread = threading.Thread(target=self._run, name="ckptstore-upload", daemon=True)
        self._thread.start()

    def start_if_needed(self) -> None:
        """Start copying where something waits already; say what waits for other tiers."""
        entries = self._journal.entries()
        others = sorted({entry.to for entry in entries if entry.to != self.tier})
        for other in others:
            count = sum(entry.to == other for entry in entries)
            log.warning(
                "%d saves of %s wait for another tier, %s, and stay on the disk until they were "
                "copied; ckptstore upload %s %s does that, with --forget they wait no longer",
                count,
                self._local.location,
                other,
                self._local.location,
                other,
            )
        if any(entry.to == self.tier for entry in entries):
            self.start()

    def look(self) -> None:
        """Say that something was saved."""
        self.start()
        self._tell("look")

    def status(self) -> Uploads:
        """Return how far it is."""
        told, (done, copied) = self._told, self._before
        return Uploads(
            location=self.tier,
            pending=self._journal.count(self.tier),
            under_way=told.under_way,
            done_bytes=told.done_bytes if told.under_way else 0,
            total_bytes=told.total_bytes if told.under_way else 0,
            done=done + told.done,
            copied_bytes=copied + told.copied_bytes,
            last_error=told.last_error,
            failed=bool(told.stuck),
        )

    def wait(self, timeout: float | None, patience: float | None = None) -> bool:
        """Wait until nothing waits any more; return whether that is so.

        Args:
            timeout: seconds, at most; None: as long as something can still be copied.
            patience: seconds, at most, in which nothing comes forward.
        """
        begun = moved = time.monotonic()
        seen, left = self._told, frozenset[str]()
        number = self._ask() if self._waiting() else 0
        while True:
            waiting, told, now = self._waiting(), self._told, time.monotonic()
            if not waiting:
                self._settle(number)
                return True
            if self._asked_for.uploader == "none":
                return False
            heard = told.heard >= number
            if heard and all(entry.name in told.stuck for entry in waiting):
                return False
            names = frozenset(entry.name for entry in waiting)
            # Another program may be the one that copies.
            if _came_forward(seen, told) or left - names:
                seen, moved = told, now
            left = names
            if timeout is not None and now - begun >= timeout:
                return False
            if patience is not None and now - moved >= patience:
                return False
            with self._changed:
                self._changed.wait(_LOOK_AGAIN)

    def close(self, timeout: float | None = None) -> CkptstoreError | None:
        """Wait for the uploads, end what makes them, and log what is left.

        Returns:
            What needs somebody who mends it, if that is why something is left.
        """
        all_done = self.wait(timeout, self._asked_for.patience)
        self.end(grace=_TO_TIDY if all_done else 0.0)
        if all_done:
            return None
        count, told = self._journal.count(self.tier), self._told
        error = told.last_error
        failed = error is not None and bool(told.stuck) and needs_mending(error)
        text = (
            f"{count} {'save' if count == 1 else 'saves'} of {self._local.location} "
            f"{'was' if count == 1 else 'were'} not copied to {self.tier}"
            + (f": {error}" if error is not None else "")
            + f"; what is saved is whole on the disk, and waits in the journal for the next start "
            f"or for: ckptstore upload {self._local.location} {self.tier}"
        )
        if not failed:
            expected = self._asked_for.uploader == "none"
            log.log(logging.INFO if expected else logging.WARNING, "%s", text)
            return None
        log.error("%s", text)
        failure = StorageError(text, committed=True)
        failure.__cause__ = error
        return failure

    def end(self, grace: float = 0.0) -> None:
        """End what copies; the journal says what is left. `start` starts it anew.

        Args:
            grace: seconds in which it may end what it does after a copy, such as removing what
                need not be kept any more.
        """
        thread, process = self._thread, self._process
        if thread is None or os.getpid() != self._owner:
            return
        if grace:
            self._leaving.set()
            self._tell("end")
            thread.join(grace)
        self._ending.set()
        self._tell("end")
        if process is not None:
            process.kill()  # At any moment: that is what the commit and the journal are made for.
        thread.join(_GRACE)
        self._thread = self._process = None
        self._said = queue.SimpleQueue()

    # -- inside -------------------------------------------------------------------------------

    def _task_of(self, tier: Tier) -> Task | None:
        local = self._local.elsewhere()
        there = self._place.elsewhere()
        if tier.uploader != "auto" or local is None or there is None or not possible():
            return None
        level = logging.getLogger("ckptstore").getEffectiveLevel()
        shown = self._local.location
        task = Task(local, shown, there, self._place.location, self._plan, level)
        return task if can_be_sent(task) else None

    def _waiting(self) -> tuple[Entry, ...]:
        return self._journal.entries(self.tier)

    def _ask(self) -> int:
        self.start()
        self._waits += 1
        self._tell(self._waits)
        return self._waits

    def _settle(self, number: int) -> None:
        """Leave it a moment to say what it has done last, where it is us who did it."""
        end = time.monotonic() + _GRACE
        while self._told.heard < number and self._thread is not None and time.monotonic() < end:
            with self._changed:
                self._changed.wait(_LOOK_AGAIN)

    def _tell(self, what: Heard) -> None:
        if self._task is None:
            self._said.put(what)
            return
        with self._sending, contextlib.suppress(OSError, ValueError):
            if self._connection is not None:
                self._connection.send(what)

    def _not_heard(self) -> list[Heard]:
        """Return what has to be told to whoever begins to copy, and did not hear it."""
        asked: list[Heard] = [self._waits] if self._waits else []
        return [*asked, "end"] if self._leaving.is_set() else asked

    def _take(self, told: Told) -> None:
        if self._ending.is_set():
            raise _EndedError
        with self._changed:
            self._told = told
            self._changed.notify_all()

    def _run(self) -> None:
        wait, silent = _FIRST_RESTART, 0
        while not self._ending.is_set():
            if self._task is None:
                self._run_here()
                return
            try:
                self._process, connection = started("ckptstore.tiers.child")
            except OSError as error:
                log.info("no process can be started, uploads are made by a thread: %s", error)
                self._task = None
                continue
            done = self._told.done
            silent = 0 if self._listen(connection) else silent + 1
            code = self._process.wait()
            if self._ending.is_set() or code == 0:
                return  # It was told to end.
            wait = _FIRST_RESTART if self._told.done > done else min(2 * wait, _LAST_RESTART)
            self._start_over()
            if silent == _MOST_SILENT:
                log.warning("no process for uploads comes up (%s), a thread makes them", code)
                self._task = None
                continue
            log.warning("the process that uploads has ended (%s); another one is started", code)
            self._ending.wait(wait)

    def _start_over(self) -> None:
        told, (done, copied) = self._told, self._before
        self._before = (done + told.done, copied + told.copied_bytes)
        with self._changed:
            self._told = Told(last_error=told.last_error)

    def _listen(self, connection: Connection) -> bool:
        """Take what a process says until its end; return whether it said anything."""
        heard = False
        with connection:
            try:
                with self._sending:
                    for what in (self._task, *self._not_heard()):
                        connection.send(what)
                    self._connection = connection
                while not self._ending.is_set():
                    said: Any = connection.recv()
                    heard = True
                    if isinstance(said, Told):
                        self._take(said)
                    else:
                        name, level, text = said
                        logging.getLogger(name).log(level, "%s", text)
            except (OSError, EOFError, _EndedError):
                pass
            finally:
                self._connection = None
        return heard

    def _run_here(self) -> None:
        step_back()
        for what in self._not_heard():
            self._said.put(what)
        with contextlib.suppress(_EndedError):
            Uploader(self._local, self._place, self._plan, self._take, self._pause).run()

    def _pause(self, seconds: float) -> Heard:
        heard: Heard = None
        while not self._ending.is_set():
            try:
                said = self._said.get(block=heard is None, timeout=max(seconds, 0.001))
            except queue.Empty:
                return heard
            heard = said if heard is None or said != "look" else heard
        return "end"


def _came_forward(before: Told, now: Told) -> bool:
    """Whether something was copied meanwhile, be it a part of a file."""
    first, second = (
        (told.done, told.copied_bytes, told.under_way, told.done_bytes) for told in (before, now)
    )
    return first != second and (now.done_bytes > 0 or now.done > before.done)


def finalized(owner: object, uploading: Uploading) -> None:
    """End what uploads with its store, and say at the end of the program what is left."""

    def end() -> None:
        if not uploading.active:
            return
        uploading.end()
        status = uploading.status()
        if status.pending:
            log.warning(
                "%d saves were not copied to %s yet; they are, when a store is made there again, "
                "or by ckptstore upload",
                status.pending,
                status.location,
            )

    weakref.finalize(owner, end)
