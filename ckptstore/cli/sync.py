"""``ckptstore sync``: copy one state of a checkpoint, and only what differs."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import Any

import click

from ckptstore.cli import options
from ckptstore.cli.configured import StorageOptions
from ckptstore.cli.messages import say
from ckptstore.cli.moved import moved_line
from ckptstore.cli.progress import Bar
from ckptstore.cli.screen import clean, plural

__all__ = ["command"]

_DECLINED = 1


@click.command("sync")
@options.location("source")
@options.location("destination")
@click.option(
    "--no-optimizer", is_flag=True, help="Leave the optimizer behind: a copy for inference."
)
@options.vocabulary
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
@click.option(
    "--delete",
    is_flag=True,
    help="With --all or --last: afterwards delete the other steps of DESTINATION. Asks before.",
)
@click.option("--yes", is_flag=True, help="With --delete: do not ask.")
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
    vocabulary: bool | None,
    prove: bool,
    all_steps: bool,
    last: int | None,
    delete: bool,
    yes: bool,
    fallback: bool,
    dry_run: bool,
    storage_options: StorageOptions,
) -> None:
    """Make DESTINATION hold the newest state of SOURCE.

    Copies what differs and commits it together; where both hold the same state
    already, nothing happens. What was interrupted goes on when it is run again.
    With --all or --last the steps of a history are copied, each committed by
    itself.
    """
    import ckptstore

    history = all_steps or last is not None
    _check_together(
        context, all_steps=all_steps, last=last, delete=delete, yes=yes, fallback=fallback
    )
    extra = None
    if delete:
        extra = _Extra(source, destination, last, storage_options)
        if extra.steps and not (yes or dry_run) and not extra.confirmed(context):
            context.exit(_DECLINED)
    with Bar() as bar:
        common: dict[str, Any] = {
            "optimizer": not no_optimizer,
            "vocabulary": vocabulary,
            "prove": prove,
            "dry_run": dry_run,
            "storage_options": storage_options.of(source),
            "destination_options": storage_options.of(destination),
            "progress": bar,
        }
        if history:
            transfers = ckptstore.sync_steps(source, destination, last=last, **common)
        else:
            transfers = iter([ckptstore.sync(source, destination, fallback=fallback, **common)])
        for transfer in transfers:
            bar.clear()
            say(moved_line(transfer, "copy", dry_run=dry_run))
    if extra is not None:
        extra.delete(dry_run=dry_run)


def _check_together(
    context: click.Context,
    *,
    all_steps: bool,
    last: int | None,
    delete: bool,
    yes: bool,
    fallback: bool,
) -> None:
    """Refuse options that do not go together."""
    history = all_steps or last is not None
    if (fallback and history) or (all_steps and last is not None):
        raise click.UsageError("--all, --last and --fallback exclude each other", context)
    if delete and not history:
        raise click.UsageError("--delete is about steps: give --all or --last too", context)
    if yes and not delete:
        raise click.UsageError("--yes is for --delete", context)


class _Extra:
    """The steps that only the destination has, as they are before anything is copied.

    What is pinned there stays.
    """

    def __init__(
        self,
        source: str,
        destination: str,
        last: int | None,
        storage_options: StorageOptions,
    ) -> None:
        import ckptstore

        wanted = ckptstore.Store(source, storage_options=storage_options.of(source)).steps()
        own = storage_options.of(destination)
        self._store = ckptstore.Store(destination, storage_options=own)
        kept = {*wanted} if last is None else {*wanted[-last:]}
        there = self._store.steps() if kept else ()
        kept |= {*self._store.pinned()} if there else set()
        self.steps = [step for step in there if step not in kept]
        self._destination = destination

    def confirmed(self, context: click.Context) -> bool:
        """Show what would go, and ask; where nobody can be asked, refuse before all else."""
        listed = f"{plural(len(self.steps), 'step')} of {self._destination}: {self._named()}"
        if not sys.stdin.isatty():
            raise click.UsageError(
                f"--delete would delete {listed}; nothing was copied or deleted: give --yes",
                context,
            )
        click.echo(clean(f"afterwards these are deleted: {listed}"), err=True)
        if click.confirm("go on?", err=True):
            return True
        say("nothing was copied or deleted")
        return False

    def delete(self, *, dry_run: bool) -> None:
        """Delete what was shown, as far as it is still there."""
        from ckptstore.errors import NotFoundError

        for step in self.steps:
            with suppress(NotFoundError):
                if not dry_run:
                    self._store.remove(step)
                say(
                    f"{'would delete' if dry_run else 'deleted'} step {step} of {self._destination}"
                )

    def _named(self) -> str:
        return ", ".join(map(str, self.steps))
