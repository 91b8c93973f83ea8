"""Losses of power: what a disk may hold at every call of an act to the operating system."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

from ckptstore.testing import PowerLoss, Remains
from tests.faults.acts import ACTS, Place
from tests.faults.deaths import Result, check, forked
from tests.faults.looking import expected_of, found

__all__ = ["CERTAIN", "outages"]

CERTAIN = ("synced", "names", "zeros", "all")


def outages(name: str, root: str, *, seeds: int = 1, first_seed: int = 0, goes: int = 7) -> Result:
    """Cut the power at every call of an act, and look at what the disk may hold.

    Until the act returned that is the whole old state or the whole new one; afterwards, where the
    act makes something new, it is the new one (G3).

    Args:
        name: of the act.
        root: a folder of its own.
        seeds: how many disks by chance, at each call.
        first_seed: the first of their seeds.
        goes: each time so many disks were looked at, one is saved into and mended.
    """
    act = ACTS[name]
    expected = expected_of(act, Place(f"{root}/expected"))
    recorded = f"{root}/recorded"
    os.mkdir(recorded)
    place = Place(recorded)
    with PowerLoss(recorded) as power:
        act.prepare(place)
        begun = len(power.calls)
        act.run(place)

    def look() -> str:
        result = Result()
        for said, remains, returned in _disks(power, begun, range(first_seed, first_seed + seeds)):
            place = Place(f"{root}/left")
            remains.write_to(place.root)
            with result.noting(f"{name}, {said}"):
                held = found(place, act.changed(place))
                whole = (expected.new,) if returned and act.saves else expected.whole
                assert held in whole, f"found {held}, not one of {sorted(set(whole))}"
                result.saw(held)
                if result.times % goes == 0:
                    check(act, place, expected, result.times)
            shutil.rmtree(place.root)
            result.times += 1
        return result.dumped()

    status, told = forked(look)
    return Result.loaded(told) if status == 0 else Result(wrong=[told])


def _disks(power: PowerLoss, begun: int, seeds: range) -> Iterator[tuple[str, Remains, bool]]:
    """Yield what a disk may hold from some call on, once each, and whether all was done by then."""
    seen: set[tuple[Remains, bool]] = set()
    last = len(power.calls)
    for moment in range(begun, last + 1):
        for which in (*CERTAIN, *seeds):
            remains = power.left(moment, which if isinstance(which, str) else which * last + moment)
            returned = moment == last
            if (remains, returned) not in seen:
                seen.add((remains, returned))
                call = power.calls[moment] if moment < last else "the end"
                yield f"call {moment - begun} ({call}), {which}", remains, returned
