"""``python -m benchmarks.runs``: kill training runs, and prove after each death what is there.

Each scenario is a module of this package with a function ``run(deaths, chance, counts, show)`` and
a number ``DEATHS``, how many it has by default. It starts real processes that train and save, kills
one of them or all (SIGKILL) at random moments, and then proves in another process that what was
acknowledged is there, whole, and that the newest and the best were not removed. What is printed in
bold has to be zero; where it is not, each case is told, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import importlib
import json
import pkgutil
import random
import signal
import sys
import time

import benchmarks.runs
from benchmarks.runs.counting import Counts, table

_OTHERS = ("__main__", "counting")


def main() -> None:
    """Do it, and print what was counted; what was counted so far where it is interrupted."""
    known = _scenarios()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.runs", description=__doc__)
    parser.add_argument("--only", choices=known, action="append", help="a scenario; repeatable")
    parser.add_argument("--deaths", type=int, help="in each scenario, instead of its default")
    parser.add_argument("--seed", type=int, help="of all choices; default: a new one")
    parser.add_argument("--json", action="store_true", help="print counts as JSON")
    options = parser.parse_args()
    # So that servers, folders and processes go, however this is ended.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(2**32)
    print(f"seed {seed}", file=sys.stderr, flush=True)
    found: list[Counts] = []
    interrupted = False
    try:
        for name in options.only or known:
            found.append(Counts(name))
            scenario = importlib.import_module(f"benchmarks.runs.{name}")
            deaths = scenario.DEATHS if options.deaths is None else options.deaths
            chance = random.Random(f"{seed} {name}")
            scenario.run(deaths, chance, found[-1], _Show(found[-1], deaths))
    except KeyboardInterrupt:
        interrupted = True
    if options.json:
        rows = {counts.name: {**counts.rows, "found": counts.found} for counts in found}
        print(json.dumps({"seed": seed, "scenarios": rows}, indent=2))
    else:
        print(table(found))
    for line in (line for counts in found for line in counts.found):
        print(f"\n{line}", file=sys.stderr)
    if not all(counts.sound for counts in found):
        sys.exit(1)
    if interrupted:
        sys.exit(130)


def _scenarios() -> list[str]:
    names = (module.name for module in pkgutil.iter_modules(benchmarks.runs.__path__))
    return sorted(name for name in names if name not in _OTHERS and not name.startswith("_"))


class _Show:
    """Says on stderr how far a scenario is, every few seconds; called with what just happened."""

    def __init__(self, counts: Counts, deaths: int) -> None:
        self._counts = counts
        self._deaths = deaths
        self._shown = time.monotonic()

    def __call__(self, event: str) -> None:
        if time.monotonic() - self._shown < 10:
            return
        self._shown = time.monotonic()
        counts = self._counts
        print(
            f"{counts.name}: {counts.rows['deaths']}/{self._deaths} deaths, "
            f"{len(counts.found)} wrong ({event})",
            file=sys.stderr,
            flush=True,
        )


if __name__ == "__main__":
    main()
