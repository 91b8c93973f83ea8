"""G4 in gpt: a damaged model neither writes nor trains, and an older one only if asked for."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

import ckptstore
from gpt.__main__ import main
from gpt.config import GPTConfig
from gpt.model import GPT
from gpt.train import SAMPLE_TEXT

from .damage import flipped

TEXT = SAMPLE_TEXT.read_text(encoding="utf-8")[:2000]


def run(command: str, folder: Path, *arguments: object, model: str = "dante") -> Result:
    words = [command, "--model_name", model, "--base_dir", folder, *arguments]
    result = CliRunner().invoke(main, list(map(str, words)))
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result


def harm(path: Path) -> None:
    path.write_bytes(flipped(path.read_bytes(), 700))


@pytest.fixture
def model() -> GPT:
    """Give a model of a few parameters that knows every character of the text."""
    from ckptstore import plugins

    tokenizer = plugins.tokenizer_kind("char").from_text(TEXT)
    config = GPTConfig(
        vocab_size=tokenizer.n_vocab, block_size=8, n_embd=8, n_head=2, n_layer=1, dropout=0.0
    )
    return GPT(config, tokenizer)


@pytest.fixture
def folder(tmp_path: Path, model: GPT) -> Path:
    """Give a folder with ``dante``, of which the generation before the newest is there too."""
    where = tmp_path / "dante"
    optimizer = model.configure_optimizer()
    model.save_checkpoint_bundle(where, step=1, optimizer_state=optimizer.state_dict())
    shutil.copytree(where / ".ckptstore/00000001", tmp_path / "kept")
    model.save_checkpoint_bundle(where, step=2, optimizer_state=optimizer.state_dict())
    shutil.move(tmp_path / "kept", where / ".ckptstore/00000001")
    return tmp_path


def test_a_damaged_model_does_not_write(folder):
    sound = run("generate", folder, "--max_new_tokens", 3)
    harm(folder / "dante/model.pt")

    result = run("generate", folder, "--max_new_tokens", 3)

    assert (sound.exit_code, result.exit_code) == (0, 4)
    assert result.stderr.startswith(f"error: model.pt in {folder / 'dante'} is damaged: chunk 0")
    assert result.stdout == ""


def test_it_writes_with_the_older_generation_where_that_is_asked_for(folder):
    harm(folder / "dante/model.pt")

    result = run("generate", folder, "--max_new_tokens", 3, "--fallback")

    assert result.exit_code == 0
    assert f"warning: generation 2 of {folder / 'dante'} is passed over" in result.stderr


def test_of_a_history_it_writes_with_the_newest_sound_step(tmp_path, model):
    with ckptstore.Store(tmp_path / "dante", keep=ckptstore.Keep()) as store:
        for step in (1, 2):
            torch.nn.init.normal_(model.lm_head.bias)  # Equal steps would share their bytes.
            store.save(
                model=model,
                config=model.config.to_dict(),
                tokenizer=model.vocabulary.known,
                step=step,
            )
    harm(tmp_path / "dante/step-00000002/model.pt")

    refused = run("generate", tmp_path, "--max_new_tokens", 3)
    done = run("generate", tmp_path, "--max_new_tokens", 3, "--fallback")

    assert (refused.exit_code, done.exit_code) == (4, 0)
    assert "warning: opened step 1 of" in done.stderr


@pytest.mark.parametrize("name", ["model.pt", "optimizer.pt"])
def test_training_goes_on_with_the_older_generation_where_that_is_asked_for(folder, name):
    harm(folder / "dante" / name)
    text = folder / "text.txt"
    text.write_text(TEXT, encoding="utf-8")
    options = ["--input_file", text, "--max_iters", 3, "--eval_iters", 1, "--batch_size", 2]

    refused = run("train", folder, *options)
    done = run("train", folder, *options, "--fallback")

    assert (refused.exit_code, done.exit_code) == (4, 0), done.output
    assert "going on at step 1" in done.stdout
    checkpoint = ckptstore.open(folder / "dante")
    assert (checkpoint.step, checkpoint.generation) == (3, 3)
    assert checkpoint.verify().sound


def test_training_that_could_not_save_says_so_before_it_begins(folder):
    (folder / "dante/.ckptstore/00000002/manifest.json").write_text("{")

    result = run("train", folder, "--max_iters", 3, "--fallback")

    assert result.exit_code == 4
    assert "manifest.json" in result.stderr.splitlines()[-1]


def test_a_new_model_begins_with_the_newest_sound_step_of_another(tmp_path, model):
    with ckptstore.Store(tmp_path / "dante", keep=ckptstore.Keep()) as store:
        for step in (1, 2):
            torch.nn.init.normal_(model.lm_head.bias)  # Equal steps would share their bytes.
            store.save(
                model=model,
                config=model.config.to_dict(),
                tokenizer=model.vocabulary.known,
                step=step,
            )
    harm(tmp_path / "dante/step-00000002/model.pt")
    text = tmp_path / "text.txt"
    text.write_text(TEXT, encoding="utf-8")
    options = ["--init_from_model", "dante", "--input_file", text, "--max_iters", 0]

    assert run("train", tmp_path, *options, model="virgil").exit_code == 4
    assert run("train", tmp_path, *options, "--fallback", model="virgil").exit_code == 0
