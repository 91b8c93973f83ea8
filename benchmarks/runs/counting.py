"""What happened to the runs of one scenario, and what must never happen to any."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

__all__ = ["ZERO", "Counts", "table"]

ZERO = (
    "mixtures",
    "losses",
    "newest removed",
    "best removed",
    "not opened",
    "not exact",
    "not ended",
)
"""What has to be zero in every scenario."""


class Counts:
    """Counts of one scenario, and what to know of each that should be zero.

    Args:
        name: of the scenario.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.rows: Counter[str] = Counter()
        self.found: list[str] = []

    def add(self, row: str, count: int = 1) -> None:
        """Count something that may happen."""
        assert row not in ZERO
        self.rows[row] += count

    def wrong(self, row: str, what: str) -> None:
        """Count something that must not be.

        Args:
            row: one of `ZERO`.
            what: everything that is needed to understand it.
        """
        assert row in ZERO
        self.rows[row] += 1
        self.found.append(f"{self.name}: {row}: {what}")

    @property
    def sound(self) -> bool:
        """Whether everything is zero that has to be."""
        return not any(self.rows[row] for row in ZERO)


def table(scenarios: Iterable[Counts]) -> str:
    """Return the counts as a table in Markdown, what has to be zero in bold."""
    columns = list(scenarios)
    names = dict.fromkeys(row for counts in columns for row in counts.rows if row not in ZERO)
    lines = ["| | " + " | ".join(counts.name for counts in columns) + " |"]
    lines.append("|---|" + "--:|" * len(columns))
    lines += [_line(row, [_cell(counts, row) for counts in columns]) for row in names]
    lines += [
        _line(f"**{row}**", [f"**{counts.rows[row]:,}**" for counts in columns]) for row in ZERO
    ]
    return "\n".join(lines)


def _cell(counts: Counts, row: str) -> str:
    return f"{counts.rows[row]:,}" if row in counts.rows else ""


def _line(name: str, cells: Iterable[str]) -> str:
    return f"| {name} | " + " | ".join(cells) + " |"
