"""Ctrl-C between imports, never within one: what it cuts off there is half there for good.

An import that an interrupt ends is tried again by whoever catches that, torch and numpy among
them, and then fails with an error of its own, or goes on as if nobody had pressed a key.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["after_imports"]

_IMPORTING = "<frozen importlib._bootstrap>"
_AGAIN = 0.05


@contextmanager
def after_imports() -> Iterator[None]:
    """Have a Ctrl-C wait for the end of the import that it falls into; a second one does not wait.

    Only where Python's own handler is in place, and in the main thread.
    """
    main = threading.main_thread()
    usual = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if threading.current_thread() is not main or not usual:
        yield
        return
    outermost = sys._getframe(2)  # Behind this one and contextlib's: who asked for it.
    waiting = False
    ours = False
    timer: threading.Timer | None = None

    def again() -> None:
        nonlocal ours
        ours = True
        if hasattr(signal, "pthread_kill"):
            # To that thread itself, which may sleep.
            signal.pthread_kill(main.ident or 0, signal.SIGINT)
        else:
            signal.raise_signal(signal.SIGINT)

    def pressed(number: int, frame: FrameType | None) -> None:
        nonlocal waiting, ours, timer
        impatient = waiting and not ours
        ours = False
        if impatient or not _importing(frame, outermost):
            waiting = False
            raise KeyboardInterrupt
        waiting = True
        timer = threading.Timer(_AGAIN, again)
        timer.daemon = True
        timer.start()

    signal.signal(signal.SIGINT, pressed)
    try:
        yield
    finally:
        if timer is not None:
            timer.cancel()
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _importing(frame: FrameType | None, outermost: FrameType) -> bool:
    """Return whether what runs is part of an import that began since."""
    while frame is not None and frame is not outermost:
        if frame.f_code.co_filename == _IMPORTING:
            return True
        frame = frame.f_back
    return False
