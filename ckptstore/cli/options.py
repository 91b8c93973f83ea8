"""The options that several commands share."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar

import click

from ckptstore.cli.messages import be_quiet, be_verbose

__all__ = [
    "dry_run",
    "fallback",
    "json_output",
    "no_step_and_fallback",
    "step",
    "storage",
    "talk",
    "tensors",
]

F = TypeVar("F", bound=Callable[..., Any])

_ALWAYS_TEXT = frozenset({"key", "secret", "token", "username", "password"})


def storage(command: F) -> F:
    """Add ``--storage-option KEY=VALUE``, as the argument ``storage_options``: a dict or None."""
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


def talk(command: F) -> F:
    """Add ``--verbose`` and ``--quiet``; they reach `ckptstore.cli.messages` by themselves."""
    verbose = click.option(
        "-v",
        "--verbose",
        count=True,
        expose_value=False,
        callback=lambda context, _, count: be_verbose(context, count) if count else None,
        help="Say on stderr what is being done; twice for every detail.",
    )
    quiet = click.option(
        "-q",
        "--quiet",
        is_flag=True,
        expose_value=False,
        callback=lambda context, _, asked: be_quiet(context) if asked else None,
        help="No progress, no warnings, no closing line.",
    )
    return verbose(quiet(command))


json_output = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")

step = click.option(
    "--step", type=click.IntRange(min=0), metavar="N", help="A step; the newest where left out."
)

fallback = click.option(
    "--fallback",
    is_flag=True,
    help="Where the newest state is damaged, take the newest that is sound, and say so. Reads "
    "all of it once, to prove it.",
)

dry_run = click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")


def tensors(command: F) -> F:
    """Add ``--tensors [GLOB]``, as the argument ``pattern``: None, ``*``, or what was given."""
    option = click.option(
        "--tensors",
        "pattern",
        is_flag=False,
        flag_value="*",
        metavar="[GLOB]",
        help="List the tensors, or those whose names match, such as '*.weight'.",
    )
    return option(command)


def no_step_and_fallback(context: click.Context, step: int | None, fallback: bool) -> None:
    """Refuse ``--step`` beside ``--fallback``: who names a step wants no other."""
    if fallback and step is not None:
        raise click.UsageError("--step and --fallback exclude each other", context)


def _parse_storage_options(
    context: click.Context, parameter: click.Parameter, pairs: tuple[str, ...]
) -> dict[str, Any] | None:
    options: dict[str, Any] = {}
    for position, pair in enumerate(pairs, start=1):
        key, equals, value = pair.partition("=")
        if not (key and equals):
            # The text is not repeated: it may be a secret whose key was forgotten.
            raise click.UsageError(f"--storage-option number {position} is not KEY=VALUE", context)
        if key in options:
            raise click.UsageError(f"--storage-option {key} is given twice", context)
        options[key] = value if key in _ALWAYS_TEXT else _json_or_text(value)
    return options or None


def _json_or_text(value: str) -> Any:
    try:
        return json.loads(value)
    except ValueError:
        return value
