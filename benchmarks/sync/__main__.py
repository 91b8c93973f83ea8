"""``python -m benchmarks.sync``: copy a checkpoint with each tool, and print tables in Markdown.

Each tool copies from the local disk to S3 and back: the first time, with nothing changed, with one
tensor changed, and again after a kill. It is a fresh process each time, and the tools take turns.
What is not installed is left out with its reason; what fails is told, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

from benchmarks.speed.versions import versions
from benchmarks.sync.results import Found, table
from benchmarks.sync.rows import one_round
from benchmarks.sync.running import Failed
from benchmarks.sync.states import TENSORS, Source
from benchmarks.sync.tools import OURS, TOOLS, Tool

_MIB = 2**20
_SERVERS = ("rclone", "moto")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and return the exit code."""
    options = _options(arguments)
    # So that processes, servers and files go, however this is ended.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    installed = [tool for tool in TOOLS if tool.found()]
    told = {**versions(), **{tool.program: tool.told_version() for tool in installed}}
    print(_heading(told))
    everything: list[Found] = []
    interrupted = False
    try:
        with tempfile.TemporaryDirectory(dir=options.folder, prefix="ckptstore-sync-") as name:
            _measure(everything, installed, Path(name).resolve(), options)
    except KeyboardInterrupt:
        interrupted = True
    for found in everything:
        print(table(found))
    if options.json:
        document = {"versions": told, "directions": [found.as_json() for found in everything]}
        Path(options.json).write_text(json.dumps(document, indent=1))
    if interrupted:
        return 130
    return 0 if all(found.sound for found in everything) else 1


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sync", description=__doc__)
    parser.add_argument("--mib", type=int, default=256, help="how much to copy (default 256)")
    parser.add_argument(
        "--server",
        action="append",
        choices=_SERVERS,
        help="which S3 server to start; may be given twice (default: both)",
    )
    parser.add_argument(
        "--signed",
        action="store_true",
        help="leave it to each tool whether it signs payloads over plain HTTP; else none does",
    )
    parser.add_argument("--rounds", type=int, default=5, help="at most so many (default 5)")
    parser.add_argument(
        "--minutes", type=float, default=4.5, help="in all; one round is always finished"
    )
    parser.add_argument("--folder", help="on the disk to be measured; default: the temporary one")
    parser.add_argument("--json", metavar="FILE", help="write every single measurement there")
    options = parser.parse_args(arguments)
    if options.rounds < 1 or options.mib < 1:
        parser.error("--rounds and --mib are at least 1")
    return options


def _measure(
    everything: list[Found], installed: Sequence[Tool], folder: Path, options: argparse.Namespace
) -> None:
    """Do as many rounds as fit, each of them everything once."""
    end = time.monotonic() + 60 * options.minutes
    states = folder / "states"
    states.mkdir()
    source = Source(states, options.mib * _MIB)
    source.show(changed=False)
    for server in dict.fromkeys(options.server or _SERVERS):
        for up in (True, False):
            found = Found(server, up, OURS.name, source.nbytes(), options.signed)
            found.left_out |= {
                tool.name: f"{tool.package} is not installed"
                for tool in _of_direction(TOOLS, up)
                if tool not in installed
            }
            everything.append(found)
    for number in range(options.rounds):
        start = time.monotonic()
        for found in everything:
            if found.over:
                continue
            print(f"round {number + 1}: {found.title}", file=sys.stderr, flush=True)
            try:
                one_round(found, source, _of_direction(installed, found.up), folder)
            except ModuleNotFoundError as reason:
                found.reason = str(reason)
            except Failed as reason:
                found.failed[OURS.name] = f"to put the source there: {reason}"
        now = time.monotonic()
        if end - now < now - start:
            return


def _of_direction(tools: Sequence[Tool], up: bool) -> list[Tool]:
    return [tool for tool in tools if tool.upwards or not up]


def _heading(told: dict[str, str]) -> str:
    day = datetime.now(timezone.utc).strftime("%Y-%m-%d")
    programs = {tool.program for tool in TOOLS}
    machine = ", ".join(f"{k} {v}" for k, v in told.items() if k not in programs)
    tools = "\n".join(f"- {tool.name}: {told.get(tool.program, 'absent')}" for tool in TOOLS)
    return (
        f"Measured on {day}: {machine}.\n\n{tools}\n\n"
        f"A checkpoint of {TENSORS} tensors and their AdamW. Each tool is a process of its own, "
        "and its start is in the seconds; MiB are those on the wire, all protocol included; peak "
        "MiB are those of all its processes, own MiB those without what is mapped from files. "
        "Time, bytes, memory and own are those of ckptstore divided "
        "by those of the tool in the same round: below 1 ckptstore needed less. Figures are "
        "medians over the rounds, with the lowest and highest.\n"
    )


if __name__ == "__main__":
    sys.exit(main())
