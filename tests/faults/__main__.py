"""Run the loops of `tests.faults` whole: ``python -m tests.faults [LOOP ...] [--act NAME]``.

The tests run a part of each. Prints how often something was harmed and what was wrong afterwards,
and ends with 1 where anything was.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from ckptstore.testing.servers import start_server
from tests.faults.acts import ACTS
from tests.faults.deaths import CHANGES, Result, counted, dead_in_process, dead_processes, numbered
from tests.faults.outages import outages
from tests.faults.replies import harmed

_COUNTS = Path(__file__).parent / "operations.json"


def _deaths(name: str, folder: str, options: argparse.Namespace) -> Result:
    return dead_processes(name, folder, full=True)


def _memory(name: str, folder: str, options: argparse.Namespace) -> Result:
    return dead_in_process(ACTS[name], numbered(f"memory://{folder}"), full=True)


def _power(name: str, folder: str, options: argparse.Namespace) -> Result:
    return outages(name, folder, seeds=options.disks, first_seed=options.seed)


def _replies(name: str, folder: str, options: argparse.Namespace) -> Result:
    return harmed(ACTS[name], numbered(f"memory://{folder}"), full=options.full)


def _s3(name: str, folder: str, options: argparse.Namespace) -> Result:
    server = start_server("moto", Path(folder))
    try:
        places = numbered(server.url(), server.storage_options)
        return dead_in_process(ACTS[name], places, lambda operation: operation.name in CHANGES)
    finally:
        server.stop()


LOOPS: dict[str, Callable[[str, str, argparse.Namespace], Result]] = {
    "deaths": _deaths,
    "memory": _memory,
    "s3": _s3,
    "power": _power,
    "replies": _replies,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run loops and print a table."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("loops", nargs="*", help=f"of {', '.join(LOOPS)} (default: all)")
    parser.add_argument("--act", action="append", choices=list(ACTS), help="only this one")
    parser.add_argument("--disks", type=int, default=20, help="by chance, at each call (power)")
    parser.add_argument("--seed", type=int, default=0, help="the first disk's (power)")
    parser.add_argument("--full", action="store_true", help="each answer everywhere (replies)")
    parser.add_argument("--count", action="store_true", help=f"only write {_COUNTS.name} anew")
    options = parser.parse_args(arguments)
    logging.disable(logging.ERROR)
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    if options.count:
        _count(memory)
        return 0
    wrong = 0
    print("| loop | act | harmed | states found | wrong | seconds |\n|---|---|---|---|---|---|")
    for loop in options.loops or LOOPS:
        for name in options.act or ACTS:
            if ACTS[name].on_disk and loop in ("memory", "s3", "replies"):
                continue
            if ACTS[name].bound and loop == "power":
                continue
            start = time.monotonic()
            with tempfile.TemporaryDirectory(dir=memory) as folder:
                result = LOOPS[loop](name, folder, options)
            wrong += len(result.wrong)
            found = f"{result.times} | {len(result.seen)} | {len(result.wrong)}"
            print(f"| {loop} | {name} | {found} | {time.monotonic() - start:.0f} |", flush=True)
            print("".join(result.wrong), end="", file=sys.stderr)
    return 1 if wrong else 0


def _count(memory: str | None) -> None:
    lines = []
    for name in ACTS:
        with tempfile.TemporaryDirectory(dir=memory) as folder:
            lines.append(f"  {json.dumps(name)}: {json.dumps(counted(name, folder))}")
    _COUNTS.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    sys.exit(main())
