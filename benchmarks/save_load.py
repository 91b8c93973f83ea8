"""``python -m benchmarks.save_load``: save and load on a local disk, against torch.save and load.

ckptstore does more than torch: SHA-256 and chunk checksums, a commit, fsync where asked for. This
says what that costs.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import ckptstore
from benchmarks.measuring import measure, print_table

_TENSORS = 24
_SAVE, _LOAD = "torch.save", "torch.load"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.save_load", description=__doc__)
    parser.add_argument("--mib", type=int, default=256, help="size of the state dict")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--folder", help="on the disk to be measured; default: the temporary one")
    options = parser.parse_args()

    columns = options.mib * 2**20 // 4 // _TENSORS // 1024
    model = {f"layer.{n}.weight": torch.randn(1024, columns) for n in range(_TENSORS)}
    nbytes = sum(tensor.nbytes for tensor in model.values())
    print(f"{nbytes / 2**20:.0f} MiB in {_TENSORS} tensors, torch {torch.__version__}\n")
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        for variants, baseline in ((_saves(model, folder), _SAVE), (_loads(folder), _LOAD)):
            # Each variant runs once before the clock does, so that loads find their files.
            found = measure(variants, baseline=baseline, rounds=options.rounds, touch=nbytes)
            print_table(found, nbytes=nbytes, baseline=baseline)
            print()


def _saves(model: dict[str, Any], folder: Path) -> dict[str, Callable[[], object]]:
    def durable_torch() -> None:
        with (folder / "durable.pt").open("wb") as file:
            torch.save(model, file)
            file.flush()
            os.fsync(file.fileno())

    quick, durable = folder / "quick", folder / "durable"
    return {
        _SAVE: lambda: torch.save(model, folder / "torch.pt"),
        "torch.save and fsync": durable_torch,
        "ckptstore.save, durable=False": lambda: ckptstore.save(quick, model=model, durable=False),
        "ckptstore.save": lambda: ckptstore.save(durable, model=model),
    }


def _loads(folder: Path) -> dict[str, Callable[[], object]]:
    checkpoint = folder / "durable"
    return {
        _LOAD: lambda: torch.load(folder / "torch.pt", weights_only=True),
        "torch.load of ckptstore's model.pt": lambda: torch.load(
            checkpoint / "model.pt", weights_only=True
        ),
        "Checkpoint.load_model": lambda: ckptstore.open(checkpoint).load_model(),
    }


if __name__ == "__main__":
    main()
