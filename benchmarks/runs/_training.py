"""What the processes of `benchmarks.runs.history` do: train and save, prove, clean up."""

from __future__ import annotations

import logging
import random
import time
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import torch

import ckptstore
from benchmarks.faults.children import Line
from benchmarks.faults.places import Place
from ckptstore.background import running
from ckptstore.commit.layout import read_manifest, step_folder, steps
from ckptstore.commit.repair import repair
from ckptstore.manifest import MANIFEST
from ckptstore.storage import connect

__all__ = ["POLICY", "Run", "clean", "loss_of", "prove", "train"]

POLICY = ckptstore.Keep(last=2, every=7, best="val_loss")

_TRAINED = 20_000
_FROZEN = 7.0


@dataclass(frozen=True)
class Run:
    """A training.

    Attributes:
        place: where it saves.
        seed: of its losses.
        numbers: in each frozen part.
    """

    place: Place
    seed: int
    numbers: int


def loss_of(seed: int, step: int) -> float:
    """Return what a run measures at a step, whoever computes it."""
    return random.Random(f"{seed} {step}").random()


def train(line: Line, run: Run, how: str) -> None:
    """Go on from the newest step, and save each step until killed.

    Args:
        line: told of each save when it begins, and how it ended.
        run: which.
        how: ``at once``, or in the background in a ``thread`` or a ``process``.
    """
    _quiet()
    running._WORTH_A_PROCESS = 0 if how == "process" else 2**60
    store = _store(run)
    there = store.steps()
    step = 0
    if there:
        step = _proved(store.open(), run)
        assert step == there[-1]
    line.tell(resumed=step if there else None)
    parts = _parts(run)
    while True:
        step += 1
        _fill(parts, step)
        loss = loss_of(run.seed, step)
        line.tell(begun=step)
        began = time.monotonic()
        rest: dict[str, Any] = {
            "config": {"step": step},
            "tokenizer": {"token_kind": "char", "chars": ["a", "b"]},
            "step": step,
            "metrics": {"val_loss": loss},
        }
        if how == "at once":
            _tell(line, step, began, store.save(**parts, **rest))
            continue
        future = store.save_async(**parts, **rest)
        future.add_done_callback(_Told(line, step, began))


@dataclass(frozen=True)
class _Told:
    """Tells how a save in the background ended."""

    line: Line
    step: int
    began: float

    def __call__(self, future: Future[Any]) -> None:
        error = future.exception()
        if error is not None:
            self.line.tell(failed=self.step, error=repr(error))
            return
        _tell(self.line, self.step, self.began, future.result())


def _tell(line: Line, step: int, began: float, saved: ckptstore.Checkpoint) -> None:
    assert saved.stored is not None
    written, spared = saved.stored.written_bytes, saved.stored.spared_bytes
    line.tell(saved=step, seconds=time.monotonic() - began, written=written, spared=spared)


def prove(line: Line, run: Run) -> None:
    """Prove every step that is there, the newest as `ckptstore.open` finds it; tell which."""
    _quiet()
    store = _store(run)
    there = store.steps()
    for step in there:
        assert _proved(store.open(step), run) == step
    if there:
        assert _proved(store.open(), run) == there[-1]
    line.tell(steps=list(there))


def clean(line: Line, run: Run) -> None:
    """Clean up as if a day had passed; tell what went, and what no manifest names even so."""
    _quiet()
    storage = connect(run.place.url, run.place.options)
    done = repair(storage, older_than=-1.0)
    left = []
    committed = {step_folder(step) for step in steps(storage)}
    for folder in storage.list("").folders:
        manifest = read_manifest(storage, folder) if folder in committed else None
        named = {MANIFEST, *manifest.paths()} if manifest else set()
        left += [f"{folder}/{name}" for name in storage.list(folder).files if name not in named]
    line.tell(cleaned=done, left=left)


def _parts(run: Run) -> dict[str, Any]:
    """Return what is trained, and what is frozen."""
    frozen = {"w": torch.full((run.numbers,), _FROZEN)}
    return {
        "model": {"a": torch.zeros(_TRAINED), "b": torch.zeros(_TRAINED)},
        "optimizer": {"state": {0: {"m": torch.full((run.numbers,), _FROZEN)}}, "param_groups": []},
        "state": {"base": frozen, "seen": {"n": torch.zeros(1)}},
    }


def _fill(parts: dict[str, Any], step: int) -> None:
    for tensor in (*parts["model"].values(), parts["state"]["seen"]["n"]):
        tensor.fill_(float(step))


def _proved(checkpoint: ckptstore.Checkpoint, run: Run) -> int:
    """Return a checkpoint's step, once all of it has been seen to be that step's."""
    report = checkpoint.verify()
    assert report.sound, report
    step = int((checkpoint.config or {})["step"])
    optimizer = checkpoint.load_optimizer() or {}
    trained = [*checkpoint.load_model().values(), checkpoint.load_state("seen")["n"]]
    frozen = [checkpoint.load_state("base")["w"], optimizer["state"][0]["m"]]
    assert len(trained) == 3
    for tensor in trained:
        assert bool((tensor == step).all()), f"a mixture: {tensor[:3]} in step {step}"
    for tensor in frozen:
        assert bool((tensor == _FROZEN).all()), f"a mixture: {tensor[:3]} in step {step}"
        assert len(tensor) == run.numbers
    assert checkpoint.step == step
    assert checkpoint.metrics == {"val_loss": loss_of(run.seed, step)}
    return step


def _store(run: Run) -> ckptstore.Store:
    # fsync is nothing that SIGKILL would notice; without it more saves fit between two kills.
    options = run.place.options
    return ckptstore.Store(run.place.url, keep=POLICY, durable=False, storage_options=options)


def _quiet() -> None:
    torch.set_num_threads(1)
    logging.getLogger("ckptstore").setLevel(logging.CRITICAL)
