"""A training of a tiny GPT-2 by the real Trainer, in a process of its own; killed if so asked."""

from __future__ import annotations

import contextlib
import os
import signal
from typing import Any


def main(asked: dict[str, Any]) -> None:
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

    from ckptstore.testing import inject

    torch.set_num_threads(1)
    set_seed(1)

    class Killer(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == asked.get("kill_at_step"):
                os.kill(os.getpid(), signal.SIGKILL)

    def fault(operation: Any, perform: Any) -> Any:
        name, path = asked.get("kill_at", ("", ""))
        if operation.name == name and path in operation.path:
            os.kill(os.getpid(), signal.SIGKILL)
        return perform()

    size = {"n_layer": 2, "n_embd": 16, "n_head": 2, "n_positions": 16, "vocab_size": 40}
    model = GPT2LMHeadModel(GPT2Config(**size, bos_token_id=0, eos_token_id=0))
    numbers = torch.Generator().manual_seed(5)
    rows = torch.randint(0, 40, (48, 16), generator=numbers)
    data = [{"input_ids": row, "labels": row} for row in rows]
    arguments = {
        "max_steps": 16,
        "save_steps": 4,
        "eval_steps": 4,
        "eval_strategy": "steps",
        "logging_steps": 1,
        "per_device_train_batch_size": 4,
        "learning_rate": 3e-2,
        "use_cpu": True,
        "report_to": [],
        "disable_tqdm": True,
        "seed": 1,
        "dataloader_pin_memory": False,
    }
    callbacks: list[Any] = [Killer()]
    options = asked.get("storage_options")
    if asked.get("location"):
        more = asked.get("callback", {})
        callbacks.append(StoreCallback(asked["location"], storage_options=options, **more))
    trainer = Trainer(
        model,
        TrainingArguments(asked["output_dir"], **{**arguments, **asked.get("arguments", {})}),
        train_dataset=data[:40],
        eval_dataset=data[40:],
        callbacks=callbacks,
    )
    begin = asked.get("resume_from")
    if "resume" in asked:
        more = {**asked["resume"], "storage_options": options}
        begin = resume(asked["location"], asked["output_dir"], **more)
    with inject(fault) if "kill_at" in asked else contextlib.nullcontext():
        trainer.train(resume_from_checkpoint=begin)
    if not trainer.is_world_process_zero():
        return
    torch.save(trainer.model.state_dict(), os.path.join(asked["output_dir"], "final.pt"))
    trainer.state.save_to_json(os.path.join(asked["output_dir"], "final.json"))
