"""What a transfer did, for whoever asked for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ckptstore.manifest import TensorInfo

__all__ = ["Proof", "Transfer"]


@dataclass(frozen=True)
class Proof:
    """A tensor that is the same before and after a conversion.

    Attributes:
        name: of the tensor.
        before, after: dtype, shape, bytes and the CRC-32 of the record that holds it, as each side
            has them. Where the records differ, because one holds more than the tensor shows, the
            values themselves were compared.
    """

    name: str
    before: TensorInfo
    after: TensorInfo


@dataclass(frozen=True)
class Transfer:
    """What `sync` or `convert` did, or would do.

    Attributes:
        source: where the checkpoint came from, for people.
        destination: where it is now.
        step: of the checkpoint.
        generation: the generation that was committed; None in a history, in a dry run, and
            where nothing changed.
        copied: the files that were written.
        spared: the files whose bytes were there already.
        copied_bytes: bytes written.
        spared_bytes: bytes not moved.
        edited: JSON files whose hand edit was carried over.
        changed: whether the destination is another state now.
        proofs: of a conversion, the tensors that were seen to be the same before and after, by
            part: ``model``, ``optimizer``, and names of states.
        left_out: of a conversion, what the source holds and the result does not, such as
            ``metrics``; in a dry run None where it cannot be said yet.
    """

    source: str
    destination: str
    step: int | None
    generation: int | None
    copied: tuple[str, ...]
    spared: tuple[str, ...]
    copied_bytes: int
    spared_bytes: int
    edited: tuple[str, ...]
    changed: bool
    proofs: Mapping[str, tuple[Proof, ...]] = field(default_factory=dict)
    left_out: tuple[str, ...] | None = ()
