"""The part of the kit for formats that is about tensors that are read when they are written."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from ckptstore.formats.base import Contents, Format, Reader
from ckptstore.later import Later
from ckptstore.testing.comparing import arrived, read_later, same, written
from ckptstore.testing.memory import MemoryFiles

__all__ = ["FormatLater"]

_PIECE = 10  # No element of 4 bytes ends where every such piece does.


class FormatLater:
    """Promises about states larger than memory; a part of `FormatTests`."""

    def test_what_is_read_later_is_what_loads(
        self, format_class: type[Format], files: MemoryFiles
    ) -> None:
        """Whoever reads little by little gets the same names, values and bytes, as often as asked.

        A format that has no such thing says so by returning None.
        """
        reader = format_class().read(files)
        loaded = _loaded(reader)
        for part, later in read_later(reader).items():
            for _ in range(2):
                assert same(arrived(later), loaded[part]), f"{part} is read as something else"
            assert _names(later) == _names(loaded[part]), f"the names of {part} have another order"
        with_optimizer = reader.optimizer_later() is not None
        assert reader.has_optimizer or not with_optimizer

    def test_what_is_read_later_is_written_as_what_is_loaded(
        self, format_class: type[Format], contents: Contents
    ) -> None:
        """Where `takes_later` is said, equal states give equal bytes, read or not."""
        if format_class.writable and format_class.takes_later:
            made: dict[int, Any] = {}
            later = dataclasses.replace(
                contents,
                model=_later(contents.model, made),
                optimizer=_later(contents.optimizer, made),
                states=_later(contents.states, made),
            )
            assert any(isinstance(value, Later) for value in made.values())
            found = written(format_class(), later).data
            for name, data in written(format_class(), contents).data.items():
                assert found.get(name) == data, f"{name} has other bytes"


def _loaded(reader: Reader) -> dict[str, Any]:
    states = {f"the state {name!r}": reader.load_state(name) for name in reader.states()}
    parts = {"the model": reader.load_model(), "the optimizer": reader.load_optimizer()}
    return {**states, **parts}


def _names(value: Any) -> list[Any]:
    """Return the keys of nested dicts in their order."""
    if isinstance(value, Mapping):
        return [(key, _names(inner)) for key, inner in value.items()]
    return [_names(inner) for inner in value] if isinstance(value, (list, tuple)) else []


def _later(value: Any, made: dict[int, Any]) -> Any:
    """Return a state whose dense tensors are read when they are written, each object once."""
    import torch

    if isinstance(value, torch.Tensor):
        if id(value) not in made:
            made[id(value)] = _of(value)
        return made[id(value)]
    if isinstance(value, Mapping):
        return {key: _later(inner, made) for key, inner in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_later(inner, made) for inner in value)
    return value


def _of(tensor: Any) -> Any:
    import torch

    plain = type(tensor) is torch.Tensor and tensor.layout is torch.strided
    if not plain or not tensor.is_contiguous() or tensor.requires_grad:
        return tensor
    nbytes = tensor.nelement() * tensor.element_size()
    if tensor.untyped_storage().nbytes() != nbytes:
        return tensor  # It shares memory with something, which its bytes alone do not say.
    data = bytes(tensor.reshape(-1).view(torch.uint8).tolist())
    dtype = str(tensor.dtype).removeprefix("torch.")
    return Later(dtype, tuple(tensor.shape), nbytes, partial(_pieces, data))


def _pieces(data: bytes) -> Iterator[memoryview]:
    """Yield bytes in pieces, in memory that is used again."""
    memory = bytearray(_PIECE)
    for start in range(0, len(data), _PIECE):
        piece = data[start : start + _PIECE]
        memory[: len(piece)] = piece
        yield memoryview(memory)[: len(piece)]
