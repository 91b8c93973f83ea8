"""What of a checkpoint-N is kept, and that it is put back as it was, whole or not at all."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ckptstore_transformers import resume, upload
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import AutoTokenizer, GPT2LMHeadModel, PreTrainedTokenizerFast

import ckptstore


def same(one: Any, other: Any) -> bool:
    if type(one) is not type(other):
        return False
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and bool((one == other).all())
    if isinstance(one, dict):
        return [*one] == [*other] and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def loaded(file: Path) -> Any:
    from transformers.trainer_pt_utils import safe_globals

    with safe_globals():
        return torch.load(file, weights_only=True)


def test_a_folder_is_put_back_as_it_was_but_for_what_is_a_pickle(folder, tmp_path):
    upload(folder, tmp_path / "store")

    path = resume(tmp_path / "store", tmp_path / "out")

    again = tmp_path / "out/checkpoint-4"
    assert path == str(again)
    names = {file.name for file in folder.iterdir()}
    assert {file.name for file in again.iterdir()} == names - {"training_args.bin"}
    for name in names - {"training_args.bin"}:
        if name.endswith((".json", ".safetensors")):
            assert (again / name).read_bytes() == (folder / name).read_bytes(), name
        else:
            assert same(loaded(again / name), loaded(folder / name)), name


def test_tokenizers_templates_and_everything_else_is_kept(folder, tmp_path):
    (folder / "spiece.model").write_bytes(b"\x0a\xff\x00")
    (folder / "chat_template.jinja").write_bytes("{{ 'è' }}\r\n".encode())
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates/tool.jinja").write_text("{{ tool }}")
    upload(folder, tmp_path / "store")

    resume(tmp_path / "store", tmp_path / "out")

    for name in ("spiece.model", "chat_template.jinja", "additional_chat_templates/tool.jinja"):
        assert (tmp_path / "out/checkpoint-4" / name).read_bytes() == (folder / name).read_bytes()


def test_a_tokenizer_comes_back_and_a_scaler_too(folder, tmp_path):
    words = Tokenizer(WordLevel({"nel": 0, "mezzo": 1, "[UNK]": 2}, unk_token="[UNK]"))
    words.pre_tokenizer = Whitespace()
    chat = "{{ messages[0]['content'] }}"
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]")
    tokenizer.chat_template = chat
    tokenizer.save_pretrained(folder)
    scaler = {"scale": 1024.0, "growth_factor": 2.0, "_growth_tracker": 7}
    torch.save(scaler, folder / "scaler.pt")
    upload(folder, tmp_path / "store")

    path = resume(tmp_path / "store", tmp_path / "out")

    again = AutoTokenizer.from_pretrained(path)
    assert again("nel mezzo del")["input_ids"] == [0, 1, 2]
    assert again.chat_template == chat
    assert same(torch.load(Path(path) / "scaler.pt"), scaler)
    assert GPT2LMHeadModel.from_pretrained(path).config.n_layer == 2


def test_what_is_in_the_store_is_readable_and_safe(folder, tmp_path):
    checkpoint = upload(folder, tmp_path / "store")

    step = tmp_path / "store/step-00000004"
    assert same(torch.load(step / "model.pt"), load_file(folder / "model.safetensors"))
    assert same(torch.load(step / "optimizer.pt"), loaded(folder / "optimizer.pt"))
    assert json.loads((step / "config.json").read_text())["model_type"] == "gpt2"
    assert checkpoint.states() == ("trainer", "scheduler", "rng")
    assert [row["step"] for row in checkpoint.load_metrics_log()] == [1, 2, 3, 4, 4]
    assert {"loss", "eval_loss"} <= checkpoint.metrics.keys()
    assert "eval_runtime" not in checkpoint.metrics
    assert checkpoint.training_state["epoch"] == 0.4


class Bomb:
    def __reduce__(self) -> Any:
        return (os.mkdir, ("exploded",))


def test_training_args_are_neither_read_nor_stored(folder, tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    (folder / "training_args.bin").write_bytes(pickle.dumps(Bomb()))
    (folder / "notes.pkl").write_bytes(pickle.dumps(Bomb()))

    upload(folder, tmp_path / "store")
    resume(tmp_path / "store", tmp_path / "out")

    assert not (tmp_path / "exploded").exists()
    assert not list((tmp_path / "out").rglob("*.bin"))
    assert "notes.pkl may be a pickle: not kept" in caplog.text
    assert "training_args.bin" not in caplog.text


@pytest.mark.parametrize("name", ["scheduler.pt", "optimizer.pt", "rng_state.pth"])
def test_a_state_that_would_run_code_is_refused(folder, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    torch.save({"numpy": Bomb()}, folder / name)

    with pytest.raises(
        ckptstore.UnsupportedError, match=f"{name} (cannot be read|holds no random)"
    ):
        upload(folder, tmp_path / "store")

    assert not (tmp_path / "exploded").exists()
    assert ckptstore.Store(tmp_path / "store").steps() == ()


def test_weights_in_several_files_become_one(folder, tmp_path):
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    shards = {"model-00001-of-00002.safetensors": [], "model-00002-of-00002.safetensors": []}
    for number, name in enumerate(weights):
        [*shards.values()][number % 2].append(name)
    for shard, names in shards.items():
        save_file({name: weights[name] for name in names}, folder / shard)
    placed = {name: shard for shard, names in shards.items() for name in names}
    index = {"metadata": {}, "weight_map": placed}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))

    checkpoint = upload(folder, tmp_path / "store")
    resume(tmp_path / "store", tmp_path / "out")

    again = tmp_path / "out/checkpoint-4"
    found = load_file(again / "model.safetensors")
    assert {name: same(found[name], weights[name]) for name in weights} == dict.fromkeys(
        weights, True
    )
    assert not list(again.glob("model*of*")) + list(again.glob("*.index.json"))
    assert checkpoint.tensors().keys() == weights.keys()


def test_a_model_that_is_called_module_keeps_its_names(folder, tmp_path):
    weights = load_file(folder / "model.safetensors")
    inner = {f"module.{name}": value for name, value in weights.items()}
    save_file(inner, folder / "model.safetensors", metadata={"format": "pt"})
    upload(folder, tmp_path / "store")

    resume(tmp_path / "store", tmp_path / "out")

    assert load_file(tmp_path / "out/checkpoint-4/model.safetensors").keys() == inner.keys()


def test_a_config_with_a_number_that_json_lacks_is_kept_as_text(folder, tmp_path):
    (folder / "config.json").write_text('{"limit": Infinity}')

    checkpoint = upload(folder, tmp_path / "store")
    resume(tmp_path / "store", tmp_path / "out")

    assert checkpoint.config is None
    assert (tmp_path / "out/checkpoint-4/config.json").read_text() == '{"limit": Infinity}'


def sharded(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model_fsdp_0").mkdir()
    (folder / "pytorch_model_fsdp_0/__0_0.distcp").touch()


def in_pickles(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def several_adapters(folder: Path) -> None:
    (folder / "other").mkdir()
    (folder / "other/adapter_model.safetensors").touch()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (sharded, ckptstore.UnsupportedError, "what FSDP and DeepSpeed shard is not kept"),
        (in_pickles, ckptstore.UnsupportedError, "has neither model.safetensors nor adapter_model"),
        (several_adapters, ckptstore.UnsupportedError, "holds several adapters"),
        (
            lambda folder: (folder / "trainer_state.json").unlink(),
            ckptstore.NotFoundError,
            "is no checkpoint of the Trainer's: it has no trainer_state.json",
        ),
        (
            lambda folder: (folder / "trainer_state.json").write_text("{"),
            ckptstore.UnsupportedError,
            "trainer_state.json is no JSON",
        ),
        (
            lambda folder: (folder / "trainer_state.json").write_text("[]"),
            ckptstore.UnsupportedError,
            "holds a list, not an object",
        ),
        (
            lambda folder: (folder / "trainer_state.json").write_text("{}"),
            ckptstore.UnsupportedError,
            "has the global_step None, not a number",
        ),
    ],
)
def test_what_cannot_be_kept_is_refused_and_said(folder, tmp_path, change, error, message):
    change(folder)

    with pytest.raises(error, match=message):
        upload(folder, tmp_path / "store")
