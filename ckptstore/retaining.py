"""Retention: what a policy makes of a history, and the removal of what it does not keep.

1. Nothing goes before the newer state is committed, and then manifest first (see
   `ckptstore.commit.remove`).
2. These stay, whatever the policy says: the newest step, the one just saved, what is pinned, what
   waits to be copied to a tier, and what cannot be read: it may be the best.
3. ``last`` counts steps that can be read, so that a damaged one never stands for a sound one.
4. Where no step has the metric that ``best`` looks at, nothing goes: it may be mistyped, and what
   is gone is gone.
5. A manifest is read once: what it says of a step is remembered by the version of its file. By a
   policy that only counts, those alone are read that count, or are about to go.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

from ckptstore.commit.layout import (
    Committed,
    Listed,
    listed_steps,
    read_manifest,
    step_folder,
    steps_among,
)
from ckptstore.commit.pins import PinnedError
from ckptstore.commit.remove import remove_saved
from ckptstore.errors import (
    CkptstoreError,
    CorruptionError,
    NotFoundError,
    StorageError,
    UnsafeError,
    UnsupportedError,
)
from ckptstore.keep import Keep, Measured
from ckptstore.manifest import Manifest
from ckptstore.storage.base import Storage
from ckptstore.storage.several import each

__all__ = ["Retained", "Retention", "measured_of"]

log = logging.getLogger(__name__)

_MOST_REMEMBERED = 2**16
_MANY = 1000  # From here on a listing of all files has several pages.
_FEW = 16
_WORTH_A_WORD = 4
_UNREADABLE = "step %s stays, for it cannot be read: %s"


@dataclass(frozen=True)
class Retained:
    """What a policy made of a history, or would make.

    Attributes:
        location: of the history.
        stays: step to the rules by which it stays, ascending: ``newest``, ``saved``, ``all``,
            ``last``, ``every``, ``best``, ``newer_than``, ``pinned``, ``waiting`` (for its copy
            in a tier), ``unreadable``.
        gone: step to its bytes: what was removed, or would be, ascending.
        dry_run: whether nothing was removed.
    """

    location: str
    stays: Mapping[int, tuple[str, ...]]
    gone: Mapping[int, int]
    dry_run: bool = False

    @property
    def nbytes(self) -> int:
        """The bytes of all that was removed, or would be."""
        return sum(self.gone.values())


class Retention:
    """Applies policies to one history, and remembers what its manifests say.

    Args:
        storage: the location.
        held: returns the steps that wait to be copied to a tier; asked when something would go.
    """

    def __init__(
        self, storage: Storage, *, held: Callable[[], Collection[int]] = frozenset
    ) -> None:
        self.location = storage.location
        self._storage = storage
        self._held = held
        self._told = 0
        self._many = False
        self._known: dict[int, tuple[object, Measured]] = {}

    def apply(
        self,
        keep: Keep,
        *,
        saved: Committed | None = None,
        durable: bool = True,
        dry_run: bool = False,
    ) -> Retained:
        """Remove what a policy does not keep.

        Args:
            keep: the policy.
            saved: what was just saved.
            durable: as `remove_state` has it.
            dry_run: only say what would go.

        Raises:
            NotFoundError: there is no step, or none has the metric of the policy and some would
                go; nothing was removed.
            StorageError: the storage failed; what was removed is in the log.
        """
        listed = listed_steps(self._storage)
        if not listed:
            raise NotFoundError(
                f"no steps in {self._storage.location}: it is no history, or nothing was saved yet"
            )
        self._many = len(listed) >= _MANY
        judged = _Judged(self, keep, listed, saved)
        self._hold_back(judged)
        gone = {}
        for step, measured in sorted(judged.goes.items()):
            rule = None if dry_run else self._remove(measured, durable=durable)
            if rule is None:
                gone[step] = measured.nbytes
            elif rule:
                judged.stay(step, rule)
        stays = dict(sorted(judged.stays.items()))
        return Retained(self._storage.location, stays, gone, dry_run)

    def after_save(self, keep: Keep, saved: Committed, *, durable: bool = True) -> None:
        """Do what `apply` does, and report nothing; as cheap as it gets where steps are many.

        A policy that only counts can do without a listing of all files: the folders tell the
        numbers, those that count are read from the top, and of the others only those that go.

        Raises:
            As `apply`.
        """
        if keep.everything:
            return
        if not self._many or keep.measures or (keep.last or 1) > _FEW:
            self.apply(keep, saved=saved, durable=durable)
            return
        steps = steps_among(self._storage.list("").folders)
        stay, left = {saved.manifest.step}, keep.last or 1
        for step in reversed(steps):
            if not left:
                break
            # Whether it counts or not: one that is unfinished or cannot be read stays, too.
            stay.add(step)
            left -= step == saved.manifest.step or self._look(step) is not None
        every = keep.every
        goes = [step for step in steps if step not in stay and not (every and step % every == 0)]
        if len(goes) > _FEW:
            self.apply(keep, saved=saved, durable=durable)
            return
        held = self._held() if goes else ()
        for step in goes:
            measured = None if step in held else self._look(step)
            if measured is not None:
                self._remove(measured, durable=durable)

    def saved_last(self) -> Committed | None:
        """Return the step that was saved last, whatever its number; None where none is readable.

        Raises:
            StorageError: the storage failed.
        """
        listed = listed_steps(self._storage)
        known = [found for found in self.measured(listed, listed).values() if found is not None]
        for latest in sorted(known, key=lambda found: (found.created, found.step), reverse=True):
            manifest = read_manifest(self._storage, step_folder(latest.step))
            if manifest is not None:
                return Committed(step_folder(latest.step), manifest)
        return None

    def _remove(self, measured: Measured, *, durable: bool) -> str | None:
        """Remove a save of a step; return the rule by which it stays after all.

        That is empty where another has removed it, or saved it anew, which may stay.
        """
        step = measured.step
        try:
            folder = step_folder(step)
            done = remove_saved(self._storage, folder, measured.write_id, durable=durable)
        except PinnedError:
            return "pinned"
        except (CorruptionError, UnsafeError, UnsupportedError) as error:
            log.warning(_UNREADABLE, step, error)
            return "unreadable"
        return None if done else ""

    def _hold_back(self, judged: _Judged) -> None:
        """Have what waits to be copied stay; log how much that is, when it is twice what it was."""
        waiting = {*judged.goes} & {*self._held()} if judged.goes else set()
        nbytes = sum(judged.goes[step].nbytes for step in waiting)
        for step in waiting:
            judged.stay(step, "waiting")
        if len(waiting) < max(2 * self._told, _WORTH_A_WORD):
            return
        self._told = len(waiting)
        log.warning(
            "%d steps of %s that the policy does not keep stay until they were copied to the "
            "tier: %d MB of the disk",
            len(waiting),
            self.location,
            nbytes // 10**6,
        )

    def _look(self, step: int) -> Measured | None:
        """Return what is known of a step; None where it cannot be read, or is not there."""
        ((_, read),) = self._read([step])
        if isinstance(read, Measured) or read is None:
            return read
        log.warning(_UNREADABLE, step, read)
        return None

    def measured(
        self, listed: Mapping[int, Listed], steps: Collection[int]
    ) -> dict[int, Measured | None]:
        """Return what is known of steps, read where it is not; None of what cannot be read.

        A step that is gone meanwhile is left out.
        """
        found: dict[int, Measured | None] = {}
        unknown = []
        for step in steps:
            known = self._known.get(step)
            if known is not None and known[0] == _version(listed[step]):
                found[step] = known[1]
            else:
                unknown.append(step)
        for step, read in self._read(unknown):
            if isinstance(read, Measured):
                found[step] = read
                self._remember(step, _version(listed[step]), read)
            elif read is not None:
                log.warning(_UNREADABLE, step, read)
                found[step] = None
        return found

    def forget_others(self, listed: Collection[int]) -> None:
        """Forget the steps that are not in a history any more."""
        if len(self._known) > len(listed):
            self._known = {step: known for step, known in self._known.items() if step in listed}

    def _remember(self, step: int, version: object, measured: Measured) -> None:
        if version is not None and len(self._known) < _MOST_REMEMBERED:
            self._known[step] = version, measured

    def _read(
        self, steps: Collection[int]
    ) -> Iterable[tuple[int, Measured | CkptstoreError | None]]:
        found = each(self._read_one, tuple(steps), self._storage.at_once)
        return zip(steps, tuple(found), strict=True)

    def _read_one(self, step: int) -> Measured | CkptstoreError | None:
        try:
            manifest = read_manifest(self._storage, step_folder(step))
        except CkptstoreError as error:
            if isinstance(error, StorageError) and self._storage.at_once > 1:
                raise  # A service that fails would fail for all the others, too.
            return error
        return None if manifest is None else measured_of(step, manifest)


class _Judged:
    """What a policy says of each step of a listing.

    Attributes:
        stays: step to the rules by which it stays.
        goes: what is known of the others.
    """

    def __init__(
        self,
        retention: Retention,
        keep: Keep,
        listed: Mapping[int, Listed],
        saved: Committed | None,
    ) -> None:
        self.stays: dict[int, tuple[str, ...]] = {}
        self.goes: dict[int, Measured] = {}
        self._retention = retention
        self._listed = dict(listed)
        self._found: dict[int, Measured | None] = {}
        own = None if saved is None else saved.manifest.step
        if saved is not None and own is not None and own in listed:
            self._found[own] = measured_of(own, saved.manifest)
            self.stay(own, "saved")
        retention.forget_others(listed)
        self._judge(keep)

    def stay(self, step: int, rule: str) -> None:
        """Have a step stay, by one more rule."""
        self.stays[step] = (*self.stays.get(step, ()), rule)
        self.goes.pop(step, None)

    def _judge(self, keep: Keep) -> None:
        steps = sorted(self._listed)
        if keep.measures:
            self._look_at(steps)
        elif not keep.everything:
            self._look_from_the_top(keep.last or 1)
        for step, rules in keep.rules(self._readable(keep)).items():
            self.stays[step] = (*rules, *self.stays.get(step, ()))
        for step in steps:
            if step in self._listed and self._listed[step].pinned:
                self.stay(step, "pinned")
        self._look_at([step for step in self._listed if step not in self.stays])
        for step, found in self._found.items():
            if found is None:
                self.stay(step, "unreadable")
            elif step not in self.stays:
                self.goes[step] = found
        self._check_measured(keep)

    def _readable(self, keep: Keep) -> list[Measured]:
        """Return the steps that count; of one that nobody has looked at its number is enough."""
        if keep.measures:
            return [found for found in self._found.values() if found is not None]
        return [
            found
            for step in sorted(self._listed)
            if (found := self._found.get(step, Measured(step, "", "", {}, 0))) is not None
        ]

    def _look_at(self, steps: Collection[int]) -> None:
        asked = [step for step in steps if step not in self._found]
        self._found |= self._retention.measured(self._listed, asked)
        for step in asked:
            if step not in self._found:
                del self._listed[step]  # It was removed since it was listed.

    def _look_from_the_top(self, count: int) -> None:
        """Read until so many of the highest steps are known to be readable."""
        left = sorted(self._listed)
        while left and count > 0:
            some, left = left[-count:], left[:-count]
            self._look_at(some)
            count -= sum(self._found.get(step) is not None for step in some)

    def _check_measured(self, keep: Keep) -> None:
        """Let nothing go by a policy whose metric nobody ever measured.

        Raises:
            NotFoundError: it is so.
        """
        if keep.best is None or not self.goes:
            return
        known = [found for found in self._found.values() if found is not None]
        if any("best" in rules for rules in self.stays.values()):
            return
        names = sorted({name for found in known for name in found.metrics})
        raise NotFoundError(
            f"no step of {self._retention.location} has the metric {keep.best!r}, so nobody can "
            f"say which is the best, and nothing is removed; there are: "
            f"{', '.join(names) or 'none'}; pass metrics= to save, or another name to Keep(best=)"
        )


def measured_of(step: int, manifest: Manifest) -> Measured:
    """Return what a policy looks at of a step."""
    return Measured(
        step,
        manifest.write_id,
        manifest.created,
        dict(manifest.metrics),
        sum(manifest.sizes().values()),
    )


def _version(listed: Listed) -> object:
    """Return what changes with every save of a step; None where the storage has no such thing."""
    entry = listed.manifest
    return None if entry.version is None else (entry.version, entry.modified, entry.size)
