"""Encodings by name: OpenAI's, those that others register, and those that are not here."""

from __future__ import annotations

import base64
import hashlib
import http.server
import json
import logging
import shutil
import threading
import time
from pathlib import Path

import pytest
import tiktoken
from ckptstore_tiktoken import TiktokenTokenizer, named

from ckptstore import CorruptionError, UnsupportedError, plugins
from ckptstore.testing.tokenizers import NASTY_TEXT
from ckptstore.tokenizers.gpt2 import FINGERPRINT, Gpt2Tokenizer, fingerprint_of_ranks

SHORT = {"token_kind": "tiktoken", "encoding": "r50k_base"}

REGISTERED = r"""
    from tiktoken.load import load_tiktoken_bpe

    def mine():
        ranks = {bytes([byte]): byte for byte in range(256)}
        ranks[b"to"] = 256
        return {"name": "mine", "pat_str": r"\S+|\s+", "mergeable_ranks": ranks,
                "special_tokens": {"<end>": 260}}

    def fetched():
        return {**mine(), "mergeable_ranks": load_tiktoken_bpe("ADDRESS")}

    def broken():
        raise RuntimeError("out of order")

    def short():
        return {**mine(), "mergeable_ranks": {b"a": 0}}

    ENCODING_CONSTRUCTORS = {"mine": mine, "fetched": fetched, "broken": broken, "short": short}
"""


# -- OpenAI's -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["gpt2", "r50k_base"])
def test_ids_are_tiktokens(openai_files, name):
    ours, theirs = TiktokenTokenizer.from_encoding(name), tiktoken.get_encoding(name)

    assert ours.encode(NASTY_TEXT) == theirs.encode_ordinary(NASTY_TEXT)
    assert ours.encode("Hello, world! 漢") == [15496, 11, 995, 0, 10545, 120, 95]
    assert ours.n_vocab == theirs.n_vocab == 50257
    for number in (0, 220, 50255, 50256):
        assert ours.decode([number]) == theirs.decode([number])


def test_text_that_looks_like_a_special_token_is_ordinary_text(openai_files):
    tokenizer = TiktokenTokenizer.from_encoding("r50k_base")
    ids = tokenizer.encode("<|endoftext|>")

    assert 50256 not in ids
    assert tokenizer.decode(ids) == tokenizer.decode([50256]) == "<|endoftext|>"


def test_the_state_says_all_but_the_ranks(openai_files):
    tokenizer = TiktokenTokenizer.from_encoding("r50k_base")

    assert tokenizer.state() == {
        "token_kind": "tiktoken",
        "encoding": "r50k_base",
        "fingerprint": FINGERPRINT,
        "pattern": tiktoken.get_encoding("r50k_base")._pat_str,
        "special_tokens": {"<|endoftext|>": 50256},
    }
    assert TiktokenTokenizer.describe(tokenizer.state()) == "tiktoken's r50k_base"


def test_the_fingerprint_is_that_of_the_kind_gpt2(openai_files):
    assert TiktokenTokenizer.from_encoding("gpt2").fingerprint() == FINGERPRINT
    assert TiktokenTokenizer.fingerprint_of(SHORT) == FINGERPRINT
    assert Gpt2Tokenizer.fingerprint_of({"token_kind": "gpt2"}) == FINGERPRINT


@pytest.mark.parametrize("name", sorted(named.FINGERPRINTS))
def test_the_fingerprints_are_those_of_openais_files(name, openai_files):
    """Those whose files are not here are proved wherever they are loaded."""
    files = named._FILES[name]
    for file in files:
        assert file.cached_as == hashlib.sha1(file.url.encode()).hexdigest()
    if not all((openai_files / file.cached_as).exists() for file in files):
        with pytest.raises(UnsupportedError, match=f"the encoding '{name}' of tiktoken is not on"):
            TiktokenTokenizer.from_encoding(name)
        return
    vocabulary = named.vocabulary_of(name)
    found = fingerprint_of_ranks(vocabulary.ranks, vocabulary.special_tokens)
    assert found == named.FINGERPRINTS[name]


def test_the_files_are_those_that_tiktoken_asks_for(monkeypatch):
    """tiktoken's own functions say which addresses and digests they load."""
    from tiktoken_ext import openai_public

    asked = {}

    def load(address, expected_hash):
        asked[address] = expected_hash
        return {}

    def load_two(vocab_bpe_file, encoder_json_file, vocab_bpe_hash, encoder_json_hash):
        asked.update({vocab_bpe_file: vocab_bpe_hash, encoder_json_file: encoder_json_hash})
        return {}

    monkeypatch.setattr(openai_public, "load_tiktoken_bpe", load)
    monkeypatch.setattr(openai_public, "data_gym_to_mergeable_bpe_ranks", load_two)
    assert set(openai_public.ENCODING_CONSTRUCTORS) <= set(named._FILES)
    for name, files in named._FILES.items():
        asked.clear()
        openai_public.ENCODING_CONSTRUCTORS[name]()
        assert asked == {file.url: file.sha256 for file in files}


def test_a_short_state_is_enough_for_openais(openai_files):
    tokenizer = plugins.load_tokenizer(SHORT, fingerprint=FINGERPRINT)

    assert tokenizer.encode("Hello") == [15496]
    assert tokenizer.state() == {**SHORT, "fingerprint": FINGERPRINT}


def test_a_bare_state_needs_neither_tiktoken_nor_a_network(python):
    out = python(
        """
import sys
from ckptstore import plugins
state = {"token_kind": "tiktoken", "encoding": "o200k_base"}
print(plugins.describe(state), plugins.fingerprint_of(state)[:15])
print(sorted({"tiktoken", "regex", "requests", "torch"} & set(sys.modules)))
"""
    )

    assert out == "tiktoken's o200k_base sha256:fc75da85\n[]\n"


def test_another_pattern_in_the_state_is_used_and_said(openai_files, caplog):
    state = TiktokenTokenizer.from_encoding("r50k_base").state()
    state["pattern"] = r"\S|\s"

    with caplog.at_level(logging.WARNING, "ckptstore"):
        tokenizer = TiktokenTokenizer.from_state(state)

    assert tokenizer.encode("Hello") == [39, 68, 75, 75, 78]
    (record,) = caplog.records
    assert "splits texts for 'r50k_base' by another pattern" in record.getMessage()


def test_other_ranks_than_those_of_the_training_are_refused(openai_files):
    state = TiktokenTokenizer.from_encoding("r50k_base").state()
    for changes in ({"fingerprint": "sha256:0"}, {"special_tokens": {"<|endoftext|>": 50257}}):
        with pytest.raises(CorruptionError, match="ranks of 'r50k_base' here are not the ones of"):
            TiktokenTokenizer.from_state({**state, **changes})


# -- not here -----------------------------------------------------------------------------


def test_offline_the_error_says_which_file_goes_where(tmp_path):
    started = time.monotonic()
    with pytest.raises(UnsupportedError) as caught:
        plugins.train_tokenizer("tiktoken", "text", {"encoding": "cl100k_base"})

    assert time.monotonic() - started < 30
    for part in (
        "the encoding 'cl100k_base' of tiktoken is not on this machine",
        f"the folder {str(tmp_path / 'no files')!r} lacks cl100k_base.tiktoken, and no download",
        "/encodings/cl100k_base.tiktoken as 9b5ad71b2ce5302211f9c61530b329a4922fc6a4 into",
        "set TIKTOKEN_CACHE_DIR to that folder",
    ):
        assert part in str(caught.value)


def test_offline_a_damaged_file_is_named_and_kept(openai_folder, tmp_path, monkeypatch):
    folder = tmp_path / "damaged"
    shutil.copytree(openai_folder, folder)
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(folder))
    damaged = folder / "0ea1e91bbb3a60f729a8dc8f777fd2fc07cd8df4"
    damaged.write_bytes(b"AA== 0\n")

    with pytest.raises(
        UnsupportedError, match=r"lacks r50k_base\.tiktoken \(a damaged one is ther"
    ):
        TiktokenTokenizer.from_encoding("r50k_base")
    assert damaged.read_bytes() == b"AA== 0\n"
    assert TiktokenTokenizer.files_of(SHORT) == {}


def test_offline_an_empty_variable_is_said_to_be_empty(monkeypatch):
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", "")
    with pytest.raises(UnsupportedError, match="TIKTOKEN_CACHE_DIR is empty"):
        TiktokenTokenizer.from_encoding("r50k_base")


def test_an_unknown_name_comes_back_with_the_near_one():
    with pytest.raises(UnsupportedError, match=r"'cl100k_base', .*did you mean 'cl100k_base'\?$"):
        TiktokenTokenizer.from_encoding("cl100k")


def test_an_encoding_that_is_newer_than_tiktoken_says_so(monkeypatch):
    from tiktoken_ext import openai_public

    monkeypatch.delitem(openai_public.ENCODING_CONSTRUCTORS, "o200k_base")
    with pytest.raises(UnsupportedError, match="is older than the encoding 'o200k_base', or dam"):
        TiktokenTokenizer.from_encoding("o200k_base")


# -- those of others ------------------------------------------------------------------------


def test_a_registered_encoding_is_one_too(register):
    register("ours", REGISTERED)
    tokenizer = TiktokenTokenizer.from_encoding("mine")

    assert tokenizer.encode("to <end>") == [256, 32, 60, 101, 110, 100, 62]
    assert tokenizer.n_vocab == 261
    assert tokenizer.decode([260, 258, 256]) == "<end>\ufffdto"
    again = plugins.load_tokenizer(tokenizer.state(), fingerprint=tokenizer.fingerprint())
    assert again.encode("to be") == tokenizer.encode("to be")


def test_another_broken_module_takes_no_encoding_away(register, openai_files):
    register("a_broken", "raise RuntimeError('broken')")
    register("ours", REGISTERED)

    assert TiktokenTokenizer.from_encoding("mine").encode("to") == [256]
    assert TiktokenTokenizer.from_encoding("r50k_base").encode("Hello") == [15496]
    with pytest.raises(UnsupportedError, match="a_broken does not load .RuntimeError: broken"):
        TiktokenTokenizer.from_encoding("nobodys")


@pytest.mark.parametrize(
    ("name", "why"),
    [("broken", "RuntimeError: out of order"), ("short", "ValueError: no rank is the byte 0x00")],
)
def test_a_registered_encoding_that_cannot_be_made_says_why(register, name, why):
    register("ours", REGISTERED)
    with pytest.raises(UnsupportedError, match=f"the encoding '{name}' .* made here: {why}"):
        TiktokenTokenizer.from_encoding(name)


def test_a_registered_encoding_may_load_from_a_server(register, tmp_path):
    ranks = [base64.b64encode(bytes([byte])).decode() + f" {byte}" for byte in range(256)]
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "own.tiktoken").write_text("\n".join([*ranks, "YmU= 256", ""]))

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(tmp_path / "served"))

        def log_message(self, *args):
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            address = f"http://127.0.0.1:{server.server_port}/own.tiktoken"
            register("ours", REGISTERED.replace("ADDRESS", address))
            tokenizer = TiktokenTokenizer.from_encoding("fetched")
        finally:
            server.shutdown()
            thread.join()

    assert tokenizer.encode("be") == [256]
    assert len(list(Path("no files").iterdir())) == 1  # tiktoken keeps it in its cache


def test_the_state_of_a_registered_encoding_needs_its_fingerprint(register):
    register("ours", REGISTERED)
    state = {"token_kind": "tiktoken", "encoding": "mine"}
    for read in (TiktokenTokenizer.fingerprint_of, TiktokenTokenizer.from_state):
        with pytest.raises(
            CorruptionError, match="'fingerprint' is None, and which vocabulary 'mi"
        ):
            read(state)


# -- files beside the state -------------------------------------------------------------------


@pytest.mark.parametrize("name", ["gpt2", "r50k_base"])
def test_the_ranks_can_be_carried(openai_files, monkeypatch, name, openai_folder):
    tokenizer = TiktokenTokenizer.from_encoding(name)
    state = json.loads(json.dumps(tokenizer.state()))
    files = TiktokenTokenizer.files_of(state)

    assert list(files) == ["tokenizer.tiktoken"]
    text = (openai_folder / "0ea1e91bbb3a60f729a8dc8f777fd2fc07cd8df4").read_bytes()
    assert files["tokenizer.tiktoken"] == tokenizer.files()["tokenizer.tiktoken"] == text

    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", "nowhere")
    named.vocabulary_of.cache_clear()
    assert TiktokenTokenizer.files_of(state) == {}
    again = TiktokenTokenizer.from_files(state, files)
    assert again.encode(NASTY_TEXT) == tokenizer.encode(NASTY_TEXT)
    assert (again.state(), again.fingerprint()) == (tokenizer.state(), FINGERPRINT)
    assert again.files() == files


def test_the_ranks_of_a_registered_encoding_can_be_carried(register, python, monkeypatch):
    register("ours", REGISTERED)
    tokenizer = TiktokenTokenizer.from_encoding("mine")
    assert TiktokenTokenizer.files_of(tokenizer.state()) == {}
    Path("state.json").write_text(json.dumps(tokenizer.state()))
    Path("ranks").write_bytes(tokenizer.files()["tokenizer.tiktoken"])

    out = python(
        """
import json
from pathlib import Path
from ckptstore_tiktoken import TiktokenTokenizer
files = {"tokenizer.tiktoken": Path("ranks").read_bytes()}
state = json.loads(Path("state.json").read_text())
print(TiktokenTokenizer.from_files(state, files).encode("to"))
""",
        PYTHONPATH="",
    )

    assert out == "[256]\n"


def test_carried_ranks_that_are_not_those_of_the_training_are_refused(openai_files):
    tokenizer = TiktokenTokenizer.from_encoding("r50k_base")
    state, data = tokenizer.state(), tokenizer.files()["tokenizer.tiktoken"]

    for damage, message in (
        (data.replace(b"IHRoZQ== ", b"IHRoZSE= ", 1), "are not the ones of the training"),
        (data[: data[:-1].rindex(b"\n") + 1], "are not the ones of the training"),
        (data[:100], "no rank is the byte 0x"),
        (data + b"AA== 60000\n", "'AA== 60000', and its token was there before"),
        (b"\xff", "tokenizer.tiktoken holds no ranks of tiktoken: 'utf-8' codec"),
        (b"words\n", "rank 1 is 'words', not a token in base64"),
    ):
        with pytest.raises(CorruptionError, match=message):
            TiktokenTokenizer.from_files(state, {"tokenizer.tiktoken": damage})


def test_without_a_file_the_state_is_asked(openai_files):
    tokenizer = TiktokenTokenizer.from_encoding("r50k_base")
    own = TiktokenTokenizer.from_text("to be")

    assert TiktokenTokenizer.from_files(tokenizer.state(), {}).encode("Hello") == [15496]
    assert own.files() == TiktokenTokenizer.files_of(own.state()) == {}
    assert TiktokenTokenizer.from_files(own.state(), {}).state() == own.state()
