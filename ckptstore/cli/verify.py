"""``ckptstore verify``: read every byte of a checkpoint and prove it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ckptstore.cli import options, screen
from ckptstore.cli.progress import Bar
from ckptstore.errors import CorruptionError

if TYPE_CHECKING:
    from ckptstore.verify import Report

__all__ = ["command"]

_COLOURS = {"ok": "green", "damaged": "red", "absent": "yellow", "not verified": "yellow"}


@click.command("verify")
@click.argument("location")
@options.json_output
@options.step
@options.storage
@options.talk
@click.pass_context
def command(
    context: click.Context,
    location: str,
    as_json: bool,
    step: int | None,
    storage_options: dict[str, Any] | None,
) -> None:
    """Prove every byte of a checkpoint against its manifest.

    Exits 0 where the checkpoint is sound and 4 where a file is damaged. A
    checkpoint without a manifest is checked as far as its files allow.
    """
    import ckptstore

    checkpoint = ckptstore.open(location, step=step, storage_options=storage_options)
    with Bar() as bar:
        report = checkpoint.verify(progress=bar)
    if as_json:
        screen.print_json(_document(report))
    else:
        for line in _lines(report):
            click.echo(line)
    if not report.sound:
        context.exit(CorruptionError.exit_code)


def _document(report: Report) -> dict[str, Any]:
    return {
        "location": report.location,
        "sound": report.sound,
        "proved": report.proved,
        "files": [
            {"name": file.name, "status": file.status, "detail": file.detail}
            for file in report.files
        ],
    }


def _lines(report: Report) -> list[str]:
    if not report.sound:
        verdict = click.style("damaged", fg="red")
    elif report.proved:
        verdict = click.style("sound", fg="green") + ", proved against its manifest"
    else:
        verdict = click.style("not verified", fg="yellow") + ": it has no manifest to prove it by"
    return [
        *_files(report),
        f"{screen.clean(report.location)}: {verdict}",
    ]


def _files(report: Report) -> list[str]:
    """Return a line for each file; its detail beside it, or below where the screen is narrow."""
    details = [screen.clean(file.detail) for file in report.files]
    rows = [(screen.clean(file.name), file.status) for file in report.files]
    lines = screen.table(rows, style={1: _coloured})
    beside = [f"{line}  {detail}".rstrip() for line, detail in zip(lines, details, strict=True)]
    if all(len(click.unstyle(line)) <= screen.width() for line in beside):
        return beside
    return [
        text
        for line, detail in zip(lines, details, strict=True)
        for text in (line, f"    {detail}")
        if text.strip()
    ]


def _coloured(status: str) -> str:
    return click.style(status, fg=_COLOURS.get(status.strip()))
