"""JSON from anybody: strict where a mistake would be silent, kind where it would not."""

from __future__ import annotations

import pytest

from ckptstore.errors import CorruptionError, UnsafeError, UnsupportedError
from ckptstore.manifest import plain_name
from ckptstore.texts import dump_json, encode_utf8, parse_json


def test_what_is_dumped_parses_to_the_same():
    value = {"a": [1, 2.5, None, True, "è\n"], "b": {"c": {}}}

    assert parse_json(dump_json(value), "x") == value


def test_a_byte_order_mark_of_an_editor_is_no_damage():
    assert parse_json(b'\xef\xbb\xbf{"a": 1}', "x") == {"a": 1}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (b'{"a": 1', "is not valid JSON"),
        (b'{"a": 1, "a": 2}', "the key 'a' stands there twice"),
        (b'{"a": NaN}', "NaN is not JSON"),
        (b'{"a": [-1e999]}', "-1e999 is larger than any number"),
        (b"\xff\xfe", "is not valid JSON"),
        (b"[1]", "holds a JSON list, not an object"),
        (b'{"a":' + b"[" * 200 + b"]" * 200 + b"}", "nested deeper than 100"),
        (b"[" * 1_000_000, "is not valid JSON"),
        (b'{"a": ' + b"9" * 10_000 + b"}", "is not valid JSON"),
    ],
)
def test_malformed_text_is_damage_and_named(text, found):
    with pytest.raises(CorruptionError, match=f"config.json .*{found}"):
        parse_json(text, "config.json")


def test_half_of_a_surrogate_pair_is_written_as_its_escape_and_read_again():
    # os.fsdecode makes these of a path that is not UTF-8, and old configs hold such paths.
    value = parse_json(b'{"path": "caf\\udce9", "\\ud800": 1}', "config.json")

    written = dump_json(value)

    assert "caf\\udce9" in written
    assert parse_json(written.encode("utf-8"), "config.json") == value


@pytest.mark.parametrize("value", [{"a": float("nan")}, {"a": object()}])
def test_what_json_has_no_word_for_is_not_written(value):
    with pytest.raises(UnsupportedError, match="cannot be written as JSON"):
        dump_json(value)


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "a\\b", "/x", "C:x", "a\0b", "a\nb", "x" * 300, 7, None]
)
def test_a_name_that_could_lead_elsewhere_is_refused(name):
    with pytest.raises(UnsafeError, match="not a plain file name"):
        plain_name(name, "x")


@pytest.mark.parametrize("name", ["model.pt", ".hidden", "a b [1] ü.pt", "x..y"])
def test_a_plain_name_is_taken(name):
    assert plain_name(name, "x") == name


def test_text_has_its_bytes_or_says_which_character_has_none():
    assert encode_utf8("né") == b"n\xc3\xa9"

    with pytest.raises(
        ValueError,
        match=r"the text holds U\+D83D at position 2, half of a surrogate .*; leave it out",
    ) as caught:
        encode_utf8("né\ud83d")

    assert not isinstance(caught.value, UnicodeError)
