"""Deaths: a process ends before each operation of an act, and others look at what it left.

On a local disk the death is real: the act runs in a process that was forked for it, and that ends
by `os._exit` inside the operation, so that nothing of it cleans up; a second forked process looks.
"""

from __future__ import annotations

import contextlib
import gc
import itertools
import json
import os
import shutil
import threading
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from fsspec.implementations.memory import MemoryFileSystem

from ckptstore.testing import Crash, Fault, Killed, Nothing, Operation, Tear, inject
from tests.faults.acts import ACTS, Act, Place
from tests.faults.looking import Expected, expected_of, found, goes_on

__all__ = [
    "CHANGES",
    "Result",
    "check",
    "counted",
    "dead_in_process",
    "dead_processes",
    "deaths",
    "forked",
    "numbered",
    "operations_of",
]

_DEAD, _FINE, _WRONG = 137, 0, 1


CHANGES = {
    "create",
    "create_only",
    "writer",
    "write",
    "finish",
    "replace",
    "swap",
    "copy",
    "delete",
    "give_up",
}
"""The operations that may change what is stored."""


@dataclass
class Result:
    """What a loop found.

    Attributes:
        times: how often something was harmed and looked at.
        seen: the different states that were found.
        wrong: what must not be, a text each.
    """

    times: int = 0
    seen: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def saw(self, state: str) -> None:
        """Remember a state."""
        if state not in self.seen:
            self.seen.append(state)

    @contextlib.contextmanager
    def noting(self, what: str) -> Iterator[None]:
        """Note what goes wrong in the block, and go on."""
        try:
            yield
        except Exception:
            self.wrong.append(f"{what}: {traceback.format_exc()}")

    def dumped(self) -> str:
        """Return it as text, for another process."""
        return json.dumps(vars(self))

    @classmethod
    def loaded(cls, text: str) -> Result:
        """Return what `dumped` returned the text of."""
        return cls(**json.loads(text))


def counted(name: str, root: str) -> dict[str, int]:
    """Return how many operations of each kind an act asks for; pieces of files count as one."""
    operations = operations_of(ACTS[name], Place(root))
    pieces = {(o.name, o.path) for o in operations if o.name == "write"}
    counts = Counter(o.name for o in operations if o.name != "write")
    return dict(sorted({**counts, "write": len(pieces)}.items()))


def deaths(
    operations: list[Operation], *, reads: bool = True, full: bool = False
) -> Iterator[tuple[Operation, str, Callable[[int | None], Fault]]]:
    """Yield every death to be died, and a function that makes it of an exit status.

    A process that dies after an operation leaves what one leaves that dies before the next, so
    ``after`` is asked for at the last one only. Of the many pieces of a file the first, the
    second, one in the middle and the last are harmed, and one is torn.

    Args:
        operations: those of the act, when nothing happens.
        reads: also before operations that change nothing, where a death leaves what it leaves
            before the next that does.
        full: every operation, before and after, and every piece torn.
    """
    pieces: dict[str, list[int]] = {}
    for operation in operations:
        if operation.name == "write":
            pieces.setdefault(operation.path, []).append(operation.number)
    chosen = {k for ks in pieces.values() for k in (ks[0], ks[1 % len(ks)], ks[-1])}
    middle = {ks[len(ks) // 2] for ks in pieces.values()}
    for operation in operations:
        k, write = operation.number, operation.name == "write"
        changes = reads or operation.name in CHANGES
        if full or (k in chosen | middle if write else changes):
            yield operation, f"before {k} {operation}", partial(_crash, k, after=False)
        if full or operation is operations[-1]:
            yield operation, f"after {k} {operation}", partial(_crash, k, after=True)
        if write and (full or k in middle):
            yield operation, f"tearing {k} {operation}", partial(_tear, k)


def _crash(k: int, exit: int | None, *, after: bool) -> Fault:
    return Crash(k, after=after, exit=exit)


def _tear(k: int, exit: int | None) -> Fault:
    return Tear(k, exit=exit)


def dead_processes(name: str, root: str, *, full: bool = False) -> Result:
    """Let a process die at the operations of an act on a local disk, and look at what they left.

    Args:
        name: of the act.
        root: a folder of its own.
        full: as for `deaths`; else only operations that change something.
    """
    assert threading.active_count() == 1, "a thread that is forked away may hold a lock for ever"
    gc.freeze()
    act = ACTS[name]
    expected = expected_of(act, Place(f"{root}/expected"))
    operations = operations_of(act, Place(f"{root}/counted"))
    result, died = Result(), []
    for number, (_, said, make) in enumerate(deaths(operations, reads=full, full=full)):
        place, fault = Place(f"{root}/{number}"), make(_DEAD)

        def die(place: Place = place, fault: Fault = fault) -> str:
            act.prepare(place)
            with inject(fault):
                act.run(place)
            return "it did not die"

        status, told = forked(die)
        result.times += 1
        if status == _DEAD:
            died.append((said, place))
        else:
            result.wrong.append(f"{name}, {said}: {told}")

    def look() -> str:
        for number, (said, place) in enumerate(died):
            with result.noting(f"{name}, {said}"):
                result.saw(check(act, place, expected, number))
            shutil.rmtree(place.root, ignore_errors=True)
        return result.dumped()

    status, told = forked(look)
    return Result.loaded(told) if status == _FINE else Result(wrong=[told])


def check(act: Act, place: Place, expected: Expected, number: int) -> str:
    """Hold what a death left against what may be there; return what it was."""
    if expected.source is not None:
        assert found(place, place.url) == expected.source, "the source was changed"
    return goes_on(act, place, expected, number)


def dead_in_process(
    act: Act,
    places: Iterator[Place],
    only: Callable[[Operation], bool] = lambda operation: True,
    *,
    full: bool = False,
) -> Result:
    """Let an act end with `Killed` at operations, and look at what it left; for any storage.

    Args:
        act: the act.
        places: places of which nobody has used one.
        only: which operations.
        full: as for `deaths`.
    """
    expected = expected_of(act, next(places))
    operations = operations_of(act, next(places))
    result = Result()
    for number, (operation, said, make) in enumerate(deaths(operations, full=full)):
        if not only(operation):
            continue
        place = next(places)
        act.prepare(place)
        with result.noting(f"{act.name}, {said}"):
            with contextlib.suppress(Killed), inject(make(None)):
                act.run(place)
                raise AssertionError("it did not die")
            result.saw(check(act, place, expected, number))
        result.times += 1
    return result


def operations_of(act: Act, place: Place) -> list[Operation]:
    act.prepare(place)
    with inject(Nothing()) as seen:
        act.run(place)
    return seen.operations


def forked(run: Callable[[], str]) -> tuple[int, str]:
    """Run something in a process of its own; return its status, and what it said."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        status = _WRONG
        try:
            try:
                said, status = run(), _FINE
            except BaseException:
                said = traceback.format_exc()
            with os.fdopen(writer, "w") as pipe:
                pipe.write(said)
        finally:
            os._exit(status)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        said = pipe.read()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), said


def numbered(root: str, options: Mapping[str, Any] | None = None) -> Iterator[Place]:
    """Yield places below a URL without end; of ``memory://`` each goes when the next comes."""
    for number in itertools.count():
        yield Place(f"{root}/{number}", options)
        if root.startswith("memory://"):
            start = f"/{root.removeprefix('memory://').strip('/')}/{number}/"
            for key in [key for key in MemoryFileSystem.store if key.startswith(start)]:
                del MemoryFileSystem.store[key]
