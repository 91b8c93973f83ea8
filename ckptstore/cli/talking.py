"""``--verbose`` and ``--quiet``, which the group and every command have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

__all__ = ["talk"]

F = TypeVar("F", bound=Callable[..., Any])


def talk(command: F) -> F:
    """Add ``--verbose`` and ``--quiet``; they reach `ckptstore.cli.messages` by themselves."""
    verbose = click.option(
        "-v",
        "--verbose",
        count=True,
        expose_value=False,
        callback=_verbose,
        help="Say on stderr what is being done; twice for every detail.",
    )
    quiet = click.option(
        "-q",
        "--quiet",
        is_flag=True,
        expose_value=False,
        callback=_quiet,
        help="No progress, no warnings, no closing line.",
    )
    return verbose(quiet(command))


# The log is imported where somebody asks for it: help needs none.
def _verbose(context: click.Context, option: click.Parameter, count: int) -> None:
    if count:
        from ckptstore.cli.messages import be_verbose

        be_verbose(context, count)


def _quiet(context: click.Context, option: click.Parameter, asked: bool) -> None:
    if asked:
        from ckptstore.cli.messages import be_quiet

        be_quiet(context)
