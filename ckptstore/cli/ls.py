"""``ckptstore ls``: the states of a location, or the checkpoints in the folders below it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import click

from ckptstore.cli import options, screen
from ckptstore.cli.group import error_line
from ckptstore.errors import CkptstoreError, NotFoundError
from ckptstore.storage.shown import without_secrets

if TYPE_CHECKING:
    from ckptstore.checkpoint import Checkpoint

__all__ = ["command"]


@dataclass(frozen=True)
class _Row:
    """One line of the list; its fields are those of ``--json``."""

    location: str
    format: str | None = None
    generation: int | None = None
    step: int | None = None
    created: str | None = None
    nbytes: int | None = None
    proved: bool = False
    error: str | None = None

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> _Row:
        return cls(
            location=checkpoint.location,
            format=checkpoint.format,
            generation=checkpoint.generation,
            step=checkpoint.step,
            created=checkpoint.created,
            nbytes=sum(info.size for info in checkpoint.files().values() if info.present),
            proved=checkpoint.proved,
        )


@click.command("ls")
@click.argument("location")
@options.json_output
@options.storage
@options.talk
def command(location: str, as_json: bool, storage_options: dict[str, Any] | None) -> None:
    """List the states of a location.

    Where it holds none itself, the checkpoints in the folders directly below it
    are listed. One that cannot be opened is listed with its error.
    """
    try:
        rows = list(_states(location, storage_options))
    except NotFoundError:
        rows = list(_below(location, storage_options))
        if not rows:
            raise
    if as_json:
        screen.print_json([asdict(row) for row in rows])
    else:
        cells = [("location", "format", "step", "saved", "size", ""), *map(_cells, rows)]
        for line in screen.table(cells, right=frozenset({2, 4}), style={5: _alert}):
            click.echo(line)


def _states(location: str, storage_options: dict[str, Any] | None) -> Iterator[_Row]:
    import ckptstore

    newest = ckptstore.open(location, storage_options=storage_options)
    if not newest.proved:
        # Nothing was ever committed here: one legacy file, or plain files.
        yield _Row.of(newest)
        return
    store = ckptstore.Store(location, storage_options=storage_options)
    steps = store.steps()
    for step in steps:
        yield from _opened(location, step, storage_options)
    if newest.generation is not None or not steps:
        yield _Row.of(newest)
    else:
        for generation in store.generations()[-1:]:
            yield _Row(location=newest.location, generation=generation, proved=True)


def _below(location: str, storage_options: dict[str, Any] | None) -> Iterator[_Row]:
    from ckptstore.cli.folders import directly_below

    for child in directly_below(location, storage_options):
        yield from _opened(child, None, storage_options)


def _opened(
    location: str, step: int | None, storage_options: dict[str, Any] | None
) -> Iterator[_Row]:
    import ckptstore

    try:
        yield _Row.of(ckptstore.open(location, step=step, storage_options=storage_options))
    except NotFoundError:
        return  # a folder of other things, or a step that was removed since it was listed
    except CkptstoreError as error:
        shown = without_secrets(location)
        yield _Row(location=shown, step=step, error=error_line(error))


def _cells(row: _Row) -> tuple[str, ...]:
    generation = f", generation {row.generation}" if row.generation else ""
    return (
        screen.clean(row.location),
        f"{row.format or ''}{generation}".removeprefix(", "),
        "" if row.step is None else str(row.step),
        screen.when(row.created) if row.created else "",
        "" if row.nbytes is None else screen.size(row.nbytes),
        row.error or ("" if row.proved else "not verified"),
    )


def _alert(note: str) -> str:
    return click.style(note, fg="yellow") if note.strip() else note
