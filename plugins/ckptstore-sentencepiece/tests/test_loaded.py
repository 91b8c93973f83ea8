"""Models from elsewhere: their ids are the library's, and what they lose shows."""

from __future__ import annotations

import io
import random
from pathlib import Path

import pytest
import sentencepiece
from ckptstore_sentencepiece import SentencePieceTokenizer
from ckptstore_sentencepiece.proto import facts_of

import gpt.train
from ckptstore import CkptstoreError, CorruptionError, NotFoundError, StorageError, plugins

TEXT = gpt.train.SAMPLE_TEXT.read_text("utf-8")
STATE = SentencePieceTokenizer.from_text("to be or not to be").state()


def trained(**options):
    """Return a model with the library's own defaults, but for what is given."""
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXT.splitlines()),
        model_writer=written,
        minloglevel=2,
        num_threads=1,
        **{"vocab_size": 400, "hard_vocab_limit": False, **options},
    )
    return written.getvalue()


@pytest.fixture(scope="module")
def t5():
    """Give a model built as T5's is: normalized, a space in front, unknown characters."""
    return trained(vocab_size=200, pad_id=3)


@pytest.fixture(scope="module")
def llama():
    """Give a model built as Llama's is: bytes for what is unknown, a space in front."""
    return trained(
        model_type="bpe",
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
    )


def test_what_a_model_loses_is_lost_as_the_library_loses_it(t5):
    tokenizer = SentencePieceTokenizer(t5)
    library = sentencepiece.SentencePieceProcessor(model_proto=t5)

    for text in ("Nel  mezzo\n\ufb01", "a漢\u2603", "</s><pad>", " ", "\u2581"):
        assert tokenizer.encode(text) == library.encode(text)
        assert tokenizer.decode(tokenizer.encode(text)) == library.decode(library.encode(text))
    assert tokenizer.decode(tokenizer.encode("mezzo  漢")) == "mezzo  \u2047 "
    state = tokenizer.state()
    assert (state["normalization"], state["byte_fallback"]) == ("nmt_nfkc", False)
    assert not facts_of(t5).exact


def test_llamas_ids_are_the_librarys(llama):
    tokenizer = SentencePieceTokenizer(llama)
    library = sentencepiece.SentencePieceProcessor(model_proto=llama)

    text = "Nel mezzo  <s>\n\t漢\u2603 </s>"
    assert tokenizer.encode(text) == library.encode(text)
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.state()["normalization"] == "identity"
    assert not facts_of(llama).exact  # there is a space in front


def test_a_model_with_symbols_of_its_own_that_keeps_every_text():
    """As Gemma's does: several blanks, or several line breaks, are one symbol."""
    model = trained(
        byte_fallback=True,
        normalization_rule_name="identity",
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        user_defined_symbols=["\n\n", "\u2581\u2581", "<tool>"],
    )
    tokenizer = SentencePieceTokenizer(model)
    library = sentencepiece.SentencePieceProcessor(model_proto=model)
    assert facts_of(model).exact

    text = "Nel mezzo\n\ndel  cammin <tool>\n 漢"
    assert tokenizer.encode(text) == library.encode(text)
    for one in (text, "\n\n\n", "   ", "a\u2581\u2581 b\u2581"):
        assert tokenizer.decode(tokenizer.encode(one)) == one


def test_control_symbols_never_come_out_of_a_text_and_are_no_text(llama, t5):
    for model in (llama, t5):
        tokenizer = SentencePieceTokenizer(model)
        library = sentencepiece.SentencePieceProcessor(model_proto=model)
        control = {n for n in range(tokenizer.n_vocab) if library.is_control(n)}
        assert len(control) >= 2
        assert not control & set(tokenizer.encode("<s> </s> <pad> <unk>"))
        assert tokenizer.decode(sorted(control)) == ""


def test_a_file_trains_a_model_with_its_own_ids(llama):
    Path("tokenizer.model").write_bytes(llama)

    tokenizer = plugins.train_tokenizer("sentencepiece", "no matter", {"file": "tokenizer.model"})

    assert tokenizer.to_model() == llama
    again = plugins.load_tokenizer(tokenizer.state(), fingerprint=tokenizer.fingerprint())
    assert again.encode("mezzo") == tokenizer.encode("mezzo")


def test_a_file_that_is_no_model_says_so(monkeypatch):
    Path("text.txt").write_text("To be")
    Path("empty").write_bytes(b"")

    with pytest.raises(NotFoundError, match=r"^there is no file 'absent'$"):
        SentencePieceTokenizer.from_file("absent")
    with pytest.raises(StorageError, match=r"^'\.' cannot be read: Is a directory$"):
        SentencePieceTokenizer.from_file(".")
    for name in ("text.txt", "empty"):
        with pytest.raises(CorruptionError, match=f"'{name}' is no model of SentencePiece: .*"):
            SentencePieceTokenizer.from_file(name)
    monkeypatch.setattr("ckptstore_sentencepiece.kind.MOST_BYTES", 3)
    with pytest.raises(CorruptionError, match=r"'text\.txt' is larger than 3 bytes"):
        SentencePieceTokenizer.from_file("text.txt")


def test_what_is_said_beside_the_model_may_be_left_out():
    short = {name: STATE[name] for name in ("token_kind", "model")}

    tokenizer = SentencePieceTokenizer.from_state(short)

    assert tokenizer.state() == STATE
    assert tokenizer.fingerprint() == SentencePieceTokenizer.fingerprint_of(STATE)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vocab_size": 5}, r"'vocab_size' is 5, the model's is \d+"),
        ({"model_type": "bpe"}, "'model_type' is 'bpe', the model's is 'unigram'"),
        ({"byte_fallback": 1}, "'byte_fallback' is 1, the model's is True"),
        ({"normalization": "nfkc"}, "'normalization' is 'nfkc', the model's is 'identity'"),
        ({"model": None}, "'model' is None, not lines of base64"),
        ({"model": "AAAA"}, "'model' is 'AAAA', not lines of base64"),
        ({"model": [5]}, r"'model' is \[5\], not lines of base64"),
        ({"model": []}, r"'model' is \[\], not lines of base64"),
        ({"model": ["!!"]}, "'model' is no base64: "),
        ({"model": [""]}, "'model' is no SentencePiece model: it has no pieces"),
        ({"model": ["AAAA"]}, "'model' is no SentencePiece model: "),
        (
            {"model": STATE["model"][:-1]},
            "'model' is no (SentencePiece model|base64): ",
        ),
    ],
)
def test_a_malformed_state_is_damage(changes, message):
    for read in (
        SentencePieceTokenizer.from_state,
        SentencePieceTokenizer.fingerprint_of,
        SentencePieceTokenizer.describe,
    ):
        with pytest.raises(CorruptionError, match=f"the tokenizer state is damaged: {message}"):
            read({**STATE, **changes})


def test_a_model_that_the_library_does_not_take_is_damage():
    model = bytes.fromhex("0a050a0361 6263".replace(" ", ""))  # one piece, and no unknown one

    with pytest.raises(CorruptionError, match="sentencepiece makes no model of it .*unk"):
        SentencePieceTokenizer(model)


def test_whatever_is_changed_or_cut_off_is_a_model_or_damage():
    model = SentencePieceTokenizer.from_state(STATE).to_model()
    chance = random.Random(7)
    for _ in range(400):
        at = chance.randrange(len(model))
        changed = bytearray(model[: chance.choice((at, len(model)))])
        if at < len(changed):
            changed[at] ^= 1 << chance.randrange(8)
        try:
            tokenizer = SentencePieceTokenizer(bytes(changed))
            tokenizer.decode(tokenizer.encode("to be \u2581 漢\n"))
        except (CkptstoreError, ValueError) as error:
            assert "\n" not in str(error)  # noqa: PT017


@pytest.mark.parametrize("number", [-1, STATE["vocab_size"], 2**70])
def test_an_id_outside_the_vocabulary_is_refused(number):
    with pytest.raises(ValueError, match=f"id {number} is not in this vocabulary; ids run from 0"):
        SentencePieceTokenizer.from_state(STATE).decode([1, number])


def test_without_the_library_the_error_says_what_to_install(python):
    out = python(
        f"""
import sys
sys.modules["sentencepiece"] = None
from ckptstore import plugins, UnsupportedError
for call in (
    lambda: plugins.train_tokenizer("sentencepiece", "text"),
    lambda: plugins.load_tokenizer({STATE!r}),
):
    try:
        call()
    except UnsupportedError as error:
        print(error)
"""
    )

    assert out.count("install it with: pip install sentencepiece\n") == 2
