"""A loop with Accelerate, in a process of its own; killed if so asked."""

from __future__ import annotations

import contextlib
import os
import random
import signal
from typing import Any


def main(asked: dict[str, Any]) -> None:
    import numpy as np
    import torch
    from accelerate import Accelerator, DataLoaderConfiguration, skip_first_batches
    from accelerate.utils import set_seed
    from ckptstore_transformers import load_state, save_state

    import ckptstore
    from ckptstore.testing import inject

    class Seen:
        """Something of the user's own, registered for checkpointing."""

        count = 0

        def state_dict(self) -> dict[str, Any]:
            return {"count": self.count}

        def load_state_dict(self, state: dict[str, Any]) -> None:
            self.count = state["count"]

    def fault(operation: Any, perform: Any) -> Any:
        name, path = asked.get("kill_at", ("", ""))
        if operation.name == name and path in operation.path:
            os.kill(os.getpid(), signal.SIGKILL)
        return perform()

    def network() -> torch.nn.Module:
        layers = torch.nn.Linear(4, 16), torch.nn.Dropout(0.2), torch.nn.Linear(16, 4)
        return torch.nn.Sequential(*layers)

    torch.set_num_threads(1)
    set_seed(3)
    stateful = asked.get("stateful", False)
    accelerator = Accelerator(
        cpu=True,
        gradient_accumulation_steps=2,
        dataloader_config=DataLoaderConfiguration(
            use_seedable_sampler=True, use_stateful_dataloader=stateful
        ),
    )
    first, second = network(), network()
    optimizers = [torch.optim.AdamW(one.parameters(), lr=0.01) for one in (first, second)]
    schedulers = [
        torch.optim.lr_scheduler.OneCycleLR(optimizers[0], 0.05, total_steps=100),
        torch.optim.lr_scheduler.SequentialLR(
            optimizers[1],
            [
                torch.optim.lr_scheduler.LinearLR(optimizers[1], 0.1, total_iters=5),
                torch.optim.lr_scheduler.MultiStepLR(optimizers[1], [2, 8]),
            ],
            [5],
        ),
    ]
    data = torch.randn(40, 4)
    loader = torch.utils.data.DataLoader(
        data, batch_size=4, shuffle=True, generator=torch.Generator().manual_seed(7)
    )
    prepared = accelerator.prepare(first, second, *optimizers, *schedulers, loader)
    first, second, *_ = prepared
    optimizers, schedulers, loader = prepared[2:4], prepared[4:6], prepared[6]
    seen = Seen()
    accelerator.register_for_checkpointing(seen)

    store = ckptstore.Store(
        asked["location"], keep=ckptstore.Keep(last=2), storage_options=asked.get("storage_options")
    )
    last = load_state(accelerator, store)
    losses = list(last.load_metrics_log()) if last else []
    step = last.step if last else 0
    with inject(fault) if "kill_at" in asked else contextlib.nullcontext():
        store = ckptstore.Store(
            asked["location"],
            keep=ckptstore.Keep(last=2),
            storage_options=asked.get("storage_options"),
        )
        while step < 26:
            rest = loader if stateful else skip_first_batches(loader, step % 10)
            for batch in rest:
                with accelerator.accumulate(first, second):
                    noisy = batch + random.random() + np.random.rand()
                    loss = (second(first(noisy)) - batch).square().mean()
                    accelerator.backward(loss)
                    for one in (*optimizers, *schedulers):
                        one.step()
                    for one in optimizers:
                        one.zero_grad()
                step, seen.count = step + 1, seen.count + len(batch)
                losses.append({"step": step, "loss": loss.item()})
                if step == asked.get("kill_at_step"):
                    os.kill(os.getpid(), signal.SIGKILL)
                if step % 4 == 0:
                    save_state(accelerator, store, step=step, metrics_log=losses)
                if step == 26:
                    break
            if not stateful:
                loader.iteration = step // 10
    final = {"first": first.state_dict(), "second": second.state_dict(), "losses": losses}
    torch.save({**final, "seen": seen.count}, asked["final"])
