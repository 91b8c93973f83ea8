"""Checkpoints by model name, and the three ways to begin training."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import ckptstore
from ckptstore import (
    Checkpoint,
    CorruptionError,
    Keep,
    NotFoundError,
    Store,
    Tier,
    UnsafeError,
)
from gpt import bundle, matching
from gpt.agreed import digest_of, open_same
from gpt.config import GPTConfig, usable_device
from gpt.ranks import Ranks

if TYPE_CHECKING:  # inspecting needs this module, and no torch
    import torch

    from gpt.model import GPT

__all__ = ["CheckpointManager"]

TAKEN_ON_RESUME = ("batch_size", "dropout", "device")


class CheckpointManager:
    """The checkpoint of one model.

    Args:
        model_name: its folder below ``base_dir``; may be nested (``runs/dante``), and never
            leads out of ``base_dir``.
        base_dir: a path or any URL, such as ``s3://bucket/checkpoints``.
        fallback: where the newest state is damaged, take the newest that is sound, with a warning;
            everything that is opened is then read once more, to prove it.
        tier: where models are copied to, once they are saved; this one goes below its location, by
            its name. ``base_dir`` is then a folder of this machine, and what is opened is the
            tier's where that has a higher step, or the folder has none.
        keep: makes a training's location a history, and says which steps stay. None goes on with
            what is there: a history, of which all steps stay then, or a single checkpoint.
        ranks: of the run, connected: all begin with the state that rank 0 opens. One process by
            default.

    Attributes:
        checkpoint_dir: where the checkpoint is: a single one, a history, or both, of which the
            higher step is the newest.
        keep: as given.
        tier: of this model; None for nowhere.
        damaged: the steps of a history that were passed over as damaged; a training may replace
            them.
        removed: the steps that were removed to go back.

    Raises:
        ValueError: the name is not a plain one.
    """

    def __init__(
        self,
        model_name: str,
        base_dir: str | os.PathLike[str] = "checkpoints",
        *,
        fallback: bool = False,
        keep: Keep | None = None,
        tier: Tier | None = None,
        ranks: Ranks | None = None,
    ) -> None:
        self.model_name = _plain("model_name", model_name)
        self.base_dir = os.fspath(base_dir)
        self.keep = keep
        self.tier = None
        if tier is not None:
            self.tier = replace(tier, location=_join(os.fspath(tier.location), model_name))
        self.damaged: frozenset[int] = frozenset()
        self.removed: tuple[int, ...] = ()
        self._fallback = fallback
        self._ranks = ranks or Ranks()
        self.checkpoint_dir = _join(self.base_dir, model_name)

    def get_path(self, filename: str) -> str:
        """Return where a file of the checkpoint is; it need not exist.

        Raises:
            ValueError: the name would lead out of the checkpoint.
        """
        return _join(self.checkpoint_dir, _plain("filename", filename))

    def exists(self) -> bool:
        """Whether there is a checkpoint, of any format.

        Raises:
            CkptstoreError: what is there cannot be opened, so the answer is neither.
        """
        try:
            return self._there(fallback=False) is not None
        except (CorruptionError, UnsafeError):
            if self._fallback:
                return True  # Whether any of it is sound, whoever opens it is told.
            raise

    @classmethod
    def load_for_inference(
        cls,
        model_name: str,
        base_dir: str | os.PathLike[str] = "checkpoints",
        legacy_filename: str | None = None,
        *,
        map_location: Any = None,
        fallback: bool = False,
    ) -> GPT:
        """Return the model in eval mode; optimizer and further states are not read.

        Args:
            model_name: as for the manager.
            base_dir: as for the manager.
            legacy_filename: a legacy file to load instead, such as ``final.pt``.
            map_location: where to put it; None is the config's device, or the CPU with a warning.
            fallback: as for the manager.

        Raises:
            NotFoundError: there is no such checkpoint.
            CorruptionError: it is damaged, or config and weights do not belong together.
        """
        manager = cls(model_name, base_dir, fallback=fallback)
        checkpoint = manager.open(legacy_filename)
        from gpt.model import GPT

        return bundle.load_model(GPT, checkpoint, map_location=map_location).eval()

    def open(self, legacy_filename: str | None = None) -> Checkpoint:
        """Open the checkpoint, or a legacy file in its folder, without reading weights."""
        return self._open(legacy_filename, self._fallback)

    def initialize_for_training(
        self,
        config: GPTConfig,
        tokenization: str | None,
        input_text: str,
        learning_rate: float | None = 3e-4,
        init_from_model: str | None = None,
        *,
        fresh_optimizer: bool = False,
        taken_on_resume: Collection[str] = TAKEN_ON_RESUME,
        tokenizer_options: Mapping[str, object] | None = None,
        from_step: int | None = None,
    ) -> tuple[GPT, torch.optim.AdamW, int]:
        """Resume where there is a checkpoint, else start from another model, else start fresh.

        Guarantee (G8): what `fit` then does is what it would have done without the interruption.

        Args:
            config: of a fresh model, its vocab_size adapted to the tokenizer. On resume, and from
                another model, the architecture is the checkpoint's.
            tokenization: the tokenizer kind. An existing model keeps its vocabulary, and another
                kind is an error; None takes the model's (a fresh one: ``char``).
            input_text: what a fresh vocabulary is made of, where the kind needs that.
            learning_rate: of the optimizer, on resume too; None keeps the checkpoint's.
            init_from_model: the model below ``base_dir`` to take the weights of; not on resume.
            fresh_optimizer: on resume, leave the optimizer's state aside.
            taken_on_resume: the config fields that hold on resume instead of the checkpoint's.
            tokenizer_options: training options of the kind, for a vocabulary that is made here. An
                existing model keeps its vocabulary; that the options change nothing is then a
                warning.
            from_step: the step to go back to. Once all of it was read and proved, the later ones
                are removed, so that the newest is always the run that goes on; `removed` names
                them.

        Returns:
            The model on its device, its optimizer, and the finished optimizer steps.

        Raises:
            ValueError: the tokenizers do not match, or the kind is not fit for the text or has no
                such option.
            NotFoundError: the checkpoint names an optimizer that is absent, there is no model of
                the name ``init_from_model``, or no step ``from_step``.
            CorruptionError: the optimizer state does not fit; the message says what differs.
        """
        asked = matching.Asked(tokenization, tokenizer_options or {}, input_text)
        checkpoint = open_same(self._ranks, self.checkpoint_dir, lambda: self._begin(from_step))
        if checkpoint is not None:
            _say_if_ignored(init_from_model, checkpoint)
            model = self._model_of(checkpoint, config, taken_on_resume, asked)
            step, state = _training_of(checkpoint, fresh_optimizer)
            bundle.carry(model, checkpoint)
            optimizer = _optimizer(model, learning_rate, state, checkpoint)
            self._check_equal(model, step)
            if from_step is not None and self._ranks.first:
                self._remove_later(from_step)
            return model, optimizer, step
        if init_from_model is None:
            model = matching.fresh_model(config, asked)
        else:
            model = self._from_other(init_from_model, config, asked)
        self._check_equal(model, 0)
        return model, _optimizer(model, learning_rate), 0

    def _check_equal(self, model: GPT, step: int) -> None:
        """Make sure that all ranks begin alike; and until all have loaded, nobody goes on."""
        self._ranks.check_same(
            {
                "the step": step,
                "the config": model.config.to_dict(),
                "the device": model.device.type,
                "the tokenizer": digest_of(model.tokenizer_state),
            },
            "start all ranks with the same command, and the same files",
        )

    def _from_other(self, name: str, config: GPTConfig, asked: matching.Asked) -> GPT:
        other = type(self)(name, self.base_dir, fallback=self._fallback)
        source = open_same(self._ranks, other.checkpoint_dir, other.open)
        model = self._model_of(source, config, TAKEN_ON_RESUME, asked)
        matching.match_text(model, asked, source.location)
        return model

    def _open(self, legacy_filename: str | None, fallback: bool) -> Checkpoint:
        if legacy_filename:
            return ckptstore.open(self.get_path(legacy_filename), fallback=fallback)
        return self._store().open(fallback=fallback)

    def _store(self) -> Store:
        """Return what the checkpoint is opened from; it copies nothing."""
        # Whether it is a history, which alone can keep steps, is known when a training saves.
        tier = None if self.tier is None else replace(self.tier, uploader="none", keep=None)
        return Store(self.checkpoint_dir, tier=tier)

    def _there(self, *, fallback: bool) -> Checkpoint | None:
        try:
            return self._open(None, fallback)
        except NotFoundError:
            # An absent bucket is not an absent checkpoint: looking once more tells them apart,
            # before anybody trains for hours towards a save that cannot succeed.
            self._store().steps()
            return None

    def _begin(self, from_step: int | None) -> Checkpoint | None:
        """Open what a training goes on from; None where it begins."""
        if from_step is not None:
            if self._fallback:
                raise ValueError("from_step and fallback exclude each other: the step is named")
            return self._store().open(from_step)
        checkpoint = self._there(fallback=self._fallback)
        if checkpoint is not None and checkpoint.passed_over:
            self._store().open()  # What nobody can read stops every save.
            steps = (state.step for state in checkpoint.passed_over)
            self.damaged = frozenset(step for step in steps if step is not None)
        return checkpoint

    def _remove_later(self, step: int) -> None:
        store = self._store()
        try:
            self.removed = store.rewind(step)
        except NotFoundError:
            # It is the single checkpoint, and a history may have gone on beside it.
            self.removed = tuple(known for known in store.steps() if known > step)
            for known in reversed(self.removed):
                store.remove(known)

    def _model_of(
        self,
        checkpoint: Checkpoint,
        config: GPTConfig,
        taken: Collection[str],
        asked: matching.Asked,
    ) -> GPT:
        from gpt.model import GPT

        changes = {name: getattr(config, name) for name in taken}
        there = (checkpoint.config or {}).get("device")
        if "device" in changes and isinstance(there, str) and _same_device(there, config.device):
            del changes["device"]  # what is written stays as it is
        model = bundle.load_model(GPT, checkpoint, changes=changes)
        matching.match_tokenizer(model, asked, checkpoint.location)
        return model


def _say_if_ignored(init_from_model: str | None, checkpoint: Checkpoint) -> None:
    if init_from_model is not None:
        warnings.warn(
            f"resuming {checkpoint.location}, which is there already; not starting from "
            f"{init_from_model!r}",
            stacklevel=3,
        )


def _training_of(
    checkpoint: Checkpoint, fresh_optimizer: bool
) -> tuple[int, dict[str, Any] | None]:
    """Return the finished steps and the optimizer's state; what is missing is a warning."""
    where = checkpoint.location
    if checkpoint.step is None:
        warnings.warn(f"{where} records no training step; counting from step 0", stacklevel=3)
    if fresh_optimizer:
        return checkpoint.step or 0, None
    try:
        state = checkpoint.load_optimizer()
    except NotFoundError as error:
        raise NotFoundError(
            f"{error}; to go on without it, use --fresh_optimizer (fresh_optimizer=True)"
        ) from error
    if state is None:
        warnings.warn(f"{where} has no optimizer state; using a fresh optimizer", stacklevel=3)
    return checkpoint.step or 0, state


def _optimizer(
    model: GPT,
    learning_rate: float | None,
    state: dict[str, Any] | None = None,
    checkpoint: Checkpoint | None = None,
) -> torch.optim.AdamW:
    from gpt.optimizer import set_learning_rate

    try:
        optimizer = model.configure_optimizer(optimizer_state=state)
    except ValueError as error:
        where = checkpoint.location if checkpoint else "the model"
        raise CorruptionError(
            f"{where}: {error}; to go on without it, use --fresh_optimizer (fresh_optimizer=True)"
        ) from error
    if learning_rate is not None:
        set_learning_rate(optimizer, learning_rate)
    return optimizer


def _same_device(one: str, other: str) -> bool:
    return usable_device(one, warn=False) == usable_device(other, warn=False)


def _join(base: str, name: str) -> str:
    if "://" not in base:
        return os.path.join(base, name)
    return base + name if base.endswith("/") else f"{base}/{name}"


def _plain(what: str, name: str) -> str:
    parts = re.split(r"[/\\]" if os.name == "nt" else "/", name)
    if "://" in name or os.path.isabs(name) or any(part in ("", ".", "..") for part in parts):
        raise ValueError(f"{what} is {name!r}, not a name such as 'dante' or 'runs/dante'")
    return name
