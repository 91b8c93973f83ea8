"""A tokenizer that is trained on a text: options, determinism, coverage, and no noise."""

from __future__ import annotations

import json

import pytest
from ckptstore_hf_tokenizers import HfTokenizer
from ckptstore_hf_tokenizers.training import pieces

import gpt.train
from ckptstore import plugins
from ckptstore.testing.tokenizers import NASTY_TEXT

TEXT = gpt.train.SAMPLE_TEXT.read_text("utf-8")
FINGERPRINT = """
import gpt.train
from ckptstore_hf_tokenizers import HfTokenizer
text = gpt.train.SAMPLE_TEXT.read_text("utf-8") * 4
print(HfTokenizer.from_text(text, vocab_size=1500, min_frequency=0).fingerprint())
"""


def test_the_same_text_gives_the_same_ids_in_every_process(python):
    found = {python(FINGERPRINT, PYTHONHASHSEED=str(seed)) for seed in range(3)}
    found.add(python(FINGERPRINT, TOKENIZERS_PARALLELISM="true"))
    found.add(python(FINGERPRINT, TOKENIZERS_PARALLELISM="true", RAYON_NUM_THREADS="7"))

    assert len(found) == 1


def test_the_librarys_other_trainers_do_not_keep_that_promise(python):
    """Why there is no option to choose them; where this fails, there could be one."""
    code = """
import hashlib
import gpt.train
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
made = Tokenizer(models.{model})
made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
trainer = trainers.{trainer}(vocab_size=1500, show_progress=False, special_tokens=["[UNK]"])
made.train_from_iterator([gpt.train.SAMPLE_TEXT.read_text("utf-8")], trainer)
print(hashlib.sha256(made.to_str().encode()).hexdigest())
"""
    for model, trainer in (
        ("WordPiece(unk_token='[UNK]')", "WordPieceTrainer"),
        ("Unigram()", "UnigramTrainer"),
    ):
        script = code.format(model=model, trainer=trainer)
        assert len({python(script) for _ in range(6)}) > 1


def test_options_hold():
    large = HfTokenizer.from_text(TEXT)
    small = HfTokenizer.from_text(TEXT, vocab_size=300)
    rare = HfTokenizer.from_text(TEXT, min_frequency=50)

    assert 600 < large.n_vocab <= 8192
    assert small.n_vocab == 300
    assert rare.n_vocab < large.n_vocab
    assert len(large.encode(TEXT)) < len(small.encode(TEXT)) < len(TEXT.encode())


@pytest.mark.parametrize("text", ["", "a", "\n", "ab" * 1000, "漢"])
def test_any_text_trains_and_every_text_is_covered(text):
    tokenizer = HfTokenizer.from_text(text, vocab_size=256)

    assert tokenizer.n_vocab == 256
    assert tokenizer.decode(tokenizer.encode(NASTY_TEXT)) == NASTY_TEXT
    assert tokenizer.decode(tokenizer.encode("漢")[:-1]) == "\ufffd"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"vocab_size": 255}, "vocab_size is 255, not 256 to 16777216; each of the 256 bytes"),
        ({"vocab_size": 2**70}, "vocab_size is 1180591620717411303424, not 256 to"),
        ({"min_frequency": -1}, "min_frequency is -1, not 0 or more"),
        ({"file": "x", "vocab_size": 300}, "leave out vocab_size and min_frequency, or leave out"),
    ],
)
def test_an_option_out_of_range_says_so(options, message):
    with pytest.raises(ValueError, match=message):
        plugins.train_tokenizer("hf-tokenizers", "text", options)


def test_half_of_a_surrogate_pair_is_refused():
    message = r"the text holds '\\ud800' \(U\+D800\) at 1, half of a surrogate pair"
    with pytest.raises(ValueError, match=message):
        HfTokenizer.from_text("a\ud800")
    with pytest.raises(ValueError, match=message):
        HfTokenizer.from_text("a").encode("a\ud800")


def test_a_long_text_is_cut_and_gives_the_same_ids():
    text = (TEXT + NASTY_TEXT + "\n\n \n a\nb\n'll\n\n") * 50
    assert len(list(pieces(text))) > 2
    assert "".join(pieces(text)) == text
    tokenizer = HfTokenizer.from_text(text, vocab_size=2000)
    library = tokenizer.to_tokenizer()

    assert tokenizer.encode(text) == library.encode(text).ids
    library.train_from_iterator([text], _trainer())
    assert json.loads(library.to_str()) == tokenizer.state()["tokenizer"]


def _trainer():
    from tokenizers import pre_tokenizers, trainers

    return trainers.BpeTrainer(
        vocab_size=2000,
        min_frequency=2,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )


def test_the_state_is_the_hubs_file():
    tokenizer = HfTokenizer.from_text(TEXT, vocab_size=300)
    state = tokenizer.state()

    assert list(state) == ["token_kind", "tokenizer"]
    assert state["tokenizer"] == json.loads(tokenizer.to_tokenizer().to_str())
    assert HfTokenizer.describe(state) == "byte-level BPE of 300 ids"


def test_a_fork_after_training_and_encoding_warns_of_nothing(python):
    out = python(
        """
import os
from ckptstore_hf_tokenizers import HfTokenizer
tokenizer = HfTokenizer.from_text("to be or not to be " * 2000)
ids = tokenizer.encode("to be")
child = os.fork()
if child == 0:
    os._exit(tokenizer.encode("to be") != ids)
print(os.waitpid(child, 0)[1], "TOKENIZERS_PARALLELISM" in os.environ)
"""
    )

    assert out == "0 False\n"


def test_nothing_heavy_is_imported_for_a_state(python):
    out = python(
        """
import sys
from ckptstore import plugins
state = {"token_kind": "hf-tokenizers", "tokenizer": {"model": {"type": "BPE", "vocab": {"a": 0}}}}
print(plugins.describe(state), plugins.fingerprint_of(state)[:7])
print(sorted({"tokenizers", "transformers", "torch"} & set(sys.modules)))
"""
    )

    assert out == "BPE of 1 id sha256:\n[]\n"
