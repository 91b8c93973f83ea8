"""What all ranks wrote, as shards.json says it; and back, as torch has it."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

import torch
from torch.distributed.checkpoint.metadata import (
    BytesStorageMetadata,
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    StorageMeta,
    TensorProperties,
    TensorStorageMetadata,
)

from ckptstore.distributed.places import Places
from ckptstore.errors import UnsupportedError
from ckptstore.formats.shards import Chunk, Part, Tensor, Value

__all__ = ["by_fqn", "gathered", "metadata_of"]


def gathered(
    metadata: Metadata, held: Mapping[MetadataIndex, Mapping[str, Any]], places: Places
) -> dict[str, Part]:
    """Return what shards.json is to say.

    Args:
        metadata: what the coordinator's planner made of all plans.
        held: the file and the key of each item, as the ranks returned them.
        places: where the model and the optimizer are.

    Raises:
        UnsupportedError: nobody wrote a chunk that the planner counts on.
    """
    entries = metadata.state_dict_metadata
    paths = {fqn: (metadata.planner_data or {}).get(fqn, (fqn,)) for fqn in entries}
    are_tensors = {fqn for fqn, one in entries.items() if isinstance(one, TensorStorageMetadata)}
    found: dict[str, tuple[tuple[str, ...], dict[str, Tensor], dict[str, Value]]] = {}
    for fqn, entry in entries.items():
        place = places.of(paths[fqn], is_tensor=fqn in are_tensors)
        _, tensors, values = found.setdefault(place.part, (place.at, {}, {}))
        if isinstance(entry, TensorStorageMetadata):
            chunks = tuple(
                Chunk(tuple(chunk.offsets), tuple(chunk.sizes), *_where(fqn, chunk, held))
                for chunk in entry.chunks
                if prod(chunk.sizes)
            )
            dtype = str(entry.properties.dtype).removeprefix("torch.")
            tensors[place.name] = Tensor(place.path, dtype, tuple(entry.size), chunks)
        else:
            values[place.name] = Value(place.path, *_where(fqn, None, held))
    return {name: Part(at, tensors, values) for name, (at, tensors, values) in found.items()}


def _where(
    fqn: str, chunk: ChunkStorageMetadata | None, held: Mapping[MetadataIndex, Mapping[str, Any]]
) -> tuple[str, str]:
    index = MetadataIndex(fqn, None if chunk is None else chunk.offsets)
    data = held.get(index)
    if data is None or data["file"] is None:
        at = "" if chunk is None else f" at {list(chunk.offsets)}"
        raise UnsupportedError(
            f"no rank wrote {fqn!r}{at}; nothing was committed, save with a planner whose plans "
            "are those that it hands out"
        )
    return str(data["file"]), str(data["key"])


def metadata_of(parts: Mapping[str, Part], location: str) -> Metadata:
    """Return what torch.distributed.checkpoint wants to know of a state; nothing is executed."""
    entries: dict[str, Any] = {}
    paths: dict[str, Any] = {}
    for fqn, (path, entry) in by_fqn(parts).items():
        paths[fqn] = path
        if isinstance(entry, Value):
            entries[fqn] = BytesStorageMetadata()
            continue
        entries[fqn] = TensorStorageMetadata(
            properties=TensorProperties(dtype=getattr(torch, entry.dtype)),
            size=torch.Size(entry.shape),
            chunks=[
                ChunkStorageMetadata(torch.Size(chunk.offsets), torch.Size(chunk.sizes))
                for chunk in entry.chunks
            ],
        )
    return Metadata(
        state_dict_metadata=entries,
        planner_data=paths,
        storage_meta=StorageMeta(checkpoint_id=location),
    )


def by_fqn(
    parts: Mapping[str, Part],
) -> dict[str, tuple[tuple[str | int, ...], Tensor | Value]]:
    """Return the path to each entry and the entry that has its chunks, by its flat name."""
    found: dict[str, tuple[tuple[str | int, ...], Tensor | Value]] = {}
    for part in parts.values():
        entries: list[Tensor | Value] = [*part.tensors.values(), *part.values.values()]
        for entry in entries:
            path = (*part.at, *entry.path)
            chunked = part.chunked(entry) if isinstance(entry, Tensor) else entry
            found[".".join(map(str, path))] = path, chunked
    return found
