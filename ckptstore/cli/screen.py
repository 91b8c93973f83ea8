"""How values look: sizes, tables, columns, JSON, and text from strangers made safe to print."""

from __future__ import annotations

import json
import math
import os
import shutil
import sys
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import zip_longest

import click

from ckptstore.wording import (
    ago,
    clean,
    number,
    plain,
    plural,
    shape_text,
    short,
    size,
    value_text,
    when,
)

__all__ = [
    "ago",
    "clean",
    "columns",
    "fits",
    "number",
    "plural",
    "print_json",
    "shape_text",
    "short",
    "size",
    "table",
    "value_text",
    "when",
    "width",
]

_MOST_COLUMNS = 120
_LEAST_HEIGHT = 3
_MOST_BLOCKS = 6
_GUTTER = "   "


def width() -> int:
    """Return the columns to use: the terminal's, at most 120; 80 where there is none."""
    return min(shutil.get_terminal_size().columns or 80, _MOST_COLUMNS)


def fits(lines: Iterable[str]) -> bool:
    """Whether no line is wrapped; those that go to a file or a pipe never are."""
    if not (sys.stdout.isatty() or os.environ.get("COLUMNS")):
        return True
    room = shutil.get_terminal_size().columns or 80
    return all(_span(line) <= room for line in lines)


def table(
    rows: Iterable[Sequence[str]],
    *,
    right: frozenset[int] = frozenset(),
    style: Mapping[int, Callable[[str], str]] | None = None,
) -> list[str]:
    """Return rows as aligned lines.

    A first cell that is wider than half of the screen has a line of its own, so that one long
    name does not push all others apart; nothing is ever cut.

    Args:
        rows: cells, already clean.
        right: the columns that are aligned to the right.
        style: column to what colours its padded cells.
    """
    cells = [tuple(row) for row in rows]
    if not cells:
        return []
    limit = width() // 2
    spans = [[_span(cell) for cell in column] for column in zip(*cells, strict=True)]
    spans[0] = [span for span in spans[0] if span <= limit]
    widths = [max(column, default=0) for column in spans]
    lines = []
    for row in cells:
        if _span(row[0]) > widths[0]:
            lines.append(f"  {row[0]}")
            row = ("", *row[1:])
        padded = [_pad(cell, widths[at], at in right) for at, cell in enumerate(row)]
        for at, paint in (style or {}).items():
            padded[at] = paint(padded[at])
        lines.append(f"  {'  '.join(padded)}".rstrip())
    return lines


def columns(pairs: Iterable[tuple[str, str]]) -> list[str]:
    """Return names and values in as many columns as the screen has room for, read downwards.

    Those that take more than half of the screen come last, each on a line of its own.
    """
    entries = list(pairs)
    half = width() // 2 - len(_GUTTER)
    parted: dict[bool, list[tuple[str, str]]] = {False: [], True: []}
    for pair in entries:
        parted[sum(map(_span, pair)) > half].append(pair)
    return [*_side_by_side(parted[False]), *table(parted[True])]


def _side_by_side(entries: list[tuple[str, str]]) -> list[str]:
    for count in range(_MOST_BLOCKS, 1, -1):
        height = max(math.ceil(len(entries) / count), _LEAST_HEIGHT)
        blocks = [table(entries[at : at + height]) for at in range(0, len(entries), height)]
        spans = [max(map(_span, block)) for block in blocks]
        if sum(spans) + len(_GUTTER) * (len(blocks) - 1) <= width():
            padded = (
                [_pad(line, span) for line in b] for b, span in zip(blocks, spans, strict=True)
            )
            rows = zip_longest(*padded, fillvalue="")
            return [_GUTTER.join(row).rstrip() for row in rows]
    return table(entries)


def print_json(value: object) -> None:
    """Print one JSON document; outside of ASCII as it is where stdout can encode it.

    What a terminal would obey is escaped: beyond ASCII, JSON allows it as it is.
    """
    value = plain(value)
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    text = "\n".join(map(_printable, text.split("\n")))
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        text = json.dumps(value, indent=2, allow_nan=False)
    click.echo(text)


def _printable(line: str) -> str:
    if line.isprintable():
        return line
    return "".join(char if char.isprintable() else json.dumps(char)[1:-1] for char in line)


def _span(text: str) -> int:
    """Return the columns that a text takes: two for wide letters, none for combining ones."""
    text = click.unstyle(text)
    if text.isascii():
        return len(text)
    wide = sum(unicodedata.east_asian_width(char) in "WF" for char in text)
    none = sum(unicodedata.combining(char) > 0 for char in text)
    return len(text) + wide - none


def _pad(text: str, span: int, right: bool = False) -> str:
    space = " " * (span - _span(text))
    return space + text if right else text + space
