"""Working off the journal for as long as a program runs, and beyond every failure.

Rule 1: no error ends it, and none reaches the training: it is logged, once for each kind, and
said in the status. Rule 2: what failed for a moment (a server, a network, a full disk) is tried
again, after pauses that double. Rule 3: what needs somebody who mends it is an error in the log,
and tried again like the rest. Rule 4: a state that is itself the reason (damaged, in conflict)
stops no other; it stays in the journal.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from ckptstore.errors import (
    CkptstoreError,
    ConflictError,
    CorruptionError,
    NotFoundError,
    PluginError,
    StorageError,
    SupersededError,
    UnsafeError,
    UnsupportedError,
)
from ckptstore.keep import Keep
from ckptstore.progress import Progress
from ckptstore.storage.base import Storage
from ckptstore.tiers.journal import Entry
from ckptstore.tiers.rounds import Piece, Rounds, called

__all__ = ["Heard", "Plan", "Told", "Uploader", "needs_mending"]

log = logging.getLogger(__name__)

_LOOK_AGAIN = 1.0
_BETWEEN_EVENTS = 0.2
_MOST_SUPERSEDED = 5
_OF_A_STATE = (CorruptionError, ConflictError, UnsafeError, UnsupportedError, PluginError)

Heard = int | Literal["end", "look"] | None
"""What the program said while this waited: the number of who waits for the uploads, that it ends,
that something was saved; or nothing."""


@dataclass(frozen=True)
class Plan:
    """How it is done.

    Attributes:
        keep: what stays on the local disk; None for a single checkpoint.
        tier_keep: what stays in the tier; None for all.
        retry_after, retry_at_most: as `Tier` has them.
    """

    keep: Keep | None
    tier_keep: Keep | None
    retry_after: float
    retry_at_most: float


@dataclass(frozen=True)
class Told:
    """What the program is told.

    Attributes:
        under_way, done_bytes, total_bytes, done, copied_bytes, last_error: as `Uploads` has them.
        stuck: the names of what waits in the journal and needs somebody who mends it.
        heard: the number of the last who waited, and for whom everything was tried once more.
    """

    under_way: str | None = None
    done_bytes: int = 0
    total_bytes: int = 0
    done: int = 0
    copied_bytes: int = 0
    last_error: CkptstoreError | None = None
    stuck: frozenset[str] = frozenset()
    heard: int = 0


class Uploader:
    """Copies what waits, until it is told to end.

    Args:
        local: the location.
        tier: where to.
        plan: how.
        tell: is called with what has changed.
        pause: waits so many seconds at most, and returns what it heard meanwhile.
    """

    def __init__(
        self,
        local: Storage,
        tier: Storage,
        plan: Plan,
        tell: Callable[[Told], None],
        pause: Callable[[float], Heard],
    ) -> None:
        self._rounds = Rounds(local, tier, keep=plan.keep, tier_keep=plan.tier_keep)
        self._tier = called(tier)
        self._plan = plan
        self._tell = tell
        self._pause = pause
        self._told = Told()
        self._next_event = 0.0
        self._asked = 0
        self._of_states: dict[str, CkptstoreError] = {}
        self._failures = 0
        self._superseded = 0
        self._failing_since = 0.0
        self._said: set[str] = set()
        self._chance = random.SystemRandom()  # Python's global numbers are the training's.

    def run(self) -> None:
        """Do it until `pause` says that it ends."""
        self._tell(self._told)
        while True:
            try:
                error = self._round()
            except CkptstoreError as failure:
                error = failure
            except Exception as failure:  # File systems and formats of others are called.
                log.debug("an upload failed", exc_info=True)
                error = CkptstoreError(f"{type(failure).__name__}: {failure}")
            if error is not None:
                self._failed(error)
            self._changed(under_way=None, heard=self._asked)
            if not self._rest(error):
                return

    # -- one round ----------------------------------------------------------------------------

    def _round(self) -> CkptstoreError | None:
        """Do all that can be done now; return the error that ended it before."""
        while entries := self._open_ones():
            with self._rounds.journal.alone() as alone:
                if not alone:
                    return None  # Another process is at work here.
                for piece in self._rounds.pieces(entries):
                    error = self._do(piece)
                    if error is not None:
                        return error
        return None

    def _open_ones(self) -> list[Entry]:
        waiting = self._rounds.waiting()
        names = {entry.name for entry in waiting}
        self._of_states = {n: e for n, e in self._of_states.items() if n in names}
        return [entry for entry in waiting if entry.name not in self._of_states]

    def _do(self, piece: Piece) -> CkptstoreError | None:
        self._changed(under_way=str(piece), done_bytes=0, total_bytes=0)
        try:
            transfer = self._rounds.do(piece, self._progress)
        except SupersededError as error:
            log.info("%s is looked at again: %s", piece, error)
            self._superseded += 1
            # A moment is left to whoever replaces it again and again.
            return StorageError(str(error)) if self._superseded > _MOST_SUPERSEDED else None
        except _OF_A_STATE as error:
            self._of_states |= {entry.name: error for entry in piece.entries}
            self._say(error, f"{piece} is not copied to {self._tier}, and stays in the journal")
            self._changed(last_error=error, stuck=frozenset(self._of_states))
            return None
        except CkptstoreError as error:
            return error
        self._superseded = 0
        if transfer is not None or piece.first.what == "rewind":
            self._recovered()
        if transfer is not None:
            log.info("copied %s to %s", piece, self._tier)
            self._changed(
                under_way=None,
                done=self._told.done + 1,
                copied_bytes=self._told.copied_bytes + max(transfer.copied_bytes, 0),
            )
        return None

    def _progress(self, event: Progress) -> None:
        if time.monotonic() >= self._next_event:
            self._next_event = time.monotonic() + _BETWEEN_EVENTS
            self._changed(done_bytes=event.done, total_bytes=event.total)

    def _changed(self, **changes: object) -> None:
        told = replace(self._told, **changes)  # type: ignore[arg-type]
        if told != self._told:
            self._told = told
            self._tell(told)

    # -- failures -----------------------------------------------------------------------------

    def _failed(self, error: CkptstoreError) -> None:
        if not self._failures:
            self._failing_since = time.monotonic()
        self._failures += 1
        self._say(error, f"uploads to {self._tier} fail, and are tried again")
        stuck = frozenset(self._of_states)
        if needs_mending(error):
            stuck |= {entry.name for entry in self._rounds.journal.entries(self._tier)}
        self._changed(last_error=error, stuck=stuck)

    def _say(self, error: CkptstoreError, what: str) -> None:
        """Log a failure, but none of a kind that was logged before."""
        kind = f"{what} {type(error).__name__} {str(error).partition(': ')[2]}"
        first = kind not in self._said
        self._said.add(kind)
        level = logging.ERROR if needs_mending(error) else logging.WARNING
        log.log(level if first else logging.DEBUG, "%s: %s", what, error)

    def _recovered(self) -> None:
        if self._failures:
            log.warning(
                "%s takes uploads again, after %d failures in %.0f s",
                self._tier,
                self._failures,
                time.monotonic() - self._failing_since,
            )
        self._failures = 0
        self._said.clear()
        last = next(reversed(self._of_states.values())) if self._of_states else None
        self._changed(last_error=last, stuck=frozenset(self._of_states))

    def _rest(self, error: CkptstoreError | None) -> bool:
        """Wait until it is worth trying again; return whether it goes on at all."""
        seconds = _LOOK_AGAIN
        if error is not None:
            doubled = self._plan.retry_after * 2.0 ** min(self._failures - 1, 30)
            seconds = min(doubled, self._plan.retry_at_most) * self._chance.uniform(0.5, 1.0)
        end = time.monotonic() + seconds
        while True:
            heard = self._pause(max(0.0, end - time.monotonic()))
            if heard == "end":
                return False
            if isinstance(heard, int):
                self._asked = heard
                self._of_states.clear()  # Somebody waits: all is tried once more.
                return True
            if time.monotonic() >= end:
                return True
            # What was just saved is tried at once, unless the way is known to fail for now.
            if heard == "look" and (error is None or needs_mending(error)):
                return True


def needs_mending(error: CkptstoreError) -> bool:
    """Whether an error stays as long as nobody does anything about it."""
    if isinstance(error, StorageError):
        return error.denied
    return isinstance(error, (NotFoundError, *_OF_A_STATE)) or type(error) is CkptstoreError
