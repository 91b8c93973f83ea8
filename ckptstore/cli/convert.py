"""``ckptstore convert``: write a checkpoint in another format, beside the old one by default."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ckptstore.cli import completing, options
from ckptstore.cli.configured import StorageOptions
from ckptstore.cli.group import error_line
from ckptstore.cli.messages import say
from ckptstore.cli.moved import moved_line, proof_lines
from ckptstore.cli.progress import Bar
from ckptstore.errors import CkptstoreError, ConflictError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Callable

    from ckptstore import Checkpoint

__all__ = ["command"]

_LEGACY = "legacy"
_ENDINGS = (".pt", ".pth")


@click.command("convert")
@options.location("source", required=False)
@options.location("destination", required=False)
@click.option(
    "--to",
    "format_name",
    metavar="FORMAT",
    default="bundle",
    show_default=True,
    shell_complete=completing.formats,
    help="The format to write; 'ckptstore plugins' lists them.",
)
@click.option(
    "--all",
    "folder",
    metavar="FOLDER",
    shell_complete=completing.locations,
    help="Convert each legacy checkpoint below.",
)
@click.option(
    "--no-optimizer", is_flag=True, help="Model, config and tokenizer only: for inference."
)
@options.vocabulary
@options.fallback
@options.dry_run
@click.option(
    "--overwrite",
    is_flag=True,
    help="Make it the next generation of a DESTINATION that differs; a single file is never "
    "replaced.",
)
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
    no_optimizer: bool,
    vocabulary: bool | None,
    fallback: bool,
    dry_run: bool,
    overwrite: bool,
    report: bool,
    storage_options: StorageOptions,
) -> None:
    """Convert SOURCE to the bundle, or to another format.

    SOURCE is a folder or one legacy .pt file; it is never changed. Without
    DESTINATION the new files are put beside the old one. With --to legacy
    DESTINATION is one file, such as dante.pt.
    """
    if (source is None) == (folder is None):
        raise click.UsageError("give one SOURCE, or --all FOLDER", context)
    if folder is not None and format_name == _LEGACY:
        raise click.UsageError("--all converts legacy checkpoints to another format", context)

    def convert(source: str, destination: str | None) -> None:
        import ckptstore

        with Bar() as bar:
            transfer = ckptstore.convert(
                source,
                destination,
                format_name,
                optimizer=not no_optimizer,
                vocabulary=vocabulary,
                overwrite=overwrite,
                fallback=fallback,
                dry_run=dry_run,
                storage_options=storage_options.of(source),
                destination_options=storage_options.of(destination or source),
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
    storage_options: StorageOptions,
) -> int:
    """Convert every legacy checkpoint below, going on after a failure; return the worst code."""
    from ckptstore.cli.folders import all_below

    worst, found = 0, 0
    for place in all_below(folder, storage_options.of(folder)):
        try:
            source, left = _legacy_in(place, storage_options.of(place))
            if source is None:
                continue
            convert(source, None)
            if left:
                say(left)
        except CkptstoreError as error:
            worst = max(worst, error.exit_code)
            click.echo(f"error: {error_line(error)}", err=True)
        found += 1
    if not found:
        _check_there(folder, storage_options.of(folder))
        say(f"{folder}: there is no legacy checkpoint to convert")
    return worst


def _legacy_in(folder: str, storage_options: dict[str, Any] | None) -> tuple[str | None, str]:
    """Return the folder or the file in it that is a legacy checkpoint, and what to say of the rest.

    Raises:
        ConflictError: several are in the folder, and beside them is room for one bundle.
        CkptstoreError: something calls itself one, and cannot be read.
    """
    import ckptstore
    from ckptstore import storage

    def names() -> list[str]:
        listed = storage.connect(folder, storage_options).list().files
        return [name for name in listed if name.endswith(_ENDINGS)]

    try:
        checkpoint = ckptstore.open(folder, storage_options=storage_options)
    except NotFoundError:
        files = [f"{folder.rstrip('/')}/{name}" for name in names()]
    else:
        if checkpoint.format != _LEGACY:
            return None, ""
        (taken,) = checkpoint.files()
        others = ", ".join(name for name in names() if name != taken)
        return folder, others and (
            f"{folder}: {others} stays as it is, for {taken} is taken; "
            "to convert it too name it and a destination"
        )
    found = [file for file in files if _is_legacy(file, storage_options)]
    if len(found) > 1:
        raise ConflictError(
            f"{folder} holds {len(found)} legacy files, and beside them is room for one bundle: "
            f"{', '.join(found)}; convert each to a destination of its own"
        )
    return (found[0] if found else None), ""


def _is_legacy(file: str, storage_options: dict[str, Any] | None) -> bool:
    """Whether a file of another name is a legacy checkpoint, and not weights alone."""
    import ckptstore

    try:
        checkpoint = ckptstore.open(file, storage_options=storage_options)
    except NotFoundError:
        return False  # It holds something else.
    return checkpoint.format == _LEGACY and _holds_more_than_weights(checkpoint)


def _holds_more_than_weights(checkpoint: Checkpoint) -> bool:
    facts = (checkpoint.config, checkpoint.tokenizer_state, checkpoint.training_state)
    return any(fact is not None for fact in facts) or len(checkpoint.parts()) > 1


def _check_there(folder: str, storage_options: dict[str, Any] | None) -> None:
    from ckptstore import storage

    listing = storage.connect(folder, storage_options).list()
    if not listing.files and not listing.folders:
        raise NotFoundError(f"nothing is in {folder}; name a folder with checkpoints below it")
