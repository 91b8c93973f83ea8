"""Looks at the values of tensors, a piece at a time, in double precision."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from ckptstore.digests import Chunks
from ckptstore.errors import UnsupportedError
from ckptstore.later import Later
from ckptstore.statistics import Distance, Statistics
from ckptstore.tensors.memory import bytes_of
from ckptstore.tensors.spread import Spread

__all__ = ["alike", "distance", "imprint", "rows_of", "statistics"]

_PIECE = 2**22
_COMPARED = 2**18


def statistics(tensor: torch.Tensor, bins: int | None = None) -> Statistics:
    """Return what the values of a tensor are like; of one on the meta device nothing is known.

    Args:
        tensor: looked through once, a piece at a time.
        bins: the most intervals of a histogram; without, there is none.

    Raises:
        UnsupportedError: it shows far more values than its storage has.
    """
    total = _Sums(spread=None if bins is None else Spread())
    for piece in _pieces(tensor):
        total.add(piece)
    repeated = _repeats(tensor)
    if tensor.layout is not torch.strided and not tensor.is_nested:
        total.add_zeros(tensor.numel() - total.seen)
    if not total.count:
        return Statistics(None, None, None, None, total.nan, total.inf, total.zeros)
    return Statistics(
        total.low,
        total.high,
        total.mean,
        math.sqrt(total.squares / total.count),
        total.nan * repeated,
        total.inf * repeated,
        total.zeros * repeated,
        total.spread.histogram(bins, repeated) if total.spread and bins else None,
    )


def alike(one: Any, two: Any) -> bool:
    """Whether two objects hold the same: containers, plain values, and tensors bit for bit.

    A `Later` is a tensor too, of which a few MiB are in memory at a time.
    """
    if isinstance(one, Later) or isinstance(two, Later):
        return _form(one) == _form(two) and _same_bytes(rows_of(one), rows_of(two))
    if isinstance(one, torch.Tensor) and isinstance(two, torch.Tensor):
        form = (one.dtype, one.shape, one.layout) == (two.dtype, two.shape, two.layout)
        if not form or one.is_meta or one.is_quantized:
            return form and (one.is_meta or torch.equal(one, two))
        if one.is_nested:
            return alike(list(one.unbind()), list(two.unbind()))
        if one.layout is not torch.strided:
            return alike(_made_of(one), _made_of(two))
        # What both show many times is compared once.
        steps = zip(one.stride(), two.stride(), strict=True)
        once = tuple(slice(None if any(pair) else 1) for pair in steps)
        pairs = zip(_parts(one.detach()[once]), _parts(two.detach()[once]), strict=True)
        return all(torch.equal(_bytes(mine), _bytes(theirs)) for mine, theirs in pairs)
    if isinstance(one, Mapping) and isinstance(two, Mapping):
        return one.keys() == two.keys() and all(alike(one[key], two[key]) for key in one)
    if isinstance(one, (list, tuple)) and isinstance(two, (list, tuple)):
        return len(one) == len(two) and all(map(alike, one, two))
    return bool(one == two or (one != one and two != two))


def imprint(value: Any, *, once: bool = False) -> Any:
    """Return an object with a checksum of its bytes in the place of each tensor.

    Two imprints are `alike` where their objects are, and need not be in memory at once. That of a
    `Later` is the one of its tensor.

    Args:
        value: tensors, in containers of any depth.
        once: look once at what a tensor shows many times. Then two are alike where their objects
            are and repeat the same; one that holds all that another repeats has another imprint.
    """
    if isinstance(value, Later):
        chunks = Chunks()
        for rows in value.pieces():
            chunks.update(rows)
        return [*_form(value), [False] * len(value.shape), *chunks.digest().checksums]
    if isinstance(value, torch.Tensor):
        form = (str(value.dtype), tuple(value.shape), str(value.layout))
        if value.is_meta or value.is_quantized:
            return value
        if value.is_nested:
            return [*form, imprint(list(value.unbind()), once=once)]
        if value.layout is not torch.strided:
            return [*form, imprint(_made_of(value), once=once)]
        values = value.detach()
        repeated = [once and size > 1 and not step for size, step in _sizes(values)]
        values = values[tuple(slice(1 if many else None) for many in repeated)]
        chunks = Chunks()
        for rows in rows_of(values):
            chunks.update(rows)
        return [*form, repeated, *chunks.digest().checksums]
    if isinstance(value, Mapping):
        return {key: imprint(inner, once=once) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [imprint(inner, once=once) for inner in value]
    return value


def rows_of(value: torch.Tensor | Later) -> Iterator[memoryview]:
    """Yield the elements of a dense tensor in row-major order, as bytes, some MiB at a time."""
    if isinstance(value, Later):
        yield from value.pieces()
        return
    for piece in _parts(value.detach()):
        yield bytes_of(_bytes(piece.cpu()))


def _form(value: Any) -> tuple[object, ...]:
    """Return dtype, shape and layout, the same for a tensor and for what is read of it later."""
    if isinstance(value, Later):
        return (f"torch.{value.dtype}", tuple(value.shape), str(torch.strided))
    if not isinstance(value, torch.Tensor) or value.is_meta or value.is_nested:
        return (type(value),)
    return (str(value.dtype), tuple(value.shape), str(value.layout))


def _same_bytes(one: Iterator[memoryview], two: Iterator[memoryview]) -> bool:
    """Whether two streams are the same, however they are cut; both are taken to their ends."""
    same, mine, theirs = True, memoryview(b""), memoryview(b"")
    while True:
        mine = mine or next((piece for piece in one if piece), memoryview(b""))
        theirs = theirs or next((piece for piece in two if piece), memoryview(b""))
        count = min(len(mine), len(theirs), _COMPARED)
        if not count:
            return same and not mine and not theirs
        # Two copies are compared sooner than two views, which Python looks at byte by byte.
        same = same and bytes(mine[:count]) == bytes(theirs[:count])
        mine, theirs = mine[count:], theirs[count:]


def _made_of(tensor: torch.Tensor) -> list[torch.Tensor]:
    """Return the dense tensors that a sparse one is made of."""
    if tensor.layout is torch.sparse_coo:
        return [tensor._indices(), tensor._values()]
    if tensor.layout in (torch.sparse_csr, torch.sparse_bsr):
        return [tensor.crow_indices(), tensor.col_indices(), tensor.values()]
    return [tensor.ccol_indices(), tensor.row_indices(), tensor.values()]


def _bytes(values: torch.Tensor) -> torch.Tensor:
    flat = values.contiguous().reshape(-1)
    # A single value that was expanded keeps its stride of 0.
    return flat.as_strided(flat.shape, (1,)).view(torch.uint8)


def distance(before: torch.Tensor, after: torch.Tensor) -> Distance | None:
    """Return how far a tensor is from what it was; None where they are not comparable so.

    That is, where their shapes differ, or where not all values of both are in memory.
    """
    both_dense = before.layout is torch.strided and after.layout is torch.strided
    if before.shape != after.shape or not both_dense or before.is_meta or after.is_meta:
        return None
    if _repeats(before) > 1 or _repeats(after) > 1:
        return None
    old = new = both = change = 0.0
    for one, two in zip(_pieces(before), _pieces(after), strict=True):
        old += float(one @ one)
        new += float(two @ two)
        both += float(one @ two)
        change += float((two - one) @ (two - one))
    relative = math.sqrt(change / old) if old else None
    cosine = both / math.sqrt(old * new) if old and new else None
    cosine = cosine if cosine is None else min(1.0, max(-1.0, cosine))
    return Distance(relative, cosine, math.sqrt(old))


@dataclass
class _Sums:
    """What was seen of some values, a piece at a time."""

    seen: int = 0
    count: int = 0
    nan: int = 0
    inf: int = 0
    zeros: int = 0
    mean: float = 0.0
    squares: float = 0.0
    low: float = math.inf
    high: float = -math.inf
    spread: Spread | None = None

    def add(self, piece: torch.Tensor) -> None:
        """Take some values in double precision."""
        finite = piece[torch.isfinite(piece)]
        lost = int(torch.isnan(piece).sum())
        self.seen += len(piece)
        self.nan += lost
        self.inf += len(piece) - len(finite) - lost
        self.zeros += int((finite == 0).sum())
        if len(finite):
            self.low = min(self.low, float(finite.min()))
            self.high = max(self.high, float(finite.max()))
            mean = float(finite.mean())
            self._merge(len(finite), mean, float(((finite - mean) ** 2).sum()))
            if self.spread is not None:
                self.spread.add(finite)

    def add_zeros(self, count: int) -> None:
        """Take the values of a sparse tensor that are not written down."""
        if count > 0:
            self.zeros += count
            self.low, self.high = min(self.low, 0.0), max(self.high, 0.0)
            self._merge(count, 0.0, 0.0)
            if self.spread is not None:
                self.spread.add(torch.zeros(1, dtype=torch.float64), count)

    def _merge(self, count: int, mean: float, squares: float) -> None:
        # Two sets of values are merged by their means (Chan, Golub and LeVeque, 1979).
        apart, whole = mean - self.mean, self.count + count
        self.squares += squares + apart**2 * self.count * count / whole
        self.mean += apart * count / whole
        self.count = whole


def _repeats(tensor: torch.Tensor) -> int:
    """Return how often an expanded tensor shows each of its values; 1 for any other."""
    if tensor.layout is not torch.strided or tensor.is_nested or tensor.is_meta:
        return 1
    return math.prod(n for n, step in _sizes(tensor) if not step and n)


def _pieces(tensor: torch.Tensor) -> Iterator[torch.Tensor]:
    """Yield the values that are in memory, as double precision, some at a time.

    Raises:
        UnsupportedError: there are far more than in the storage that they are in.
    """
    values = tensor.detach()
    if values.is_meta:
        return
    if values.layout is torch.sparse_coo:
        values = values._values()
    elif values.is_nested or values.layout is not torch.strided:
        values = values.values()
    if values.is_quantized:
        values = values.dequantize()
    # What was expanded shows one value many times.
    values = values[tuple(slice(None if step else 1) for _, step in _sizes(values))]
    held = values.untyped_storage().nbytes() // values.element_size()
    if values.numel() > 2 * held + _PIECE:
        raise UnsupportedError(
            f"a tensor shows {values.numel()} values of a storage of {held}; they are not told"
        )
    for part in _parts(values):
        flat = part.reshape(-1)
        yield (flat.abs() if flat.is_complex() else flat).to(torch.float64)


def _parts(values: torch.Tensor) -> Iterator[torch.Tensor]:
    """Part a tensor into pieces of a few million values, by its shape alone."""
    if values.numel() <= _PIECE:
        if values.numel():
            yield values
        return
    rows = _PIECE // max(1, values.numel() // len(values))
    for start in range(0, len(values), max(1, rows)):
        if rows:
            yield values[start : start + rows]
        else:
            yield from _parts(values[start])


def _sizes(tensor: torch.Tensor) -> list[tuple[int, int]]:
    """Return size and stride of each dimension."""
    return list(zip(tensor.shape, tensor.stride(), strict=True))
