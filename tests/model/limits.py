"""What the rules do not prevent: each a scenario that breaks a promise, and what would help.

All of them need a request, or a whole process, that is held up while others go on. In a history
they also need a step that is removed and saved again, or removed while it is saved; of a single
checkpoint nothing is lost, and opening it again is right. `Rules.delete_if` shows which a delete
on condition would prevent.
"""

from __future__ import annotations

from . import history
from .program import Actor, Call
from .scenarios import AT_ONE, HISTORY, READER, SWEEPER, faults, one, saves, step, steps
from .search import Scenario
from .world import Setting, first_world

__all__ = ["HELPED", "LIMITS"]

TWO_STEPS = first_world(step(1, "I"), step(2, "J"))

LIMITS: dict[str, Scenario] = {
    "removed_twice": Scenario(
        "two remove step 1, it is saved again, and one of them goes on",
        HISTORY,
        (steps("A", (10, 2)), steps("B", (11, 2), (1, 0))),
        finds="s1 of B2 is committed, and its m is None",
    ),
    "rewound_twice": Scenario(
        "two go back at once, one saves that step again, the other goes on",
        TWO_STEPS,
        (
            Actor("A", (Call(history.rewind, (1,)), Call(history.save_step, ("A1", 2)))),
            Actor("B", (Call(history.rewind, (1,)), Call(history.save_step, ("B1", 2)))),
        ),
        finds="is committed, and its m is None",
    ),
    "meant_another": Scenario(
        "one has read the manifest of step 1, another overwrites it, the first deletes",
        HISTORY,
        (steps("A", (10, 2)), steps("B", (1, 0, True))),
        Setting(meant=True),
        finds="s1 of B1 was removed by one who meant another save of it",
    ),
    "late_delete": Scenario(
        "a repeated DELETE lands after step 1 was saved again",
        faults(HISTORY, repeats=1),
        (steps("A", (10, 2), (1, 0)),),
        finds="s1 of A2 is committed, and its m is None",
    ),
    "late_delete_manifest": Scenario(
        "a repeated DELETE of the manifest lands after step 1 was saved again",
        faults(HISTORY, repeats=1),
        (steps("A", (10, 2), (1, 0, False, False, "c")),),
        Setting(meant=True),
        finds="s1 of A2 was removed by one who meant another save of it",
    ),
    "swept_again": Scenario(
        "doctor has judged an old leftover, its writer wakes up, and another saves that step",
        HISTORY,
        (steps("A", (10, 0)), steps("B", (10, 0)), SWEEPER),
        Setting(ages=True),
        finds="s10 of B1 is committed, and its m is None",
    ),
    "late_create": Scenario(
        "a repeated create of a manifest lands after that step was removed",
        faults(HISTORY, repeats=1),
        (steps("A", (10, 0)), one("W", history.remove_steps, 10)),
        finds="s10 of A1 is committed, and its m is None",
    ),
    "late_create_reader": Scenario(
        "a repeated create lands after its writer came too late and withdrew, while a reader opens",
        faults(AT_ONE, repeats=1),
        (saves("A"), saves("B"), READER),
        finds="m.A1 of A1 is called damaged, and was not",
    ),
}

HELPED = tuple(name for name in LIMITS if not name.startswith("late_create"))
"""Which of them a delete on condition prevents."""
