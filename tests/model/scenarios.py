"""Who meets whom: scenarios in which everything has to hold, each with all rules together."""

from __future__ import annotations

from typing import Any, cast

from . import history, mending, reading, single
from .program import Actor, Call
from .search import Scenario
from .world import Manifest, Setting, World, first_world

__all__ = ["AT_ONE", "AT_TWO", "HISTORY", "SCENARIOS", "generation", "saves", "steps"]


def generation(number: int, wid: str, plain: str = "cm", earlier: str = "") -> Manifest:
    """Return the manifest of a generation, and of what its forerunners wrote."""
    paths = tuple((name, f"{name}.{wid}") for name in plain)
    before = frozenset((name, old) for old in earlier.split() for name in "cmo")
    return Manifest(wid, f"g{number}", paths, wid, before)


def step(number: int, wid: str, plain: str = "cm") -> Manifest:
    """Return the manifest of a step whose files have plain names."""
    return Manifest(wid, f"s{number}", tuple((name, name) for name in plain), wid)


def saves(name: str, count: int = 1, plain: str = "cm") -> Actor:
    """Return a writer that saves some times."""
    calls = tuple(Call(single.save, (f"{name}{n}", plain)) for n in range(1, count + 1))
    return Actor(name, calls, mortal=True)


def steps(name: str, *plans: tuple[object, ...]) -> Actor:
    """Return a writer of steps: of each the step, how many to keep, whether to overwrite."""
    calls = (Call(history.save_step, (f"{name}{n}", *plan)) for n, plan in enumerate(plans, 1))
    return Actor(name, tuple(calls), mortal=True)


def one(name: str, program: object, *args: object, mortal: bool = False) -> Actor:
    """Return an actor with one program."""
    return Actor(name, (Call(program, args),), mortal)  # type: ignore[arg-type]


def faults(world: World, **budget: int) -> World:
    """Return the world with some faults to come."""
    return world._replace(**cast(dict[str, Any], budget))


FIRST = generation(1, "I")
SECOND = generation(2, "J", earlier="I")
AT_ONE = first_world(FIRST, view=FIRST)
AT_TWO = first_world(SECOND, view=SECOND)
NOTHING = first_world()
OLD = frozenset({"X"})
BOTH = generation(1, "I", "cmo")
AT_BOTH = first_world(BOTH, view=BOTH)
HISTORY = first_world(step(1, "I"), step(9, "J"))
ONE_STEP = first_world(step(1, "I"))

LEFTOVER = first_world(step(1, "I"), step(9, "J"), files={"s10/c": "X", "s10/m": "X"}, old=OLD)
BESIDE = first_world(step(1, "I"), files={"s1/c.X": "X", "s1/m.X": "X"}, old=OLD)

PINNED = first_world(step(1, "I"), step(9, "J"), files={"s1/P": "P"})

READER = one("R", reading.reader)
STEP_READER = one("R", history.open_step)
GROWING_READER = one("R", history.open_step, True)
PINNER = one("P", history.pin, 1, "P1", mortal=True)
SECOND_PINNER = one("Q", history.pin, 1, "Q1", mortal=True)
EDITOR = one("U", single.edit)
DOCTOR = one("D", mending.doctor, mortal=True)
CLEANER = one("C", mending.cleaner, mortal=True)
SWEEPER = one("D", history.sweep)
ASLEEP = one("S", single.show_late, FIRST, mortal=True)

LOCAL = Setting(storage="local")
AGES = Setting(ages=True)
PINS = Setting(pins=True)

SCENARIOS: dict[str, Scenario] = {
    # -- the single checkpoint -----------------------------------------------------------
    "writers": Scenario(
        "2 writers, 2 saves each, 1 kill",
        faults(AT_ONE, crashes=1),
        (saves("A", 2), saves("B", 2)),
    ),
    "two_kills": Scenario(
        "2 writers, 1 and 2 saves, 2 kills", faults(AT_ONE, crashes=2), (saves("A"), saves("B", 2))
    ),
    "three_writers": Scenario("3 writers", AT_ONE, (saves("A"), saves("B"), saves("C"))),
    "first_save": Scenario(
        "2 writers where nothing is, 1 kill", faults(NOTHING, crashes=1), (saves("A"), saves("B"))
    ),
    "optimizer_goes": Scenario(
        "2 writers, one with and one without an optimizer, 1 kill",
        faults(AT_BOTH, crashes=1),
        (saves("A", 1, "cmo"), saves("B")),
    ),
    "reader": Scenario(
        "2 writers, 1 and 2 saves, a reader", AT_ONE, (saves("A"), saves("B", 2), READER)
    ),
    "reader_killed": Scenario(
        "2 writers, a reader, 1 kill",
        faults(AT_ONE, crashes=1),
        (saves("A"), saves("B"), READER),
    ),
    "two_readers": Scenario(
        "1 writer with 2 saves, 2 readers",
        AT_ONE,
        (saves("B", 2), READER, one("Q", reading.reader)),
    ),
    "edit": Scenario(
        "a person edits, 2 writers, one carries over, 1 kill",
        faults(AT_ONE, crashes=1),
        (one("A", single.carry, "A1", mortal=True), saves("B"), EDITOR),
    ),
    "edit_read": Scenario(
        "a person edits, 1 writer with 2 saves, a reader, 1 kill",
        faults(AT_ONE, crashes=1),
        (saves("B", 2), READER, EDITOR),
    ),
    "doctor": Scenario(
        "doctor, 2 writers, 1 kill",
        faults(AT_ONE, crashes=1),
        (saves("A"), saves("B"), DOCTOR),
    ),
    "doctor_edit": Scenario(
        "doctor, a person edits, 1 writer with 2 saves, 1 kill",
        faults(AT_ONE, crashes=1),
        (saves("B", 2), DOCTOR, EDITOR),
    ),
    "put": Scenario(
        "a person replaces model.pt, 2 writers, a reader",
        AT_ONE,
        (saves("A"), saves("B"), one("U", single.put)),
        Setting(puts=True),
    ),
    "cleaner": Scenario(
        "a cleaner, 2 writers, 1 kill",
        faults(AT_ONE, crashes=1),
        (saves("A"), saves("B"), CLEANER),
    ),
    "asleep": Scenario(
        "a writer that slept after its commit, another with 2 saves, a reader, 1 kill",
        faults(AT_TWO, crashes=1),
        (ASLEEP, saves("B", 2), READER),
    ),
    "lost": Scenario(
        "a lost reply, that may still land, 2 writers, 2 and 1 saves, 1 kill",
        faults(AT_ONE, lost=1, crashes=1),
        (saves("A", 2), saves("B")),
    ),
    "lost_reader": Scenario(
        "a lost reply, that may still land, 2 writers, a reader",
        faults(AT_ONE, lost=1),
        (saves("A"), saves("B"), READER),
    ),
    "repeated": Scenario(
        "a repeated request that lands late (deletes too), 2 writers with 2 and 1 saves",
        faults(AT_ONE, repeats=1),
        (saves("A", 2), saves("B")),
    ),
    "repeated_kill": Scenario(
        "the same, 1 kill", faults(AT_ONE, repeats=1, crashes=1), (saves("A"), saves("B"))
    ),
    "local_writers": Scenario(
        "local disk: 2 writers, 1 and 3 saves", AT_ONE, (saves("A"), saves("B", 3)), LOCAL
    ),
    "local_kill": Scenario(
        "local disk: 2 writers, 1 and 2 saves, 1 kill",
        faults(AT_ONE, crashes=1),
        (saves("A"), saves("B", 2)),
        LOCAL,
    ),
    "local_reader": Scenario(
        "local disk: 1 writer with 2 saves, a reader, 1 kill",
        faults(AT_ONE, crashes=1),
        (saves("B", 2), READER),
        LOCAL,
    ),
    "local_two_reader": Scenario(
        "local disk: 2 writers, a reader", AT_ONE, (saves("A"), saves("B"), READER), LOCAL
    ),
    # -- the history ---------------------------------------------------------------------
    "same_steps": Scenario(
        "2 writers of the same 2 steps, both keep 2, 1 kill",
        faults(HISTORY, crashes=1),
        (steps("A", (10, 2), (11, 2)), steps("B", (10, 2), (11, 2))),
    ),
    "step_reader": Scenario(
        "2 writers that keep 1, a reader, 1 kill",
        faults(HISTORY, crashes=1),
        (steps("A", (10, 1)), steps("B", (11, 1)), STEP_READER),
    ),
    "overwrite": Scenario(
        "2 writers overwrite the only step, a reader, 1 kill",
        faults(ONE_STEP, crashes=1),
        (steps("A", (1, 0, True)), steps("B", (1, 0, True)), STEP_READER),
        Setting(kept=("s1",)),
    ),
    "overwrite_twice": Scenario(
        "2 writers overwrite the only step, one twice, 1 kill",
        faults(ONE_STEP, crashes=1),
        (steps("A", (1, 0, True), (1, 0, True)), steps("B", (1, 0, True))),
        Setting(kept=("s1",)),
    ),
    "overwrite_lost": Scenario(
        "the same with a lost reply",
        faults(ONE_STEP, lost=1),
        (steps("A", (1, 0, True)), steps("B", (1, 0, True)), STEP_READER),
        Setting(kept=("s1",)),
    ),
    "equal": Scenario(
        "the same step again, equal and different, and overwritten, 1 kill",
        faults(ONE_STEP, crashes=1),
        (steps("A", (1, 0, False, True), (1, 0)), steps("B", (1, 0, True))),
        Setting(kept=("s1",)),
    ),
    "retention": Scenario(
        "retention of step 1 while it is overwritten, a reader, 1 kill",
        faults(HISTORY, crashes=1),
        (steps("A", (10, 2)), steps("B", (1, 0, True)), STEP_READER),
    ),
    "rewind": Scenario(
        "going back, while another saves, a reader, 1 kill",
        faults(first_world(step(1, "I"), step(2, "J"), step(3, "K")), crashes=1),
        (one("W", history.rewind, 1, mortal=True), steps("A", (4, 0)), STEP_READER),
    ),
    "rewind_resume": Scenario(
        "going back and on again, another overwrites, a reader, 1 kill",
        faults(first_world(step(1, "I"), step(2, "J")), crashes=1),
        (
            Actor("A", (Call(history.rewind, (1,)), Call(history.save_step, ("A1", 2))), True),
            steps("B", (1, 0, True)),
            STEP_READER,
        ),
    ),
    "asleep_step": Scenario(
        "doctor by age, a writer that sleeps, another, a reader, 1 kill",
        faults(HISTORY, crashes=1),
        (steps("A", (10, 0)), steps("B", (11, 2)), SWEEPER, STEP_READER),
        AGES,
    ),
    "leftover": Scenario(
        "doctor by age, a leftover of step 10, two save step 10, 1 kill",
        faults(LEFTOVER, crashes=1),
        (steps("A", (10, 0)), steps("B", (10, 0)), SWEEPER),
    ),
    "overwrite_leftover": Scenario(
        "doctor by age, leftovers beside step 1, two overwrite it, 1 kill",
        faults(BESIDE, crashes=1),
        (steps("A", (1, 0, True)), steps("B", (1, 0, True)), SWEEPER),
        Setting(kept=("s1",)),
    ),
    "step_lost": Scenario(
        "a lost reply, that may still land, 2 writers of one step, a reader",
        faults(HISTORY, lost=1),
        (steps("A", (10, 2)), steps("B", (10, 2)), STEP_READER),
    ),
    "step_repeated": Scenario(
        "a repeated request that lands late, 2 writers that keep 2, 1 kill",
        faults(HISTORY, repeats=1, crashes=1),
        (steps("A", (10, 2)), steps("B", (11, 2))),
    ),
    "pin": Scenario(
        "2 pin step 1 while retention removes it, 1 kill",
        faults(HISTORY, crashes=1),
        (steps("A", (10, 2)), PINNER, SECOND_PINNER),
        PINS,
    ),
    "pin_two": Scenario(
        "one pins step 1 while the retention of 2 writers removes it, 1 kill",
        faults(HISTORY, crashes=1),
        (steps("A", (10, 2)), steps("B", (11, 2)), PINNER),
        PINS,
    ),
    "pin_again": Scenario(
        "2 pin step 1 while it is removed and saved again, a reader, 1 kill",
        faults(HISTORY, crashes=1),
        (steps("A", (10, 2), (1, 0)), PINNER, SECOND_PINNER),
        PINS,
    ),
    "pin_rewind": Scenario(
        "one pins a step that another goes back before, a reader, 1 kill",
        faults(first_world(step(1, "I"), step(2, "J"), step(3, "K")), crashes=1),
        (
            one("W", history.rewind, 1, mortal=True),
            one("P", history.pin, 2, "P1", mortal=True),
            STEP_READER,
        ),
        PINS,
    ),
    "pin_local": Scenario(
        "local disk: one pins step 1 while retention removes it, and saves it again",
        HISTORY,
        (steps("A", (10, 2), (1, 0)), PINNER),
        Setting(storage="local", pins=True),
    ),
    "pinned_reader": Scenario(
        "2 writers that keep 1, below it what is pinned, a reader, 1 kill",
        faults(PINNED, crashes=1),
        (steps("A", (10, 1)), steps("B", (11, 1)), GROWING_READER),
    ),
    "local_pinned_reader": Scenario(
        "local disk: a writer that keeps 1, below it what is pinned, a reader",
        PINNED,
        (steps("A", (10, 1), (11, 1)), GROWING_READER),
        LOCAL,
    ),
    "local_steps": Scenario(
        "local disk: 2 writers that keep 1, a reader",
        HISTORY,
        (steps("A", (10, 1)), steps("B", (11, 1)), STEP_READER),
        LOCAL,
    ),
}
