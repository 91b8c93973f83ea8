"""Single numbers out of a record's bytes, without torch."""

from __future__ import annotations

import struct

__all__ = ["FORMS", "decoded"]

FORMS = {
    "bool": "?",
    "int8": "b",
    "uint8": "B",
    "int16": "h",
    "uint16": "H",
    "int32": "i",
    "uint32": "I",
    "int64": "q",
    "uint64": "Q",
    "float16": "e",
    "bfloat16": "H",
    "float32": "f",
    "float64": "d",
}


def decoded(raw: bytes, dtype: str, byteorder: str) -> bool | int | float:
    """Return the number that an element's bytes are.

    Args:
        raw: as many bytes as one element has.
        dtype: one of `FORMS`.
        byteorder: ``little`` or ``big``.
    """
    order = "<" if byteorder == "little" else ">"
    (value,) = struct.unpack(order + FORMS[dtype], raw)
    if dtype == "bfloat16":  # The upper half of a float32.
        (value,) = struct.unpack(">f", struct.pack(">HH", value, 0))
    return value  # type: ignore[no-any-return]
