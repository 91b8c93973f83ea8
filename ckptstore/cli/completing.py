"""What the shell offers for values of arguments and options; it never fails, and asks no bucket.

Completion runs at every press of the tab key: each function imports what it needs itself.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from ckptstore.errors import CkptstoreError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

__all__ = ["formats", "kinds", "locations", "steps"]


def locations(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Have the shell complete a path, as it does everywhere; URLs it does not know."""
    from click.shell_completion import CompletionItem

    return [] if "://" in incomplete else [CompletionItem(incomplete, type="file")]


def formats(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Return the formats that can be written, those of plugins too."""
    from ckptstore import plugins

    with _silence():
        try:
            known = plugins.formats()
        except CkptstoreError:
            return []
    return [name for name, it in known.items() if it.writable and name.startswith(incomplete)]


def kinds(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Return the tokenizer kinds that have files of their own, those of plugins too."""
    from ckptstore import plugins
    from ckptstore.tokenizers.base import Tokenizer

    with _silence():
        try:
            known = plugins.tokenizers()
        except CkptstoreError:
            return []
    found = [name for name in known if name.startswith(incomplete)]
    none = _written(Tokenizer.file_names_of)
    return [name for name in found if _written(known[name].file_names_of) is not none]


def steps(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Return the steps of a history on a local disk, the highest first."""
    from ckptstore import storage
    from ckptstore.commit import layout

    # While an option lacks its value, click has not told the arguments apart yet.
    location = context.params.get("location") or next(iter(context.args), None)
    if location is None or "://" in location:
        return []
    with _silence():
        try:
            there = layout.steps(storage.connect(location))
        except (CkptstoreError, OSError):
            return []
    return [str(step) for step in reversed(there) if str(step).startswith(incomplete)]


def _written(method: object) -> object:
    """Return the function of a class method, the same for all classes that inherit it."""
    return getattr(method, "__func__", method)


@contextmanager
def _silence() -> Iterator[None]:
    """Keep warnings off the line that somebody is typing."""
    before = logging.root.manager.disable
    logging.disable()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
