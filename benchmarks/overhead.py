"""``python -m benchmarks.overhead``: what saving every 50 steps costs a real training.

The same GPT, data and optimizer are trained in fresh processes, in turn: by `gpt.fit`, as
``gpt train --async_saves`` does it, with saves in the background and without any; and by a plain
loop of the same steps, with torch.distributed.checkpoint's ``async_save``, with ``torch.save``, and
without any.

Two numbers. **Over no saves**: the time from the first step until the last save is finished, over
that of the same loop without saves in the same round. It has all in it, the start of a process and
the wait for the last save too, and is as noisy as the machine is from one minute to the next.
**A save costs**: of the steps from one save to the next, the time over that of as many steps as
they are in their second half, when the save is long done; so a run is compared with itself. Medians
count.

ckptstore's saves are durable, proved and replace nothing; DCP's and torch's are written to the
page cache, into a new folder or file each, of which the last two stay.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

__all__ = ["main"]

_OF_FIT = ("gpt, no saves", "gpt --async_saves", "gpt, saves that wait")
_OF_LOOP = ("loop, no saves", "loop, DCP async_save", "loop, torch.save")
_BASE = {**dict.fromkeys(_OF_FIT[1:], _OF_FIT[0]), **dict.fromkeys(_OF_LOOP[1:], _OF_LOOP[0])}
_KEPT = 2
_SETTINGS = ("steps", "every", "n_embd", "n_layer", "batch_size", "block_size")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.overhead", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--every", type=int, default=50, help="steps from one save to the next")
    parser.add_argument("--n_embd", type=int, default=384)
    parser.add_argument("--n_layer", type=int, default=6)
    parser.add_argument("--batch_size", type=int, default=2)
    parser.add_argument("--block_size", type=int, default=128)
    parser.add_argument("--folder", help="where to save; default: the temporary one")
    parser.add_argument("--json", action="store_true", help="print what was measured as JSON")
    parser.add_argument("--run", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        print(json.dumps(_train(options)))
        return
    if options.steps < 2 * options.every:
        parser.error("--steps has to be twice --every at least, for a save is held against steps")
    rounds = [_round(options, number) for number in range(options.rounds)]
    if options.json:
        print(json.dumps(rounds, indent=2))
    else:
        _print(options, rounds)


def _round(options: argparse.Namespace, number: int) -> dict[str, Any]:
    """Train by every variant once, in a random order."""
    names = [*_OF_FIT, *_OF_LOOP]
    random.shuffle(names)
    found = {}
    for name in names:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            arguments = [f"--folder={folder}"]
            arguments += [f"--{key}={getattr(options, key)}" for key in _SETTINGS]
            done = subprocess.run(
                [sys.executable, "-m", "benchmarks.overhead", f"--run={name}", *arguments],
                capture_output=True,
                text=True,
                check=False,
            )
        if done.returncode:
            sys.exit(f"{name}: {done.stderr}")
        found[name] = json.loads(done.stdout.splitlines()[-1])
        print(f"round {number + 1}: {name}: {found[name]['seconds']:.1f} s", file=sys.stderr)
    return found


def _print(options: argparse.Namespace, rounds: list[dict[str, Any]]) -> None:
    first = rounds[0][_OF_FIT[0]]
    written = options.steps // options.every
    print(
        f"{first['parameters'] / 1e6:.1f} million parameters, "
        f"{first['nbytes'] / 2**20:.0f} MiB with AdamW's state; {options.steps} steps, a save "
        f"every {options.every}; {len(rounds)} rounds, medians (lowest to highest)\n"
    )
    print("| | seconds | over no saves | a save costs | of its steps | state written, MiB/s |")
    print("|---|--:|--:|--:|--:|--:|")
    for name in (*_OF_FIT, *_OF_LOOP):
        seconds = [each[name]["seconds"] for each in rounds]
        cells = [f"{statistics.median(seconds):.1f}", "", "", "", ""]
        if name in _BASE:
            shares = [each[name]["seconds"] / each[_BASE[name]]["seconds"] - 1 for each in rounds]
            bases = [each[_BASE[name]]["seconds"] for each in rounds]
            base = statistics.median(bases) * options.every / options.steps
            # Steps that nothing is saved beside are slower now and then, too.
            nothing = _median(each[_BASE[name]]["costs"] for each in rounds)
            cost = _median(each[name]["costs"] for each in rounds) - nothing
            rate = first["nbytes"] / 2**20 * written / statistics.median(seconds)
            cells[1] = (
                f"{statistics.median(shares):+.1%} ({min(shares):+.1%} to {max(shares):+.1%})"
            )
            cells[2:] = [f"{cost:.2f} s", f"{cost / base:.1%}", f"{rate:.0f}"]
        print(f"| {name} | " + " | ".join(cells) + " |")


def _median(costs: Iterable[list[float]]) -> float:
    return statistics.median(cost for each in costs for cost in each)


# -- one run, in a process of its own ---------------------------------------------------------


def _train(options: argparse.Namespace) -> dict[str, Any]:
    import torch

    from gpt.config import GPTConfig
    from gpt.data import GPTDataLoader
    from gpt.matching import Asked, fresh_model
    from gpt.train import SAMPLE_TEXT

    torch.manual_seed(1)
    text = SAMPLE_TEXT.read_text(encoding="utf-8")
    config = GPTConfig(
        batch_size=options.batch_size,
        block_size=options.block_size,
        n_embd=options.n_embd,
        n_head=options.n_embd // 64,
        n_layer=options.n_layer,
        dropout=0.0,
        device="cpu",
    )
    model = fresh_model(config, Asked("char", {}, text))
    optimizer = model.configure_optimizer()
    loader = GPTDataLoader(model.config, model)
    loader.prepare_data(text)
    train = _fit if options.run in _OF_FIT else _loop
    ends = [time.perf_counter()]
    optimizer.register_step_post_hook(lambda *_: ends.append(time.perf_counter()))
    train(options, model, optimizer, loader)
    parameters = sum(weight.numel() for weight in model.parameters())
    return {
        "seconds": time.perf_counter() - ends[0],
        "costs": _costs(ends, options.every),
        "parameters": parameters,
        "nbytes": 3 * 4 * parameters,
    }


def _costs(ends: list[float], every: int) -> list[float]:
    """Return what each save cost in the steps until the next one, in seconds.

    Args:
        ends: when the first step began, and when each ended.
        every: steps from one save to the next.
    """
    costs = []
    for first in range(every, len(ends) - every, every):
        steps = [ends[at + 1] - ends[at] for at in range(first, first + every)]
        costs.append(sum(steps) - every * statistics.median(steps[every // 2 :]))
    return costs


def _fit(options: argparse.Namespace, model: Any, optimizer: Any, loader: Any) -> None:
    from ckptstore import Keep
    from gpt.saves import Saves

    saves = Saves(options.every, Keep(last=_KEPT), background=options.run == "gpt --async_saves")
    model.fit(
        loader,
        optimizer,
        options.steps,
        eval_interval=options.steps,
        eval_iters=1,
        checkpoint_dir=None if options.run == _OF_FIT[0] else f"{options.folder}/gpt",
        saves=saves,
    )


def _loop(options: argparse.Namespace, model: Any, optimizer: Any, loader: Any) -> None:
    from gpt.fit import estimate_loss

    save, finish = _SAVERS[options.run](Path(options.folder))
    model.train()
    for step in range(1, options.steps + 1):
        ids, targets = loader.get_batch("train")
        _, loss = model(ids, targets)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        if step == options.steps:
            estimate_loss(model, loader, 1)  # As `fit` does at the end.
        if step % options.every == 0:
            save(step, model, optimizer)
    finish()


_Saver = tuple[Callable[[int, Any, Any], None], Callable[[], None]]


def _nothing(folder: Path) -> _Saver:
    return lambda step, model, optimizer: None, lambda: None


def _dcp(folder: Path) -> _Saver:
    import warnings

    import torch.distributed.checkpoint as dcp

    warnings.filterwarnings("ignore")  # It says that there is one process.
    under_way: list[Future[Any]] = []
    there: list[Path] = []

    def finish() -> None:
        while under_way:
            under_way.pop().result()

    def save(step: int, model: Any, optimizer: Any) -> None:
        finish()  # At most one is under way, as here.
        while len(there) >= _KEPT:
            shutil.rmtree(there.pop(0))
        there.append(folder / f"step-{step}")
        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step}
        found = dcp.async_save(state, checkpoint_id=str(there[-1]), no_dist=True)
        under_way.append(getattr(found, "upload_completion", found))

    return save, finish


def _torch_save(folder: Path) -> _Saver:
    import torch

    there: list[Path] = []

    def save(step: int, model: Any, optimizer: Any) -> None:
        while len(there) >= _KEPT:
            there.pop(0).unlink()
        there.append(folder / f"step-{step}.pt")
        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step}
        torch.save(state, there[-1])

    return save, lambda: None


_SAVERS: dict[str, Callable[[Path], _Saver]] = dict(
    zip(_OF_LOOP, (_nothing, _dcp, _torch_save), strict=True)
)


if __name__ == "__main__":
    main()
