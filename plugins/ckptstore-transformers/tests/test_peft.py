"""An adapter (PEFT) is kept without the model that it is of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from ckptstore_transformers import StoreCallback, resume
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)

import ckptstore

peft = pytest.importorskip("peft")
# peft 0.21 asks what transformers 5.24 calls otherwise.
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is:FutureWarning")


def train(out: Path, location: Path, begin: str | None, steps: int) -> dict[str, Any]:
    set_seed(1)
    size = {"n_layer": 1, "n_embd": 16, "n_head": 2, "n_positions": 16, "vocab_size": 40}
    model = GPT2LMHeadModel(GPT2Config(**size, bos_token_id=0, eos_token_id=0))
    lora = peft.LoraConfig(r=2, target_modules=["c_attn"], fan_in_fan_out=True, lora_dropout=0.1)
    rows = torch.randint(0, 40, (24, 16), generator=torch.Generator().manual_seed(5))
    trainer = Trainer(
        peft.get_peft_model(model, lora),
        TrainingArguments(
            str(out),
            max_steps=6,
            save_steps=2,
            per_device_train_batch_size=4,
            learning_rate=0.1,
            use_cpu=True,
            report_to=[],
            disable_tqdm=True,
            dataloader_pin_memory=False,
        ),
        train_dataset=[{"input_ids": row, "labels": row} for row in rows],
        callbacks=[StoreCallback(location)],
    )
    if steps < 6:
        trainer.add_callback(Stopping(steps))
    trainer.train(resume_from_checkpoint=begin)
    return dict(peft.get_peft_model_state_dict(trainer.model))


class Stopping(TrainerCallback):
    """Ends a training early."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        control.should_training_stop = state.global_step >= self.steps


def test_an_adapter_goes_on_where_it_was(tmp_path):
    whole = train(tmp_path / "whole", tmp_path / "store/whole", None, 6)
    train(tmp_path / "first", tmp_path / "store/parted", None, 4)
    checkpoint = ckptstore.open(tmp_path / "store/parted")
    assert checkpoint.step == 4
    assert all("lora" in name for name in checkpoint.tensors())

    begin = resume(tmp_path / "store/parted", tmp_path / "second")
    ended = train(tmp_path / "second", tmp_path / "store/parted", begin, 6)

    assert (Path(str(begin)) / "adapter_config.json").exists()
    assert ended.keys() == whole.keys()
    assert all(torch.equal(ended[name], whole[name]) for name in whole)
