"""The save that goes on beside the training: the state is copied aside, and a thread sees to it."""

from __future__ import annotations

import concurrent.futures.thread  # noqa: F401  (so that `_finish_at_exit` registers after it)
import contextlib
import logging
import os
import sys
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ckptstore.background.process import Process
from ckptstore.commit.layout import Committed
from ckptstore.commit.save import Save
from ckptstore.committer import Committer
from ckptstore.errors import CkptstoreError
from ckptstore.formats.base import Contents

if TYPE_CHECKING:
    from ckptstore.checkpoint import Checkpoint
    from ckptstore.tensors.staging import Staging

__all__ = ["Background", "step_back"]

log = logging.getLogger(__name__)

_NICE = 10
_WORTH_A_PROCESS = 16 * 2**20


class _Asked(Future[Any]):
    """A future that knows whether anybody was told how it ended."""

    asked = False
    reminded = False

    def result(self, timeout: float | None = None) -> Any:
        self.exception(timeout)
        return super().result()

    def exception(self, timeout: float | None = None) -> BaseException | None:
        error = super().exception(timeout)
        self.asked = True
        return error

    def remind(self) -> None:
        """Log the failure once more, unless somebody knows of it."""
        if not (self.asked or self.reminded):
            self.reminded = True
            log.warning("an earlier save in the background failed: %s", _said(super().exception()))


class Background:
    """Runs one save at a time beside the training.

    Rules: the caller gets control back once everything was copied, so nothing that is saved can
    be torn by the next step; a second save waits for the first, so no queue grows; a save that
    failed never stops training: it is logged as an error at once, and as a warning by the next
    call, and it is raised by its future, or by `close` where nobody asked the future; a save
    under way at the end of the process is finished first.

    A process of its own commits what is large enough to be worth it, where there can be one.

    Args:
        commit: makes a save of contents and of what else was submitted, and passes that on to
            its last argument, which commits; called in the thread.
        committer: of the location.
    """

    def __init__(self, commit: Callable[..., Checkpoint], committer: Committer) -> None:
        self._commit = commit
        self._committer = committer
        self._process = Process(committer)
        self._staging: Staging | None = None
        self._thread: threading.Thread | None = None
        self._current: _Asked | None = None
        self._failed: list[_Asked] = []

    @property
    def busy(self) -> bool:
        """Whether a save is under way."""
        return self._current is not None and not self._current.done()

    def skipped(self) -> Future[None]:
        """Return the future of a save that was left out; failures are logged as by any call."""
        for future in self._failed:
            future.remind()
        left_out: Future[None] = Future()
        left_out.set_result(None)
        return left_out

    def submit(self, contents: Contents, *rest: Any) -> Future[Checkpoint]:
        """Copy the contents aside and commit the copy; return its future."""
        self.wait()
        staged = self._copy(contents)
        future = _Asked()
        future.set_running_or_notify_cancel()  # Nobody can cancel what may be committing.
        self._current = future
        # Not a daemon: the interpreter waits for it at its end.
        self._thread = threading.Thread(
            target=self._run, args=(future, staged, rest), name="ckptstore-save"
        )
        _finish_at_exit(self._thread)
        self._thread.start()
        return future

    def prepare(self, contents: Contents) -> None:
        """Touch the memory that copies of such contents need, and start what commits them."""
        self.wait()
        self._copy(contents)

    def take_over(self, other: Background) -> None:
        """Take the memory and the process of another, once the save that uses them is done."""
        other.wait()
        self.wait()
        # Memory that no process can look into is of no use beside one, and the other way round.
        if self._staging is None and self._process.possible == other._process.possible:
            self._staging, other._staging = other._staging, None
            self._process.take_over(other._process)

    def wait(self) -> None:
        """Wait for the save that is under way; failures nobody asked for are logged once more."""
        self._join()
        for future in self._failed:
            future.remind()

    def close(self) -> None:
        """Wait, and raise the first failure that nobody was told of."""
        self._join()
        untold = [future for future in self._failed if not future.asked]
        self._failed.clear()
        self._staging = None
        self._process.close()
        if untold:
            raise untold[0].exception()  # type: ignore[misc]

    def _join(self) -> None:
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _run(self, future: _Asked, staged: Contents, rest: tuple[Any, ...]) -> None:
        step_back()
        try:
            result = self._commit(staged, *rest, self._do)
        except BaseException as error:
            log.error("a save in the background failed: %s", _said(error))
            self._failed.append(future)
            future.set_exception(error)
        else:
            future.set_result(result)

    def _apart(self) -> bool:
        """Whether a process is to commit what was copied last."""
        staging = self._staging
        return (
            staging is not None
            and staging.used >= _WORTH_A_PROCESS
            and staging.shared
            and self._process.possible
        )

    def _do(self, save: Save, overwrite: bool) -> Committed:
        if self._staging is not None and self._apart():
            return self._process.commit(save, overwrite, self._staging.arena)
        return self._committer.commit(save, overwrite)

    def _copy(self, contents: Contents) -> Contents:
        from ckptstore.tensors.staging import Staging

        if self._staging is None:
            self._staging = Staging(shared=self._process.possible)
        self._staging.rewind()
        copy = self._staging.copy
        copied = replace(
            contents,
            model=copy(contents.model),
            optimizer=copy(contents.optimizer),
            states=copy(dict(contents.states)),
            config=copy(contents.config),
            tokenizer_state=copy(contents.tokenizer_state),
            training_state=copy(contents.training_state),
            metrics_log=copy(contents.metrics_log),
        )
        self._staging.wait()
        if self._apart():
            self._process.start()
        return copied


def step_back() -> None:
    """Let training have the processor first, where all of them are taken.

    Linux alone has a priority for each thread; those that this thread starts inherit it.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)


_under_way: weakref.WeakSet[threading.Thread] = weakref.WeakSet()
_lock = threading.Lock()
_registered = False


def _finish_at_exit(thread: threading.Thread) -> None:
    """Have the interpreter wait for a thread before it takes apart what the thread works with.

    It waits for threads that are no daemons anyhow, but closes all executors before: asyncio
    opens connections in one, so that a save to S3 would fail.
    """
    global _registered
    with _lock:
        _under_way.add(thread)
        if not _registered:
            _registered = True
            # Called in reverse order. Where Python lacks it, only local disk is safe at the end.
            register = getattr(threading, "_register_atexit", None)
            if register is not None:
                register(_wait_for_all)


def _wait_for_all() -> None:
    for thread in list(_under_way):
        with contextlib.suppress(RuntimeError):  # It was never started.
            thread.join()


def _said(error: BaseException | None) -> str:
    return str(error) if isinstance(error, CkptstoreError) else repr(error)
