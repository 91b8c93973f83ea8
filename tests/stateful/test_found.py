"""G7: interleavings that broke a promise once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.stateful.world import World, new_world


@pytest.fixture
def world() -> Iterator[World]:
    with new_world("memory", "stateful-found") as world:
        world.start("first", world.acts.save(optimizer=False))
        world.finish("first")
        yield world


def until(world: World, actor: str, name: str, end: str = "") -> None:
    """Let an actor go on to just before an operation."""
    pending = world.live[actor][0].pending
    while pending.name != name or not pending.path.endswith(end):
        world.go(actor)
        pending = world.live[actor][0].pending


def test_a_writer_whose_commit_is_gone_before_it_looks_is_told_of_the_conflict(world):
    world.start("B", world.acts.save(optimizer=False))
    until(world, "B", "create", "2/manifest.json")
    world.go("B")
    world.start("A", world.acts.save(optimizer=False))
    world.finish("A")  # It supersedes what B has just committed, and removes it.

    world.finish("B")

    assert world.counts["save: ConflictError"] == 1
    assert world.ledger.now.newest.number == 3


def test_a_view_that_is_half_refreshed_is_not_adopted(world):
    world.start("A", world.acts.save(optimizer=False))
    until(world, "A", "copy", "model.pt")
    world.go("A")
    world.kill("A", after=False)

    world.start("D", world.acts.repair(adopt=True))
    world.finish("D")

    assert world.counts["adopt: ConflictError"] == 1
    assert world.ledger.now.newest.number == 2


@pytest.mark.parametrize("stop", [("list", ""), ("read", "config.json"), ("finish", "")])
def test_a_view_that_is_refreshed_while_it_is_adopted_is_not_committed(world, stop):
    world.start("A", world.acts.save(optimizer=False))
    until(world, "A", "create", "manifest.json")
    world.put()
    world.start("D", world.acts.repair(adopt=True))
    until(world, "D", *stop)
    world.go("D")

    world.finish("A")
    world.finish("D")

    assert world.counts["adopt: ConflictError"] == 1
    assert str(world.ledger.now.newest.content).startswith('({"n": 2}, step 2, model 2.0')


def test_what_a_late_refresh_left_is_not_adopted(world):
    held = world.place.files()["model.pt"]
    world.start("A", world.acts.save(optimizer=False))
    world.finish("A")
    world.place.put("model.pt", held)

    world.start("D", world.acts.repair(adopt=True))
    world.finish("D")

    assert world.counts["adopt: done"] == 1
    assert str(world.ledger.now.newest.content).startswith('({"n": 2}, step 2, model 2.0')


def test_doctor_that_sleeps_for_a_day_removes_nothing_that_was_committed_meanwhile(world):
    world.start("D", world.acts.repair())
    until(world, "D", "list", ".ckptstore")
    world.start("A", world.acts.save(optimizer=False))
    world.finish("A")
    world.sleep(25)

    world.finish("D")

    assert world.counts["doctor: done"] == 1


def test_doctor_that_sleeps_within_a_history_removes_no_step_that_was_committed_meanwhile():
    with new_world("memory", "stateful-found", history=True) as world:
        world.start("A", world.acts.save_step(1, again=None, overwrite=False, keep=None))
        world.finish("A")
        world.start("A", world.acts.save_step(2, again=None, overwrite=False, keep=None))
        until(world, "A", "create", "manifest.json")
        world.start("D", world.acts.repair())
        until(world, "D", "list", "step-00000002")
        world.go("D")
        world.finish("A")
        world.sleep(25)

        world.finish("D")

        assert world.counts["doctor: done"] == 1
