"""Programs as numbers: where each stands, what it asks for next, and where an answer leads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from .looking import Program
from .world import Op, Setting

__all__ = ["DONE", "Actor", "Call", "Point", "Programs"]

DONE = 0

_CHANGES = {"create", "replace", "copy", "delete", "delete_if", "swap"}


class Call(NamedTuple):
    """A program and its arguments."""

    program: Callable[..., Program]
    args: tuple[Any, ...] = ()


class Actor(NamedTuple):
    """Somebody who runs programs one after another.

    Attributes:
        name: for traces.
        calls: the programs.
        mortal: whether it may be killed; then it goes on with its next program, as a new process.
    """

    name: str
    calls: tuple[Call, ...]
    mortal: bool = False


class Point(NamedTuple):
    """Where an actor stands.

    Attributes:
        actor, call: the places of both.
        history: one sequence of answers that leads here.
        op: what it asks for next.
        changed: whether it has changed anything since its program began.
    """

    actor: int
    call: int
    history: tuple[Any, ...]
    op: Op
    changed: bool


class Programs:
    """All points that were reached, and the moves between them.

    A generator cannot be copied, so a new point is reached by running its program from the start
    with the answers so far. Points are the same where the program stands at the same place with
    the same variables: what the answers were is then of no account.
    """

    def __init__(self, setting: Setting, actors: tuple[Actor, ...]) -> None:
        self.actors = actors
        self.points: list[Point | None] = [None]
        self._setting = setting
        self._ids: dict[Any, int] = {}
        self._moves: dict[tuple[int, Any], int] = {}

    def begin(self, actor: int, call: int) -> int:
        """Return the point at which an actor begins one of its programs, or DONE."""
        if call == len(self.actors[actor].calls):
            return DONE
        return self._point(actor, call, (), changed=False)

    def advance(self, number: int, answer: Any) -> int:
        """Return the point that an answer leads to."""
        key = number, answer
        if key not in self._moves:
            point = self.points[number]
            assert point is not None
            changed = point.changed or point.op.kind in _CHANGES
            history = (*point.history, answer)
            self._moves[key] = self._point(point.actor, point.call, history, changed=changed)
        return self._moves[key]

    def _point(self, actor: int, call: int, history: tuple[Any, ...], *, changed: bool) -> int:
        program, args = self.actors[actor].calls[call]
        running = program(self._setting, *args)
        op = running.send(None)
        for answer in history:
            op = running.send(answer)
        key = actor, call, changed, op, tuple(_standing(running))
        if key not in self._ids:
            self._ids[key] = len(self.points)
            self.points.append(Point(actor, call, history, op, changed))
        running.close()
        return self._ids[key]


def _standing(running: Any) -> Iterator[tuple[Any, ...]]:
    """Give the place and the variables of a program, and of those that it waits for."""
    while running is not None:
        frame = running.gi_frame
        held = tuple(item for item in frame.f_locals.items() if item[0] != "setting")
        yield (running.gi_code.co_name, frame.f_lasti, held)
        running = running.gi_yieldfrom
