"""How far the weights are from another checkpoint's: layers down, matrices across."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ckptstore.differences import ABSENT, Change, Difference, TensorChange
from ckptstore.manifest import TensorInfo
from ckptstore.report.facts import brief
from ckptstore.report.markup import Html, tag
from ckptstore.statistics import Statistics
from ckptstore.wording import plural, shape_text

__all__ = ["Cell", "Grid", "grid_of", "heatmap", "places"]

_MOST_ROWS, _MOST_COLUMNS, _MOST_OTHERS = 160, 48, 40
_MOST_LISTED = 60
_KINDS = ("added", "removed", "reshaped", "changed")


@dataclass
class Cell:
    """The tensors of one layer and one kind, taken together.

    Attributes:
        names: of them.
        change: the sum of the squares of what changed.
        length: that of the old values.
        unknown: how many there are that nothing is known of, or that were 0.
    """

    names: list[str] = field(default_factory=list)
    change: float = 0.0
    length: float = 0.0
    unknown: int = 0

    @property
    def relative(self) -> float | None:
        """The length of the change over that of the old values; None where it is not known."""
        if self.unknown:
            return None
        if not self.change:
            return 0.0
        return math.sqrt(self.change / self.length) if self.length else None


@dataclass
class Grid:
    """Cells by layer and matrix, and those that are in no numbered layer by name."""

    cells: dict[str, dict[str, Cell]] = field(default_factory=dict)
    others: dict[str, Cell] = field(default_factory=dict)

    @property
    def columns(self) -> list[str]:
        """The kinds of matrices, in the order in which they appear."""
        return list(dict.fromkeys(column for row in self.cells.values() for column in row))

    @property
    def highest(self) -> float:
        """The greatest relative distance; 0 where nothing differs."""
        cells = [*self.others.values(), *(c for row in self.cells.values() for c in row.values())]
        return max((cell.relative or 0.0 for cell in cells), default=0.0)

    def at(self, name: str, place: tuple[str, str] | None) -> Cell:
        """Return the cell of a tensor, whose layer and matrix are known, or that has none."""
        if place is None:
            return self.others.setdefault(name, Cell())
        return self.cells.setdefault(place[0], {}).setdefault(place[1], Cell())


def places(tensors: Mapping[str, TensorInfo]) -> dict[str, tuple[str, str] | None]:
    """Return layer and matrix of each tensor; None for those in no numbered layer.

    Tensors of one layer whose names differ in further numbers alone, such as those of attention
    heads, are one matrix where they have one shape.
    """
    parted = {name: _parted(name) for name in tensors}
    shapes: dict[tuple[str, str], set[tuple[int, ...]]] = {}
    for name, place in parted.items():
        if place is not None:
            shapes.setdefault((place[0], _starred(place[1])), set()).add(tensors[name].shape)
    alike = {place[1] for place, found in shapes.items() if len(found) == 1}
    alike -= {place[1] for place, found in shapes.items() if len(found) > 1}
    return {
        name: place and (place[0], star if (star := _starred(place[1])) in alike else place[1])
        for name, place in parted.items()
    }


def _parted(name: str) -> tuple[str, str] | None:
    parts = name.split(".")
    for at, part in enumerate(parts[:-1]):
        if part.isdecimal() and at:
            return ".".join(parts[: at + 1]), ".".join(parts[at + 1 :])
    return None


def _starred(name: str) -> str:
    return ".".join("*" if part.isdecimal() else part for part in name.split("."))


def grid_of(
    difference: Difference,
    tensors: Mapping[str, TensorInfo],
    statistics: Mapping[str, Statistics],
) -> Grid:
    """Return the distances of the tensors that both checkpoints have in the same shape.

    Args:
        difference: with distances.
        tensors: of the newer one.
        statistics: of its tensors, for the lengths of those that are the same.
    """
    changed = {change.name: change for change in difference.tensors.get("model", ())}
    unsure = {*difference.unsure.get("model", ())}
    grid, where = Grid(), places(tensors)
    for name, info in tensors.items():
        change = changed.get(name)
        if change is not None and (change.before is None or change.before.shape != info.shape):
            continue
        cell = grid.at(name, where[name])
        cell.names.append(name)
        if name in unsure:
            cell.unknown += 1
        elif change is None:
            cell.length += _square(statistics.get(name), info)
        elif change.distance is None or change.distance.relative_l2 is None:
            cell.unknown += 1
        else:
            cell.length += change.distance.length**2
            cell.change += (change.distance.relative_l2 * change.distance.length) ** 2
    return grid


def heatmap(
    difference: Difference,
    tensors: Mapping[str, TensorInfo],
    statistics: Mapping[str, Statistics],
) -> list[Html]:
    """Return the figure, a list of the other tensors, and of what else differs."""
    grid = grid_of(difference, tensors, statistics)
    highest = grid.highest
    parts = [_summary(difference)]
    if highest:
        parts.append(_scale(highest))
    if grid.cells:
        parts.append(tag("div", _table(grid, highest), class_="scroll"))
    if grid.others:
        parts.append(_others(grid, highest))
    parts += _changes(difference)
    return parts


def _square(values: Statistics | None, info: TensorInfo) -> float:
    """Return the squared length of a tensor, from what is known of its values."""
    if values is None or values.mean is None or values.std is None:
        return 0.0
    count = math.prod(info.shape) - values.nan - values.inf
    return count * (values.std**2 + values.mean**2)


def _summary(difference: Difference) -> Html:
    changes = difference.tensors.get("model", ())
    alike = difference.alike.get("model", 0)
    kinds = [change.kind for change in changes]
    told = [f"{plural(alike, 'tensor')} the same"]
    told += [f"{kinds.count(kind):,} {kind}" for kind in _KINDS if kind in kinds]
    unsure = difference.unsure.get("model", ())
    told += [f"{len(unsure):,} without checksums"] if unsure else []
    return tag("p", "From ", tag("code", difference.before), " to this one: ", ", ".join(told), ".")


def _scale(highest: float) -> Html:
    ramp = tag("span", class_="ramp")
    return tag(
        "p",
        "Relative L2: the length of the change over that of the old values. ",
        tag("span", "0 ", ramp, f" {_percent(highest)}", class_="legend"),
        class_="note",
    )


def _table(grid: Grid, highest: float) -> Html:
    columns = grid.columns[:_MOST_COLUMNS]
    rows = list(grid.cells.items())[:_MOST_ROWS]
    head = tag(
        "tr",
        tag("td"),
        *(tag("th", tag("span", column), scope="col") for column in columns),
    )
    body = [
        tag(
            "tr",
            tag("th", name, scope="row"),
            *(_cell(row.get(column), highest) for column in columns),
        )
        for name, row in rows
    ]
    left = [
        f"{hidden:,} {word}"
        for hidden, word in (
            (len(grid.cells) - len(rows), "layers"),
            (len(grid.columns) - len(columns), "matrices"),
        )
        if hidden
    ]
    caption = "Relative L2 by layer and matrix" + (
        f"; not shown: {', '.join(left)}" if left else ""
    )
    table = (tag("caption", caption), tag("thead", head), tag("tbody", *body))
    return tag("table", *table, class_="heat")


def _cell(cell: Cell | None, highest: float) -> Html:
    if cell is None:
        return tag("td", class_="no")
    relative = cell.relative
    about = cell.names[0] if len(cell.names) == 1 else plural(len(cell.names), "tensor")
    if relative is None:
        return tag("td", "?", class_="no", title=f"{about}: not known, or 0 before")
    return tag("td", _percent(relative), title=f"{about}: {_percent(relative)}", **_shade(
        relative, highest
    ))  # fmt: skip


def _shade(relative: float, highest: float) -> dict[str, str]:
    share = relative / highest if highest else 0.0
    # A change is never shown as none.
    alpha = 0.0 if not relative else 0.06 + 0.94 * share
    return {"style": f"--a:{alpha:.2f}", **({"class_": "deep"} if alpha > 0.75 else {})}


def _others(grid: Grid, highest: float) -> Html:
    ranked = list(grid.others.items())[:_MOST_OTHERS]
    rows = (
        tag(
            "tr", tag("th", name, scope="row"), _cell(cell, highest), tag("td", _bar(cell, highest))
        )
        for name, cell in ranked
    )
    left = len(grid.others) - len(ranked)
    caption = "Outside of the numbered layers" + (f"; {left:,} more not shown" if left else "")
    table = tag("table", tag("caption", caption), tag("tbody", *rows), class_="heat others")
    return tag("div", table, class_="scroll")


def _bar(cell: Cell, highest: float) -> Html:
    share = (cell.relative or 0.0) / highest if highest else 0.0
    return tag("span", class_="bar", style=f"width:{share * 100:.1f}%")


def _percent(relative: float) -> str:
    if not relative:
        return "0"
    value = relative * 100
    return f"{value:.0f}%" if value >= 99.5 else f"{value:.2g}%" if value >= 0.01 else "<0.01%"


def _changes(difference: Difference) -> list[Html]:
    """Return what else differs: fields of JSON, and tensors that are not in both."""
    fields = [(part, change) for part, found in difference.json.items() for change in found]
    other = [one for one in difference.tensors.get("model", ()) if one.kind != "changed"]
    if not fields and not other:
        return []
    rows = [_json_row(f"{part} {change.path}", change) for part, change in fields[:_MOST_LISTED]]
    rows += [_tensor_row(change) for change in other[:_MOST_LISTED]]
    left = len(fields) + len(other) - min(len(rows), _MOST_LISTED)
    more = [tag("p", f"{left:,} more.", class_="note")] if left > 0 else []
    table = tag("table", tag("tbody", *rows[:_MOST_LISTED]), class_="facts")
    return [tag("h3", "What else differs"), table, *more]


def _json_row(name: str, change: Change) -> Html:
    sides: Sequence[object] = (change.before, change.after)
    words = ["none" if side is ABSENT else brief(side)[:300] for side in sides]
    return tag("tr", tag("th", name, scope="row"), tag("td", " → ".join(words)))


def _tensor_row(change: TensorChange) -> Html:
    forms = [
        f"{info.dtype} {shape_text(info.shape)}"
        for info in (change.before, change.after)
        if info is not None
    ]
    told = f"{change.kind}: {' → '.join(forms)}"
    return tag("tr", tag("th", change.name, scope="row"), tag("td", told))
