"""``ckptstore convert``: write a checkpoint in another format, beside the old one by default."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ckptstore.cli import options
from ckptstore.cli.group import error_line
from ckptstore.cli.messages import say
from ckptstore.cli.moved import moved_line, proof_lines
from ckptstore.cli.progress import Bar
from ckptstore.errors import CkptstoreError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["command"]


@click.command("convert")
@click.argument("source", required=False)
@click.argument("destination", required=False)
@click.option(
    "--to",
    "format_name",
    metavar="FORMAT",
    default="bundle",
    show_default=True,
    help="The format to write; 'ckptstore plugins' lists them.",
)
@click.option("--all", "folder", metavar="FOLDER", help="Convert each legacy checkpoint below.")
@options.fallback
@options.dry_run
@click.option("--overwrite", is_flag=True, help="Replace a destination that differs.")
@click.option(
    "--report", is_flag=True, help="List every tensor with its checksums before and after."
)
@options.storage
@options.talk
@click.pass_context
def command(
    context: click.Context,
    source: str | None,
    destination: str | None,
    format_name: str,
    folder: str | None,
    fallback: bool,
    dry_run: bool,
    overwrite: bool,
    report: bool,
    storage_options: dict[str, Any] | None,
) -> None:
    """Convert SOURCE to the bundle, or to another format.

    SOURCE is a folder or one legacy .pt file; it is never changed. Without
    DESTINATION the new files are put beside the old one.
    """
    if (source is None) == (folder is None):
        raise click.UsageError("give one SOURCE, or --all FOLDER", context)

    def convert(source: str, destination: str | None) -> None:
        import ckptstore

        with Bar() as bar:
            transfer = ckptstore.convert(
                source,
                destination,
                format_name,
                overwrite=overwrite,
                fallback=fallback,
                dry_run=dry_run,
                storage_options=storage_options,
                progress=bar,
            )
        if report:
            for line in proof_lines(transfer):
                click.echo(line)
        say(moved_line(transfer, "write", dry_run=dry_run))

    if source is not None:
        convert(source, destination)
    elif folder is not None:
        context.exit(_convert_all(folder, convert, storage_options))


def _convert_all(
    folder: str,
    convert: Callable[[str, str | None], None],
    storage_options: dict[str, Any] | None,
) -> int:
    """Convert every legacy checkpoint below, going on after a failure; return the worst code."""
    import ckptstore
    from ckptstore.cli.folders import all_below

    worst, found = 0, 0
    for location in all_below(folder, storage_options):
        try:
            if ckptstore.open(location, storage_options=storage_options).format != "legacy":
                continue
            found += 1
            convert(location, None)
        except NotFoundError:
            continue  # a folder of other things
        except CkptstoreError as error:
            found += 1
            worst = max(worst, error.exit_code)
            click.echo(f"error: {error_line(error)}", err=True)
    if not found:
        say(f"{folder}: there is no legacy checkpoint to convert")
    return worst
