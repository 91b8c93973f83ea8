"""``ckptstore prune``: remove the steps of a history that a policy does not keep."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from ckptstore.cli import options, screen
from ckptstore.cli.configured import StorageOptions
from ckptstore.cli.messages import say

if TYPE_CHECKING:
    from ckptstore.retaining import Retained

__all__ = ["SCHEMA", "command"]

SCHEMA = 1
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
_AGE = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)([smhdw])")


def _age(context: click.Context, parameter: click.Parameter, value: str | None) -> float | None:
    """Return a time such as ``7d`` in seconds."""
    if value is None:
        return None
    found = _AGE.fullmatch(value)
    seconds = float(found[1]) * _UNITS[found[2]] if found else 0.0
    if not seconds:
        raise click.BadParameter(
            f"{value!r} is not a time above 0; write a number and s, m, h, d or w, such as 7d",
            context,
            parameter,
        )
    return seconds


@click.command("prune")
@options.location()
@click.option(
    "--keep-last", type=click.IntRange(min=1), metavar="N", help="Keep the N highest steps."
)
@click.option(
    "--keep-every", type=click.IntRange(min=1), metavar="N", help="Keep the multiples of N."
)
@click.option(
    "--keep-best", metavar="METRIC", help="Keep the step with the least value of a metric."
)
@click.option("--max", "greatest", is_flag=True, help="With --keep-best: the greatest value.")
@click.option(
    "--newer-than",
    metavar="TIME",
    callback=_age,
    help="Keep what was saved within a time, such as 90m, 12h or 7d.",
)
@options.dry_run
@options.json_output
@options.storage
@options.talk
@click.pass_context
def command(
    context: click.Context,
    location: str,
    keep_last: int | None,
    keep_every: int | None,
    keep_best: str | None,
    greatest: bool,
    newer_than: float | None,
    dry_run: bool,
    as_json: bool,
    storage_options: StorageOptions,
) -> None:
    """Remove the steps of a history that no rule keeps.

    A step stays if any of the rules wants it. Whatever they say, the newest
    step stays, and so does what is pinned (see pin) and what cannot be read.
    Says by which rules each step stays. Does not ask: --dry-run shows what
    would go.
    """
    import ckptstore

    if greatest and keep_best is None:
        raise click.UsageError("--max is for --keep-best", context)
    keep = ckptstore.Keep(
        last=keep_last,
        every=keep_every,
        best=keep_best,
        mode="max" if greatest else "min",
        newer_than=newer_than,
    )
    if keep.everything:
        raise click.UsageError(
            "no rule is given, so nothing would go; give --keep-last, --keep-every, --keep-best "
            "or --newer-than",
            context,
        )
    store = ckptstore.Store(location, storage_options=storage_options.of(location))
    found = store.retain(keep, dry_run=dry_run)
    if as_json:
        screen.print_json(_document(found))
        return
    for line in _lines(found):
        click.echo(line)
    verb = "would remove" if dry_run else "removed"
    say(f"{verb} {screen.plural(len(found.gone), 'step')}, {screen.size(found.nbytes)}")


def _document(found: Retained) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "location": found.location,
        "dry_run": found.dry_run,
        "stays": [{"step": step, "rules": list(rules)} for step, rules in found.stays.items()],
        "gone": [{"step": step, "nbytes": nbytes} for step, nbytes in found.gone.items()],
        "nbytes": found.nbytes,
    }


def _lines(found: Retained) -> Iterator[str]:
    """Yield a line for each step: why it stays, or how much went with it."""
    went = "would go" if found.dry_run else "removed"
    notes = {step: ("stays", ", ".join(rules)) for step, rules in found.stays.items()}
    notes |= {step: (went, screen.size(nbytes)) for step, nbytes in found.gone.items()}
    yield click.style(screen.clean(found.location), bold=True)
    yield from screen.table(
        [(str(step), *notes[step]) for step in sorted(notes)], right=frozenset({0})
    )
