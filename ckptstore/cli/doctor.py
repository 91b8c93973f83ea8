"""``ckptstore doctor``: look for what was cut off or replaced by hand, and mend it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from ckptstore.cli import options, screen
from ckptstore.cli.configured import StorageOptions

if TYPE_CHECKING:
    from ckptstore.examining import Examination, Measured
    from ckptstore.findings import Finding

__all__ = ["SCHEMA", "command"]

SCHEMA = 1
_REMAINS = 1
_FAR = 0.05
_COLOURS = {"mended": "green", "mendable": "yellow", "open": "red"}


@click.command("doctor")
@options.location()
@click.option("--fix", is_flag=True, help="Do what is found to be needed.")
@click.option("--adopt", is_flag=True, help="Commit the .pt files that somebody put in place.")
@click.option("--restore", is_flag=True, help="Put the committed files back in their place.")
@click.option("--speed", is_flag=True, help="Write and read 8 MiB too, and say how fast that is.")
@options.json_output
@options.storage
@options.talk
@click.pass_context
def command(
    context: click.Context,
    location: str,
    fix: bool,
    adopt: bool,
    restore: bool,
    speed: bool,
    as_json: bool,
    storage_options: StorageOptions,
) -> None:
    """Say what needs mending, and mend it where asked to.

    Finds a view that was not finished, files and S3 uploads that killed saves
    left, and .pt files that were replaced by hand: those are either adopted or
    restored. Tells of the storage what may not be done there, whether it keeps
    two writers apart, whose clock is wrong, and whether it is slow.

    Nothing is changed without --fix, --adopt or --restore, but for a small file
    or upload that is made and removed again. What a save that is under way may
    still need is left alone: it goes when it is a day old by the storage's own
    clock. Exits 1 where something is left to be done, and 3 where nothing was
    saved yet, after what there is to say of the storage.
    """
    from ckptstore.examining import examine

    if adopt and restore:
        raise click.UsageError("--adopt and --restore exclude each other", context)
    found = examine(
        location,
        fix=fix,
        adopt=adopt,
        restore=restore,
        speed=speed,
        storage_options=storage_options.of(location),
    )
    if as_json:
        screen.print_json(_document(found))
    else:
        for line in _lines(found):
            click.echo(line)
    if any(finding.status == "mendable" for finding in found.findings):
        click.echo("nothing was changed; give --fix to do it", err=True)
    if found.absent is not None:
        raise found.absent
    if not found.healthy:
        context.exit(_REMAINS)


def _document(found: Examination) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "location": found.location,
        "healthy": found.healthy,
        "findings": [asdict(finding) for finding in found.findings],
        "storage": asdict(found.measured),
    }


def _lines(found: Examination) -> Iterator[str]:
    yield from map(_line, found.findings)
    yield from _told(found.measured)
    if found.absent is None and not any(finding.status != "note" for finding in found.findings):
        yield screen.clean(f"{found.location}: nothing needs mending")


def _line(finding: Finding) -> str:
    line = screen.clean(finding.line)
    colour = _COLOURS.get(finding.status)
    return click.style(line, fg=colour) if colour else line


def _told(measured: Measured) -> Iterator[str]:
    """Yield what is worth a word of a storage that is not this machine's own disk or memory."""
    trip = measured.round_trip
    if trip is not None and (trip > _FAR or measured.write_rate):
        yield f"a small request takes {trip * 1000:.3g} ms"
    if measured.write_rate and measured.read_rate:
        written, read = (
            screen.size(round(rate)) for rate in (measured.write_rate, measured.read_rate)
        )
        yield f"8 MiB were written at {written}/s and read at {read}/s"
