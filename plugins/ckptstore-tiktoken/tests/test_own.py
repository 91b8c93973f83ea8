"""Ranks of one's own: trained on a text, or from a file; options, determinism, and damage."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
import regex
from ckptstore_tiktoken import TiktokenTokenizer
from ckptstore_tiktoken.training import GPT2_PATTERN, ranks_of

import gpt.train
from ckptstore import CorruptionError, NotFoundError, StorageError, plugins
from ckptstore.testing.tokenizers import NASTY_TEXT

TEXT = gpt.train.SAMPLE_TEXT.read_text("utf-8")
STATE = TiktokenTokenizer.from_text("to be or not to be, to be or not", vocab_size=260).state()


def slowly(text, vocab_size):
    """Return the ranks as the rules of the trainer say, counting everything again each time."""
    whole = [word.encode() for word in regex.findall(GPT2_PATTERN, text)]
    parts = [word[at : at + 256] for word in whole for at in range(0, len(word), 256)]
    words = [[bytes([b]) for b in part] for part in parts]
    ranks = {bytes([byte]): byte for byte in range(256)}
    while len(ranks) < vocab_size:
        made = Counter(a + b for word in words for a, b in pairwise(word))
        token, total = min(made.items(), key=lambda item: (-item[1], item[0]), default=(b"", 0))
        if total < 2:
            break
        ranks.setdefault(token, len(ranks))
        for word in words:
            i = 0
            while i + 1 < len(word):
                if word[i] + word[i + 1] == token:
                    word[i : i + 2] = [token]
                i += 1
    return ranks


@pytest.mark.parametrize(
    "text",
    [
        TEXT[:3000],
        "aaaa aaa aa a" * 9,
        "abcab bcabc" * 9,
        NASTY_TEXT * 3,
        "ACGTTCAAGGACTACGATTTCGGA" * 70,
        "aabaaabaaaab" * 60,
    ],
)
def test_the_trainer_follows_its_rules(text):
    found = ranks_of(text, pattern=GPT2_PATTERN, vocab_size=500, min_frequency=2)

    assert found == slowly(text, 500)


def test_the_ranks_stand_in_the_state_line_by_line():
    assert list(STATE) == ["token_kind", "pattern", "special_tokens", "ranks"]
    assert STATE["ranks"][0] == "AA== 0"
    assert [line.split()[1] for line in STATE["ranks"]] == [str(rank) for rank in range(260)]
    tokenizer = TiktokenTokenizer.from_text(TEXT, vocab_size=600)
    assert len(tokenizer.encode(TEXT)) < len(TEXT.encode()) / 2


def test_the_same_text_gives_the_same_ids_in_every_process(python):
    code = """
import gpt.train
from ckptstore_tiktoken import TiktokenTokenizer
text = gpt.train.SAMPLE_TEXT.read_text("utf-8")
print(TiktokenTokenizer.from_text(text, vocab_size=900).fingerprint())
"""
    assert len({python(code, PYTHONHASHSEED=str(seed)) for seed in range(4)}) == 1


def test_options_hold():
    large = TiktokenTokenizer.from_text(TEXT)
    small = TiktokenTokenizer.from_text(TEXT, vocab_size=300)
    rare = TiktokenTokenizer.from_text(TEXT, min_frequency=50)
    lines = TiktokenTokenizer.from_text(TEXT, pattern=r"[^\n]+|\n")

    assert 600 < large.n_vocab <= 8192
    assert small.n_vocab == 300
    assert rare.n_vocab < large.n_vocab
    assert any(" " in lines.decode([n])[1:-1] for n in range(256, lines.n_vocab))
    assert lines.state()["pattern"] == r"[^\n]+|\n"
    assert lines.decode(lines.encode(NASTY_TEXT)) == NASTY_TEXT


@pytest.mark.parametrize("text", ["", "a", "\n", "ab" * 1000, "漢"])
def test_any_text_trains_and_every_text_is_covered(text):
    tokenizer = TiktokenTokenizer.from_text(text, vocab_size=256)

    assert tokenizer.n_vocab == 256
    assert tokenizer.decode(tokenizer.encode(NASTY_TEXT)) == NASTY_TEXT
    assert tokenizer.decode(tokenizer.encode("漢")[:-1]) == "\ufffd"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"vocab_size": 255}, "vocab_size is 255, not 256 to 4194304; each of the 256 bytes"),
        ({"min_frequency": 0}, "min_frequency is 0, not 1 or more"),
        ({"pattern": "("}, r"the pattern '\(' is none: missing \)"),
        ({"pattern": r"\w+"}, r"leaves out ' be' at character 2 of the text; let it match every"),
        ({"pattern": "x*"}, "leaves out 'to be' at character 0"),
        ({"encoding": "gpt2", "vocab_size": 300}, "encoding takes a vocabulary as it is; leave"),
        ({"encoding": "gpt2", "file": "x"}, "encoding takes a vocabulary as it is; leave"),
        ({"file": "x", "vocab_size": 300}, "file takes ranks as they are; leave out vocab_size"),
    ],
)
def test_an_option_out_of_range_says_so(options, message):
    with pytest.raises(ValueError, match=message):
        plugins.train_tokenizer("tiktoken", "to be", options)


def test_half_of_a_surrogate_pair_is_refused():
    message = r"the text holds '\\ud800' \(U\+D800\) at 1, half of a surrogate pair"
    with pytest.raises(ValueError, match=message):
        TiktokenTokenizer.from_text("a\ud800")
    with pytest.raises(ValueError, match=message):
        TiktokenTokenizer.from_text("a").encode("a\ud800")


def test_what_a_pattern_leaves_out_is_an_error_that_shows_it():
    tokenizer = TiktokenTokenizer.from_state({**STATE, "pattern": "[a-z]+"})

    assert tokenizer.decode(tokenizer.encode("tobe")) == "tobe"
    with pytest.raises(ValueError, match=r"leaves out 'ß' \(U\+00DF\), and perhaps more"):
        tokenizer.encode("toßbe")


def test_the_pattern_of_ones_own_ranks_counts_in_the_fingerprint():
    other = {**STATE, "pattern": r"\S+|\s+"}

    assert TiktokenTokenizer.fingerprint_of(other) != TiktokenTokenizer.fingerprint_of(STATE)
    assert TiktokenTokenizer.describe(STATE) == "byte-level BPE of 260 ids"


def test_a_file_of_ranks_trains_a_model():
    Path("own.tiktoken").write_text("\n".join([*STATE["ranks"], ""]))

    tokenizer = plugins.train_tokenizer("tiktoken", "no matter", {"file": "own.tiktoken"})

    assert tokenizer.state() == STATE
    special = TiktokenTokenizer.from_file("own.tiktoken", special_tokens={"<end>": 260})
    assert special.decode([260]) == "<end>"
    assert special.fingerprint() != tokenizer.fingerprint()


def test_a_file_that_holds_no_ranks_says_so(monkeypatch):
    Path("text.txt").write_text("To be\n")
    Path("few.tiktoken").write_text("AA== 0\n")

    with pytest.raises(NotFoundError, match=r"^there is no file 'absent'$"):
        TiktokenTokenizer.from_file("absent")
    with pytest.raises(StorageError, match=r"^'\.' cannot be read: Is a directory$"):
        TiktokenTokenizer.from_file(".")
    with pytest.raises(CorruptionError, match=r"'text\.txt' holds no ranks .* rank 1 is 'To be'"):
        TiktokenTokenizer.from_file("text.txt")
    with pytest.raises(CorruptionError, match="no rank is the byte 0x01"):
        TiktokenTokenizer.from_file("few.tiktoken")
    monkeypatch.setattr("ckptstore_tiktoken.ranks._MOST_BYTES", 3)
    with pytest.raises(CorruptionError, match=r"'text\.txt' is larger than 3 bytes"):
        TiktokenTokenizer.from_file("text.txt")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoding": "gpt2"}, "either an 'encoding' or 'ranks'"),
        ({"ranks": "AA== 0"}, "'ranks' is 'AA== 0', not a list of lines"),
        ({"ranks": STATE["ranks"][1:]}, "no rank is the byte 0x00"),
        ({"ranks": [*STATE["ranks"], 5]}, "rank 261 is 5, not a token in base64"),
        ({"ranks": [*STATE["ranks"], "!! 260"]}, "rank 261 is '!! 260', not a token"),
        ({"ranks": [*STATE["ranks"], "YWJj -1"]}, "rank 261 is 'YWJj -1', not a token"),
        ({"ranks": [*STATE["ranks"], "YWJj ٣"]}, "not a token in base64"),
        ({"ranks": [*STATE["ranks"], "YWJj 259"]}, "two tokens have one id"),
        ({"ranks": [*STATE["ranks"], "YWJj 1000000000"]}, "its 261 ids run up to 1000000000"),
        ({"special_tokens": {"<end>": 5}}, "two tokens have one id"),
        ({"special_tokens": {"<end>": "5"}}, "'special_tokens' is .*, not names and their ids"),
        ({"special_tokens": {"\ud800": 260}}, "half of a surrogate pair"),
        ({"special_tokens": None}, "'special_tokens' is None"),
        ({"pattern": ""}, "'pattern' is '', not a regular expression"),
        ({"pattern": "\ud800"}, "'pattern' holds half of a surrogate pair"),
        ({"pattern": "x" * 70000}, "its pattern is 'x{5,20}.*, not a pattern"),
    ],
)
def test_a_malformed_state_is_damage(changes, message):
    state = {**STATE, **changes}
    for read in (
        TiktokenTokenizer.from_state,
        TiktokenTokenizer.fingerprint_of,
        TiktokenTokenizer.describe,
    ):
        with pytest.raises(CorruptionError, match=f"the tokenizer state is damaged: .*{message}"):
            read(state)


@pytest.mark.parametrize("pattern", ["(", "*", "[", r"\p{nonsense}"])
def test_a_pattern_that_tiktoken_does_not_take_is_damage(pattern):
    with pytest.raises(CorruptionError, match="damaged: tiktoken makes no encoding of it"):
        TiktokenTokenizer.from_state({**STATE, "pattern": pattern})


def test_of_two_names_of_a_special_token_the_first_is_its_text():
    """OpenAI's o200k_harmony has such a pair."""
    special = {"<|endofprompt|>": 260, "<|reserved|>": 260}
    tokenizer = TiktokenTokenizer.from_state({**STATE, "special_tokens": special})

    assert tokenizer.decode([260]) == "<|endofprompt|>"
    assert tokenizer.n_vocab == 261


@pytest.mark.parametrize("number", [-1, 260, 2**70])
def test_an_id_outside_the_vocabulary_is_refused(number):
    with pytest.raises(ValueError, match=f"id {number} is not in .* run from 0 to 259"):
        TiktokenTokenizer.from_state(STATE).decode([1, number])


def test_without_the_library_the_error_says_what_to_install(python):
    out = python(
        """
import sys
sys.modules["tiktoken"] = None
from ckptstore import plugins, UnsupportedError
for state in ({"encoding": "gpt2"}, plugins.tokenizer_kind("tiktoken") and {"encoding": "mine",
        "fingerprint": "sha256:0"}):
    try:
        plugins.load_tokenizer({"token_kind": "tiktoken", **state})
    except UnsupportedError as error:
        print(error)
"""
    )

    assert out.count("install it with: pip install tiktoken\n") == 2
