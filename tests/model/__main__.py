"""``python -m tests.model``: search every scenario, and print a line each."""

from __future__ import annotations

import argparse
import sys

from .scenarios import SCENARIOS
from .search import explore


def main() -> int:
    """Search what was asked for; return 0 where nothing is broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.model", description=__doc__)
    parser.add_argument("scenario", nargs="*", help="by name; all by default")
    parser.add_argument(
        "--seconds", type=float, default=600.0, help="of processor time for each, at most"
    )
    parser.add_argument("--list", action="store_true", help="only name them")
    asked = parser.parse_args()
    known = SCENARIOS
    unknown = [name for name in asked.scenario if name not in known]
    if unknown:
        parser.error(f"no scenario {', '.join(unknown)}; there are {', '.join(known)}")
    broken = 0
    for name in asked.scenario or known:
        scenario = known[name]
        if asked.list:
            print(f"{name:20} {scenario.title}")
            continue
        result = explore(scenario, asked.seconds)
        broken += result.broken is not None
        print(
            f"{result.verdict:7} {name:20} {result.states:>10} states {result.seconds:>6.0f} s  "
            f"{scenario.title}",
            flush=True,
        )
        if result.broken:
            print(f"        {result.broken}")
            for note in result.trace:
                print(f"          {note}")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
