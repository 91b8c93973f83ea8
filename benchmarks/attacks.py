"""Send every hostile checkpoint through every command and function, and print what came of it.

``python -m benchmarks.attacks [GROUP ...]``. The corpus, the functions and what has to be true of
each pair are those of ``tests/attacks``; the tests run a part of the pairs. Ends with 1 where
anything is wrong.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.attacks import judging

GROUPS = ("globals", "opcodes", "other streams", "hidden", "bombs", "archives", "tensors")
GROUPS += ("manifests", "names", "links", "texts", "tokenizers")
_WORKER = Path(__file__).parents[1] / "tests" / "attacks" / "worker.py"


def outcomes(groups: Sequence[str]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Yield each group with what came of its items, by a worker that watches over each."""
    with tempfile.TemporaryDirectory() as root:
        worker = subprocess.Popen(
            [sys.executable, str(_WORKER), root],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=root,
            env={**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"},
        )
        if worker.stdin is None or worker.stdout is None:
            raise RuntimeError("the worker has no pipes")
        with worker, worker.stdin as requests, worker.stdout as answers:
            answers.readline()
            for group in groups:
                requests.write(f"full {group}\n")
                requests.flush()
                yield group, json.loads(answers.readline())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the groups, print a line for each, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.attacks", description=__doc__)
    parser.add_argument("group", nargs="*", help=f"of {', '.join(GROUPS)}; default: all")
    chosen = parser.parse_args(arguments).group or list(GROUPS)
    unknown = {*chosen} - {*GROUPS}
    if unknown:
        parser.error(f"there is no group {', '.join(sorted(unknown))}")
    items, runs, wrong = 0, 0, 0
    codes: Counter[int | None] = Counter()
    for group, found in outcomes(chosen):
        faults = [fault for outcome in found for fault in judging.faults(outcome)]
        done = [action for outcome in found for action in outcome["actions"]]
        largest = max(outcome["memory"] or 0 for outcome in found)
        slowest = max(action["seconds"] for action in done)
        print(
            f"{group:14} {len(found):4} items {len(done):6} runs {len(faults):4} faults"
            f"  at most {slowest:.1f} s, {largest / 2**20:.0f} MiB"
        )
        print(*(f"    {fault}\n" for fault in faults), sep="", end="", flush=True)
        items, runs, wrong = items + len(found), runs + len(done), wrong + len(faults)
        codes.update(action["code"] for action in done)
    ended = ", ".join(f"{code}: {count}" for code, count in sorted(codes.items(), key=str))
    print(f"{items} items, {runs} runs, {wrong} faults; exit codes {ended}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
