"""The storage reader for torch.distributed.checkpoint: the boxes that a rank needs, and no others.

Rule 1: all ranks read one and the same state, whatever is saved meanwhile; where they opened
different ones that is an error, and no tensor is touched. Rule 2: metadata is plain JSON, and
values are loaded safely before a planner sees their bytes again (G5). Rule 3: every byte is proved
before it is used (G4).
"""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch.distributed.checkpoint.metadata import Metadata
from torch.distributed.checkpoint.planner import LoadItemType, LoadPlan, LoadPlanner, ReadItem
from torch.distributed.checkpoint.storage import StorageReader
from torch.futures import Future

from ckptstore import tensors
from ckptstore.distributed.gathered import by_fqn, metadata_of
from ckptstore.errors import CorruptionError, SupersededError, UnsupportedError
from ckptstore.formats.sharded import ShardedReader
from ckptstore.formats.shards import Chunk, Part, Tensor, Value
from ckptstore.opening import Location, open

__all__ = ["StoreReader"]


class StoreReader(StorageReader):
    """Reads a sharded state in any number of processes: ``dcp.load(state, storage_reader=...)``.

    Make one on every rank. The state is pinned when it is made; of a newer one that is saved
    meanwhile nothing is seen.

    Guarantee: nothing is executed (G5), every byte is proved before it is used (G4), and a rank
    reads only the chunks of its files that its boxes touch.

    Args:
        location: path or URL.
        step: the training step of a history; the newest by default.
        storage_options: what fsspec's filesystem takes.

    Attributes:
        checkpoint: a handle on the state: config, step, tokenizer, metrics.

    Raises:
        NotFoundError: nothing there is a checkpoint, or there is none of that step.
        UnsupportedError: it is there in another format than ``sharded``.
        CorruptionError, UnsafeError, StorageError: see `ckptstore.open`.
    """

    def __init__(
        self,
        location: Location,
        step: int | None = None,
        *,
        storage_options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self._step = step
        self._options = storage_options
        self._open(location)

    @property
    def parts(self) -> Mapping[str, Part]:
        """What shards.json says: ``model``, ``optimizer``, and states by name."""
        return self._reader.parts

    @property
    def identity(self) -> str:
        """Which state it reads: the id of the write that made it; empty without a manifest."""
        manifest = self.checkpoint.source.manifest
        return "" if manifest is None else manifest.write_id

    @property
    def checkpoint_id(self) -> str:
        """Where it reads, for torch's own log."""
        return self.checkpoint.location

    def reset(self, checkpoint_id: str | os.PathLike[str] | None = None) -> None:
        """Read from another location than the one it was made for."""
        if checkpoint_id is not None:
            self._open(checkpoint_id)

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        """Return which tensors and values there are, from shards.json."""
        return metadata_of(self._reader.parts, self.checkpoint.location)

    def set_up_storage_reader(
        self, metadata: Metadata, is_coordinator: bool, *args: Any, **kwargs: Any
    ) -> None:
        """Do nothing: what is read is known since the location was opened."""

    def prepare_local_plan(self, plan: LoadPlan) -> LoadPlan:
        """Note which state this rank is going to read."""
        return replace(plan, storage_data=self.identity)

    def prepare_global_plan(self, plans: list[LoadPlan]) -> list[LoadPlan]:
        """Make sure that all ranks read one state.

        Raises:
            SupersededError: they opened different ones; nothing was loaded.
        """
        if any(plan.storage_data != self.identity for plan in plans):
            raise SupersededError(
                f"{self.checkpoint.location} was saved to while the ranks opened it, and they "
                "would load different states; nothing was loaded, load again"
            )
        return plans

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> Future[None]:
        """Read what this rank's plan asks for.

        Raises:
            CorruptionError, NotFoundError, SupersededError, UnsafeError: see
                `Checkpoint.load_model`.
        """
        entries = by_fqn(self._reader.parts)
        boxes: dict[str, list[tensors.Box]] = {}
        targets: list[tuple[ReadItem, torch.Tensor]] = []
        values: dict[str, tuple[ReadItem, Value]] = {}
        for item in plan.items:
            _, entry = entries[item.storage_index.fqn]
            if item.type is LoadItemType.BYTE_IO:
                if not isinstance(entry, Value):
                    raise self._other(item)
                values[item.storage_index.fqn] = item, entry
                continue
            if not isinstance(entry, Tensor):
                raise self._other(item)
            chunk = self._chunk(entry, item)
            target = planner.resolve_tensor(item).detach()
            targets.append((item, target))
            box = tensors.Box(
                chunk.key, entry.dtype, chunk.sizes, tuple(item.storage_offsets), target
            )
            boxes.setdefault(chunk.file, []).append(box)
        shards = self._reader.shards
        shards.read(dict(sorted(boxes.items())))
        for item, target in targets:
            planner.commit_tensor(item, target)
        loaded = shards.values({name: value for name, (_, value) in values.items()}, "cpu")
        for name, (item, _) in values.items():
            planner.load_bytes(item, _as_bytes(loaded[name]))
        future: Future[None] = Future()
        future.set_result(None)
        return future

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike[str]) -> bool:
        """Whether it reads there: anywhere that fsspec knows."""
        return isinstance(checkpoint_id, (str, os.PathLike))

    # -- inside -------------------------------------------------------------------------

    def _open(self, location: Location) -> None:
        self.checkpoint = open(location, step=self._step, storage_options=self._options)
        reader = self.checkpoint.reader
        if not isinstance(reader, ShardedReader):
            raise UnsupportedError(
                f"{self.checkpoint.location} has the format {self.checkpoint.format!r}, and boxes "
                f"are read of 'sharded' only; make one with ckptstore convert "
                f"{self.checkpoint.location} DESTINATION --to sharded, or load it whole with "
                "ckptstore.open"
            )
        self._reader = reader
        self._chunks: dict[int, dict[tuple[int, ...], Chunk]] = {}

    def _chunk(self, tensor: Tensor, item: ReadItem) -> Chunk:
        wanted = tuple(item.storage_index.offset or (0,) * len(tensor.shape))
        if id(tensor) not in self._chunks:
            self._chunks[id(tensor)] = {chunk.offsets: chunk for chunk in tensor.chunks}
        found = self._chunks[id(tensor)].get(wanted)
        if found is not None:
            return found
        raise CorruptionError(
            f"{self.checkpoint.location} has no chunk of {item.storage_index.fqn!r} at "
            f"{list(wanted)}; load it with the metadata that this reader gives"
        )

    def _other(self, item: ReadItem) -> UnsupportedError:
        return UnsupportedError(
            f"{item.storage_index.fqn!r} in {self.checkpoint.location} is a tensor where the state "
            "dict has a value, or the other way round; load into a state dict like the saved one"
        )


def _as_bytes(value: Any) -> io.BytesIO:
    """Return a value that was loaded safely as the bytes that a planner expects.

    The planner of torch unpickles them without a restriction; they were just pickled here, of
    numbers, text and containers of these alone.
    """
    buffer = io.BytesIO()
    torch.save(value, buffer)
    buffer.seek(0)
    return buffer
