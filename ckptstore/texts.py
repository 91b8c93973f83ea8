"""JSON as every file of ours has it, and as it may come from anybody."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from ckptstore.errors import CorruptionError, UnsupportedError

__all__ = ["dump_json", "dump_json_lines", "encode_utf8", "parse_json", "parse_json_lines"]

_MOST_DEPTH = 100


def dump_json(value: Any) -> str:
    """Return JSON text as every file of ours has it: UTF-8, indent 2, a line break at the end.

    Guarantee: `parse_json` reads it, and returns an equal value. Half of a surrogate pair, which
    stands for a byte of a path that is not UTF-8, is written as its escape.

    Raises:
        UnsupportedError: the value holds something that JSON does not have, NaN included, or
            that `parse_json` would refuse.
    """
    try:
        text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        # Python's escape of what UTF-8 lacks is JSON's own.
        text = text.encode("utf-8", "backslashreplace").decode()
        _parse(text)
    except (TypeError, ValueError, RecursionError) as error:
        raise UnsupportedError(f"this cannot be written as JSON: {error}") from error
    return text


def parse_json(text: str | bytes, where: str) -> dict[str, Any]:
    """Read a JSON object from text that may come from anybody.

    Args:
        text: the file's content.
        where: what to call the file in errors.

    Raises:
        CorruptionError: it is not UTF-8, not JSON, not an object, nested deeper than 100,
            has a key twice, or a number that no float can hold.
    """
    try:
        decoded = text if isinstance(text, str) else text.decode("utf-8")
        # Some editors put a byte-order mark before what a person has edited.
        value = _parse(decoded.removeprefix("\ufeff"))
    except (ValueError, RecursionError) as error:
        raise CorruptionError(
            f"{where} is not valid JSON: {error}; correct it, or restore it from a good copy"
        ) from error
    if not isinstance(value, dict):
        raise CorruptionError(f"{where} holds a JSON {type(value).__name__}, not an object")
    return value


def encode_utf8(text: str) -> bytes:
    """Return the bytes of a text, for tokenizers that go by them.

    Raises:
        ValueError: it holds half of a surrogate pair, which is no character; the message says
            where.
    """
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        at = error.start
        raise ValueError(
            f"the text holds U+{ord(text[at]):04X} at position {at}, half of a surrogate pair, "
            "which is no character and has no bytes; leave it out, or decode the text with "
            "errors='replace'"
        ) from None


def dump_json_lines(rows: Iterable[Mapping[str, Any]]) -> str:
    """Return a JSON object on each line, as UTF-8 has it; what is no finite number becomes null.

    Guarantee: `parse_json_lines` reads it.

    Raises:
        UnsupportedError: a row is no object, or holds something that JSON does not have.
    """
    lines = []
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, Mapping):
            raise UnsupportedError(f"row {number} is a {type(row).__name__}, not a JSON object")
        try:
            text = json.dumps(_with_nulls(row), ensure_ascii=False, allow_nan=False)
            _parse(text)
        except (TypeError, ValueError, RecursionError) as error:
            raise UnsupportedError(f"row {number} cannot be written as JSON: {error}") from error
        lines.append(text.encode("utf-8", "backslashreplace").decode() + "\n")
    return "".join(lines)


def parse_json_lines(data: bytes, where: str) -> tuple[dict[str, Any], ...]:
    """Read a JSON object from each line that is not empty, from text that may come from anybody.

    Raises:
        CorruptionError: as `parse_json`; the message names the line.
    """
    lines = enumerate(data.split(b"\n"), start=1)
    return tuple(parse_json(line, f"line {n} of {where}") for n, line in lines if line.strip())


def _with_nulls(value: Any) -> Any:
    """Return a value with None for each number that JSON has no word for."""
    if isinstance(value, Mapping):
        return {key: _with_nulls(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_with_nulls(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _parse(text: str) -> Any:
    value = json.loads(
        text, object_pairs_hook=_object, parse_constant=_no_constant, parse_float=_finite
    )
    _check_depth(value)
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        counts = Counter(name for name, _ in pairs)
        twice = next(name for name, count in counts.items() if count > 1)
        raise ValueError(f"the key {twice!r} stands there twice")
    return value


def _finite(text: str) -> float:
    value = float(text)
    # What would become infinity could not be written again.
    if math.isinf(value):
        raise ValueError(f"{text[:40]} is larger than any number that can be computed with")
    return value


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _check_depth(value: object) -> None:
    level = [value]
    for _ in range(_MOST_DEPTH):
        if not level:
            return
        level = [
            inner
            for outer in level
            if isinstance(outer, (dict, list))
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
    raise ValueError(f"nested deeper than {_MOST_DEPTH}")
