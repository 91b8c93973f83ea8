"""Opens a folder that a stranger made, in memory, and asks it for everything."""

from __future__ import annotations

import contextlib
import io
import json
import unicodedata
import zlib
from collections.abc import Callable
from typing import Any

import click
from fsspec.implementations.memory import MemoryFile, MemoryFileSystem

import ckptstore
from benchmarks.fuzz.folders import unpacked
from benchmarks.fuzz.oracle import Finding
from ckptstore.checkpoint import Checkpoint
from ckptstore.cli.inspected import document, lines
from ckptstore.cli.screen import clean, plain, print_json
from ckptstore.errors import CkptstoreError

__all__ = ["must_print", "must_show", "read_folder"]

_LOCATION = "/fuzz-input"
_COPY = "/fuzz-output"
_SOURCE = f"memory:/{_LOCATION}"
# One for all inputs: click remembers every stdout that it has seen, for good.
_PRINTED = io.BytesIO()
_SCREEN = io.TextIOWrapper(_PRINTED, "utf-8", write_through=True)


def read_folder(data: bytes) -> None:
    """Open a folder, load all of it, verify it, show it, and mend it.

    Raises:
        CkptstoreError: of the first thing that it does not give.
        Finding: something that is wrong whatever the folder holds.
    """
    store: dict[str, MemoryFile] = MemoryFileSystem.store
    for name, content in unpacked(data).items():
        if not {"", ".", ".."} & {*name.split("/")}:
            path = f"{_LOCATION}/{name}"
            store[path] = MemoryFile(MemoryFileSystem(), path, content)
    before = _contents()
    failed: list[CkptstoreError] = []
    chance = zlib.crc32(data)  # What takes long is done for a part of the inputs.
    try:
        checkpoint = _tried(failed, lambda: ckptstore.open(_SOURCE))
        if checkpoint is not None:
            _ask(checkpoint, failed)
        single = [path for path in before if path.endswith(".pt") and chance % 2]
        for path in single[:1]:
            _tried(failed, lambda path=path: _ask(ckptstore.open(f"memory:/{path}"), failed))
        if _contents() != before:
            raise Finding("reading a folder changed something")
        if checkpoint is not None and chance % 4 == 0:
            _tried(failed, lambda: _copy(checkpoint))
        if chance % 4 == 1:
            _tried(failed, lambda: _mend(before))
    finally:
        for name in [name for name in store if name.startswith((_LOCATION, _COPY))]:
            del store[name]
    if failed:
        raise failed[0]


def _contents() -> dict[str, bytes]:
    return {
        name: file.getvalue()
        for name, file in MemoryFileSystem.store.items()
        if not name.startswith(_COPY)
    }


def _mend(before: dict[str, bytes]) -> None:
    """Let doctor look, and mend; fall back to what is sound."""
    with ckptstore.Store(_SOURCE) as store:
        store.steps()
        for line in store.repair(dry_run=True):
            must_show(clean(line))
        if _contents() != before:
            raise Finding("looking for what needs mending changed something")
        store.repair(restore=True)
    elsewhere = [name for name in {*_contents()} ^ {*before} if not name.startswith(_LOCATION)]
    if elsewhere:
        raise Finding(f"mending wrote outside the location: {elsewhere[:3]}")
    ckptstore.open(_SOURCE, fallback=True).load_model()


def _ask(checkpoint: Checkpoint, failed: list[CkptstoreError]) -> None:
    index = _tried(failed, checkpoint.tensors) or {}
    shown = _tried(failed, lambda: list(lines(checkpoint, index, {})))
    for line in shown or ():
        must_show(click.unstyle(line))
    said = _tried(failed, lambda: document(checkpoint, index, {}))
    if said is not None:
        must_print(said)
    _tried(failed, checkpoint.verify)
    tensors = _tried(failed, checkpoint.tensors)
    model = _tried(failed, checkpoint.load_model)
    if model is not None and tensors is not None:
        _compare(model, tensors)
    _tried(failed, checkpoint.load_optimizer)
    for name in checkpoint.states():
        _tried(failed, lambda name=name: checkpoint.load_state(name))
    state = checkpoint.tokenizer_state
    if state is not None and {n for n, value in state.items() if value is not None} != {
        "token_kind"
    }:
        _tried(failed, checkpoint.load_tokenizer)


def _copy(checkpoint: Checkpoint) -> None:
    """Convert and sync it, and hold the copies against what is loaded from it."""
    model = checkpoint.load_model()
    try:
        for copy in (ckptstore.convert, ckptstore.sync):
            copy(_SOURCE, f"memory:/{_COPY}")
            again = ckptstore.open(f"memory:/{_COPY}").load_model()
            if list(again) != list(model):
                raise Finding(f"{list(model)[:9]} became {list(again)[:9]}")
    finally:
        store = MemoryFileSystem.store
        for name in [name for name in store if name.startswith(_COPY)]:
            del store[name]


def _tried(failed: list[CkptstoreError], call: Callable[[], Any]) -> Any:
    try:
        return call()
    except CkptstoreError as error:
        failed.append(error)
        return None


def _compare(model: dict[Any, Any], tensors: dict[str, ckptstore.TensorInfo]) -> None:
    import torch

    for name, info in tensors.items():
        value = model.get(name)
        if not isinstance(value, torch.Tensor) or value.is_nested:
            continue
        if (str(value.dtype), tuple(value.shape)) != (f"torch.{info.dtype}", info.shape):
            raise Finding(f"{name} is {info}, and was loaded as {value.dtype} {value.shape}")


def must_print(document: object) -> None:
    """Print a document as ``--json`` does.

    Raises:
        Finding: what was printed is another document, or holds what a terminal obeys.
    """
    _PRINTED.seek(0)
    _PRINTED.truncate()
    with contextlib.redirect_stdout(_SCREEN):
        print_json(document)
    text = _PRINTED.getvalue().decode("utf-8")
    if json.loads(text) != plain(document):
        raise Finding("what is printed is another document")
    for line in text.splitlines():
        must_show(line)


def must_show(line: str) -> None:
    """Hold a line against what a terminal obeys instead of showing it.

    Raises:
        Finding: there is such a character in it.
    """
    bad = [char for char in line if unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp")]
    if bad:
        raise Finding(f"a terminal is given {bad[:3]!r}")
