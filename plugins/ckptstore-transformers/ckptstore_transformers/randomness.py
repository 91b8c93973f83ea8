"""The random states of ``rng_state.pth``, with NumPy's array as a tensor and back.

The Trainer saves NumPy's state as an array, which a weights-only load takes only where NumPy's own
constructors are allowed. In the store there are tensors, numbers and tuples and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ckptstore import CorruptionError, UnsupportedError

__all__ = ["read_random", "write_random"]

_WORDS = 624


def read_random(file: Path) -> dict[str, Any]:
    """Return the states of a file that the Trainer wrote, as plain data.

    Nothing in it is run: it is loaded with ``weights_only``, and NumPy's arrays are allowed.

    Raises:
        UnsupportedError: it holds anything else.
    """
    import torch
    from transformers.trainer_pt_utils import safe_globals

    try:
        with safe_globals():  # type: ignore[no-untyped-call, unused-ignore]
            found = dict(torch.load(file, map_location="cpu", weights_only=True))
        name, key, *place = found["numpy"]
        if name != "MT19937" or key.shape != (_WORDS,):
            raise ValueError(f"NumPy's numbers come from {name!r}")
        key = torch.tensor(key.tolist(), dtype=torch.int64)
    except Exception as error:  # Whatever torch's loader and a strange file raise.
        raise UnsupportedError(
            f"{file} holds no random states of the Trainer: {type(error).__name__}: {error}"
        ) from error
    return {**found, "numpy": (name, key, *place)}


def write_random(state: Any, file: Path, where: str) -> None:
    """Write states as the Trainer wants them.

    Args:
        state: what `read_random` returned.
        file: is made.
        where: what to call the checkpoint in errors.

    Raises:
        CorruptionError: they are no random states.
    """
    import numpy
    import torch

    try:
        if not isinstance(state, Mapping):
            raise TypeError(f"a {type(state).__name__}")
        name, key, *place = state["numpy"]
        array = numpy.asarray(key.tolist(), dtype=numpy.uint32)
        if name != "MT19937" or array.shape != (_WORDS,):
            raise ValueError(f"NumPy's numbers come from {name!r}")
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise CorruptionError(
            f"{where} holds no random states of the Trainer: {type(error).__name__}: {error}"
        ) from error
    torch.save({**state, "numpy": (name, array, *place)}, file)
