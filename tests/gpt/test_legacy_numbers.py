"""The old file computes what the old code computed from it, straight and converted."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch

import ckptstore
from gpt.checkpoint import CheckpointManager
from gpt.model import GPT

CLOSE = 1e-5


@pytest.fixture(params=["file", "folder", "converted", "and back"])
def location(request: pytest.FixtureRequest, legacy_file: Path, tmp_path: Path) -> Path:
    if request.param == "file":
        return legacy_file
    if request.param in ("converted", "and back"):
        ckptstore.convert(legacy_file, tmp_path / "new")
    if request.param == "converted":
        return tmp_path / "new"
    if request.param == "and back":
        ckptstore.convert(tmp_path / "new", tmp_path / "again.pt", "legacy")
        return tmp_path / "again.pt"
    return legacy_file.parent


def test_logits_are_those_of_the_old_code(location: Path, expected: dict[str, Any]) -> None:
    model, _, step, _ = GPT.load(location)
    model.eval()

    logits, loss = model(torch.tensor(expected["input_ids"])[None])

    assert step == 20
    assert loss is None
    assert logits.shape == (1, 16, 41)
    last = torch.tensor(expected["logits_last"])
    assert torch.allclose(logits[0, -1, : len(last)], last, rtol=0, atol=CLOSE)
    assert logits.double().sum().item() == pytest.approx(expected["logits_sum"], abs=CLOSE)


def test_greedy_text_is_that_of_the_old_code(location: Path, expected: dict[str, Any]) -> None:
    model = GPT.load(location)[0]

    written = model.generate("Nel mezzo", 24, temperature=0)

    assert written == expected["greedy_text"]
    assert model.encode(written) == expected["greedy_ids"]


def test_an_optimizer_step_is_that_of_the_old_code(
    location: Path, expected: dict[str, Any]
) -> None:
    model, _, _, state = GPT.load(location)
    model.eval()
    optimizer = model.configure_optimizer(3e-4, state)
    x = torch.arange(32).reshape(2, 16) % model.config.vocab_size

    _, loss = model(x, (x + 1) % model.config.vocab_size)
    loss.backward()
    optimizer.step()

    assert loss.item() == pytest.approx(expected["step_loss"], abs=CLOSE)
    sums = {name: value.double().sum().item() for name, value in model.named_parameters()}
    assert list(sums) == list(expected["after_step"])
    assert sums == pytest.approx(expected["after_step"], abs=CLOSE)


def test_the_old_file_is_left_as_it_is(legacy_file: Path, text: str) -> None:
    before = hashlib.sha256(legacy_file.read_bytes()).hexdigest()
    manager = CheckpointManager("dante")
    model, optimizer, step = manager.initialize_for_training(
        GPT.load(legacy_file)[0].config, "char", text
    )
    from gpt.data import GPTDataLoader

    loader = GPTDataLoader(model.config, model.tokenizer)
    loader.prepare_data(text)

    model.fit(loader, optimizer, 22, eval_iters=1, checkpoint_dir=manager.checkpoint_dir,
              start_step=step)  # fmt: skip

    assert hashlib.sha256(legacy_file.read_bytes()).hexdigest() == before
    assert ckptstore.open("checkpoints/dante").format == "bundle"
    assert ckptstore.open("checkpoints/dante").step == 22
    assert ckptstore.open(legacy_file).step == 20


def test_the_raw_state_dict_of_the_old_code_loads(legacy: dict[str, Any]) -> None:
    from gpt.config import GPTConfig

    model = GPT(GPTConfig.from_dict(legacy["config"]), legacy["tokenizer"])

    model.load_state_dict(legacy["model_state_dict"])

    assert not [name for name in model.state_dict() if name.endswith("tril")]
