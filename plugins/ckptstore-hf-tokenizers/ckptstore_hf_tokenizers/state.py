"""The state of the kind: ``{"token_kind": "hf-tokenizers", "tokenizer": {...}}``.

``tokenizer`` is the object that a ``tokenizer.json`` of the Hub holds, as it is written there.
What can be said of it without the library `tokenizers` is said here.
"""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from typing import Any

from ckptstore import CorruptionError

__all__ = ["KIND", "described", "loses_unknown_characters", "may_be_cut", "tokenizer_of"]

KIND = "hf-tokenizers"


def tokenizer_of(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return the object of ``tokenizer.json`` in a state that may come from anybody.

    Raises:
        CorruptionError: the state is of another kind, or holds no such object.
    """
    kind = state.get("token_kind")
    if kind != KIND:
        raise CorruptionError(
            f"the tokenizer state is of kind {reprlib.repr(kind)}, not {KIND!r}; restore it from a "
            "good copy"
        )
    tokenizer = state.get("tokenizer")
    if not isinstance(tokenizer, dict) or not isinstance(tokenizer.get("model"), dict):
        raise CorruptionError(
            f"the tokenizer state is damaged: 'tokenizer' is {reprlib.repr(tokenizer)}, not the "
            "object of a tokenizer.json; restore it from a good copy"
        )
    return tokenizer


def described(tokenizer: Mapping[str, Any]) -> str:
    """Return what a tokenizer is, such as ``byte-level BPE of 8192 ids``."""
    kind = tokenizer["model"].get("type")
    name = kind if isinstance(kind, str) and kind.isalnum() and len(kind) < 20 else "tokenizer"
    level = "byte-level " if "ByteLevel" in _types(tokenizer.get("pre_tokenizer")) else ""
    number = _number_of_ids(tokenizer)
    return f"{level}{name} of {number} id" + "s" * (number != 1)


def may_be_cut(tokenizer: Mapping[str, Any]) -> bool:
    """Whether a text gives the same ids whole, and cut where `pieces` of `training` cuts it.

    That is known of GPT-2's way to split: no piece of the text that becomes tokens reaches over a
    single line break between two other printable ASCII characters.
    """
    split = tokenizer.get("pre_tokenizer")
    return (
        tokenizer["model"].get("type") == "BPE"
        and tokenizer.get("normalizer") is None
        and isinstance(split, dict)
        and split.get("type") == "ByteLevel"
        and split.get("add_prefix_space") is False
        and split.get("use_regex", True) is True
        and all(entry.get("special") is True for entry in _added(tokenizer))
    )


def loses_unknown_characters(tokenizer: Mapping[str, Any]) -> bool:
    """Whether the library leaves out, without a word, what the vocabulary lacks."""
    model = tokenizer["model"]
    return model.get("type") == "BPE" and model.get("unk_token") is None


def _number_of_ids(tokenizer: Mapping[str, Any]) -> int:
    vocabulary = tokenizer["model"].get("vocab")
    ids: list[Any] = [entry.get("id") for entry in _added(tokenizer)]
    if isinstance(vocabulary, dict):
        ids += vocabulary.values()
    elif isinstance(vocabulary, list):
        ids.append(len(vocabulary) - 1)
    return max((number for number in ids if type(number) is int), default=-1) + 1


def _added(tokenizer: Mapping[str, Any]) -> list[dict[str, Any]]:
    added = tokenizer.get("added_tokens")
    return [entry for entry in added if isinstance(entry, dict)] if isinstance(added, list) else []


def _types(part: Any) -> set[str]:
    """Return the types of a part of the pipeline, and of the parts that it is made of."""
    if not isinstance(part, dict):
        return set()
    inner = part.get("pretokenizers")
    found = {str(part.get("type"))}
    return found.union(*map(_types, inner)) if isinstance(inner, list) else found
