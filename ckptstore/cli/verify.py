"""``ckptstore verify``: read every byte of a checkpoint and prove it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ckptstore.cli import options, proving, screen
from ckptstore.cli.configured import StorageOptions
from ckptstore.cli.progress import Bar
from ckptstore.errors import CorruptionError

if TYPE_CHECKING:
    from ckptstore.verify import FileReport, Report

__all__ = ["command"]

_COLOURS = {
    "ok": "green",
    "damaged": "red",
    "absent": "yellow",
    "behind": "yellow",
    "not verified": "yellow",
}


def _share(context: click.Context, option: click.Parameter, value: str | None) -> float | None:
    """Return a share that is given in percent, above 0% and at most 100%."""
    if value is None:
        return None
    number, percent, rest = value.partition("%")
    try:
        share = float(number) / 100
    except ValueError:
        share = 0.0
    if not percent or rest or not 0 < share <= 1:
        raise click.BadParameter(
            f"{value!r} is no share such as 5%, above 0% and at most 100%", context, option
        )
    return share


@click.command("verify")
@options.location()
@options.json_output
@click.option(
    "--sample",
    callback=_share,
    metavar="SHARE",
    help="Prove only this share of each file's chunks, such as 5%, chosen at random.",
)
@click.option(
    "--seed", type=int, metavar="N", help="Choose the chunks of the sample that had this seed."
)
@options.step
@click.option("--all", "every", is_flag=True, help="Prove every step of a history, a line each.")
@options.storage
@options.talk
@click.pass_context
def command(
    context: click.Context,
    location: str,
    as_json: bool,
    sample: float | None,
    seed: int | None,
    step: int | None,
    every: bool,
    storage_options: StorageOptions,
) -> None:
    """Prove every byte of a checkpoint against its manifest.

    Exits 0 where the checkpoint is sound and 4 where a file is damaged, in its
    view too. A checkpoint without a manifest is checked as far as its files
    allow.
    """
    import ckptstore

    if seed is not None and sample is None:
        raise click.UsageError("--seed is of a sample; give --sample too", context)
    if every and step is not None:
        raise click.UsageError("--all and --step exclude each other", context)
    if every:
        wrong = proving.prove_all(
            location, sample, seed, storage_options.of(location), as_json=as_json
        )
        context.exit(wrong)
    checkpoint = ckptstore.open(location, step=step, storage_options=storage_options.of(location))
    with Bar() as bar:
        report = checkpoint.verify(sample=sample, seed=seed, progress=bar)
    if as_json:
        screen.print_json(proving.document(report))
    else:
        for line in _lines(report):
            click.echo(line)
    if proving.is_damaged(report):
        context.exit(CorruptionError.exit_code)


def _lines(report: Report) -> list[str]:
    return [*_files(report), f"{screen.clean(report.location)}: {proving.verdict(report)}"]


def _files(report: Report) -> list[str]:
    """Return a line for each file; its detail beside it, or below where the screen is narrow."""
    details = [screen.clean(file.detail) for file in report.files]
    rows = [(screen.clean(_called(file)), file.status) for file in report.files]
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


def _called(file: FileReport) -> str:
    return f"view: {file.name}" if file.where == "view" else file.name


def _coloured(status: str) -> str:
    return click.style(status, fg=_COLOURS.get(status.strip()))
