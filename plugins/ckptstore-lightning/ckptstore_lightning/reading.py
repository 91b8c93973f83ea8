"""Reads checkpoints of Lightning: those saved here, those of its own, and any of ckptstore's."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import ckptstore
from ckptstore import CorruptionError, NotFoundError, UnsafeError
from ckptstore_lightning import framework
from ckptstore_lightning.parts import REST, joined
from ckptstore_lightning.places import Place

if TYPE_CHECKING:
    import os

__all__ = ["load_from_checkpoint", "read"]

_VERSION = "pytorch-lightning_version"


def load_from_checkpoint(
    cls: type,
    location: str | os.PathLike[str],
    *,
    map_location: Any = None,
    strict: bool | None = None,
    storage_options: Mapping[str, Any] | None = None,
    **overrides: Any,
) -> Any:
    """Make a LightningModule or LightningDataModule with what a checkpoint holds of it.

    The same as Lightning's ``cls.load_from_checkpoint``, which reads single files alone, and does
    not ask any plugin. Optimizers are not read, and a hook of the module does not see them.

    Guarantee: every byte is proved (G4), and none is executed (G5).

    Args:
        cls: the class to make.
        location: path or URL of a checkpoint of ckptstore's, or of a file of Lightning's.
        map_location: where tensors go, as `torch.load` has it; the CPU by default.
        strict: whether names have to be the same on both sides; as the module says by default.
        storage_options: what fsspec's filesystem takes.
        **overrides: hyper-parameters in the place of those that were saved.

    Returns:
        The module, on the device of its weights.

    Raises:
        NotFoundError, CorruptionError, StorageError: as `ckptstore.open` does.
        UnsafeError: the same, or it names code to make the module with.
    """
    import torch

    place = Place(location, storage_options)
    found = read(place, map_location, optimizers=False)
    migrated = framework.pytorch("utilities.migration.utils")._pl_migrate_checkpoint(found)
    key = cls.CHECKPOINT_HYPER_PARAMS_KEY  # type: ignore[attr-defined]
    saved = migrated.get(key, {})
    _check_instantiator(saved.get("_instantiator"), place)
    saved.update(overrides)
    migrated[key] = saved
    load = framework.pytorch("core.saving")._load_state
    if not issubclass(cls, framework.pytorch().LightningModule):
        return load(cls, migrated, **overrides)
    module = load(cls, migrated, strict=strict, **overrides)
    weights = migrated["state_dict"].values()
    first = next((value for value in weights if isinstance(value, torch.Tensor)), None)
    return module if first is None else module.to(first.device)


def _check_instantiator(name: Any, place: Place) -> None:
    """Refuse a function that a checkpoint names to make the module with.

    Lightning imports and calls it: LightningCLI's own, which a list of its allows since 2.6, and
    before that any.

    Raises:
        UnsafeError: it is another, or this Lightning has no such list.
    """
    allowed = getattr(framework.pytorch("core.saving"), "_ALLOWED_INSTANTIATORS", ())
    if name is not None and name not in allowed:
        raise UnsafeError(
            f"{place.location} names {name!r} to make the module with, which would be imported "
            "and called; nothing was run, make the module yourself and use the state_dict of "
            "StoreCheckpointIO().load_checkpoint(...)"
        )


def read(place: Place, map_location: Any = None, *, optimizers: bool = True) -> dict[str, Any]:
    """Return the checkpoint at a place as Lightning has it.

    Args:
        place: of a checkpoint that was saved here; of a single file that Lightning wrote; or of
            any other checkpoint that ckptstore opens, of which Lightning gets what it can use.
        map_location: where tensors go, as `torch.load` has it; the CPU by default.
        optimizers: whether those of a checkpoint of ours are read, too.
    """
    where = "cpu" if map_location is None else map_location
    if place.is_file():
        return _of_file(place, where)
    checkpoint = ckptstore.open(place.location, storage_options=place.options)
    if REST in checkpoint.states() and f"{REST}.pt" in _present(checkpoint):
        return joined(checkpoint, where, optimizers=optimizers)
    return _of_another(checkpoint, where, optimizers)


def _present(checkpoint: ckptstore.Checkpoint) -> set[str]:
    return {name for name, info in checkpoint.files().items() if info.present}


def _of_another(
    checkpoint: ckptstore.Checkpoint, map_location: Any, optimizers: bool
) -> dict[str, Any]:
    """Return what Lightning can use of another checkpoint, an inference copy too."""
    fields = checkpoint.training_state or {}
    found: dict[str, Any] = {
        "epoch": fields.get("epoch", 0),
        "global_step": checkpoint.step or 0,
        _VERSION: fields.get(_VERSION, framework.pytorch().__version__),
        "state_dict": checkpoint.load_model(map_location=map_location),
    }
    moments = (
        checkpoint.load_optimizer(map_location) if optimizers and checkpoint.has_optimizer else None
    )
    if moments is not None:
        found["optimizer_states"] = [moments]
    if checkpoint.config is not None:
        found["hyper_parameters"] = checkpoint.config
    return found


def _of_file(place: Place, map_location: Any) -> dict[str, Any]:
    """Return what a single file holds, which torch's safe loader reads and nothing proves."""
    import torch

    try:
        with place.open() as file:
            found = torch.load(file, map_location=map_location, weights_only=True)
    except FileNotFoundError as error:
        raise NotFoundError(f"no checkpoint at {place.location}") from error
    except pickle.UnpicklingError as error:
        raise UnsafeError(
            f"{place.location} holds more than tensors and plain values, so reading it would run "
            f"code, and nothing was run: {_reason(error)}; if you trust it, load it once with "
            "torch.load(..., weights_only=False), and save it with StoreCheckpointIO"
        ) from error
    except (RuntimeError, EOFError, LookupError, ValueError, TypeError, AttributeError) as error:
        raise CorruptionError(
            f"{place.location} is damaged, or no checkpoint: {_first_line(error)}; "
            "restore it from a good copy"
        ) from error
    if isinstance(found, dict) and "model_state_dict" in found and "state_dict" not in found:
        return _of_another(
            ckptstore.open(place.location, storage_options=place.options), map_location, True
        )
    return found  # type: ignore[no-any-return]


def _reason(error: BaseException) -> str:
    """Return what torch's safe loader found, out of its long advice."""
    lines = [line.strip() for line in str(error).splitlines()]
    named = next((line for line in lines if "GLOBAL" in line or "Unsupported" in line), None)
    return named.split(". Please use")[0] if named else _first_line(error)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
