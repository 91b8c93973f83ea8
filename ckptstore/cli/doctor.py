"""``ckptstore doctor``: look for what was cut off or replaced by hand, and mend it."""

from __future__ import annotations

from typing import Any

import click

from ckptstore.cli import options
from ckptstore.cli.screen import clean

__all__ = ["command"]


@click.command("doctor")
@click.argument("location")
@click.option("--fix", is_flag=True, help="Do what is found to be needed.")
@click.option("--adopt", is_flag=True, help="Commit the .pt files that somebody put in place.")
@click.option("--restore", is_flag=True, help="Put the committed files back in their place.")
@options.storage
@options.talk
@click.pass_context
def command(
    context: click.Context,
    location: str,
    fix: bool,
    adopt: bool,
    restore: bool,
    storage_options: dict[str, Any] | None,
) -> None:
    """Say what needs mending, and mend it where asked to.

    Finds a view that was not finished, files and S3 uploads that killed saves
    left, and .pt files that were replaced by hand: those are either adopted or
    restored. Nothing is changed without --fix, --adopt or --restore, but for a
    small file or upload that is made and removed again, to ask the storage for
    the time. What a save that is under way may still need is left alone: it
    goes when it is a day old by the storage's own clock.
    """
    import ckptstore

    if adopt and restore:
        raise click.UsageError("--adopt and --restore exclude each other", context)
    acting = fix or adopt or restore
    store = ckptstore.Store(location, storage_options=storage_options)
    done = store.repair(adopt=adopt, restore=restore, dry_run=not acting)
    for line in done or (f"{store.location}: nothing needs mending",):
        click.echo(clean(line))
    if not acting and any(line.startswith("would ") for line in done):
        click.echo("nothing was changed; give --fix to do it", err=True)
