"""States that formats are tried with, and whether what was read is what was written."""

from __future__ import annotations

import dataclasses
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from ckptstore.checkpoint import Checkpoint
from ckptstore.errors import CkptstoreError
from ckptstore.formats.base import Contents, Files, Format, Reader
from ckptstore.later import Later
from ckptstore.testing.memory import MemoryFiles, MemoryNewFiles

__all__ = [
    "another",
    "arrived",
    "check_equal",
    "differences",
    "example_contents",
    "our_errors_only",
    "read_everything",
    "read_later",
    "same",
    "written",
]

_LARGEST_PIECE = 64 * 2**20


def example_contents() -> Contents:
    """Return a small state that has something of everything."""
    import torch

    weight = torch.arange(12, dtype=torch.float32).reshape(3, 4) / 7
    return Contents(
        model={
            "blocks.0.weight": weight,
            "blocks.0.half": weight.to(torch.bfloat16),
            "counter": torch.tensor(7),
            "empty": torch.empty(0, 3),
            "mask": torch.tensor([True, False, True]),
        },
        config={"n_layer": 1, "dropout": 0.25, "name": "ä 漢", "nested": {"list": [1, None, "x"]}},
        tokenizer_state={"token_kind": "char", "chars": ["\n", " ", "a", "ä"]},
        optimizer={
            "state": {0: {"step": torch.tensor(3.0), "exp_avg": weight / 3}},
            "param_groups": [{"lr": 3e-4, "betas": (0.9, 0.999), "params": [0]}],
        },
        states={"scheduler": {"last_epoch": 3, "rng": torch.arange(5, dtype=torch.uint8)}},
        step=1500,
        training_state={"note": "ä 漢", "losses": [2.5, 1.25]},
    )


def another(contents: Contents) -> Contents:
    """Return a state of the same names and shapes, every part of which differs."""
    flipped: dict[int, Any] = {}  # Tensors that are one stay one.
    return dataclasses.replace(
        contents,
        model=_flipped(contents.model, flipped),
        optimizer=_flipped(contents.optimizer, flipped),
        states=_flipped(contents.states, flipped),
        step=None if contents.step is None else contents.step + 1,
    )


def _flipped(value: Any, known: dict[int, Any]) -> Any:
    import torch

    if isinstance(value, torch.Tensor):
        if id(value) not in known:
            data = value.detach().contiguous().reshape(-1).view(torch.uint8) ^ 1
            known[id(value)] = data.view(value.dtype).reshape(value.shape)
        return known[id(value)]
    if isinstance(value, Mapping):
        return {key: _flipped(inner, known) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        items = [_flipped(inner, known) for inner in value]
        return items if isinstance(value, list) else tuple(items)
    return value


def written(format_: Format, contents: Contents) -> MemoryFiles:
    """Return the files that a format makes of a state."""
    files = MemoryNewFiles()
    format_.write(contents, files)
    return files.written()


def read_everything(format_: Format, files: Files, states: Sequence[str] = ()) -> Reader:
    """Read all that a checkpoint holds, weights included.

    Args:
        format_: of the files.
        files: the checkpoint.
        states: what is asked for besides the states that it lists.
    """
    reader = format_.read(files)
    _check_types(reader)
    reader.structure()
    reader.load_model()
    reader.load_optimizer()
    for name in dict.fromkeys((*reader.states(), *states)):
        reader.tensors_in(name)
        reader.load_state(name)
        reader.state_later(name)
    for later in read_later(reader).values():
        arrived(later)
    reader.load_metrics_log()
    dict(reader.tokenizer_files())
    reader.files()
    reader.for_inference()
    return reader


def read_later(reader: Reader) -> dict[str, Any]:
    """Return what a reader hands out to be read when it is written, by what to call it."""
    parts = {"the model": reader.model_later(), "the optimizer": reader.optimizer_later()}
    states = {f"the state {name!r}": reader.state_later(name) for name in reader.states()}
    return {**{part: found for part, found in parts.items() if found is not None}, **states}


def arrived(value: Any) -> Any:
    """Return a state with the tensors that its `Later` give."""
    import torch

    if isinstance(value, Later):
        pieces = [bytes(piece) for piece in value.pieces()]
        assert max(map(len, pieces), default=0) <= _LARGEST_PIECE
        data = bytearray(b"".join(pieces))
        assert len(data) == value.nbytes, f"{len(data)} bytes came of {value.nbytes}"
        flat = torch.frombuffer(data, dtype=torch.uint8) if data else torch.empty(0).byte()
        return flat.view(getattr(torch, value.dtype)).reshape(value.shape)
    if isinstance(value, Mapping):
        return {key: arrived(inner) for key, inner in value.items()}
    if type(value) in (list, tuple):
        return type(value)(arrived(inner) for inner in value)
    return value


def _check_types(reader: Reader) -> None:
    """Make sure that what stands in a file has the type that everybody relies on."""
    assert reader.step is None or type(reader.step) is int
    for told in (reader.config, reader.tokenizer_state, reader.training_state):
        assert told is None or type(told) is dict
    for name, info in reader.tensors().items():
        assert isinstance(name, str)
        assert isinstance(info.dtype, str)
        assert isinstance(info.shape, tuple)
        assert all(isinstance(size, int) and size >= 0 for size in (*info.shape, info.nbytes)), info


def check_equal(found: Reader | Checkpoint, contents: Contents) -> None:
    """Make sure that all that was written is read: every JSON value, tensors bit for bit."""
    assert differences(found, contents) == []


def differences(found: Reader | Checkpoint, contents: Contents) -> list[str]:
    """Return a line for each part of a state that was not read as it was written."""
    training_state = found.training_state or {}
    pairs: dict[str, tuple[Any, Any]] = {
        "the model": (found.load_model(), contents.model),
        "the config": (found.config, contents.config),
        "the tokenizer's state": (found.tokenizer_state, contents.tokenizer_state),
        "the optimizer": (found.load_optimizer(), contents.optimizer),
        "the names of the states": (set(found.states()), set(contents.states)),
    }
    if contents.step is not None or not isinstance(found, Checkpoint):
        # What a format has no room for, a manifest may say all the same.
        pairs["the step"] = (found.step, contents.step)
    for name in set(found.states()) & set(contents.states):
        pairs[f"the state {name!r}"] = (found.load_state(name), contents.states[name])
    for name, value in contents.training_state.items():
        pairs[f"the field {name!r} of the training state"] = (training_state.get(name), value)
    if contents.metrics_log:
        pairs["what was measured"] = (found.load_metrics_log(), contents.metrics_log)
    return [
        f"{what} is read as {_short(read)}, and was written as {_short(wrote)}"
        for what, (read, wrote) in pairs.items()
        if not same(read, wrote)
    ]


def _short(value: Any) -> str:
    return " ".join(reprlib.repr(value).split())


def same(one: Any, other: Any) -> bool:
    """Whether two nested states are equal, tensors bit for bit."""
    import torch

    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return one.dtype == other.dtype and one.shape == other.shape and _same_bits(one, other)
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, str) or not isinstance(one, Sequence):
        return bool(type(one) is type(other) and one == other)
    return (
        isinstance(other, Sequence)
        and len(one) == len(other)
        and all(same(*pair) for pair in zip(one, other, strict=True))
    )


def _same_bits(one: Any, other: Any) -> bool:
    import torch

    # As numbers NaN would differ from itself, and 0 be the same as -0.
    bits = (
        tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8) for tensor in (one, other)
    )
    return torch.equal(*bits)


@contextmanager
def our_errors_only() -> Iterator[None]:
    """Let errors of ours pass that say something, and no others."""
    try:
        yield
    except CkptstoreError as error:
        if not str(error):
            raise AssertionError(f"a {type(error).__name__} without a message") from error
