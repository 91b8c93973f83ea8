"""The two files of gpt2 are fetched whole and right, or not at all."""

from __future__ import annotations

import os
import re
import socket
from pathlib import Path
from typing import Any

import pytest

from ckptstore.errors import CorruptionError, StorageError, UnsupportedError
from ckptstore.tokenizers import gpt2_files
from ckptstore.tokenizers.char import CharTokenizer
from ckptstore.tokenizers.gpt2 import Gpt2Tokenizer
from tests.tokenizers.conftest import Server

STATE = {"token_kind": "gpt2"}
NAMES = tuple(file.cached_as for file in gpt2_files.FILES)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the folder that tiktoken is told to look into; it is not there yet."""
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_both_files_are_fetched_to_where_tiktoken_looks(
    openai: Server, cache: Path, gpt2_folder: Path
) -> None:
    events: list[Any] = []

    done = Gpt2Tokenizer.fetch_files(progress=events.append)

    assert (done.folder, done.files, done.new, done.variables) == (str(cache), NAMES, NAMES, {})
    assert sorted(path.name for path in cache.iterdir()) == sorted(NAMES)
    for name in NAMES:
        assert (cache / name).read_bytes() == (gpt2_folder / name).read_bytes()
    assert "tokenizer.tiktoken" in Gpt2Tokenizer.files_of(STATE)
    assert openai.asked == ["vocab.bpe", "encoder.json"]
    assert {event.action for event in events} == {"fetch"}
    assert (events[-1].done, events[-1].total) == (1_498_619, 1_498_619)
    assert [event.done for event in events] == sorted(event.done for event in events)


def test_what_is_there_already_is_not_asked_for(openai: Server, gpt2_files: Path) -> None:
    done = Gpt2Tokenizer.fetch_files()

    assert (done.folder, done.new) == (str(gpt2_files), ())
    assert openai.asked == []


def test_another_folder_needs_the_variable_and_one_that_is_the_cache_does_not(
    openai: Server, cache: Path, tmp_path: Path
) -> None:
    other = Gpt2Tokenizer.fetch_files(str(tmp_path / "ä other"))
    same = Gpt2Tokenizer.fetch_files(f"{tmp_path}/./cache/")

    assert other.variables == {"TIKTOKEN_CACHE_DIR": str(tmp_path / "ä other")}
    assert same.variables == {}
    assert sorted(os.listdir(tmp_path)) == sorted(["cache", "ä other"])


def test_one_that_is_damaged_is_fetched_again_and_the_other_is_not(
    openai: Server, cache: Path
) -> None:
    Gpt2Tokenizer.fetch_files()
    (cache / NAMES[1]).write_bytes(b"{}")
    openai.asked.clear()

    done = Gpt2Tokenizer.fetch_files()

    assert done.new == (NAMES[1],)
    assert openai.asked == ["encoder.json"]
    assert "tokenizer.tiktoken" in Gpt2Tokenizer.files_of(STATE)


@pytest.mark.parametrize(
    "data", [b"<html>please log in</html>", b"", b"\n" * 456_318, b"\n" * 5_000_000]
)
def test_what_is_not_the_file_is_named_by_its_digest_and_not_kept(
    openai: Server, cache: Path, data: bytes
) -> None:
    openai.answers["vocab.bpe"] = (200, data, len(data))

    with pytest.raises(CorruptionError, match=r"vocab\.bpe answered with \d+ bytes whose sha256"):
        Gpt2Tokenizer.fetch_files()

    assert not cache.exists()


def test_what_was_fetched_before_a_failure_stays(openai: Server, cache: Path) -> None:
    openai.answers["encoder.json"] = (503, b"", 0)

    with pytest.raises(StorageError, match=r"^encoder\.json was not downloaded"):
        Gpt2Tokenizer.fetch_files()

    assert [path.name for path in cache.iterdir()] == [NAMES[0]]


@pytest.mark.parametrize("harm", ["cut off", "refused", "absent"])
def test_a_download_that_fails_names_address_files_and_folder(
    openai: Server, cache: Path, monkeypatch: pytest.MonkeyPatch, harm: str
) -> None:
    status, data, size = openai.answers["vocab.bpe"]
    if harm == "cut off":
        openai.answers["vocab.bpe"] = (status, data[:1000], size)
    elif harm == "absent":
        del openai.answers["vocab.bpe"]
    else:
        with socket.socket() as nobody:
            nobody.bind(("127.0.0.1", 0))
            port = nobody.getsockname()[1]
        monkeypatch.setattr(gpt2_files, "SOURCE", f"http://127.0.0.1:{port}/")

    with pytest.raises(StorageError) as failed:
        Gpt2Tokenizer.fetch_files()

    said = str(failed.value)
    assert said.startswith(f"vocab.bpe was not downloaded from {gpt2_files.SOURCE}vocab.bpe (")
    for file in gpt2_files.FILES:
        assert f"{gpt2_files.SOURCE}{file.name} as {file.cached_as}" in said
    assert repr(str(cache)) in said
    assert "ckptstore tokenizer export gpt2 FOLDER" in said
    assert not cache.exists()


def test_where_tiktoken_keeps_no_files_a_folder_has_to_be_named(
    openai: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", "")

    with pytest.raises(UnsupportedError, match="TIKTOKEN_CACHE_DIR is empty, .* name a folder"):
        Gpt2Tokenizer.fetch_files()
    done = Gpt2Tokenizer.fetch_files(str(tmp_path))

    assert done.variables == {"TIKTOKEN_CACHE_DIR": str(tmp_path)}


def test_a_bucket_is_no_folder_for_tiktoken(openai: Server) -> None:
    with pytest.raises(UnsupportedError, match=re.escape("'s3://bucket/x' is no folder on this")):
        Gpt2Tokenizer.fetch_files("s3://bucket/x")


def test_a_file_in_the_way_is_named(openai: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")

    with pytest.raises(StorageError, match=r"file"):
        Gpt2Tokenizer.fetch_files(str(tmp_path / "file"))

    assert (tmp_path / "file").read_text() == "mine"


def test_a_kind_without_files_says_so() -> None:
    with pytest.raises(UnsupportedError, match="kind 'char' has no files to fetch"):
        CharTokenizer.fetch_files()
