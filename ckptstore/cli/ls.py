"""``ckptstore ls``: the states of a location, or the checkpoints in the folders below it."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from ckptstore.cli import options, screen
from ckptstore.cli.configured import StorageOptions
from ckptstore.cli.group import error_line
from ckptstore.cli.messages import is_quiet
from ckptstore.cli.waits import tell_what_waits
from ckptstore.errors import NotFoundError

if TYPE_CHECKING:
    from ckptstore.history import State

__all__ = ["command"]

_PATIENCE = 1.0
_INTERVAL = 0.2
_MOST_METRICS = 6
_LEAST = ("saved", "format")
"""The columns that a narrow screen can do without, the first one first."""


@click.command("ls")
@options.location()
@click.option(
    "--last",
    type=click.IntRange(min=1),
    metavar="N",
    help="Only the N highest steps of a history.",
)
@click.option(
    "--steps",
    "only_steps",
    is_flag=True,
    help="Only the numbers of the steps, a line each; reads no manifest.",
)
@options.json_output
@options.storage
@options.talk
def command(
    location: str,
    last: int | None,
    only_steps: bool,
    as_json: bool,
    storage_options: StorageOptions,
) -> None:
    """List the states of a location.

    Where it holds none itself, the newest states of the checkpoints in the
    folders directly below it are listed. One that cannot be read is listed with
    its error.
    """
    from ckptstore import history

    own = storage_options.of(location)
    if only_steps:
        numbers = history.step_numbers(location, storage_options=own)[-(last or 0) :]
        if as_json:
            screen.print_json(numbers)
        else:
            click.echo("\n".join(map(str, numbers)))
        return
    with _Counter() as counter:
        try:
            rows = history.states(location, last=last, storage_options=own, counted=counter)
            below = False
        except NotFoundError:
            rows, below = _below(location, own, counter), True
            if not rows:
                raise
    if as_json:
        screen.print_json([_document(row) for row in rows])
    else:
        for line in _table(rows, below):
            click.echo(line)
        tell_what_waits(location, own)


def _below(location: str, storage_options: dict[str, Any], counter: _Counter) -> tuple[State, ...]:
    from ckptstore import history
    from ckptstore.cli.folders import directly_below

    names = list(directly_below(location, storage_options))
    return history.below(location, names, storage_options=storage_options, counted=counter)


class _Counter:
    """Says how many were read, on a line that goes again, where a person waits for it."""

    def __init__(self) -> None:
        self._on = sys.stderr.isatty() and not is_quiet()
        self._next = time.monotonic() + _PATIENCE
        self._drawn = 0

    def __enter__(self) -> _Counter:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._draw("", end="\r")

    def __call__(self, done: int, total: int) -> None:
        """Take a count."""
        if self._on and time.monotonic() >= self._next:
            self._next = time.monotonic() + _INTERVAL
            self._draw(f"{done:,} of {total:,} read")

    def _draw(self, line: str, end: str = "") -> None:
        if line or self._drawn:
            sys.stderr.write(f"\r{line.ljust(self._drawn)}{end}")
            sys.stderr.flush()
            self._drawn = len(line)


def _document(row: State) -> dict[str, Any]:
    return {
        "location": row.location,
        "format": row.format,
        "generation": row.generation,
        "step": row.step,
        "created": row.created,
        "nbytes": row.nbytes,
        "proved": row.proved,
        "error": None if row.error is None else error_line(row.error),
        "metrics": row.metrics,
        "newest": row.newest,
        "steps": row.steps,
        "pinned": row.pinned,
    }


def _table(rows: Sequence[State], below: bool) -> list[str]:
    """Return a line for each row; columns that would be empty are left out."""
    measured, ages = _metrics(rows), _ages(rows)
    columns: list[tuple[str, list[str], bool]] = [
        ("location", [screen.clean(row.location) for row in rows] if below else [], False),
        ("step", ["" if row.step is None else str(row.step) for row in rows], True),
        ("steps", ["" if row.steps is None else f"{row.steps:,}" for row in rows], True),
        ("format", [_format(row) for row in rows], False),
        ("saved", [screen.when(row.created) if row.created else "" for row in rows], False),
        ("age", ages, True),
        ("size", ["" if row.nbytes is None else screen.size(row.nbytes) for row in rows], True),
        *(
            (screen.clean(name), [_measure(row, name) for row in rows], True)
            for name in measured[:_MOST_METRICS]
        ),
        ("", [_note(row, len(rows) > 1 and not below) for row in rows], False),
    ]
    kept = [column for column in columns if any(column[1])]
    lines = _laid_out(kept)
    for given_up in _LEAST:
        if screen.fits(lines):
            break
        kept = [c for c in kept if c[0] != given_up or (given_up == "saved" and not any(ages))]
        lines = _laid_out(kept)
    if len(measured) > _MOST_METRICS:
        more = screen.plural(len(measured) - _MOST_METRICS, "more metric")
        lines.append(f"  … and {more}; --json has all")
    return lines if below else [click.style(screen.clean(rows[0].location), bold=True), *lines]


def _laid_out(columns: Sequence[tuple[str, list[str], bool]]) -> list[str]:
    """Return lines of columns: a title, cells, and whether these are numbers."""
    right = frozenset(at for at, column in enumerate(columns) if column[2])
    style = {len(columns) - 1: _alert} if columns[-1][0] == "" else None
    cells = [tuple(title for title, _, _ in columns)]
    return screen.table(
        [*cells, *zip(*(c for _, c, _ in columns), strict=True)], right=right, style=style
    )


def _metrics(rows: Sequence[State]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row.metrics))


def _ages(rows: Sequence[State]) -> list[str]:
    ages = [screen.ago(row.created) if row.created else None for row in rows]
    return [age or ("now" if age == "" and any(ages) else "") for age in ages]


def _measure(row: State, name: str) -> str:
    return screen.number(row.metrics[name]) if name in row.metrics else ""


def _format(row: State) -> str:
    generation = f", generation {row.generation}" if row.generation else ""
    return f"{screen.clean(row.format or '')}{generation}".removeprefix(", ")


def _note(row: State, one_of_many: bool) -> str:
    said = ["newest"] if row.newest and one_of_many else []
    said += ["pinned"] if row.pinned else []
    if row.error is not None:
        said.append(error_line(row.error))
    elif not row.proved:
        said.append("not verified")
    return ", ".join(said)


def _alert(note: str) -> str:
    plain = note.strip() in ("", "newest", "pinned", "newest, pinned")
    return note if plain else click.style(note, fg="yellow")
