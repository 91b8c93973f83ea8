"""What was measured, and the table that is made of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from benchmarks.measuring import Spread, ratios
from benchmarks.sync.running import Sample

__all__ = ["Found", "table"]

_MIB = 2**20
_COLUMNS = (
    "copy",
    "tool",
    "seconds",
    "sent MiB",
    "received MiB",
    "of the files",
    "peak MiB",
    "own MiB",
    "time",
    "bytes",
    "memory",
    "own",
)


@dataclass
class Found:
    """What came of one direction.

    Attributes:
        server: ``moto`` or ``rclone``.
        up: whether it is from the disk into the bucket, or back.
        ours: the name of the tool that the others are compared with.
        nbytes: of the files that are copied.
        signed: whether payloads are signed by who does so over plain HTTP.
        samples: by row, by tool, by the number of its run.
        killed: what a tool had done when it was killed, by its name.
        left_out: why a tool did not run, by its name.
        failed: how a tool failed, by its name.
        reason: why the whole direction was not measured.
    """

    server: str
    up: bool
    ours: str
    nbytes: int
    signed: bool = False
    samples: dict[str, dict[str, list[Sample]]] = field(default_factory=dict)
    killed: dict[str, list[Sample]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    reason: str | None = None

    @property
    def title(self) -> str:
        """The direction, for people."""
        ends = ("local disk", f"S3 ({self.server})")
        return " to ".join(ends if self.up else reversed(ends))

    @property
    def sound(self) -> bool:
        """Whether nothing failed, and ours left nothing wrong; how peers leave it is told."""
        return not self.failed and not any(
            sample.wrong for row in self.samples.values() for sample in row.get(self.ours, ())
        )

    @property
    def over(self) -> bool:
        """Whether nothing is left to compare, so that no further round is wanted."""
        return bool(self.reason) or self.ours in self.failed

    def add(self, row: str, tool: str, sample: Sample) -> None:
        """Take what was measured."""
        self.samples.setdefault(row, {}).setdefault(tool, []).append(sample)

    def as_json(self) -> dict[str, Any]:
        """Return all of it."""
        return {
            "server": self.server,
            "direction": "up" if self.up else "down",
            "bytes": self.nbytes,
            "signed": self.signed,
            "killed": {t: [one.as_json() for one in runs] for t, runs in self.killed.items()},
            "left_out": self.left_out,
            "failed": self.failed,
            "reason": self.reason,
            "samples": {
                row: {tool: [sample.as_json() for sample in runs] for tool, runs in tools.items()}
                for row, tools in self.samples.items()
            },
        }


def table(found: Found) -> str:
    """Return the table of a direction, in Markdown."""
    if found.reason:
        return f"### {found.title}\n\nLeft out, since {found.reason}.\n"
    rounds = max((len(runs) for row in found.samples.values() for runs in row.values()), default=0)
    lines = [f"### {found.title}", "", f"{found.nbytes / _MIB:.0f} MiB, rounds: {rounds}.", ""]
    lines += [_line(*_COLUMNS), "|---" * len(_COLUMNS) + "|"]
    notes = []
    for row, tools in found.samples.items():
        for tool in sorted(tools, key=lambda name: (name != found.ours, name)):
            lines.append(_figures(row, tool, tools, found))
            wrong = {sample.wrong: None for sample in tools[tool] if sample.wrong}
            notes += [f"- WRONG: {tool}, {row}: {how} at the destination" for how in wrong]
    notes += [_killed(tool, runs) for tool, runs in found.killed.items()]
    notes += [f"- FAILED: {name}: {reason}" for name, reason in found.failed.items()]
    notes += [f"- left out, since {reason}: {name}" for name, reason in found.left_out.items()]
    return "\n".join([*lines, "", *notes, ""])


def _killed(tool: str, runs: list[Sample]) -> str:
    missed = sum(not sample.killed for sample in runs)
    why = f"; in {missed} of {len(runs)} rounds it ended before" if missed else ""
    return f"- {tool} was killed after {_median(runs, _moved):.1f} MiB in both directions{why}"


def _figures(row: str, tool: str, tools: Mapping[str, list[Sample]], found: Found) -> str:
    runs = tools[tool]
    figures = (
        _spread(Spread.of(sample.seconds for sample in runs), "{:.2f}"),
        *(f"{_median(runs, which):.2f}" for which in (_sent, _received)),
        f"{_median(runs, _moved) * _MIB / found.nbytes:.1%}",
        *(f"{_median(runs, which):.0f}" if runs[0].peak else "-" for which in (_peak, _own)),
    )
    if tool == found.ours:
        return _line(row, f"**{tool}**", *figures, "", "", "", "")
    if any(sample.wrong for sample in runs):
        return _line(row, tool, *figures, *["wrong"] * 4)
    ours = tools.get(found.ours, [])
    compared = (_ratio(ours, runs, which) for which in (_seconds, _moved, _peak, _own))
    return _line(row, tool, *figures, *compared)


def _ratio(ours: list[Sample], theirs: list[Sample], which: Callable[[Sample], float]) -> str:
    own, base = (dict(enumerate(map(which, runs))) for runs in (ours, theirs))
    found = ratios(own, base)
    return "-" if found is None else _spread(found, "{:.2f}")


def _spread(found: Spread, form: str) -> str:
    low, high = form.format(found.low), form.format(found.high)
    median = form.format(found.median)
    return median if low == high else f"{median} ({low} to {high})"


def _median(runs: list[Sample], which: Callable[[Sample], float]) -> float:
    return Spread.of(map(which, runs)).median


def _seconds(sample: Sample) -> float:
    return sample.seconds


def _sent(sample: Sample) -> float:
    return sample.sent / _MIB


def _received(sample: Sample) -> float:
    return sample.received / _MIB


def _moved(sample: Sample) -> float:
    return sample.moved / _MIB


def _peak(sample: Sample) -> float:
    return sample.peak / _MIB


def _own(sample: Sample) -> float:
    return sample.own / _MIB


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"
