"""Breadth first through all states: the first trace that breaks a promise is a shortest one.

A state is the world and where each actor stands, each a number, packed into one integer: nothing
is hashed away, so a search that ends has seen every state. What is done by an actor alone
(`Op.alone`) is done at once, together with the operation before it; all else is tried in every
order. A kill is tried where it can matter: after an actor has changed something (before that it
is as if the actor had not run, which is a smaller scenario).
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from .effects import landings, outcomes
from .program import DONE, Actor, Programs
from .promises import broken_at_rest, broken_by, broken_in
from .world import Manifest, Op, Setting, World

__all__ = ["Result", "Scenario", "explore"]

_BITS = 21
_SAID = {"ack", "bad", "claim", "end"}
_MASK = (1 << _BITS) - 1


@dataclass(frozen=True)
class Scenario:
    """Who does what, and what may go wrong.

    Attributes:
        title: what it shows.
        world: the state at the start.
        actors: who does something.
        setting: the rules, and what stays the same.
        finds: what the trace has to say where a rule is switched off; None where all holds.
    """

    title: str
    world: World
    actors: tuple[Actor, ...]
    setting: Setting = field(default_factory=Setting)
    finds: str | None = None


@dataclass
class Result:
    """What a search found.

    Attributes:
        states: how many were seen.
        worlds: how many different worlds are in them.
        seconds: of this processor, that it took.
        finished: whether there are no more, or a promise is broken.
        broken: which promise, or None.
        trace: the operations that lead there, in order.
    """

    states: int = 0
    worlds: int = 0
    seconds: float = 0.0
    finished: bool = False
    broken: str | None = None
    trace: list[str] = field(default_factory=list)

    @property
    def verdict(self) -> str:
        """HOLDS, FAILS, or CAPPED where time ran out."""
        return "FAILS" if self.broken else "HOLDS" if self.finished else "CAPPED"


@dataclass(frozen=True)
class _Broken(Exception):  # noqa: N818  (it is a finding)
    what: str
    notes: tuple[str, ...]


def explore(
    scenario: Scenario,
    seconds: float = 3600.0,
    most: int = 60_000_000,
    *,
    every_order: bool = False,
) -> Result:
    """Search a scenario.

    Args:
        scenario: which.
        seconds: of this processor, after which the search is given up.
        most: states, likewise.
        every_order: try also what is done alone in every order, to see that it hides nothing.
    """
    return _Search(scenario, every_order=every_order).run(seconds, most)


class _Search:
    def __init__(self, scenario: Scenario, *, every_order: bool) -> None:
        self._every_order = every_order
        self._setting = scenario.setting
        self._first = scenario.world
        self._programs = Programs(scenario.setting, scenario.actors)
        self._worlds: list[World] = []
        self._world_ids: dict[World, int] = {}
        self._count = len(scenario.actors)
        self._top = self._count * _BITS
        self._moves: dict[int, tuple[int, ...]] = {}
        self._landings: dict[int, tuple[int, ...]] = {}
        self._at_rest: set[int] = set()

    def run(self, seconds: float, most: int) -> Result:
        """See `explore`."""
        started, result = time.process_time(), Result()
        parents: dict[int, int] = {}
        try:
            first = self._start()
            parents[first] = -1
            result.finished = self._spread([first], parents, started + seconds, most)
        except _Broken as broken:
            result.finished, result.broken = True, broken.what
            result.trace = [*broken.notes]
        result.states, result.worlds = len(parents), len(self._worlds)
        result.seconds = time.process_time() - started
        return result

    def _start(self) -> int:
        state = self._world(self._first) << self._top
        for actor in range(self._count):
            state |= self._programs.begin(actor, 0) << (actor * _BITS)
        return state

    def _spread(self, level: list[int], parents: dict[int, int], end: float, most: int) -> bool:
        """Visit all states level by level; return False where time or room ran out."""
        count, top, bits, mask, moves = self._count, self._top, _BITS, _MASK, self._moves
        points = (1 << top) - 1
        shifts = [(n * bits, ~(mask << (n * bits)) & points) for n in range(count)]
        while level:
            following: list[int] = []
            for state in level:
                world = state >> top
                resting = True
                for shift, others in shifts:
                    point = (state >> shift) & mask
                    if not point:
                        continue
                    resting = False
                    key = world << bits | point
                    found = moves.get(key)
                    if found is None:
                        found = moves[key] = self._found(key, state, parents)
                    rest = state & others
                    for move in found:
                        new = rest | (move >> bits) << top | (move & mask) << shift
                        if new not in parents:
                            parents[new] = state
                            following.append(new)
                if self._worlds[world].flight:
                    for landed in self._landed(world, state, parents):
                        new = state & points | landed << top
                        if new not in parents:
                            parents[new] = state
                            following.append(new)
                if resting and world not in self._at_rest:
                    self._rest(world, state, parents)
            if len(parents) > most or time.process_time() > end:
                return not following
            level = following
        return True

    def _found(self, key: int, state: int, parents: dict[int, int]) -> tuple[int, ...]:
        world, point = self._worlds[key >> _BITS], key & _MASK
        try:
            return tuple(
                self._world(after) << _BITS | to for after, to, _ in self._steps(world, point)
            )
        except _Broken as broken:
            raise _Broken(broken.what, (*self._trace(state, parents), *broken.notes)) from None

    def _steps(self, world: World, number: int) -> Iterator[tuple[World, int, str]]:
        """Give the world and the point after each thing that an actor may do next."""
        point = self._programs.points[number]
        assert point is not None
        actor = self._programs.actors[point.actor]
        before, notes = world, (f"{actor.name}:",)
        while point.op.kind == "start":  # It begins with its first operation, and not before.
            answer = outcomes(before, point.op)[0][0]
            number = self._programs.advance(number, answer)
            point = self._programs.points[number]
            assert point is not None
        for answer, after in outcomes(before, point.op):
            said = (*notes, f"{_said(point.op)} -> {_short(answer)}")
            try:
                after, to, more = self._settle(after, self._programs.advance(number, answer), actor)
                self._check(after)
            except _Broken as broken:
                raise _Broken(broken.what, (" ".join((*said, *broken.notes)),)) from None
            yield after, to, " ".join((*said, *more))
        if world.crashes and actor.mortal and point.changed:
            fewer = world._replace(crashes=world.crashes - 1)
            following = self._programs.begin(point.actor, point.call + 1)
            yield fewer, following, f"{actor.name} is killed"

    def _settle(self, world: World, number: int, actor: Actor) -> tuple[World, int, list[str]]:
        """Do what an actor does alone, up to what others may see."""
        notes: list[str] = []
        while number != DONE:
            point = self._programs.points[number]
            assert point is not None
            op = point.op
            if op.kind == "start" or not (op.kind in _SAID or (op.alone and not self._every_order)):
                break
            wrong = broken_by(op, world, self._setting, actor.name)
            if wrong:
                raise _Broken(wrong, tuple(notes))
            if op.kind == "end":
                notes.append(f"[{op.name}]")
                number = self._programs.begin(point.actor, point.call + 1)
                continue
            answer = None
            if op.kind not in ("claim", "bad"):
                answer, world = outcomes(world, op)[0]
            if op.kind == "ack":
                notes.append(f"[{op.name} is returned to {op.value}]")
            number = self._programs.advance(number, answer)
        return world, number, notes

    def _landed(self, world: int, state: int, parents: dict[int, int]) -> tuple[int, ...]:
        if world not in self._landings:
            found = []
            for op, after in landings(self._worlds[world]):
                try:
                    self._check(after)
                except _Broken as broken:
                    note = f"network: {_said(op)} lands late"
                    raise _Broken(broken.what, (*self._trace(state, parents), note)) from None
                found.append(self._world(after))
            self._landings[world] = tuple(found)
        return self._landings[world]

    def _rest(self, world: int, state: int, parents: dict[int, int]) -> None:
        self._at_rest.add(world)
        there, first = self._worlds[world], self._first
        before = first.crashes, first.lost, first.repeats
        disturbed = before != (there.crashes, there.lost, there.repeats)
        wrong = broken_at_rest(there, self._setting, disturbed=disturbed)
        if wrong:
            raise _Broken(wrong, (*self._trace(state, parents), "(all is at rest)"))

    def _check(self, world: World) -> None:
        if world not in self._world_ids:
            wrong = broken_in(world, self._setting)
            if wrong:
                raise _Broken(wrong, ())

    def _world(self, world: World) -> int:
        number = self._world_ids.get(world)
        if number is None:
            number = self._world_ids[world] = len(self._worlds)
            self._worlds.append(world)
        return number

    def _trace(self, state: int, parents: dict[int, int]) -> list[str]:
        """Return what led to a state, by doing each step once more."""
        notes: list[str] = []
        while parents[state] >= 0:
            before = parents[state]
            notes.append(self._note(before, state))
            state = before
        return notes[::-1]

    def _note(self, before: int, after: int) -> str:
        world, to = self._worlds[before >> self._top], self._worlds[after >> self._top]
        for actor in range(self._count):
            shift = actor * _BITS
            old, new = (before >> shift) & _MASK, (after >> shift) & _MASK
            others = ~(_MASK << shift) & ((1 << self._top) - 1)
            if old and before & others == after & others:
                for found, point, note in self._steps(world, old):
                    if (found, point) == (to, new):
                        return note
        op = next(op for op, found in landings(world) if found == to)
        return f"network: {_said(op)} lands late"


def _said(op: Op) -> str:
    value = op.value if op.kind in ("create", "replace", "copy", "swap", "sleepers") else None
    return " ".join(part for part in (op.kind, op.name, _short(value) if value else "") if part)


def _short(value: Any) -> str:
    if isinstance(value, Manifest):
        return f"M({value.wid})"
    if isinstance(value, tuple):
        return "(" + ", ".join(_short(part) for part in value) + ")"
    return str(value)
