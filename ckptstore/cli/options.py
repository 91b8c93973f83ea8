"""The options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from ckptstore.cli import completing
from ckptstore.cli.configured import StorageOptions, option_value
from ckptstore.cli.talking import talk

__all__ = [
    "dry_run",
    "fallback",
    "json_output",
    "location",
    "no_step_and_fallback",
    "step",
    "storage",
    "talk",
    "tensors",
    "vocabulary",
]

F = TypeVar("F", bound=Callable[..., Any])


def storage(command: F) -> F:
    """Add ``--storage-option KEY=VALUE``, as the argument ``storage_options``."""
    option = click.option(
        "--storage-option",
        "storage_options",
        metavar="KEY=VALUE",
        multiple=True,
        callback=_parse_storage_options,
        help="An option of the storage's fsspec filesystem, once for each; VALUE is JSON or "
        'text, such as \'client_kwargs={"endpoint_url": "http://localhost:9000"}\'. '
        "Credentials are better kept in AWS variables or profiles.",
    )
    return option(command)


def location(name: str = "location", *, required: bool = True) -> Callable[[F], F]:
    """Add an argument that is a location; the shell completes paths."""
    return click.argument(name, required=required, shell_complete=completing.locations)


json_output = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")

step = click.option(
    "--step",
    type=click.IntRange(min=0),
    metavar="N",
    shell_complete=completing.steps,
    help="A step; the newest where left out.",
)

fallback = click.option(
    "--fallback",
    is_flag=True,
    help="Where the newest state is damaged, take the newest that is sound, and say so. Reads "
    "all of it once, to prove it.",
)

dry_run = click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")


vocabulary = click.option(
    "--vocabulary/--no-vocabulary",
    default=None,
    help="Carry the files that the tokenizer needs, such as gpt2's ranks, or leave them out; where "
    "neither is said, with --no-optimizer they are carried if they are on this machine.",
)


def tensors(command: F) -> F:
    """Add ``--tensors [GLOB]``, as the argument ``pattern``: None, ``*``, or what was given."""
    option = click.option(
        "--tensors",
        "pattern",
        is_flag=False,
        flag_value="*",
        metavar="[GLOB]",
        shell_complete=completing.locations,  # ``--tensors LOCATION`` is understood, too.
        help="List the tensors, or those whose names match, such as '*.weight'.",
    )
    return option(command)


def no_step_and_fallback(context: click.Context, step: int | None, fallback: bool) -> None:
    """Refuse ``--step`` beside ``--fallback``: who names a step wants no other."""
    if fallback and step is not None:
        raise click.UsageError("--step and --fallback exclude each other", context)


def _parse_storage_options(
    context: click.Context, parameter: click.Parameter, pairs: tuple[str, ...]
) -> StorageOptions:
    options: dict[str, Any] = {}
    for position, pair in enumerate(pairs, start=1):
        key, equals, value = pair.partition("=")
        if not (key and equals):
            # The text is not repeated: it may be a secret whose key was forgotten.
            raise click.UsageError(f"--storage-option number {position} is not KEY=VALUE", context)
        if key in options:
            raise click.UsageError(f"--storage-option {key} is given twice", context)
        options[key] = option_value(key, value)
    return StorageOptions(options)
