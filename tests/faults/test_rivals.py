"""G7: whenever others save meanwhile, a save wins a state of its own, or knows that it lost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import ckptstore
from ckptstore.errors import ConflictError
from ckptstore.testing import Operation, inject
from tests.faults.acts import ACTS, Place
from tests.faults.deaths import numbered, operations_of
from tests.faults.looking import found, left_over


class Rivals:
    """A fault that harms nobody: before an operation others save, once."""

    def __init__(self, at: int, save: Callable[[], object]) -> None:
        self._at = at
        self._save = save
        self.came = False

    def __call__(self, operation: Operation, perform: Callable[..., Any]) -> Any:
        if operation.number >= self._at and not self.came:
            self.came = True
            self._save()
        return perform()


@pytest.mark.parametrize("many", [1, 2])
def test_rivals_before_every_operation_of_a_save(fast_path, many):
    places = numbered(str(fast_path))
    operations = operations_of(ACTS["replace"], next(places))
    commit = next(
        o.number for o in operations if str(o) == "create .ckptstore/00000002/manifest.json"
    )
    look = next(o.number for o in operations if o.number > commit and o.name == "read")
    pieces = [o.number for o in operations if o.name == "write"][3:]

    for at in (o.number for o in operations if o.number not in pieces):
        place, won = next(places), list[ckptstore.Checkpoint]()
        place.save(1)
        rivals = Rivals(at, lambda p=place, w=won: w.extend(p.save(3 + n) for n in range(many)))
        lost = None
        with inject(rivals):
            try:
                won.append(place.save(2))
            except ConflictError as error:
                lost = error

        assert rivals.came
        assert len({each.generation for each in won}) == len(won), f"two won one, at {at}"
        newest = max(won, key=lambda each: each.generation or 0)
        assert f'"number": {newest.step}' in found(place, place.url), at
        # Before the first two looks were over it could still choose a later generation.
        assert (lost is not None) == (2 < at <= look), f"{lost!r}, at {at}"
        assert lost is None or lost.committed is False
        _clean(place)


def test_rivals_before_every_operation_of_a_step(fast_path):
    places = numbered(str(fast_path))
    operations = operations_of(ACTS["next step"], next(places))
    commit = next(o.number for o in operations if str(o) == "create step-00000002/manifest.json")
    pieces = [o.number for o in operations if o.name == "write"][3:]

    for at in (o.number for o in operations if o.number not in pieces):
        place = next(places)
        place.step(1, 1)
        rivals = Rivals(at, lambda p=place: p.step(3, 2))
        lost = None
        with inject(rivals):
            try:
                place.step(2, 2)
            except ConflictError as error:
                lost = error

        assert rivals.came
        assert f'"number": {3 if at <= commit else 2}' in found(place, place.url), at
        assert (lost is not None) == (at <= commit), f"{lost!r}, at {at}"


def _clean(place: Place) -> None:
    with place.store() as store:
        store.repair()
        assert left_over(store._storage) == []
