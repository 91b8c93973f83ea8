"""The state of an Accelerator, into a store and out of it: `save_state` without pickles.

model.pt, optimizer.pt, scheduler.pt   the first that was prepared of each
model_1.pt, optimizer_1.pt, …          the others
scaler.pt                              the gradient scaler, in mixed precision
custom_0.pt, …                         what was given to ``register_for_checkpointing``
accelerator.pt                         steps of accumulation, and where the samplers are
random.pt                              random states of every process
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from ckptstore import Checkpoint, Keep, NotFoundError, RandomStates, Store, UnsupportedError

__all__ = ["load_state", "save_state"]

log = logging.getLogger(__name__)

_SHARDED = ("FSDP", "DEEPSPEED", "MEGATRON_LM", "XLA")
_MAY_BE_LEFT = ("scaler",)

Location = str | os.PathLike[str] | Store


def save_state(
    accelerator: Any,
    location: Location,
    *,
    step: int,
    config: Mapping[str, Any] | None = None,
    metrics: Mapping[str, float] | None = None,
    metrics_log: Sequence[Mapping[str, Any]] = (),
    training_state: Mapping[str, Any] | None = None,
    keep: Keep | None = None,
    overwrite: bool = False,
    storage_options: Mapping[str, Any] | None = None,
) -> Checkpoint:
    """Save all that was prepared, as a step of a history; call it in every process.

    Models, optimizers, schedulers, the scaler, objects that were registered for checkpointing,
    the samplers of data loaders, and the random states of Python, NumPy and torch in every
    process. The main process writes.

    Guarantee: whole or absent (G2), durable (G3), and nothing in it is run when it is read (G5),
    which cannot be said of the pickles that ``accelerator.save_state`` writes.

    Args:
        accelerator: an `accelerate.Accelerator` that has prepared a model.
        location: path, URL or a `Store`; the latter has its own ``keep`` and options.
        step: finished optimizer steps.
        config: the architecture; any JSON object.
        metrics: numbers for `Keep(best=...)`.
        metrics_log: what was measured since the training began, a JSON object for each time.
        training_state: further JSON fields.
        keep: which steps stay; all by default.
        overwrite: replace a step that is there with other content.
        storage_options: what fsspec's filesystem takes.

    Returns:
        A handle on what was committed.

    Raises:
        UnsupportedError: nothing was prepared, what was is sharded, or hooks of
            ``register_save_state_pre_hook`` wait for a folder.
        ConflictError: the step is there with other content.
    """
    from accelerate.utils import gather_object

    parts = _Parts(accelerator)
    parts.refuse_hooks("save")
    rank = accelerator.process_index
    own = {"loaders": parts.loaders.state_dict(), "random": RandomStates().state_dict()}
    everyone = dict(gather_object([(rank, own)]))
    with _store(location, keep or Keep(), storage_options) as store:
        try:
            if accelerator.is_main_process:
                store.save(
                    model=parts.model,
                    optimizer=parts.optimizer,
                    config=config,
                    step=step,
                    state={
                        **parts.others,
                        "accelerator": {
                            "step": accelerator.step,
                            "loaders": {key: value["loaders"] for key, value in everyone.items()},
                        },
                        "random": {key: value["random"] for key, value in everyone.items()},
                    },
                    metrics=metrics,
                    metrics_log=metrics_log,
                    training_state=training_state,
                    overwrite=overwrite,
                )
        finally:
            accelerator.wait_for_everyone()
        return store.open(step)


def load_state(
    accelerator: Any,
    location: Location,
    *,
    step: int | None = None,
    fallback: bool = False,
    storage_options: Mapping[str, Any] | None = None,
) -> Checkpoint | None:
    """Load what `save_state` saved into what was prepared, in place; call it in every process.

    All is compared before anything is changed, and every byte is proved (G4); nothing in it is
    run (G5).

    Args:
        accelerator: with the same models, optimizers and others prepared, in the same order.
        location: path, URL or a `Store`.
        step: which; the newest by default.
        fallback: where the newest is damaged, take the newest that is sound.
        storage_options: what fsspec's filesystem takes.

    Returns:
        What was loaded; None where nothing was saved yet, and no step was asked for.

    Raises:
        NotFoundError: there is no such step, or something that was prepared is not in it.
        UnsupportedError: something in it does not fit, or has nothing that it belongs to.
        CorruptionError: it is damaged.
    """
    parts = _Parts(accelerator)
    parts.refuse_hooks("load")
    with _store(location, Keep(), storage_options) as store:
        steps = store.steps()
        try:
            checkpoint = store.open(step, fallback=fallback)
        except NotFoundError:
            if step is None and not steps:
                return None
            raise
    into = {
        **parts.others,
        "accelerator": _Accumulation(accelerator, parts.loaders),
        "random": _Random(accelerator.process_index),
    }
    surplus = [name for name in checkpoint.states() if name not in {*into, *_MAY_BE_LEFT}]
    if surplus:
        raise UnsupportedError(
            f"{checkpoint.location} has {', '.join(map(repr, surplus))}, and nothing like it was "
            "prepared or registered; prepare the same objects in the same order"
        )
    checkpoint.restore(model=parts.model, optimizer=parts.optimizer, state=into)
    return checkpoint


class _Parts:
    """What an Accelerator has prepared, by the names of files."""

    def __init__(self, accelerator: Any) -> None:
        kind = getattr(accelerator.distributed_type, "name", "NO")
        if kind in _SHARDED:
            raise UnsupportedError(
                f"the Accelerator works with {kind}, which shards the state; ckptstore keeps the "
                "state of one process: use accelerator.save_state"
            )
        if not accelerator._models:
            raise UnsupportedError("the Accelerator has no model; call prepare(model, ...) first")
        self._accelerator = accelerator
        # Wrappers know no more than what they wrap, and what they wrap can be compared.
        optimizers = [getattr(one, "optimizer", one) for one in accelerator._optimizers]
        schedulers = [getattr(one, "scheduler", one) for one in accelerator._schedulers]
        self.model = accelerator._models[0]
        self.optimizer = optimizers[0] if optimizers else None
        self.loaders = _Loaders(accelerator._dataloaders)
        self.others: dict[str, Any] = {
            **_numbered("model", accelerator._models[1:], 1),
            **_numbered("optimizer", optimizers[1:], 1),
            **({"scheduler": schedulers[0]} if schedulers else {}),
            **_numbered("scheduler", schedulers[1:], 1),
            **({"scaler": accelerator.scaler} if accelerator.scaler is not None else {}),
            **_numbered("custom", accelerator._custom_objects, 0),
        }

    def refuse_hooks(self, act: str) -> None:
        """Refuse hooks that would write files of their own beside, or look for some."""
        if getattr(self._accelerator, f"_{act}_model_state_pre_hook", None):
            raise UnsupportedError(
                f"a hook of register_{act}_state_pre_hook waits for a folder, and there is none; "
                "register what it keeps with register_for_checkpointing instead"
            )


class _Loaders:
    """Where the data loaders are: their epoch, their sampler, and their own place if they know."""

    def __init__(self, loaders: Sequence[Any]) -> None:
        self._loaders = loaders

    def state_dict(self) -> list[dict[str, Any]]:
        states = []
        for loader in self._loaders:
            sampler = _sampler_of(loader)
            generator = getattr(sampler, "generator", None)
            stateful = getattr(loader, "use_stateful_dataloader", False)
            states.append(
                {
                    "iteration": getattr(loader, "iteration", None),
                    "epoch": getattr(sampler, "epoch", None),
                    "initial_seed": getattr(sampler, "initial_seed", None),
                    "generator": None if generator is None else generator.get_state(),
                    "place": loader.state_dict() if stateful else None,
                }
            )
        return states

    def load_state_dict(self, states: Sequence[Mapping[str, Any]]) -> None:
        if len(states) != len(self._loaders):
            raise ValueError(f"it has {len(states)} data loaders, not {len(self._loaders)}")
        names = ("iteration", "epoch", "initial_seed", "generator", "place")
        for loader, state in zip(self._loaders, states, strict=True):
            iteration, epoch, seed, generator, place = (state[name] for name in names)
            sampler = _sampler_of(loader)
            if iteration is not None:
                loader.iteration = iteration
            if epoch is not None and hasattr(sampler, "epoch"):
                sampler.epoch, sampler.initial_seed = epoch, seed
            if generator is not None and getattr(sampler, "generator", None) is not None:
                sampler.generator.set_state(generator)
            if place is not None:
                loader.load_state_dict(place)


class _Accumulation:
    """What an Accelerator counts itself, and this process's data loaders."""

    def __init__(self, accelerator: Any, loaders: _Loaders) -> None:
        self._accelerator = accelerator
        self._loaders = loaders

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        step, loaders = int(state["step"]), state["loaders"]
        rank = self._accelerator.process_index
        if rank in loaders:
            self._loaders.load_state_dict(loaders[rank])
        else:
            log.warning("no data loaders of process %d were saved: they begin anew", rank)
        self._accelerator.step = step


class _Random(RandomStates):
    """The random states of this process among those of all."""

    def __init__(self, rank: int) -> None:
        self._rank = rank

    def load_state_dict(self, state: Mapping[Any, Any]) -> None:
        if self._rank in state:
            super().load_state_dict(state[self._rank])
        else:
            log.warning("no random states of process %d were saved: left as they are", self._rank)

    def check(self, state: Any, where: str = "the state") -> None:
        if not isinstance(state, Mapping):
            raise UnsupportedError(f"{where} holds no random states by process")
        if self._rank in state:
            super().check(state[self._rank], where)


def _sampler_of(loader: Any) -> Any:
    find = getattr(loader, "get_sampler", None)
    return find() if callable(find) else getattr(loader, "sampler", None)


def _numbered(name: str, values: Sequence[Any], first: int) -> dict[str, Any]:
    return {f"{name}_{number}": value for number, value in enumerate(values, first)}


@contextmanager
def _store(
    location: Location, keep: Keep, storage_options: Mapping[str, Any] | None
) -> Iterator[Store]:
    if isinstance(location, Store):
        if location.keep is None:
            raise UnsupportedError(
                f"{location!r} holds a single checkpoint; steps need Store(..., keep=Keep())"
            )
        yield location
        return
    with Store(location, keep=keep, storage_options=storage_options) as store:
        yield store
