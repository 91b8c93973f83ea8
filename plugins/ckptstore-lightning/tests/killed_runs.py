"""Trains, dies by SIGKILL at one operation of the storage after another, and goes on after each.

``python killed_runs.py RESULTS FOLDER COUNT ...`` dies COUNT times in a folder, each time in a run
of its own in ``FOLDER/0``, ``FOLDER/1``, …, at points that are spread over the saves of a run's
second half. It then goes on with the run, and writes its last state to ``RESULTS/0/0.pt``, …, and
those of the next folder to ``RESULTS/1/0.pt``, …

Each run is a process that is forked from this one, which has imported all that takes long.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tiny_training as tiny
import torch
from ckptstore_lightning import StoreCheckpointIO, StoreModelCheckpoint

from ckptstore.testing import Nothing, inject

EPOCHS = 2


def train(folder: str, ckpt_path: str | None = None) -> dict[str, Any]:
    """Train to the end, and return the last state."""
    torch.set_num_threads(1)
    keep = StoreModelCheckpoint(folder, filename="{epoch}", save_last=True)
    runner = tiny.trainer(StoreCheckpointIO(durable=False), keep, epochs=EPOCHS)
    tiny.fit(runner, tiny.module(), ckpt_path=ckpt_path)
    return tiny.state_of(runner)


def killed_at(number: int) -> Callable[..., Any]:
    """Return a fault that ends the process before one operation, as ``kill -9`` does."""

    def strike(operation: Any, perform: Callable[..., Any]) -> Any:
        if operation.number == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return perform()

    return strike


def forked(act: Callable[[], None]) -> int:
    """Run something in a process of its own, and return how that ended."""
    child = os.fork()
    if not child:
        try:
            act()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1]


def main(folder: str, results: Path, count: int) -> None:
    """Count the operations of a whole run, then die at some of them."""

    def whole() -> None:
        with inject(Nothing()) as seen:
            train(f"{folder}/whole")
        (results / "operations").write_text(str(len(seen.operations)))
        (results / "modules").write_text("\n".join(sys.modules))

    assert forked(whole) == 0
    total = int((results / "operations").read_text())
    for name in (results / "modules").read_text().split():
        with contextlib.suppress(ImportError):  # So that no run after this one has to.
            importlib.import_module(name)
    for number in range(count):
        place = f"{folder}/{number}"
        at = total // 2 + number * (total // 2) // count

        def die(place: str = place, at: int = at) -> None:
            with inject(killed_at(at)):
                train(place)

        def go_on(place: str = place, number: int = number) -> None:
            torch.save(train(place, "last"), results / f"{number}.pt")

        ended = forked(die)
        assert os.WIFSIGNALED(ended)
        assert os.WTERMSIG(ended) == signal.SIGKILL
        assert forked(go_on) == 0


if __name__ == "__main__":
    for at, (folder, count) in enumerate(zip(sys.argv[2::2], sys.argv[3::2], strict=True)):
        results = Path(sys.argv[1]) / str(at)
        results.mkdir(parents=True)
        main(folder, results, int(count))
