"""Interrupts that torch hides behind errors of its own."""

from __future__ import annotations

import sys

__all__ = ["Interrupts"]


class Interrupts:
    """Finds the interrupt in the chain of an exception that was raised after this was made.

    A Ctrl-C leaves torch's writer half done, whose end then fails with an error that says nothing
    of it. What was being handled already when this was made is not meant: somebody may save
    because of a Ctrl-C.
    """

    def __init__(self) -> None:
        self._before = sys.exc_info()[1]

    def behind(self, error: BaseException) -> BaseException | None:
        """Return what is no `Exception` among the causes and contexts of an error, or None."""
        waiting: list[BaseException | None] = [error]
        seen: set[int] = {id(self._before)}
        while waiting:
            one = waiting.pop()
            if one is None or id(one) in seen:
                continue
            if not isinstance(one, Exception):
                return one
            seen.add(id(one))
            waiting += [one.__cause__, one.__context__]
        return None
