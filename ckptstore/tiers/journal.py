"""What has still to be copied: a small file for each save, beside the states, on the local disk.

Rule 1: the file is there, and safe, before the state that it is about is committed. So no death
can leave a committed state that nobody would copy; a file without a state is what a death leaves.
Rule 2: its writer holds it (a lock) until the save has ended, one way or the other. So who finds
it free knows that what it is about is committed, or never will be.
Rule 3: it goes when the tier has acknowledged a state that was looked for after it was free.
Rule 4: its name is never used again, so that who removes it removes no other's.
Rule 5: it holds no credential, and says in its name what it is about.
"""

from __future__ import annotations

import logging
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Literal

from ckptstore.errors import CkptstoreError, CorruptionError, NotFoundError
from ckptstore.storage import locks
from ckptstore.storage.base import Storage
from ckptstore.texts import dump_json, parse_json

__all__ = ["JOURNAL", "Entry", "Journal"]

log = logging.getLogger(__name__)

JOURNAL = ".ckptstore-uploads"
"""The folder of the journal; it goes when nothing waits."""

_LOCK = "lock"
_VERSION = 1
_LARGEST = 2**16
_NAME = re.compile(r"(\d{8,18})-(newest|step|rewind)(?:-(\d{8,18}))?-[0-9a-f]{16}\.json")


@dataclass(frozen=True)
class Entry:
    """One file of the journal.

    Attributes:
        name: of the file.
        number: says in which order they were written.
        what: ``step``: a step is to be copied; ``newest``: the single checkpoint is; ``rewind``:
            what is later than a step is to go.
        step: of a step, and of what was gone back to.
        to: the tier, for people.
        optimizer: whether the copy has one.
        overwrite: whether it takes the place of another content.
    """

    name: str
    number: int
    what: Literal["newest", "step", "rewind"]
    step: int | None
    to: str
    optimizer: bool
    overwrite: bool


class Journal:
    """The journal of one location; empty for ever where that is on no local disk.

    Args:
        storage: the location.
        tier: where what is saved from now on is to be copied, for people; None for nowhere.
        optimizer: whether the copies have one.
    """

    def __init__(self, storage: Storage, tier: str | None = None, *, optimizer: bool = True):
        self._storage = storage
        self._local = storage.on_disk("") is not None
        self.tier = tier
        self.optimizer = optimizer
        self._read: dict[str, Entry | None] = {}

    # -- saving ---------------------------------------------------------------------------

    @contextmanager
    def saving(
        self, step: int | None, *, overwrite: bool = False, durable: bool = True
    ) -> Iterator[None]:
        """Note what is saved within the block, or never will be.

        Args:
            step: of a history; None for a single checkpoint.
            overwrite: whether it may take the place of another content.
            durable: whether the note survives a loss of power, as the state does.

        Raises:
            StorageError: it cannot be noted; then nothing is to be saved.
        """
        what = "newest" if step is None else f"step-{step:08d}"
        with self._noted(what, step, overwrite=overwrite, durable=durable):
            yield

    @contextmanager
    def rewinding(self, step: int) -> Iterator[None]:
        """Note that all later steps are removed within the block, and have to go in the tier."""
        with self._noted(f"rewind-{step:08d}", step, overwrite=False, durable=True):
            yield

    @contextmanager
    def _noted(
        self, what: str, step: int | None, *, overwrite: bool, durable: bool
    ) -> Iterator[None]:
        if self.tier is None:
            yield
            return
        document = {
            "ckptstore_upload": _VERSION,
            "what": what.partition("-")[0],
            "step": step,
            "to": self.tier,
            "optimizer": self.optimizer,
            "overwrite": overwrite,
            "asked": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        }
        name, held = self._created(what, dump_json(document), durable=durable)
        try:
            yield
        except CkptstoreError as error:
            undone = NotFoundError if what.startswith("rewind") else CkptstoreError
            if error.committed is False and isinstance(error, undone):
                self._storage.delete(f"{JOURNAL}/{name}")  # While it is held.
            raise
        finally:
            locks.unlock(held)

    def _created(self, what: str, text: str, *, durable: bool) -> tuple[str, int]:
        """Create a file and hold it; somebody may take it away before it is held."""
        while True:
            number = max((_number(name) for name in self._names()), default=0) + 1
            name = f"{number:08d}-{what}-{secrets.token_hex(8)}.json"
            self._storage.create(f"{JOURNAL}/{name}", text.encode(), durable=durable)
            held = locks.lock(self._path(name))
            if held is not None:
                return name, held

    # -- looking --------------------------------------------------------------------------

    def entries(self, tier: str | None = None) -> tuple[Entry, ...]:
        """Return what is to be copied, in the order of its saves; what nobody can read is logged.

        Args:
            tier: only what goes there.
        """
        names = self._names()
        self._read = {name: entry for name, entry in self._read.items() if name in names}
        for name in names - self._read.keys():
            try:
                self._read[name] = self._entry(name)
            except NotFoundError:
                continue
            except CkptstoreError as error:
                self._read[name] = None
                log.warning("what it says is not copied: %s", error)
        found = [entry for entry in self._read.values() if entry is not None]
        found = [entry for entry in found if tier is None or entry.to == tier]
        return tuple(sorted(found, key=lambda entry: (entry.number, entry.name)))

    def count(self, tier: str | None = None) -> int:
        """Return how many saves wait."""
        return sum(entry.what != "rewind" for entry in self.entries(tier))

    def held_steps(self) -> frozenset[int]:
        """Return the steps that have still to be copied, to whatever tier; reads nothing."""
        found = (_NAME.fullmatch(name) for name in self._names())
        return frozenset(int(match[3]) for match in found if match and match[2] == "step")

    def is_free(self, entry: Entry) -> bool:
        """Whether the save that an entry is about has ended."""
        return locks.is_free(self._path(entry.name), shared=True)

    # -- working it off ---------------------------------------------------------------------

    def done(self, entries: tuple[Entry, ...]) -> None:
        """Forget what was done, or has nothing to be done for."""
        for entry in entries:
            self._storage.delete(f"{JOURNAL}/{entry.name}")

    @contextmanager
    def alone(self) -> Iterator[bool]:
        """Hold the journal against every other who would copy; say whether that succeeded."""
        path = self._path(_LOCK)
        led_away = os.path.islink(os.path.dirname(path))
        held = None if led_away else locks.lock(path, wait=False, make=True)
        try:
            yield held is not None
        finally:
            if held is not None:
                try:
                    self._storage.delete(f"{JOURNAL}/{_LOCK}")  # While it is held.
                finally:
                    locks.unlock(held)

    # -- inside -----------------------------------------------------------------------------

    def _names(self) -> set[str]:
        if not self._local:
            return set()
        return {name for name in self._storage.list(JOURNAL).files if _NAME.fullmatch(name)}

    def _path(self, name: str) -> str:
        return str(self._storage.on_disk(f"{JOURNAL}/{name}"))

    def _entry(self, name: str) -> Entry:
        path = f"{JOURNAL}/{name}"
        where = f"{path} in {self._storage.location}"
        document = parse_json(self._storage.read(path, _LARGEST), where)
        version, to = document.get("ckptstore_upload"), document.get("to")
        if version != _VERSION or not isinstance(to, str):
            raise CorruptionError(
                f"{where} is none of this version's ({_VERSION}): it says {version!r}, to {to!r}; "
                "remove it, or use the ckptstore that wrote it"
            )
        match = _NAME.fullmatch(name)
        if match is None or (match[2] == "newest") != (match[3] is None):
            raise CorruptionError(f"{where} has a name that no save gives; remove it")
        return Entry(
            name=name,
            number=int(match[1]),
            what=match[2],  # type: ignore[arg-type]
            step=None if match[3] is None else int(match[3]),
            to=to,
            optimizer=document.get("optimizer") is not False,
            overwrite=document.get("overwrite") is True,
        )


def _number(name: str) -> int:
    return int(name.partition("-")[0])
