"""Runs a command: how long it takes, what goes over its connections, how much memory it has."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from benchmarks.sync.wire import Wire

__all__ = ["Failed", "Sample", "memory", "run"]

_OFTEN = 0.005
"""Seconds between two looks at a process."""

LONGEST = 240.0
"""Seconds after which a command is taken to hang."""


class Failed(Exception):  # noqa: N818  (it is a result)
    """A command failed; says how."""


@dataclass(frozen=True)
class Sample:
    """What one run of a command took.

    Attributes:
        seconds: from the start of its process to its end.
        sent: bytes to the server.
        received: bytes from the server.
        peak: bytes of memory of its processes together, at most; 0 without /proc.
        own: the same without what is mapped from files, which the page cache has anyway.
        killed: whether it was killed on its way.
        wrong: how the destination differs from the source afterwards; empty where it does not.
    """

    seconds: float
    sent: int
    received: int
    peak: int
    own: int
    killed: bool = False
    wrong: str = ""

    @property
    def moved(self) -> int:
        """Bytes in both directions."""
        return self.sent + self.received

    def judged(self, wrong: str) -> Sample:
        """Return the same with what was found at the destination."""
        return replace(self, wrong=wrong)

    def as_json(self) -> dict[str, object]:
        """Return all of it."""
        return asdict(self)


def run(command: Sequence[str], environ: Mapping[str, str], wire: Wire) -> Sample:
    """Run a command, and wait for its end.

    Args:
        command: program and arguments.
        environ: its variables; they lead it to the wire.
        wire: a fresh one; when its limit is reached, all processes of the command are killed.

    Raises:
        Failed: its exit code was not 0, or it took too long.
    """
    with tempfile.TemporaryFile() as said:
        start = time.perf_counter()
        process = subprocess.Popen(
            command,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            start_new_session=True,
        )
        ended: list[float] = []
        waiting = threading.Thread(target=_wait, args=(process, ended))
        waiting.start()
        peak, own, killed = 0, 0, False
        try:
            while waiting.is_alive() and time.perf_counter() - start < LONGEST:
                found = memory(process.pid)
                peak, own = max(peak, found[0]), max(own, found[1])
                if wire.full:
                    killed = True
                    break
                waiting.join(_OFTEN)
        finally:
            _end(process, waiting)
        if process.returncode and not killed:
            said.seek(0)
            raise Failed(_reason(said.read(), process.returncode))
        return Sample(ended[0] - start, wire.sent, wire.received, peak, own, killed)


def _wait(process: subprocess.Popen[bytes], ended: list[float]) -> None:
    """Note when a process ends, at once: a wait with a time limit looks only now and then."""
    process.wait()
    ended.append(time.perf_counter())


def _end(process: subprocess.Popen[bytes], waiting: threading.Thread) -> None:
    """Kill what is left of a process and all that it started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    waiting.join()


def _reason(said: bytes, code: int) -> str:
    lines = said.decode(errors="replace").strip().splitlines()
    how = f"signal {-code}" if code < 0 else f"exit code {code}"
    return f"{lines[-1] if lines else 'nothing said'} ({how})"


def memory(pid: int) -> tuple[int, int]:
    """Return the memory of a process and its descendants, in bytes: all of it, and their own.

    All of it is what they have together now, or what one of them has had at most, whichever is
    more; pages that two of them share count for each. Their own is what they have together now
    without what is mapped from files. Both are 0 where there is no /proc.
    """
    now, most, own = 0, 0, 0
    for one in _tree(pid):
        with contextlib.suppress(OSError, KeyError):  # It may have ended just now.
            lines = Path(f"/proc/{one}/status").read_text().splitlines()
            fields = dict(line.split(":", 1) for line in lines if ":" in line)
            size, high, files = (_kib(fields[f]) for f in ("VmRSS", "VmHWM", "RssFile"))
            now, own, most = now + size, own + size - files, max(most, high)
    return max(now, most), own


def _kib(text: str) -> int:
    return int(text.split()[0]) * 1024


def _tree(pid: int) -> Iterator[int]:
    yield pid
    with contextlib.suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):
            text = Path(f"/proc/{pid}/task/{task}/children").read_text()
            for child in text.split():
                yield from _tree(int(child))
