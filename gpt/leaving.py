"""How a training ends before its time: at a signal or a notice, with its last step saved.

| when the signal comes       | what becomes of it                                              |
|-----------------------------|-----------------------------------------------------------------|
| before the first step       | nothing to save: it ends at once, with exit code 0              |
| while it trains, evaluates  | the step is finished and saved, and it ends with exit code 0    |
| and the time is up          | it gives up with exit code 1; the step saved before stays whole |
| a second time               | it ends at once, with 130 (SIGINT) or 143 (SIGTERM)             |
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import NoReturn

import click

from ckptstore import Preemption
from gpt.ranks import Ranks

__all__ = [
    "Outcome",
    "Stopped",
    "heard_by_all",
    "leave_at_once",
    "preemption_of",
    "stopped_by_signals",
]

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_ASK_EVERY = 0.5


@dataclass
class Outcome:
    """What a run has come to, while it goes on and at its end.

    Attributes:
        step: finished optimizer steps.
        saved: the newest step that is known to be committed; None where none is.
        losses: the last evaluation.
    """

    step: int = 0
    saved: int | None = None
    losses: dict[str, float] = field(default_factory=dict)


class Stopped(KeyboardInterrupt):
    """A signal that ends the command where it is.

    Attributes:
        signal: which.
    """

    def __init__(self, number: int) -> None:
        super().__init__()
        self.signal = signal.Signals(number)


@contextmanager
def stopped_by_signals() -> Iterator[None]:
    """Raise `Stopped` at SIGTERM and SIGINT, also where a shell has them ignored."""
    if not _hears():
        yield
        return
    before = {number: signal.signal(number, _stop) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def preemption_of(grace: float, file: Path | None, given_up: Callable[[], str]) -> Preemption:
    """Return what a training asks whether it is to end.

    Args:
        grace: seconds to save in.
        file: one whose appearance is a notice.
        given_up: says what was lost when they are over; the process ends then.
    """

    def appeared() -> str | None:
        return f"{file} is there" if file is not None and file.exists() else None

    def expired() -> NoReturn:
        _end(f"error: {given_up()}", 1)

    return Preemption(
        grace,
        signals=_SIGNALS if _hears() else (),
        notice=None if file is None else appeared,
        notice_every=_ASK_EVERY,
        expired=expired,
    )


def heard_by_all(preemption: Preemption, ranks: Ranks) -> None:
    """Let what one rank has heard be heard by all, with the time that it leaves.

    Args:
        preemption: of this rank.
        ranks: of the run; one of them at least has heard something, and all call this.
    """
    for rank, (reason, left) in enumerate(
        ranks.gathered([preemption.reason, preemption.remaining()])
    ):
        if reason is not None and not preemption.requested:
            preemption.request(f"{reason} of rank {rank}", max(left, 0.001))


def leave_at_once(stopped: Stopped) -> NoReturn:
    """End the process; what is being saved in the background is not waited for (G2)."""
    _end("interrupted", 128 + stopped.signal)


def _hears() -> bool:
    return threading.current_thread() is threading.main_thread()


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    raise Stopped(number)


def _end(line: str, code: int) -> NoReturn:
    # Threads that save would be waited for at an orderly end, however long they take.
    try:
        click.echo(line, err=True)
        sys.stdout.flush()
    finally:
        os._exit(code)
