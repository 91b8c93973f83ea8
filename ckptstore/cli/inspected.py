"""What ``ckptstore inspect`` prints for people: one section for each thing that is there."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from ckptstore.cli.modules import rows
from ckptstore.cli.screen import (
    clean,
    columns,
    plural,
    shape_text,
    size,
    table,
    value_text,
    when,
    width,
)

if TYPE_CHECKING:
    from ckptstore.checkpoint import Checkpoint
    from ckptstore.manifest import TensorInfo

__all__ = ["TensorSummary", "lines"]

_FINGERPRINT = 24


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


def lines(checkpoint: Checkpoint, with_tensors: bool) -> Iterator[str]:
    """Yield the lines of all sections.

    Args:
        checkpoint: what is shown; only small reads are made.
        with_tensors: whether each tensor has a line.
    """
    tensors = checkpoint.tensors()
    yield click.style(clean(checkpoint.location), bold=True)
    yield from _facts(checkpoint)
    yield from _section("config", _mapping(checkpoint.config, "config.json" in checkpoint.edited))
    yield from _section("tokenizer", _tokenizer(checkpoint))
    yield from _section("training state", _mapping(checkpoint.training_state, False))
    if checkpoint.metrics:
        yield from _section("metrics", _mapping(checkpoint.metrics, False))
    if tensors and not with_tensors:
        yield from _section("modules", table(rows(tensors), right=frozenset({1, 2})))
    yield from _section("tensors", _tensors(tensors, with_tensors))
    yield from _section("files", _files(checkpoint))


def _section(title: str, body: list[str]) -> Iterator[str]:
    yield ""
    yield click.style(title, bold=True)
    yield from body


def _facts(checkpoint: Checkpoint) -> list[str]:
    generation = checkpoint.generation
    made = [when(checkpoint.created)] if checkpoint.created else []
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
    return columns((clean(key), _short(value_text(value), room)) for key, value in values.items())


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
        pairs.append(("fingerprint", _short(clean(checkpoint.fingerprint), _FINGERPRINT)))
    return table(pairs)


def _tensors(tensors: Mapping[str, TensorInfo], each: bool) -> list[str]:
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
    total = "  " + ", ".join(part for part in parts if part)
    if not each:
        return [total]
    listed = [
        (clean(name), clean(info.dtype), shape_text(info.shape), size(info.nbytes))
        for name, info in tensors.items()
    ]
    return [*table(listed, right=frozenset({3})), total]


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


def _short(text: str, room: int) -> str:
    return text if len(text) <= room else f"{text[: max(room - 1, 1)]}…"


def _alert(text: str) -> str:
    return click.style(text, fg="yellow") if text.strip() else text
