"""A model that is trained on a text: exactness, options, determinism, and no noise."""

from __future__ import annotations

import base64
import hashlib

import pytest
import sentencepiece
from ckptstore_sentencepiece import SentencePieceTokenizer
from ckptstore_sentencepiece.proto import facts_of
from ckptstore_sentencepiece.training import TYPES

import gpt.train
from ckptstore import plugins
from ckptstore.testing.tokenizers import NASTY_TEXT

TEXT = gpt.train.SAMPLE_TEXT.read_text("utf-8")


@pytest.mark.parametrize("model_type", TYPES)
@pytest.mark.parametrize("text", ["a", "ab" * 1000, "漢\n", " ", "a b " * 50, TEXT])
def test_any_text_trains_and_every_text_comes_back(model_type, text):
    tokenizer = SentencePieceTokenizer.from_text(text, vocab_size=500, model_type=model_type)

    for one in (
        NASTY_TEXT,
        " a  b\t\u2581c\n\n \u2581\u2581 ",
        "<unk> <s></s> <0x0A>",
        "\x00",
        text,
    ):
        ids = tokenizer.encode(one)
        assert tokenizer.decode(ids) == one
        assert 0 not in ids  # the unknown piece
    assert tokenizer.decode(tokenizer.encode("\U0001f600")[:-1]).endswith("\ufffd")


def test_a_vocabulary_without_a_piece_for_the_space_covers_it_all_the_same():
    """The type ``char`` leaves out what is rare, and here that is the space."""
    tokenizer = SentencePieceTokenizer.from_text(
        "ab " + "ab" * 99, vocab_size=259, model_type="char"
    )
    library = sentencepiece.SentencePieceProcessor(model_proto=tokenizer.to_model())

    assert library.decode(library.encode("a b")) == "a\u2581b"
    assert tokenizer.decode(tokenizer.encode("a b")) == "a b"


def test_cutting_at_lines_changes_no_id():
    tokenizer = SentencePieceTokenizer.from_text(TEXT, vocab_size=900)
    library = sentencepiece.SentencePieceProcessor(model_proto=tokenizer.to_model())
    text = TEXT * 32
    assert text.count("\n") > 5000

    assert tokenizer.encode(text) == library.encode(text)


@pytest.mark.parametrize("model_type", TYPES)
def test_the_same_text_gives_the_same_ids_in_every_process(python, model_type):
    code = f"""
import gpt.train
from ckptstore_sentencepiece import SentencePieceTokenizer
text = gpt.train.SAMPLE_TEXT.read_text("utf-8")
made = SentencePieceTokenizer.from_text(text, vocab_size=900, model_type={model_type!r})
print(made.fingerprint())
"""
    assert len({python(code, PYTHONHASHSEED=str(seed)) for seed in range(3)}) == 1


def test_options_hold():
    large = SentencePieceTokenizer.from_text(TEXT)
    small = SentencePieceTokenizer.from_text(TEXT, vocab_size=400)
    pairs = SentencePieceTokenizer.from_text(TEXT, vocab_size=400, model_type="bpe")
    chars = SentencePieceTokenizer.from_text(TEXT, model_type="char")
    few = SentencePieceTokenizer.from_text(TEXT, character_coverage=0.98, model_type="char")

    assert 400 < large.n_vocab <= 8192
    assert small.n_vocab == pairs.n_vocab == 400
    assert few.n_vocab < chars.n_vocab < small.n_vocab
    assert [one.state()["model_type"] for one in (small, pairs, chars)] == list(TYPES)
    assert len(large.encode(TEXT)) < len(small.encode(TEXT)) < len(chars.encode(TEXT))
    assert few.decode(few.encode(TEXT)) == TEXT


def test_long_lines_are_not_left_out():
    line = "to be or not to be that is the question " * 500
    tokenizer = SentencePieceTokenizer.from_text(line, vocab_size=320, model_type="bpe")

    assert len(tokenizer.encode(line)) < len(line) / 2


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        (
            TEXT,
            {"vocab_size": 280},
            r"vocab_size is 280, and the characters .* need \d+; take",
        ),
        ("a", {"vocab_size": 0}, "vocab_size is 0, not 1 to 4194304"),
        ("a", {"vocab_size": 2**70}, "vocab_size is 1180591620717411303424, not 1 to"),
        ("a", {"model_type": "word"}, "model_type is 'word', not one of unigram, bpe, char"),
        ("a", {"character_coverage": 0}, r"character_coverage is 0\.0, not 0\.98 to 1"),
        ("a", {"character_coverage": 1.5}, r"character_coverage is 1\.5, not 0\.98 to 1"),
        ("a", {"file": "x", "vocab_size": 300}, "leave out the other options, or leave out file"),
        ("", {}, "the text is empty, so there is nothing to train on"),
        ("\n\n", {}, "the text is empty, so there is nothing to train on"),
    ],
)
def test_an_option_that_does_not_fit_says_so(text, options, message):
    with pytest.raises(ValueError, match=message):
        plugins.train_tokenizer("sentencepiece", text, options)


def test_half_of_a_surrogate_pair_is_refused():
    message = r"the text holds '\\ud800' \(U\+D800\) at 1, half of a surrogate pair"
    with pytest.raises(ValueError, match=message):
        SentencePieceTokenizer.from_text("a\ud800")
    with pytest.raises(ValueError, match=message):
        SentencePieceTokenizer.from_text("a").encode("a\ud800")


def test_there_are_no_control_symbols():
    tokenizer = SentencePieceTokenizer.from_text(TEXT, vocab_size=500)
    library = sentencepiece.SentencePieceProcessor(model_proto=tokenizer.to_model())

    assert not any(library.is_control(number) for number in range(tokenizer.n_vocab))
    assert (library.bos_id(), library.eos_id(), library.pad_id()) == (-1, -1, -1)


def test_the_state_is_the_model_and_says_what_it_is():
    tokenizer = SentencePieceTokenizer.from_text(TEXT, vocab_size=500, model_type="bpe")
    state = tokenizer.state()

    assert list(state) == [
        *("token_kind", "model_type", "vocab_size", "byte_fallback", "normalization", "model")
    ]
    assert (state["model_type"], state["vocab_size"], state["byte_fallback"]) == ("bpe", 500, True)
    assert state["normalization"] == "identity"
    assert max(map(len, state["model"])) == 96
    assert base64.b64decode("".join(state["model"])) == tokenizer.to_model()
    assert tokenizer.fingerprint() == "sha256:" + hashlib.sha256(tokenizer.to_model()).hexdigest()
    assert SentencePieceTokenizer.describe(state) == "SentencePiece bpe of 500 ids"


@pytest.mark.parametrize("model_type", TYPES)
def test_what_is_read_without_the_library_is_what_it_says(model_type):
    tokenizer = SentencePieceTokenizer.from_text(TEXT, vocab_size=500, model_type=model_type)
    facts = facts_of(tokenizer.to_model())

    assert facts.vocab_size == tokenizer.n_vocab
    assert facts.model_type == model_type
    assert facts.exact


def test_training_says_nothing(python):
    """The fixture ``python`` sees to it that nothing is on stderr."""
    out = python(
        """
from ckptstore_sentencepiece import SentencePieceTokenizer
for model_type in ("unigram", "bpe", "char"):
    made = SentencePieceTokenizer.from_text("to be or not to be\\n" * 50, model_type=model_type)
    made.encode("to be")
"""
    )

    assert out == ""


def test_nothing_heavy_is_imported_for_a_state(python):
    state = SentencePieceTokenizer.from_text("to be").state()
    out = python(
        f"""
import sys
from ckptstore import plugins
state = {state!r}
print(plugins.describe(state), plugins.fingerprint_of(state)[:7])
print(sorted({{"sentencepiece", "google", "torch"}} & set(sys.modules)))
"""
    )

    assert out.startswith("SentencePiece unigram of ")
    assert out.endswith(" ids sha256:\n[]\n")
