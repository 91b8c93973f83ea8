"""``ckptstore report``: a checkpoint as one HTML file."""

from __future__ import annotations

import sys

import click

from ckptstore.cli import options
from ckptstore.cli.configured import StorageOptions
from ckptstore.cli.messages import is_quiet
from ckptstore.cli.progress import Bar
from ckptstore.cli.screen import clean, size

__all__ = ["command"]


@click.command("report")
@options.location()
@options.location("other", required=False)
@click.option(
    "--html",
    "file",
    required=True,
    metavar="FILE",
    help="Where to write the report; - is stdout. An earlier report there is replaced.",
)
@click.option("--overwrite", is_flag=True, help="Replace FILE even if it is no report.")
@click.option("--verify", is_flag=True, help="Prove every file first, and show what was found.")
@click.option("--no-weights", is_flag=True, help="Read no weights: no histograms, no distances.")
@options.step
@options.fallback
@options.storage
@options.talk
@click.pass_context
def command(
    context: click.Context,
    location: str,
    other: str | None,
    file: str,
    overwrite: bool,
    verify: bool,
    no_weights: bool,
    step: int | None,
    fallback: bool,
    storage_options: StorageOptions,
) -> None:
    """Write all about a checkpoint as one HTML file.

    Sizes by module, histograms of the weights, the curves of the run,
    integrity and safety, config and tokenizer. With OTHER also how far each
    matrix is from what it is there. The file needs no network and runs nothing.
    """
    from ckptstore import report

    options.no_step_and_fallback(context, step, fallback)
    if file != "-":
        report.check_free(file, overwrite=overwrite)
    with Bar() as bar:
        findings = report.gather(
            location,
            other,
            step=step,
            fallback=fallback,
            weights=not no_weights,
            verify=verify,
            storage_options=storage_options.of(location),
            other_options=None if other is None else storage_options.of(other),
            progress=bar,
        )
    text = report.html_of(findings)
    if file == "-":
        click.echo(_for_stdout(text), nl=False)
    else:
        report.write(text, file, overwrite=overwrite)
        if not is_quiet():
            click.echo(f"wrote {clean(file)}, {size(len(text.encode()))}", err=True)
    if findings.fault is not None:
        raise findings.fault


def _for_stdout(page: str) -> str:
    """Return a page whose letters any stdout can encode, as the UTF-8 that it says it is."""
    if (sys.stdout.encoding or "").lower().replace("-", "") == "utf8":
        return page
    return page.encode("ascii", "xmlcharrefreplace").decode()
