"""What the commands have in common: errors, warnings and exit codes.

| what was raised          | stderr                      | exit code         |
|--------------------------|-----------------------------|-------------------|
| a `CkptstoreError`       | ``error: <message>``        | its ``exit_code`` |
| a `ValueError`           | ``error: <message>``        | 2                 |
| a usage error of click's | ``error: … (see … --help)`` | 2                 |
| another `OSError`        | ``error: <file>: <why>``    | 1                 |
| an interrupt             | ``interrupted``             | 130               |

Warnings, and what ckptstore logs from the level of a warning on, are ``warning: …`` lines.
Text out of a checkpoint is text from a stranger: it passes `clean` before it reaches a terminal.
"""

from __future__ import annotations

import errno
import importlib
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

import click

from ckptstore.errors import CkptstoreError
from gpt.ranks import Ranks

__all__ = [
    "SEED",
    "Command",
    "LazyGroup",
    "Refusal",
    "base_dir",
    "clean",
    "fallback",
    "kinds",
    "legacy_checkpoint",
    "mapped",
    "model_name",
    "models",
    "tokenizer_options",
]

SEED = click.IntRange(-(2**63), 2**64 - 1)  # what torch takes

_INTERRUPTED = 130
_LOGGER = "ckptstore"


def models(context: click.Context, option: click.Parameter, incomplete: str) -> list[str]:
    """Return the models in a local base_dir, for the shell to complete."""
    folder = context.params.get("base_dir") or "checkpoints"
    try:
        names = [entry.name for entry in os.scandir(os.path.expanduser(folder)) if entry.is_dir()]
    except OSError:
        return []  # a bucket, or nothing yet
    return sorted(n for n in names if n.startswith(incomplete) and not n.startswith("."))


def kinds(context: click.Context, option: click.Parameter, incomplete: str) -> list[str]:
    """Return the tokenizer kinds, those of plugins too, for the shell to complete."""
    from ckptstore import plugins

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return [kind for kind in plugins.tokenizers() if kind.startswith(incomplete)]
        except CkptstoreError:
            return []


def tokenizer_options(
    context: click.Context, option: click.Parameter, incomplete: str
) -> list[str]:
    """Return the training options of the kind that is asked for, for the shell to complete."""
    from ckptstore import plugins

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found = plugins.tokenizer_options(context.params.get("tokenization") or "char")
        except CkptstoreError:
            return []
    return [f"{name}=" for name in found if name.startswith(incomplete)]


model_name = click.option(
    "--model_name", required=True, metavar="NAME", shell_complete=models, help="Which model."
)
base_dir = click.option(
    "--base_dir",
    default="checkpoints",
    show_default=True,
    metavar="LOCATION",
    shell_complete=click.Path(file_okay=False).shell_complete,
    help="Where models are: a folder, or a URL such as s3://bucket/checkpoints.",
)
legacy_checkpoint = click.option(
    "--legacy_checkpoint",
    metavar="FILE",
    help="A legacy file in the model's folder to use instead, such as final.pt.",
)
fallback = click.option(
    "--fallback",
    is_flag=True,
    help="Where the newest state is damaged, take the newest that is sound, and say so.",
)


class Refusal(click.ClickException):
    """What click prints and exits with when a command ends in an error."""

    def __init__(self, line: str, exit_code: int) -> None:
        super().__init__(line)
        self.exit_code = exit_code

    def show(self, file: IO[Any] | None = None) -> None:
        """Print the line to stderr; an empty one was printed already, or by another rank."""
        if not self.message:
            return
        click.echo(self.message, file=file, err=True)


class Command(click.Command):
    """A command whose errors and warnings are lines on stderr."""

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        """Parse the arguments."""
        with mapped():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        with mapped(), _log_shown(), warnings.catch_warnings():
            # Ours are messages for people, and each is one, whatever else filters are for.
            warnings.filterwarnings("always", category=UserWarning)
            # torch says so wherever numpy is not installed, which nothing here needs.
            warnings.filterwarnings("ignore", "Failed to initialize NumPy")
            warnings.showwarning = _show_warning
            return super().invoke(ctx)


class LazyGroup(click.Group):
    """A group whose commands are in modules that are imported when they are asked for.

    Args:
        modules: command name to module, which holds the command as ``main``.
        lines: command name to what the help of the group says of it.
    """

    def __init__(
        self,
        *args: Any,
        modules: dict[str, str] | None = None,
        lines: dict[str, str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self._modules = modules or {}
        self._lines = lines or {}

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the commands."""
        return list(self._modules)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command by name; None where there is none."""
        module = self._modules.get(cmd_name)
        return None if module is None else importlib.import_module(module).main

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands, and import none of them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(self._lines.items()))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that the arguments name, or suggest the nearest."""
        name = args[0]
        if name not in self._modules and not name.startswith("-") and not ctx.resilient_parsing:
            import difflib

            near = difflib.get_close_matches(name, self._modules, n=1)
            there = (
                f"did you mean {near[0]!r}?" if near else f"there are {', '.join(self._modules)}"
            )
            raise click.UsageError(f"there is no command {name!r}; {there}", ctx)
        return super().resolve_command(ctx, args)

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        """Parse the group's own arguments."""
        with mapped():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command that was asked for."""
        with mapped():
            return super().invoke(ctx)


def clean(text: object, keep: str = "") -> str:
    """Return text that a terminal only shows: control characters as their Python escapes.

    Args:
        text: from anybody.
        keep: control characters that stay.
    """
    return "".join(
        char if char.isprintable() or char in keep else char.encode("unicode_escape").decode()
        for char in str(text)
    )


@contextmanager
def mapped() -> Iterator[None]:
    """Turn what is raised into the line and the exit code of the table above."""
    try:
        yield
    except click.UsageError as error:
        raise Refusal(f"error: {_usage_line(error)}", 2) from error
    except CkptstoreError as error:
        raise Refusal(f"error: {_line(error)}", error.exit_code) from error
    except ValueError as error:
        raise Refusal(f"error: {_line(error)}", 2) from error
    except (KeyboardInterrupt, click.Abort) as error:
        raise Refusal("interrupted", _INTERRUPTED) from error
    except OSError as error:
        if error.errno == errno.EPIPE:
            raise  # click ends quietly when whoever reads our output has left
        raise Refusal(f"error: {_line(error)}", 1) from error


def _line(error: BaseException) -> str:
    if isinstance(error, OSError) and not isinstance(error, CkptstoreError) and error.filename:
        return clean(f"{error.filename}: {error.strerror}")
    return clean("; ".join(line.strip() for line in str(error).splitlines())) or repr(error)


def _usage_line(error: click.UsageError) -> str:
    message = error.format_message().rstrip(".")
    hint = getattr(error, "possibilities", None)
    if hint:  # click's own wording of it has a full stop and brackets of its own
        near = " or ".join(map(repr, sorted(hint)))
        message = f"{error.message.rstrip('.')}; did you mean {near}?"
    help_of = f" (see {error.ctx.command_path} --help)" if error.ctx else ""
    return clean(f"{message[:1].lower()}{message[1:]}{help_of}")


@contextmanager
def _log_shown() -> Iterator[None]:
    """Show the warnings in ckptstore's log as ours, while a command runs."""
    handler = _Handler(logging.WARNING)
    logger = logging.getLogger(_LOGGER)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


class _Handler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        _show_warning(record.getMessage())


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    for line in str(message).splitlines():
        if not _is_to_be_said(line):
            continue
        # On a terminal the bar of a training may stand on this line.
        start = "\r\x1b[2K" if sys.stderr.isatty() else ""
        click.echo(f"{start}warning: {clean(line)}", err=True)


def _is_to_be_said(line: str) -> bool:
    """Whether to print a warning: of several ranks that have the same one does."""
    context = click.get_current_context(silent=True)
    return not isinstance(context and context.obj, Ranks) or context.obj.may_say(line)
