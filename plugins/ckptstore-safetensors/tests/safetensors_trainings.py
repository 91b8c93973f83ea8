"""A small training, and files that say what is read of them."""

from __future__ import annotations

import io
from typing import NamedTuple

import torch

from ckptstore.testing import MemoryFiles


class Training(NamedTuple):
    model: torch.nn.Module
    optimizer: torch.optim.Optimizer


def trained(seed: int = 0) -> Training:
    torch.manual_seed(seed)
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    model(torch.randn(3, 4)).sum().backward()
    optimizer.step()
    return Training(model, optimizer)


class Watched(MemoryFiles):
    """Files that note which ranges are read of them."""

    def open(self, name):
        file = _WatchedFile(self.data[name])
        file.note = lambda start, count: self.read.append((name, start, start + count))
        return file

    @property
    def read(self):
        return self.__dict__.setdefault("_read", [])


class _WatchedFile(io.BytesIO):
    def read(self, size=-1):
        start = self.tell()
        data = super().read(size)
        self.note(start, len(data))
        return data

    def readinto(self, buffer):
        start = self.tell()
        count = super().readinto(buffer)
        self.note(start, count)
        return count
