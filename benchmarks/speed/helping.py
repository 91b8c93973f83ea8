"""What `ckptstore --help` costs beside a click program of as many commands that do nothing."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable

from benchmarks.speed.rows import Job, Row, Timed, Variant, Wanted

__all__ = ["ROWS"]

_TIMES = 10

_BARE = """
import sys
import click

@click.group()
def main():
    "A program."

for name in "abcdefghij":
    main.command(name, help=f"Do {name}.")(lambda: None)

sys.exit(main(["--help"]))
"""

# What the installed script does.
_OURS = """
import sys
from ckptstore.cli import main

sys.exit(main(["--help"]))
"""


def _help(program: str) -> Callable[[Job], Timed]:
    """Return what runs a program some times, and tells the median of its times."""

    def run() -> float:
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - start

    def runs() -> dict[str, float]:
        return {"seconds": statistics.median(run() for _ in range(_TIMES))}

    return lambda job: Timed(runs)


ROWS = (
    Row(
        "help",
        "ckptstore --help",
        (
            Variant("a bare click program", _help(_BARE)),
            Variant("ckptstore --help", _help(_OURS), ours=True, wanted=(Wanted("time", 1.5),)),
        ),
        mib=1,
        state=False,
        weight=0.1,
    ),
)
