"""``ckptstore upload``: copy what waits in a folder to its tier."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from ckptstore.cli import completing, options, screen
from ckptstore.cli.configured import StorageOptions
from ckptstore.cli.messages import say
from ckptstore.cli.moved import moved_line
from ckptstore.cli.progress import Bar
from ckptstore.cli.screen import clean
from ckptstore.cli.waits import waiting_line

if TYPE_CHECKING:
    from ckptstore.tiers.byhand import Waiting
    from ckptstore.transfer import Transfer

__all__ = ["command"]

_DECLINED = 1


@click.command("upload")
@options.location()
@click.argument("tier", required=False, shell_complete=completing.locations)
@click.option("--yes", is_flag=True, help="Do what the journal says, and do not ask.")
@click.option("--forget", is_flag=True, help="Copy nothing: let the states wait no longer.")
@options.dry_run
@options.json_output
@options.storage
@options.talk
@click.pass_context
def command(
    context: click.Context,
    location: str,
    tier: str | None,
    yes: bool,
    forget: bool,
    dry_run: bool,
    as_json: bool,
    storage_options: StorageOptions,
) -> None:
    """Copy to TIER what waits for that in LOCATION.

    What was copied is taken out of the journal.

    A store with a tier does this by itself, beside the training; this is for
    what was left when a program ended. Without TIER the states go to where the
    journal says that they belong, once you agree to that. What is interrupted
    goes on when it is run again.
    """
    from ckptstore.tiers import byhand

    if forget and (yes or dry_run):
        raise click.UsageError("--forget goes with neither --yes nor --dry-run", context)
    if forget:
        count = byhand.forget(location, tier)
        if as_json:
            screen.print_json({"location": location, "tier": tier, "forgotten": count})
        else:
            say(f"{location}: {count} {'wait' if count != 1 else 'waits'} no longer to be copied")
        return
    there = byhand.waiting(location)
    if tier is None:
        tier = _destination(context, location, there, agreed=yes or dry_run)
    elif not (yes or dry_run):
        _agree_to_removals(context, there)
    copied: list[Transfer] = []
    if tier is not None and not dry_run:
        copied = _copied(location, tier, storage_options, quiet=as_json)
    left = byhand.waiting(location)
    if as_json:
        screen.print_json(_document(location, tier, copied, left))
        return
    for row in left:
        click.echo(waiting_line(row))
    if not left and not copied:
        say(f"{location}: nothing waits")


def _destination(
    context: click.Context, location: str, there: tuple[Waiting, ...], *, agreed: bool
) -> str | None:
    """Return where the journal says that all belongs, once the person agrees to that.

    A journal is a file like any other, and may be a stranger's.
    """
    if not there:
        return None
    if len(there) > 1:
        listed = ", ".join(clean(row.tier) for row in there)
        raise click.UsageError(
            f"what waits in {location} is for several tiers: {listed}; name one", context
        )
    tier = there[0].tier
    if "***" in tier:
        raise click.UsageError(
            f"what waits in {location} is for {clean(tier)}, whose URL held a password, which no "
            "journal holds; name the tier",
            context,
        )
    if not agreed:
        _agree(context, waiting_line(there[0]), "name the tier, or give --yes")
    return tier


def _agree_to_removals(context: click.Context, there: tuple[Waiting, ...]) -> None:
    """Ask before what a journal says removes anything from a tier."""
    for row in there:
        if row.rewinds:
            line = f"what is later than step {min(row.rewinds)} and not here goes in {row.tier}"
            _agree(context, clean(line), "give --yes")


def _agree(context: click.Context, line: str, remedy: str) -> None:
    """Show what would be done, and ask; where nobody can be asked, refuse."""
    if not sys.stdin.isatty():
        raise click.UsageError(f"{line}; nothing was copied: {remedy}", context)
    click.echo(line, err=True)
    if not click.confirm("go on?", err=True):
        say("nothing was copied")
        context.exit(_DECLINED)


def _copied(
    location: str, tier: str, storage_options: StorageOptions, *, quiet: bool
) -> list[Transfer]:
    from ckptstore.tiers import byhand

    copied: list[Transfer] = []
    with Bar() as bar:
        own = storage_options.of(tier)
        for transfer in byhand.upload(location, tier, storage_options=own, progress=bar):
            bar.clear()
            copied.append(transfer)
            if not quiet:
                say(moved_line(transfer, "copy", dry_run=False))
    return copied


def _document(
    location: str, tier: str | None, copied: list[Transfer], left: tuple[Waiting, ...]
) -> dict[str, Any]:
    return {
        "location": location,
        "tier": tier,
        "copied": [
            {"step": one.step, "generation": one.generation, "bytes": one.copied_bytes}
            for one in copied
        ],
        "waiting": [
            {"tier": row.tier, "saves": row.count, "steps": row.steps, "rewinds": row.rewinds}
            for row in left
        ],
    }
