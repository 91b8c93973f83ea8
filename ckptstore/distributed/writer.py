"""The storage writer for torch.distributed.checkpoint: each rank its files, one manifest for all.

What happens in a `dcp.save`, of torch 2.10 to 2.13: every rank plans; the coordinator begins the
write and hands out its draft with the plans; every rank writes its files, each digested as it
passes, and returns what is known of them; the coordinator commits. Rule 1: a rank removes its files
only where it knows that nothing was committed and nothing will be: its own write failed, or the
coordinator said so. After anything else (a lost connection, a timeout) they stay, and are leftovers
which the next save or ``ckptstore doctor`` removes. Rule 2: what comes from a planner's bytes is
loaded safely before it is written (G5).
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta
from torch.distributed.checkpoint.planner import SavePlan, SavePlanner, WriteItemType
from torch.distributed.checkpoint.storage import StorageWriter, WriteResult
from torch.futures import Future

from ckptstore import plugins, tensors
from ckptstore.checkpoint import Checkpoint
from ckptstore.commit.joint import Joint, Share
from ckptstore.commit.save import Save
from ckptstore.distributed.gathered import gathered
from ckptstore.distributed.items import Placed, placed_items, resolved
from ckptstore.distributed.places import Places, found_places
from ckptstore.errors import CkptstoreError, UnsupportedError
from ckptstore.formats.base import Files, NewFiles
from ckptstore.formats.sharded import ShardedFormat
from ckptstore.formats.sharding import file_name
from ckptstore.formats.shards import SHARDS, text_of
from ckptstore.keep import Keep
from ckptstore.opening import Location, open_state
from ckptstore.saving import contents_of, index, numbers
from ckptstore.store import Store
from ckptstore.tokenizers.base import Tokenizer

__all__ = ["StoreWriter"]

log = logging.getLogger(__name__)


class StoreWriter(StorageWriter):
    """Saves one state at a location, for ``dcp.save(state, storage_writer=...)``.

    Make one on every rank, with the same arguments, for each save. As a context manager it removes
    what this rank wrote where the save failed::

        with StoreWriter("s3://bucket/dante", step=500, keep=Keep(last=3)) as writer:
            dcp.save({"model": ..., "optimizer": ...}, storage_writer=writer)

    Guarantee: the state exists, whole, once the coordinator has created its manifest, and before
    that nothing does (G2); durable when ``dcp.save`` returns (G3); nothing is written that could
    only be read by running code (G5).

    Args:
        location: path or URL, the same storage from every rank; or a `Store`, whose location,
            ``keep`` and ``durable`` are then those of the save.
        step: finished optimizer steps; a history requires it.
        config: the architecture; any JSON object.
        tokenizer: a tokenizer, or its state.
        training_state: further JSON fields for training_state.json.
        metrics: numbers for `Keep(best=...)`.
        keep: makes the location a history, and says which steps stay.
        overwrite: in a history, replace a step that is there with other content.
        durable: whether the save survives a loss of power when it returns.
        small_view: whether the view of a single checkpoint holds only JSON and the manifest. The
            shards are then in ``.ckptstore/<generation>/`` alone.
        storage_options: what fsspec's filesystem takes.

    Attributes:
        checkpoint: a handle on what was committed, on the coordinator; None before, and elsewhere.
        committed: whether the save is committed, once it is over; None where this rank cannot know.
    """

    def __init__(
        self,
        location: Location | Store,
        *,
        step: int | None = None,
        config: Mapping[str, Any] | None = None,
        tokenizer: Tokenizer | Mapping[str, Any] | None = None,
        training_state: Mapping[str, Any] | None = None,
        metrics: Mapping[str, float] | None = None,
        keep: Keep | None = None,
        overwrite: bool = False,
        durable: bool = True,
        small_view: bool = True,
        storage_options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.checkpoint: Checkpoint | None = None
        self.committed: bool | None = False
        self._location = location
        self._keep = keep
        self._options = storage_options
        self._durable = location._durable if isinstance(location, Store) else durable
        self._small_view = small_view
        self._overwrite = overwrite
        self._metrics = numbers(metrics)
        self._contents = contents_of(
            model={}, config=config, tokenizer=tokenizer, step=step, training_state=training_state
        )
        self._texts = ShardedFormat.texts_of(self._contents)
        self._fingerprint = _fingerprint(tokenizer)
        self._store: Store | None = location if isinstance(location, Store) else None
        self._is_coordinator = False
        self._joint: Joint | None = None
        self._places = Places(None, None)
        self._share: Share | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Return what another process needs to save in this one's place."""
        return {**self.__dict__, "_store": None, "_joint": None, "_share": None}

    def __enter__(self) -> StoreWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, *rest: object
    ) -> None:
        if error is not None:
            self.failed(error)

    @property
    def checkpoint_id(self) -> str:
        """Where it saves, for torch's own log."""
        return self._called()

    # -- what torch.distributed.checkpoint calls, in this order -------------------------

    def reset(self, checkpoint_id: str | os.PathLike[str] | None = None) -> None:
        """Save at another location than the one it was made for."""
        if checkpoint_id is not None:
            self._location = os.fspath(checkpoint_id)
            self._store = None

    def storage_meta(self) -> StorageMeta | None:
        """Say where it saves; nothing else is told."""
        return StorageMeta(checkpoint_id=self._called())

    def set_up_storage_writer(self, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:
        """Begin.

        Raises:
            UnsupportedError: the ranks are to save without each other.
        """
        if not kwargs.get("use_collectives", True):
            raise UnsupportedError(
                "use_collectives=False lets every rank save by itself, and nobody could commit "
                f"what all wrote to {self._called()}; leave it out"
            )
        self._is_coordinator = is_coordinator
        self._joint = self._share = self.checkpoint = None
        self.committed = False if is_coordinator else None

    def prepare_local_plan(self, plan: SavePlan) -> SavePlan:
        """Leave the plan as it is."""
        return plan

    def prepare_global_plan(self, plans: list[SavePlan]) -> list[SavePlan]:
        """Begin the write, and hand out what every rank has to know of it.

        Raises:
            ConflictError, UnsupportedError, StorageError: it cannot begin; nothing was written.
        """
        if not all(getattr(plan, "usable", True) for plan in plans):
            raise UnsupportedError(
                "the planner leaves out plans that did not change, and with them the draft of this "
                "save; make it with enable_plan_caching=False"
            )
        paths: dict[str, Any] = {}
        found: set[str] = set()
        for plan in plans:
            paths |= {item.index.fqn: (item.index.fqn,) for item in plan.items}
            found |= {i.index.fqn for i in plan.items if i.type is not WriteItemType.BYTE_IO}
        for plan in plans:
            paths |= plan.planner_data or {}
        self._places = places = found_places(paths, found)
        store = self._opened()
        save = Save(
            write=lambda files: None,
            index=_checked,
            format=ShardedFormat.name,
            step=self._contents.step,
            metrics=self._metrics,
            fingerprint=self._fingerprint,
            durable=self._durable,
            small_view=self._small_view,
        )
        self._joint = Joint(store._committer, save, overwrite=self._overwrite)
        return [
            replace(
                plan, storage_data=json.dumps([self._joint.draft, places.to_text(), at, len(plans)])
            )
            for at, plan in enumerate(plans)
        ]

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        """Write this rank's files; they are removed again where that fails.

        Raises:
            UnsafeError: a value could only be read back by running code; the message names it.
            UnsupportedError: a tensor cannot be saved so.
            StorageError: the storage failed.
        """
        draft, places, rank, count = json.loads(plan.storage_data)
        placed = placed_items(plan, Places.from_text(places))
        share = Share(
            self._opened()._storage,
            draft,
            index=_checked,
            durable=self._durable,
            parallel=tensors.cores_to_spare() > 1,
        )
        with share:
            names = self._write(share, placed, planner, rank, count)
            entries = share.entries()
        self._share = share
        results = [
            WriteResult(item.index, size, {"file": names.get(place.stem), "key": key})
            for item, place, key, size in placed
        ]
        if results:
            results[0].storage_data["entries"] = entries
        future: Future[list[WriteResult]] = Future()
        future.set_result(results)
        return future

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        """Commit what all ranks wrote.

        Raises:
            ConflictError: another writer was first, or the step is there with other content.
            StorageError: a rank's file is gone or not whole, or the storage failed; its
                ``committed`` says whether the save counts.
        """
        joint, self._joint = self._joint, None
        if joint is None:
            raise UnsupportedError("finish was called before the save began; use dcp.save")
        written = [result for one in results for result in one]
        held = {result.index: result.storage_data for result in written}
        # Of all results: two ranks that wrote one item each have files, and both count.
        shares = (result.storage_data.get("entries") for result in written)
        entries = [share for share in shares if share is not None]
        parts = gathered(metadata, held, self._places)
        texts = {**self._texts, SHARDS: text_of(parts)}

        def write(files: NewFiles) -> None:
            for name, text in texts.items():
                files.write_text(name, text)

        # From here on the files of all ranks are for the joint to remove, or to leave.
        self._share = None
        self.committed = None
        try:
            state = joint.commit(entries, write)
        except CkptstoreError as error:
            self.committed = error.committed
            raise
        self.committed = True
        self.checkpoint = open_state(self._opened()._storage, state)

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike[str]) -> bool:
        """Whether it saves there: anywhere that fsspec knows."""
        return isinstance(checkpoint_id, (str, os.PathLike))

    # -- when all is over ---------------------------------------------------------------

    def failed(self, error: BaseException) -> None:
        """Remove what this rank wrote, where it is certain that nothing was or will be committed.

        Args:
            error: what ``dcp.save`` raised.
        """
        share, self._share = self._share, None
        if share is None:
            return
        if self._is_coordinator or _is_certain(error):
            share.abandon()
        else:
            log.warning(
                "what this rank wrote to %s stays, since it is not known whether the save was "
                "committed; what is left over is removed by the next save, or by ckptstore doctor",
                self._called(),
            )

    # -- inside -------------------------------------------------------------------------

    def _opened(self) -> Store:
        if self._store is None:
            location = (
                self._location.location if isinstance(self._location, Store) else self._location
            )
            self._store = Store(
                location,
                keep=self._keep,
                durable=self._durable,
                small_view=self._small_view,
                format=ShardedFormat.name,
                storage_options=self._options,
            )
        return self._store

    def _called(self) -> str:
        return str(self._location.location if isinstance(self._location, Store) else self._location)

    def _write(
        self, share: Share, placed: list[Placed], planner: SavePlanner, rank: int, count: int
    ) -> dict[str, str]:
        """Write this rank's files, and return their names by what they hold."""
        held: dict[str, dict[str, Any]] = {}
        for item, place, key, size in placed:
            if size or item.type is WriteItemType.BYTE_IO:
                held.setdefault(place.stem, {})[key] = resolved(item, planner)
        names = {stem: file_name(stem, rank, count) for stem in held}
        ready = {
            stem: tensors.checked(values, f"what rank {rank} has of the {stem}")
            for stem, values in held.items()
        }
        for stem, part in sorted(ready.items(), key=lambda one: -one[1].size):
            with share.create(names[stem], expected_size=part.size) as sink:
                part.save(sink)
        return names


def _checked(files: Files, name: str) -> None:
    """Refuse what is not safe to load; of what is in it shards.json tells, and not the manifest."""
    index(files, name)


def _is_certain(error: BaseException) -> bool:
    """Whether an error is the coordinator's word that nothing was committed."""
    if not isinstance(error, CheckpointException):
        return False
    causes = (failure[0] for failure in error.failures.values())
    return all(getattr(cause, "committed", False) is False for cause in causes)


def _fingerprint(tokenizer: Tokenizer | Mapping[str, Any] | None) -> str | None:
    if tokenizer is None or isinstance(tokenizer, Tokenizer):
        return None if tokenizer is None else tokenizer.fingerprint()
    return plugins.fingerprint_of(tokenizer)
