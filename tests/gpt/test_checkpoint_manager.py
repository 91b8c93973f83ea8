"""CheckpointManager: resume, start from another model, start fresh, load for inference."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import ckptstore
from ckptstore import CorruptionError, NotFoundError
from ckptstore.tokenizers.char import CharTokenizer
from gpt.checkpoint import CheckpointManager
from gpt.config import GPTConfig
from gpt.data import GPTDataLoader
from gpt.model import GPT

Trained = Callable[..., GPT]


@pytest.fixture
def trained(text: str, make_config: Any) -> Trained:
    """Give a function that trains a model for some steps through the manager."""

    def trained(name: str = "dante", steps: int = 2, learning_rate: float = 1e-3) -> GPT:
        manager = CheckpointManager(name)
        model, optimizer, step = manager.initialize_for_training(
            make_config(), "char", text, learning_rate
        )
        loader = GPTDataLoader(model.config, model)
        loader.prepare_data(text)
        model.fit(loader, optimizer, steps, eval_iters=1, start_step=step,
                  checkpoint_dir=manager.checkpoint_dir)  # fmt: skip
        return model

    return trained


def _same(one: GPT, other: GPT) -> bool:
    theirs = other.state_dict()
    return all(torch.equal(value, theirs[name]) for name, value in one.state_dict().items())


@pytest.mark.parametrize(
    ("base_dir", "model_name", "where"),
    [
        ("checkpoints", "dante", os.path.join("checkpoints", "dante")),
        ("checkpoints", "runs/dante", os.path.join("checkpoints", "runs/dante")),
        (Path("some where"), "dante [1] ä", os.path.join("some where", "dante [1] ä")),
        ("s3://bucket/checkpoints", "dante", "s3://bucket/checkpoints/dante"),
        ("s3://bucket/checkpoints/", "dante", "s3://bucket/checkpoints/dante"),
        ("memory://", "dante", "memory://dante"),
    ],
)
def test_names_are_joined_as_the_location_needs(base_dir: Any, model_name: str, where: str) -> None:
    assert CheckpointManager(model_name, base_dir).checkpoint_dir == where


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/../../x", "/x", "a//b", "s3://b/x"])
def test_a_name_never_leads_out(name: str) -> None:
    with pytest.raises(ValueError, match="model_name is "):
        CheckpointManager(name)
    with pytest.raises(ValueError, match="filename is "):
        CheckpointManager("dante").get_path(name)


def test_exists_tells_a_checkpoint_from_an_empty_folder(legacy_file: Path) -> None:
    Path("checkpoints/empty").mkdir()

    assert CheckpointManager("dante").exists()
    assert not CheckpointManager("empty").exists()
    assert not CheckpointManager("absent").exists()


def test_a_fresh_model_has_the_vocabulary_of_the_text(text: str) -> None:
    config = GPTConfig(n_embd=8, n_head=2, n_layer=1, block_size=8, device="cpu")

    model, optimizer, step = CheckpointManager("new").initialize_for_training(config, "char", text)

    assert model.config.vocab_size == len(set(text))
    assert model.decode(model.encode(text)) == text
    assert optimizer.param_groups[0]["lr"] == 3e-4
    assert step == 0


def test_gpt2_has_the_padded_vocabulary(text: str, gpt2_files: Path, make_config: Any) -> None:
    for wanted in (41, 50304, 99999):
        model, _, _ = CheckpointManager("new").initialize_for_training(
            make_config(vocab_size=wanted), "gpt2", text
        )
        assert model.config.vocab_size == 50304
    assert model.tokenizer.n_vocab == 50257


def test_resuming_takes_the_architecture_from_the_checkpoint(
    trained: Trained, text: str, make_config: Any
) -> None:
    before = trained(steps=3)
    other = make_config(n_layer=5, n_embd=64, vocab_size=7, batch_size=2, dropout=0.5)

    model, optimizer, step = CheckpointManager("dante").initialize_for_training(
        other, "char", text, learning_rate=5e-4
    )

    assert _same(model, before)
    assert (step, model.config.n_layer, model.config.batch_size) == (3, 2, 2)
    assert model.blocks[0].sa.dropout.p == model.config.dropout == 0.5
    assert optimizer.param_groups[0]["lr"] == 5e-4


def test_resuming_keeps_what_is_not_given(trained: Trained, text: str, make_config: Any) -> None:
    trained(learning_rate=7e-4)

    model, optimizer, _ = CheckpointManager("dante").initialize_for_training(
        make_config(batch_size=2, dropout=0.5), None, text, None, taken_on_resume=()
    )

    assert (model.config.batch_size, model.config.dropout) == (4, 0.2)
    assert optimizer.param_groups[0]["lr"] == 7e-4


def test_another_tokenizer_on_resume_names_both(
    trained: Trained, text: str, make_config: Any
) -> None:
    trained()

    with pytest.raises(ValueError, match="dante was trained with 'char', asked for is 'gpt2'"):
        CheckpointManager("dante").initialize_for_training(make_config(), "gpt2", text)


def test_starting_from_another_model_takes_its_weights_and_vocabulary(
    trained: Trained, text: str, make_config: Any
) -> None:
    source = trained()
    part = text[:300]

    model, optimizer, step = CheckpointManager("new").initialize_for_training(
        make_config(n_layer=1, batch_size=2), "char", part, init_from_model="dante"
    )

    assert _same(model, source)
    assert model.tokenizer_state == source.tokenizer_state
    assert (step, model.config.batch_size, optimizer.state_dict()["state"]) == (0, 2, {})
    assert model.pending is None


def test_resuming_wins_over_starting_from_another_model(
    trained: Trained, text: str, make_config: Any
) -> None:
    trained("dante")
    mine = trained("mine", steps=1)

    with pytest.warns(UserWarning, match="resuming .*mine, .* not starting from 'dante'"):
        model, _, step = CheckpointManager("mine").initialize_for_training(
            make_config(), "char", text, init_from_model="dante"
        )

    assert step == 1
    assert _same(model, mine)


def test_tokenizers_have_to_match_to_start_from_another_model(
    trained: Trained, text: str, make_config: Any
) -> None:
    trained()
    manager = CheckpointManager("new")

    with pytest.raises(ValueError, match="dante was trained with 'char', asked for is 'gpt2'"):
        manager.initialize_for_training(make_config(), "gpt2", text, init_from_model="dante")
    with pytest.raises(ValueError, match="dante was trained with 'char' of 41 ids, .* needs 42"):
        manager.initialize_for_training(make_config(), "char", text + "7", init_from_model="dante")


def test_another_model_that_is_not_there_is_an_error(text: str, make_config: Any) -> None:
    with pytest.raises(NotFoundError, match="no checkpoint in .*absent"):
        CheckpointManager("new").initialize_for_training(
            make_config(), "char", text, init_from_model="absent"
        )


def test_an_inference_copy_loads_and_resumes_with_warnings(
    trained: Trained, text: str, make_config: Any
) -> None:
    source = trained()
    Path("checkpoints/copy").mkdir()
    for name in ("model.pt", "config.json", "tokenizer.json"):
        shutil.copy(f"checkpoints/dante/{name}", f"checkpoints/copy/{name}")

    model = CheckpointManager.load_for_inference("copy")
    assert _same(model, source)
    assert not model.training
    loaded = GPT.load("checkpoints/copy")
    assert loaded[1:] == (source.tokenizer_state, None, None)

    with (
        pytest.warns(UserWarning, match="records no training step; counting from step 0"),
        pytest.warns(UserWarning, match="has no optimizer state; using a fresh optimizer"),
    ):
        _, optimizer, step = CheckpointManager("copy").initialize_for_training(
            make_config(), "char", text
        )
    assert (step, optimizer.state_dict()["state"]) == (0, {})


def _remove_the_optimizer(folder: Path) -> None:
    shutil.rmtree(folder / ".ckptstore")
    (folder / "manifest.json").unlink()
    (folder / "optimizer.pt").unlink()


def test_an_optimizer_that_is_named_but_absent_is_an_error(
    trained: Trained, text: str, make_config: Any
) -> None:
    trained()
    _remove_the_optimizer(Path("checkpoints/dante"))
    manager = CheckpointManager("dante")

    with pytest.raises(NotFoundError, match=r"optimizer\.pt.*fresh_optimizer"):
        manager.initialize_for_training(make_config(), "char", text)
    _, optimizer, step = manager.initialize_for_training(
        make_config(), "char", text, fresh_optimizer=True
    )
    assert (step, optimizer.state_dict()["state"]) == (2, {})
    assert not CheckpointManager.load_for_inference("dante").training
    with pytest.warns(UserWarning, match="going on without the optimizer"):
        assert GPT.load("checkpoints/dante")[3] is None


def test_an_optimizer_that_does_not_fit_is_an_error(
    trained: Trained, text: str, make_config: Any
) -> None:
    model = trained()
    other = GPT(make_config(n_layer=1)).configure_optimizer().state_dict()
    model.save_checkpoint_bundle("checkpoints/dante", 2, other)
    manager = CheckpointManager("dante")

    with pytest.raises(CorruptionError, match=r"of 22 parameters, the model has 38.*fresh_optim"):
        manager.initialize_for_training(make_config(), "char", text)
    step = manager.initialize_for_training(make_config(), "char", text, fresh_optimizer=True)[2]
    assert step == 2


def test_a_legacy_file_by_name(legacy_file: Path, legacy: dict[str, Any]) -> None:
    legacy["step"] = 99
    torch.save(legacy, legacy_file.with_name("final.pt"))

    model = CheckpointManager.load_for_inference("dante", legacy_filename="final.pt")

    assert not model.training
    assert CheckpointManager("dante").open("final.pt").step == 99
    assert CheckpointManager("dante").open().step == 20
    with pytest.raises(NotFoundError, match="old.pt"):
        CheckpointManager.load_for_inference("dante", legacy_filename="old.pt")


def test_a_checkpoint_without_tokenizer_asks_for_one(
    legacy_file: Path, legacy: dict[str, Any], text: str
) -> None:
    torch.save({**legacy, "tokenizer": None}, legacy_file)
    config = GPTConfig.from_dict(legacy["config"])
    manager = CheckpointManager("dante")

    model = CheckpointManager.load_for_inference("dante")
    with pytest.raises(ValueError, match="this model has no tokenizer"):
        model.generate("Nel", 1)
    model.tokenizer = CharTokenizer.from_state(legacy["tokenizer"])
    assert model.generate("Nel", 1).startswith("Nel")

    with pytest.raises(ValueError, match="records no tokenizer; say which"):
        manager.initialize_for_training(config, None, text)
    with (
        pytest.raises(ValueError, match="the text has 10 characters, .* trained on 41"),
        pytest.warns(UserWarning, match="records no tokenizer; using 'char'"),
    ):
        manager.initialize_for_training(config, "char", "0123456789")
    with pytest.warns(UserWarning, match="records no tokenizer; using 'char'"):
        resumed = manager.initialize_for_training(config, "char", text)[0]
    assert resumed.tokenizer_state == legacy["tokenizer"]


def test_unknown_fields_go_through_a_resumed_run(trained: Trained, text: str) -> None:
    trained()
    config = Path("checkpoints/dante/config.json")
    state = Path("checkpoints/dante/training_state.json")
    config.write_text(json.dumps({**json.loads(config.read_text()), "use_loss_mask": True}))
    state.write_text(json.dumps({**json.loads(state.read_text()), "training_config": {"a": 1}}))

    trained(steps=4)

    assert json.loads(config.read_text())["use_loss_mask"] is True
    written = json.loads(state.read_text())
    assert written["training_config"] == {"a": 1}
    assert written["step"] == 4


def test_the_device_stays_as_it_is_written(
    legacy_file: Path, legacy: dict[str, Any], text: str
) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    torch.save({**legacy, "config": {**legacy["config"], "device": "cuda"}}, legacy_file)
    config = GPTConfig.from_dict({**legacy["config"], "device": "cpu"})

    with pytest.warns(UserWarning, match="device 'cuda' is not available here; using the CPU"):
        model, optimizer, step = CheckpointManager("dante").initialize_for_training(
            config, "char", text
        )
    loader = GPTDataLoader(model.config, model)
    loader.prepare_data(text)
    model.fit(loader, optimizer, step + 1, eval_iters=1, start_step=step,
              checkpoint_dir="checkpoints/dante")  # fmt: skip

    assert model.device == torch.device("cpu")
    assert json.loads(Path("checkpoints/dante/config.json").read_text())["device"] == "cuda"
    assert ckptstore.open("checkpoints/dante").step == 21
