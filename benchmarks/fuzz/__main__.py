"""``python -m benchmarks.fuzz [TARGET ...] --seconds 3600``: nothing but our own errors, or exit 1.

Needs the extra ``fuzz``. Inputs that found something new are kept in ``--corpus`` and are where
the next run starts.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

from benchmarks.fuzz.corpus import pack
from benchmarks.fuzz.running import Result, merge, run, stop
from benchmarks.fuzz.targets import TARGETS

_LOCK = threading.Lock()
_EVERY = {True: 1.0, False: 60.0}  # seconds between two lines, on a terminal and elsewhere


def main() -> int:
    """Fuzz the targets one after another, print a table, and return 1 where there are findings."""
    options = _options()
    if importlib.util.find_spec("atheris") is None:
        print("atheris is not installed; pip install 'ckptstore[fuzz]' brings it (Linux, macOS)")
        return 2
    targets = options.target or list(TARGETS)
    # Each target has its share of the time; with several jobs the shares are longer.
    share = options.seconds * min(options.jobs, len(targets)) / len(targets)
    progress = _Progress(options.json)

    def one(target: str) -> Result:
        folder = options.corpus / target
        found = run(
            target,
            seconds=share,
            corpus=folder,
            findings=options.findings / target,
            tell=progress.tell,
        )
        if options.keep:
            merged = merge(target, folder, options.findings.parent / "merged" / target)
            pack(target, merged)
        return found

    for target in targets:
        TARGETS[target].seeds()  # made once, before there are threads
    # What ends this process in the middle ends the workers as well.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with ThreadPoolExecutor(options.jobs) as pool:
        try:
            results = list(pool.map(one, targets))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            stop()
            raise
    progress.end()
    _print(results, as_json=options.json)
    return 1 if any(result.findings for result in results) else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fuzz", description=__doc__)
    parser.add_argument("target", nargs="*", help=f"{', '.join(TARGETS)}; default: all")
    parser.add_argument("--seconds", type=float, default=60, help="for all targets together")
    parser.add_argument("--jobs", type=int, default=1, help="targets at the same time")
    parser.add_argument("--corpus", type=Path, default=Path("build/fuzz/corpus"))
    parser.add_argument("--findings", type=Path, default=Path("build/fuzz/findings"))
    parser.add_argument("--keep", action="store_true", help="minimise into tests/fuzz/corpus")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    unknown = sorted({*options.target} - {*TARGETS})
    if unknown:
        parser.error(f"no target {', '.join(unknown)}; there are {', '.join(TARGETS)}")
    if options.jobs < 1 or options.seconds <= 0:
        parser.error("--jobs and --seconds have to be positive")
    return options


class _Progress:
    def __init__(self, quiet: bool) -> None:
        self._file = sys.stderr if quiet else sys.stdout
        self._terminal = self._file.isatty()
        self._next = time.monotonic() + _EVERY[self._terminal]

    def tell(self, result: Result) -> None:
        """Print where a target is, not too often."""
        with _LOCK:
            if time.monotonic() < self._next:
                return
            self._next = time.monotonic() + _EVERY[self._terminal]
            line = (
                f"{time.strftime('%H:%M:%S')} {result.target}: {result.executions:,} executions, "
                f"{result.coverage} edges, {result.corpus} inputs, {len(result.findings)} findings"
            )
            start, end = ("\r", "") if self._terminal else ("", "\n")
            print(f"{start}{line:<79}", end=end, file=self._file, flush=True)

    def end(self) -> None:
        """Leave the line."""
        if self._terminal:
            print(file=self._file)


def _print(results: list[Result], *, as_json: bool) -> None:
    total = sum(result.executions for result in results)
    findings = [line for result in results for line in result.findings]
    if as_json:
        rows = [{**asdict(result), "speed": round(result.speed, 1)} for result in results]
        print(
            json.dumps({"executions": total, "findings": len(findings), "targets": rows}, indent=2)
        )
        return
    print("| target | executions | executions/s | edges | features | corpus | findings |")
    print("|---|---|---|---|---|---|---|")
    for one in results:
        print(
            f"| {one.target} | {one.executions:,} | {one.speed:,.0f} | {one.coverage} | "
            f"{one.features} | {one.corpus} | {len(one.findings)} |"
        )
    seconds = sum(result.seconds for result in results)
    print(f"\n{total:,} executions in {seconds:,.0f} seconds, {len(findings)} findings")
    for line in findings:
        print(f"  {line}")


if __name__ == "__main__":
    sys.exit(main())
