"""What was measured while the model was trained, as curves over the steps."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ckptstore.report.axes import Scale, scale, tick_text
from ckptstore.report.markup import Html, joined, tag
from ckptstore.wording import number, plural

__all__ = ["Series", "charts", "series_of"]

_MOST_SERIES = 24
_MOST_TOGETHER = 5
_MOST_POINTS = 240
_DOTTED = 40
_SIDE = 1000
_NOT_DRAWN = frozenset({"step", "time", "epoch"})

Point = tuple[float, float | None]


@dataclass(frozen=True)
class Series:
    """A named curve.

    Attributes:
        name: of what was measured.
        points: step and value, ascending; None where there was no finite number.
    """

    name: str
    points: tuple[Point, ...]

    @property
    def values(self) -> list[Point]:
        """The points that have a value."""
        return [point for point in self.points if point[1] is not None]


def series_of(
    rows: Iterable[Mapping[str, Any]], steps: Mapping[int, Mapping[str, float]]
) -> list[Series]:
    """Return the curves of a run, in the order in which they appear; 24 at most.

    Args:
        rows: of metrics.jsonl; without ``step`` a row counts as one.
        steps: the metrics of a history's steps; those that the rows have too come from there.
    """
    found: dict[str, dict[float, float | None]] = {}
    for at, row in enumerate(rows, start=1):
        step = _finite(row.get("step", at))
        for name, value in row.items() if step is not None else ():
            if name not in _NOT_DRAWN and step is not None and _is_measured(value):
                found.setdefault(name, {})[step] = _finite(value)
    own = set(found)
    for of, metrics in steps.items():
        for name, value in metrics.items():
            if name not in own:
                found.setdefault(name, {})[float(of)] = _finite(value)
    named = (Series(name, tuple(sorted(points.items()))) for name, points in found.items())
    return [series for series in named if series.values][:_MOST_SERIES]


def charts(series: Sequence[Series]) -> Html:
    """Return a chart for each kind of thing that was measured: all losses share one."""
    still = [one for one in series if _is_still(one)]
    series = [one for one in series if one not in still]
    losses = [one for one in series if "loss" in one.name.lower()]
    groups = [losses[at : at + _MOST_TOGETHER] for at in range(0, len(losses), _MOST_TOGETHER)]
    groups += [[one] for one in series if one not in losses]
    figures = tag("div", *(_chart(group) for group in groups), class_="charts")
    told = ", ".join(f"{one.name} {number(one.values[0][1])}" for one in still)
    note = tag("p", f"The same all along: {told}.", class_="note") if told else None
    return tag("div", figures if groups else None, note)


def _is_still(one: Series) -> bool:
    return len(one.values) > 1 and len({value for _, value in one.values}) == 1


def _is_measured(value: object) -> bool:
    return value is None or (isinstance(value, (int, float)) and not isinstance(value, bool))


def _finite(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        found = float(value)
    except OverflowError:  # A whole number may have any number of digits.
        return None
    return found if math.isfinite(found) else None


def _chart(group: Sequence[Series]) -> Html:
    points = [point for one in group for point in one.values]
    steps = [step for step, _ in points]
    values = [value for _, value in points if value is not None]
    across = scale(min(steps), max(steps), whole=True)
    up = scale(min(values), max(values))
    plot = tag(
        "svg",
        _grid(across, up),
        *(_curve(one, hue, across, up) for hue, one in enumerate(group)),
        viewBox=f"0 0 {_SIDE} {_SIDE}",
        preserveAspectRatio="none",
        role="img",
        aria_label="; ".join(map(_in_words, group)),
    )
    return tag(
        "figure",
        tag("figcaption", *(_caption(one, hue) for hue, one in enumerate(group))),
        tag(
            "div",
            tag("div", plot, class_="plot"),
            *(_tick(up, value, "top") for value in up.ticks),
            *(_tick(across, value, "left") for value in across.ticks),
            class_="axes",
        ),
        class_="chart",
    )


def _caption(one: Series, hue: int) -> Html:
    best = min(one.values, key=lambda point: point[1] or 0.0)
    told = f"last {number(one.values[-1][1])}"
    if "loss" in one.name.lower() and len(one.values) > 1:
        told += f", least {number(best[1])} at step {tick_text(best[0])}"
    lost = len(one.points) - len(one.values)
    told += f", {lost:,} not finite" if lost else ""
    return tag("span", tag("i", class_=f"key m{hue}"), tag("b", one.name), tag("small", told))


def _in_words(one: Series) -> str:
    first, last = one.values[0], one.values[-1]
    return (
        f"{one.name}: {plural(len(one.values), 'value')}, {number(first[1])} at step "
        f"{tick_text(first[0])}, {number(last[1])} at step {tick_text(last[0])}"
    )


def _grid(across: Scale, up: Scale) -> Html:
    lines = [f"M0 {_down(up, value)}H{_SIDE}" for value in up.ticks]
    lines += [f"M{_right(across, value)} 0V{_SIDE}" for value in across.ticks]
    return tag("path", d=Html("".join(lines)), class_="grid")


def _curve(one: Series, hue: int, across: Scale, up: Scale) -> Html:
    shown = _thinned(one.points)
    parts, gap = [], True
    for step, value in shown:
        if value is not None:
            place = f"{_right(across, step)} {_down(up, value)}"
            parts.append(f"{'M' if gap else 'L'}{place}")
        gap = value is None
    few = len(shown) <= _DOTTED
    dots = [
        tag(
            "path",
            tag("title", f"step {tick_text(step)}: {one.name} {number(value)}"),
            d=f"M{_right(across, step)} {_down(up, value)}h.01",
            class_=f"dot s{hue}" if few else f"dot far s{hue}",
        )
        for step, value in shown
        if value is not None
    ]
    return joined([tag("path", d=Html("".join(parts)), class_=f"curve s{hue}"), *dots])


def _thinned(points: Sequence[Point]) -> list[Point]:
    """Return the points, or the least and the greatest of each few where there are very many."""
    if len(points) <= _MOST_POINTS:
        return list(points)
    each = -(-2 * len(points) // _MOST_POINTS)
    kept: list[Point] = []
    for at in range(0, len(points), each):
        few = points[at : at + each]
        known = [(value, step) for step, value in few if value is not None]
        ends = {min(known), max(known)} if known else set()
        kept += sorted((step, value) for value, step in ends)
        kept += [(few[-1][0], None)] if any(value is None for _, value in few) else []
    if points[-1] not in kept:
        kept.append(points[-1])
    return kept


def _tick(one: Scale, value: float, side: str) -> Html:
    share = one.at(value) if side == "left" else 1 - one.at(value)
    return tag("span", tick_text(value), class_=side, style=f"{side}:{share * 100:.2f}%")


def _right(across: Scale, step: float) -> str:
    return f"{across.at(step) * _SIDE:.1f}"


def _down(up: Scale, value: float) -> str:
    return f"{(1 - up.at(value)) * _SIDE:.1f}"
