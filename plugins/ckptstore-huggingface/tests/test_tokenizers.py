"""GPT-2's vocabulary is known by its ranks, wherever they are; any other goes along whole."""

from __future__ import annotations

import hashlib
import json
import os
import shutil

import pytest
import tokenizers
import torch
from ckptstore_huggingface import tokenizers as ours
from nanogpt_model import Args, NanoGPT
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, GPT2Tokenizer

import ckptstore
from ckptstore import plugins
from ckptstore.formats.base import Contents
from ckptstore.testing import MemoryNewFiles

GPT2 = {"token_kind": "gpt2"}
TEXT = "Hello, world!  漢字 <|endoftext|> naïve\n\tdon't"


@pytest.fixture
def folder(tmp_path):
    """Give a model folder without a tokenizer."""
    run = tmp_path / "run"
    run.mkdir()
    save_file({"w": torch.ones(1)}, run / "model.safetensors")
    (run / "config.json").write_text('{"model_type": "gpt2"}')
    return run


def byte_level(openais) -> Tokenizer:
    """Return GPT-2's tokenizer as the tokenizers library makes it of OpenAI's files."""
    made = Tokenizer(
        models.BPE.from_file(str(openais / "encoder.json"), str(openais / "vocab.bpe"))
    )
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    return made


@pytest.fixture(scope="module")
def as_json(openais) -> str:
    return byte_level(openais).to_str()


def state_of(folder):
    return ckptstore.open(folder).tokenizer_state


def test_the_digest_of_the_merges_is_that_of_openais_file(openais):
    lines = (openais / "vocab.bpe").read_text("utf-8").split("\n")
    text = "\n".join(line for line in lines[1:] if line)

    assert hashlib.sha256(text.encode()).hexdigest() == ours._MERGES_SHA256


def test_openais_two_files_are_gpt2(folder, openais):
    shutil.copy(openais / "encoder.json", folder / "vocab.json")
    shutil.copy(openais / "vocab.bpe", folder / "merges.txt")

    assert state_of(folder) == GPT2


def test_gpt2s_tokenizer_json_is_gpt2(folder, openais):
    byte_level(openais).save(str(folder / "tokenizer.json"))
    assert state_of(folder) == GPT2

    made = byte_level(openais)
    made.add_special_tokens(["<|endoftext|>"])
    made.save(str(folder / "tokenizer.json"), pretty=False)
    assert state_of(folder) == GPT2


def test_what_transformers_saves_of_gpt2_is_gpt2(folder, openais):
    GPT2Tokenizer(
        vocab=str(openais / "encoder.json"), merges=str(openais / "vocab.bpe")
    ).save_pretrained(folder)

    assert state_of(folder) == GPT2


@pytest.mark.parametrize(
    "change",
    [
        lambda said: said["model"]["vocab"].update({"Hello": 15497, "Ġ!": 15496}),
        lambda said: said["model"]["vocab"].update({"new": 50257}),
        lambda said: said["model"]["vocab"].pop("Hello"),
        lambda said: said["model"]["merges"].reverse(),
        lambda said: said["model"].update(dropout=0.1),
        lambda said: said["model"].update(byte_fallback=True),
        lambda said: said["model"]["vocab"].update({"Hello": "x"}),
        lambda said: said["model"]["vocab"].update({"漢": 50257}),
        lambda said: said.update(normalizer={"type": "Lowercase"}),
        lambda said: said["pre_tokenizer"].update(add_prefix_space=True),
        lambda said: said["pre_tokenizer"].update(type="Whitespace"),
        lambda said: said["added_tokens"].append({"id": 50257, "content": "[PAD]"}),
        lambda said: said.update(pre_tokenizer=None),
    ],
)
def test_any_other_tokenizer_is_not_taken_for_gpt2(folder, as_json, change):
    said = json.loads(as_json)
    change(said)
    (folder / "tokenizer.json").write_text(json.dumps(said))

    assert state_of(folder) == {"token_kind": "hf-tokenizers", "tokenizer": said}


@pytest.mark.parametrize("name", ["vocab.json", "merges.txt", "added_tokens.json"])
def test_two_files_that_are_not_openais_are_nothing_that_is_known(folder, openais, name):
    shutil.copy(openais / "encoder.json", folder / "vocab.json")
    shutil.copy(openais / "vocab.bpe", folder / "merges.txt")
    text = {"vocab.json": '{"a": 0}', "merges.txt": "#version: 0.2\na b\n"}
    (folder / name).write_text(text.get(name, "{}"))

    assert state_of(folder) is None


def trained() -> Tokenizer:
    made = Tokenizer(models.BPE(unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.BpeTrainer(vocab_size=60, special_tokens=["[UNK]"], show_progress=False)
    made.train_from_iterator(["the cat sat on the mat, the dog lay"], trainer)
    return made


def test_another_tokenizer_goes_along_whole(folder, tmp_path):
    trained().save(str(folder / "tokenizer.json"))

    state = state_of(folder)

    assert state["token_kind"] == "hf-tokenizers"
    again = Tokenizer.from_str(json.dumps(state["tokenizer"]))
    assert again.encode("the cat").ids == trained().encode("the cat").ids
    ckptstore.convert(folder, tmp_path / "bundle")
    assert state_of(tmp_path / "bundle") == state


def test_a_tokenizer_too_large_for_a_state_stays_in_its_file(folder, monkeypatch):
    monkeypatch.setattr(ours, "_MOST_TOKENIZER", 100)
    trained().save(str(folder / "tokenizer.json"))

    checkpoint = ckptstore.open(folder)

    assert checkpoint.tokenizer_state is None
    assert "tokenizer.json" in checkpoint.files()


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("tokenizer.json", b"{", "tokenizer.json in .* is not valid JSON"),
        ("merges.txt", b"\xff\xfe", "merges.txt in .* is not UTF-8"),
        ("vocab.json", b"[]", "holds a JSON list, not an object"),
    ],
)
def test_a_tokenizers_file_that_is_damaged_is_said(folder, openais, name, data, message):
    shutil.copy(openais / "encoder.json", folder / "vocab.json")
    shutil.copy(openais / "vocab.bpe", folder / "merges.txt")
    (folder / name).write_bytes(data)

    with pytest.raises(ckptstore.CorruptionError, match=message):
        ckptstore.open(folder)


def test_merges_that_are_larger_than_any_are_not_read(folder, openais, monkeypatch):
    monkeypatch.setattr(ours, "_MOST_MERGES", 10)
    shutil.copy(openais / "encoder.json", folder / "vocab.json")
    shutil.copy(openais / "vocab.bpe", folder / "merges.txt")

    with pytest.raises(ckptstore.CorruptionError, match="merges.txt in .* is larger than"):
        ckptstore.open(folder)


ARGS = Args(vocab_size=50304, n_embd=6)


def save(folder, tokenizer) -> ckptstore.Checkpoint:
    return ckptstore.save(
        folder,
        model=NanoGPT(ARGS),
        config=ARGS._asdict(),
        tokenizer=tokenizer,
        format="huggingface",
    )


def test_gpt2s_files_are_written_as_openai_has_them(tmp_path, openais, gpt2_files):
    checkpoint = save(tmp_path / "out", GPT2)

    vocabulary = json.loads((tmp_path / "out/vocab.json").read_text("utf-8"))
    assert vocabulary == json.loads((openais / "encoder.json").read_text("utf-8"))
    assert (tmp_path / "out/merges.txt").read_bytes() == (openais / "vocab.bpe").read_bytes()
    assert checkpoint.tokenizer_state == GPT2
    assert checkpoint.load_tokenizer().encode("Hello") == [15496]


def test_transformers_and_ckptstore_encode_alike(tmp_path, gpt2_files):
    checkpoint = save(tmp_path / "out", GPT2)

    theirs = AutoTokenizer.from_pretrained(tmp_path / "out")
    plain = TEXT.replace("<|endoftext|>", "")
    assert theirs.encode(plain) == checkpoint.load_tokenizer().encode(plain)
    assert theirs.decode(theirs.encode(plain)) == plain
    assert theirs.model_max_length == ARGS.block_size


def test_a_tokenizer_of_the_library_is_written_and_used_by_transformers(tmp_path):
    state = {"token_kind": "hf-tokenizers", "tokenizer": json.loads(trained().to_str())}

    checkpoint = save(tmp_path / "out", state)

    assert checkpoint.tokenizer_state == state
    theirs = tokenizers.Tokenizer.from_file(str(tmp_path / "out/tokenizer.json"))
    assert theirs.encode("the cat").ids == trained().encode("the cat").ids


def test_gpt2s_own_in_the_library_is_known_for_what_it_is(tmp_path, as_json, gpt2_files):
    said = json.loads(as_json)

    checkpoint = save(tmp_path / "out", {"token_kind": "hf-tokenizers", "tokenizer": said})

    assert checkpoint.tokenizer_state == GPT2
    assert checkpoint.load_tokenizer().encode("Hello") == [15496]


def test_without_gpt2s_ranks_its_files_are_left_out_and_that_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path / "empty"))
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.setattr(ours.plugins, "load_tokenizer", refuses)
    ckptstore.save(
        tmp_path / "ckpt", model=NanoGPT(ARGS), config=ARGS._asdict(), tokenizer=GPT2, step=1
    )

    done = ckptstore.convert(tmp_path / "ckpt", tmp_path / "out", "huggingface")

    assert done.left_out == ("tokenizer",)
    assert not {"vocab.json", "merges.txt"} & {*os.listdir(tmp_path / "out")}


def refuses(*args: object, **options: object) -> None:
    raise ckptstore.UnsupportedError("the gpt2 vocabulary is not on this machine")


@pytest.mark.parametrize(
    "state",
    [
        {"token_kind": "char", "chars": ["a"]},
        {"token_kind": "hf-tokenizers"},
        {"token_kind": "hf-tokenizers", "tokenizer": [1]},
        {"token_kind": "hf-tokenizers", "tokenizer": {}, "more": 1},
        None,
    ],
)
def test_what_has_no_files_is_left_out(state):
    new = MemoryNewFiles()
    contents = Contents(
        model=NanoGPT(ARGS).state_dict(), config=ARGS._asdict(), tokenizer_state=state
    )

    format_ = plugins.format_named("huggingface")
    format_.write(contents, new)

    assert format_.stored(contents).tokenizer_state is None
    assert new.written().names() == ("config.json", "model.safetensors")
