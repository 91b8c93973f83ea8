"""``ckptstore tokenizer fetch``: have the files of a tokenizer on this machine."""

from __future__ import annotations

import shlex

import click

from ckptstore.cli import completing, options, screen
from ckptstore.cli.messages import say
from ckptstore.cli.progress import Bar

__all__ = ["command"]


@click.command("fetch")
@click.argument("kind", default="gpt2", shell_complete=completing.kinds)
@click.option(
    "--to",
    "folder",
    metavar="FOLDER",
    shell_complete=completing.locations,
    help="Where to; by default where the files are looked for anyhow.",
)
@options.json_output
@options.talk
def command(kind: str, folder: str | None, as_json: bool) -> None:
    """Download the files of a tokenizer to this machine.

    KIND is gpt2, or a plugin's kind that has such files. Each is proved, and
    there whole or not at all; what is there already is not asked for again.
    """
    from ckptstore import plugins

    with Bar() as bar:
        fetched = plugins.fetch_files(kind, folder, progress=bar)
    if as_json:
        screen.print_json(
            {
                "kind": kind,
                "folder": fetched.folder,
                "files": list(fetched.files),
                "fetched": list(fetched.new),
                "variables": dict(fetched.variables),
            }
        )
        return
    held = screen.plural(len(fetched.files), "file")
    new = f"fetched {screen.plural(len(fetched.new), 'file')} of {held}"
    say(f"{fetched.folder}: {new if fetched.new else f'all of {held} there already'}")
    for variable, value in fetched.variables.items():
        say(f"to use them set {variable}={shlex.quote(value)}")
    if fetched.hint:
        say(fetched.hint)
