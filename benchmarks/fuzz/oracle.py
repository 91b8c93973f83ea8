"""What no input may do, whatever it is; everything else is right.

1. It ends in a value, or in an error of ours that says what is wrong with the input.
2. The error fits on a screen.
3. It takes less than two seconds of one core, and no more memory than a fixed budget.
4. Nothing runs: no process, no socket, no foreign module, no code that is compiled.
5. Nothing is opened, made, moved or removed.
"""

from __future__ import annotations

import contextlib
import gc
import os
import resource
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ckptstore.errors import (
    CkptstoreError,
    CorruptionError,
    NotFoundError,
    UnsafeError,
    UnsupportedError,
)

__all__ = ["REFUSALS", "Finding", "Target", "check", "kind_of"]

REFUSALS: tuple[type[CkptstoreError], ...] = (
    CorruptionError,
    NotFoundError,
    UnsafeError,
    UnsupportedError,
)
_SECONDS = 2.0
_MEMORY = 128 * 2**20
_LONGEST_ERROR = 4000

_FORBIDDEN = (
    "os.",
    "subprocess.",
    "socket.",
    "shutil.",
    "tempfile.",
    "ftplib.",
    "urllib.",
    "pty.",
    "ctypes.dlopen",
    "pickle.find_class",
)
_HARMLESS = {"os.listdir"}  # how imports look for modules
# What ckptstore imports at first use is no finding; a module that an input names is.
_OWN_MODULES = {"ckptstore", "torch", "fsspec", "numpy", "click", "xxhash", "benchmarks"}
# What connecting to S3 brings along.
_OWN_MODULES |= {"s3fs", "aiobotocore", "botocore", "aiohttp"}


class Finding(BaseException):
    """An input did what none may do. No `except Exception` swallows it."""


class TooSlow(Finding):
    """An input took longer than any may: a finding where it does so twice."""


@dataclass(frozen=True)
class Target:
    """Something that reads what strangers wrote.

    Attributes:
        name: what the command line calls it.
        read: takes the bytes; raises `Finding` where an answer is wrong.
        seeds: inputs to start from.
        mutate: returns another input: takes bytes, a random generator, and what changes plain
            bytes.
        refusals: errors that are right answers.
        longest: bytes that an input may have.
    """

    name: str
    read: Callable[[bytes], None]
    seeds: Callable[[], list[bytes]]
    mutate: Callable[..., bytes]
    refusals: tuple[type[CkptstoreError], ...] = REFUSALS
    longest: int = 2**15


def check(target: Target, data: bytes) -> None:
    """Give an input to a target.

    Raises:
        Finding: it did what none may do.
    """
    try:
        _check(target, data)
    except TooSlow:
        gc.collect()  # The harness's own garbage of a million inputs is none of this one's.
        _check(target, data)


def _check(target: Target, data: bytes) -> None:
    _watch()
    before = _peak_from_here()
    start = time.thread_time()
    seen: list[str] = []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _STATE.seen = seen
            try:
                target.read(data)
            finally:
                _STATE.seen = None
    except target.refusals as error:
        _check_text(error)
    except Finding:
        raise
    except Exception as error:
        raise Finding(f"{type(error).__name__} is none of our errors: {error}") from error
    if seen:
        raise Finding(f"it did what nothing may do here: {seen[0]}")
    seconds = time.thread_time() - start
    if seconds > _SECONDS:
        raise TooSlow(f"it took {seconds:.1f} seconds of a core")
    grown = _peak() - before
    if grown > _MEMORY:
        raise Finding(f"it took {grown // 2**20} MiB of memory for {len(data)} bytes")


def kind_of(finding: Finding) -> str:
    """Return what tells one fault from another: the sort of finding, and the place in our code."""
    error: BaseException = finding.__cause__ or finding
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if f"{os.sep}ckptstore{os.sep}" in frame.filename
    ]
    last = frames[-1] if frames else traceback.extract_tb(error.__traceback__)[-1]
    what = type(finding.__cause__).__name__ if finding.__cause__ else str(finding).split(":")[0]
    return f"{what} at {os.path.basename(last.filename)}:{last.lineno}"


def _check_text(error: CkptstoreError) -> None:
    text = str(error)
    if len(text) > _LONGEST_ERROR:
        raise Finding(f"an error of {len(text)} characters") from error


def _peak_from_here() -> int:
    """Return the peak of this process's memory, forgetting what it was at before where it can."""
    # Without this, what an input takes below the peak of all that came before would not be seen.
    with contextlib.suppress(OSError), open("/proc/self/clear_refs", "wb") as file:
        file.write(b"5")
    return _peak()


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _PEAK_UNIT


class _State(threading.local):
    seen: list[str] | None = None  # None while nobody reads an input


_STATE = _State()
_PEAK_UNIT = 1 if sys.platform == "darwin" else 1024
_INSTALLED: list[bool] = []


def _watch() -> None:
    # An audit hook stays for good, so that there is one; it only listens while an input is read.
    if not _INSTALLED:
        _INSTALLED.append(True)
        sys.addaudithook(_heard)


def _heard(event: str, args: tuple[Any, ...]) -> None:
    seen = _STATE.seen
    if seen is None or len(seen) > 8:
        return
    if _is_foreign(event, args):
        seen.append(f"{event} {args[:2]!r}"[:300])


def _is_foreign(event: str, args: tuple[Any, ...]) -> bool:
    if event == "open":
        return not _is_module(args[0])
    if event == "import":
        root = str(args[0]).partition(".")[0]
        return root not in _OWN_MODULES and root not in sys.stdlib_module_names
    if event == "compile":
        return not (args[0] is None or _is_module(args[1]))
    return event.startswith(_FORBIDDEN) and event not in _HARMLESS


def _is_module(path: object) -> bool:
    """Whether a file is one of Python's own, as imports and tracebacks read them."""
    return isinstance(path, (str, bytes)) and os.fsdecode(path).endswith((".py", ".pyc", ".so"))
