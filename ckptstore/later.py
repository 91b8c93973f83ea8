"""Tensors that are read when they are written, so that no whole state has to be in memory (G6).

A reader hands them out (`Reader.model_later` and its like), and a format that says so
(`Format.takes_later`) writes them, in the places of tensors in a state dict.

Rule 1: two names of one tensor have one and the same `Later`, and parts of one memory name the
same whole, so that what was tied stays tied. Rule 2: what is checked only as a whole is wrong only
after its last piece, so whoever begins with the pieces of one takes them all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

__all__ = ["Later"]


@dataclass(frozen=True, eq=False)
class Later:
    """A dense tensor, as its bytes that are still to be read.

    Two are equal only where they are one and the same: its identity says what is tied.

    Attributes:
        dtype: torch's name without the prefix, such as ``float32``.
        shape: the size of each dimension.
        nbytes: bytes of its elements.
        pieces: gives its elements in row-major order, as little-endian bytes in pieces of at most
            some MiB, of any length. A piece is good until the next is asked for; the call may be
            made again. Raises what `Reader.load_model` raises.
        whole: what it is a part of, where it shares memory with others: a tensor of ``uint8`` in
            one dimension, the same for all of them. They do not overlap.
        start: where in ``whole`` it begins, in bytes.
    """

    dtype: str
    shape: tuple[int, ...]
    nbytes: int
    pieces: Callable[[], Iterator[memoryview]]
    whole: Later | None = None
    start: int = 0
