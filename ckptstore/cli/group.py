"""The group of commands: each is imported when it is asked for, and errors are mapped here.

Help and completion of the commands' names import none of them, and nothing else that click does
not need: what this module takes from elsewhere it imports where it needs it.

| what was raised            | stderr                      | exit code         |
|----------------------------|-----------------------------|-------------------|
| a `CkptstoreError`         | ``error: <message>``        | its ``exit_code`` |
| a usage error of click's   | ``error: … (see … --help)`` | 2                 |
| an interrupt               | ``interrupted``             | 130               |
| another `OSError`          | ``error: <file>: <reason>`` | 1                 |
| a closed pipe on stdout    | nothing                     | 1                 |
| anything else              | a traceback: it is a bug    | 1                 |
"""

from __future__ import annotations

import errno
import importlib
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any

import click

from ckptstore.errors import CkptstoreError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

__all__ = ["LazyGroup", "error_line"]

INTERRUPTED = 130
_URL = re.compile(r"[A-Za-z][\w+.:-]*://[^\s'\"]+")


class Refusal(click.ClickException):
    """What click prints and exits with when a command ends in an error."""

    def __init__(self, line: str, exit_code: int) -> None:
        super().__init__(line)
        self.exit_code = exit_code  # type: ignore[misc]  # the class attribute is a default

    def show(self, file: IO[Any] | None = None) -> None:
        """Print the line to stderr."""
        click.echo(self.message, file=file, err=True)


class LazyGroup(click.Group):
    """A group whose commands are modules, imported on demand.

    Args:
        commands_in: the package that holds a module for each command.
        commands: their names, and what the help of the group says of each; module ``x`` holds
            the command ``x`` as ``command``.
    """

    def __init__(
        self,
        *,
        commands_in: str = "",
        commands: Mapping[str, str] | None = None,
        **attributes: Any,
    ) -> None:
        super().__init__(**attributes)
        self._package = commands_in
        self._lines = dict(sorted((commands or {}).items()))

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the commands, sorted."""
        return list(self._lines)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command by name; None where there is none."""
        if cmd_name not in self._lines:
            return None
        command: click.Command = importlib.import_module(f"{self._package}.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands, and import none of them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(self._lines.items()))

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete the name of a command or an option, and import no command."""
        from click.shell_completion import CompletionItem

        names = [
            CompletionItem(name, help=line)
            for name, line in self._lines.items()
            if name.startswith(incomplete)
        ]
        return [*names, *click.Command.shell_complete(self, ctx, incomplete)]

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that the arguments name, or suggest the nearest."""
        name = args[0]
        if name not in self._lines and not name.startswith("-") and not ctx.resilient_parsing:
            import difflib

            near = difflib.get_close_matches(name, self._lines, n=1)
            there = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(self._lines)}"
            raise click.UsageError(f"there is no command {name!r}; {there}", ctx)
        return super().resolve_command(ctx, args)

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,
    ) -> click.Context:
        """Parse the group's own options; colours are as the environment asks for them."""
        extra.setdefault("color", _coloured())
        with _mapped():
            return super().make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command that was asked for."""
        from ckptstore.cli.interrupts import after_imports

        with _mapped(), after_imports():
            return super().invoke(ctx)


def error_line(error: BaseException) -> str:
    """Return an error of ours, or of the operating system, as one line without a prefix."""
    from ckptstore.cli.screen import clean

    if isinstance(error, OSError) and not isinstance(error, CkptstoreError) and error.filename:
        return clean(f"{error.filename}: {error.strerror}")
    lines = str(error).splitlines()
    said = clean("; ".join(line.strip() for line in lines if line.strip())) or repr(error)
    # What was typed in a wrong place, such as a location for the name of a format, comes back.
    return _discreet(said, queries_too=False)


def _coloured() -> bool | None:
    """Return whether there are colours; None: on terminals only."""
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return False if os.environ.get("TERM") == "dumb" else None


@contextmanager
def _mapped() -> Iterator[None]:
    try:
        yield
    except click.UsageError as error:
        raise Refusal(f"error: {_usage_line(error)}", 2) from error
    except CkptstoreError as error:
        raise Refusal(f"error: {error_line(error)}", error.exit_code) from error
    except (KeyboardInterrupt, click.Abort) as error:
        raise Refusal("interrupted", INTERRUPTED) from error
    except OSError as error:
        if error.errno == errno.EPIPE:
            raise  # click ends quietly when whoever reads our output has left
        raise Refusal(f"error: {error_line(error)}", 1) from error


def _usage_line(error: click.UsageError) -> str:
    from ckptstore.cli.screen import clean

    message = error.format_message().rstrip(".")
    near = getattr(error, "possibilities", None)
    if near:  # click's own wording of it has a full stop and brackets of its own
        those = " or ".join(map(repr, sorted(near)))
        message = f"{error.message.rstrip('.')}; did you mean {those}?"
    help_of = f" (see {error.ctx.command_path} --help)" if error.ctx else ""
    message = re.sub(r"\s*\n\s*", " ", message)
    return clean(f"{_discreet(message[:1].lower() + message[1:])}{help_of}")


def _discreet(message: str, *, queries_too: bool = True) -> str:
    """Return what may quote a command line, with its URLs as people may see them."""
    from ckptstore.storage.shown import without_secrets, without_users

    shown = without_secrets if queries_too else without_users
    return _URL.sub(lambda match: shown(match[0]), message)
