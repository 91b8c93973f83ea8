"""What each operation does to the world, and what it may answer.

An operation is one moment. Faults are answers: a reply that is lost after the request was done,
or while it is still under way; and a request that the client repeated, whose first copy is still
under way. What is under way lands at any later moment, or never. A create that lands late is
still refused where the name is taken; a delete, a replace and a copy are not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from .world import MANIFEST, PIN, Op, World, folder_of

__all__ = ["landings", "outcomes"]

Outcome = tuple[Any, World]

_CHANGES = {"create", "replace", "copy", "delete", "delete_if", "swap"}


def outcomes(world: World, op: Op) -> list[Outcome]:
    """Return all that an operation may answer, each with the world afterwards."""
    if op.kind in _CHANGES:
        return list(_changed(world, op))
    if op.kind in _LOOKS:
        return [(_LOOKS[op.kind](world, op), world)]
    return [_MARKS[op.kind](world, op)]


def landings(world: World) -> Iterator[tuple[Op, World]]:
    """Give each request under way, and the world after it has landed."""
    for place, op in enumerate(world.flight):
        left = world._replace(flight=world.flight[:place] + world.flight[place + 1 :])
        yield op, _done(left, op)[1]


def _changed(world: World, op: Op) -> Iterator[Outcome]:
    answer, after = _done(world, op)
    yield answer, after
    if op.other == "own":
        return  # Names unique to a write are written once and deleted once: late is no other.
    if world.lost and op.kind in ("create", "swap") and op.name.endswith(f"/{MANIFEST}"):
        yield "lost", after._replace(lost=world.lost - 1)
        yield "lost", world._replace(lost=world.lost - 1, flight=(*world.flight, op))
    if world.repeats:
        yield answer, after._replace(repeats=world.repeats - 1, flight=(*after.flight, op))


def _done(world: World, op: Op) -> Outcome:
    files = dict(world.files)
    there = files.get(op.name)
    answer: Any = None
    if op.kind == "create":
        answer = there is None
        if answer:
            files[op.name] = op.value
    elif op.kind == "replace":
        files[op.name] = op.value
    elif op.kind == "copy":
        answer = op.value in files
        if answer:
            files[op.name] = files[op.value]
    elif op.kind == "swap":
        answer = there is not None and there.wid == op.other
        if answer:
            files[op.name] = op.value
    elif op.kind == "delete_if":
        held = there.wid if op.name.endswith(f"/{MANIFEST}") and there is not None else there
        if held == op.value:
            files.pop(op.name, None)
    elif op.kind == "delete":
        files.pop(op.name, None)
        if there is not None and op.value is not None and there.wid != op.value:
            world = world._replace(stolen=(*world.stolen, (folder_of(op.name), there.wid)))
    return answer, world._replace(files=tuple(sorted(files.items(), key=lambda item: item[0])))


def _list(world: World, op: Op) -> tuple[tuple[str, Any], ...]:
    start = f"{op.name}/"
    inside = ((name, value) for name, value in world.files if name.startswith(start))
    return tuple((name[len(start) :], value) for name, value in inside)


def _holding(world: World, op: Op) -> tuple[int, ...]:
    found = (n for n, _ in world.files if n[0] == op.name and n.endswith(f"/{MANIFEST}"))
    return tuple(sorted(int(folder_of(name)[1:]) for name in found))


def _held(world: World, op: Op) -> tuple[tuple[int, bool], ...]:
    there = {name for name, _ in world.files}
    return tuple((n, f"{op.name}{n}/{PIN}" in there) for n in _holding(world, op))


def _folders(world: World, op: Op) -> tuple[int, ...]:
    return tuple(sorted({int(folder_of(n)[1:]) for n, _ in world.files if n[0] == op.name}))


def _read(world: World, op: Op) -> Any:
    return dict(world.files).get(op.name)


_LOOKS: dict[str, Callable[[World, Op], Any]] = {
    "list": _list,
    "holding": _holding,
    "held": _held,
    "folders": _folders,
    "read": _read,
    "read_back": _read,  # What S3 storage does by itself when a reply was lost.
    "entry": _read,
    "open": _read,
    "chunk": lambda world, op: _read(world, op) == op.value,
    "flush": lambda world, op: None,
    "create_only": lambda world, op: True,
    "start": lambda world, op: max((int(f[1:]) for f, _ in world.acked), default=0),
}


def _ack(world: World, op: Op) -> Outcome:
    return None, world._replace(acked=(*world.acked, (op.name, op.value)))


def _age(world: World, op: Op) -> Outcome:
    """Look at the clock: nobody sleeps twelve hours between this and the next request."""
    if op.value in world.old:
        return True, world
    return False, world._replace(hurrying=world.hurrying | {op.value})


def _sleepers(world: World, op: Op) -> Outcome:
    """Answer which writes' files are a day old by now; any may be, where writers sleep."""
    if not op.value:
        return tuple(sorted(world.old)), world
    manifests = [value for name, value in world.files if name.endswith(f"/{MANIFEST}")]
    named = {f"{manifest.folder}/{path}" for manifest in manifests for _, path in manifest.paths}
    loose = {
        value
        for name, value in world.files
        if name[0] == op.name and name[name.index("/") + 1] not in "MPR" and name not in named
    }
    old = frozenset(loose - world.hurrying)
    return tuple(sorted(old)), world._replace(old=world.old | old)


_MARKS: dict[str, Callable[[World, Op], Outcome]] = {
    "ack": _ack,
    "age": _age,
    "sleepers": _sleepers,
}
