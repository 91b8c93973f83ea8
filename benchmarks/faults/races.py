"""Several processes save to one location at the same moment, while others read."""

from __future__ import annotations

from typing import Any

from benchmarks.faults.children import Child
from benchmarks.faults.ledger import Ledger, Tally
from benchmarks.faults.places import Ground
from benchmarks.faults.working import Job, prove, read, write

__all__ = ["race"]


def race(
    ground: Ground,
    tally: Tally,
    *,
    history: bool,
    writers: int = 8,
    saves: int = 3,
    readers: int = 2,
) -> list[dict[str, Any]]:
    """Let writers save the same steps at once; return what they said.

    Every generation or step has one winner, and who lost was told so; every reader saw whole
    states only. Where the storage keeps no two writers apart, the first half is not promised:
    then an acknowledged save may be another's a moment later, and that is counted.
    """
    place = ground.place(history=history, kept=None)
    ledger = Ledger(place, tally, ground.conditions)
    said: list[dict[str, Any]] = []
    racing = [
        Child(write, Job(place, step=1, value=1 + 1000 * number, count=saves, waits=True))
        for number in range(writers)
    ]
    reading = [Child(read, place, ground.conditions) for _ in range(readers)]
    try:
        for child in (*racing, *reading):
            child.next("ready")
        for child in racing:
            child.say(go=True)
        for child in racing:
            said += child.rest()
        for child in reading:
            child.say(quit=True)
            _seen(child.next(), tally, ground, history)
    finally:
        for child in (*racing, *reading):
            child.__exit__()
    ledger.heard(said, expect=False)
    ledger.check_told(said)
    tally.add("races")
    with Child(prove, place) as prover:
        found = prover.next()
    _judge(found, ledger, ground, history)
    return said


def _seen(message: dict[str, Any] | None, tally: Tally, ground: Ground, history: bool) -> None:
    if message is not None and "reads" in message:
        tally.add("reads in races", message["reads"])
        tally.add("reads superseded", message["superseded"])
    elif history and not ground.conditions and "CorruptionError" in str(message):
        tally.add("steps damaged by a rival and found out")
    else:
        row = "mixtures" if "CorruptionError" in str(message) else "not opened"
        tally.wrong(row, f"a reader in a race: {message}")


def _judge(found: dict[str, Any] | None, ledger: Ledger, ground: Ground, history: bool) -> None:
    if ground.conditions:
        ledger.proved(found, "a race")
        return
    tally = ledger.tally
    if history and "CorruptionError" in str(found):
        tally.add("steps damaged by a rival and found out")
        return
    if found is None or "value" not in found:
        tally.wrong("mixtures", f"after a race without conditions: {found}")
        return
    tally.add("saves overwritten by a rival", ledger.overwritten)
