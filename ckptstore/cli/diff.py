"""``ckptstore diff``: what two checkpoints do not have in common."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from ckptstore.cli import options, screen
from ckptstore.cli.configured import StorageOptions
from ckptstore.cli.near import matching, none_like
from ckptstore.cli.progress import Bar
from ckptstore.cli.screen import (
    clean,
    fits,
    number,
    plural,
    shape_text,
    short,
    table,
    value_text,
    width,
)

if TYPE_CHECKING:
    from ckptstore.differences import Change, Difference, TensorChange

__all__ = ["command"]

SCHEMA = 1
_MOST_TENSORS = 20
_SIGNS = {"added": "+", "removed": "-", "changed": "~", "reshaped": "~"}
_COLOURS = {"+": "green", "-": "red", "~": "yellow"}


@click.command("diff")
@options.location("before")
@options.location("after")
@options.json_output
@options.tensors
@click.option(
    "--stats",
    is_flag=True,
    help="Tell how far changed tensors are apart: relative L2 and cosine. Reads these.",
)
@click.option("--exit-code", is_flag=True, help="Exit with 1 where something differs.")
@options.storage
@options.talk
@click.pass_context
def command(
    context: click.Context,
    before: str,
    after: str,
    as_json: bool,
    pattern: str | None,
    stats: bool,
    exit_code: bool,
    storage_options: StorageOptions,
) -> None:
    """Show what differs between two checkpoints.

    No weights are read. Config, tokenizer, training state and the optimizer's
    settings as they were and as they are; tensors by their checksums. BEFORE
    and AFTER may be of any format, on any storage.
    """
    import ckptstore

    with Bar() as bar:
        found = ckptstore.diff(
            before,
            after,
            statistics=stats,
            storage_options=storage_options.of(before),
            after_options=storage_options.of(after),
            progress=bar,
        )
    if as_json:
        screen.print_json(_document(found))
    else:
        for line in _lines(found, pattern):
            click.echo(line)
    if exit_code and not found.same:
        context.exit(1)


def _lines(found: Difference, pattern: str | None) -> Iterator[str]:
    yield click.style(f"{clean(found.before)} -> {clean(found.after)}", bold=True)
    for name, changes in found.json.items():
        if changes:
            yield from ("", click.style(name, bold=True))
            yield from table([_row(change) for change in changes], style={0: _sign})
    for part in found.tensors:
        yield from _part(found, part, pattern)
    if found.same:
        yield from ("", "nothing differs")


def _row(change: Change) -> tuple[str, str, str]:
    from ckptstore.differences import ABSENT

    old, new = change.before, change.after
    sign = "+" if old is ABSENT else "-" if new is ABSENT else "~"
    room = width() // 2 - 4
    values = [short(value_text(value), room) for value in (old, new) if value is not ABSENT]
    return sign, clean(change.path), " -> ".join(values)


def _part(found: Difference, part: str, pattern: str | None) -> Iterator[str]:
    changes, alike, unsure = found.tensors[part], found.alike[part], found.unsure[part]
    counts = dict.fromkeys(_COLOURS, 0)
    for change in changes:
        counts[_SIGNS[change.kind]] += 1
    words = zip(("added", "removed", "changed"), counts.values(), strict=True)
    said = [plural(alike, "tensor") + " the same", *(f"{n:,} {word}" for word, n in words if n)]
    if unsure:
        said.append(f"{len(unsure):,} without checksums")
    yield from ("", click.style(f"tensors of the {clean(part)}", bold=True))
    only = _only_side(found, part)
    if only and not pattern:
        yield from table([(*only, plural(len(changes), "tensor"))], style={0: _sign})
        return
    named = {change.name: change for change in changes}
    chosen = list(matching(named, pattern or "*").values())
    if changes and not chosen:
        yield f"  {clean(none_like(pattern or '', named, 'tensor that changed'))}"
    shown = chosen if pattern else chosen[:_MOST_TENSORS]
    yield from _tensor_lines(shown)
    if len(shown) < len(chosen):
        yield f"  … and {len(chosen) - len(shown):,} more; --tensors lists all"
    yield f"  {', '.join(said)}"


def _only_side(found: Difference, part: str) -> tuple[str, str] | None:
    """Return the sign and the words for a part that one side alone has."""
    kinds = {change.kind for change in found.tensors[part]}
    if len(kinds) != 1 or found.alike[part] or found.unsure[part]:
        return None
    sides = {"removed": found.before, "added": found.after}
    (kind,) = kinds
    return (_SIGNS[kind], f"only in {clean(sides[kind])}") if kind in sides else None


def _tensor_lines(changes: Sequence[TensorChange]) -> list[str]:
    """Return a line for each tensor; on a narrow screen its form gives way to its distance."""
    rows = [_tensor_row(change) for change in changes]
    lines = table(rows, style={0: _sign})
    if fits(lines):
        return lines
    rows = [(sign, name, told or form, "") for sign, name, form, told in rows]
    return table(rows, style={0: _sign})


def _tensor_row(change: TensorChange) -> tuple[str, str, str, str]:
    forms = [
        f"{clean(info.dtype)} {shape_text(info.shape)}"
        for info in (change.before, change.after)
        if info is not None
    ]
    apart = change.distance
    told = ""
    if apart is not None:
        told = f"relative L2 {number(apart.relative_l2)}, cosine {number(apart.cosine)}"
    return _SIGNS[change.kind], clean(change.name), " -> ".join(dict.fromkeys(forms)), told


def _sign(cell: str) -> str:
    return click.style(cell, fg=_COLOURS.get(cell.strip()))


def _document(found: Difference) -> dict[str, Any]:
    from ckptstore.differences import ABSENT

    def change_of(change: Change) -> dict[str, Any]:
        sides = {"before": change.before, "after": change.after}
        return {"path": change.path, **{k: v for k, v in sides.items() if v is not ABSENT}}

    return {
        "schema": SCHEMA,
        "before": found.before,
        "after": found.after,
        "same": found.same,
        "changes": {name: [change_of(c) for c in changes] for name, changes in found.json.items()},
        "tensors": {
            part: {
                "alike": found.alike[part],
                "unsure": found.unsure[part],
                "changed": [{"kind": change.kind, **asdict(change)} for change in changes],
            }
            for part, changes in found.tensors.items()
        },
    }
