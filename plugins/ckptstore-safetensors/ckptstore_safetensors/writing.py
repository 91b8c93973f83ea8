"""Writes a ``.safetensors`` file from the memory of its tensors, without a second copy (G6)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from ckptstore import UnsupportedError
from ckptstore.later import Later
from ckptstore.storage.base import Sink
from ckptstore.tensors import bytes_of
from ckptstore_safetensors.header import Header, laid_out

__all__ = ["Planned", "planned"]

_SLICE = 2**20  # What is digested is still in a core's cache when it is written.
_PIECE = 8 * 2**20  # Bytes of a tensor that has to be put in order first.


@dataclass(frozen=True)
class Planned:
    """A file that is known but for its tensors' bytes; nothing was written yet.

    Attributes:
        head: its first bytes.
        header: where its tensors go.
    """

    head: bytes
    header: Header

    @classmethod
    def of(
        cls, forms: Mapping[str, tuple[str, tuple[int, ...]]], metadata: Mapping[str, str]
    ) -> Planned:
        """Plan a file of tensors that need not be in memory yet.

        Args:
            forms: torch's name of the dtype, and the shape, by name.
            metadata: texts by name.

        Raises:
            UnsupportedError: a name or a dtype has no place in the format.
        """
        return cls(*laid_out(forms, metadata))

    @property
    def size(self) -> int:
        """Bytes that the file will have."""
        return len(self.head) + sum(entry.nbytes for entry in self.header.entries.values())

    def write(self, sink: Sink, tensor_of: Callable[[str], torch.Tensor | Later]) -> None:
        """Write the file.

        Args:
            sink: takes the bytes in order.
            tensor_of: returns a tensor by name; asked once for each, in the order of the file, and
                what it returned is let go before the next.
        """
        sink.write(memoryview(self.head))
        entries = self.header.entries
        for name in sorted(entries, key=lambda name: (entries[name].start, entries[name].nbytes)):
            _write(tensor_of(name), sink)


def planned(
    tensors: Mapping[str, Any], what: str, metadata: Mapping[str, str] | None = None
) -> tuple[Planned, dict[str, torch.Tensor | Later]]:
    """Plan a file of tensors; of those that are one and the same, the first is written.

    Args:
        tensors: a flat state dict, some of it perhaps to be read when it is written.
        what: what to call it in errors, such as ``the model``.
        metadata: texts by name, beside ``format`` and the ties.

    Returns:
        The plan, and the tensors that are to be written.

    Raises:
        UnsupportedError: something is no dense tensor, or has no place in the format.
    """
    texts = {"format": "pt", **(metadata or {})}
    kept: dict[str, torch.Tensor | Later] = {}
    seen: dict[tuple[Any, ...], str] = {}
    for name, tensor in tensors.items():
        _check(name, tensor, what)
        key = _identity(tensor)
        # A text of that name would say something else to whoever reads it.
        if key in seen and name not in texts:
            texts[name] = seen[key]
            continue
        kept[name] = tensor
        if key is not None:
            seen.setdefault(key, name)
    forms = {n: (str(t.dtype).removeprefix("torch."), tuple(t.shape)) for n, t in kept.items()}
    return Planned.of(forms, texts), kept


def _check(name: object, tensor: object, what: str) -> None:
    if not isinstance(name, str):
        raise UnsupportedError(
            f"{what} has the key {name!r}, and names in safetensors are text; rename it"
        )
    if isinstance(tensor, Later):
        return
    if not isinstance(tensor, torch.Tensor):
        raise UnsupportedError(
            f"{what} holds a {type(tensor).__qualname__} at {name!r}, and safetensors holds "
            "tensors alone; save it in state=, or in the format 'bundle'"
        )
    kind = "a nested" if tensor.is_nested else "a quantized" if tensor.is_quantized else ""
    if tensor.layout is not torch.strided:
        kind = f"a {str(tensor.layout).removeprefix('torch.')}"
    if tensor.is_meta:
        kind = "a meta"
    if kind:
        raise UnsupportedError(
            f"{what} holds {kind} tensor at {name!r}, and safetensors holds dense ones with bytes; "
            "convert it, or save in the format 'bundle'"
        )


def _identity(tensor: torch.Tensor | Later) -> tuple[Any, ...] | None:
    """Return what two tensors share that are one and the same; None for one without bytes."""
    if isinstance(tensor, Later):
        if not tensor.nbytes:
            return None
        whole = tensor if tensor.whole is None else tensor.whole
        return (id(whole), tensor.start, tensor.dtype, tensor.shape, tensor.stride)
    if not tensor.numel():
        return None
    form = (tensor.dtype, tuple(tensor.shape), tensor.stride(), tensor.is_conj(), tensor.is_neg())
    return (str(tensor.device), tensor.data_ptr(), *form)


def _write(tensor: torch.Tensor | Later, sink: Sink) -> None:
    if isinstance(tensor, Later):
        for rows in tensor.pieces():
            sink.write(rows)
        return
    tensor = tensor.detach()
    plain = not tensor.is_conj() and not tensor.is_neg()
    if tensor.device.type == "cpu" and tensor.is_contiguous() and plain:
        memory = bytes_of(tensor)
        for start in range(0, len(memory), _SLICE):
            sink.lend(memory[start : start + _SLICE])
        return
    for piece in _pieces(tensor):
        flat = piece.resolve_conj().resolve_neg().contiguous().cpu()
        sink.write(bytes_of(flat))


def _pieces(tensor: torch.Tensor) -> Iterator[torch.Tensor]:
    """Part a tensor along its first dimensions into pieces of a few million bytes, in order."""
    size = tensor.numel() * tensor.element_size()
    if size <= _PIECE or not tensor.dim():
        if size:
            yield tensor
        return
    rows = max(1, _PIECE // (size // len(tensor)))
    for start in range(0, len(tensor), rows):
        if rows > 1 or tensor.dim() == 1:
            yield tensor[start : start + rows]
        else:
            yield from _pieces(tensor[start])
