"""The kind ``gpt2``: the real vocabulary, without a network."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from ckptstore import plugins
from ckptstore.errors import CorruptionError
from ckptstore.tokenizers.gpt2 import FINGERPRINT, Gpt2Tokenizer, fingerprint_of_ranks

NO_NETWORK = {"HTTPS_PROXY": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"}


def run(code: str, **environ: str) -> str:
    """Run code in a process of its own, where no vocabulary is in memory yet; return its output.

    Nothing is downloaded there: its proxy refuses every connection.
    """
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**os.environ, **NO_NETWORK, "NO_PROXY": "", "no_proxy": "", **environ},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


FAILS = """
    from ckptstore.errors import UnsupportedError
    from ckptstore.tokenizers.gpt2 import Gpt2Tokenizer
    try:
        Gpt2Tokenizer.from_state({"token_kind": "gpt2"})
    except UnsupportedError as error:
        print(error)
"""


@pytest.fixture
def gpt2(gpt2_files: Path) -> Gpt2Tokenizer:
    return Gpt2Tokenizer.from_state({"token_kind": "gpt2"})


def test_ids_are_those_of_gpt2(gpt2: Gpt2Tokenizer) -> None:
    assert gpt2.n_vocab == 50257
    assert gpt2.encode("Hello, world! 漢") == [15496, 11, 995, 0, 10545, 120, 95]
    assert gpt2.decode([15496, 11, 995, 0]) == "Hello, world!"


def test_text_that_looks_like_a_special_token_is_ordinary_text(gpt2: Gpt2Tokenizer) -> None:
    ids = gpt2.encode("<|endoftext|>")
    assert 50256 not in ids
    assert gpt2.decode(ids) == "<|endoftext|>"
    assert gpt2.decode([50256]) == "<|endoftext|>"


def test_half_a_surrogate_pair_is_refused_and_not_replaced(gpt2: Gpt2Tokenizer) -> None:
    with pytest.raises(ValueError, match=r"the text holds U\+DCFF at position 4, half of a"):
        gpt2.encode("caf\u00e9\udcff")


def test_half_a_character_decodes_to_the_replacement_character(gpt2: Gpt2Tokenizer) -> None:
    assert gpt2.decode(gpt2.encode("漢")[:-1]) == "\ufffd"


@pytest.mark.parametrize("number", [-1, 50257, 50303, 2**70])
def test_an_id_outside_the_vocabulary_is_refused(gpt2: Gpt2Tokenizer, number: int) -> None:
    with pytest.raises(ValueError, match=f"id {number} is not in .* run from 0 to 50256"):
        gpt2.decode([1, number])


def test_the_fingerprint_of_the_two_words_is_that_of_the_real_ranks(gpt2: Gpt2Tokenizer) -> None:
    assert gpt2.fingerprint() == FINGERPRINT == Gpt2Tokenizer.fingerprint_of(gpt2.state())


def test_the_fingerprint_is_that_of_openais_own_list(gpt2_files: Path) -> None:
    """The ranks' lines are the file r50k_base.tiktoken, whose SHA-256 tiktoken pins."""
    from tiktoken_ext import openai_public

    parts = openai_public.gpt2()
    ranks = fingerprint_of_ranks(parts["mergeable_ranks"], {})
    assert ranks == "sha256:306cd27f03c1a714eca7108e03d66b7dc042abe8c258b44c199a7ed9838dd930"
    assert fingerprint_of_ranks(parts["mergeable_ranks"], parts["special_tokens"]) == FINGERPRINT


def test_the_ranks_are_to_be_had(gpt2: Gpt2Tokenizer) -> None:
    ranks = gpt2.ranks()

    assert fingerprint_of_ranks(ranks, {"<|endoftext|>": 50256}) == FINGERPRINT
    ranks.clear()
    assert gpt2.ranks()[b"Hello"] == 15496


def test_ranks_and_special_tokens_both_count() -> None:
    ranks = {b"a": 0, b"b": 1}
    first = fingerprint_of_ranks(ranks, {"<end>": 2})
    assert first == fingerprint_of_ranks(dict(reversed(ranks.items())), {"<end>": 2})
    assert first != fingerprint_of_ranks({b"a": 1, b"b": 0}, {"<end>": 2})
    assert first != fingerprint_of_ranks(ranks, {"<end>": 3})
    assert first != fingerprint_of_ranks({**ranks, b"<end>": 2}, {})


def test_null_fields_of_old_files_say_nothing(gpt2_files: Path) -> None:
    old = {"token_kind": "gpt2", "chars": None}
    assert Gpt2Tokenizer.from_state(old).state() == {"token_kind": "gpt2"}
    assert Gpt2Tokenizer.fingerprint_of(old) == FINGERPRINT


@pytest.mark.parametrize("more", [{"chars": ["a"]}, {"ranks": "x" * 10**6}, {"token_kind": "char"}])
def test_a_state_that_says_more_is_damage(more: dict[str, object]) -> None:
    for read in (Gpt2Tokenizer.from_state, Gpt2Tokenizer.fingerprint_of, Gpt2Tokenizer.describe):
        with pytest.raises(CorruptionError, match=r"^the tokenizer state is .{1,200}, not"):
            read({"token_kind": "gpt2", **more})


def test_the_description_is_the_one_of_the_format_document() -> None:
    assert Gpt2Tokenizer.describe({"token_kind": "gpt2"}) == "GPT-2 BPE (fixed ~50k tokens)"


def test_a_bare_state_needs_neither_tiktoken_nor_a_network(tmp_path: Path) -> None:
    out = run(
        """
        import sys
        from ckptstore import plugins
        state = {"token_kind": "gpt2"}
        print(plugins.fingerprint_of(state), plugins.describe(state), sep="|")
        print(sorted({"tiktoken", "torch", "requests", "fsspec"} & set(sys.modules)))
        """,
        TIKTOKEN_CACHE_DIR=str(tmp_path),
    )
    assert out == f"{FINGERPRINT}|GPT-2 BPE (fixed ~50k tokens)\n[]\n"


def test_offline_the_error_says_which_files_go_where(tmp_path: Path) -> None:
    started = time.monotonic()
    message = run(FAILS, TIKTOKEN_CACHE_DIR=str(tmp_path))
    assert time.monotonic() - started < 30
    for part in (
        repr(str(tmp_path)),
        "lacks vocab.bpe and encoder.json",
        "vocab.bpe as 6d1cbeee0f20b3d9449abfede4726ed8212e3aee",
        "encoder.json as 6c7ea1a7e38e3a7f062df639a5b80947f075ffe6",
        "set TIKTOKEN_CACHE_DIR to that folder",
        "get them with ckptstore tokenizer fetch",
    ):
        assert part in message


def test_offline_without_the_variable_the_error_names_the_default_folder(tmp_path: Path) -> None:
    environ = {"TMPDIR": str(tmp_path), "TEMP": str(tmp_path), "TMP": str(tmp_path)}
    code = "import os; os.environ.pop('TIKTOKEN_CACHE_DIR', None)\n" + textwrap.dedent(FAILS)
    assert repr(str(tmp_path / "data-gym-cache")) in run(code, **environ)


def test_offline_an_empty_variable_is_said_to_be_empty() -> None:
    assert "TIKTOKEN_CACHE_DIR is empty" in run(FAILS, TIKTOKEN_CACHE_DIR="")


def test_offline_a_damaged_file_is_named_and_kept(gpt2_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    shutil.copytree(gpt2_folder, folder)
    damaged = folder / "6c7ea1a7e38e3a7f062df639a5b80947f075ffe6"
    damaged.write_bytes(b"{}")
    assert "lacks encoder.json (a damaged one is there)" in run(
        FAILS, TIKTOKEN_CACHE_DIR=str(folder)
    )
    assert damaged.read_bytes() == b"{}"


def test_another_broken_encoding_does_not_take_gpt2_away(gpt2_files: Path, tmp_path: Path) -> None:
    (tmp_path / "tiktoken_ext").mkdir()
    (tmp_path / "tiktoken_ext" / "broken.py").write_text("raise RuntimeError('broken')")
    out = run(
        """
        import tiktoken
        try:
            tiktoken.get_encoding("gpt2")
        except RuntimeError as error:
            print(error)
        from ckptstore.tokenizers.gpt2 import Gpt2Tokenizer
        print(Gpt2Tokenizer.from_text("").encode("Hello"))
        """,
        PYTHONPATH=str(tmp_path),
    )
    assert out == "broken\n[15496]\n"


def test_a_gpt2_with_other_ranks_is_refused(gpt2_files: Path) -> None:
    """The ids of the model's training are the recorded vocabulary's, and no other's."""
    out = run(
        f"""
        from tiktoken_ext import openai_public
        parts = openai_public.gpt2()
        ranks = parts["mergeable_ranks"]
        ranks[b" the"], ranks[b" of"] = ranks[b" of"], ranks[b" the"]
        openai_public.gpt2 = lambda: parts
        from ckptstore import plugins
        from ckptstore.errors import CorruptionError
        state = {{"token_kind": "gpt2"}}
        assert plugins.load_tokenizer(state).fingerprint() != {FINGERPRINT!r}
        try:
            plugins.load_tokenizer(state, fingerprint={FINGERPRINT!r})
        except CorruptionError as error:
            print(error)
        """
    )
    assert "the 'gpt2' vocabulary here is another one than the model was trained on" in out
    assert FINGERPRINT in out


def test_the_real_gpt2_is_accepted(gpt2_files: Path) -> None:
    tokenizer = plugins.load_tokenizer({"token_kind": "gpt2"}, fingerprint=FINGERPRINT)
    assert tokenizer.kind == "gpt2"


def test_the_two_files_are_the_ones_that_are_asked_for(gpt2_folder: Path) -> None:
    """tiktoken names a cached file by the SHA-1 of its address."""
    source = "https://openaipublic.blob.core.windows.net/gpt-2/encodings/main/"
    names = {
        hashlib.sha1((source + name).encode()).hexdigest() for name in ("vocab.bpe", "encoder.json")
    }
    assert names == {path.name for path in gpt2_folder.iterdir()}
