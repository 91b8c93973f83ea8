"""A ``checkpoint-N`` of the Trainer's: what is in it, as a save takes it, and the folder again.

    model.safetensors          the model's state dict, whether in one file or in several
    adapter_model.safetensors  the same, where the model is an adapter (PEFT)
    config.json                the config
    optimizer.pt               the optimizer's state dict
    scheduler.pt, scaler.pt    states of these names
    rng_state.pth, rng_state_0.pth, …   in the state ``rng``, by file
    trainer_state.json         its numbers as metrics and rows of metrics.jsonl
    trainer_state.json and all other texts, tokenizers and templates: in the state ``trainer``

What is a pickle and none of these (``training_args.bin`` always) is left out, and never read.
"""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ckptstore import Checkpoint, CorruptionError, NotFoundError, UnsupportedError
from ckptstore.manifest import plain_name
from ckptstore_transformers.randomness import read_random, write_random

__all__ = ["BEST", "FOLDER", "STATE", "contents_of", "trainer_state_of", "write_folder"]

log = logging.getLogger(__name__)

FOLDER = "checkpoint-{step}"
BEST = "trainer_best_step"
"""The metric of steps that were the Trainer's best when they were saved: the step itself."""

STATE = "trainer_state.json"
_WEIGHTS, _ADAPTER = "model.safetensors", "adapter_model.safetensors"
_INDEX = "model.safetensors.index.json"
_STATES = ("scheduler", "scaler")
_RANDOM = re.compile(r"rng_state(_\d+)?\.pth")
_PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")
_VERSION = 1


def contents_of(folder: Path) -> dict[str, Any]:
    """Return what a folder holds, as keyword arguments of `Store.save`.

    Raises:
        NotFoundError: there is no such folder, or no checkpoint of the Trainer's in it.
        UnsupportedError: it is sharded by FSDP or DeepSpeed, or holds what cannot be kept.
    """
    if not (folder / STATE).is_file():
        raise NotFoundError(f"{folder} is no checkpoint of the Trainer's: it has no {STATE}")
    state = _json(folder / STATE)
    step = state.get("global_step")
    if type(step) is not int:
        raise UnsupportedError(f"{STATE} in {folder} has the global_step {step!r}, not a number")
    kept, weights = _kept(folder), _weights_file(folder)
    model, metadata = _model(folder, weights)
    trainer: dict[str, Any] = {
        "version": _VERSION,
        "weights": weights,
        "metadata": metadata,
        "files": kept,
    }
    if any(name.startswith("module.") or "_orig_mod" in name for name in model):
        trainer["names"] = list(model)  # A store gives them back without these.
    states: dict[str, Any] = {"trainer": trainer}
    for name in _STATES:
        if (folder / f"{name}.pt").is_file():
            states[name] = _loaded(folder / f"{name}.pt")
    random = {file.name: read_random(file) for file in _files(folder, _RANDOM.fullmatch)}
    if random:
        states["rng"] = random
    optimizer = folder / "optimizer.pt"
    rows = [dict(row) for row in state.get("log_history", ()) if isinstance(row, Mapping)]
    return {
        "model": model,
        "config": _config(folder),
        "optimizer": _loaded(optimizer) if optimizer.is_file() else None,
        "step": step,
        "state": states,
        "training_state": {"trainer": "transformers", "epoch": state.get("epoch")},
        "metrics": _metrics(rows, step, state.get("best_global_step")),
        "metrics_log": rows,
    }


def write_folder(checkpoint: Checkpoint, folder: Path, texts: Mapping[str, str]) -> None:
    """Write a checkpoint as the folder that the Trainer wrote; every byte of it was proved.

    Args:
        checkpoint: of a store that `contents_of` was saved to.
        folder: is there, and empty.
        texts: what some of its texts are to be instead.

    Raises:
        UnsupportedError: it is no checkpoint of the Trainer's.
        CorruptionError: it is damaged.
    """
    import torch
    from safetensors.torch import save_file

    trainer = _trainer(checkpoint)
    model = checkpoint.load_model()
    names = trainer.get("names") or list(model)
    if len(names) != len(model):
        raise CorruptionError(f"{checkpoint.location} has {len(model)} weights, not {len(names)}")
    weights = dict(zip(names, model.values(), strict=True))
    name = plain_name(trainer["weights"], checkpoint.location)
    save_file(weights, folder / name, metadata=trainer.get("metadata") or None)
    del model, weights
    optimizer = checkpoint.load_optimizer()
    if optimizer is not None:
        torch.save(optimizer, folder / "optimizer.pt")
        del optimizer
    for state in {*_STATES} & {*checkpoint.states()}:
        torch.save(checkpoint.load_state(state), folder / f"{state}.pt")
    if "rng" in checkpoint.states():
        for file, random in checkpoint.load_state("rng").items():
            write_random(random, _inside(folder, file, checkpoint), checkpoint.location)
    for file, content in {**trainer["files"], **texts}.items():
        target = _inside(folder, file, checkpoint)
        target.parent.mkdir(exist_ok=True)
        if isinstance(content, str):
            target.write_bytes(content.encode())
        else:
            target.write_bytes(content.numpy().tobytes())


def trainer_state_of(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return what trainer_state.json of a checkpoint holds.

    Raises:
        UnsupportedError: it is no checkpoint of the Trainer's.
        CorruptionError: it is damaged.
    """
    try:
        found = json.loads(_trainer(checkpoint)["files"][STATE])
        return dict(found)
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptionError(f"{STATE} in {checkpoint.location} is malformed: {error}") from error


def _trainer(checkpoint: Checkpoint) -> dict[str, Any]:
    if "trainer" not in checkpoint.states():
        raise UnsupportedError(
            f"{checkpoint.location} is no checkpoint of the Trainer's: its states are "
            f"{', '.join(map(repr, checkpoint.states())) or 'none'}; load it with ckptstore.open"
        )
    trainer = checkpoint.load_state("trainer")
    wanted = {"weights": str, "files": dict, "version": int}
    if not isinstance(trainer, dict) or any(
        not isinstance(trainer.get(name), kind) for name, kind in wanted.items()
    ):
        raise CorruptionError(f"the state 'trainer' in {checkpoint.location} is malformed")
    if trainer["version"] > _VERSION:
        raise UnsupportedError(
            f"the state 'trainer' in {checkpoint.location} is of version {trainer['version']}, "
            f"and this ckptstore-transformers knows {_VERSION}; upgrade it"
        )
    return trainer


def _inside(folder: Path, name: Any, checkpoint: Checkpoint) -> Path:
    """Return where a file goes, at most one folder down, and never anywhere else (G5)."""
    parts = str(name).split("/")
    if len(parts) > 2:
        raise CorruptionError(f"{checkpoint.location} has a file {name!r}, too deep a name")
    return folder.joinpath(*(plain_name(part, checkpoint.location) for part in parts))


# -- out of a folder ----------------------------------------------------------------------


def _weights_file(folder: Path) -> str:
    for name in (_WEIGHTS, _ADAPTER):
        if (folder / name).is_file() or (name == _WEIGHTS and (folder / _INDEX).is_file()):
            return name
    there = ", ".join(sorted(path.name for path in folder.iterdir()))
    raise UnsupportedError(
        f"{folder} has neither {_WEIGHTS} nor {_ADAPTER}, but {there}; weights that FSDP or "
        "DeepSpeed shard, and weights in pickles, are not kept"
    )


def _model(folder: Path, name: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the weights, mapped into memory, and what their header says beside them."""
    from safetensors import safe_open

    shards = [name]
    if not (folder / name).is_file():
        index = _json(folder / _INDEX).get("weight_map", {})
        shards = sorted({plain_name(shard, str(folder)) for shard in index.values()})
    model: dict[str, Any] = {}
    metadata: dict[str, str] = {}
    for shard in shards:
        with safe_open(folder / shard, framework="pt") as file:
            metadata |= file.metadata() or {}
            for key in file.keys():  # noqa: SIM118  (it is no dict)
                model[key] = file.get_tensor(key)
    return model, metadata


def _loaded(file: Path) -> Any:
    import torch

    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # Whatever torch's loader raises of what it refuses.
        first = (str(error).splitlines() or [""])[0]
        raise UnsupportedError(
            f"{file} cannot be read without running code, so it is not kept: {first}"
        ) from error


def _config(folder: Path) -> dict[str, Any] | None:
    """Return the config; one with numbers that JSON does not have is kept as a text alone."""
    if not (folder / "config.json").is_file():
        return None
    config = _json(folder / "config.json")
    try:
        json.dumps(config, allow_nan=False)
    except ValueError:
        return None
    return config


def _kept(folder: Path) -> dict[str, Any]:
    """Return the texts and other files that are kept as they are, by name."""
    import torch

    kept: dict[str, Any] = {}
    for name, path in _named_files(folder):
        if path.suffix == ".safetensors" or path.name == _INDEX:
            if "/" in name:
                raise UnsupportedError(
                    f"{folder} holds several adapters ({name}), and one is what can be kept"
                )
            continue
        if path.suffix in _PICKLES:
            known = (*(f"{state}.pt" for state in _STATES), "optimizer.pt", "training_args.bin")
            if name not in known and not _RANDOM.fullmatch(name):
                log.warning("%s may be a pickle: not kept", path)
            continue
        data = path.read_bytes()
        try:
            kept[name] = data.decode()
        except UnicodeDecodeError:
            kept[name] = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    return kept


def _named_files(folder: Path) -> Iterator[tuple[str, Path]]:
    for path in sorted(folder.iterdir()):
        if path.is_file():
            yield path.name, path
            continue
        for inner in sorted(path.iterdir()):
            if inner.is_dir() or inner.suffix in (".distcp", *_PICKLES):
                raise UnsupportedError(
                    f"{folder} holds {path.name}/{inner.name}: what FSDP and DeepSpeed shard is "
                    "not kept; have them save a full state dict"
                )
            yield f"{path.name}/{inner.name}", inner


def _files(folder: Path, wanted: Callable[[str], object]) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file() and wanted(path.name))


def _json(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text("utf-8"))
    except ValueError as error:
        raise UnsupportedError(f"{file} is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise UnsupportedError(f"{file} holds a {type(found).__name__}, not an object")
    return found


def _metrics(rows: list[dict[str, Any]], step: int, best: Any) -> dict[str, float]:
    """Return what was measured at a step, but for what was measured of the machine."""
    found: dict[str, float] = {BEST: step} if best == step else {}
    for row in rows:
        for name, value in row.items() if row.get("step") == step else ():
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            machine = name in ("step", "epoch") or name.endswith(("_runtime", "_per_second"))
            if number and not machine and math.isfinite(value):
                found[name] = value
    return found
