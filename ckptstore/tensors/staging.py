"""Memory that a state is copied into before it is saved in the background."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping
from typing import Any

import torch

from ckptstore.tensors.arena import Arena

__all__ = ["Staging", "cores_to_spare"]


class Staging:
    """Copies states into memory that is used again from one save to the next.

    First touches of memory cost several times a warm copy, so the same state is copied to the
    same places; from a GPU the copy goes into pinned memory, on a stream of its own. Tensors that
    share memory share it in the copy, too.

    Args:
        shared: whether another process is to look into the copies, where the system can do that.
    """

    def __init__(self, *, shared: bool = False) -> None:
        self.arena = Arena("shared" if shared else "own")
        self._pinned = Arena("pinned")
        self._copied: dict[tuple[str, int, int], torch.UntypedStorage] = {}
        self._twins: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        self._streams: dict[torch.device, torch.cuda.Stream] = {}

    @property
    def used(self) -> int:
        """How many bytes the copies have."""
        return self.arena.used + self._pinned.used

    @property
    def shared(self) -> bool:
        """Whether another process can look into all of the copies."""
        return self.arena.kind == "shared" and not self._pinned.used

    def rewind(self) -> None:
        """Say that earlier copies are not needed any more; their memory may be used again."""
        self.arena.rewind()
        self._pinned.rewind()
        self._copied = {}

    def wait(self) -> None:
        """Return once every copy is whole, and let go of memory that this state did not need."""
        for stream in self._streams.values():
            stream.synchronize()
        self.arena.trim()
        self._pinned.trim()
        self._twins = {}

    def copy(self, value: Any) -> Any:
        """Return a copy of tensors, containers and plain values that nothing else changes.

        What was on a GPU is whole only after `wait`.
        """
        if isinstance(value, torch.Tensor):
            # One tensor under two names stays one, so that the same bytes are written of it.
            if id(value) not in self._twins:
                self._twins[id(value)] = (value, self._tensor(value))
            return self._twins[id(value)][1]
        if isinstance(value, dict):
            twin = copy.copy(value)  # Keeps the class, and attributes such as `_metadata`.
            for key, inner in value.items():
                twin[key] = self.copy(inner)
            return twin
        if isinstance(value, Mapping):
            return {key: self.copy(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [self.copy(inner) for inner in value]
        if type(value) is tuple:
            return tuple(self.copy(inner) for inner in value)
        return copy.deepcopy(value)

    def _tensor(self, tensor: torch.Tensor) -> torch.Tensor:
        plain = type(tensor) in (torch.Tensor, torch.nn.Parameter)
        if not plain or tensor.layout is not torch.strided or tensor.is_quantized:
            return tensor.detach().to("cpu", copy=True)
        source = tensor.detach()
        if source.device.type == "meta" or source.is_conj() or source.is_neg():
            return source.clone()
        staged = self._storage(source.untyped_storage())
        twin = torch.empty(0, dtype=source.dtype).set_(
            staged, source.storage_offset(), source.shape, source.stride()
        )
        if isinstance(tensor, torch.nn.Parameter):
            return torch.nn.Parameter(twin, requires_grad=tensor.requires_grad)
        return twin

    def _storage(self, source: torch.UntypedStorage) -> torch.UntypedStorage:
        size = source.nbytes()
        key = (str(source.device), source.data_ptr(), size)
        if key not in self._copied or size == 0:
            arena = self._pinned if source.device.type == "cuda" else self.arena
            self._copied[key] = arena.take(size)
            self._fill(self._copied[key], source)
        return self._copied[key]

    def _fill(self, staged: torch.UntypedStorage, source: torch.UntypedStorage) -> None:
        if source.device.type != "cuda":
            staged.copy_(source)
            return
        if source.device not in self._streams:
            self._streams[source.device] = torch.cuda.Stream(  # type: ignore[no-untyped-call]
                source.device
            )
        stream = self._streams[source.device]
        # What training has queued before this save belongs to the state.
        stream.wait_stream(torch.cuda.current_stream(source.device))
        with torch.cuda.stream(stream):
            staged.copy_(source, non_blocking=True)


def cores_to_spare() -> int:
    """Return how many cores torch leaves to a save that goes on beside it."""
    return (os.cpu_count() or 1) - torch.get_num_threads()
