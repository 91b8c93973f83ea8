"""What was measured, and the tables that are made of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from benchmarks.measuring import Spread, ratios
from benchmarks.speed.rows import MIB, Row, Variant, Wanted

__all__ = ["Found", "as_json", "summary", "tables"]


@dataclass
class Found:
    """What came of a row.

    Attributes:
        row: which.
        nbytes: of the tensors, about.
        samples: by variant, by the number of the round: what was measured.
        left_out: why a variant did not run, by its name.
        failed: how a variant failed, by its name.
        reason: why the whole row did not run.
    """

    row: Row
    nbytes: int
    samples: dict[str, dict[int, dict[str, float]]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    reason: str | None = None

    @property
    def sound(self) -> bool:
        """Whether nothing failed; what was left out did not."""
        return not self.failed

    def figures(self, variant: str, name: str) -> dict[int, float]:
        """Return one figure of a variant, by round; times of which there are none are left out."""
        rounds = self.samples.get(variant, {})
        return {number: sample[name] for number, sample in rounds.items() if name in sample}

    def measured(self, variant: str, wanted: Wanted) -> Spread | None:
        """Return what a bound is held against; None where it was not measured."""
        seconds = self.figures(variant, "seconds")
        base = self.figures(wanted.against or self.row.limit or "", "seconds")
        if wanted.figure == "time":
            return ratios(seconds, base)
        if wanted.figure == "speed":
            return ratios(base, seconds)
        if wanted.figure == "peak":
            values = [peak / self.nbytes for peak in self.figures(variant, "peak").values()]
        elif wanted.figure == "peak_mib":
            values = [peak / MIB for peak in self.figures(variant, "peak").values()]
        else:
            values = [*self.figures(variant, wanted.figure).values()]
        return Spread.of(values) if values else None

    def as_json(self) -> dict[str, Any]:
        """Return all of it."""
        return {
            "row": self.row.name,
            "title": self.row.title,
            "bytes": self.nbytes,
            "limit": self.row.limit,
            "samples": self.samples,
            "left_out": self.left_out,
            "failed": self.failed,
            "reason": self.reason,
        }


def tables(found: Found) -> str:
    """Return a row's tables, in Markdown."""
    row = found.row
    lines = [f"### {row.name}: {row.title}", ""]
    if found.reason:
        return "\n".join([*lines, f"Left out, since {found.reason}.", ""])
    rounds = max((len(samples) for samples in found.samples.values()), default=0)
    lines += [f"{found.nbytes / MIB:.0f} MiB, rounds: {rounds}.", ""]
    measured = [variant for variant in row.variants if found.samples.get(variant.name)]
    if measured:
        lines += _times(found, measured) + _against_peers(found, measured)
    lines += [f"- FAILED: {name}: {reason}" for name, reason in found.failed.items()]
    # Many may be left out for one reason.
    for reason in dict.fromkeys(found.left_out.values()):
        names = [v.name for v in row.variants if found.left_out.get(v.name) == reason]
        lines.append(f"- left out, since {reason}: {'; '.join(names)}")
    return "\n".join([*lines, ""])


def summary(everything: Iterable[Found]) -> str:
    """Return the table of what was wanted, and whether it is met, in Markdown."""
    lines = _head("work", "variant", "figure", "wanted", "measured", "lowest to highest", "met")
    for found in everything:
        for variant in found.row.variants:
            lines += [_held(found, variant, wanted) for wanted in variant.wanted]
    return "\n".join([*lines, ""])


def met(wanted: Wanted, measured: Spread) -> bool:
    """Whether the median is within a bound."""
    if wanted.figure == "speed":
        return measured.median >= wanted.bound
    return measured.median <= wanted.bound


def _held(found: Found, variant: Variant, wanted: Wanted) -> str:
    against = wanted.against or found.row.limit
    figure = f"{wanted.figure} / {against}" if wanted.figure in ("time", "speed") else wanted.figure
    figure = {"peak": "peak / tensors", "peak_mib": "peak, MiB", "kib": "KiB"}.get(figure, figure)
    sign = ">=" if wanted.figure == "speed" else "<="
    told = (found.row.name, variant.name, figure, f"{sign} {wanted.bound:g}")
    measured = found.measured(variant.name, wanted)
    if measured is None:
        return _line(*told, "-", "-", "not measured")
    result = "yes" if met(wanted, measured) else "**no**"
    return _line(*told, f"{measured.median:.2f}", _range(measured), result)


def _times(found: Found, measured: Iterable[Variant]) -> list[str]:
    limit = found.row.limit
    extra = _extra_figures(found)
    heading = f"times {limit}" if limit else "-"
    names = ("variant", "seconds", "lowest to highest", heading, "lowest to highest")
    lines = _head(*names, "GB/s", "CPU s", "peak MiB", *extra)
    for variant in measured:
        seconds = Spread.of(found.figures(variant.name, "seconds").values())
        ratio = found.measured(variant.name, Wanted("time", 0)) if limit else None
        name = f"**{variant.name}**" if variant.ours else variant.name
        cells = [name, f"{seconds.median:.3f}", _range(seconds, 3)]
        cells += [f"{ratio.median:.2f}", _range(ratio)] if ratio else ["-", "-"]
        cells.append(f"{found.nbytes / seconds.median / 1e9:.2f}" if seconds.median else "-")
        cpu, peak = (Spread.of(found.figures(variant.name, f).values()) for f in ("cpu", "peak"))
        cells += [f"{cpu.median:.2f}", f"{peak.median / MIB:.0f}"]
        for figure in extra:
            values = found.figures(variant.name, figure).values()
            cells.append(f"{Spread.of(values).median:g}" if values else "-")
        lines.append(_line(*cells))
    return [*lines, ""]


def _extra_figures(found: Found) -> list[str]:
    names: dict[str, None] = {}
    for rounds in found.samples.values():
        for sample in rounds.values():
            names |= dict.fromkeys(sample)
    return [name for name in names if name not in ("seconds", "cpu", "peak")]


def _against_peers(found: Found, measured: Iterable[Variant]) -> list[str]:
    variants = [*measured]
    ours = [variant for variant in variants if variant.ours]
    peers = [v for v in variants if not v.ours and v.name != found.row.limit]
    if not (ours and peers):
        return []
    lines = _head("time divided by that of", *(variant.name for variant in ours))
    for peer in peers:
        base = found.figures(peer.name, "seconds")
        cells = []
        for variant in ours:
            ratio = ratios(found.figures(variant.name, "seconds"), base)
            cells.append(f"{ratio.median:.2f} ({_range(ratio)})" if ratio else "-")
        lines.append(_line(peer.name, *cells))
    return [*lines, ""]


def _head(*names: str) -> list[str]:
    return [_line(*names), "|---" * len(names) + "|"]


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _range(spread: Spread, digits: int = 2) -> str:
    return f"{spread.low:.{digits}f} to {spread.high:.{digits}f}"


def as_json(everything: Iterable[Found], versions: Mapping[str, str]) -> dict[str, Any]:
    """Return what is written for programs."""
    return {"versions": dict(versions), "rows": [found.as_json() for found in everything]}
