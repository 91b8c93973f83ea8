"""``docs/cli.md``: what ``--help`` says, of every command of ``ckptstore`` and ``gpt``.

python -m tests.docs.cli            prints it
python -m tests.docs.cli --write    writes it
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import click

from ckptstore.cli import main as ckptstore_command
from gpt.__main__ import main as gpt_command

PAGE = Path(__file__).parents[2] / "docs" / "cli.md"
_WIDTH = 80
_HEADING = """# What --help says

Of every command, as it stands in the code; `make docs` writes this page. What the commands are for,
and how they are used, is in [Commands](commands.md).
"""


def page() -> str:
    """Return the page as it has to be."""
    groups = {"ckptstore": ckptstore_command, "gpt": gpt_command}
    helps = [part for name, group in groups.items() for part in _helps(name, group, None, "##")]
    return "\n".join([_HEADING, *helps])


def _helps(
    name: str, command: click.Command, parent: click.Context | None, level: str
) -> Iterator[str]:
    settings = {"color": False, "terminal_width": _WIDTH, "max_content_width": _WIDTH}
    # Some of what is set for a group holds for its commands, such as the names of --help.
    with click.Context(
        command, parent, info_name=name, **{**command.context_settings, **settings}
    ) as context:
        lines = "\n".join(line.rstrip() for line in command.get_help(context).splitlines())
        yield f"{level} {context.command_path}\n\n```text\n{lines}\n```\n"
        if isinstance(command, click.Group):
            for inner in command.list_commands(context):
                found = command.get_command(context, inner)
                if found is not None:
                    yield from _helps(inner, found, context, f"{level}#")


def _main(arguments: list[str]) -> int:
    if arguments not in ([], ["--write"]):
        print(__doc__, file=sys.stderr)
        return 2
    if arguments:
        PAGE.write_text(page(), "utf-8")
    else:
        print(page(), end="")
    return 0


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
