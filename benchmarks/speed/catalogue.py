"""All rows, in the order in which they are printed."""

from __future__ import annotations

from benchmarks.speed import (
    cuda,
    disk,
    helping,
    inspecting,
    loads,
    rclone,
    s3_loads,
    s3_saves,
    stall,
    training,
)
from benchmarks.speed.rows import Row

__all__ = ["ROWS", "row_named"]

ROWS: tuple[Row, ...] = (
    *disk.ROWS,
    *loads.ROWS,
    *s3_saves.ROWS,
    *s3_loads.ROWS,
    *rclone.ROWS,
    *stall.ROWS,
    *training.ROWS,
    *inspecting.ROWS,
    *helping.ROWS,
    *cuda.ROWS,
)


def row_named(name: str) -> Row:
    """Return the row of a name."""
    return next(row for row in ROWS if row.name == name)
