"""Each rule switched off, in a scenario that then breaks a promise: why the rule is there."""

from __future__ import annotations

from dataclasses import replace

from . import single
from .rules import without
from .scenarios import (
    AT_ONE,
    CLEANER,
    FIRST,
    GROWING_READER,
    HISTORY,
    LEFTOVER,
    ONE_STEP,
    PINNED,
    PINNER,
    PINS,
    READER,
    SECOND,
    STEP_READER,
    SWEEPER,
    faults,
    generation,
    one,
    saves,
    steps,
)
from .search import Scenario
from .world import Setting, first_world

__all__ = ["NEEDED"]

_TWO = Scenario("2 writers", AT_ONE, (saves("A"), saves("B")))
_KILLED = Scenario("2 writers, 1 kill", faults(AT_ONE, crashes=1), (saves("A"), saves("B")))
_STALE = Scenario("2 writers, 1 and 2 saves", AT_ONE, (saves("A"), saves("B", 2)))
_READ = Scenario("a writer with 2 saves, a reader", AT_ONE, (saves("B", 2), READER))
_LOST = Scenario("2 writers, a lost reply", faults(AT_ONE, lost=1), (saves("A"), saves("B")))
_LATE = generation(2, "A1", earlier="I")
_SLEPT = Scenario(
    "a writer that slept before its commit, another, a reader",
    first_world(SECOND, view=SECOND, files={"g2/c.A1": "A1", "g2/m.A1": "A1"}),
    (one("A", single.commit_late, _LATE), saves("B"), READER),
)
_SHOWN_LATE = Scenario(
    "a writer that slept before its refresh, a reader",
    first_world(FIRST, SECOND, view=SECOND),
    (one("A", single.show_late, FIRST), READER),
    Setting(same_size=False),
)
_KEPT = Setting(kept=("s1",))
_AGES = Setting(ages=True)

_PINNED = Scenario("retention, one pins", HISTORY, (steps("A", (10, 2)), PINNER), PINS)

_CASES: dict[str, tuple[Scenario, str]] = {
    "create_only": (_TWO, "generation 2 was returned to A1, and is B1's"),
    "late_withdraws": (_STALE, "generation 2 is returned to two writers"),
    "read_back": (_LOST, "g2 of A1 is committed, and its m.A1 is None"),
    "unknown_keeps": (_LOST, "g2 of A1 is committed, and its m.A1 is None"),
    "look_again": (_TWO, "all is at rest, and the newest is g3 of B1, the view A1's"),
    "commit_first": (_TWO, "nothing is committed where something was"),
    "manifest_first": (
        Scenario("retention, a reader", HISTORY, (steps("A", (10, 2)), STEP_READER)),
        "s1 of I is committed, and its m is None",
    ),
    "below_newest": (
        Scenario("a writer, a cleaner", AT_ONE, (saves("A"), CLEANER)),
        "g2 of A1 is committed, and its m.A1 is None",
    ),
    "give_up": (
        Scenario("a writer that sleeps, doctor", HISTORY, (steps("A", (10, 0)), SWEEPER), _AGES),
        "s10 of A1 is committed, and its m is None",
    ),
    "only_old": (
        Scenario("an old leftover, a writer, doctor", LEFTOVER, (steps("A", (10, 0)), SWEEPER)),
        "s10 of A1 is committed, and its m.A1 is None",
    ),
    "swap": (
        Scenario("step 1 is overwritten", ONE_STEP, (steps("A", (1, 0, True)),), _KEPT),
        "nothing is committed where something was",
    ),
    "rescan": (_READ, "a reader finds nothing where something was"),
    "recheck": (_READ, "m.I of I is called damaged, and was not"),
    "view_ahead": (_SLEPT, "m.A1 of A1 is called damaged, and was not"),
    "relist": (_READ, "R takes ('m',) in the view for a person's, and nobody wrote it"),
    "own_digest": (_SHOWN_LATE, "R takes ('m',) in the view for a person's, and nobody wrote it"),
    "doctor_compares": (_KILLED, "doctor has nothing to do, and the newest is g3 of B1"),
    "top_again": (
        Scenario("a writer that keeps 1, a reader", PINNED, (steps("A", (10, 1)), GROWING_READER)),
        "opens step 1, 9 was returned",
    ),
    "word_first": (_PINNED, "step 1 is gone, and was pinned"),
    "pin_looks": (_PINNED, "step 1 is gone, and was pinned"),
    "forerunners": (_KILLED, "doctor has nothing to do, and the newest is g3 of B1"),
}


def _off(name: str, scenario: Scenario, finds: str) -> Scenario:
    storage = "local" if name == "rescan" else scenario.setting.storage
    setting = scenario.setting._replace(rules=without(name), storage=storage)
    return replace(scenario, setting=setting, finds=finds)


NEEDED = {name: _off(name, *case) for name, case in _CASES.items()}
