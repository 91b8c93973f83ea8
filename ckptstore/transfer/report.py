"""What a transfer did, for whoever asked for it."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Transfer"]


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
