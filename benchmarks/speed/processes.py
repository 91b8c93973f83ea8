"""Starts the processes that variants run in, and makes the memory that they share."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from benchmarks.speed.rows import Job, LeftOut

__all__ = ["Failed", "Process", "shared_memory"]

_BLOCK = 32 * 2**20
_ROOT = Path(__file__).parents[2]
LONGEST = 240.0
"""Seconds after which a variant is taken to hang."""


class Failed(Exception):  # noqa: N818  (it is a result)
    """A variant ended without an answer; says how."""


class Process:
    """Runs one variant once; a context manager that ends the process, and removes its files.

    Args:
        row: the row's name.
        variant: the variant's name.
        job: what it is given; its folder is where it gets one of its own.
        environ: variables on top of ours.
    """

    def __init__(
        self, row: str, variant: str, job: Job, environ: Mapping[str, str] | None = None
    ) -> None:
        self._asked = {"row": row, "variant": variant, "nbytes": job.nbytes}
        self._asked |= {"place": dict(job.place), "memory": job.memory}
        self._parent = job.folder
        self._environ = {**os.environ, **(environ or {})}

    def __enter__(self) -> Process:
        self._folder = Path(tempfile.mkdtemp(dir=self._parent, prefix="run-"))
        self._errors = tempfile.TemporaryFile()
        path = os.pathsep.join([str(_ROOT), self._environ.get("PYTHONPATH", "")])
        shared = self._asked["memory"].rpartition("/proc/self/fd/")[2]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.speed.child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env={**self._environ, "PYTHONPATH": path.rstrip(os.pathsep)},
            cwd=self._folder,
            pass_fds=(int(shared),) if shared.isdigit() else (),
        )
        self._send(json.dumps({**self._asked, "folder": str(self._folder)}))
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.end()

    def end(self) -> None:
        """End it, and remove what it wrote, so that nothing of it is in the way of the next."""
        self._process.kill()
        self._process.communicate()
        self._errors.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def wait(self) -> None:
        """Wait until it is ready.

        Raises:
            LeftOut: the variant cannot run here.
            Failed: it ended.
        """
        answer = self._answer()
        if answer != "ready":
            raise LeftOut(answer["left_out"])

    def measure(self) -> dict[str, float]:
        """Have it do the work, and return what was measured.

        Raises:
            Failed: it ended without an answer.
        """
        self._send("go")
        found: dict[str, float] = self._answer()
        return found

    def _send(self, line: str) -> None:
        stream = self._stream(self._process.stdin)
        with contextlib.suppress(BrokenPipeError):  # Its end is told by what it did not answer.
            stream.write(line.encode() + b"\n")
            stream.flush()

    def _answer(self) -> Any:
        stream = self._stream(self._process.stdout)
        end = time.monotonic() + LONGEST
        if not select.select([stream], [], [], max(0, end - time.monotonic()))[0]:
            raise Failed(f"no answer after {LONGEST:.0f} seconds")
        line = stream.readline()
        if not line:
            code = self._process.wait()
            self._errors.seek(0)
            said = self._errors.read().decode(errors="replace").strip().splitlines()
            raise Failed(f"{said[-1] if said else 'nothing said'} (exit code {code})")
        return json.loads(line)

    @staticmethod
    def _stream(stream: IO[bytes] | None) -> IO[bytes]:
        if stream is None:
            raise RuntimeError("the process has no pipes")
        return stream


@contextlib.contextmanager
def shared_memory(nbytes: int, folder: Path) -> Iterator[str]:
    """Give the path of memory with random bytes that every process can map.

    It is what states are made of: each process has its state at once, from pages that were
    touched, and none spends seconds on making it. Nothing is left of it, however this ends.
    """
    if hasattr(os, "memfd_create"):
        descriptor, path = os.memfd_create("state"), ""
    else:
        descriptor, path = tempfile.mkstemp(dir=folder)
    try:
        block = memoryview(os.urandom(min(_BLOCK, nbytes) or 1))
        written = 0
        while written < nbytes:
            # Another place in the block each time, so that no two tensors are equal.
            start = written // _BLOCK * 4096 % len(block)
            written += os.write(descriptor, block[start : start + nbytes - written])
        yield path or f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)
        if path:
            Path(path).unlink()
