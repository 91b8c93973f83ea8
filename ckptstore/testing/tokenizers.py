"""The test kit for tokenizer kinds."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

import pytest

from ckptstore import plugins
from ckptstore.errors import CkptstoreError, CorruptionError
from ckptstore.testing.using import TokenizerUse, through_json
from ckptstore.texts import dump_json
from ckptstore.tokenizers.base import Tokenizer
from ckptstore.tokenizers.files import check_files
from ckptstore.tokenizers.options import options_of, parsed

__all__ = ["NASTY_TEXT", "TokenizerTests"]

NASTY_TEXT = (
    "plain words, 0123456789\n\ttabs\r\nand \x00 control \x7f characters \ufeff"
    "äöüß e\u0301 \ufb01 \u0130 \u00a0\u2003\u200b\u200d\u202etfel\u202c "
    "汉字 かな 한글 \u0627\u0644\u0639 \u05e2\u05d1\u05e8 \u0939\u093f\u0928\u094d\u0926\u0940 "
    "\U0001f600 \U0001f469\u200d\U0001f467 \U0001f1e8\U0001f1ed \U0001f9d1\U0001f3fd "
    "\U0001d518\U0001d52b \U0010ffff \ufffd "
    "<|endoftext|> </s> [UNK] ##ing \u2581word \u0120word"
)
"""Unicode that breaks careless tokenizers, and text that looks like their special tokens."""

_JUNK: tuple[Any, ...] = (
    None, True, -1, 1.5, "", "ab", [], [None], [[]], ["ab"], ["a", "a"], [1, 2], {}, {"a": {}},
)  # fmt: skip


class TokenizerTests(TokenizerUse):
    """Every promise of `Tokenizer`, for one kind.

    Subclass it under a name that begins with ``Test``, and override the fixture
    `tokenizer_class`. The package has to be installed, because one of the promises is that the
    kind is found.
    """

    @pytest.fixture
    def tokenizer_class(self) -> type[Tokenizer]:
        """The class to be tested; override it."""
        raise NotImplementedError(
            f"{type(self).__name__} has to override the fixture tokenizer_class"
        )

    @pytest.fixture
    def text(self) -> str:
        """A text to train on; override it where the kind needs another or a longer one."""
        return "To be, or not to be: that is the question.\n" * 20 + NASTY_TEXT

    @pytest.fixture
    def other_text(self) -> str:
        """A text with another vocabulary, where the vocabulary depends on the text."""
        return "Whether 'tis nobler in the mind to suffer ÄÖÜ 漢\n" * 20

    @pytest.fixture
    def tokenizer(self, tokenizer_class: type[Tokenizer], text: str) -> Tokenizer:
        """The tokenizer made of `text`."""
        return tokenizer_class.from_text(text)

    # -- text and ids -------------------------------------------------------------------

    def test_the_training_text_comes_back(self, tokenizer: Tokenizer, text: str) -> None:
        """`from_text` covers its text, Unicode and lookalikes of special tokens included."""
        assert tokenizer.decode(tokenizer.encode(text)) == text

    def test_each_character_of_the_training_text_comes_back(
        self, tokenizer: Tokenizer, text: str
    ) -> None:
        """Coverage does not depend on what stands beside a character."""
        for char in sorted(set(text)):
            assert tokenizer.decode(tokenizer.encode(char)) == char

    def test_no_text_is_no_ids(self, tokenizer: Tokenizer) -> None:
        """Nothing is added to an empty text."""
        assert tokenizer.encode("") == []
        assert tokenizer.decode([]) == ""

    def test_ids_are_plain_ints_in_range(self, tokenizer: Tokenizer, text: str) -> None:
        """A model has an embedding for each id from 0 to ``n_vocab - 1``, and for no other."""
        ids = tokenizer.encode(text)
        assert isinstance(ids, list)
        assert {type(number) for number in ids} == {int}
        assert min(ids) >= 0
        assert max(ids) < tokenizer.n_vocab

    def test_every_id_has_a_text(self, tokenizer: Tokenizer) -> None:
        """A model may generate any id of the vocabulary, so each can be decoded."""
        assert type(tokenizer.n_vocab) is int
        assert tokenizer.n_vocab > 0
        for number in range(tokenizer.n_vocab):
            assert isinstance(tokenizer.decode([number]), str)

    def test_an_id_outside_the_vocabulary_is_refused(self, tokenizer: Tokenizer) -> None:
        """An id that means nothing is an error, not another id's text."""
        for number in (-1, tokenizer.n_vocab, 2**40):
            with pytest.raises(ValueError, match=str(number)):
                tokenizer.decode([0, number])

    def test_any_ids_decode_to_text_that_can_be_written(self, tokenizer: Tokenizer) -> None:
        """What is not whole UTF-8 becomes U+FFFD, never a lone surrogate."""
        count = min(tokenizer.n_vocab, 300)
        tokenizer.decode(list(range(count))).encode("utf-8")
        tokenizer.decode(list(reversed(range(count)))).encode("utf-8")

    def test_text_that_is_not_covered_says_what(self, tokenizer: Tokenizer) -> None:
        """Any text comes back whole, or is refused with a message that shows what is lacking."""
        foreign = "\u2603\U0001f0a1"
        message = None
        try:
            ids = tokenizer.encode(foreign)
        except ValueError as error:
            message = str(error)
        if message is None:
            assert tokenizer.decode(ids) == foreign
        else:
            assert any(char in message or f"{ord(char):04X}" in message for char in foreign)

    # -- state --------------------------------------------------------------------------

    def test_the_state_is_a_json_object_of_this_kind(self, tokenizer: Tokenizer) -> None:
        """The state goes through tokenizer.json unchanged, however often."""
        state = tokenizer.state()
        assert through_json(tokenizer) == state
        assert dump_json(through_json(tokenizer)) == dump_json(state)
        assert state["token_kind"] == tokenizer.kind

    def test_the_state_is_a_copy(self, tokenizer: Tokenizer, text: str) -> None:
        """Whoever changes the state that was handed out changes no tokenizer."""
        before = tokenizer.encode(text)
        state = tokenizer.state()
        for value in state.values():
            if isinstance(value, (list, dict)):
                value.clear()
        state.clear()
        assert tokenizer.encode(text) == before
        assert tokenizer.state()["token_kind"] == tokenizer.kind

    def test_the_state_makes_the_same_tokenizer(self, tokenizer: Tokenizer, text: str) -> None:
        """Ids mean the same in training and in use."""
        again = type(tokenizer).from_state(through_json(tokenizer))
        assert again.encode(text) == tokenizer.encode(text)
        assert again.n_vocab == tokenizer.n_vocab
        assert again.state() == tokenizer.state()
        assert again.fingerprint() == tokenizer.fingerprint()

    def test_the_same_text_makes_the_same_tokenizer(
        self, tokenizer: Tokenizer, tokenizer_class: type[Tokenizer], text: str
    ) -> None:
        """Training is deterministic."""
        assert tokenizer_class.from_text(text).state() == tokenizer.state()

    def test_an_option_that_is_not_given_has_its_default(
        self, tokenizer_class: type[Tokenizer], text: str
    ) -> None:
        """What `ckptstore plugins` shows as an option's default is what holds without it."""
        options = options_of(tokenizer_class)
        if not options:
            return
        state = tokenizer_class.from_text(text).state()
        spelt = parsed(tokenizer_class, {name: str(o.default) for name, o in options.items()})
        assert spelt == {name: option.default for name, option in options.items()}
        assert tokenizer_class.from_text(text, **spelt).state() == state
        for name, value in spelt.items():
            assert tokenizer_class.from_text(text, **{name: value}).state() == state

    def test_a_state_of_another_kind_is_refused(self, tokenizer: Tokenizer) -> None:
        """A state that does not say this kind is damaged."""
        rest = {name: value for name, value in tokenizer.state().items() if name != "token_kind"}
        other_kinds: tuple[Any, ...] = ("another kind", "", None, 7, [], {})
        for kind in other_kinds:
            with pytest.raises(CorruptionError):
                type(tokenizer).from_state({**rest, "token_kind": kind})
        with pytest.raises(CorruptionError):
            type(tokenizer).from_state(rest)

    def test_a_malformed_state_raises_nothing_but_our_errors(self, tokenizer: Tokenizer) -> None:
        """Whatever stands in a field, reading it gives a tokenizer or one clear error."""
        state = tokenizer.state()
        hostile: list[Mapping[str, Any]] = []
        for name in state.keys() - {"token_kind"}:
            hostile += [{**state, name: junk} for junk in _JUNK]
            hostile.append({key: value for key, value in state.items() if key != name})
        for case in hostile:
            for read in (
                type(tokenizer).from_state,
                type(tokenizer).fingerprint_of,
                type(tokenizer).describe,
            ):
                with contextlib.suppress(CkptstoreError):
                    read(case)

    # -- files --------------------------------------------------------------------------

    def test_its_files_are_those_that_its_state_names(self, tokenizer: Tokenizer) -> None:
        """A checkpoint can carry them, whoever saves it: with the tokenizer or with its state."""
        state = through_json(tokenizer)
        names, files = type(tokenizer).file_names_of(state), dict(tokenizer.files())
        assert len({*names}) == len(names)
        assert {*files} == {*names}, "the tokenizer has to have all its files in this test"
        assert dict(type(tokenizer).files_of(state)) == files
        assert {type(data) for data in files.values()} <= {bytes}
        check_files(files, state)

    def test_its_files_make_the_same_tokenizer(self, tokenizer: Tokenizer, text: str) -> None:
        """What a checkpoint carries is enough, and files that are absent or foreign harm nobody."""
        state, files = through_json(tokenizer), dict(tokenizer.files())
        for case in (files, {}, {**files, "tokenizer.of-another-kind": b"\x00"}):
            again = type(tokenizer).from_files(state, case)
            assert again.encode(text) == tokenizer.encode(text)
            assert again.state() == tokenizer.state()
            assert again.fingerprint() == tokenizer.fingerprint()
            assert dict(again.files()) == files

    def test_files_of_a_stranger_make_the_same_tokenizer_or_none(
        self, tokenizer: Tokenizer, text: str
    ) -> None:
        """A file that holds something else is an error of ours, and never another vocabulary."""
        state, files = through_json(tokenizer), dict(tokenizer.files())
        for name, whole in files.items():
            lines = whole.splitlines(keepends=True)
            shuffled = b"".join([*lines[1:], *lines[:1]])
            for data in (b"", whole[: len(whole) // 2], shuffled, b"{}", b"\xff\x00" * 99):
                with contextlib.suppress(CkptstoreError):
                    made = type(tokenizer).from_files(state, {**files, name: data})
                    assert made.fingerprint() == tokenizer.fingerprint()
                    assert made.encode(text) == tokenizer.encode(text)

    # -- fingerprint and registry -------------------------------------------------------

    def test_the_state_has_the_fingerprint_of_its_tokenizer(self, tokenizer: Tokenizer) -> None:
        """A bare state can be saved with the fingerprint that the tokenizer will have."""
        assert isinstance(tokenizer.fingerprint(), str)
        assert tokenizer.fingerprint()
        assert type(tokenizer).fingerprint_of(through_json(tokenizer)) == tokenizer.fingerprint()

    def test_other_vocabularies_have_other_fingerprints(
        self, tokenizer: Tokenizer, other_text: str
    ) -> None:
        """The fingerprint tells whether a vocabulary is the one of the training."""
        other = type(tokenizer).from_text(other_text)
        same = other.state() == tokenizer.state()
        assert (other.fingerprint() == tokenizer.fingerprint()) == same

    def test_the_description_is_one_line(self, tokenizer: Tokenizer) -> None:
        """``inspect`` shows it in one line."""
        line = type(tokenizer).describe(through_json(tokenizer))
        assert line.strip() == line
        assert len(line.splitlines()) == 1

    def test_the_kind_is_found(self, tokenizer: Tokenizer, text: str) -> None:
        """The hook is implemented, the entry point is installed, and nobody else has the name."""
        assert plugins.tokenizer_kind(tokenizer.kind) is type(tokenizer)
        found = plugins.load_tokenizer(through_json(tokenizer), fingerprint=tokenizer.fingerprint())
        assert found.encode(text) == tokenizer.encode(text)
