"""Whether the checkpoint is what was saved, and whether it is safe: a list, the worst first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ckptstore.errors import UnsafeError
from ckptstore.report.findings import Findings
from ckptstore.report.markup import Html, joined, tag
from ckptstore.wording import plural, size

__all__ = ["BAD", "GOOD", "PLAIN", "WARN", "Item", "items", "panel"]

BAD, WARN, GOOD, PLAIN = "bad", "warn", "good", "plain"
_RANK = (BAD, WARN, GOOD, PLAIN)
_SIGNS = {BAD: "✕", WARN: "!", GOOD: "✓", PLAIN: "·"}
_WORDS = {BAD: "wrong", WARN: "attention", GOOD: "good", PLAIN: "note"}
_MOST = 40


@dataclass(frozen=True)
class Item:
    """One thing that was looked at.

    Attributes:
        state: ``bad``, ``warn``, ``good`` or ``plain``.
        title: what was found.
        text: more of it.
        details: names, shown when asked for.
    """

    state: str
    title: str
    text: str = ""
    details: Sequence[str] = ()


def items(findings: Findings) -> list[Item]:
    """Return what was found, the worst first."""
    found = [
        *_faults(findings),
        *_proof(findings),
        *_pickles(findings),
        *_values(findings),
        *_files(findings),
        *_sharing(findings),
    ]
    return sorted(found, key=lambda item: _RANK.index(item.state))


def panel(findings: Findings) -> Html:
    """Return the list as markup."""
    return tag("ul", *map(_item, items(findings)), class_="panel")


def _item(item: Item) -> Html:
    sign = tag("i", _SIGNS[item.state], role="img", aria_label=_WORDS[item.state])
    text = joined([tag("b", item.title), tag("span", item.text) if item.text else ""])
    more: list[Html] = []
    if item.details:
        names = (tag("li", tag("code", name)) for name in item.details[:_MOST])
        left = len(item.details) - _MOST
        rest = [tag("li", f"and {left:,} more")] if left > 0 else []
        more = [tag("details", tag("summary", "which"), tag("ul", *names, *rest))]
    return tag("li", sign, tag("div", text, *more), class_=item.state)


def _faults(findings: Findings) -> Iterator[Item]:
    for error in findings.faults:
        bad = error.exit_code in (4, 5)
        title = "Not safe to read" if isinstance(error, UnsafeError) else "Damaged"
        yield Item(BAD if bad else WARN, title if bad else "Not read", str(error))


def _proof(findings: Findings) -> Iterator[Item]:
    checkpoint, report = findings.checkpoint, findings.proof
    if not checkpoint.proved:
        yield Item(WARN, "Not verified", "It has no manifest that says what its bytes have to be.")
    if report is not None:
        told = [f"{file.name} {file.where} {file.status} {file.detail}" for file in report.files]
        if not report.sound:
            yield Item(BAD, "Not sound", "Not every file is what was saved.", told)
        elif report.proved:
            words = f"Every file was read, {size(report.read)} of weights, SHA-256 and all."
            yield Item(GOOD, "Every byte proved", words, told)
        if report.view == "damaged":
            words = "The plain files beside the saved state are damaged; the state is not."
            yield Item(WARN, "View damaged", words)
    elif checkpoint.proved and findings.statistics:
        words = "Each chunk was held against the manifest as it was read for this page."
        yield Item(GOOD, "Weights proved", words)
    elif checkpoint.proved:
        words = "A manifest has the digests of all files; none was read for this page."
        yield Item(PLAIN, "Digests recorded", words)
    if checkpoint.passed_over:
        told = [f"{state.called}: {state.reason}" for state in checkpoint.passed_over]
        yield Item(WARN, "Newer states passed over", "They are damaged.", told)


def _pickles(findings: Findings) -> Iterator[Item]:
    names = sorted({name for said in findings.structure.values() for name in said.refers_to})
    if names:
        words = f"They refer to {plural(len(names), 'name')}, all of tensors and plain data."
        yield Item(GOOD, "Pickles are safe", words, names)
    elif not any(isinstance(error, UnsafeError) for error in findings.faults):
        yield Item(PLAIN, "No pickles", "This format has none, or says nothing of them.")


def _values(findings: Findings) -> Iterator[Item]:
    if not findings.statistics:
        return
    lost = {
        name: values for name, values in findings.statistics.items() if values.nan or values.inf
    }
    if not lost:
        yield Item(GOOD, "All values are finite", "There is no NaN and nothing infinite.")
        return
    told = [f"{name}: {v.nan:,} NaN, {v.inf:,} infinite" for name, v in lost.items()]
    words = f"{plural(len(lost), 'tensor')} with NaN or infinite values."
    yield Item(BAD, "Values that are not finite", words, told)


def _files(findings: Findings) -> Iterator[Item]:
    checkpoint = findings.checkpoint
    if checkpoint.edited:
        words = f"{', '.join(checkpoint.edited)} changed since the save; the edit is shown here."
        yield Item(WARN, "Edited by hand", words)
    elif checkpoint.proved:
        yield Item(GOOD, "No hand edits", "The JSON files are those that were saved.")
    absent = [name for name, info in findings.files.items() if not info.present]
    if absent:
        yield Item(WARN, "Files are absent", "The manifest lists them.", absent)


def _sharing(findings: Findings) -> Iterator[Item]:
    model = findings.structure.get("model")
    if model is None:
        return
    if model.ties:
        told = [" = ".join(names) for names in model.ties]
        words = f"{plural(len(told), 'group')} of names for one and the same values."
        yield Item(PLAIN, "Tied tensors", words, told)
    if model.unseen:
        told = [f"{name}: {size(nbytes)}" for name, nbytes in model.unseen.items()]
        words = f"{size(sum(model.unseen.values()))} in the file belong to no tensor: views."
        yield Item(WARN, "Bytes that nobody sees", words, told)
