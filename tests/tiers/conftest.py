"""Small states, and what was saved where."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import ckptstore
from ckptstore.tiers.journal import JOURNAL


def model(number: float, count: int = 500) -> dict[str, torch.Tensor]:
    return {"w": torch.full((count,), float(number))}


def value_of(checkpoint: ckptstore.Checkpoint) -> float:
    (value,) = set(checkpoint.load_model()["w"].tolist())
    return value


def waiting_in(folder: Path) -> list[str]:
    """Return the names of the journal's entries."""
    with contextlib.suppress(FileNotFoundError):
        return sorted(path.name for path in (folder / JOURNAL).glob("*.json"))
    return []


def until(condition: Callable[[], Any], seconds: float = 30.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return False


@pytest.fixture
def local(tmp_path: Path) -> Path:
    return tmp_path / "dante"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Give a file system of 2 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    if (
        sys.platform != "linux"
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder], capture_output=True
        ).returncode
    ):
        pytest.skip("nothing can be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)
