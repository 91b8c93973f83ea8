"""What actors do: real code, from its public door, each act in a process of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

import ckptstore
from ckptstore import storage as storages
from ckptstore.checkpoint import Checkpoint
from ckptstore.commit.layout import newest_generation
from ckptstore.commit.remove import remove_older
from tests.stateful.ledger import Content, Ledger, canonical

__all__ = ["Act", "Found", "Numbered", "everything"]


@dataclass(frozen=True)
class Found:
    """All that a handle says and loads."""

    folder: str
    content: Content
    edited: tuple[str, ...]


@dataclass
class Act:
    """Something that an actor does.

    Attributes:
        kind: what it is, for those who judge its outcome.
        said: the same for people, with numbers.
        run: the real code.
        content: what it sets out to save, as soon as that is known.
        step: of a history.
        overwrite: whether a step may be replaced.
        keep: how many steps stay, or None for all.
        handle: what a reader reads again, and what that held when it was opened.
    """

    kind: str
    said: str
    run: Callable[[], Any]
    content: Content | None = None
    step: int | None = None
    overwrite: bool = False
    keep: int | None = None
    handle: tuple[Checkpoint, Found] | None = None


def everything(checkpoint: Checkpoint) -> Found:
    """Load all that a handle has."""
    model = float(checkpoint.load_model()["w"][0])
    optimizer = checkpoint.load_optimizer() if checkpoint.has_optimizer else None
    number = checkpoint.generation
    return Found(
        f"step-{checkpoint.step:08d}" if number is None else f".ckptstore/{number:08d}",
        Content(
            canonical(checkpoint.config),
            (checkpoint.training_state or {}).get("step"),
            model,
            None if optimizer is None else float(optimizer["state"][0]["x"][0]),
        ),
        checkpoint.edited,
    )


class Numbered:
    """Makes acts at one location, each with a number of its own.

    Args:
        url: the location.
        ledger: its dictionary.
        mirror: another location, and its dictionary.
    """

    def __init__(self, url: str, ledger: Ledger, mirror: tuple[str, Ledger] | None = None) -> None:
        self._url = url
        self._ledger = ledger
        self._mirror = mirror
        self._last = 0

    def save(self, *, optimizer: bool) -> Act:
        """Save the next state of a single checkpoint."""
        number = self._next()
        act = Act("save", f"saves {number}", lambda: None)
        act.content = _content({"n": number}, number, number, optimizer)

        def run() -> Checkpoint:
            self._ledger.tried.add(_known(act))
            return ckptstore.save(self._url, durable=False, **_parts(_known(act), {"n": number}))

        act.run = run
        return act

    def carry(self) -> Act:
        """Open, and save new weights with the config that was found, as training does."""
        number = self._next()
        act = Act("carry", f"carries the config over to {number}", lambda: None)

        def run() -> Checkpoint:
            config = dict(ckptstore.open(self._url).config or {})
            act.content = _content(config, number, number, False)
            self._ledger.tried.add(act.content)
            return ckptstore.save(self._url, durable=False, **_parts(act.content, config))

        act.run = run
        return act

    def save_step(
        self, step: int, *, again: float | None, overwrite: bool, keep: int | None
    ) -> Act:
        """Save a step of a history; ``again`` is the number of a state to be saved once more."""
        number = self._next() if again is None else int(again)
        said = f"saves {number} as step {step}" + (", overwriting" if overwrite else "")
        act = Act("save", said, lambda: None, step=step, overwrite=overwrite, keep=keep)
        act.content = _content({"n": number}, step, number, False)

        def run() -> Checkpoint:
            self._ledger.tried.add(_known(act))
            with ckptstore.Store(self._url, keep=ckptstore.Keep(keep), durable=False) as store:
                parts = _parts(_known(act), {"n": number})
                return store.save(**parts, overwrite=overwrite)

        act.run = run
        return act

    def open(self, step: int | None = None) -> Act:
        """Open a checkpoint, and load all of it."""

        def run() -> tuple[Checkpoint, Found]:
            checkpoint = ckptstore.open(self._url, step=step)
            return checkpoint, everything(checkpoint)

        said = "opens" if step is None else f"opens step {step}"
        return Act("open", said, run, step=step)

    def again(self, checkpoint: Checkpoint, found: Found) -> Act:
        """Read once more what a handle shows."""
        said = f"reads {found.folder} again"
        return Act("again", said, lambda: everything(checkpoint), handle=(checkpoint, found))

    def repair(self, **how: bool) -> Act:
        """Let doctor mend the location; ``adopt`` or ``restore`` settles what a person put."""
        kind = next((name for name, wanted in how.items() if wanted), "doctor")

        def run() -> object:
            return ckptstore.Store(self._url, durable=False).repair(**how)

        return Act(kind, f"runs doctor{f' --{kind}' if how else ''}", run)

    def sweep(self) -> Act:
        """Remove what is older than the newest generation."""

        def run() -> None:
            place = storages.connect(self._url)
            state = newest_generation(place)
            if state is not None:
                remove_older(place, state.manifest.generation or 0)

        return Act("sweep", "removes older generations", run)

    def rewind(self, step: int) -> Act:
        """Go back to a step."""

        def run() -> object:
            return ckptstore.Store(self._url, keep=ckptstore.Keep()).rewind(step)

        return Act("rewind", f"goes back to step {step}", run, step=step)

    def sync(self) -> Act:
        """Copy the newest state to the mirror."""
        if self._mirror is None:
            raise ValueError("there is no mirror")
        url = self._mirror[0]
        return Act("sync", "syncs to the mirror", lambda: ckptstore.sync(self._url, url))

    def _next(self) -> int:
        self._last += 1
        return self._last


def _known(act: Act) -> Content:
    if act.content is None:
        raise ValueError(f"{act.said}: it is not known what")
    return act.content


def _content(config: dict[str, Any], step: int, number: int, optimizer: bool) -> Content:
    return Content(canonical(config), step, float(number), float(number) if optimizer else None)


def _parts(content: Content, config: dict[str, Any]) -> dict[str, Any]:
    optimizer = None
    if content.optimizer is not None:
        moment = torch.full((2,), content.optimizer)
        optimizer = {"state": {0: {"x": moment}}, "param_groups": [{"params": [0]}]}
    return {
        "model": {"w": torch.full((2,), content.model)},
        "config": config,
        "optimizer": optimizer,
        "step": content.step,
    }
