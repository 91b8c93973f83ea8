"""What a serialized SentencePiece model says of itself, read without the library.

The bytes are a protocol buffer, ``ModelProto`` in SentencePiece's ``sentencepiece_model.proto``.
Only the few fields that are asked for are read; the library judges whether the rest is sound.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["Facts", "facts_of"]

# Numbers of fields: of ModelProto, of TrainerSpec and of NormalizerSpec.
_PIECES, _TRAINER, _NORMALIZER = 1, 2, 3
_MODEL_TYPE, _BYTE_FALLBACK, _SUFFIX = 3, 35, 24
_NAME, _CHARSMAP, _DUMMY_PREFIX, _REMOVE_BLANKS, _ESCAPE_BLANKS = 1, 2, 3, 4, 5
_TYPES = {1: "unigram", 2: "bpe", 3: "word", 4: "char"}
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5


@dataclass(frozen=True)
class Facts:
    """What a model is.

    Attributes:
        model_type: ``unigram``, ``bpe``, ``word`` or ``char``.
        vocab_size: the number of pieces.
        byte_fallback: whether what the vocabulary lacks becomes bytes.
        normalization: the name of the rule that changes texts first; ``identity`` changes nothing.
        keeps_blanks: whether blanks are neither added nor removed.
    """

    model_type: str
    vocab_size: int
    byte_fallback: bool
    normalization: str
    keeps_blanks: bool

    @property
    def exact(self) -> bool:
        """Whether every text comes back as it was, blanks of all kinds included."""
        return self.byte_fallback and self.keeps_blanks and self.normalization == "identity"


def facts_of(model: bytes) -> Facts:
    """Return what a serialized model says of itself.

    Raises:
        ValueError: it is no such model, or was cut off.
    """
    pieces = 0
    trainer: dict[int, int | bytes] = {}
    normalizer: dict[int, int | bytes] = {}
    for number, value in _fields(model):
        if number == _PIECES:
            pieces += 1
        elif number == _TRAINER and isinstance(value, bytes):
            trainer |= dict(_fields(value))
        elif number == _NORMALIZER and isinstance(value, bytes):
            normalizer |= dict(_fields(value))
    kind = trainer.get(_MODEL_TYPE, 1)
    if not pieces or kind not in _TYPES:
        raise ValueError("it has no pieces, or is of an unknown type")
    name = normalizer.get(_NAME, b"")
    rule = name.decode("utf-8", "replace") if isinstance(name, bytes) else ""
    changes = bool(normalizer.get(_CHARSMAP, b""))
    return Facts(
        model_type=_TYPES[int(kind)],
        vocab_size=pieces,
        byte_fallback=bool(trainer.get(_BYTE_FALLBACK, 0)),
        normalization=(rule or "custom") if changes else "identity",
        keeps_blanks=not normalizer.get(_DUMMY_PREFIX, 1)
        and not normalizer.get(_REMOVE_BLANKS, 1)
        and bool(normalizer.get(_ESCAPE_BLANKS, 1))
        and not trainer.get(_SUFFIX, 0),
    )


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield the number and value of each field of a message; fixed ones as bytes."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        number, wire = key >> 3, key & 7
        if wire == _VARINT:
            value, at = _varint(data, at)
            yield number, value
            continue
        if wire == _LENGTH:
            size, at = _varint(data, at)
        elif wire in (_FIXED32, _FIXED64):
            size = 4 if wire == _FIXED32 else 8
        else:
            raise ValueError(f"there is no field at byte {at}")
        if at + size > len(data):
            raise ValueError("it was cut off")
        yield number, data[at : at + size]
        at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise ValueError("it was cut off")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError(f"there is no number at byte {at}")
