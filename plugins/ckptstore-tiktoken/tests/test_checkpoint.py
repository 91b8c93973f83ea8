"""A checkpoint holds the vocabulary, and refuses another one."""

from __future__ import annotations

import json
from pathlib import Path

import fsspec
import pytest
import torch
from ckptstore_tiktoken import named

import ckptstore
from ckptstore import plugins

KIND = "tiktoken"
TEXT = "To be, or not to be: that is the question.\n" * 20


@pytest.fixture(params=["local", "memory"])
def location(request):
    """Give a location on the disk, and one in memory, which is empty again afterwards."""
    if request.param == "local":
        yield "dante"
        return
    yield f"memory://{KIND}/dante"
    fsspec.filesystem("memory").rm(f"/{KIND}", recursive=True)


def test_a_checkpoint_holds_the_vocabulary(location):
    tokenizer = plugins.train_tokenizer(KIND, TEXT, {"vocab_size": 290})
    ckptstore.save(location, model={"w": torch.ones(2)}, tokenizer=tokenizer)

    checkpoint = ckptstore.open(location)

    assert checkpoint.tokenizer_state == tokenizer.state()
    assert checkpoint.fingerprint == tokenizer.fingerprint()
    assert checkpoint.load_tokenizer().encode(TEXT) == tokenizer.encode(TEXT)


def test_an_edit_that_changes_the_vocabulary_is_refused():
    tokenizer = plugins.train_tokenizer(KIND, TEXT, {"vocab_size": 290})
    ckptstore.save("dante", model={"w": torch.ones(2)}, tokenizer=tokenizer)
    file = Path("dante/tokenizer.json")
    state = json.loads(file.read_text("utf-8"))
    state["special_tokens"] = {"<|end|>": 300}
    file.write_text(json.dumps(state), "utf-8")

    with pytest.raises(ckptstore.CorruptionError, match="is another one than the model was train"):
        ckptstore.open("dante").load_tokenizer()


def test_a_copy_for_inference_carries_the_ranks_of_an_encoding_by_name(openai_files, monkeypatch):
    tokenizer = plugins.train_tokenizer(KIND, "", {"encoding": "gpt2"})
    ckptstore.save("dante", model={"w": torch.ones(2)}, tokenizer=tokenizer)
    assert not Path("dante/tokenizer.tiktoken").exists()

    ckptstore.sync("dante", "share", optimizer=False)

    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", "nothing here")
    named.vocabulary_of.cache_clear()
    with pytest.raises(ckptstore.UnsupportedError, match="not on this machine"):
        ckptstore.open("dante").load_tokenizer()
    assert ckptstore.open("share").load_tokenizer().encode(TEXT) == tokenizer.encode(TEXT)
