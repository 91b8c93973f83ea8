"""The search itself: it leaves no order out, and its traces are short and true."""

from __future__ import annotations

import itertools

import pytest

from . import program, single
from .needed import NEEDED
from .program import Actor, Call
from .scenarios import AT_ONE, SCENARIOS, saves
from .search import Scenario, explore
from .world import Op, Setting

SMALL = ("overwrite", "rewind", "retention", "first_save")


@pytest.mark.parametrize("name", SMALL)
def test_what_is_done_alone_hides_nothing(name):
    result = explore(SCENARIOS[name], every_order=True)

    assert result.verdict == "HOLDS", result.trace
    assert result.states > explore(SCENARIOS[name]).states


@pytest.mark.parametrize("name", ["equal", "overwrite"])
def test_programs_that_stand_at_the_same_place_are_the_same(name, monkeypatch):
    merged = explore(SCENARIOS[name])
    numbers = itertools.count()
    monkeypatch.setattr(program, "_standing", lambda running: [next(numbers)])

    told_apart = explore(SCENARIOS[name])

    assert told_apart.states > merged.states, "each sequence of answers is a point of its own"
    assert told_apart.worlds == merged.worlds
    assert told_apart.verdict == merged.verdict == "HOLDS"


def test_all_interleavings_are_tried():
    def two_writes(setting, name):
        yield Op("replace", f"v/{name}1", name)
        yield Op("replace", f"v/{name}2", name)
        yield Op("end", "ok", alone=True)

    actors = tuple(Actor(name, (Call(two_writes, (name,)),)) for name in "xyz")

    result = explore(Scenario("three that write two files each", AT_ONE, actors))

    assert result.states == 3**3
    assert result.worlds == 3**3


def test_a_kill_is_tried_after_every_change():
    def two_writes(setting):
        yield Op("replace", "v/a", "x")
        yield Op("replace", "v/b", "x")
        yield Op("end", "ok", alone=True)

    world = AT_ONE._replace(crashes=1)
    result = explore(Scenario("one", world, (Actor("A", (Call(two_writes),), mortal=True),)))

    assert result.states == 4, "nothing, one, both, and killed after the first"


def test_a_trace_is_a_shortest_one_and_ends_in_what_it_found():
    result = explore(NEEDED["commit_first"])

    assert result.broken == "G2: nothing is committed where something was"
    assert result.trace[-1].endswith("delete g1/M -> None")
    assert len(result.trace) == 6


def test_a_search_that_ran_out_of_room_says_so():
    result = explore(Scenario("two", AT_ONE, (saves("A"), saves("B"))), most=1000)

    assert result.verdict == "CAPPED"
    assert result.broken is None


def test_a_late_request_may_land_at_every_moment():
    world = AT_ONE._replace(repeats=1)
    actors = (Actor("U", (Call(single.edit), Call(single.edit))),)

    result = explore(Scenario("a person", world, actors, Setting(puts=True)))

    # Nothing, once, twice: each without a late one, with one under way, and with one landed.
    assert result.states == 3 + 2 * 2
