"""The state of the kind: the serialized model in base64, and what it is, for people.

It is an object like this one::

    {"token_kind": "sentencepiece", "model_type": "unigram", "vocab_size": 8192,
     "byte_fallback": true, "normalization": "identity", "model": ["CgkKBTx1bms+...", ...]}

What is said beside the model may be left out; if it is there it has to be true.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import reprlib
from collections.abc import Mapping
from typing import Any

from ckptstore import CorruptionError
from ckptstore_sentencepiece.proto import Facts, facts_of

__all__ = ["KIND", "MOST_BYTES", "damaged", "fingerprint_of_model", "read", "state_of"]

KIND = "sentencepiece"
MOST_BYTES = (
    40 * 2**20
)  # with base64 and line breaks as much as a JSON file of a checkpoint may have
_LINE = 96
_MOST_LINES = 2 * MOST_BYTES // 3


def read(state: Mapping[str, Any]) -> tuple[bytes, Facts]:
    """Return the serialized model of a state that may come from anybody, and what it is.

    Raises:
        CorruptionError: the state is malformed, or says something else than the model.
    """
    kind = state.get("token_kind")
    if kind != KIND:
        raise CorruptionError(
            f"the tokenizer state is of kind {reprlib.repr(kind)}, not {KIND!r}; restore it from a "
            "good copy"
        )
    model = _model_in(state.get("model"))
    try:
        facts = facts_of(model)
    except ValueError as error:
        raise damaged(f"'model' is no SentencePiece model: {error}") from error
    for name, value in _said(facts).items():
        there = state.get(name)
        if there is not None and (there != value or type(there) is not type(value)):
            raise damaged(f"{name!r} is {reprlib.repr(there)}, the model's is {value!r}")
    return model, facts


def state_of(model: bytes, facts: Facts) -> dict[str, Any]:
    """Return the state that holds a model."""
    text = base64.b64encode(model).decode()
    lines = [text[at : at + _LINE] for at in range(0, len(text), _LINE)]
    return {"token_kind": KIND, **_said(facts), "model": lines}


def fingerprint_of_model(model: bytes) -> str:
    """Return the digest of a model's bytes, which is that of its ``tokenizer.model``."""
    return "sha256:" + hashlib.sha256(model).hexdigest()


def damaged(what: str) -> CorruptionError:
    """Return the error that a state is damaged."""
    return CorruptionError(f"the tokenizer state is damaged: {what}; restore it from a good copy")


def _said(facts: Facts) -> dict[str, Any]:
    return {
        "model_type": facts.model_type,
        "vocab_size": facts.vocab_size,
        "byte_fallback": facts.byte_fallback,
        "normalization": facts.normalization,
    }


def _model_in(lines: object) -> bytes:
    if (
        not isinstance(lines, list)
        or not 0 < len(lines) <= _MOST_LINES
        or not all(isinstance(line, str) for line in lines)
    ):
        raise damaged(f"'model' is {reprlib.repr(lines)}, not lines of base64")
    try:
        return base64.b64decode("".join(lines), validate=True)
    except (ValueError, binascii.Error) as error:
        raise damaged(f"'model' is no base64: {error}") from error
