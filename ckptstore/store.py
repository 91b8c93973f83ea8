"""A store: what one saves into."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from ckptstore import plugins, storage
from ckptstore.background import Background
from ckptstore.checkpoint import Checkpoint
from ckptstore.commit.layout import Committed, newest
from ckptstore.commit.save import Save
from ckptstore.errors import UnsupportedError
from ckptstore.formats.base import Contents
from ckptstore.keep import Keep
from ckptstore.opening import Location, open_state
from ckptstore.retaining import Retention
from ckptstore.saving import check_room, contents_of, numbers, save_of, to_save_in
from ckptstore.texts import parse_json
from ckptstore.tiers.stored import Tiered
from ckptstore.tiers.tier import Tier
from ckptstore.tokenizers.base import Tokenizer
from ckptstore.vocabulary import Vocabulary

__all__ = ["Keep", "Store", "save"]

log = logging.getLogger(__name__)


class Store(Tiered):
    """A location to save into and open from; a context manager that waits for saves under way.

    Without ``keep`` it holds a single checkpoint, whose newest state is also there as plain files
    (the view). With ``keep`` it holds a history: one bundle per step.

    Args:
        location: path or URL.
        keep: makes it a history, and says which steps stay.
        tier: where each state is copied to in the background, once it is committed here, on the
            local disk; what waited for that when a program ended goes on with the next.
        durable: whether a save that returned survives a loss of power (G3).
        small_view: whether the view holds only JSON and the manifest, not the weights.
        format: the layout to save in: any writable format that is installed.
        storage_options: what fsspec's filesystem takes.

    Raises:
        UnsupportedError: the format is not installed, or cannot be saved in; or the tier does
            not go with the location. Nothing was written.
    """

    def __init__(
        self,
        location: Location,
        *,
        keep: Keep | None = None,
        tier: Tier | None = None,
        durable: bool = True,
        small_view: bool = False,
        format: str = "bundle",
        storage_options: Mapping[str, Any] | None = None,
    ) -> None:
        self._format = to_save_in(format)
        super().__init__(
            storage.connect(location, storage_options),
            keep=keep,
            tier=tier,
            durable=durable,
            small_view=small_view,
        )
        self.keep = keep
        self.tier = tier
        self._options = storage_options
        self._background = Background(self._commit_beside, self._committer)

    def __enter__(self) -> Store:
        return self

    def __exit__(self, kind: type[BaseException] | None, *exc_info: object) -> None:
        if kind is None:
            self.close()
        else:
            self._background.wait()  # What failed in it is in the log, and hides nothing.
            # Whoever interrupts waits no longer than they have to: the journal has the rest.
            self._end_uploads(None if issubclass(kind, Exception) else 0.0)

    def __repr__(self) -> str:
        return f"<Store {self.location!r}, keep={self.keep}>"

    # -- saving -------------------------------------------------------------------------

    def save(
        self,
        *,
        model: Any,
        config: Mapping[str, Any] | None = None,
        tokenizer: Tokenizer | Mapping[str, Any] | None = None,
        optimizer: Any = None,
        step: int | None = None,
        state: Mapping[str, Any] | None = None,
        training_state: Mapping[str, Any] | None = None,
        metrics: Mapping[str, float] | None = None,
        metrics_log: Sequence[Mapping[str, Any]] = (),
        vocabulary: Vocabulary = None,
        overwrite: bool = False,
    ) -> Checkpoint:
        """Save one checkpoint.

        Guarantee: whole or absent, whatever dies in the middle (G2); durable when this returns
        (G3); of several writers of one state one commits (G7).

        Args:
            model: a module, or its state dict.
            config: the architecture; any JSON object.
            tokenizer: a tokenizer, or its state.
            optimizer: an optimizer, or its state dict.
            step: finished optimizer steps; a history requires it.
            state: further objects that have a state dict (schedulers, scalers, EMA weights, data
                loaders, `RandomStates`), torch's generators, or state dicts, by name.
            training_state: further JSON fields for training_state.json, which stays under 1 KB.
            metrics: numbers for `Keep(best=...)`.
            metrics_log: what was measured since the training began, a JSON object for each time,
                such as ``{"step": 50, "val_loss": 2.5}``; it becomes metrics.jsonl.
            vocabulary: True to carry the files that the tokenizer needs beside its state (such
                as the ranks of ``gpt2``), so that the checkpoint works where they are not; or
                the files themselves, as `Checkpoint.tokenizer_files` returns them. By default a
                save carries none, and a copy for inference does.
            overwrite: in a history, replace a step that is there with other content.

        Returns:
            A handle on what was committed.

        Raises:
            ConflictError: another writer was first, or the step is there with other content.
            UnsupportedError: something cannot be saved, or not so that it loads safely.
            UnsafeError: an object refers to more than tensors and plain data.
            StorageError: the storage failed; its ``committed`` says whether the save counts.
        """
        contents = contents_of(
            model=model,
            config=config,
            tokenizer=tokenizer,
            optimizer=optimizer,
            step=step,
            state=state,
            training_state=training_state,
            metrics_log=metrics_log,
            vocabulary=vocabulary,
        )
        self._background.wait()
        what = self._save_of(contents, _fingerprint(tokenizer), numbers(metrics))
        committed = self._committer.commit(what, overwrite)
        self._saved()
        return open_state(self._storage, committed)

    def save_async(
        self,
        *,
        model: Any,
        config: Mapping[str, Any] | None = None,
        tokenizer: Tokenizer | Mapping[str, Any] | None = None,
        optimizer: Any = None,
        step: int | None = None,
        state: Mapping[str, Any] | None = None,
        training_state: Mapping[str, Any] | None = None,
        metrics: Mapping[str, float] | None = None,
        metrics_log: Sequence[Mapping[str, Any]] = (),
        vocabulary: Vocabulary = None,
        overwrite: bool = False,
        when_busy: Literal["wait", "skip"] = "wait",
    ) -> Any:
        """Save one checkpoint in the background.

        Returns once the state was copied aside, so that training may go on and change it. On
        Linux a process of its own writes the copy, if it has 16 MiB or more and goes to a local
        disk or S3; a thread does otherwise. At most one save is under way: a second call waits
        for the first. A save that failed never stops training: it is logged as an error at once,
        and as a warning by the next `save` or `save_async`; it is raised by its future, and by
        `close` if nobody asked the future. A save that is under way when the program ends is
        finished first.

        Args, and what it raises, are those of `save`, and:
            when_busy: what to do while another save is under way: ``wait`` for it, or ``skip``
                this one, so that training never waits for a storage that is slower than it.

        Returns:
            A `concurrent.futures.Future` of the `Checkpoint`; of None where it was skipped.
        """
        if when_busy not in ("wait", "skip"):
            raise UnsupportedError(f"when_busy is {when_busy!r}; there are 'wait' and 'skip'")
        if when_busy == "skip" and self._background.busy:
            log.info("step %s is not saved: an earlier save is under way", step)
            return self._background.skipped()
        contents = contents_of(
            model=model,
            config=config,
            tokenizer=tokenizer,
            optimizer=optimizer,
            step=step,
            state=state,
            training_state=training_state,
            metrics_log=metrics_log,
            vocabulary=vocabulary,
        )
        measured = numbers(metrics)
        return self._background.submit(contents, _fingerprint(tokenizer), measured, overwrite)

    def prepare(
        self,
        *,
        model: Any = None,
        optimizer: Any = None,
        state: Mapping[str, Any] | None = None,
    ) -> None:
        """Make ready what `save_async` needs, so that its first call is quick: memory, a process.

        Args:
            model: a module, or its state dict, such as will be saved.
            optimizer: an optimizer, or its state dict.
            state: further objects that have a state dict, or state dicts, by name.
        """
        model = {} if model is None else model
        contents = contents_of(model=model, optimizer=optimizer, state=state)
        self._background.prepare(contents)

    def sibling(self, location: Location) -> Store:
        """Return a store of another location that goes on with what `save_async` has ready here.

        For who saves each state at a location of its own: its first `save_async` is as quick as
        the next one here would be. It waits for the save under way here. This store stays usable,
        and still raises by `close` what failed; it makes new memory ready when it needs some.

        Args:
            location: path or URL; all else is as it is here.

        Raises:
            UnsupportedError: this store has a tier, which two locations cannot share.
        """
        if self.tier is not None:
            raise UnsupportedError(
                f"{self.location} has a tier, and a sibling would be copied to the same place; "
                "make a Store with a Tier of its own"
            )
        other = Store(
            location,
            keep=self.keep,
            durable=self._durable,
            small_view=self._small_view,
            format=self._format.name,
            storage_options=self._options,
        )
        other._background.take_over(self._background)
        return other

    def close(self, *, timeout: float | None = None) -> None:
        """Wait for saves under way and for uploads, and raise what failed and was not asked for.

        What is not uploaded in time, or because a server is down, is no error: a warning in the
        log says so, and the journal has it for the next start. What needs somebody who mends it
        (no permission, no bucket, a conflict) is raised here, once everything else is done, so
        that no program ends as if its copies were there.

        Args:
            timeout: seconds to wait for uploads, at most; by default as long as they come forward
                (`Tier.patience`).

        Raises:
            CkptstoreError: of a save in the background that nobody asked for.
            StorageError: states were not copied to the tier, and will not be by themselves; its
                ``committed`` is True, since they are whole where they were saved.
        """
        try:
            self._background.close()
        finally:
            failed = self._end_uploads(timeout)
        if failed is not None:
            raise failed

    # -- inside -------------------------------------------------------------------------

    @property
    def _retention(self) -> Retention:
        return self._committer.retention

    def _settle(self) -> None:
        """Wait for saves under way, before what there is may be removed."""
        self._background.wait()
        self._committer.last = None  # It may be among that; the next save looks what is left.

    def _commit_beside(
        self,
        contents: Contents,
        fingerprint: str | None,
        metrics: Mapping[str, float],
        overwrite: bool,
        commit: Callable[[Save, bool], Committed],
    ) -> Checkpoint:
        from ckptstore import tensors

        parallel = tensors.cores_to_spare() > 1
        what = self._save_of(contents, fingerprint, metrics, parallel=parallel)
        committed = commit(what, overwrite)
        self._saved()
        return open_state(self._storage, committed)

    def _save_of(
        self,
        contents: Contents,
        fingerprint: str | None,
        metrics: Mapping[str, float],
        *,
        parallel: bool = True,
    ) -> Save:
        if fingerprint is None and contents.tokenizer_state is not None:
            fingerprint = self._fingerprint_of(contents.tokenizer_state)
        check_room(contents, self._format)
        return save_of(
            contents,
            self._format,
            fingerprint=fingerprint,
            metrics=metrics,
            durable=self._durable,
            small_view=self._small_view,
            parallel=parallel,
        )

    def _fingerprint_of(self, state: Mapping[str, Any]) -> str | None:
        """Return the fingerprint of a tokenizer's state; without its kind, what was saved of it."""
        known = plugins.fingerprint_of(state)
        last = newest(self._storage) if known is None else None
        text = last.manifest.texts.get("tokenizer.json") if last else None
        if last is None or text is None or parse_json(text.text, text.path) != dict(state):
            return known
        return last.manifest.fingerprint


def save(
    location: Location,
    *,
    model: Any,
    config: Mapping[str, Any] | None = None,
    tokenizer: Tokenizer | Mapping[str, Any] | None = None,
    optimizer: Any = None,
    step: int | None = None,
    state: Mapping[str, Any] | None = None,
    training_state: Mapping[str, Any] | None = None,
    metrics: Mapping[str, float] | None = None,
    metrics_log: Sequence[Mapping[str, Any]] = (),
    vocabulary: Vocabulary = None,
    overwrite: bool = False,
    durable: bool = True,
    format: str = "bundle",
    storage_options: Mapping[str, Any] | None = None,
) -> Checkpoint:
    """Save a single checkpoint: the next generation of what is at a location.

    The same as ``Store(location).save(...)``; see `Store.save` for guarantees and arguments.

    Args:
        location: path or URL.
        durable: whether it survives a loss of power when this returns (G3).
        format: the layout to save in: any writable format that is installed.
        storage_options: what fsspec's filesystem takes.
    """
    with Store(location, durable=durable, format=format, storage_options=storage_options) as store:
        return store.save(
            model=model,
            config=config,
            tokenizer=tokenizer,
            optimizer=optimizer,
            step=step,
            state=state,
            training_state=training_state,
            metrics=metrics,
            metrics_log=metrics_log,
            vocabulary=vocabulary,
            overwrite=overwrite,
        )


def _fingerprint(tokenizer: Tokenizer | Mapping[str, Any] | None) -> str | None:
    return tokenizer.fingerprint() if isinstance(tokenizer, Tokenizer) else None
