"""The ranks of gpt2 that a checkpoint carries are tiktoken's, and need nothing of this machine."""

from __future__ import annotations

import base64
import hashlib
import os
import random
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from ckptstore.errors import CorruptionError
from ckptstore.tokenizers import gpt2, gpt2_files
from ckptstore.tokenizers.gpt2 import FINGERPRINT, Gpt2Tokenizer
from tests.tokenizers.nasty import nasty_text, texts_of_the_repository

STATE = {"token_kind": "gpt2"}
NAME = "tokenizer.tiktoken"
R50K = "306cd27f03c1a714eca7108e03d66b7dc042abe8c258b44c199a7ed9838dd930"
MERGES, IDS = (file.cached_as for file in gpt2_files.FILES)


@pytest.fixture
def carried(gpt2_files: Path) -> bytes:
    """Give the file that a checkpoint carries, made of what is on the machine."""
    return Gpt2Tokenizer.files_of(STATE)[NAME]


@pytest.fixture
def tiktokens_own(gpt2_files: Path) -> Any:
    """Give tiktoken's own encoding."""
    import tiktoken

    return tiktoken.get_encoding("gpt2")


def test_what_is_carried_is_the_file_that_openai_published(carried: bytes) -> None:
    assert hashlib.sha256(carried).hexdigest() == R50K


def test_ids_are_tiktokens_own_on_any_text(carried: bytes, tiktokens_own: Any) -> None:
    ours = Gpt2Tokenizer.from_files(STATE, {NAME: carried})
    text = nasty_text(2_000_000, seed=1) + texts_of_the_repository()

    ids = ours.encode(text)

    assert len(text.encode()) > 6 * 2**20
    assert ids == tiktokens_own.encode_ordinary(text)
    assert ours.decode(ids) == text
    assert (ours.n_vocab, ours.fingerprint()) == (tiktokens_own.n_vocab, FINGERPRINT)


def test_short_texts_have_tiktokens_own_ids_too(carried: bytes, tiktokens_own: Any) -> None:
    """What ends a text, or begins it, is taken apart in another way than the same in the middle."""
    ours = Gpt2Tokenizer.from_files(STATE, {NAME: carried})
    text = nasty_text(200_000, seed=2)
    chance = random.Random(3)
    starts = [chance.randrange(len(text)) for _ in range(30_000)]

    for start in starts:
        piece = text[start : start + chance.randint(1, 12)]
        assert ours.encode(piece) == tiktokens_own.encode_ordinary(piece), ascii(piece)


def test_with_an_older_tiktoken_the_published_pattern_gives_the_same_ids(
    carried: bytes, tiktokens_own: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tiktoken_ext import openai_public

    monkeypatch.delattr(openai_public, "r50k_pat_str")
    gpt2._carried_vocabulary.cache_clear()
    try:
        ours = Gpt2Tokenizer.from_files(STATE, {NAME: carried})
        assert ours._vocabulary.encoding._pat_str == gpt2._PATTERN
        text = nasty_text(600_000, seed=4)
        assert ours.encode(text) == tiktokens_own.encode_ordinary(text)
    finally:
        gpt2._carried_vocabulary.cache_clear()


def test_half_of_a_surrogate_pair_is_refused_by_carried_ranks_too(carried: bytes) -> None:
    ours = Gpt2Tokenizer.from_files(STATE, {NAME: carried})

    for text in ("\ud800", "a\udfffb", "\ud83d\ude00"):
        with pytest.raises(ValueError, match="half of a surrogate pair"):
            ours.encode(text)


def test_what_is_carried_needs_no_file_and_no_network(carried: bytes, tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(carried)
    (tmp_path / "empty").mkdir()
    code = f"""
        import socket, sys
        def refuse(*ignored):
            raise AssertionError("a socket was made")
        socket.socket = refuse
        from pathlib import Path
        from ckptstore import plugins
        files = {{{NAME!r}: Path({str(tmp_path / NAME)!r}).read_bytes()}}
        tokenizer = plugins.load_tokenizer({STATE!r}, fingerprint={FINGERPRINT!r}, files=files)
        print(tokenizer.encode("Hello, world! 漢"), "requests" in sys.modules)
        print(tokenizer.files() == files)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**os.environ, "TIKTOKEN_CACHE_DIR": str(tmp_path / "empty")},
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert done.stdout == "[15496, 11, 995, 0, 10545, 120, 95] False\nTrue\n", done.stderr
    assert list((tmp_path / "empty").iterdir()) == []


def test_without_the_file_the_machine_is_asked(gpt2_files: Path) -> None:
    assert Gpt2Tokenizer.from_files(STATE, {"tokenizer.other": b""}).encode("Hello") == [15496]


def test_a_state_that_says_more_is_damage_with_the_ranks_too(carried: bytes) -> None:
    with pytest.raises(CorruptionError, match="so its ids are not certain"):
        Gpt2Tokenizer.from_files({**STATE, "chars": ["a"]}, {NAME: carried})
    for ask in (Gpt2Tokenizer.files_of, Gpt2Tokenizer.file_names_of):
        with pytest.raises(CorruptionError, match="so its ids are not certain"):
            ask({"token_kind": "char"})


def _swapped(carried: bytes) -> bytes:
    lines = carried.splitlines()
    the, of = (base64.b64encode(word) for word in (b" the", b" of"))
    swap = {the: of, of: the}
    parted = (line.split() for line in lines)
    return b"".join(b"%b %b\n" % (swap.get(token, token), rank) for token, rank in parted)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(_swapped, id="two words swapped"),
        pytest.param(lambda data: data[: len(data) // 2], id="half of it"),
        pytest.param(lambda data: data[data.index(b"\n") + 1 :], id="one line less"),
        pytest.param(lambda data: data + b"Zm9vYmFyYmF6 50256\n", id="one line more"),
        pytest.param(lambda data: data + data[:9], id="a line twice, cut off"),
        pytest.param(lambda data: data.replace(b" 7\n", b" seven\n"), id="a word for a rank"),
        pytest.param(lambda data: data.replace(b" 7\n", b" -7\n"), id="a rank below 0"),
        pytest.param(lambda data: data.replace(b" 7\n", b"\n"), id="no rank"),
        pytest.param(lambda data: b"!" + data[1:], id="no base64"),
        pytest.param(lambda data: b"", id="nothing"),
        pytest.param(lambda data: data + b"\n" * 2**26, id="endless lines"),
        pytest.param(lambda data: b"\x80\x05}." * 9, id="a pickle"),
        pytest.param(lambda data: b"9" * 5000 + b" " + b"9" * 5000, id="endless numbers"),
        pytest.param(lambda data: b"".join(b"%b 1\n" % base64.b64encode(b"%d" % n)
                                           for n in range(60_000)), id="too many"),
    ],
)  # fmt: skip
def test_other_ranks_are_refused(carried: bytes, change: Callable[[bytes], bytes]) -> None:
    with pytest.raises(CorruptionError, match=r"^tokenizer\.tiktoken is not the list of gpt2's"):
        Gpt2Tokenizer.from_files(STATE, {NAME: change(carried)})


def test_a_list_that_rotted_is_refused_or_says_the_same(carried: bytes) -> None:
    ranks, chance = gpt2_files.ranks_of(carried), random.Random(5)
    kept = 0
    for _ in range(60):
        data = bytearray(carried)
        for _ in range(chance.randint(1, 3)):
            at = chance.randrange(len(data))
            data[at : at + chance.randint(0, 2)] = chance.randbytes(chance.randint(0, 2))
        with suppress(CorruptionError):
            assert gpt2_files.ranks_of(bytes(data)) == ranks
            kept += 1
    assert kept < 60


def test_how_the_lines_end_and_in_what_order_they_stand_changes_no_rank(carried: bytes) -> None:
    lines = carried.splitlines()
    for data in (b"\r\n".join(lines), b"\n".join(reversed(lines))):
        assert Gpt2Tokenizer.from_files(STATE, {NAME: data}).files() == {NAME: carried}


def test_both_of_openais_files_come_back_byte_for_byte(carried: bytes, gpt2_folder: Path) -> None:
    made = Gpt2Tokenizer.files_elsewhere({NAME: carried})

    assert {*made} == {MERGES, IDS}
    for name, data in made.items():
        assert data == (gpt2_folder / name).read_bytes()


@pytest.mark.parametrize("harm", ["absent", "damaged", "longer"])
@pytest.mark.parametrize("name", [MERGES, IDS])
def test_nothing_is_on_the_machine_unless_both_files_are_there_and_right(
    gpt2_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, harm: str
) -> None:
    folder = Path(shutil.copytree(gpt2_folder, tmp_path / "cache"))
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(folder))
    assert NAME in Gpt2Tokenizer.files_of(STATE)

    data = bytearray((folder / name).read_bytes())
    data[-3] ^= 1
    changed = {"absent": None, "damaged": bytes(data), "longer": bytes(data) + b" "}[harm]
    (folder / name).unlink() if changed is None else (folder / name).write_bytes(changed)

    assert Gpt2Tokenizer.files_of(STATE) == {}
    assert changed is None or (folder / name).read_bytes() == changed


def test_where_tiktoken_keeps_no_files_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", "")

    assert Gpt2Tokenizer.files_of(STATE) == {}


def test_files_are_found_without_tiktoken(gpt2_files: Path) -> None:
    code = (
        "import sys; sys.modules['tiktoken'] = sys.modules['tiktoken_ext'] = None; "
        "from ckptstore import plugins; "
        f"print(len(plugins.files_of({STATE!r})[{NAME!r}]), 'requests' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)

    assert done.stdout == "835554 False\n", done.stderr
