"""``python -m benchmarks.tiers``: what a tier costs the training, beside a store without one.

Saves the same state into a local store alone and into one with a tier, in turn, and prints the
median of the ratios of each pair, for `save` and for the stall of `save_async`. The tier is a
folder of the same disk, which is the worst case: its copies use the disk and the cores that the
saves use. With ``--idle`` each save waits until the one before was copied, which shows the
journal's own cost.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import ckptstore

__all__ = ["main"]


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tiers", description=__doc__)
    parser.add_argument("--mib", type=int, nargs="*", default=[1, 64], help="of the state")
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    print("| MiB | | local, s | with a tier, s | ratio | ratio, idle |\n|--:|---|--:|--:|--:|--:|")
    for mib in options.mib:
        state = {"w": torch.rand(mib * 2**18)}
        for name, save in (("save", _save), ("save_async, its stall", _save_async)):
            busy = _pairs(state, options.rounds, save, idle=False)
            idle = _pairs(state, options.rounds, save, idle=True)
            local, tiered = (statistics.median(pair[n] for pair in busy) for n in (0, 1))
            ratios = [statistics.median(b / a for a, b in pairs) for pairs in (busy, idle)]
            cells = f"{local:.4f} | {tiered:.4f} | {ratios[0]:.2f} | {ratios[1]:.2f}"
            print(f"| {mib} | {name} | {cells} |", flush=True)


def _save(store: Any, state: dict[str, Any], step: int) -> Callable[[], object]:
    store.save(model=state, step=step)
    return lambda: None


def _save_async(store: Any, state: dict[str, Any], step: int) -> Callable[[], object]:
    return store.save_async(model=state, step=step).result  # type: ignore[no-any-return]


def _pairs(
    state: dict[str, Any], rounds: int, save: Callable[..., Callable[[], object]], *, idle: bool
) -> list[tuple[float, float]]:
    """Return the seconds of saves without and with a tier, pair by pair."""
    root = Path(tempfile.mkdtemp(prefix="ckptstore-tiers-"))
    keep = ckptstore.Keep(last=2)
    tier = ckptstore.Tier(root / "there", keep=ckptstore.Keep(last=1))
    pairs = []
    try:
        with (
            ckptstore.Store(root / "alone", keep=keep) as alone,
            ckptstore.Store(root / "tiered", keep=keep, tier=tier) as tiered,
        ):
            for step in range(rounds + 2):
                took = {}
                for store in (alone, tiered) if step % 2 else (tiered, alone):
                    begun = time.perf_counter()
                    rest = save(store, state, step)
                    took[store is tiered] = time.perf_counter() - begun
                    rest()
                    if idle:
                        tiered.wait_for_uploads()
                if step >= 2:  # The first ones start processes and make memory ready.
                    pairs.append((took[False], took[True]))
    finally:
        shutil.rmtree(root, ignore_errors=True)
    return pairs


if __name__ == "__main__":
    main()
