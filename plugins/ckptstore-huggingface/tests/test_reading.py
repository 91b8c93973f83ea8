"""Folders that transformers itself makes, of any family, tensor by tensor."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    BertConfig,
    BertForMaskedLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    Trainer,
    TrainingArguments,
)

import ckptstore
from ckptstore import plugins, tensors
from ckptstore.testing import MemoryFiles


def llama() -> LlamaForCausalLM:
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=50, num_attention_heads=4, **sizes))


def bert() -> BertForMaskedLM:
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    return BertForMaskedLM(BertConfig(vocab_size=50, num_attention_heads=4, **sizes))


def gpt2() -> GPT2LMHeadModel:
    sizes = {"n_positions": 16, "n_embd": 12, "n_layer": 2, "n_head": 3}
    return GPT2LMHeadModel(GPT2Config(vocab_size=50, bos_token_id=None, **sizes))


def check(folder: Path, state: dict[str, torch.Tensor]) -> ckptstore.Checkpoint:
    """Check that a folder is read as the tensors of a state, whole, in part, mapped and filled."""
    checkpoint = ckptstore.open(folder)
    assert checkpoint.format == "huggingface"
    infos = checkpoint.tensors()
    assert {n: (i.dtype, i.shape) for n, i in infos.items()} == {
        n: (str(t.dtype).removeprefix("torch."), tuple(t.shape)) for n, t in state.items()
    }
    for found in (checkpoint.load_model(), checkpoint.load_model(mmap=True)):
        assert [*found] == [*infos]
        assert all(torch.equal(found[name], state[name]) for name in state)
    some = [*state][3:1:-1]
    assert [*checkpoint.load_model(some)] == some
    with pytest.raises(ckptstore.NotFoundError, match="no tensor 'nobody' in"):
        checkpoint.load_model(["nobody"])
    return checkpoint


def stored(folder: Path) -> dict[str, torch.Tensor]:
    found = {}
    for file in folder.glob("*.safetensors"):
        found |= load_file(file)
    return found


@pytest.mark.parametrize("make", [llama, bert, gpt2])
@pytest.mark.parametrize("most", [None, "4KB"])
def test_any_family_in_one_file_or_in_shards_is_read(tmp_path, make, most):
    model = make()
    model.save_pretrained(tmp_path, **({} if most is None else {"max_shard_size": most}))
    assert (tmp_path / "model.safetensors.index.json").exists() is (most is not None)

    checkpoint = check(tmp_path, stored(tmp_path))

    assert checkpoint.config == json.loads((tmp_path / "config.json").read_text())
    state = model.state_dict()
    for name, tensor in checkpoint.load_model().items():
        assert torch.equal(state[name], tensor)
    assert (checkpoint.step, checkpoint.tokenizer_state, checkpoint.parts()) == (
        None,
        None,
        ("model",),
    )


@pytest.mark.parametrize("shards", [1, 3])
def test_torchs_own_files_are_read_too(tmp_path, shards):
    state = gpt2().state_dict()
    names = [*state]
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    placed = {}
    for number in range(shards):
        these = names[number::shards]
        file = f"pytorch_model-{number + 1:05}-of-{shards:05}.bin"
        file = "pytorch_model.bin" if shards == 1 else file
        torch.save({name: state[name] for name in these}, tmp_path / file)
        placed |= dict.fromkeys(these, file)
    if shards > 1:
        index = {"metadata": {"total_size": 1}, "weight_map": placed}
        (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps(index))

    checkpoint = check(tmp_path, state)

    ties = checkpoint.structure()["model"].ties
    assert ties == ((("transformer.wte.weight", "lm_head.weight"),) if shards == 1 else ())
    model = gpt2()
    checkpoint.restore(model=model)
    assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())


def test_only_the_shards_that_are_asked_for_are_opened(tmp_path):
    llama().save_pretrained(tmp_path, max_shard_size="8KB")
    files = MemoryFiles({path.name: path.read_bytes() for path in tmp_path.iterdir()})
    reader = plugins.format_named("huggingface").read(files)
    reader.tensors()
    index = json.loads(files.text("model.safetensors.index.json"))["weight_map"]
    opened = []
    real = files.open
    files.open = lambda name: opened.append(name) or real(name)

    reader.load_model(["lm_head.weight", "model.norm.weight"])

    assert sorted(opened) == sorted({index["lm_head.weight"], index["model.norm.weight"]})


def test_weights_in_shards_are_read_straight_into_a_model(tmp_path):
    theirs, ours = llama(), llama()
    theirs.save_pretrained(tmp_path, max_shard_size="8KB")
    reader = plugins.format_named("huggingface").read(ckptstore.open(tmp_path).source)
    into = ours.state_dict()
    places = {name: tensor.data_ptr() for name, tensor in into.items()}

    assert reader.fill_model(into, atomic=True)

    assert {name: tensor.data_ptr() for name, tensor in ours.state_dict().items()} == places
    assert tensors.alike(dict(ours.state_dict()), dict(theirs.state_dict()))
    assert not reader.fill_model({"lm_head.weight": torch.ones(3)})


class Numbers(torch.utils.data.Dataset):
    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"input_ids": torch.arange(8), "labels": torch.arange(8)}


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple[Trainer, Path]:
    folder = tmp_path_factory.mktemp("trainer")
    arguments = TrainingArguments(
        str(folder),
        max_steps=3,
        save_steps=3,
        logging_steps=1,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
    )
    trainer = Trainer(gpt2(), arguments, train_dataset=Numbers())
    trainer.train()
    return trainer, folder / "checkpoint-3"


def test_what_a_trainer_leaves_is_a_checkpoint_with_its_optimizer(trained, tmp_path):
    trainer, folder = trained

    checkpoint = check(folder, stored(folder))

    assert checkpoint.step == 3
    assert (checkpoint.parts(), checkpoint.states()) == (
        ("model", "optimizer", "scheduler"),
        ("scheduler",),
    )
    optimizer = trainer.optimizer
    assert tensors.alike(checkpoint.load_optimizer(), optimizer.state_dict())
    assert checkpoint.load_state("scheduler")["last_epoch"] == 3
    assert [row["step"] for row in checkpoint.load_metrics_log()] == [1, 2, 3]
    assert checkpoint.training_state["step"] == 3
    assert checkpoint.structure()["optimizer"].groups is not None
    assert set(checkpoint.tensors("optimizer")) >= {"state.0.exp_avg", "state.0.exp_avg_sq"}


def test_what_a_trainer_pickles_is_left_out_and_never_run(trained, tmp_path):
    _, folder = trained
    assert {"rng_state.pth", "training_args.bin"} <= {*os.listdir(folder)}

    checkpoint = ckptstore.open(folder)

    assert not {"rng_state.pth", "training_args.bin"} & {*checkpoint.files()}
    done = ckptstore.sync(folder, tmp_path / "copy")
    assert not {"rng_state.pth", "training_args.bin"} & {*done.copied}
    assert {"optimizer.pt", "scheduler.pt", "trainer_state.json"} <= {*done.copied}
    copy = ckptstore.open(tmp_path / "copy")
    assert (copy.format, copy.step, copy.proved) == ("huggingface", 3, True)
    assert copy.verify().sound
    inference = ckptstore.sync(folder, tmp_path / "less", optimizer=False)
    assert {*inference.copied} == {"model.safetensors", "config.json", "generation_config.json"}


def test_a_trainers_checkpoint_becomes_a_bundle_every_tensor_proved(trained, tmp_path):
    _, folder = trained

    done = ckptstore.convert(folder, tmp_path / "bundle")

    assert done.left_out == ()
    assert {*done.proofs} == {"model", "optimizer"}
    bundle = ckptstore.open(tmp_path / "bundle")
    assert (bundle.step, bundle.config["model_type"]) == (3, "gpt2")
    assert bundle.load_state("scheduler")["last_epoch"] == 3
    back = ckptstore.convert(tmp_path / "bundle", tmp_path / "back", "huggingface")
    assert {*back.left_out} >= {"optimizer", "metrics.jsonl", "the state scheduler"}
    model = GPT2LMHeadModel.from_pretrained(tmp_path / "back")
    assert tensors.alike(dict(model.transformer.state_dict(prefix="transformer.")), stored(folder))


class Runs:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.mark),)


def test_an_optimizer_that_loads_only_by_running_is_left_out(trained, tmp_path, caplog):
    folder = tmp_path / "checkpoint-3"
    shutil.copytree(trained[1], folder)
    torch.save({"state": {}, "x": Runs(tmp_path / "ran")}, folder / "optimizer.pt")

    checkpoint = ckptstore.open(folder)

    assert (checkpoint.has_optimizer, checkpoint.load_optimizer()) == (False, None)
    assert "optimizer.pt is left out" in caplog.text
    assert ckptstore.convert(folder, tmp_path / "bundle").changed
    assert not (tmp_path / "ran").exists()


def test_pickled_weights_that_would_run_code_are_refused(tmp_path):
    torch.save({"w": torch.ones(1), "x": Runs(tmp_path / "ran")}, tmp_path / "pytorch_model.bin")

    with pytest.raises(ckptstore.UnsafeError, match="so reading it would run code; nothing was"):
        ckptstore.open(tmp_path).load_model()

    assert not (tmp_path / "ran").exists()


def test_a_trainers_words_for_what_is_no_number_are_read(tmp_path):
    save_file({"w": torch.ones(1)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"model_type": "x", "most": Infinity}')
    (tmp_path / "trainer_state.json").write_text(
        '{"global_step": 2, "best_metric": NaN, "epoch": 0.5, "best_model_checkpoint": "here", '
        '"log_history": [{"step": 1, "loss": NaN}, 3]}'
    )

    checkpoint = ckptstore.open(tmp_path)

    assert checkpoint.config["most"] == {"__float__": "Infinity"}
    assert checkpoint.load_metrics_log() == ({"step": 1, "loss": None},)
    assert checkpoint.training_state == {
        "step": 2,
        "epoch": 0.5,
        "best_model_checkpoint": "here",
    }


@pytest.mark.parametrize(
    ("files", "error", "message"),
    [
        ({"trainer_state.json": '{"global_step": -1}'}, "Corruption", "the global_step -1, not a"),
        ({"trainer_state.json": "{"}, "Corruption", "trainer_state.json in .* is not valid JSON"),
        ({"generation_config.json": "[]"}, "Corruption", "holds a JSON list, not an object"),
        ({"model.safetensors.index.json": "{}", "model.safetensors": None}, "Corruption", "no wei"),
        (
            {
                "model.safetensors.index.json": '{"weight_map": {"w": "a.safetensors"}}',
                "model.safetensors": None,
            },
            "Corruption",
            "names a.safetensors, which is not there; copy that file too",
        ),
        (
            {
                "model.safetensors.index.json": '{"weight_map": {"w": "../a.safetensors"}}',
                "model.safetensors": None,
            },
            "Unsafe",
            "names '../a.safetensors', which is not a plain file name",
        ),
        (
            {
                "model.safetensors.index.json": '{"weight_map": {"w": 7}}',
                "model.safetensors": None,
            },
            "Unsafe",
            "names 7, which is not a plain file name",
        ),
    ],
)
def test_what_a_folder_says_wrongly_is_said(tmp_path, files, error, message):
    save_file({"w": torch.ones(1)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"model_type": "x"}')
    for name, text in files.items():
        if text is None:
            (tmp_path / name).unlink()
        else:
            (tmp_path / name).write_text(text)

    with pytest.raises(getattr(ckptstore, f"{error}Error"), match=message):
        ckptstore.open(tmp_path).tensors()


def test_an_index_that_names_the_wrong_file_is_damage(tmp_path):
    llama().save_pretrained(tmp_path, max_shard_size="8KB")
    file = tmp_path / "model.safetensors.index.json"
    index = json.loads(file.read_text())
    index["weight_map"]["nobody"] = index["weight_map"]["lm_head.weight"]
    file.write_text(json.dumps(index))

    with pytest.raises(ckptstore.CorruptionError, match="has no tensor 'nobody', and the index"):
        ckptstore.open(tmp_path).tensors()


def test_links_of_a_downloads_cache_are_followed_and_those_of_strangers_are_not(tmp_path):
    folder, blobs = tmp_path / "snapshot", tmp_path / "blobs"
    llama().save_pretrained(folder, max_shard_size="8KB")
    blobs.mkdir()
    state = stored(folder)
    for file in [*folder.iterdir()]:
        shutil.move(file, blobs / file.name)
        file.symlink_to(blobs / file.name)

    check(folder, state)

    index = json.loads((folder / "model.safetensors.index.json").read_text())
    chosen = index["weight_map"]["lm_head.weight"]
    (folder / "mine.safetensors").symlink_to(blobs / chosen)
    index["weight_map"]["lm_head.weight"] = "mine.safetensors"
    (folder / "model.safetensors.index.json").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ckptstore.UnsafeError, match="names 'mine.safetensors', a link that leads"):
        ckptstore.open(folder)


def test_looking_imports_neither_torch_nor_transformers(tmp_path):
    llama().save_pretrained(tmp_path / "run", max_shard_size="8KB")
    code = f"""
import sys
import ckptstore
checkpoint = ckptstore.open({str(tmp_path / "run")!r})
assert len(checkpoint.tensors()) == 21
assert not {{"torch", "transformers", "tokenizers", "safetensors"}} & sys.modules.keys()
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_this_package_such_a_folder_is_safetensors_all_the_same(tmp_path):
    gpt2().save_pretrained(tmp_path / "run")
    code = f"""
import ckptstore
checkpoint = ckptstore.open({str(tmp_path / "run")!r})
assert (checkpoint.format, checkpoint.config["model_type"]) == ("safetensors", "gpt2")
"""
    environment = {**os.environ, "CKPTSTORE_DISABLE_PLUGINS": "ckptstore-huggingface"}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)


def test_a_folder_is_of_one_format_alone(tmp_path):
    """Whatever lies in it: with both packages and the built-ins, one of them reads it."""
    model = gpt2()
    sizes = {"n_layer": 2, "n_head": 3, "n_embd": 12, "block_size": 16, "vocab_size": 50}
    nano = {"transformer.wte.weight": torch.ones(2, 2)}
    model.save_pretrained(tmp_path / "huggingface")
    model.save_pretrained(tmp_path / "huggingface.2", max_shard_size="4KB")
    for number, config in enumerate(({}, None, sizes, {"model_type": "mine"})):
        folder = tmp_path / f"safetensors.{number}"
        made = ckptstore.save(folder, model=nano, config=config, step=1, format="safetensors")
        plain(folder, made)
    for name in ("bundle", "bundle.2"):
        made = ckptstore.save(
            tmp_path / name, model=nano, config={"model_type": "x"} if "2" in name else sizes
        )
        plain(tmp_path / name, made)
    (tmp_path / "huggingface.3").mkdir()
    torch.save(nano, tmp_path / "huggingface.3/pytorch_model.bin")
    (tmp_path / "legacy").mkdir()
    torch.save({"model_state_dict": nano}, tmp_path / "legacy/latest.pt")
    (tmp_path / "safetensors.9").mkdir()
    save_file(nano, tmp_path / "safetensors.9/model.safetensors")
    (tmp_path / "safetensors.9/config.json").write_text("{")

    for folder in sorted(tmp_path.iterdir()):
        if folder.name == "safetensors.9":
            with pytest.raises(ckptstore.CorruptionError, match="config.json in .* is not valid"):
                ckptstore.open(folder)
            continue
        checkpoint = ckptstore.open(folder)
        assert checkpoint.format == folder.name.partition(".")[0]
        assert not checkpoint.proved


def plain(folder: Path, made: ckptstore.Checkpoint) -> None:
    """Leave of a checkpoint its plain files."""
    shutil.rmtree(folder / ".ckptstore")
    (folder / "manifest.json").unlink()
    assert {*made.files()} == {*os.listdir(folder)}
