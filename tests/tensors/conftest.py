"""Sinks and files for what `ckptstore.tensors` writes and reads."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from ckptstore import tensors
from ckptstore.storage.base import Sink


class Buffer(Sink):
    """A sink that copies what it is given at once, as the real ones may."""

    def __init__(self) -> None:
        self.data = bytearray()

    def write(self, data: memoryview, /) -> None:
        self.data += data


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def saved() -> Callable[[Any], bytes]:
    """A function that returns what `tensors.save` writes of an object."""

    def save(obj: Any) -> bytes:
        sink = Buffer()
        tensors.save(obj, sink)
        return bytes(sink.data)

    return save


@pytest.fixture
def loaded() -> Callable[..., Any]:
    """A function that returns what `tensors.load` reads of bytes."""

    def load(data: bytes, **options: Any) -> Any:
        return tensors.load(io.BytesIO(data), where="x.pt", **options)

    return load
