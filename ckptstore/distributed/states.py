"""Save and load a model and its optimizer in shards, without a word of torch.distributed."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict import (
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from ckptstore import tensors
from ckptstore.checkpoint import Checkpoint
from ckptstore.distributed.reader import StoreReader
from ckptstore.distributed.writer import StoreWriter
from ckptstore.errors import (
    CkptstoreError,
    ConflictError,
    NotFoundError,
    StorageError,
    SupersededError,
    UnsupportedError,
)
from ckptstore.formats.shards import MODEL, OPTIMIZER, Part
from ckptstore.keep import Keep
from ckptstore.opening import Location
from ckptstore.store import Store
from ckptstore.tokenizers.base import Tokenizer

__all__ = ["load_sharded", "save_sharded"]

_TRIES = 5


def save_sharded(
    location: Location | Store,
    *,
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer | None = None,
    step: int | None = None,
    config: Mapping[str, Any] | None = None,
    tokenizer: Tokenizer | Mapping[str, Any] | None = None,
    state: Mapping[str, Any] | None = None,
    training_state: Mapping[str, Any] | None = None,
    metrics: Mapping[str, float] | None = None,
    keep: Keep | None = None,
    overwrite: bool = False,
    durable: bool = True,
    small_view: bool = True,
    process_group: dist.ProcessGroup | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> Checkpoint | None:
    """Save a model and its optimizer, each process of the group what it holds of them.

    Call it on every rank, with the same arguments. Without a process group it saves what this
    process has. Parameters go by their names, in the optimizer's state too.

    Guarantee: all of it or nothing (G2), whichever rank dies; durable when this returns (G3).

    Args:
        location: path or URL, the same storage from every rank; or a `Store`.
        model: a module, as it is: `fully_shard`, DistributedDataParallel, compiled, or plain.
        optimizer: its optimizer.
        state: further objects that have a state dict, or state dicts, by name; what differs from
            rank to rank is kept of one of them.
        process_group: of the ranks that save; all by default.
        step, config, tokenizer, training_state, metrics, keep, overwrite, durable, small_view,
            storage_options: see `StoreWriter`.

    Returns:
        A handle on what was committed, on the first rank of the group; None on the others.

    Raises:
        ConflictError: another writer was first, or the step is there with other content.
        UnsafeError, UnsupportedError: something cannot be saved, or not so that it loads safely.
        StorageError: the storage failed, or a rank did; its ``committed`` says whether the save
            counts.
    """
    whole: dict[str, Any] = {MODEL: get_model_state_dict(model)}
    if optimizer is not None:
        whole[OPTIMIZER] = get_optimizer_state_dict(model, optimizer)
    for name, value in (state or {}).items():
        if name in (MODEL, OPTIMIZER):
            raise UnsupportedError(f"a state cannot be called {name!r}; choose another name")
        whole[name] = tensors.state_of(value, name)
    writer = StoreWriter(
        location,
        step=step,
        config=config,
        tokenizer=tokenizer,
        training_state=training_state,
        metrics=metrics,
        keep=keep,
        overwrite=overwrite,
        durable=durable,
        small_view=small_view,
        storage_options=storage_options,
    )
    with _our_errors(writer), _alone(), writer:
        save(whole, storage_writer=writer, process_group=process_group)
    return writer.checkpoint


def load_sharded(
    location: Location,
    *,
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer | None = None,
    step: int | None = None,
    state: Mapping[str, Any] | None = None,
    process_group: dist.ProcessGroup | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> Checkpoint:
    """Load a sharded state into a model and its optimizer, in any number of processes.

    Call it on every rank of the group; each reads what it needs. Without a process group it loads
    all of it.

    Guarantee: all ranks load one and the same state (G7); every byte is proved before it is used
    (G4), and nothing is executed (G5).

    Args:
        location: path or URL.
        model: a module; its parameters are overwritten.
        optimizer: its optimizer; its state is replaced.
        step: the training step of a history; the newest by default.
        state: objects with ``load_state_dict``, and torch's generators, by the names that they were
            saved under.
        process_group: of the ranks that load; all by default.
        storage_options: what fsspec's filesystem takes.

    Returns:
        A handle on the state that was loaded, on every rank.

    Raises:
        NotFoundError: there is no such checkpoint, or it has no optimizer or state asked for.
        UnsupportedError: names or shapes differ; or it has another format than ``sharded``.
        CorruptionError, UnsafeError, SupersededError, StorageError: see `Checkpoint.load_model`.
    """
    for _ in range(_TRIES):
        reader = _opened_by_all(location, step, storage_options, process_group)
        if reader is None:
            continue
        if optimizer is not None and not reader.checkpoint.has_optimizer:
            raise NotFoundError(
                f"{reader.checkpoint.location} has no optimizer; load without optimizer=, and "
                "start with a fresh one"
            )
        own: dict[str, Any] = {MODEL: get_model_state_dict(model)}
        if optimizer is not None:
            own[OPTIMIZER] = get_optimizer_state_dict(model, optimizer)
        wanted: dict[str, Any] = {}
        for name, value in own.items():
            _put(wanted, reader.parts.get(name, Part()).at, value)
        try:
            with _our_errors(), _alone():
                load(wanted, storage_reader=reader, process_group=process_group)
        except SupersededError:
            continue
        got = {name: _taken(wanted, reader.parts.get(name, Part()).at, own[name]) for name in own}
        set_model_state_dict(model, got[MODEL])
        if optimizer is not None:
            set_optimizer_state_dict(model, optimizer, got[OPTIMIZER])
        if state:
            reader.checkpoint.restore(state=state)
        return reader.checkpoint
    raise ConflictError(f"{location} changes faster than it can be loaded; try again")


def _put(whole: dict[str, Any], at: tuple[str, ...], value: Mapping[str, Any]) -> None:
    """Put a state dict where it was when it was saved."""
    if not at:
        whole.update(value)
        return
    for key in at[:-1]:
        whole = whole.setdefault(key, {})
    whole[at[-1]] = value


def _taken(whole: dict[str, Any], at: tuple[str, ...], like: Mapping[str, Any]) -> dict[str, Any]:
    """Return a state dict from where `_put` put it."""
    if not at:
        return {name: whole[name] for name in like}
    for key in at:
        whole = whole[key]
    return whole


def _opened_by_all(
    location: Location,
    step: int | None,
    options: Mapping[str, Any] | None,
    group: dist.ProcessGroup | None,
) -> StoreReader | None:
    """Return a reader of the state that all ranks have opened; None where these were different.

    Raises:
        CkptstoreError: a rank could not open it; each raises its own error, or that of another.
    """
    reader, failed = None, None
    try:
        reader = StoreReader(location, step, storage_options=options)
    except CkptstoreError as error:
        failed = error
    if _in_a_group():
        # So that nobody waits for a rank that has given up already.
        told: list[Any] = [None] * dist.get_world_size(group)
        own = (None if reader is None else reader.identity, failed)
        dist.all_gather_object(told, own, group=group)
        others = [error for _, error in told if error is not None]
        failed = failed or (others[0] if others else None)
        if failed is None and len({identity for identity, _ in told}) > 1:
            return None
    if failed is not None:
        raise failed
    return reader


def _in_a_group() -> bool:
    return dist.is_available() and dist.is_initialized()


@contextmanager
def _our_errors(writer: StoreWriter | None = None) -> Iterator[None]:
    """Raise an error of ours for one of torch's: the one that a rank had, where there is one.

    Args:
        writer: what was to save; None where something was to be loaded.
    """
    try:
        yield
    except CheckpointException as error:
        causes = {rank: failure[0] for rank, failure in sorted(error.failures.items())}
        ours = [cause for cause in causes.values() if isinstance(cause, CkptstoreError)]
        if ours:
            raise ours[0] from error
        rank, cause = next(iter(causes.items()))
        first = (str(cause).splitlines() or [type(cause).__name__])[0]
        told = "what was to be loaded into differs from what is there; its names and shapes have "
        told += "to be those of the save"
        raise UnsupportedError(
            f"rank {rank}: {first}; {told if writer is None else 'nothing was committed'}"
        ) from error
    except RuntimeError as error:
        # What a rank raises itself comes as the above; this is of the connection between them.
        first = (str(error).splitlines() or [type(error).__name__])[0]
        committed = False if writer is None else writer.committed
        known = {True: "was committed", False: "was not committed", None: "may be committed"}
        state = "nothing was changed" if writer is None else f"the save {known[committed]}"
        raise StorageError(
            f"the ranks lost each other ({first[:200]}); {state}: start them again, and open the "
            "location to see what it holds",
            committed=committed,
        ) from error


@contextmanager
def _alone() -> Iterator[None]:
    """Let torch be quiet about there being one process, where there is no group."""
    if _in_a_group():
        yield
        return
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled", UserWarning)
        yield
