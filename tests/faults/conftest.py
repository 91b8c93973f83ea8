"""A process to fork from, and folders in memory, where fsync costs nothing."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.zygote import Zygote


@pytest.fixture(scope="session")
def zygote() -> Iterator[Zygote]:
    """Give the worker's process that forks others."""
    with Zygote() as process:
        yield process


@pytest.fixture
def fast_path() -> Iterator[Path]:
    """Give an empty folder, in memory where there is such a place."""
    memory = "/dev/shm"
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as path:
        yield Path(path)
