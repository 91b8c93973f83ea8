"""``python -m tests.stateful``: random histories for a time, counted; shrunk where one is wrong."""

from __future__ import annotations

import argparse
import logging
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import Flaky

from tests.stateful.moves import histories, play, single_checkpoints
from tests.stateful.places import KINDS
from tests.stateful.promises import BrokenPromiseError
from tests.stateful.world import new_world

_BATCH = 40
_SHARED = Path("/dev/shm")  # Memory that is a disk to whoever asks: nothing is waited for.


def main() -> int:
    """Run the command; return 1 where a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.stateful", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="how long, about")
    parser.add_argument("--seed", type=int, default=None, help="to repeat a run")
    parser.add_argument("--storage", choices=[*KINDS], action="append", help="all by default")
    parser.add_argument("--first", action="store_true", help="end at the first violation")
    parser.add_argument("--unshrunk", action="store_true", help="look for no shorter history")
    parser.add_argument("--only", choices=["single", "history"], help="both by default")
    asked = parser.parse_args()
    logging.getLogger("ckptstore").addHandler(logging.NullHandler())
    logging.getLogger("ckptstore").propagate = False
    first = random.SystemRandom().randrange(10**6) if asked.seed is None else asked.seed
    kinds = asked.storage or [*KINDS]
    shapes = [asked.only] if asked.only else ["single", "single", "history"]
    print(f"seed {first}")
    counts: Counter[str] = Counter()
    root = tempfile.mkdtemp(dir=_SHARED if _SHARED.is_dir() else None)
    until, number = time.monotonic() + asked.seconds, 0
    try:
        while time.monotonic() < until and not (asked.first and counts["violations"]):
            shape = shapes[number // len(kinds) % len(shapes)]
            phases = [Phase.generate] if asked.unshrunk else [Phase.generate, Phase.shrink]
            _batch(kinds[number % len(kinds)], shape, first + number, root, counts, phases)
            number += 1
    finally:
        shutil.rmtree(root, ignore_errors=True)
    _report(counts)
    return 1 if counts["violations"] else 0


def _batch(
    kind: str, shape: str, number: int, root: str, counts: Counter[str], phases: list[Phase]
) -> None:
    writers = 1 if kind == "one writer" else 2
    what = single_checkpoints(writers) if shape == "single" else histories(writers)

    @seed(number)
    @settings(
        max_examples=_BATCH,
        deadline=None,
        database=None,
        print_blob=False,
        report_multiple_bugs=False,
        phases=phases,
        suppress_health_check=[*HealthCheck],
    )
    @given(what)
    def hold(history: object) -> None:
        place = root if kind == "local" else "stateful"
        with new_world(kind, place, history=shape == "history") as world:
            try:
                play(world, history)
            finally:
                counts["histories"] += 1
                counts.update(world.counts)

    try:
        hold()
    except (BrokenPromiseError, Flaky) as error:
        counts["violations"] += 1
        print(f"\n{kind}, {shape}, seed {number}: {error}", flush=True)
        for note in getattr(error, "__notes__", ()):
            print(note, flush=True)


def _report(counts: Counter[str]) -> None:
    first = ("histories", "moments", "kills", "lost replies", "late requests", "edits", "puts")
    for name in first:
        print(f"{counts[name]:>10,} {name}")
    for name in sorted(set(counts) - {*first, "violations"}):
        print(f"{counts[name]:>10,} {name}")
    print(f"{counts['violations']:>10,} violations")


if __name__ == "__main__":
    sys.exit(main())
