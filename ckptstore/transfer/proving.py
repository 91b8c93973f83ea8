"""That a conversion changed nothing but the layout, seen tensor by tensor."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ckptstore.checkpoint import Checkpoint
from ckptstore.errors import CorruptionError
from ckptstore.transfer.gathering import own_fields
from ckptstore.transfer.report import Proof

__all__ = ["left_out", "proved_same"]


_FACTS: Mapping[str, Callable[[Checkpoint], Any]] = {
    "config": lambda checkpoint: checkpoint.config,
    "tokenizer": lambda checkpoint: checkpoint.tokenizer_state,
    "the tokenizer's fingerprint": lambda checkpoint: checkpoint.fingerprint,
    "step": lambda checkpoint: checkpoint.step,
    "metrics": lambda checkpoint: checkpoint.metrics or None,
    "metrics.jsonl": lambda checkpoint: checkpoint.load_metrics_log() or None,
}


def left_out(before: Checkpoint, after: Checkpoint) -> tuple[str, ...]:
    """Return what a checkpoint held beside tensors and is not in the one that was made of it.

    Formats have no room for some things: a single file has none for metrics.
    """
    lost = [name for name, of in _FACTS.items() if of(before) not in (None, of(after))]
    if before.has_optimizer and not after.has_optimizer:
        lost.append("optimizer")
    kept = own_fields(after)
    states, new = set(after.states()), {*after.states()} - {*before.states()}
    for name, value in own_fields(before).items():
        # What has no room among the fields becomes a state, under its name or nearly that.
        moved = {name, f"{name}_", name.removesuffix("_state_dict")} & new
        if value is not None and kept.get(name) != value and not moved:
            lost.append(f"the field {name}")
    return (*lost, *(f"the state {name}" for name in before.states() if name not in states))


def proved_same(
    before: Checkpoint, after: Checkpoint, parts: Iterable[str]
) -> dict[str, tuple[Proof, ...]]:
    """Return every tensor of a checkpoint that was converted, as it was and as it is, by part.

    Dtypes, shapes and the checksums of their records are compared, and the values where the
    records differ, as those of a view do that was cut out of something larger. Of an optimizer its
    groups are compared too.

    Raises:
        CorruptionError: a tensor is another one now. The conversion is committed.
    """
    found = {}
    for part in parts:
        one, two = before.tensors(part), after.tensors(part)
        if not one:
            continue  # There are none, or the format cannot say which.
        proofs = tuple(Proof(name, info, two[name]) for name, info in one.items() if name in two)
        unsure = [p.name for p in proofs if p.before != p.after or p.before.crc32 is None]
        if (
            one.keys() != two.keys()
            or (part == "optimizer" and not _same_settings(before, after))
            or (unsure and not _same_values(before, after, part, unsure))
        ):
            raise CorruptionError(
                f"{after.location} was made of {before.location} and is committed, but tensors of "
                f"its {part} differ; do not use it, and tell ckptstore's authors",
                committed=True,
            )
        if proofs:
            found[part] = proofs
    return found


def _same_settings(before: Checkpoint, after: Checkpoint) -> bool:
    one, two = before.structure().get("optimizer"), after.structure().get("optimizer")
    return one is None or two is None or (one.groups, one.slots) == (two.groups, two.slots)


def _same_values(before: Checkpoint, after: Checkpoint, part: str, names: list[str]) -> bool:
    from ckptstore import tensors

    def load(checkpoint: Checkpoint) -> Any:
        whole: Mapping[str, Callable[[], Any]] = {
            "model": lambda: checkpoint.load_model(names),
            "optimizer": checkpoint.load_optimizer,
        }
        return whole.get(part, lambda: checkpoint.load_state(part))()

    return tensors.alike(load(before), load(after))
