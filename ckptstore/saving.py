"""From objects to a save: what a caller passes, as the contents that a format writes."""

from __future__ import annotations

import logging
import math
import operator
from collections.abc import Mapping, Sequence
from typing import Any

from ckptstore import plugins, ptfile
from ckptstore.commit.layout import MOST_STEPS
from ckptstore.commit.save import Save
from ckptstore.errors import UnsupportedError
from ckptstore.formats.base import Contents, Files, Format
from ckptstore.manifest import TensorInfo
from ckptstore.structure import Structure
from ckptstore.tokenizers.base import Tokenizer
from ckptstore.vocabulary import Vocabulary, files_of_save

__all__ = ["check_room", "contents_of", "index", "numbers", "save_of", "to_save_in"]

log = logging.getLogger(__name__)


def contents_of(
    *,
    model: Any,
    config: Mapping[str, Any] | None = None,
    tokenizer: Tokenizer | Mapping[str, Any] | None = None,
    optimizer: Any = None,
    step: int | None = None,
    state: Mapping[str, Any] | None = None,
    training_state: Mapping[str, Any] | None = None,
    metrics_log: Sequence[Mapping[str, Any]] = (),
    vocabulary: Vocabulary = None,
) -> Contents:
    """Return what is to be saved, with every object replaced by its state dict.

    Raises:
        UnsupportedError: the step is not a count, an object has no state dict, or files of the
            tokenizer that are asked for are not there.
    """
    from ckptstore import tensors

    given = step
    if step is not None:
        try:
            step = None if isinstance(step, bool) else operator.index(step)
        except TypeError:
            step = None
        if step is None or not 0 <= step <= MOST_STEPS:
            raise UnsupportedError(
                f"step is {given!r}, not a count of finished steps up to {MOST_STEPS}"
            )
    return Contents(
        model=tensors.state_dict_of(model),
        config=config,
        tokenizer_state=tokenizer.state() if isinstance(tokenizer, Tokenizer) else tokenizer,
        optimizer=None if optimizer is None else tensors.state_dict_of(optimizer),
        states={
            _named(name): tensors.state_of(value, name) for name, value in (state or {}).items()
        },
        step=step,
        training_state=training_state or {},
        metrics_log=tuple(metrics_log),
        tokenizer_files=files_of_save(tokenizer, vocabulary),
    )


def check_room(contents: Contents, format: Format) -> None:
    """Refuse to leave out files of a tokenizer that somebody asked to be saved.

    Raises:
        UnsupportedError: the format has no room for them; nothing was written.
    """
    asked = contents.tokenizer_files
    if asked and not {*asked} <= {*format.stored(contents).tokenizer_files}:
        raise UnsupportedError(
            f"the format {format.name!r} has no room for {', '.join(asked)}, which the tokenizer "
            "needs; save without it (vocabulary=False), or in 'bundle'"
        )


def save_of(
    contents: Contents,
    format: Format,
    *,
    fingerprint: str | None = None,
    metrics: Mapping[str, float] | None = None,
    durable: bool = True,
    small_view: bool = False,
    parallel: bool = True,
) -> Save:
    """Return the save that writes these contents.

    Raises:
        UnsupportedError: the format does not write them; nothing was written.
    """
    kept = format.stored(contents).tokenizer_state
    if kept is not None and kept != contents.tokenizer_state:
        fingerprint = plugins.fingerprint_of(kept)
    return Save(
        write=lambda files: format.write(contents, files),
        index=index,
        format=format.name,
        step=contents.step,
        metrics=dict(metrics or {}),
        fingerprint=fingerprint,
        durable=durable,
        small_view=small_view,
        parallel=parallel,
    )


def to_save_in(name: str) -> Format:
    """Return a format that a store can save in.

    Raises:
        UnsupportedError: it is not installed, can only be read, or is a file without a manifest.
    """
    format = plugins.format_named(name)
    if not format.writable:
        raise UnsupportedError(
            f"the format {name!r} can be read, not written; save in 'bundle', and convert"
        )
    if format.one_file is not None:
        raise UnsupportedError(
            f"the format {name!r} is a single file, which has no manifest and is never replaced, "
            "so that a store cannot save in it; save in 'bundle', and convert what is to be one"
        )
    return format


def numbers(metrics: Mapping[str, float] | None) -> dict[str, float]:
    """Return metrics as they can be kept: finite numbers; others are left out, and logged.

    A loss that is NaN must not keep the state from being saved.

    Raises:
        UnsupportedError: a metric is no number.
    """
    kept = {}
    for name, value in (metrics or {}).items():
        try:
            number = float(value)
        except (TypeError, ValueError, OverflowError, RuntimeError) as error:
            raise UnsupportedError(
                f"the metric {name!r} is {value!r}, not a number; pass a float"
            ) from error
        if isinstance(value, str) or not isinstance(name, str):
            raise UnsupportedError(f"the metric {name!r} is {value!r}, not a named number")
        if math.isfinite(number):
            kept[name] = number
        else:
            log.warning("the metric %r is %s, which JSON does not have: left out", name, number)
    return kept


def _named(name: object) -> str:
    if not isinstance(name, str):
        raise UnsupportedError(f"a state is called {name!r}; names are text")
    return name


def index(files: Files, name: str) -> tuple[Mapping[str, TensorInfo], Structure] | None:
    """Look through what was just written, and return what is in it; None for what is no .pt.

    So nothing is committed that safe loading would refuse.

    Raises:
        UnsafeError: it holds more than tensors; the message names what.
    """
    if not name.endswith(".pt"):
        return None
    with files.open(name) as file:
        found = ptfile.read(file, f"{name} in {files.location}")
    return found.tensors, found.structure()
