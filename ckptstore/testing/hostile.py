"""The part of the kit for formats that is about bytes from anybody, and storages that fail."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from ckptstore.errors import CkptstoreError, CorruptionError, StorageError, UnsafeError
from ckptstore.formats.base import Contents, Format
from ckptstore.testing.comparing import check_equal, our_errors_only, read_everything
from ckptstore.testing.memory import MemoryFiles
from ckptstore.testing.watched import WatchedFiles

__all__ = ["FormatHostility"]

_OUTSIDE = ("../x", "/etc/passwd", "a/b", "..", "C:\\x", "")
_DEEP = 100_000
_MOST_PLACES = 100
_MOST_FAILURES = 100
# As they stand in JSON; what Python would write of them is not always that.
_BOMBS = (
    "[" * _DEEP + "]" * _DEEP,
    '{"a":' * _DEEP + "1" + "}" * _DEEP,
    "1" * 400,
    "1" * 5000,
    "1e999",
    "-1",
    "9223372036854775808",
    "NaN",
    '"\\ud800"',
    "null",
    "true",
    "[]",
    "{}",
    '[["a", "a"], null, -1.5]',
    '{"a": 1, "a": 2}',
)


class FormatHostility:
    """Promises about hostile files and failing storages; a part of `FormatTests`."""

    def test_names_that_lead_outside_are_not_followed(
        self, format_class: type[Format], files: MemoryFiles, stored: Contents
    ) -> None:
        """G5: where a text names a file, any other name is an error, or of no effect."""
        for name, text in _texts(files):
            for begin, end, meant in _names_in(text, files):
                for outside in _OUTSIDE:
                    data = text[:begin] + json.dumps(outside)[1:-1] + text[end:]
                    attacked = {**files.data, name: data.encode()}
                    watched = WatchedFiles(MemoryFiles(attacked, named=files.named), stand_in=meant)
                    with our_errors_only():
                        states = tuple(stored.states)
                        check_equal(read_everything(format_class(), watched, states), stored)
                    assert not watched.strange, f"{name} named {outside!r}, and it was followed"

    def test_bombs_raise_nothing_but_our_errors(
        self, format_class: type[Format], files: MemoryFiles
    ) -> None:
        """Nested without end, numbers that no computer holds, keys that stand there twice."""
        for name, text in _texts(files):
            for bombed in (*_BOMBS, *_bombed(text)):
                attacked = MemoryFiles({**files.data, name: bombed.encode()}, named=files.named)
                with our_errors_only():
                    read_everything(format_class(), attacked)

    def test_a_read_that_fails_is_the_storages_error(
        self, format_class: type[Format], files: MemoryFiles
    ) -> None:
        """A network that fails half way is told as that, and not as damage of the files."""
        watched = WatchedFiles(files)
        read_everything(format_class(), watched)
        for number in range(1, watched.asked + 1, 1 + watched.asked // _MOST_FAILURES):
            failing = WatchedFiles(files, before=_failing(number))
            with pytest.raises(CkptstoreError, match="the network is gone") as caught:
                read_everything(format_class(), failing)
            assert not isinstance(caught.value, (CorruptionError, UnsafeError))


def _failing(number: int) -> Any:
    def before(asked: int) -> None:
        if asked == number:
            raise StorageError("cannot read: the network is gone; try again")

    return before


def _texts(files: MemoryFiles) -> Iterator[tuple[str, str]]:
    """Yield the files that are text."""
    for name, data in files.data.items():
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError:
            continue
        if text and "\0" not in text:
            yield name, text


def _names_in(text: str, files: MemoryFiles) -> list[tuple[int, int, str]]:
    """Return where a text has the name of a file, from where to where, and of which."""
    found = [
        (match.start(), match.end(), name)
        for name in files.names()
        for match in re.finditer(
            rf"(?<![^\s\"'=:,(\[{{]){re.escape(name)}(?![^\s\"',)\]}}:])", text
        )
    ]
    return _some(found)


def _bombed(text: str) -> Iterator[str]:
    """Yield a JSON text with a bomb in the place of each value, and with each key twice."""
    try:
        value = json.loads(text)
    except ValueError:
        return
    for path in _some(list(_paths(value))):
        for bomb in _BOMBS:
            marked = json.dumps(_replaced(value, path, "the place of a bomb"), ensure_ascii=False)
            yield marked.replace('"the place of a bomb"', bomb)
    for key in _some(re.findall(r'"(?:[^"\\]|\\.)*"(?=\s*:)', text)):
        yield text.replace(f"{key}:", f"{key}: null, {key}:", 1)


def _paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in items:
        yield (*path, key)
        if isinstance(inner, (dict, list)):
            yield from _paths(inner, (*path, key))


def _replaced(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = _replaced(copy[path[0]], path[1:], new)
    return copy


def _some(things: list[Any]) -> list[Any]:
    """Return at most a hundred of many, from the first to the last."""
    step = 1 + len(things) // _MOST_PLACES
    return things[::step]
