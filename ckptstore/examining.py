"""What `doctor` looks at: what was cut off or replaced, and whether the storage does its work.

Rule 1: nothing is changed unless it was asked for, but for one small file that is made, read and
removed again; with ``speed`` a second one of 8 MiB. Rule 2: what the storage refuses is a finding,
and ends only what needs it; that it cannot be listed at all is an error, since nothing can be said
then. Rule 3: what would not be different if a person acted is a note.
"""

from __future__ import annotations

import os
import secrets
import statistics
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from ckptstore import storage as storages
from ckptstore.commit.repair import mend
from ckptstore.errors import CkptstoreError, NotFoundError, UnsupportedError
from ckptstore.findings import Finding
from ckptstore.opening import Location
from ckptstore.storage.base import Storage
from ckptstore.storage.clocks import apart
from ckptstore.storage.names import TEMPORARY
from ckptstore.store import Store

__all__ = ["Examination", "Measured", "examine"]

_ASKED = 5
_SLOW = 1.0
_WRONG = 300.0
_PIECE = 8 * 2**20
_DATA = b"{}\n"


@dataclass
class Measured:
    """What was learnt of a storage; None where it was not asked, or did not say.

    Attributes:
        creates_only: whether it refuses to create what is there already.
        swaps: whether it replaces a file only if that is still what it was.
        clock_ahead: seconds by which its clock is ahead of this machine's.
        round_trip: seconds that a small request takes, the median of five.
        write_rate: bytes a second.
        read_rate: bytes a second.
    """

    creates_only: bool | None = None
    swaps: bool | None = None
    clock_ahead: float | None = None
    round_trip: float | None = None
    write_rate: float | None = None
    read_rate: float | None = None


@dataclass(frozen=True)
class Examination:
    """What was found, and what was learnt of the storage.

    Attributes:
        location: where.
        findings: what was found.
        measured: what was learnt of the storage.
        absent: that no checkpoint is there, where a service was tried all the same.
    """

    location: str
    findings: tuple[Finding, ...]
    measured: Measured
    absent: NotFoundError | None = None

    @property
    def healthy(self) -> bool:
        """Whether nothing is left to be done."""
        return self.absent is None and not any(finding.remains for finding in self.findings)


def examine(
    location: Location,
    *,
    fix: bool = False,
    adopt: bool = False,
    restore: bool = False,
    speed: bool = False,
    storage_options: Mapping[str, Any] | None = None,
) -> Examination:
    """Look for what needs mending, mend it where that was asked for, and try the storage.

    Args:
        location: of a checkpoint or a history.
        fix: do what is found to be needed.
        adopt: only commit the view's files, replaced by hand, as a new generation.
        restore: put the newest generation's files back in place of them; the same as ``fix`` else.
        speed: also write and read 8 MiB, and say how long that took.
        storage_options: what fsspec's filesystem takes.

    Returns:
        What was found; of a bucket in which nothing was saved yet, what it is like.

    Raises:
        NotFoundError: there is nothing at all, nor a service that could be asked for more.
        ConflictError: somebody replaced a file in the view, and nobody says what of it.
        StorageError: the storage cannot be reached, or does not say what is there.
    """
    storage = storages.connect(location, storage_options)
    absent: NotFoundError | None = None
    if adopt:
        done = Store(location, storage_options=storage_options).repair(adopt=True)
        found = tuple(Finding("view", line, status="mended") for line in done)
    else:
        try:
            found = mend(storage, restore=restore, dry_run=not (fix or restore))
        except NotFoundError as error:
            if storage.time() is None:
                raise
            found, absent = (), error
    trial = _Trial(storage)
    tried = (*trial.ask(), *trial.write(), *(trial.hurry() if speed else ()))
    return Examination(storage.location, (*found, *tried), trial.measured, absent)


class _Trial:
    """Asks a storage for what a checkpoint needs of it."""

    def __init__(self, storage: Storage) -> None:
        self.measured = Measured()
        self._storage = storage
        self._name = f"{TEMPORARY}{secrets.token_hex(8)}"
        self._is_service = False

    def ask(self) -> Iterator[Finding]:
        """Ask for the time, several times: how long that takes, and whose clock is wrong."""
        taken, ahead = [], []
        try:
            for _ in range(_ASKED):
                began, before = time.monotonic(), time.time()
                said = self._storage.time()
                if said is None:
                    self._storage.entry(self._name)
                taken.append(time.monotonic() - began)
                if said is not None:
                    # A date is cut off at whole seconds.
                    ahead.append(said + 0.5 - (before + time.time()) / 2)
        except CkptstoreError as error:
            yield Finding("read", str(error), "nothing else was tried", status="open")
            return
        self._is_service = bool(ahead)
        self.measured.round_trip = statistics.median(taken)
        if ahead:
            self.measured.clock_ahead = statistics.median(ahead)
        if self.measured.round_trip > _SLOW:
            yield Finding(
                "slow",
                f"{self._storage.location} takes {self.measured.round_trip:.1f} s for a small "
                f"request (median of {_ASKED})",
                "each file costs at least one of them",
                "look at the network, or use an endpoint that is nearer",
            )

    def write(self) -> Iterator[Finding]:
        """Make a small file, read it and remove it; learn which conditions are kept meanwhile."""
        if self.measured.round_trip is None:
            return
        try:
            self._storage.create(self._name, _DATA, durable=False)
        except UnsupportedError as error:
            yield Finding("write", str(error), "it is good for reading only")
            return
        except CkptstoreError as error:
            means = "nothing can be saved there"
            yield Finding("write", str(error), means, "permit writing", status="open")
            with suppress(CkptstoreError):  # After a lost reply it may be there all the same.
                self._storage.delete(self._name)
            return
        try:
            yield from self._look_at_file()
            yield from self._creates_only()
        except CkptstoreError as error:
            yield Finding("read", str(error), status="open")
        finally:
            refused = self._removed()
        yield from [refused] if refused is not None else self._swaps()
        yield from self._clock()

    def hurry(self) -> Iterator[Finding]:
        """Write 8 MiB and read them."""
        if self.measured.round_trip is None:
            return
        data, target = memoryview(os.urandom(_PIECE)), memoryview(bytearray(_PIECE))
        try:
            began = time.monotonic()
            with self._storage.writer(self._name, expected_size=_PIECE) as sink:
                sink.write(data)
            written = time.monotonic()
            with self._storage.open(self._name) as reader:
                reader.readinto(0, target)
            read = time.monotonic()
        except CkptstoreError as error:
            yield Finding("write", str(error), "how fast it is cannot be told", status="open")
            return
        finally:
            refused = self._removed()
        if refused is not None:
            yield refused
        if target != data:
            yield Finding(
                "read",
                f"{self._storage.location} gives back other bytes than were written",
                "nothing that is kept there can be trusted",
                "save elsewhere",
                "open",
            )
        self.measured.write_rate = _PIECE / max(written - began, 1e-9)
        self.measured.read_rate = _PIECE / max(read - written, 1e-9)

    def _look_at_file(self) -> Iterator[Finding]:
        if self._storage.read(self._name) != _DATA:
            yield Finding(
                "read",
                f"{self._storage.location} does not give back what was written a moment ago",
                "a save cannot be believed there",
                "save elsewhere",
                "open",
            )
        entry = self._storage.entry(self._name)
        if self.measured.clock_ahead is None and entry is not None and entry.modified:
            # Of a disk of this machine that is its own clock; of one in the network, another's.
            self.measured.clock_ahead = entry.modified - time.time()

    def _creates_only(self) -> Iterator[Finding]:
        self.measured.creates_only = self._storage.create_only(self._name, _DATA)
        if not self.measured.creates_only:
            yield Finding(
                "conditions",
                f"{self._storage.location} does not refuse to create what is there already "
                "(If-None-Match)",
                "two writers are not kept apart there, and one is as safe as anywhere (G7)",
                "let only one process at a time save there",
            )

    def _swaps(self) -> Iterator[Finding]:
        self.measured.swaps = self.measured.creates_only
        if self._is_service or not self.measured.creates_only:
            try:
                # Nothing of this name is there: only whether it could be done is asked.
                self._storage.swap(self._name, _DATA, _DATA)
                self.measured.swaps = True
            except UnsupportedError:
                self.measured.swaps = False
            except CkptstoreError as error:
                self.measured.swaps = None
                yield Finding("write", str(error), status="open")
        if self.measured.swaps is False:
            yield Finding(
                "conditions",
                f"{self._storage.location} does not replace a file on a condition (If-Match)",
                "a step that is there cannot be saved again with overwrite=True",
                "remove it before: ckptstore rm --step N",
            )

    def _removed(self) -> Finding | None:
        try:
            self._storage.delete(self._name)
        except CkptstoreError as error:
            means = "what is not kept any more stays, and so does this probe"
            return Finding("delete", str(error), means, "permit deleting, then remove it", "open")
        return None

    def _clock(self) -> Iterator[Finding]:
        ahead = self.measured.clock_ahead
        if ahead is not None and abs(ahead) > _WRONG:
            yield Finding(
                "clock",
                f"the clock of this machine is {apart(-ahead)} of that of {self._storage.location}",
                "S3 refuses requests beyond 15 minutes (RequestTimeTooSkewed), and the times of "
                "checkpoints are wrong",
                "set it right",
                "open",
            )
