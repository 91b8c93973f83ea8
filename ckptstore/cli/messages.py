"""What is said beside the result: warnings, the log, and the lines that --quiet leaves out."""

from __future__ import annotations

import io
import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TextIO

import click

from ckptstore.cli.screen import clean, width

__all__ = ["be_quiet", "be_verbose", "is_quiet", "messages", "say"]

_QUIET = f"{__name__}.quiet"
_VERBOSITY = f"{__name__}.verbosity"
_LEVELS = (logging.WARNING, logging.INFO, logging.DEBUG)


@contextmanager
def messages(context: click.Context) -> Iterator[None]:
    """Send warnings and ckptstore's log to stderr, one line each, while the command runs."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A terminal that cannot show a letter gets its escape, not a traceback.
        sys.stdout.reconfigure(errors="backslashreplace")
    logger = logging.getLogger("ckptstore")
    before = logger.level
    handler = _Handler()
    logger.addHandler(handler)
    logger.setLevel(_level(context))
    try:
        with warnings.catch_warnings():
            warnings.showwarning = partial(_show_warning, context)
            # torch says so wherever numpy is not installed, which nothing here needs.
            warnings.filterwarnings("ignore", "Failed to initialize NumPy")
            yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


def be_verbose(context: click.Context, count: int) -> None:
    """Show the log: steps of the work at 1, everything from 2 on."""
    context.meta[_VERBOSITY] = max(count, context.meta.get(_VERBOSITY, 0))
    if context.parent is not None:
        logging.getLogger("ckptstore").setLevel(_level(context))


def be_quiet(context: click.Context) -> None:
    """Print nothing but errors and what was asked for."""
    context.meta[_QUIET] = True
    if context.parent is not None:
        logging.getLogger("ckptstore").setLevel(_level(context))


def is_quiet() -> bool:
    """Whether the user asked for errors only."""
    return bool(click.get_current_context().meta.get(_QUIET))


def say(line: str) -> None:
    """Print a line about what was done, unless the user asked for quiet."""
    if not is_quiet():
        click.echo(clean(line))


def _level(context: click.Context) -> int:
    if context.meta.get(_QUIET):
        return logging.ERROR
    return _LEVELS[min(context.meta.get(_VERBOSITY, 0), len(_LEVELS) - 1)]


class _Handler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        _print(record.levelname.lower(), record.getMessage())


def _show_warning(
    context: click.Context,
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    if not context.meta.get(_QUIET):
        _print("warning", str(message))


def _print(kind: str, text: str) -> None:
    for line in text.splitlines():
        line = f"{kind}: {clean(line)}"
        if sys.stderr.isatty():
            # A progress bar may stand on this line: begin at its start and cover it.
            line = f"\r{line.ljust(width() - 1)}"
        click.echo(line, err=True)
