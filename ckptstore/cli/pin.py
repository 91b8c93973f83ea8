"""``ckptstore pin``: have a step stay, or let it go again."""

from __future__ import annotations

import click

from ckptstore.cli import completing, options
from ckptstore.cli.configured import StorageOptions
from ckptstore.cli.messages import say

__all__ = ["command"]


@click.command("pin")
@options.location()
@click.argument("step", type=click.IntRange(min=0), shell_complete=completing.steps)
@click.option("--remove", is_flag=True, help="Take the pin away again.")
@options.storage
@options.talk
def command(location: str, step: int, remove: bool, storage_options: StorageOptions) -> None:
    """Make STEP of a history stay, until its pin is taken away.

    No policy of retention removes a pinned step, and rm, going back before it
    and replacing it refuse. A pin is a small file beside the manifest, which is
    not changed. A step that is pinned already stays so.
    """
    import ckptstore

    store = ckptstore.Store(location, storage_options=storage_options.of(location))
    if not remove:
        store.pin(step)
        say(f"step {step} is pinned")
    elif store.unpin(step):
        say(f"step {step} is not pinned any more")
    else:
        say(f"step {step} was not pinned")
