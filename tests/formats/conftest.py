"""Files of checkpoints in memory, written by plain torch and json."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ckptstore.testing import MemoryFiles


def pt(obj: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(obj, buffer)
    return buffer.getvalue()


@pytest.fixture
def legacy_bytes() -> bytes:
    """The bytes of a real legacy checkpoint."""
    return (Path(__file__).parents[1] / "fixtures" / "legacy_char" / "latest.pt").read_bytes()


@pytest.fixture
def legacy(legacy_bytes: bytes) -> dict[str, Any]:
    """What torch reads of a real legacy checkpoint."""
    return torch.load(io.BytesIO(legacy_bytes), weights_only=True)


@pytest.fixture
def folder() -> Callable[..., MemoryFiles]:
    """A function that returns a plain folder: bytes as they are, the rest as JSON or `.pt`."""

    def build(files: dict[str, Any], named: str | None = None) -> MemoryFiles:
        data = {}
        for name, value in files.items():
            if not isinstance(value, bytes):
                value = json.dumps(value).encode() if name.endswith(".json") else pt(value)
            data[name] = value
        return MemoryFiles(data, "dante", named=named)

    return build
