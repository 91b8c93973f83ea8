"""``python -m benchmarks.faults``: kill what saves, and prove after each time what is there.

Real processes save in a loop, a single checkpoint and a history, at once and in the background.
They are killed (SIGKILL) at random moments, stopped inside a save while another one saves twice,
cut off from their server, and cleaned up after; rclone's server is killed and started again.
After each event a fresh process opens the location and proves all of it: one whole state, at
least as new as what was acknowledged. What is printed in bold has to be zero; where it is not,
each case is told, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import signal
import sys
import tempfile
import time
from collections.abc import Mapping
from typing import Any

from benchmarks.faults.events import EVENTS, Course
from benchmarks.faults.ledger import Ledger, Tally, table
from benchmarks.faults.places import STORAGES, Ground, grounds
from benchmarks.faults.races import race

_KILLS = {"local": 1000, "moto": 200, "rclone": 200}
_RACES = {"local": 40, "moto": 10, "rclone": 10}
_EVENTS_PER_PLACE = 80


def main() -> None:
    """Do it, and print what was counted; what was counted so far where it is interrupted."""
    options = _options()
    # So that servers and folders go, however this is ended.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    _import_everything()
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(2**32)
    print(f"seed {seed}", file=sys.stderr, flush=True)
    tallies: dict[str, Tally] = {}
    interrupted = False
    try:
        for name in STORAGES if options.storage == "all" else (options.storage,):
            tallies[name] = Tally()
            _harm(name, tallies[name], random.Random(f"{seed} {name}"), options)
    except KeyboardInterrupt:
        interrupted = True
    if options.json:
        found = {name: {**tally.counts, "found": tally.found} for name, tally in tallies.items()}
        print(json.dumps({"seed": seed, "storages": found}, indent=2))
    else:
        print(table(tallies))
    for name, tally in tallies.items():
        for line in tally.found:
            print(f"\n{name}: {line}", file=sys.stderr)
    if not all(tally.sound for tally in tallies.values()):
        sys.exit(1)
    if interrupted:
        sys.exit(130)


def _harm(name: str, tally: Tally, chance: random.Random, options: Any) -> None:
    kills = _KILLS[name] if options.kills is None else options.kills
    races = _RACES[name] if options.races is None else options.races
    with grounds(name, options.folder) as ground:
        run(
            ground,
            tally,
            chance,
            kills=kills,
            seconds=options.seconds,
            events=options.events,
        )
        for number in range(races):
            race(ground, tally, history=bool(number % 2))
            print(f"{name}: {number + 1}/{races} races", file=sys.stderr, flush=True)


def run(
    ground: Ground,
    tally: Tally,
    chance: random.Random,
    *,
    kills: int,
    seconds: float | None = None,
    events: Mapping[str, int] | None = None,
) -> None:
    """Let events happen on one storage, until there were enough of them or the time is over.

    Args:
        ground: the storage.
        tally: where to count.
        chance: decides what happens when.
        kills: how many there have to be, beside what else happens.
        seconds: at most.
        events: how often each kind of event is to happen, in place of a number of kills.
    """
    planned = [name for name, count in (events or {}).items() for _ in range(count)]
    chance.shuffle(planned)
    latest = math.inf if seconds is None else time.monotonic() + seconds

    def over() -> bool:
        enough = not planned if events else tally.counts["kills"] >= kills
        return enough or time.monotonic() > latest

    durations: list[float] = []
    progress = _Progress(ground.name, tally, kills)
    while not over():
        courses = []
        for history in (False, True):
            ledger = Ledger(ground.place(history=history), tally, ground.conditions)
            courses.append(Course(ground, ledger, chance, durations))
        if not durations:  # Later first saves are killed like any other.
            courses[0].save()
        for _ in range(_EVENTS_PER_PLACE):
            course = chance.choice(courses)
            known = course.events
            [name] = chance.choices(list(known), [weight for weight, _ in known.values()])
            name = planned.pop() if planned else name
            known[name][1]()
            progress.show(name)
            if over():
                break
        for course in courses:
            course.tidy()
    progress.end()


class _Progress:
    """One line on stderr that says how far it is; every half minute a new one in a log."""

    def __init__(self, name: str, tally: Tally, kills: int) -> None:
        self._name = name
        self._tally = tally
        self._kills = kills
        self._terminal = sys.stderr.isatty()
        self._shown = time.monotonic()

    def show(self, event: str) -> None:
        pause = 0.2 if self._terminal else 30.0
        if time.monotonic() - self._shown < pause:
            return
        self._shown = time.monotonic()
        self._print(event)

    def end(self) -> None:
        self._print("done")
        if self._terminal:
            print(file=sys.stderr)

    def _print(self, event: str) -> None:
        counts = self._tally.counts
        wrong = len(self._tally.found)
        line = (
            f"{self._name}: {counts['kills']}/{self._kills} kills, {counts['saves']} saves, "
            f"{wrong} wrong ({event})"
        )
        end = "" if self._terminal else "\n"
        start = "\r\x1b[K" if self._terminal else ""
        print(f"{start}{line}", end=end, file=sys.stderr, flush=True)


def _import_everything() -> None:
    """Import what children will need, by saving and opening once, and connect to nothing."""
    import aiobotocore.session
    import s3fs
    import torch

    import ckptstore
    import ckptstore.storage.s3

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        ckptstore.save(folder, model={"a": torch.zeros(1)}, optimizer={"state": {}}, step=1)
        checkpoint = ckptstore.open(folder)
        checkpoint.load_model()
        checkpoint.verify()
    _ = aiobotocore.session, s3fs


def _events(text: str) -> dict[str, int]:
    pairs = (part.partition("=") for part in text.split(","))
    found = {name: int(count) for name, _, count in pairs}
    if not found.keys() <= {*EVENTS}:
        raise ValueError(text)
    return found


def _options() -> Any:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults", description=__doc__)
    parser.add_argument("--storage", choices=(*STORAGES, "all"), default="all")
    parser.add_argument("--kills", type=int, help="on each storage; default: 1000 local, else 200")
    parser.add_argument("--races", type=int, help="on each storage; default: 40 local, else 10")
    parser.add_argument("--seconds", type=float, help="on each storage at most")
    parser.add_argument(
        "--events",
        type=_events,
        metavar="NAME=COUNT,...",
        help=f"what is to happen, in place of a number of kills: {', '.join(EVENTS)}",
    )
    parser.add_argument("--seed", type=int, help="of all choices; default: a new one")
    parser.add_argument("--folder", help="where to work; default: the temporary one")
    parser.add_argument("--json", action="store_true", help="print counts as JSON")
    return parser.parse_args()


if __name__ == "__main__":
    main()
