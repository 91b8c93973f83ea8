"""``ckptstore rm``: delete a checkpoint, or one step, after asking."""

from __future__ import annotations

import sys

import click

from ckptstore.cli import completing, options
from ckptstore.cli.configured import StorageOptions
from ckptstore.cli.messages import say
from ckptstore.cli.screen import clean

__all__ = ["command"]

_DECLINED = 1


@click.command("rm")
@options.location()
@click.option(
    "--step",
    type=click.IntRange(min=0),
    metavar="N",
    shell_complete=completing.steps,
    help="Delete this step only.",
)
@click.option("--yes", is_flag=True, help="Do not ask.")
@options.storage
@options.talk
@click.pass_context
def command(
    context: click.Context,
    location: str,
    step: int | None,
    yes: bool,
    storage_options: StorageOptions,
) -> None:
    """Delete the checkpoint at LOCATION, or one step of it.

    Shows what would go and asks; where nobody can be asked, --yes is needed.
    Files that are not part of the checkpoint stay.
    """
    import ckptstore

    store = ckptstore.Store(location, storage_options=storage_options.of(location))
    if not yes:
        doomed = store.remove(step, dry_run=True)
        for name in doomed:
            click.echo(f"  {clean(name)}", err=True)
        if not sys.stdin.isatty():
            raise click.UsageError("nothing was deleted: give --yes to delete these", context)
        if not click.confirm("delete these?", err=True):
            say("nothing was deleted")
            context.exit(_DECLINED)
    removed = store.remove(step)
    for name in removed:
        say(f"deleted {name}")
