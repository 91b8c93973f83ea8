"""What was acknowledged, what that promises, and where the storage did not keep it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from benchmarks.faults.places import Place

__all__ = ["ZERO", "Ledger", "Tally", "table"]

ZERO = (
    "mixtures",
    "losses",
    "false edits",
    "false words",
    "not opened",
    "two winners",
    "losers not told",
    "live files cleaned",
    "leftovers that stay",
    "views that stay behind",
)
"""What has to be zero everywhere."""

_ROWS = (
    "saves",
    "saves refused",
    "kills",
    "connections cut",
    "stops",
    "servers restarted",
    "cleanings",
    "races",
    "reads in races",
    "reads superseded",
    "saves overwritten by a rival",
    "steps damaged by a rival and found out",
    "views behind",
    "views refreshed",
    "leftovers found",
    "leftovers cleaned",
    "uploads left alone",
    *ZERO,
)


class Tally:
    """Counts of one storage, and what to know of each that should be zero."""

    def __init__(self) -> None:
        self.counts = dict.fromkeys(_ROWS, 0)
        self.found: list[str] = []

    def add(self, row: str, count: int = 1) -> None:
        """Count something."""
        self.counts[row] += count

    def wrong(self, row: str, what: str) -> None:
        """Count something that must not be."""
        assert row in ZERO
        self.counts[row] += 1
        self.found.append(f"{row}: {what}")

    @property
    def sound(self) -> bool:
        """Whether everything is zero that has to be."""
        return not any(self.counts[row] for row in ZERO)


@dataclass
class Ledger:
    """Of one location, all that writers said and that readers proved.

    Attributes:
        place: where.
        tally: where to count.
        conditions: whether several writers are kept apart there.
        step: of the newest state that was seen.
        value: the highest one given to a save.
    """

    place: Place
    tally: Tally
    conditions: bool
    step: int = 0
    value: int = 0
    behind: bool = False
    _newest: tuple[int, int] | None = None
    _acknowledged: dict[int, int] = field(default_factory=dict)
    _winners: dict[int, set[int]] = field(default_factory=dict)
    _refused: set[int] = field(default_factory=set)
    _begun: set[int] = field(default_factory=set)

    def heard(self, messages: list[dict[str, Any]], *, expect: bool = True) -> None:
        """Take down what a writer said.

        Args:
            messages: of the child.
            expect: whether each of its saves had to succeed.
        """
        for message in messages:
            if "begun" in message:
                self._begun.add(message["begun"])
                self.value = max(self.value, message["begun"])
            elif "saved" in message:
                self._saved(message)
            elif "failed" in message:
                self._failed(message, expect=expect)
            elif "crashed" in message:
                self.tally.wrong("not opened", f"a writer: {message['crashed']}")

    def check_told(self, messages: list[dict[str, Any]]) -> None:
        """Hold writers that were in each other's way to this: who lost knows it by the error.

        Without conditions a rival may take files away under a writer's hands; it says so too.
        """
        for message in messages:
            told = message.get("error") in ("ConflictError", "AlreadyThereError", None)
            if not told and self.conditions:
                self.tally.wrong("losers not told", str(message))

    def proved(self, message: Mapping[str, Any] | None, after: str) -> None:
        """Hold what a fresh process found against what was acknowledged."""
        what = f"{self.place.url} after {after}: {message}"
        if message is None or "crashed" in message:
            self._broken(what)
            return
        if "nothing" in message:
            if self._newest is not None:
                self.tally.wrong("losses", what)
            return
        value = message["value"]
        if message["edited"]:
            self.tally.wrong("false edits", what)
        if value not in self._begun:
            self.tally.wrong("mixtures", what)
        if value in self._refused:
            self.tally.wrong("false words", what)
        if self.place.history:
            self._check_steps(dict(message["states"]), what)
        elif self._newest is not None:
            generation, acknowledged = self._newest
            same = message["generation"] == generation
            if message["generation"] < generation or (same and value != acknowledged):
                self.tally.wrong("losses", f"{what}, acknowledged {self._newest}")
        self.step = max(self.step, message["step"])
        self._look_at_view(message["view"])

    @property
    def overwritten(self) -> int:
        """How many acknowledged saves another acknowledged one has taken the place of."""
        return sum(len(values) - 1 for values in self._winners.values())

    def _saved(self, message: Mapping[str, Any]) -> None:
        self.tally.add("saves")
        value, number = message["saved"], message["generation"] or message["step"]
        other = self._acknowledged.get(number)
        if other is not None and other != value and self.conditions:
            self.tally.wrong("two winners", f"{self.place.url}: {number} for {other} and {value}")
        self._acknowledged[number] = value
        self._winners.setdefault(number, set()).add(value)
        if self._newest is None or number >= self._newest[0]:
            self._newest = number, value

    def _failed(self, message: Mapping[str, Any], *, expect: bool) -> None:
        self.tally.add("saves refused")
        if message["committed"] is False:
            self._refused.add(message["failed"])
        if expect:
            self.tally.wrong("not opened", f"a save that nothing stood against: {message}")

    def _check_steps(self, states: dict[int, int], what: str) -> None:
        """The newest steps that were acknowledged are there, unless as many newer ones are."""
        kept = self.place.kept or len(self._acknowledged)
        for step, value in sorted(self._acknowledged.items())[-kept:]:
            newer = sum(known > step for known in states)
            if states.get(step, value if newer >= kept else None) != value:
                self.tally.wrong("losses", f"{what}, acknowledged {step}: {value}")

    def _look_at_view(self, view: str) -> None:
        if view == "behind":
            self.tally.add("views behind", not self.behind)
        elif self.behind and view == "current":
            self.tally.add("views refreshed")
        self.behind = view == "behind"

    def _broken(self, what: str) -> None:
        if "replaced by hand" in what:
            row = "false edits"
        elif "CorruptionError" in what or "mixture" in what or "AssertionError" in what:
            row = "mixtures"
        else:
            row = "not opened"
        self.tally.wrong(row, what)


def table(tallies: Mapping[str, Tally]) -> str:
    """Return a Markdown table, a column per storage."""
    lines = [f"| | {' | '.join(tallies)} |", f"|---|{'---:|' * len(tallies)}"]
    for row in _ROWS:
        cells = [f"{tally.counts[row]:,}" for tally in tallies.values()]
        name = f"**{row}**" if row in ZERO else row
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)
