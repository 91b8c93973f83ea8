"""G2, G7: for each rule of the commit the interleaving that it is there for."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.stateful.acts import Act
from tests.stateful.world import World, new_world


@pytest.fixture(params=["memory", "two levels", "tagged"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    with new_world(request.param, "stateful-named") as world:
        whole(world, "first", world.acts.save(optimizer=False))
        yield world


@pytest.fixture
def steps() -> Iterator[World]:
    with new_world("memory", "stateful-named", history=True) as world:
        whole(world, "first", step(world, 1))
        yield world


def step(world: World, number: int, *, overwrite: bool = False, keep: int | None = None) -> Act:
    return world.acts.save_step(number, again=None, overwrite=overwrite, keep=keep)


def whole(world: World, actor: str, act: Act) -> None:
    world.start(actor, act)
    world.finish(actor)


def until(world: World, actor: str, name: str, end: str = "") -> None:
    """Let an actor go on to just before an operation."""
    pending = world.live[actor][0].pending
    while pending.name != name or not pending.path.endswith(end):
        world.go(actor)
        pending = world.live[actor][0].pending


def test_a_reader_that_stands_between_listing_and_looking_finds_a_generation():
    with new_world("two levels", "stateful-named") as world:
        whole(world, "first", world.acts.save(optimizer=False))
        world.start("R", world.acts.open())
        until(world, "R", "entry", "1/manifest.json")
        whole(world, "A", world.acts.save(optimizer=False))

        world.finish("R")
        whole(world, "A", world.acts.save(optimizer=False))
        whole(world, "R", world.acts.again(*world.handles["R"]))

        assert world.counts["open: done"] == 1
        assert world.counts["again: SupersededError"] == 1, "it was pinned to a generation"


def test_a_writer_that_stands_between_listing_and_looking_saves_the_next():
    with new_world("two levels", "stateful-named") as world:
        whole(world, "first", world.acts.save(optimizer=False))
        world.start("B", world.acts.save(optimizer=False))
        until(world, "B", "entry", "1/manifest.json")
        whole(world, "A", world.acts.save(optimizer=False))

        world.finish("B")

        assert world.ledger.now.newest.number == 3


def test_a_writer_that_commits_below_the_newest_withdraws(world):
    world.start("A", world.acts.save(optimizer=False))
    until(world, "A", "create", "2/manifest.json")
    whole(world, "B", world.acts.save(optimizer=False))
    world.start("B", world.acts.save(optimizer=False))
    until(world, "B", "delete", "2/manifest.json")
    world.kill("B", after=True)  # So what A has written stays.

    world.finish("A")

    assert world.counts["save: ConflictError"] == 1
    assert ".ckptstore/00000002" not in world.ledger.now.states


def test_of_two_writers_at_one_manifest_the_second_loses(world):
    for actor in ("A", "B"):
        world.start(actor, world.acts.save(optimizer=False))
        until(world, actor, "create", "2/manifest.json")

    world.finish("A")
    world.finish("B")

    assert world.counts["save: done"] == 2
    assert world.counts["save: ConflictError"] == 1


def test_a_refresh_that_is_under_way_is_no_hand_edit(world):
    world.start("R", world.acts.open())
    until(world, "R", "read", "/manifest.json")
    world.go("R")
    until(world, "R", "list")  # It has read the view's manifest, and none of its files.
    world.start("A", world.acts.save(optimizer=False))
    until(world, "A", "replace", "manifest.json")

    world.finish("R")
    world.finish("A")

    assert world.handles["R"][1].edited == ()


def test_a_late_refresh_is_no_hand_edit(world):
    world.start("A", world.acts.save(optimizer=False))
    until(world, "A", "replace", "config.json")
    whole(world, "B", world.acts.save(optimizer=False))
    world.go("A")

    whole(world, "R", world.acts.open())
    world.finish("A")

    assert world.handles["R"][1].edited == ()


def test_a_handle_whose_state_is_removed_says_so(world):
    whole(world, "R", world.acts.open())
    whole(world, "A", world.acts.save(optimizer=False))

    whole(world, "R", world.acts.again(*world.handles["R"]))

    assert world.counts["again: SupersededError"] == 1


def test_a_writer_that_slept_for_a_day_gives_up(world):
    world.start("A", world.acts.save(optimizer=False))
    until(world, "A", "list", "2")
    world.sleep(25)
    whole(world, "D", world.acts.repair())

    world.finish("A")

    assert world.counts["save: StorageError"] == 1


def test_an_edit_is_carried_over_and_synced_and_kept_by_doctor(world):
    world.edit()
    for name in ("model.pt", "training_state.json"):
        world.place.storage.delete(name)
    whole(world, "D", world.acts.repair())
    whole(world, "R", world.acts.sync())
    whole(world, "R", world.acts.open())
    whole(world, "A", world.acts.carry())

    whole(world, "R", world.acts.open())

    assert '"edit": 1' in world.handles["R"][1].content.config
    assert world.handles["R"][1].edited == ()


@pytest.mark.parametrize("after", [False, True])
def test_a_step_that_is_overwritten_is_always_there(steps, after):
    steps.start("A", step(steps, 1, overwrite=True))
    until(steps, "A", "swap")
    steps.kill("A", after=after)

    whole(steps, "R", steps.acts.open())

    assert steps.handles["R"][1].content.config == ('{"n": 2}' if after else '{"n": 1}')


def test_of_two_who_overwrite_a_step_the_second_loses(steps):
    for actor in ("A", "B"):
        steps.start(actor, step(steps, 1, overwrite=True))
        until(steps, actor, "swap")

    steps.finish("A")
    steps.finish("B")

    assert steps.counts["save: ConflictError"] == 1


def test_retention_spares_a_step_that_was_replaced_before_it_looked(steps):
    whole(steps, "A", step(steps, 2))
    steps.start("B", step(steps, 3, keep=1))
    until(steps, "B", "list", "step-00000001")
    whole(steps, "A", step(steps, 1, overwrite=True))

    steps.finish("B")

    assert steps.counts["save: done"] == 4
    assert "step-00000001" in steps.ledger.now.states
