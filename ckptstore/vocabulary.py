"""Which files of a tokenizer a checkpoint carries beside its state.

Rules of this file:

1. A checkpoint carries all the files that its tokenizer names, or none.
2. Nothing is fetched: they are in the source, in the tokenizer itself, or on this machine.
3. Files are added only to the vocabulary that the model was trained on, known by its fingerprint.
4. Where nobody asked for them, that they cannot be had stops nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from ckptstore import plugins
from ckptstore.checkpoint import Checkpoint
from ckptstore.errors import CkptstoreError, UnsupportedError
from ckptstore.tokenizers.base import Tokenizer

__all__ = [
    "Vocabulary",
    "carried_by",
    "files_of_save",
    "known_names",
    "missing_error",
    "on_this_machine",
]

log = logging.getLogger(__name__)

Vocabulary = bool | Mapping[str, bytes] | None
"""Whether files are carried, or the files themselves; None leaves it to who asks."""


def files_of_save(
    tokenizer: Tokenizer | Mapping[str, Any] | None, vocabulary: Vocabulary
) -> dict[str, bytes]:
    """Return the files that a save carries: by default none.

    Raises:
        UnsupportedError: they are asked for and are not on this machine.
    """
    if isinstance(vocabulary, Mapping):
        return dict(vocabulary)
    _check(vocabulary)
    if not vocabulary or tokenizer is None:
        return {}
    if isinstance(tokenizer, Tokenizer):
        names, found = tokenizer.file_names_of(tokenizer.state()), dict(tokenizer.files())
    else:
        names, found = plugins.file_names_of(tokenizer), plugins.files_of(tokenizer)
        plugins.tokenizer_kind(tokenizer["token_kind"])  # Where it is not there, nobody knows.
    if not {*names} <= {*found}:
        kind = tokenizer.kind if isinstance(tokenizer, Tokenizer) else tokenizer["token_kind"]
        raise missing_error(kind, [name for name in names if name not in found])
    return {name: found[name] for name in names}


def carried_by(
    origin: Checkpoint,
    vocabulary: bool | None,
    *,
    shared: bool,
    there: Callable[[], Checkpoint | None],
) -> Mapping[str, bytes]:
    """Return the files that a copy of a checkpoint carries.

    Those of the source stay, and a copy that is made to be shared gets those that it lacks.

    Args:
        origin: the source.
        vocabulary: True to add them to any copy, False to leave out those of the source, too.
        shared: whether the copy is for inference, and gets them where nothing else is said.
        there: returns what the destination holds; what it has of the same vocabulary is as good.

    Raises:
        UnsupportedError: they are asked for, and nobody here has them.
    """
    _check(vocabulary)
    own, state = origin.tokenizer_files(), origin.tokenizer_state
    if vocabulary is False:
        return {}
    if state is None or not (vocabulary or shared):
        return own
    try:
        lacking = [name for name in plugins.file_names_of(state) if name not in own]
        if vocabulary:
            plugins.tokenizer_kind(state["token_kind"])  # Where it is not there, nobody knows.
        found = _anywhere(origin, there, lacking) if lacking else {}
    except CkptstoreError as error:
        if vocabulary:
            raise
        log.info("nothing is added to the tokenizer of %s: %s", origin.location, error)
        return own
    if vocabulary and lacking and not found:
        raise missing_error(state["token_kind"], lacking)
    return {**own, **found} if found else own


def known_names(state: Mapping[str, Any] | None) -> tuple[str, ...]:
    """Return the names that a state's kind says its files have; none where nobody can say."""
    with suppress(CkptstoreError):
        return () if state is None else plugins.file_names_of(state)
    return ()


def on_this_machine(state: Mapping[str, Any] | None) -> Mapping[str, bytes]:
    """Return the files of a state that are on this machine; none where nobody can say."""
    with suppress(CkptstoreError):
        return {} if state is None else plugins.files_of(state)
    return {}


def missing_error(kind: str, names: list[str]) -> UnsupportedError:
    """Return the error for files that are asked for, and are not on this machine."""
    return UnsupportedError(
        f"the tokenizer kind {kind!r} needs {', '.join(names)}, which is not on this machine, so "
        f"no checkpoint can carry it; get it with ckptstore tokenizer fetch {kind}, or save "
        "without it (vocabulary=False, --no-vocabulary)"
    )


def _anywhere(
    origin: Checkpoint, there: Callable[[], Checkpoint | None], names: list[str]
) -> dict[str, bytes] | None:
    """Return files of the source's vocabulary, from this machine or from the destination."""
    state = origin.tokenizer_state or {}
    if origin.fingerprint in (None, plugins.fingerprint_of(state)):
        here = plugins.files_of(state)
        if {*names} <= {*here}:
            return {name: here[name] for name in names}
    held = there()
    if (
        held is not None
        and held.tokenizer_state == state
        and held.fingerprint in (origin.fingerprint, plugins.fingerprint_of(state))
        and {*names} <= {*held.tokenizer_files()}
    ):
        return {name: held.tokenizer_files()[name] for name in names}
    return None


def _check(vocabulary: object) -> None:
    if vocabulary is not None and not isinstance(vocabulary, bool):
        raise UnsupportedError(
            f"vocabulary is {vocabulary!r}; there are True, False and None, and to save files of "
            "a tokenizer themselves a mapping from their names to their bytes"
        )
