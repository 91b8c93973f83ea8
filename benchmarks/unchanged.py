"""``python -m benchmarks.unchanged``: the next step where nine tenths are frozen, beside all anew.

On local disk and on moto; every variant saves the next step of a history of its own. The bytes
that a step wrote or sent are what `Checkpoint.stored` says.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

import ckptstore
from benchmarks.measuring import measure, print_table
from ckptstore.testing.servers import start_server

_ALL = "all of it anew"
_TENTHS = 10


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.unchanged", description=__doc__)
    parser.add_argument("--mib", type=int, default=256, help="of tensors in each step")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    for place in ("local disk", "moto"):
        with _at(place) as (url, storage_options):
            histories = [
                _History(f"{url}/{name}", storage_options, options.mib, frozen=frozen, apart=apart)
                for name, frozen, apart in (("all", 0, False), ("one", 9, False), ("two", 9, True))
            ]
            names = (_ALL, "nine tenths frozen, in one file", "nine tenths frozen, in a file apart")
            variants = dict(zip(names, (history.step for history in histories), strict=True))
            print(f"\n## {place}\n")
            found = measure(variants, baseline=_ALL, rounds=options.rounds)
            print_table(found, nbytes=options.mib * 2**20, baseline=_ALL)
            print("\n| variant | MB written or sent | of all |\n|---|---|---|")
            for name, history in zip(names, histories, strict=True):
                share = history.written / histories[0].written
                print(f"| {name} | {history.written / 1e6:.1f} | {share:.2f} |")


class _History:
    """Saves one step after the other.

    Args:
        url: where.
        options: storage options.
        mib: of tensors.
        frozen: how many tenths of them never change.
        apart: whether these are a state of their own.
    """

    def __init__(self, url: str, options: Any, mib: int, *, frozen: int, apart: bool) -> None:
        count = mib * 2**20 // 4 // _TENTHS
        self._frozen = {f"frozen{n}": torch.randn(count) for n in range(frozen)}
        self._trained = {f"trained{n}": torch.randn(count) for n in range(_TENTHS - frozen)}
        self._apart = apart
        self._store = ckptstore.Store(
            url, keep=ckptstore.Keep(last=2), durable=True, storage_options=options
        )
        self._at = 0
        self.written = 0

    def step(self) -> None:
        """Train, in a way, and save."""
        self._at += 1
        for tensor in self._trained.values():
            tensor.add_(1.0)
        if self._apart:
            parts: dict[str, Any] = {"model": self._trained, "state": {"base": self._frozen}}
        else:
            parts = {"model": {**self._frozen, **self._trained}}
        saved = self._store.save(**parts, step=self._at)
        assert saved.stored is not None
        self.written = saved.stored.written_bytes


@contextmanager
def _at(place: str) -> Iterator[tuple[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        if place == "local disk":
            yield folder, None
            return
        server = start_server(place, Path(folder))
        try:
            yield server.url("unchanged"), server.storage_options
        finally:
            server.stop()


if __name__ == "__main__":
    main()
