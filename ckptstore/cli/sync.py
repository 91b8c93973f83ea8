"""``ckptstore sync``: copy one state of a checkpoint, and only what differs."""

from __future__ import annotations

from typing import Any

import click

from ckptstore.cli import options
from ckptstore.cli.messages import say
from ckptstore.cli.moved import moved_line
from ckptstore.cli.progress import Bar

__all__ = ["command"]


@click.command("sync")
@click.argument("source")
@click.argument("destination")
@click.option(
    "--no-optimizer", is_flag=True, help="Leave the optimizer behind: a copy for inference."
)
@click.option(
    "--prove", is_flag=True, help="Read what DESTINATION has too; copy again what is damaged."
)
@options.fallback
@options.dry_run
@options.storage
@options.talk
def command(
    source: str,
    destination: str,
    no_optimizer: bool,
    prove: bool,
    fallback: bool,
    dry_run: bool,
    storage_options: dict[str, Any] | None,
) -> None:
    """Make DESTINATION hold the newest state of SOURCE.

    Copies the files that differ and commits them together; where both hold the
    same state already, nothing happens.
    """
    import ckptstore

    with Bar() as bar:
        transfer = ckptstore.sync(
            source,
            destination,
            optimizer=not no_optimizer,
            prove=prove,
            fallback=fallback,
            dry_run=dry_run,
            storage_options=storage_options,
            progress=bar,
        )
    say(moved_line(transfer, "copy", dry_run=dry_run))
