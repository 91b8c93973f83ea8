"""The command line: each command parses, makes one call, and prints.

Rules, kept by every module of this folder:

1. What a command was asked for goes to stdout; messages, warnings and progress go to stderr.
   With ``--json`` stdout holds one JSON document and nothing else.
2. Errors are mapped to one line and an exit code in `ckptstore.cli.group`, and nowhere else.
3. A module imports nothing heavy, and no other command's module.
4. What comes from a checkpoint is text from a stranger: it passes `ckptstore.cli.screen.clean`
   before it reaches a terminal.
"""

from __future__ import annotations

import click

import ckptstore
from ckptstore.cli.group import LazyGroup
from ckptstore.cli.talking import talk

__all__ = ["main"]

# What each command's own help says first: the help of them all imports none of them.
_COMMANDS = {
    "completion": "Print the script that completes commands in a shell.",
    "convert": "Convert SOURCE to the bundle, or to another format.",
    "diff": "Show what differs between two checkpoints.",
    "doctor": "Say what needs mending, and mend it where asked to.",
    "inspect": "Show what a checkpoint holds, without reading its weights.",
    "ls": "List the states of a location.",
    "pin": "Make STEP of a history stay, until its pin is taken away.",
    "plugins": "List the plugins, what they add, and what failed.",
    "prune": "Remove the steps of a history that no rule keeps.",
    "report": "Write all about a checkpoint as one HTML file.",
    "rm": "Delete the checkpoint at LOCATION, or one step of it.",
    "sync": "Make DESTINATION hold the newest state of SOURCE.",
    "tokenizer": "Get the files of a tokenizer, or take them out.",
    "upload": "Copy to TIER what waits for that in LOCATION.",
    "verify": "Prove every byte of a checkpoint against its manifest.",
}


@click.group(
    cls=LazyGroup,
    commands_in=__name__,
    commands=_COMMANDS,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done, 1 failed, 2 usage, 3 not found, 4 damaged, 5 unsafe content "
    "refused, 6 conflict, 130 interrupted.",
)
@click.version_option(ckptstore.__version__, prog_name="ckptstore", message="%(prog)s %(version)s")
@talk
@click.pass_context
def main(context: click.Context) -> None:
    """Look at, move, prove and mend checkpoints, on disk, in S3 or anywhere else.

    A LOCATION is a folder, one legacy .pt file, or any fsspec URL such as
    s3://bucket/dante. Credentials come from the usual AWS and FSSPEC variables.
    """
    from ckptstore.cli.messages import messages

    context.with_resource(messages(context))
    if context.invoked_subcommand is None:
        click.echo(context.get_help(), err=True)
        context.exit(2)
