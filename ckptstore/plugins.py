"""Formats by name and tokenizer kinds by name, whoever brings them.

Rules of this file:

1. Plugins are looked for once per process, at the first use, with the environment as it is then.
2. Two plugins that claim one name, and a hook that does not exist, are errors: whoever lists the
   formats or kinds, or asks for a name that is not there, gets a `PluginError` that names the
   plugins. What is there and undisputed is still handed out by name, so that the fault of one
   plugin never costs a save that has nothing to do with it. `loaded` tells everything and never
   raises.
3. Whatever a plugin's class raises that is no error of ours is a `PluginError`.
"""

from __future__ import annotations

import reprlib
import threading
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from ckptstore.discovery import PluginInfo, find
from ckptstore.errors import CkptstoreError, CorruptionError, PluginError
from ckptstore.formats.base import Format
from ckptstore.progress import OnProgress
from ckptstore.shelves import Registry, registry_of
from ckptstore.tokenizers.base import Tokenizer
from ckptstore.tokenizers.files import Fetched
from ckptstore.tokenizers.options import TokenizerOption, options_of, parsed

__all__ = [
    "PluginInfo",
    "TokenizerOption",
    "describe",
    "fetch_files",
    "file_names_of",
    "files_elsewhere",
    "files_of",
    "fingerprint_of",
    "format_named",
    "formats",
    "load_tokenizer",
    "loaded",
    "reload",
    "tokenizer_kind",
    "tokenizer_options",
    "tokenizers",
    "train_tokenizer",
]

_T = TypeVar("_T")


def formats() -> dict[str, Format]:
    """Return all formats by name, the built-in ones first.

    Raises:
        PluginError: two plugins claim one name, or one implements a hook that does not exist.
    """
    return _registry().formats.all()


def format_named(name: str) -> Format:
    """Return the format of this name.

    Raises:
        UnsupportedError: it is not installed; the message says which formats are.
        PluginError: the name is disputed, or may be missing because of a faulty plugin.
    """
    return _registry().formats.named(name)


def tokenizers() -> dict[str, type[Tokenizer]]:
    """Return all tokenizer kinds by name, the built-in ones first.

    Raises:
        PluginError: two plugins claim one kind, or one implements a hook that does not exist.
    """
    return _registry().kinds.all()


def tokenizer_kind(name: str) -> type[Tokenizer]:
    """Return the tokenizer class of this kind.

    Raises:
        UnsupportedError: it is not installed; the message says which kinds are.
        PluginError: the kind is disputed, or may be missing because of a faulty plugin.
    """
    return _registry().kinds.named(name)


def tokenizer_options(kind: str) -> dict[str, TokenizerOption]:
    """Return what a tokenizer kind can be told when it is trained, by name.

    Args:
        kind: its name.

    Raises:
        UnsupportedError: the kind is not installed.
        PluginError: the kind is disputed, or may be missing because of a faulty plugin.
    """
    return options_of(tokenizer_kind(kind))


def train_tokenizer(kind: str, text: str, options: Mapping[str, object] | None = None) -> Tokenizer:
    """Return a tokenizer of a kind for a model that is to be trained on a text.

    Args:
        kind: its name.
        text: what the model is to be trained on.
        options: training options of the kind, as values or as text; what is not given has its
            default.

    Raises:
        ValueError: the kind has no such option, a value does not fit, or the kind makes no
            tokenizer of this text.
        UnsupportedError: the kind is not installed, or needs something that is not here.
        PluginError: the plugin of this kind failed.
    """
    cls = tokenizer_kind(kind)
    values = parsed(cls, options or {})
    return _ask(cls, lambda: cls.from_text(text, **values), passes=ValueError, on="this text")


def load_tokenizer(
    state: Mapping[str, Any],
    *,
    fingerprint: str | None = None,
    files: Mapping[str, bytes] | None = None,
) -> Tokenizer:
    """Return the tokenizer that a state describes.

    Guarantee: where a fingerprint is given, the tokenizer has the vocabulary that had it.

    Args:
        state: a JSON object with ``token_kind``.
        fingerprint: of the vocabulary that the model was trained on; None to take any.
        files: by name, what a checkpoint carries beside the state; each is read when it is asked
            for. Without them what the state names has to be on this machine.

    Raises:
        CorruptionError: the state is malformed, or the vocabulary is another one.
        UnsupportedError: the kind is not installed, or needs something that is not here.
        PluginError: the plugin of this kind failed.
    """
    cls = tokenizer_kind(_kind_of(state))
    made = (lambda: cls.from_files(state, files)) if files else (lambda: cls.from_state(state))
    tokenizer = _ask(cls, made)
    if fingerprint is None:
        return tokenizer
    found = _ask(cls, tokenizer.fingerprint)
    if found != fingerprint:
        raise CorruptionError(
            f"the {cls.kind!r} vocabulary here is another one than the model was trained on: "
            f"its fingerprint is {found}, the checkpoint's is {fingerprint}; restore "
            "tokenizer.json from a good copy, or install the vocabulary of the training"
        )
    return tokenizer


def fingerprint_of(state: Mapping[str, Any]) -> str | None:
    """Return the fingerprint of the vocabulary that a state describes, without loading it.

    Returns:
        The fingerprint, or None where the kind is not installed.

    Raises:
        CorruptionError: the state is malformed.
        PluginError: the plugin of this kind failed, or the kind is disputed.
    """
    cls = _registry().kinds.get(_kind_of(state))
    return None if cls is None else _ask(cls, lambda: cls.fingerprint_of(state))


def file_names_of(state: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of the files that a state names and does not hold.

    None where the kind has no such files, or is not installed.

    Raises:
        CorruptionError: the state is malformed.
        PluginError: the plugin of this kind failed, or the kind is disputed.
    """
    cls = _registry().kinds.get(_kind_of(state))
    return () if cls is None else _ask(cls, lambda: tuple(cls.file_names_of(state)))


def files_of(state: Mapping[str, Any]) -> dict[str, bytes]:
    """Return those files, as far as they are on this machine; never by a network.

    Raises:
        CorruptionError: the state is malformed.
        PluginError: the plugin of this kind failed, or the kind is disputed.
    """
    cls = _registry().kinds.get(_kind_of(state))
    return {} if cls is None else _ask(cls, lambda: dict(cls.files_of(state)))


def files_elsewhere(kind: str, files: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return files of a kind as the library that it wraps looks for them, by the names there.

    Raises:
        UnsupportedError: the kind is not installed.
        CorruptionError: the files hold another vocabulary.
        PluginError: the plugin of this kind failed, or the kind is disputed.
    """
    cls = tokenizer_kind(kind)
    return _ask(cls, lambda: dict(cls.files_elsewhere(files)))


def fetch_files(
    kind: str, folder: str | None = None, *, progress: OnProgress | None = None
) -> Fetched:
    """Have the files of a kind on this machine, by a network where need be.

    Args:
        kind: its name.
        folder: where to; by default where the kind looks for them.
        progress: called with `Progress` events.

    Raises:
        UnsupportedError: the kind is not installed, has no files, or cannot fetch them.
        StorageError: the network or the folder failed.
        CorruptionError: something else was sent.
        PluginError: the plugin of this kind failed, or the kind is disputed.
    """
    cls = tokenizer_kind(kind)
    return _ask(cls, lambda: cls.fetch_files(folder, progress=progress))


def describe(state: Mapping[str, Any]) -> str:
    """Return one line about the vocabulary that a state describes, for people.

    Raises:
        CorruptionError: the state is malformed.
        PluginError: the plugin of this kind failed, or the kind is disputed.
    """
    kind = _kind_of(state)
    cls = _registry().kinds.get(kind)
    if cls is None:
        return f"the tokenizer kind {kind!r} is not installed"
    return _ask(cls, lambda: cls.describe(state))


def loaded() -> tuple[PluginInfo, ...]:
    """Return every plugin that was found, the built-ins first; a faulty one does not raise."""
    return _registry().infos


def reload() -> None:
    """Forget what was found; the next use looks again, with the environment as it is then.

    Modules that were imported stay imported. For tests, and for programs that install a plugin
    while they run.
    """
    global _found
    with _lock:
        _found = None


# Reentrant, because a plugin's module may ask for formats while it is imported.
_lock = threading.RLock()
_found: Registry | None = None


def _registry() -> Registry:
    global _found
    with _lock:
        if _found is None:
            _found = registry_of(find())
        return _found


def _kind_of(state: object) -> str:
    """Return the ``token_kind`` of a state that may come from anybody."""
    if not isinstance(state, Mapping):
        raise CorruptionError(
            f"the tokenizer state is a {type(state).__name__}, not a JSON object with token_kind; "
            "restore it from a good copy"
        )
    kind = state.get("token_kind")
    if not isinstance(kind, str) or not kind:
        raise CorruptionError(
            f"the tokenizer state has {reprlib.repr(kind)} as its token_kind, not a name; "
            "restore it from a good copy"
        )
    return kind


def _ask(
    cls: type[Tokenizer],
    call: Callable[[], _T],
    *,
    passes: type[Exception] = CkptstoreError,
    on: str = "this state",
) -> _T:
    """Call into a tokenizer class, which may be anybody's."""
    try:
        return call()
    except (CkptstoreError, passes):
        raise
    except Exception as error:
        raise PluginError(
            f"the tokenizer kind {cls.kind!r} ({cls.__module__}.{cls.__qualname__}) failed on "
            f"{on}: {type(error).__name__}: {error}; report it to the authors of that plugin"
        ) from error
