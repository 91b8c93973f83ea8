"""``python -m benchmarks.speed [ROW ...]``: measure, and print tables in Markdown.

Each row is one piece of work, done by ckptstore, by its peers, and as plainly as the machine can
(the limit). Every variant runs in a fresh process, once in each round, in random order. What
cannot run here is left out with its reason; what fails is told, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from pathlib import Path

from benchmarks.speed.catalogue import ROWS
from benchmarks.speed.results import Found, as_json, summary, tables
from benchmarks.speed.rows import Row
from benchmarks.speed.running import run
from benchmarks.speed.versions import versions

_MINUTES, _QUICK_MINUTES = 12.5, 1.6
_QUICK_SHARE = 8


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the rows that are asked for, print them, and return the exit code."""
    options = _options(arguments)
    # So that processes, servers and files go, however this is ended.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    rows = [row for row in ROWS if row.name in options.row] if options.row else _default(options)
    found: list[Found] = []
    _print_heading()
    interrupted = False
    try:
        with tempfile.TemporaryDirectory(dir=options.folder, prefix="ckptstore-speed-") as name:
            for result in _measured(rows, Path(name).resolve(), options):
                found.append(result)
                print(tables(result), flush=True)
    except KeyboardInterrupt:
        interrupted = True
    print("### What is wanted\n")
    print(summary(found))
    if options.json:
        Path(options.json).write_text(json.dumps(as_json(found, versions()), indent=1))
    if interrupted:
        return 130
    return 0 if all(result.sound for result in found) else 1


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description=__doc__)
    names = [row.name for row in ROWS]
    parser.add_argument("row", nargs="*", help=f"of {', '.join(names)}; default: all")
    parser.add_argument("--quick", action="store_true", help="an eighth of the bytes, fewer peers")
    parser.add_argument("--mib", type=int, help="how much to save and load; default: by row")
    parser.add_argument("--rounds", type=int, default=7, help="at most so many of each row")
    parser.add_argument("--minutes", type=float, help="in all; one round is always finished")
    parser.add_argument("--folder", help="on the disk to be measured; default: the temporary one")
    parser.add_argument("--json", metavar="FILE", help="write every single measurement there")
    options = parser.parse_args(arguments)
    unknown = {*options.row} - {*names}
    if unknown:
        parser.error(f"there is no row {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    if options.rounds < 1 or (options.mib or 1) < 1:
        parser.error("--rounds and --mib are at least 1")
    return options


def _default(options: argparse.Namespace) -> list[Row]:
    return [row for row in ROWS if row.quick or not options.quick]


def _measured(rows: Sequence[Row], folder: Path, options: argparse.Namespace) -> Iterator[Found]:
    """Run the rows; each has its share of the time that is left."""
    minutes = options.minutes or (_QUICK_MINUTES if options.quick else _MINUTES)
    end = time.monotonic() + 60 * minutes
    for number, row in enumerate(rows):
        share = row.weight / sum(later.weight for later in rows[number:])
        whole = row.mib // _QUICK_SHARE if options.quick else row.mib
        print(f"{row.name}: {row.title}", file=sys.stderr, flush=True)
        yield run(
            row,
            mib=options.mib or whole,
            rounds=options.rounds,
            seconds=(end - time.monotonic()) * share,
            folder=folder,
            quick=options.quick,
        )


def _print_heading() -> None:
    day = datetime.now(timezone.utc).strftime("%Y-%m-%d")
    print(f"Measured on {day}: " + ", ".join(f"{k} {v}" for k, v in versions().items()) + ".\n")
    print(
        "Seconds, CPU and peak memory are medians over the rounds; ratios are taken round by "
        "round. Peak memory is what the process grew by during the call.\n"
    )


if __name__ == "__main__":
    sys.exit(main())
