"""That a conversion changed nothing but the layout, seen tensor by tensor."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ckptstore.checkpoint import Checkpoint
from ckptstore.errors import CorruptionError
from ckptstore.transfer.report import Proof

__all__ = ["proved_same"]


def proved_same(before: Checkpoint, after: Checkpoint) -> dict[str, tuple[Proof, ...]]:
    """Return every tensor of a checkpoint that was converted, as it was and as it is, by part.

    Dtypes, shapes and the checksums of their records are compared, and the values where the
    records differ, as those of a view do that was cut out of something larger.

    Raises:
        CorruptionError: a tensor is another one now. The conversion is committed.
    """
    found = {}
    for part in before.parts():
        one, two = before.tensors(part), after.tensors(part)
        if not one:
            continue  # There are none, or the format cannot say which.
        proofs = tuple(Proof(name, info, two[name]) for name, info in one.items() if name in two)
        unsure = [p.name for p in proofs if p.before != p.after or p.before.crc32 is None]
        if one.keys() != two.keys() or (unsure and not _same_values(before, after, part, unsure)):
            raise CorruptionError(
                f"{after.location} was made of {before.location} and is committed, but tensors of "
                f"its {part} differ; do not use it, and tell ckptstore's authors",
                committed=True,
            )
        if proofs:
            found[part] = proofs
    return found


def _same_values(before: Checkpoint, after: Checkpoint, part: str, names: list[str]) -> bool:
    from ckptstore import tensors

    def load(checkpoint: Checkpoint) -> Any:
        whole: Mapping[str, Callable[[], Any]] = {
            "model": lambda: checkpoint.load_model(names),
            "optimizer": checkpoint.load_optimizer,
        }
        return whole.get(part, lambda: checkpoint.load_state(part))()

    return tensors.alike(load(before), load(after))
