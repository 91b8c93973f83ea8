"""One run of one variant, in a process of its own.

It imports, makes ready, and does the same once in small, so that nothing is timed that only the
first call of a process does. Then it says ``ready`` and waits for a line. Then it touches memory,
does the work under the clock, and prints one line of JSON.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.speed.catalogue import row_named
from benchmarks.speed.memory import Usage, touch, touch_page_cache
from benchmarks.speed.rows import Job, LeftOut, Timed

__all__ = ["main"]


def main() -> None:
    """Read the job from the first line of the standard input, and do it."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # What a library prints does not get between the answers.
    asked = json.loads(sys.stdin.readline())
    row = row_named(asked["row"])
    variant = row.variant(asked["variant"])
    job = Job(asked["nbytes"], Path(asked["folder"]), asked["place"], asked["memory"])
    warnings.simplefilter("ignore")
    try:
        if row.warm:
            _do(variant.prepare(job.warm_up()))
        timed = variant.prepare(job)
    except LeftOut as reason:
        _say(answers, {"left_out": str(reason)})
        return
    _say(answers, "ready")
    if not sys.stdin.readline():
        return
    timed.before()
    touch(int(job.nbytes * variant.memory))
    touch_page_cache(job.folder, int(job.nbytes * row.written))
    _say(answers, _measured(timed))
    # What libraries do at the end of a process is not what is measured, and may take long.
    answers.close()
    os._exit(0)


def _do(timed: Timed) -> None:
    timed.before()
    timed.call()
    timed.after()


def _measured(timed: Timed) -> dict[str, float]:
    # Else the call that happens to be next pays for what imports have left to be looked through.
    gc.collect()
    usage = Usage()
    start = time.perf_counter()
    kept = timed.call()
    seconds = time.perf_counter() - start
    found: dict[str, float] = {"seconds": seconds, "cpu": usage.cpu(), "peak": usage.growth()}
    if isinstance(kept, Mapping):
        numbers = {name: value for name, value in kept.items() if isinstance(value, (int, float))}
        found.update({str(name): value for name, value in numbers.items()})
    timed.after()
    return found


def _say(answers: Any, what: object) -> None:
    answers.write(json.dumps(what) + "\n")
    answers.flush()


if __name__ == "__main__":
    main()
