"""The checkpoint that is copied: as one save left it, and as the next one did.

``python -m benchmarks.sync.states FOLDER BYTES`` makes both, in a process of its own, so that the
one that measures needs no torch and stays small.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

__all__ = ["TENSORS", "Source"]

TENSORS = 400
_FIRST, _SECOND = "first", "second"


class Source:
    """A local checkpoint that is in one of two states.

    The second is the first with one tensor of the model changed and saved again; the optimizer
    is the same, so its file is too.

    Args:
        folder: where all of it is; empty.
        nbytes: of the tensors, about; a third of them the model's.

    Attributes:
        path: the checkpoint.
        small: another one, of a few bytes.
    """

    def __init__(self, folder: Path, nbytes: int) -> None:
        self._folder = folder
        self._shown = ""
        self.path = folder / "run"
        self.small = folder / "small"
        command = [sys.executable, "-m", "benchmarks.sync.states", str(folder), str(nbytes)]
        subprocess.run(command, check=True, cwd=Path(__file__).parents[2])

    def show(self, *, changed: bool) -> None:
        """Put one of the states in place; the second one as if it had been saved just now."""
        wanted = _SECOND if changed else _FIRST
        if wanted == self._shown:
            return
        if self._shown:
            self.path.rename(self._folder / self._shown)
        (self._folder / wanted).rename(self.path)
        self._shown = wanted
        if changed:
            before = {os.stat(path).st_ino for path in _files(self._folder / _FIRST)}
            for path in _files(self.path):
                if path.stat().st_ino not in before:
                    os.utime(path)

    def files(self) -> list[Path]:
        """Return the plain files, without the manifest: each copy writes its own."""
        return sorted(
            path for path in self.path.iterdir() if path.is_file() and path.name != "manifest.json"
        )

    def nbytes(self) -> int:
        """Return the bytes of the plain files."""
        return sum(path.stat().st_size for path in self.files())


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())


def _link(source: Path, target: Path) -> None:
    """Show the same files in another folder: no save changes one in place."""
    for path in _files(source):
        link = target / path.relative_to(source)
        link.parent.mkdir(parents=True, exist_ok=True)
        os.link(path, link)


def _make(folder: Path, nbytes: int) -> None:
    import torch

    import ckptstore

    torch.manual_seed(1)
    width = max(1, nbytes // 3 // TENSORS // 4)
    model = {f"blocks.{n}.weight": torch.rand(width).requires_grad_() for n in range(TENSORS)}
    optimizer = torch.optim.AdamW(model.values(), fused=True)
    for tensor in model.values():
        tensor.grad = torch.rand(width)
    optimizer.step()
    optimizer.zero_grad()
    run = folder / "run"
    weights = {name: tensor.detach() for name, tensor in model.items()}
    ckptstore.save(run, model=weights, optimizer=optimizer, config={"width": width}, step=1)
    _link(run, folder / _FIRST)
    weights[f"blocks.{TENSORS // 2}.weight"] += 1
    ckptstore.save(run, model=weights, optimizer=optimizer, config={"width": width}, step=2)
    run.rename(folder / _SECOND)
    ckptstore.save(folder / "small", model={"weight": torch.zeros(1)}, step=1)


if __name__ == "__main__":
    _make(Path(sys.argv[1]), int(sys.argv[2]))
