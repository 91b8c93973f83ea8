"""Child processes that are forked from one which has imported everything, and talk in lines.

Forking is safe here because the parent never connects to a storage itself, has one thread, and
does its arithmetic on one: what it has is imported modules. A child ends with `os._exit`.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

__all__ = ["Child", "Line"]

_LONGEST = 180.0


class Line:
    """A child's own end: tells the parent something, and hears from it."""

    def __init__(self, told: int, heard: int) -> None:
        self._told = told
        self._heard = heard

    def tell(self, **message: Any) -> None:
        """Send a message; it is in the pipe when this returns, whatever happens to the child."""
        os.write(self._told, json.dumps(message).encode() + b"\n")

    def hear(self, *, wait: float | None = 0.0) -> dict[str, Any] | None:
        """Return what the parent said, or None; an end of the parent counts as ``quit``."""
        if not select.select([self._heard], [], [], wait)[0]:
            return None
        text = b""
        while not text.endswith(b"\n"):
            part = os.read(self._heard, 1)
            if not part:
                return {"quit": True}
            text += part
        return dict(json.loads(text))


class Child:
    """A process that runs a function; a context manager that leaves none of it behind.

    Args:
        work: called in the child with a `Line`, and then the arguments.
    """

    def __init__(self, work: Callable[..., None], *arguments: Any) -> None:
        self._reads, told = os.pipe()
        heard, self._says = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if not self.pid:
            self._be(work, arguments, Line(told, heard))
        os.close(told)
        os.close(heard)
        self._text = b""
        self._over = False
        self._gone = False
        self._messages: list[dict[str, Any]] = []

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.kill()
        os.close(self._reads)
        os.close(self._says)

    @staticmethod
    def _be(work: Callable[..., None], arguments: tuple[Any, ...], line: Line) -> None:
        code = 1
        try:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            work(line, *arguments)
            code = 0
        except BaseException as error:
            with contextlib.suppress(OSError):
                told = traceback.format_exception(error, limit=-4, chain=False)
                line.tell(crashed="".join(told))
        finally:
            os._exit(code)

    def say(self, **message: Any) -> None:
        """Tell the child something; a dead one hears nothing."""
        with contextlib.suppress(BrokenPipeError):
            os.write(self._says, json.dumps(message).encode() + b"\n")

    def next(self, *kinds: str, seconds: float = _LONGEST) -> dict[str, Any] | None:
        """Return the next message that has one of these keys (any by default); None at the end.

        Raises:
            TimeoutError: there was none in time.
        """
        end = time.monotonic() + seconds
        while True:
            while self._messages:
                message = self._messages.pop(0)
                if "crashed" in message or not kinds or any(kind in message for kind in kinds):
                    return message
            if self._over:
                return None
            if not self._read(end - time.monotonic()):
                raise TimeoutError(f"process {self.pid} said nothing for {seconds:.0f} seconds")

    def rest(self, seconds: float = _LONGEST) -> list[dict[str, Any]]:
        """Return all messages until the child has ended."""
        found = []
        while (message := self.next(seconds=seconds)) is not None:
            found.append(message)
        self.wait()
        return found

    def kill(self) -> None:
        """End it at once (SIGKILL), and wait until it is gone."""
        if not self._gone:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            self.wait()

    def stop(self) -> None:
        """Let it stand still (SIGSTOP), and wait until it does."""
        os.kill(self.pid, signal.SIGSTOP)
        os.waitpid(self.pid, os.WUNTRACED)

    def go_on(self) -> None:
        """Let it go on after `stop`."""
        os.kill(self.pid, signal.SIGCONT)

    def wait(self) -> None:
        """Wait until it has ended."""
        if not self._gone:
            os.waitpid(self.pid, 0)
            self._gone = True

    def _read(self, seconds: float) -> bool:
        if not select.select([self._reads], [], [], max(0.0, seconds))[0]:
            return False
        data = os.read(self._reads, 2**16)
        self._over = not data
        *lines, self._text = (self._text + data).split(b"\n")
        self._messages += map(json.loads, lines)
        return True
