"""What waits to be copied to a tier, on one line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ckptstore.cli.messages import is_quiet
from ckptstore.cli.screen import clean, plural

if TYPE_CHECKING:
    from ckptstore.tiers.byhand import Waiting

__all__ = ["tell_what_waits", "waiting_line"]

_MOST = 8


def waiting_line(row: Waiting) -> str:
    """Return what waits for a tier."""
    steps = ", ".join(map(str, row.steps[-_MOST:]))
    more = "…, " if len(row.steps) > _MOST else ""
    named = f" (step{'s' if len(row.steps) > 1 else ''} {more}{steps})" if row.steps else ""
    back = f", and going back to step {row.rewinds[-1]}," if row.rewinds else ""
    verb = "waits" if row.count == 1 and not row.rewinds else "wait"
    return f"{plural(row.count, 'save')}{named}{back} {verb} to be copied to {clean(row.tier)}"


def tell_what_waits(location: str, storage_options: dict[str, Any]) -> None:
    """Say on stderr what waits in a location, where it is a folder of this machine."""
    from ckptstore.tiers import byhand

    if is_quiet():
        return
    for row in byhand.waiting(location, storage_options=storage_options):
        line = f"{waiting_line(row)} (ckptstore upload {clean(location)})"
        click.echo(click.style(line, fg="yellow"), err=True)
