"""What ``verify`` says of a report, and of all states of a location one after the other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ckptstore.cli import screen
from ckptstore.cli.group import error_line
from ckptstore.cli.progress import Bar
from ckptstore.errors import CorruptionError

if TYPE_CHECKING:
    from ckptstore.history import Proved
    from ckptstore.verify import Report

__all__ = ["document", "is_damaged", "prove_all", "verdict"]


def prove_all(
    location: str,
    sample: float | None,
    seed: int | None,
    storage_options: dict[str, Any] | None,
    *,
    as_json: bool,
) -> int:
    """Prove every state and print a line for each; return the exit code, the highest of all.

    Args:
        location: whose states.
        sample: the share of each file's chunks to read; all by default.
        seed: of the sample.
        storage_options: what fsspec's filesystem takes.
        as_json: print one document instead.
    """
    from ckptstore import history

    found: list[Proved] = []
    with Bar() as bar:
        for proved in history.prove_each(
            location, sample=sample, seed=seed, storage_options=storage_options, progress=bar
        ):
            found.append(proved)
            if not as_json:
                bar.clear()
                _print(proved)
    wrong = [proved for proved in found if _code(proved)]
    if as_json:
        screen.print_json(
            {"location": _shown(location), "sound": not wrong, "states": [*map(_entry, found)]}
        )
    else:
        _print_sum(_shown(location), found, wrong)
    return max(map(_code, found), default=0)


def is_damaged(report: Report) -> bool:
    """Whether the state is damaged, or what other programs see of it."""
    return not report.sound or report.view == "damaged"


def document(report: Report) -> dict[str, Any]:
    """Return a report as JSON has it."""
    sample = report.sample
    return {
        "location": report.location,
        "sound": report.sound,
        "proved": report.proved,
        "view": report.view or None,
        "sample": None if sample is None else {"share": sample.share, "seed": sample.seed},
        "read": report.read,
        "size": report.size,
        "files": [
            {
                "name": file.name,
                "where": file.where or None,
                "status": file.status,
                "detail": file.detail,
            }
            for file in report.files
        ],
    }


def verdict(report: Report) -> str:
    """Return what is to be said of a checkpoint as a whole."""
    if not report.sound:
        return click.style("damaged", fg="red")
    return f"{_state(report)}{_view(report)}"


def _state(report: Report) -> str:
    if report.sample is not None:
        share = report.read / report.size if report.size else 1.0
        found = "no damage found" if report.proved else "not verified"
        return (
            f"{click.style(found, fg='yellow')}: a sample of {screen.size(report.read)} of "
            f"{screen.size(report.size)} ({share:.1%}) was read, --seed {report.sample.seed} reads "
            "the same; the rest and the SHA-256 of whole files were not proved"
        )
    if report.proved:
        return click.style("sound", fg="green") + ", proved against its manifest"
    return click.style("not verified", fg="yellow") + ": it has no manifest to prove it by"


def _view(report: Report) -> str:
    if report.view == "behind":
        return f"; its view is {click.style('behind', fg='yellow')}"
    if report.view != "damaged":
        return ""
    cure = f"ckptstore doctor --restore {screen.clean(report.location)} puts it back"
    return f"; but its view is {click.style('damaged', fg='red')}: {cure}"


def _shown(location: str) -> str:
    from ckptstore.storage.shown import without_secrets

    return without_secrets(location)


def _code(proved: Proved) -> int:
    if proved.error is not None:
        return proved.error.exit_code
    damaged = proved.report is not None and is_damaged(proved.report)
    return CorruptionError.exit_code if damaged else 0


def _entry(proved: Proved) -> dict[str, Any]:
    return {
        "called": proved.called,
        "step": proved.step,
        "error": None if proved.error is None else error_line(proved.error),
        "report": None if proved.report is None else document(proved.report),
    }


def _print(proved: Proved) -> None:
    report = proved.report
    if report is None:
        said = error_line(proved.error) if proved.error is not None else ""
        click.echo(f"{proved.called}: {click.style('damaged', fg='red')}: {said}")
        return
    click.echo(f"{proved.called}: {verdict(report)}")
    for file in report.files:
        if file.status not in ("ok", "behind", "not verified"):
            name = f"view: {file.name}" if file.where == "view" else file.name
            click.echo(f"  {screen.clean(name)}  {file.status}  {screen.clean(file.detail)}")


def _print_sum(location: str, found: list[Proved], wrong: list[Proved]) -> None:
    sound = len(found) - len(wrong)
    said = f"{screen.clean(location)}: {sound:,} of {screen.plural(len(found), 'state')} sound"
    if wrong:
        named = ", ".join(proved.called for proved in wrong)
        said += f"; {click.style('damaged', fg='red')}: {named}"
    click.echo(said)
