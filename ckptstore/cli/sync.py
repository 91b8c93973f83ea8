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
@click.option("--all", "all_steps", is_flag=True, help="Copy every step of a history.")
@click.option(
    "--last",
    type=click.IntRange(min=1),
    metavar="N",
    help="Copy the N highest steps of a history.",
)
@options.fallback
@options.dry_run
@options.storage
@options.talk
@click.pass_context
def command(
    context: click.Context,
    source: str,
    destination: str,
    no_optimizer: bool,
    prove: bool,
    all_steps: bool,
    last: int | None,
    fallback: bool,
    dry_run: bool,
    storage_options: dict[str, Any] | None,
) -> None:
    """Make DESTINATION hold the newest state of SOURCE.

    Copies the files that differ and commits them together; where both hold the
    same state already, nothing happens. With --all or --last the steps of a
    history are copied, each committed by itself; run again, it goes on.
    """
    import ckptstore

    if all_steps or last is not None:
        if fallback or (all_steps and last is not None):
            raise click.UsageError("--all, --last and --fallback exclude each other", context)
        with Bar() as bar:
            for transfer in ckptstore.sync_steps(
                source,
                destination,
                last=last,
                optimizer=not no_optimizer,
                prove=prove,
                dry_run=dry_run,
                storage_options=storage_options,
                progress=bar,
            ):
                bar.clear()
                say(moved_line(transfer, "copy", dry_run=dry_run))
        return
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
