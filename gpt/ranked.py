"""A command that several ranks run as one: its lines are printed once, and its errors said once."""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any

import click

from gpt.commands import Command, Refusal, mapped
from gpt.exchange import RankError, RankLostError, RankStopped
from gpt.ranks import Ranks

__all__ = ["RankedCommand"]

_RANK_0_SPEAKS = 3.0  # seconds; torchrun ends the others sooner


class RankedCommand(Command):
    """A command with the `Ranks` of its run, connected while it runs, as ``click.pass_obj``.

    It has a parameter ``rank_timeout``. What ranks other than 0 print on stdout is not shown. An
    error that several have is shown once, and one of another rank alone with its number.
    """

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        """Parse the arguments, which all ranks are given alike."""
        first = os.environ.get("RANK", "0") == "0" or os.environ.get("WORLD_SIZE", "1") == "1"
        try:
            with _shown(first):
                return super().make_context(*args, **kwargs)
        except Refusal:
            if not first:
                time.sleep(_RANK_0_SPEAKS)
            raise

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command, in step with the other ranks."""
        with mapped():
            ranks = ctx.obj = Ranks.of_environment(ctx.params["rank_timeout"])
        if not ranks.many:
            return super().invoke(ctx)
        with _shown(ranks.first):
            try:
                with mapped(), ranks:
                    try:
                        return super().invoke(ctx)
                    except Exception as error:
                        # While the others still wait: they ask why once the connections close,
                        # and the launcher ends everybody when the first one has left.
                        raise _said(error, ranks) from error
            except Refusal as refusal:  # They did not find each other, or lost each other leaving.
                raise _said(refusal, ranks) from refusal


def _said(error: Exception, ranks: Ranks) -> Exception:
    """Print why this rank ends, if that is for it to say, and return what to end it with."""
    if isinstance(error, RankStopped):
        return click.exceptions.Exit(0)
    if isinstance(error, click.exceptions.Exit):
        return error
    if isinstance(error.__cause__, RankLostError) and ranks.stopped:
        return click.exceptions.Exit(0)
    refusal = error if isinstance(error, Refusal) else None
    line = refusal.message if refusal else repr(error)
    if line:
        lost = isinstance(error.__cause__, RankLostError)
        if not lost:
            ranks.failed()
        if ranks.may_say(line, lost=lost):
            if refusal is None:
                traceback.print_exception(error)
            else:
                known = ranks.first or lost or isinstance(error.__cause__, RankError)
                click.echo(line if known else f"rank {ranks.rank}: {line}", err=True)
    return Refusal("", refusal.exit_code if refusal else 1)


@contextmanager
def _shown(first: bool) -> Iterator[None]:
    """Let only the first rank print on stdout."""
    if first:
        yield
        return
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
        yield
