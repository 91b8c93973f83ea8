"""The plugin: what Lightning calls to save, load and remove a checkpoint.

Rule 1: a path is a location, and a save there is a commit: whole or absent. Rule 2: only what
ckptstore committed is ever removed. Rule 3: in the background, too, what a save replaces goes when
that save is committed, and stays where it failed.
"""

from __future__ import annotations

import logging
import os
import threading
import uuid
from collections.abc import Mapping
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from ckptstore import CkptstoreError, ConflictError, NotFoundError, Store
from ckptstore_lightning import framework
from ckptstore_lightning.parts import Parts, parted
from ckptstore_lightning.places import Place
from ckptstore_lightning.reading import read

if TYPE_CHECKING:
    from lightning.fabric.plugins import CheckpointIO
else:
    CheckpointIO = framework.fabric("plugins.io.checkpoint_io").CheckpointIO

__all__ = ["StoreCheckpointIO"]

log = logging.getLogger(__name__)


class StoreCheckpointIO(CheckpointIO):
    """Saves the checkpoints of a Trainer, or of Fabric, through ckptstore.

    Guarantee: of a save that was cut off nothing is left that could be taken for a checkpoint, and
    what was there before still is (G2); what was saved survives a loss of power (G3); what is read
    is proved (G4), and nothing of it is ever executed (G5).

    Args:
        asynchronous: save in the background: `save_checkpoint` returns once the state was copied
            aside. A save that failed is logged at once and at the next save, never stops the
            training, and is raised by `teardown`.
        durable: whether a save that returned survives a loss of power.
        small_view: whether the plain files at the top of each checkpoint are the JSON alone, and
            not the weights a second time: half the bytes, where a bucket charges for both.
        storage_options: what fsspec's filesystem takes. Lightning's own look-ups do not see them;
            what they need comes from the environment, or from fsspec's configuration.
    """

    _under_way: Future[Any] | None
    _saving: Store | None
    _saving_options: dict[str, Any] | None
    _failure: BaseException | None
    _owed: list[Place]

    def __init__(
        self,
        *,
        asynchronous: bool = False,
        durable: bool = True,
        small_view: bool = False,
        storage_options: Mapping[str, Any] | None = None,
    ) -> None:
        self._asynchronous = asynchronous
        self._store_options: dict[str, Any] = {"durable": durable, "small_view": small_view}
        self._storage_options = storage_options
        self._begin()

    def __repr__(self) -> str:
        return f"<StoreCheckpointIO, asynchronous={self._asynchronous}>"

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what is of this process alone: a spawned one begins with nothing under way."""
        return {name: self.__dict__[name] for name in _SETTINGS}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._begin()

    def save_checkpoint(
        self,
        checkpoint: dict[str, Any],
        path: str | os.PathLike[str],
        storage_options: Any | None = None,
    ) -> None:
        """Save a checkpoint; in place of one of ckptstore's, where one is there.

        Args:
            checkpoint: what a Trainer or Fabric passes.
            path: a path or URL, the location.
            storage_options: in the place of those of the constructor.

        Raises:
            UnsafeError: it holds what could only be read back by running code; nothing was saved.
            ConflictError: a single file of another's is there, or another writer was first.
            UnsupportedError, StorageError: as `ckptstore.Store.save` does.
        """
        place = self._place(path, storage_options)
        parts = parted(checkpoint, os.fspath(path))
        with self._lock:
            self._settle(place)
            self._owed = [owed for owed in self._owed if owed.location != place.location]
            if place.is_file():
                raise ConflictError(
                    f"{place.location} is a single file that ckptstore did not write, and it "
                    "stays; save into another folder (dirpath=), or move that file away"
                )
            link = place.link()
            if link is not None:
                self._save_over_link(parts, link)
            elif self._asynchronous:
                self._save_beside(parts, place)
            else:
                self._save(parts, place)

    def load_checkpoint(
        self,
        path: str | os.PathLike[str],
        map_location: Any | None = None,
        weights_only: bool | None = None,
    ) -> dict[str, Any]:
        """Return the checkpoint at a path: the same dict that was saved.

        A single file that Lightning itself wrote is read too, and any other checkpoint that
        ckptstore opens.

        Args:
            path: a path or URL.
            map_location: where tensors go, as `torch.load` has it; the CPU by default.
            weights_only: taken, and of no effect: nothing but weights and plain values is ever
                read (G5). False is logged, once.

        Raises:
            NotFoundError: nothing is there; it is a `FileNotFoundError` too.
            CorruptionError, UnsafeError, StorageError: as `ckptstore.open` does.
        """
        if weights_only is False:
            _warn_of_weights_only()
        with self._lock:
            self._settle()
            place = self._place(path)
            place.forget()
            return read(place, map_location)

    def remove_checkpoint(self, path: str | os.PathLike[str]) -> None:
        """Remove a checkpoint that ckptstore saved; anything else stays, and is logged.

        While a save is under way in the background, it goes once that is committed. That it could
        not be removed is a warning in the log and stops nothing.

        Args:
            path: a path or URL.
        """
        with self._lock:
            place = self._place(path)
            if self._under_way is None:
                _remove(place, self._store(place))
            else:
                self._under_way.add_done_callback(lambda saved: self._after(saved, place))

    def teardown(self) -> None:
        """Wait for the save under way, and raise the first failure since the last call."""
        with self._lock:
            self._settle()
            failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    # -- inside -------------------------------------------------------------------------

    def _begin(self) -> None:
        self._lock = threading.RLock()
        self._under_way = None
        self._saving = None
        self._saving_options = None
        self._failure = None
        self._owed = []  # What was to be removed after a save that failed.

    def _place(self, path: str | os.PathLike[str], storage_options: Any | None = None) -> Place:
        return Place(path, self._storage_options if storage_options is None else storage_options)

    def _store(self, place: Place) -> Store:
        return Store(place.location, storage_options=place.options, **self._store_options)

    def _save(self, parts: Parts, place: Place) -> None:
        try:
            self._store(place).save(**vars(parts))
        finally:
            place.tidy()  # Of a save that failed an empty folder may be left, which takes a name.
            place.forget()

    def _save_beside(self, parts: Parts, place: Place) -> None:
        self._saving = self._saving or self._store(place)
        self._saving_options = place.options
        self._under_way = self._saving.save_async(**vars(parts))
        self._under_way.add_done_callback(lambda saved: self._committed(saved, place))

    def _committed(self, saved: Future[Any], place: Place) -> None:
        """Remove what earlier saves, which failed, were to replace; called in any thread."""
        place.tidy()
        place.forget()
        if saved.exception() is None:
            owed, self._owed = self._owed, []
            for older in owed:
                _remove(older, self._store(older))

    def _after(self, saved: Future[Any], place: Place) -> None:
        """Remove a checkpoint once the one that replaces it is there; called in any thread."""
        if saved.exception() is None:
            _remove(place, self._store(place))
            return
        self._owed.append(place)
        log.warning("%s stays: the save that was to replace it failed", place.location)

    def _settle(self, place: Place | None = None) -> None:
        """Wait for the save under way, with all that hangs on it; keep its failure.

        Args:
            place: where the next save goes; it goes on with the memory of the last one.
        """
        failure = None if self._under_way is None else self._under_way.exception()
        self._under_way = None
        if failure is not None:
            log.warning("an earlier checkpoint was not saved: %s", failure)
            self._failure = self._failure or failure
        earlier, self._saving = self._saving, None
        if earlier is not None:
            # Either joins the thread, and so what was to be done after the save is done.
            if place is not None and place.options == self._saving_options:
                self._saving = earlier.sibling(place.location)
            earlier.close()

    def _save_over_link(self, parts: Parts, link: str) -> None:
        """Put a checkpoint in the place of a symbolic link, and leave alone what it points to.

        The link goes once its replacement is committed, under a name beside it.
        """
        parent, name = os.path.split(link)
        fresh = os.path.join(parent, f".{name}-{uuid.uuid4().hex[:8]}")
        try:
            Store(fresh, **self._store_options).save(**vars(parts))
        finally:
            Place(fresh).tidy()  # Where the save failed.
        os.unlink(link)
        os.rename(fresh, link)


_SETTINGS = ("_asynchronous", "_storage_options", "_store_options")
_said: set[str] = set()


def _remove(place: Place, store: Store) -> None:
    """Remove what ckptstore committed at a place, and nothing else."""
    try:
        link = place.link()
        if link is not None:
            os.unlink(link)
        elif place.is_file():
            log.warning("%s stays: ckptstore did not write this file", place.location)
        else:
            store.remove()
            place.tidy()
        place.forget()
    except NotFoundError:
        place.tidy()
        if place.is_there():
            log.warning("%s stays: %s", place.location, _what_stays(place))
    except (CkptstoreError, OSError) as error:
        log.warning("%s could not be removed: %s", place.location, error)


def _what_stays(place: Place) -> str:
    if place.names() <= {".ckptstore"}:
        return (
            "it is what a save or a removal left that was killed; ckptstore doctor --fix mends it"
        )
    return "ckptstore did not write it"


def _warn_of_weights_only() -> None:
    if "weights_only" not in _said:
        _said.add("weights_only")
        log.warning(
            "weights_only=False has no effect: ckptstore never runs what a checkpoint holds; "
            "plain values and weights load without it"
        )


framework.adopted(StoreCheckpointIO)
