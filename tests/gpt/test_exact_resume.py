"""G8: N steps equal k steps, a kill, and N-k steps, bit for bit, dropout on."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import ckptstore
from gpt.checkpoint import CheckpointManager
from gpt.data import GPTDataLoader
from gpt.model import GPT

# Trains in a process of its own, and kills it in the middle of a step where it is told to.
TRAINING = """
import json, os, signal, sys
import torch
from gpt.checkpoint import CheckpointManager
from gpt.data import GPTDataLoader
from gpt.model import GPTConfig

tokenization, name, last, die_at, text = sys.argv[1:]

class Loader(GPTDataLoader):
    taken = 0
    def get_batch(self, split, *, generator=None):
        self.taken += generator is None
        if self.taken == int(die_at):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().get_batch(split, generator=generator)

torch.set_num_threads(1)
torch.manual_seed(1)
config = GPTConfig(batch_size=2, block_size=8, n_embd=8, n_head=2, n_layer=1, dropout=0.2,
                   device="cpu")
text = open(text, encoding="utf-8").read()
manager = CheckpointManager(name)
model, optimizer, step = manager.initialize_for_training(config, tokenization, text)
torch.rand(step)  # whatever happens between the two must not matter
loader = Loader(model.config, model.tokenizer)
loader.prepare_data(text)
losses = model.fit(loader, optimizer, int(last), eval_interval=5, eval_iters=2,
                   checkpoint_dir=manager.checkpoint_dir, start_step=step)
print(json.dumps([step, losses]))
"""


def _last_line(result: subprocess.CompletedProcess[str]) -> Any:
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


def _weights(name: str) -> dict[str, torch.Tensor]:
    return torch.load(f"checkpoints/{name}/model.pt", weights_only=True)


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_equal(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(_equal, one, other))
    return one == other


@pytest.mark.parametrize("tokenization", ["gpt2"])
def test_a_killed_run_ends_as_one_that_was_not(
    tokenization: str,
    gpt2_files: Path,
    shell: Callable[..., subprocess.CompletedProcess[str]],
    tmp_path: Path,
    text: str,
) -> None:
    (tmp_path / "text").write_text(text, encoding="utf-8")
    arguments = ("-c", TRAINING, tokenization)

    whole = _last_line(shell(*arguments, "whole", 12, 0, "text"))
    killed = shell(*arguments, "killed", 12, 8, "text")
    assert killed.returncode == -signal.SIGKILL
    assert ckptstore.open("checkpoints/killed").step == 5
    resumed = _last_line(shell(*arguments, "killed", 12, 0, "text"))

    assert (whole[0], resumed[0]) == (0, 5)
    assert whole[1] == resumed[1]
    one, other = ckptstore.open("checkpoints/whole"), ckptstore.open("checkpoints/killed")
    assert _equal(_weights("whole"), _weights("killed"))
    assert _equal(one.load_optimizer(), other.load_optimizer())
    assert _equal(one.load_state("rng"), other.load_state("rng"))
    assert one.step == other.step == 12


def _begin(name: str, text: str, make_config: Any) -> tuple[GPT, Any, int, GPTDataLoader]:
    model, optimizer, step = CheckpointManager(name).initialize_for_training(
        make_config(), "char", text
    )
    loader = GPTDataLoader(model.config, model.tokenizer)
    loader.prepare_data(text)
    return model, optimizer, step, loader


def _fit(model: GPT, optimizer: Any, step: int, loader: GPTDataLoader, **settings: Any) -> Any:
    return model.fit(loader, optimizer, start_step=step, eval_iters=1, **settings)


def test_evaluating_more_often_changes_nothing(text: str, make_config: Any) -> None:
    ends = []
    for interval in (1, 7):
        torch.manual_seed(3)
        begun = _begin("none", text, make_config)
        _fit(*begun, max_iters=7, eval_interval=interval)
        ends.append(begun[0].state_dict())

    assert _equal(*ends)


def test_step_counts_finished_steps_and_the_last_one_is_saved(text: str, make_config: Any) -> None:
    _fit(*_begin("dante", text, make_config), max_iters=7, eval_interval=3,
         checkpoint_dir="checkpoints/dante")  # fmt: skip
    checkpoint = ckptstore.open("checkpoints/dante")

    assert checkpoint.step == 7
    assert json.loads(Path("checkpoints/dante/training_state.json").read_text())["step"] == 7
    optimizer = checkpoint.load_optimizer()
    assert optimizer is not None
    assert {int(each["step"]) for each in optimizer["state"].values()} == {7}


def test_a_total_that_is_reached_already_returns_at_once(text: str, make_config: Any) -> None:
    _fit(*_begin("dante", text, make_config), max_iters=3, checkpoint_dir="checkpoints/dante")
    generation = ckptstore.open("checkpoints/dante").generation

    model, optimizer, step, loader = _begin("dante", text, make_config)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    losses = _fit(model, optimizer, step, loader, max_iters=3, checkpoint_dir="checkpoints/dante")

    assert (step, losses) == (3, {})
    assert _equal(before, model.state_dict())
    assert ckptstore.open("checkpoints/dante").generation == generation


def test_a_resume_by_hand_is_exact_too(text: str, make_config: Any) -> None:
    torch.manual_seed(4)
    _fit(*_begin("whole", text, make_config), max_iters=6, eval_interval=3,
         checkpoint_dir="checkpoints/whole")  # fmt: skip
    torch.manual_seed(4)
    _fit(*_begin("half", text, make_config), max_iters=3, checkpoint_dir="checkpoints/half")

    model, _, step, state = GPT.load("checkpoints/half")
    loader = GPTDataLoader(model.config, model)
    loader.prepare_data(text)
    assert step is not None
    _fit(model, model.configure_optimizer(optimizer_state=state), step, loader, max_iters=6,
         checkpoint_dir="checkpoints/half")  # fmt: skip

    assert _equal(_weights("whole"), _weights("half"))


def test_another_text_is_said_and_trained_on(text: str, make_config: Any) -> None:
    _fit(*_begin("dante", text, make_config), max_iters=3, checkpoint_dir="checkpoints/dante")
    begun = _begin("dante", text[:-5], make_config)

    with pytest.warns(UserWarning, match="not the text that the run was trained on"):
        _fit(*begun, max_iters=4)


@pytest.mark.parametrize("name", ["eval_interval", "eval_iters"])
def test_a_number_out_of_range_is_named(text: str, make_config: Any, name: str) -> None:
    model, optimizer, _, loader = _begin("none", text, make_config)

    with pytest.raises(ValueError, match=f"{name} is 0"):
        model.fit(loader, optimizer, 3, **{name: 0})
