"""Small checkpoints whose files have the same sizes whatever their seed, and looks at them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

import ckptstore

FILES = ("model.pt", "optimizer.pt", "rng.pt")
TEXTS = ("config.json", "tokenizer.json", "training_state.json")
_READERS_OF_PICKLES = ("ptfile/pickles.py", "torch/_weights_only_unpickler.py", "/pickle.py")


def contents(seed: int = 0, step: int = 5) -> dict[str, Any]:
    """Return what `save` takes: weights, moments, a further state and every JSON file."""
    torch.manual_seed(seed)
    model = torch.nn.Linear(5, 3)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    model(torch.randn(2, 5)).sum().backward()
    optimizer.step()
    return {
        "model": model,
        "optimizer": optimizer,
        "config": {"n_in": 5, "n_out": 3, "dropout": 0.5},
        "tokenizer": {"token_kind": "char", "chars": ["\n", "a", "è"]},
        "state": {"rng": {"torch": torch.randn(7)}},
        "training_state": {"note": "a word"},
        "metrics": {"val_loss": 1.5},
        "step": step,
    }


def save(location: Any, seed: int = 0, step: int = 5, options: Any = None) -> ckptstore.Checkpoint:
    """Save the next generation of a single checkpoint; nothing here needs to be durable."""
    with ckptstore.Store(location, durable=False, storage_options=options) as store:
        return store.save(**contents(seed, step))


def save_history(location: Any, *steps: int, options: Any = None) -> None:
    """Save steps of a history, each seeded by its number."""
    keep = ckptstore.Keep()
    with ckptstore.Store(location, keep=keep, durable=False, storage_options=options) as store:
        for step in steps:
            store.save(**contents(step, step))


def everything(checkpoint: ckptstore.Checkpoint) -> dict[str, Any]:
    """Load all that a checkpoint holds, as values that compare bit for bit."""
    checkpoint.load_tokenizer()
    return {
        **facts(checkpoint),
        "model": plain(checkpoint.load_model()),
        "optimizer": plain(checkpoint.load_optimizer()),
        **{name: plain(checkpoint.load_state(name)) for name in checkpoint.states()},
    }


def facts(checkpoint: ckptstore.Checkpoint) -> dict[str, Any]:
    """Return what is known of a checkpoint without reading weights."""
    names = "format generation step config tokenizer_state training_state metrics created writer"
    return {name: getattr(checkpoint, name) for name in names.split()} | {
        "tensors": checkpoint.tensors()
    }


def plain(value: Any) -> Any:
    """Return a state with its tensors as dtype, shape and numbers."""
    if isinstance(value, torch.Tensor):
        return (value.dtype, value.shape, value.tolist())
    if isinstance(value, Mapping):
        return {key: plain(inner) for key, inner in value.items()}
    return [plain(inner) for inner in value] if isinstance(value, (list, tuple)) else value


def copied(source: Path, target: Path) -> Path:
    """Copy the plain files of a view, as a person does: a folder with a manifest beside them."""
    target.mkdir()
    for path in source.iterdir():
        if path.is_file():
            (target / path.name).write_bytes(path.read_bytes())
    return target


def error_of(act: Callable[..., Any], *arguments: Any) -> ckptstore.CkptstoreError | None:
    """Return the error of ours that a call ends in; None where it succeeds."""
    try:
        act(*arguments)
    except ckptstore.CkptstoreError as error:
        return error
    return None


@contextmanager
def unpickling() -> Iterator[list[str]]:
    """Give a list of the functions that read a pickle meanwhile, ours, torch's and Python's."""
    seen: list[str] = []

    def look(frame: Any, event: str, argument: Any) -> None:
        if event == "call" and frame.f_code.co_filename.endswith(_READERS_OF_PICKLES):
            seen.append(frame.f_code.co_name)
        elif event == "c_call" and getattr(argument, "__module__", None) == "_pickle":
            seen.append(argument.__name__)

    before = sys.getprofile()
    sys.setprofile(look)
    try:
        yield seen
    finally:
        sys.setprofile(before)
