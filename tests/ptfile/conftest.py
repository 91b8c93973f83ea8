"""Builds `.pt` files: those that torch writes, and those that nobody should."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def saved() -> Callable[[Any], bytes]:
    """A function that returns what `torch.save` writes of an object."""
    import torch

    def save(obj: Any) -> bytes:
        buffer = io.BytesIO()
        torch.save(obj, buffer)
        return buffer.getvalue()

    return save


@pytest.fixture
def zipped() -> Callable[..., bytes]:
    """A function that returns a `.pt` of a pickle and records, stored as torch stores them."""

    def build(
        pickled: bytes,
        records: Mapping[str, bytes] | None = None,
        compression: int = zipfile.ZIP_STORED,
    ) -> bytes:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", compression) as archive:
            archive.writestr("archive/data.pkl", pickled)
            archive.writestr("archive/byteorder", b"little")
            for name, data in (records or {}).items():
                archive.writestr(f"archive/{name}", data)
        return buffer.getvalue()

    return build


@pytest.fixture
def tensor_pickle() -> Callable[..., bytes]:
    """A function that returns the pickle of one tensor, whatever it claims to be."""
    import pickle

    def build(
        *, count: Any = 4, offset: Any = 0, shape: Any = (4,), stride: Any = (1,), key: str = "0"
    ) -> bytes:
        def value(inner: Any) -> bytes:
            return pickle.dumps(inner, 2)[2:-1]

        storage = value("storage") + b"ctorch\nFloatStorage\n" + value(key) + value("cpu")
        reference = b"(" + storage + value(count) + b"tQ"
        hooks = b"ccollections\nOrderedDict\n)R"
        arguments = value(offset) + value(shape) + value(stride) + b"\x89" + hooks
        return b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(" + reference + arguments + b"tR."

    return build


class Bomb:
    """Makes a file when it is unpickled, to show that something was run."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


@pytest.fixture
def bomb(tmp_path: Path) -> Any:
    """An object that leaves a mark when anybody unpickles it; `bomb.mark` is where."""
    return Bomb(tmp_path / "executed")
