"""From objects to a save: what a caller passes, as the contents that a format writes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ckptstore import ptfile
from ckptstore.commit.files import CommittedFiles
from ckptstore.commit.save import Save
from ckptstore.errors import UnsupportedError
from ckptstore.formats.base import Contents, Format
from ckptstore.manifest import TensorInfo
from ckptstore.tokenizers.base import Tokenizer

__all__ = ["contents_of", "index", "save_of"]


def contents_of(
    *,
    model: Any,
    config: Mapping[str, Any] | None = None,
    tokenizer: Tokenizer | Mapping[str, Any] | None = None,
    optimizer: Any = None,
    step: int | None = None,
    state: Mapping[str, Any] | None = None,
    training_state: Mapping[str, Any] | None = None,
) -> Contents:
    """Return what is to be saved, with every object replaced by its state dict.

    Raises:
        UnsupportedError: the step is not a count, or an object has no state dict.
    """
    from ckptstore import tensors

    if step is not None and (not isinstance(step, int) or isinstance(step, bool) or step < 0):
        raise UnsupportedError(f"step is {step!r}, not a count of finished steps")
    return Contents(
        model=tensors.state_dict_of(model),
        config=config,
        tokenizer_state=tokenizer.state() if isinstance(tokenizer, Tokenizer) else tokenizer,
        optimizer=None if optimizer is None else tensors.state_dict_of(optimizer),
        states={name: tensors.state_of(value) for name, value in (state or {}).items()},
        step=step,
        training_state=training_state or {},
    )


def save_of(
    contents: Contents,
    format: Format,
    *,
    fingerprint: str | None = None,
    metrics: Mapping[str, float] | None = None,
    durable: bool = True,
    small_view: bool = False,
) -> Save:
    """Return the save that writes these contents."""
    return Save(
        write=lambda files: format.write(contents, files),
        index=index,
        format=format.name,
        step=contents.step,
        metrics=dict(metrics or {}),
        fingerprint=fingerprint,
        durable=durable,
        small_view=small_view,
    )


def index(files: CommittedFiles, name: str) -> Mapping[str, TensorInfo] | None:
    """Read what was just written back, and return its tensors; None for what is no .pt.

    So nothing is committed that safe loading would refuse.

    Raises:
        UnsafeError: it holds more than tensors; the message names what.
    """
    if not name.endswith(".pt"):
        return None
    with files.open(name) as file:
        return ptfile.index(file, f"{name} in {files.location}")
