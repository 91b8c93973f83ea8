"""Answers that are lost, refused or wrong, at every operation of an act."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ckptstore.errors import CkptstoreError
from ckptstore.manifest import MANIFEST
from ckptstore.testing import ANSWERS, Fault, Lose, Operation, Refuse, Short, inject
from tests.faults.acts import Act, Place
from tests.faults.deaths import CHANGES, Result, operations_of
from tests.faults.looking import Expected, expected_of, found, goes_on

__all__ = ["answers", "harmed"]

_CREATING = ("create", "writer", "finish")
_FROM_THEN_ON = {"expired": False, "no space": True}


def answers(
    operations: list[Operation], *, full: bool = False
) -> Iterator[tuple[str, Callable[[], Fault], bool]]:
    """Yield what goes wrong at operations, a function that makes it, and whether it may land later.

    Args:
        operations: those of the act, when nothing happens.
        full: each answer at each operation; else one of them at each, in turn.
    """
    said = list(ANSWERS)
    for operation in _harmed_pieces(operations, full=full):
        k, name = operation.number, operation.name
        where = f"{k} {operation}"
        if name in CHANGES and name not in ("write", "finish"):
            yield f"lost and done {where}", lambda k=k: Lose(k), False
            yield f"lost and not done {where}", lambda k=k: Lose(k, done=False), True
        # A manifest of the view that is cut off is read by nobody: see `test_replies`.
        if operation.data is not None and (name, operation.path) != ("replace", MANIFEST):
            yield f"short {where}", lambda k=k: Short(k), False
        for answer in said if full else (said[k % len(said)],):
            if answer != "taken" or name in _CREATING:
                yield f"{answer} once {where}", lambda k=k, a=answer: Refuse(k, a, times=1), False
        for answer, writes in _FROM_THEN_ON.items():
            if full or (name in CHANGES if writes else k % 2):
                make = lambda k=k, a=answer, w=writes: Refuse(k, a, writes=w)  # noqa: E731
                yield f"{answer} from {where}", make, False


def _harmed_pieces(operations: list[Operation], *, full: bool) -> Iterator[Operation]:
    """Yield the operations, and of the pieces of each file only some."""
    paths: dict[str, int] = {}
    for operation in operations:
        if operation.name == "write":
            paths[operation.path] = paths.get(operation.path, 0) + 1
            if not full and paths[operation.path] not in (1, 20):
                continue
        yield operation


def harmed(act: Act, places: Iterator[Place], *, full: bool = False) -> Result:
    """Do an act while something goes wrong, and hold what it said against what is there.

    A save that returned is there; one that raised is there, or not, as `error.committed` says;
    whatever a lost request does when it lands later, the location is whole and goes on.
    """
    expected = expected_of(act, next(places))
    operations = operations_of(act, next(places))
    result = Result()
    for said, make, lands in answers(operations, full=full):
        for landing in ("before", "after") if lands else ("never",):
            place, fault = next(places), make()
            act.prepare(place)
            with result.noting(f"{act.name}, {said}, landing {landing}"):
                result.saw(_after(act, place, expected, fault, landing, result.times))
            result.times += 1
    return result


def _after(
    act: Act, place: Place, expected: Expected, fault: Fault, landing: str, number: int
) -> str:
    """Do the act, look, let the request land before or after the next save, and look again."""
    error = None
    try:
        with inject(fault):
            act.run(place)
    except CkptstoreError as raised:
        error = raised
    url = act.changed(place)
    held = found(place, url)
    may = _may_be(act, expected, error)
    assert held in may, f"{error!r} (committed={error and error.committed}), and found {held}"
    if landing == "before":
        fault.land()  # type: ignore[attr-defined]
        again = found(place, url)
        # What was not known may turn out to be done; what was known stays as it was.
        assert again in (may if error is None or error.committed is not None else expected.whole)
    number += number % 3 == 2  # What landed may have been the very thing to be done again.
    goes_on(act, place, expected, number, later=landing != "after")
    if landing == "after":
        last = found(place, url)
        fault.land()  # type: ignore[attr-defined]
        assert found(place, url) == last, "a request that landed late changed what was saved since"
        goes_on_again(act, place)
    return held


def goes_on_again(act: Act, place: Place) -> None:
    """Save once more, after something landed late."""
    if act.history:
        place.step(9, 9, act.changed(place))
    else:
        place.save(9, act.changed(place))
    assert '"number": 9' in found(place, act.changed(place))


def _may_be(act: Act, expected: Expected, error: CkptstoreError | None) -> tuple[str, ...]:
    if error is None:
        return (expected.new,)
    if not act.saves or error.committed is None:
        return expected.whole
    return (expected.new,) if error.committed else (expected.old,)
