"""What the children do: save in a loop, prove what is there, clean up.

Every save has a value of its own, which is in each of its tensors, in its optimizer's state and
in its config: so a mixture of two shows, and so does the wrong one.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from typing import Any

import torch

import ckptstore
from benchmarks.faults.children import Line
from benchmarks.faults.places import Place
from ckptstore.background import running
from ckptstore.commit import intact
from ckptstore.commit.layout import newest_generation
from ckptstore.commit.repair import repair
from ckptstore.commit.view import shows
from ckptstore.storage import connect

__all__ = ["Job", "clean", "prove", "read", "write"]

_SMALL, _LARGE = 5_000, 900_000  # The second one is sent in parts.


@dataclass(frozen=True)
class Job:
    """What a writer is to do.

    Attributes:
        place: where.
        step: its first step; each save is one step later.
        value: of its first save; each save has the next one.
        count: saves; 0 for as many as it gets to.
        asynchronous: save in the background; large saves in a process of their own.
        large: the share of saves that are sent in parts.
        longest: seconds after which an attempt gives up; None for the twelve hours.
        seed: of its choices.
        waits: begin when told to.
    """

    place: Place
    step: int
    value: int
    count: int = 0
    asynchronous: bool = False
    large: float = 0.0
    longest: float | None = None
    seed: int = 0
    waits: bool = False


def write(line: Line, job: Job) -> None:
    """Save until told to quit; tell of each save when it begins, and how it ended."""
    _quiet()
    if job.longest is not None:
        intact._LONGEST = job.longest
    else:
        running._WORTH_A_PROCESS = _LARGE
    chance = random.Random(job.seed)
    store = _store(job.place)
    number = 0
    line.tell(ready=True)
    if job.waits:
        line.hear(wait=None)
    while not line.hear() and (not job.count or number < job.count):
        value = job.value + number
        step = job.step + number
        contents = _contents(value, step, _LARGE if chance.random() < job.large else _SMALL)
        line.tell(begun=value, step=step)
        began = time.monotonic()
        try:
            if job.asynchronous:
                future = store.save_async(**contents)
                for tensor in contents["model"].values():
                    tensor.fill_(-1.0)  # As training would: what was copied aside stays.
                saved = future.result()
            else:
                saved = store.save(**contents)
        except ckptstore.CkptstoreError as error:
            told = {"error": type(error).__name__, "committed": error.committed}
            line.tell(failed=value, step=step, said=str(error), **told)
        else:
            seconds = time.monotonic() - began
            line.tell(saved=value, step=step, generation=saved.generation, seconds=seconds)
        number += 1


def prove(line: Line, place: Place) -> None:
    """Open what is there, prove all of it, and tell what it is."""
    _quiet()
    store = _store(place)
    try:
        checkpoint = store.open()
    except ckptstore.NotFoundError as error:
        line.tell(nothing=str(error))
        return
    value = _value(checkpoint)
    states = {}
    for step in store.steps() if place.history else ():
        states[step] = _value(store.open(step), verify=False)
    line.tell(
        value=value,
        step=checkpoint.step,
        generation=checkpoint.generation,
        edited=checkpoint.edited,
        states=list(states.items()),
        view=_view(place),
    )


def read(line: Line, place: Place, conditions: bool) -> None:
    """Open and load in a tight loop until told to quit; tell what was seen.

    Only a handle whose state is gone may refuse, and only with `SupersededError`. Without
    conditions a state may be another one a moment later, but never half of each.
    """
    _quiet()
    store = _store(place)
    seen: dict[int, int] = {}
    last = reads = superseded = 0
    line.tell(ready=True)
    while not line.hear():
        try:
            checkpoint = store.open()
        except ckptstore.NotFoundError:
            assert not seen, "there was something, and now there is nothing"
            continue
        try:
            value = _value(checkpoint, verify=False)
        except ckptstore.SupersededError:
            superseded += 1
            continue
        number = (checkpoint.step if place.history else checkpoint.generation) or 0
        reads += 1
        if conditions:
            assert number >= last, f"{number} after {last}"
            assert seen.setdefault(number, value) == value, f"{number} is {seen[number]}, {value}"
        seen[number], last = value, number
    line.tell(reads=reads, superseded=superseded)


def clean(line: Line, place: Place, older_than: float | None) -> None:
    """Do what doctor does, and tell what it says; ``older_than`` in place of its day."""
    _quiet()
    day = {} if older_than is None else {"older_than": older_than}
    try:
        line.tell(done=repair(connect(place.url, place.options), **day))
    except (ckptstore.NotFoundError, ckptstore.ConflictError) as error:
        # Nothing is there yet, or a writer replaces the view faster than anybody can mend it.
        line.tell(done=[str(error)])


def _store(place: Place) -> ckptstore.Store:
    keep = ckptstore.Keep(last=place.kept) if place.history else None
    # fsync is nothing that SIGKILL would notice; without it more saves fit between two kills.
    return ckptstore.Store(place.url, keep=keep, durable=False, storage_options=place.options)


def _contents(value: int, step: int, size: int) -> dict[str, Any]:
    def full() -> torch.Tensor:
        return torch.full((size,), float(value))

    return {
        "model": {name: full() for name in ("a", "b", "c")},
        "optimizer": {"state": {0: {"m": full()[:1000]}}, "param_groups": []},
        "config": {"value": value, "tensors": size},
        "step": step,
    }


def _value(checkpoint: ckptstore.Checkpoint, *, verify: bool = True) -> int:
    """Return the value of a save, once all of it has been seen to be that one."""
    value = int((checkpoint.config or {})["value"])
    model, optimizer = checkpoint.load_model(), checkpoint.load_optimizer() or {}
    assert sorted(model) == ["a", "b", "c"], sorted(model)
    for tensor in (*model.values(), optimizer["state"][0]["m"]):
        assert bool((tensor == value).all()), f"a mixture: {tensor[:3]} beside {value}"
    assert checkpoint.training_state["step"] == checkpoint.step
    if verify:
        report = checkpoint.verify()
        assert report.sound, report
    return value


def _view(place: Place) -> str:
    storage = connect(place.url, place.options)
    state = newest_generation(storage)
    if state is None:
        return "none"
    return "current" if shows(storage, state, small=False) else "behind"


def _quiet() -> None:
    import logging

    torch.set_num_threads(1)
    logging.getLogger("ckptstore").setLevel(logging.CRITICAL)
