"""The kind ``char``."""

from __future__ import annotations

import hashlib

import pytest

from ckptstore.errors import CorruptionError
from ckptstore.tokenizers.char import CharTokenizer


def state(chars: object) -> dict[str, object]:
    return {"token_kind": "char", "chars": chars}


def test_the_vocabulary_is_the_sorted_characters_of_the_text() -> None:
    tokenizer = CharTokenizer.from_text("banana\n")
    assert tokenizer.state() == {"token_kind": "char", "chars": ["\n", "a", "b", "n"]}
    assert tokenizer.encode("ban") == [2, 1, 3]
    assert tokenizer.decode([2, 1, 3]) == "ban"


def test_ids_follow_the_order_of_the_state_whatever_it_is() -> None:
    tokenizer = CharTokenizer.from_state(state(["z", "a"]))
    assert tokenizer.encode("az") == [1, 0]
    assert tokenizer.state() == state(["z", "a"])


def test_an_unknown_character_is_named_with_its_code_point() -> None:
    tokenizer = CharTokenizer.from_text("abc")
    with pytest.raises(
        ValueError, match=r"the text holds '\\n' \(U\+000A\), 'ä' \(U\+00E4\), which this vocab"
    ):
        tokenizer.encode("a\nbä\n")


def test_of_many_unknown_characters_the_first_few_are_named() -> None:
    tokenizer = CharTokenizer.from_text("abc")
    with pytest.raises(ValueError, match=r"'5' \(U\+0035\) and 4 more, which") as caught:
        tokenizer.encode("1234567891")
    assert "'6'" not in str(caught.value)


@pytest.mark.parametrize("number", [-1, 3, 2**70])
def test_an_id_outside_the_vocabulary_is_refused(number: int) -> None:
    with pytest.raises(ValueError, match=f"id {number} is not .* run from 0 to 2"):
        CharTokenizer.from_text("abc").decode([0, number])


def test_an_empty_text_makes_no_vocabulary() -> None:
    with pytest.raises(ValueError, match="the text is empty"):
        CharTokenizer.from_text("")


class Endless(list[str]):
    """A list that says it has a thousand million entries; looking at them would never end."""

    def __len__(self) -> int:
        return 10**9


@pytest.mark.parametrize(
    ("chars", "message"),
    [
        (None, "'chars' is None, not a list"),
        ("abc", "'chars' is 'abc', not a list"),
        ({"a": 0}, "not a list"),
        ([], "'chars' has 0 entries, not 1 to 1114112"),
        (Endless(["a"]), "'chars' has 1000000000 entries"),
        (["a", "bc"], "entry 1 of 'chars' is 'bc', not one character"),
        (["a", ""], "entry 1 of 'chars' is ''"),
        (["a", 7], "entry 1 of 'chars' is 7"),
        (["a", ["b"]], r"entry 1 of 'chars' is \['b'\]"),
        (["a", "b", "a"], "'chars' has 'a' twice, so the ids are not certain"),
        ([["x" * 10**6]], r"entry 0 of 'chars' is .{1,60}, not one"),
    ],
)
def test_a_malformed_state_is_damage(chars: object, message: str) -> None:
    for read in (CharTokenizer.from_state, CharTokenizer.fingerprint_of, CharTokenizer.describe):
        with pytest.raises(CorruptionError, match=message):
            read(state(chars))


def test_a_tuple_from_an_old_file_is_a_list_of_characters() -> None:
    assert CharTokenizer.from_state(state(("a", "b"))).state() == state(["a", "b"])


def test_other_fields_change_no_fingerprint() -> None:
    plain = state(["a", "b"])
    assert CharTokenizer.fingerprint_of({**plain, "note": "x"}) == CharTokenizer.fingerprint_of(
        plain
    )


def test_another_order_is_another_vocabulary() -> None:
    assert CharTokenizer.fingerprint_of(state(["a", "b"])) != CharTokenizer.fingerprint_of(
        state(["b", "a"])
    )


def test_the_fingerprint_stays_the_same_in_every_release() -> None:
    """It stands in manifests, so it may never be computed another way."""
    text = rb'{"chars":["\n","a","\u00e4"],"token_kind":"char"}'
    expected = "sha256:" + hashlib.sha256(text).hexdigest()
    assert CharTokenizer.fingerprint_of(state(["\n", "a", "ä"])) == expected


def test_the_description_counts_the_characters() -> None:
    assert CharTokenizer.describe(state(["a", "b"])) == "2 characters"
    assert CharTokenizer.describe(state(["a"])) == "1 character"


def test_a_subclass_is_a_kind_of_its_own() -> None:
    class Letters(CharTokenizer):
        kind = "letters"

    letters = Letters.from_text("ba")
    assert letters.state() == {"token_kind": "letters", "chars": ["a", "b"]}
    assert Letters.from_state(letters.state()).fingerprint() == letters.fingerprint()
    assert Letters.describe(letters.state()) == "2 characters"
    with pytest.raises(CorruptionError, match="is of kind 'char', not 'letters'"):
        Letters.from_state(state(["a", "b"]))
    with pytest.raises(CorruptionError, match="is of kind 'letters', not 'char'"):
        CharTokenizer.from_state(letters.state())
