"""What ``ckptstore inspect`` says: a section for each thing that is there, or a JSON document."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import click

from ckptstore.cli import modules, optimizer, past
from ckptstore.cli.screen import (
    ago,
    clean,
    columns,
    number,
    plural,
    shape_text,
    short,
    size,
    table,
    value_text,
    when,
    width,
)
from ckptstore.structure import kind_of

if TYPE_CHECKING:
    from ckptstore.checkpoint import Checkpoint
    from ckptstore.history import Steps
    from ckptstore.manifest import TensorInfo
    from ckptstore.statistics import Statistics
    from ckptstore.structure import Structure

__all__ = ["SCHEMA", "TensorSummary", "document", "lines"]

SCHEMA = 1
_FINGERPRINT = 24
_MOST_TIES = 5


@dataclass(frozen=True)
class TensorSummary:
    """All tensors of a model taken together.

    Attributes:
        count: how many there are.
        parameters: elements in all of them.
        nbytes: bytes of their elements.
        dtypes: dtype to the number of tensors that have it, the most frequent first.
    """

    count: int
    parameters: int
    nbytes: int
    dtypes: Mapping[str, int]

    @classmethod
    def of(cls, tensors: Mapping[str, TensorInfo]) -> TensorSummary:
        """Return the summary of an index."""
        infos = tensors.values()
        return cls(
            count=len(tensors),
            parameters=sum(math.prod(info.shape) for info in infos),
            nbytes=sum(info.nbytes for info in infos),
            dtypes=dict(Counter(info.dtype for info in infos).most_common()),
        )


def lines(
    checkpoint: Checkpoint,
    chosen: Mapping[str, TensorInfo],
    measured: Mapping[str, Statistics],
    steps: Steps | None = None,
) -> Iterator[str]:
    """Yield the lines of all sections.

    Args:
        checkpoint: what is shown; only small reads are made.
        chosen: the tensors that have a line each; without any the modules are shown.
        measured: what is known of their values.
        steps: of the history that it is a step of.
    """
    tensors = checkpoint.tensors()
    structure = checkpoint.structure()
    yield click.style(clean(checkpoint.location), bold=True)
    yield from _facts(checkpoint, structure)
    told = past.rows(checkpoint, steps)
    if told:
        yield from _section("history", table(told))
    yield from _section("config", _mapping(checkpoint.config, "config.json" in checkpoint.edited))
    yield from _section("tokenizer", _tokenizer(checkpoint))
    yield from _section("training state", _mapping(checkpoint.training_state, False))
    if checkpoint.metrics:
        yield from _section("metrics", _mapping(checkpoint.metrics, False))
    if "optimizer" in structure and structure["optimizer"].groups is not None:
        yield from _section("optimizer", table(optimizer.rows(structure["optimizer"])))
    if tensors and not chosen:
        yield from _section("modules", table(modules.rows(tensors), right=frozenset({1, 2})))
    if chosen:
        yield from _section("tensors", [*_each(chosen, measured), *_total(tensors)])
    else:
        yield from _section("tensors", _total(tensors))
    yield from _sharing(structure.get("model"))
    yield from _section("files", _files(checkpoint))


def document(
    checkpoint: Checkpoint,
    chosen: Mapping[str, TensorInfo],
    measured: Mapping[str, Statistics],
    steps: Steps | None = None,
) -> dict[str, Any]:
    """Return everything as JSON has it; `SCHEMA` changes when a field changes its meaning or goes.

    Args:
        checkpoint: what is shown.
        chosen: the tensors that are listed.
        measured: what is known of their values.
        steps: of the history that it is a step of.
    """
    summary = TensorSummary.of(checkpoint.tensors())
    structure = checkpoint.structure()
    found = {
        "schema": SCHEMA,
        "location": checkpoint.location,
        "format": checkpoint.format,
        "generation": checkpoint.generation,
        "step": checkpoint.step,
        "created": checkpoint.created,
        "writer": checkpoint.writer,
        "proved": checkpoint.proved,
        "edited": checkpoint.edited,
        "passed_over": [asdict(state) for state in checkpoint.passed_over],
        "config": checkpoint.config,
        "tokenizer": checkpoint.tokenizer_state,
        "fingerprint": checkpoint.fingerprint,
        "training_state": checkpoint.training_state,
        "metrics": checkpoint.metrics,
        "history": past.document(checkpoint, steps),
        "has_optimizer": checkpoint.has_optimizer,
        "optimizer": _optimizer_document(structure.get("optimizer")),
        "states": checkpoint.states(),
        "tensors": asdict(summary),
        "ties": structure["model"].ties if "model" in structure else [],
        "unseen": structure["model"].unseen if "model" in structure else {},
        "refers_to": {part: said.refers_to for part, said in structure.items()},
        "files": {name: asdict(info) for name, info in checkpoint.files().items()},
    }
    if chosen:
        found["tensor_index"] = {
            name: {"dtype": info.dtype, "shape": info.shape, "nbytes": info.nbytes}
            for name, info in chosen.items()
        }
    if measured:
        found["statistics"] = {name: _counted(values) for name, values in measured.items()}
    return found


def _counted(values: Statistics) -> dict[str, Any]:
    return {name: value for name, value in asdict(values).items() if name != "histogram"}


def _optimizer_document(structure: Structure | None) -> dict[str, Any] | None:
    if structure is None or structure.groups is None:
        return None
    return {
        "kind": kind_of(structure),
        "groups": [asdict(group) for group in structure.groups],
        "slots": structure.slots,
    }


def _section(title: str, body: list[str]) -> Iterator[str]:
    yield ""
    yield click.style(title, bold=True)
    yield from body


def _facts(checkpoint: Checkpoint, structure: Mapping[str, Structure]) -> list[str]:
    generation = checkpoint.generation
    made = [when(checkpoint.created)] if checkpoint.created else []
    made += [f"({age})"] if checkpoint.created and (age := ago(checkpoint.created)) else []
    made += [f"by {clean(checkpoint.writer)}"] if checkpoint.writer else []
    states = checkpoint.states()
    passed = ", ".join(state.called for state in checkpoint.passed_over)
    pairs = [
        ("format", checkpoint.format + (f", generation {generation}" if generation else "")),
        ("step", "not recorded" if checkpoint.step is None else str(checkpoint.step)),
        *([("saved", " ".join(made))] if made else []),
        ("proof", "manifest" if checkpoint.proved else _alert("not verified: it has no manifest")),
        ("optimizer", _optimizer(checkpoint)),
        *([("states", clean(", ".join(states)))] if states else []),
        *([("pickles", _names(structure))] if _refer(structure) else []),
        *(
            [("edited", _alert(f"{clean(', '.join(checkpoint.edited))}, by hand"))]
            if checkpoint.edited
            else []
        ),
        *([("passed over", _alert(f"{clean(passed)}, damaged"))] if passed else []),
    ]
    return table(pairs)


def _optimizer(checkpoint: Checkpoint) -> str:
    if checkpoint.has_optimizer:
        return "present"
    named = (checkpoint.training_state or {}).get("optimizer_file")
    return _alert("absent, though training_state.json names it") if named else "none"


def _mapping(values: Mapping[str, Any] | None, edited: bool) -> list[str]:
    if values is None:
        return ["  none"]
    if not values:
        return ["  empty"]
    room = width() - 4 - max(len(clean(key)) for key in values)
    return columns((clean(key), short(value_text(value), room)) for key, value in values.items())


def _tokenizer(checkpoint: Checkpoint) -> list[str]:
    state = checkpoint.tokenizer_state
    if state is None:
        return ["  none"]
    from ckptstore import plugins

    pairs = [
        ("kind", value_text(state.get("token_kind"))),
        ("vocabulary", clean(plugins.describe(state))),
    ]
    if checkpoint.fingerprint:
        pairs.append(("fingerprint", short(clean(checkpoint.fingerprint), _FINGERPRINT)))
    return table(pairs)


def _refer(structure: Mapping[str, Structure]) -> bool:
    """Whether there are pickles that refer to anything; formats without any may know of ties."""
    return any(said.refers_to for said in structure.values())


def _names(structure: Mapping[str, Structure]) -> str:
    names = {name for said in structure.values() for name in said.refers_to}
    return f"refer to {plural(len(names), 'name')}, all of tensors and plain data"


def _each(tensors: Mapping[str, TensorInfo], measured: Mapping[str, Statistics]) -> list[str]:
    listed = [
        (clean(name), clean(info.dtype), shape_text(info.shape), size(info.nbytes))
        for name, info in tensors.items()
    ]
    if not measured:
        return table(listed, right=frozenset({3}))
    heads = ("", "", "", "", "min", "max", "mean", "std", "zeros", "NaN", "inf")
    rows = [(*row, *_values(measured[name])) for name, row in zip(tensors, listed, strict=True)]
    alert = {9: _alarm, 10: _alarm}
    return table([heads, *rows], right=frozenset(range(3, len(heads))), style=alert)


def _values(values: Statistics) -> tuple[str, ...]:
    measures = (values.minimum, values.maximum, values.mean, values.std)
    counts = (values.zeros, values.nan, values.inf)
    return (*map(number, measures), *(f"{count:,}" for count in counts))


def _total(tensors: Mapping[str, TensorInfo]) -> list[str]:
    summary = TensorSummary.of(tensors)
    dtypes = (
        dtype if len(summary.dtypes) == 1 else f"{dtype} ({count})"
        for dtype, count in summary.dtypes.items()
    )
    parts = (
        plural(summary.count, "tensor"),
        plural(summary.parameters, "parameter"),
        size(summary.nbytes),
        clean(", ".join(dtypes)),
    )
    return ["  " + ", ".join(part for part in parts if part)]


def _sharing(structure: Structure | None) -> list[str]:
    """Return a line for each group of tensors in one storage, and each view of a larger one."""
    if structure is None:
        return []
    told = [f"  tied: {clean(' = '.join(names))}" for names in structure.ties[:_MOST_TIES]]
    hidden = list(structure.unseen.items())
    told += [
        f"  {clean(name)} is a view: {size(nbytes)} of its storage are in no tensor"
        for name, nbytes in hidden[:_MOST_TIES]
    ]
    more = max(0, len(structure.ties) - _MOST_TIES) + max(0, len(hidden) - _MOST_TIES)
    return [*told, f"  … and {more:,} more; --json lists all"] if more else told


def _alarm(cell: str) -> str:
    count = cell.replace(",", "").strip()
    return click.style(cell, fg="red") if count.isdecimal() and int(count) else cell


def _files(checkpoint: Checkpoint) -> list[str]:
    listed = [
        (clean(name), size(info.size), _notes(name, info.present, checkpoint.edited))
        for name, info in checkpoint.files().items()
    ]
    return table(listed, right=frozenset({1}), style={2: _alert})


def _notes(name: str, present: bool, edited: tuple[str, ...]) -> str:
    if not present:
        return "absent"
    return "edited by hand" if name in edited else ""


def _alert(text: str) -> str:
    return click.style(text, fg="yellow") if text.strip() else text
