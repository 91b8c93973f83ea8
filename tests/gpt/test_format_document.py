"""The examples of the format document, with gpt in the place of core."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import ckptstore
from gpt.checkpoint import CheckpointManager
from gpt.data import GPTDataLoader
from gpt.model import GPT, GPTConfig

OLD_FILE = Path(__file__).parents[1] / "fixtures" / "legacy_char" / "latest.pt"


@pytest.fixture
def model(text: str, make_config: Any) -> GPT:
    """Give a model of the bundle ``checkpoints/dante`` at step 3."""
    manager = CheckpointManager("dante")
    model, optimizer, _ = manager.initialize_for_training(make_config(), "char", text)
    data_loader = GPTDataLoader(model.config, model.tokenizer)
    data_loader.prepare_data(text)
    model.fit(
        data_loader=data_loader,
        optimizer=optimizer,
        max_iters=3,
        eval_iters=1,
        checkpoint_dir="checkpoints/dante",
    )
    return model


def _json(name: str) -> Any:
    return json.loads(Path("checkpoints/dante", name).read_text(encoding="utf-8"))


def test_the_documents_resume_command_migrates_an_old_file(legacy_file: Path) -> None:
    from click.testing import CliRunner

    from gpt.train import main

    before = legacy_file.read_bytes()

    # The default text and sizes; only the evaluation is cut short.
    result = CliRunner().invoke(
        main, ["--model_name", "dante", "--max_iters", "22", "--eval_iters", "1"]
    )

    assert result.exit_code == 0, result.output
    assert legacy_file.read_bytes() == before
    assert (ckptstore.open("checkpoints/dante").format, _json("training_state.json")["step"]) == (
        "bundle",
        22,
    )


def test_all_files_are_there_and_readable(model: GPT, text: str) -> None:
    assert _json("config.json") == model.config.to_dict()
    assert _json("tokenizer.json") == {"token_kind": "char", "chars": sorted(set(text))}
    state = _json("training_state.json")
    assert (state["step"], state["optimizer_file"]) == (3, "optimizer.pt")
    assert len(Path("checkpoints/dante/training_state.json").read_bytes()) < 1024
    assert torch.load("checkpoints/dante/optimizer.pt", weights_only=True)["state"]


def test_model_pt_holds_just_the_weights(model: GPT) -> None:
    state_dict = torch.load("checkpoints/dante/model.pt")

    assert list(state_dict)[:3] == [
        "token_embedding_table.weight",
        "position_embedding_table.weight",
        "blocks.0.sa.heads.0.key.weight",
    ]
    assert list(state_dict) == [name for name, _ in model.named_parameters()]


def test_a_manual_save_of_everything(model: GPT) -> None:
    optimizer = model.configure_optimizer()

    model.save_checkpoint_bundle(
        checkpoint_dir="checkpoints/dante", step=500, optimizer_state=optimizer.state_dict()
    )

    loaded, tokenizer_state, step, optimizer_state = GPT.load("checkpoints/dante")
    assert (step, tokenizer_state) == (500, model.tokenizer_state)
    assert optimizer_state is not None
    assert loaded.config == model.config


def test_saving_just_the_weights_carries_the_rest_over(model: GPT) -> None:
    edited = {**_json("config.json"), "batch_size": 9, "note": "mine"}
    Path("checkpoints/dante/config.json").write_text(json.dumps(edited))
    before = ckptstore.open("checkpoints/dante")
    moments, rng = before.load_optimizer(), before.load_state("rng")
    with torch.no_grad():
        model.lm_head.bias.fill_(7.0)

    model.save("checkpoints/dante")

    after = ckptstore.open("checkpoints/dante")
    assert after.load_model()["lm_head.bias"].eq(7).all()
    assert after.config == edited
    assert after.tokenizer_state == before.tokenizer_state
    assert (after.step, after.training_state) == (3, before.training_state)
    assert str(after.load_optimizer()) == str(moments)
    assert str(after.load_state("rng")) == str(rng)


def test_saving_just_the_weights_where_nothing_is_adds_nothing(model: GPT) -> None:
    model.save("checkpoints/bare")

    assert Path("checkpoints/bare/model.pt").exists()
    assert not Path("checkpoints/bare/config.json").exists()
    loaded = GPT.load("checkpoints/bare")[0]
    assert loaded.config.n_head == model.config.n_head
    assert torch.equal(loaded.lm_head.weight, model.lm_head.weight)


def test_saving_just_the_weights_beside_a_legacy_file_carries_it_over(
    legacy_file: Path, legacy: dict[str, Any]
) -> None:
    model = GPT.load(legacy_file)[0]

    model.save("checkpoints/dante")

    checkpoint = ckptstore.open("checkpoints/dante")
    assert (checkpoint.format, checkpoint.step) == ("bundle", 20)
    assert checkpoint.config == legacy["config"]
    assert checkpoint.load_optimizer() is not None


def test_the_documents_commands_generate_without_a_prompt(model: GPT, shell: Any) -> None:
    shutil.copy(OLD_FILE, "checkpoints/dante/final.pt")
    generate = ["-m", "gpt.generate", "--model_name", "dante", "--max_new_tokens", "4"]

    for options in ([], ["--legacy_checkpoint", "final.pt"]):
        result = shell(*generate, *options)

        assert (result.returncode, result.stderr) == (0, "")
        assert len(result.stdout) == len("\n") + 4 + len("\n")


def test_load_for_inference_finds_either_format(model: GPT) -> None:
    shutil.copy(OLD_FILE, "checkpoints/dante/latest.pt")

    new = CheckpointManager.load_for_inference("dante")
    old = CheckpointManager.load_for_inference("dante", legacy_filename="latest.pt")

    assert new.config.block_size == 16  # the bundle wins
    assert old.config.block_size == 32


def test_training_resumes_or_starts(model: GPT, text: str, make_config: Any) -> None:
    learning_rate = 3e-4
    ckpt_manager = CheckpointManager("dante")
    model, optimizer, start_step = ckpt_manager.initialize_for_training(
        make_config(), "char", text, learning_rate=learning_rate
    )
    assert start_step == 3
    assert optimizer.state_dict()["state"]

    ckpt_manager = CheckpointManager("shakespeare")
    model, optimizer, start_step = ckpt_manager.initialize_for_training(
        make_config(), "char", text, learning_rate=3e-4
    )
    assert start_step == 0
    assert optimizer.state_dict()["state"] == {}
    assert model.config.n_layer == 2
    assert not ckpt_manager.exists()


def test_the_documents_default_config_trains_gpt2(text: str, gpt2_files: Path) -> None:
    config = GPTConfig(block_size=8, n_embd=8, n_head=2, n_layer=1, batch_size=2)

    model, _, start_step = CheckpointManager("dante").initialize_for_training(
        config, "gpt2", text, learning_rate=3e-4
    )
    model.save_checkpoint_bundle("checkpoints/dante", step=start_step)

    assert model.config.vocab_size == 50304
    assert _json("tokenizer.json") == {"token_kind": "gpt2"}
    assert model.generate("Nel mezzo", 3, seed=1).startswith("Nel mezzo")


def convert_checkpoint(model_name: str, legacy_file: str = "latest.pt") -> None:
    """Convert as the document's script does."""
    ckpt_manager = CheckpointManager(model_name)
    legacy_path = ckpt_manager.get_path(legacy_file)
    if not os.path.exists(legacy_path):
        print(f"No legacy checkpoint found: {legacy_path}")
        return
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model, _, step, optim_state = GPT.load_legacy(legacy_path, map_location=device)
    model.save_checkpoint_bundle(
        ckpt_manager.checkpoint_dir, step=step, optimizer_state=optim_state
    )


def test_the_conversion_script_converts(
    legacy_file: Path, legacy: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    before = hashlib.sha256(legacy_file.read_bytes()).hexdigest()

    convert_checkpoint("dante", "final.pt")
    convert_checkpoint("dante", "latest.pt")

    assert "No legacy checkpoint found" in capsys.readouterr().out
    assert hashlib.sha256(legacy_file.read_bytes()).hexdigest() == before
    checkpoint = ckptstore.open("checkpoints/dante")
    assert (checkpoint.format, checkpoint.step) == ("bundle", 20)
    assert checkpoint.config == legacy["config"]
    assert checkpoint.tokenizer_state == legacy["tokenizer"]
    for name, tensor in checkpoint.load_model().items():
        assert torch.equal(tensor, legacy["model_state_dict"][name])


def test_load_legacy_refuses_what_is_no_legacy_file(model: GPT) -> None:
    with pytest.raises(ckptstore.UnsupportedError, match="of format 'bundle', not a legacy file"):
        GPT.load_legacy("checkpoints/dante")
    with pytest.raises(ckptstore.NotFoundError, match="latest.pt"):
        GPT.load_legacy("checkpoints/dante/latest.pt")
