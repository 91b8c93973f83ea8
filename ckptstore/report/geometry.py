"""The geometry of a treemap: areas that are proportional, and as square as they can be.

After Bruls, Huizing and van Wijk, "Squarified Treemaps" (2000).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Box", "squarified"]


@dataclass(frozen=True)
class Box:
    """A rectangle: its upper left corner, width and height."""

    x: float
    y: float
    width: float
    height: float

    @property
    def area(self) -> float:
        """Width times height."""
        return self.width * self.height

    def inset(self, left: float, top: float, right: float, bottom: float) -> Box:
        """Return what is left without these margins, nothing where they are too wide."""
        return Box(
            self.x + min(left, self.width),
            self.y + min(top, self.height),
            max(0.0, self.width - left - right),
            max(0.0, self.height - top - bottom),
        )


def squarified(sizes: Sequence[float], box: Box) -> list[Box]:
    """Return a box for each size, in their order: together they cover the whole box.

    Args:
        sizes: not negative; a size of nothing has a box without area.
        box: what to divide.
    """
    total = sum(sizes)
    boxes = [Box(box.x, box.y, 0.0, 0.0)] * len(sizes)
    if total <= 0 or box.area <= 0:
        return boxes
    order = sorted((n for n, size in enumerate(sizes) if size > 0), key=lambda n: -sizes[n])
    areas = {n: sizes[n] / total * box.area for n in order}
    while order:
        row = _row([areas[n] for n in order], min(box.width, box.height))
        taken, order = order[:row], order[row:]
        placed, box = _placed([areas[n] for n in taken], box, last=not order)
        for n, one in zip(taken, placed, strict=True):
            boxes[n] = one
    return boxes


def _row(areas: Sequence[float], side: float) -> int:
    """Return how many areas to put along a side, so that the worst of them is best."""
    total, best, count = 0.0, float("inf"), 0
    for area in areas:
        total += area
        # The first is the largest, this one the smallest so far.
        worst = max(side**2 * areas[0] / total**2, total**2 / (side**2 * area))
        if worst > best:
            break
        best, count = worst, count + 1
    return count


def _placed(areas: Sequence[float], box: Box, *, last: bool) -> tuple[list[Box], Box]:
    """Return boxes along the shorter side of a box, and what is left of it."""
    total = sum(areas)
    wide = box.width >= box.height
    side, depth = (box.height, box.width) if wide else (box.width, box.height)
    # What rounding leaves at the end belongs to the last.
    thick = depth if last else min(total / side, depth)
    boxes, at = [], 0.0
    for number, area in enumerate(areas):
        long = side - at if number == len(areas) - 1 else side * area / total
        if wide:
            boxes.append(Box(box.x, box.y + at, thick, long))
        else:
            boxes.append(Box(box.x + at, box.y, long, thick))
        at += long
    if wide:
        return boxes, Box(box.x + thick, box.y, max(0.0, box.width - thick), box.height)
    return boxes, Box(box.x, box.y + thick, box.width, max(0.0, box.height - thick))
