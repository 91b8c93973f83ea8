"""Runs a worker for a while, reads what libFuzzer says, and starts it again when it dies."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.fuzz.corpus import kept_inputs, write_inputs
from benchmarks.fuzz.targets import TARGETS

__all__ = ["Result", "merge", "run", "stop"]

_STATUS = re.compile(r"#(\d+)\s+\w+\s+cov: (\d+) ft: (\d+) corp: (\d+)/")
_MEMORY_MIB = 2048
_HANG_SECONDS = 60
_LEAST_SECONDS = 5.0
_STARTING = 3.0  # seconds until a worker has imported torch


_RUNNING: set[subprocess.Popen[str]] = set()


@dataclass
class Result:
    """What one target came to.

    Attributes:
        target: its name.
        seconds: how long it ran, by the clock.
        executions: inputs that were read.
        coverage: edges of our code that they reached.
        features: libFuzzer's finer measure of the same.
        corpus: inputs that each reach something that no other does.
        findings: one line each, with the path to the input.
    """

    target: str
    seconds: float = 0.0
    executions: int = 0
    coverage: int = 0
    features: int = 0
    corpus: int = 0
    findings: list[str] = field(default_factory=list)

    @property
    def speed(self) -> float:
        """Executions per second."""
        return self.executions / self.seconds if self.seconds else 0.0


def run(
    target: str, *, seconds: float, corpus: Path, findings: Path, tell: Callable[[Result], None]
) -> Result:
    """Fuzz one target.

    Args:
        target: its name.
        seconds: by the clock.
        corpus: folder of inputs, read and added to.
        findings: folder for inputs that did what none may do.
        tell: called now and then with what is known so far.
    """
    findings.mkdir(parents=True, exist_ok=True)
    write_inputs(corpus, [*TARGETS[target].seeds(), *kept_inputs(target)])
    result = Result(target)
    start = time.monotonic()
    while (left := seconds - (time.monotonic() - start)) > _LEAST_SECONDS or not result.executions:
        ended = _one_process(result, max(left, _LEAST_SECONDS), corpus, findings, tell)
        result.seconds = time.monotonic() - start
        if ended:
            break
    return result


def merge(target: str, source: Path, into: Path) -> list[bytes]:
    """Return the smallest inputs of a folder that together reach all that it reaches."""
    into.mkdir(parents=True, exist_ok=True)
    # Edges alone: how often each is taken would keep ten times as many.
    arguments = ["-merge=1", "-use_counters=0", str(into), str(source)]
    command = _command(target, into.parent, arguments)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    kept = [path.read_bytes() for path in sorted(into.iterdir())]
    if not kept:
        raise RuntimeError(f"nothing of {source} was kept; does the worker run?")
    return kept


def stop() -> None:
    """End all workers, wherever they are."""
    for process in list(_RUNNING):
        process.terminate()


def _one_process(
    result: Result, seconds: float, corpus: Path, findings: Path, tell: Callable[[Result], None]
) -> bool:
    """Run one process to its end; return whether it ended because its time was over."""
    before, known = result.executions, set(findings.iterdir())
    arguments = [
        f"-max_total_time={round(max(seconds - _STARTING, 1))}",
        f"-artifact_prefix={findings}/",
        str(corpus),
    ]
    last: deque[str] = deque(maxlen=12)
    with subprocess.Popen(
        _command(result.target, findings, arguments),
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        errors="replace",
    ) as process:
        _RUNNING.add(process)
        for line in process.stderr or ():
            last.append(line.rstrip())
            _take(result, before, line)
            tell(result)
    _RUNNING.discard(process)
    if process.returncode == 0:
        return True
    # What ended the process left its input there.
    fresh = sorted(path for path in set(findings.iterdir()) - known if "-" in path.name)
    why = next((line for line in last if "ERROR" in line or "Error" in line), last and last[-1])
    if not fresh and result.executions == before:
        lines = "\n".join(last)
        raise RuntimeError(f"the worker of {result.target} does not run:\n{lines}")
    result.findings.append(f"{fresh[0] if fresh else 'the worker died:'} {why}")
    return False


def _take(result: Result, before: int, line: str) -> None:
    status = _STATUS.match(line)
    if status:
        result.executions = before + int(status[1])
        result.coverage, result.features, result.corpus = map(int, status.groups()[1:])
    elif line.startswith("FINDING "):
        result.findings.append(line.removeprefix("FINDING ").rstrip())


def _command(target: str, findings: Path, arguments: list[str]) -> list[str]:
    limits = [
        f"-timeout={_HANG_SECONDS}",
        f"-rss_limit_mb={_MEMORY_MIB}",
        f"-max_len={TARGETS[target].longest}",
    ]
    own = [sys.executable, "-m", "benchmarks.fuzz.worker", target, str(findings)]
    return [*own, *limits, *arguments]


os.environ.setdefault("OMP_NUM_THREADS", "1")
