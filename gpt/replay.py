"""``python -m gpt.replay``: go on from one step of a checkpoint, in this fresh process.

What `gpt.verify_resume` starts. It reads the checkpoint, trains as a run that resumes does, and
saves what comes of it elsewhere; the checkpoint itself is not written to.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gpt.commands import Command

if TYPE_CHECKING:
    from ckptstore import Checkpoint

__all__ = ["Recorded", "main", "recorded_of"]


@dataclass(frozen=True)
class Recorded:
    """What a checkpoint says of the run that it is of.

    Attributes:
        sha256: of the tokens that were trained on; None where nothing says it.
        trail: see `gpt.trail.Trail.state`; empty where an older release wrote the checkpoint.
        processes: how many trained together.
    """

    sha256: str | None
    trail: dict[str, Any]
    processes: int


def recorded_of(checkpoint: Checkpoint) -> Recorded | None:
    """Return what a checkpoint of ours says of its run; None where it has no random states."""
    from gpt.pending import OTHER_RANKS, RNG, is_rng_state
    from gpt.trail import TRAIL

    rng = checkpoint.load_state(RNG) if RNG in checkpoint.states() else None
    if not is_rng_state(rng):
        return None
    others = rng.get(OTHER_RANKS)
    processes = 1 + (len(others) if isinstance(others, list) else 0)
    return Recorded(rng["data"].get("sha256"), dict(rng.get(TRAIL) or {}), processes)


@click.command("replay", cls=Command, hidden=True)
@click.argument("location")
@click.argument("step", type=int)
@click.argument("until", type=int)
@click.argument("destination")
@click.option("--input_file", type=click.Path(path_type=Path), required=True)
@click.option("--eval_interval", type=int, required=True)
@click.option("--eval_iters", type=int, required=True)
@click.option("--threads", type=int, required=True)
def main(
    location: str,
    step: int,
    until: int,
    destination: str,
    input_file: Path,
    eval_interval: int,
    eval_iters: int,
    threads: int,
) -> None:
    """Go on from STEP of LOCATION UNTIL a step, and save that step in DESTINATION."""
    import torch

    import ckptstore
    from gpt import bundle
    from gpt.beginning import loader_of, text_of
    from gpt.model import GPT
    from gpt.saves import Saves

    torch.set_num_threads(threads)
    checkpoint = ckptstore.open(location, step=step)
    model = bundle.load_model(GPT, checkpoint)
    bundle.carry(model, checkpoint)
    optimizer = model.configure_optimizer(optimizer_state=checkpoint.load_optimizer())
    loader = loader_of(model, text_of(input_file))
    recorded = recorded_of(checkpoint)
    if recorded is not None and loader.state_dict()["sha256"] != recorded.sha256:
        raise ValueError(
            f"{input_file} is not the text that {checkpoint.location} was trained on; "
            "say which with --input_file"
        )
    model.fit(
        loader,
        optimizer,
        until,
        eval_interval=eval_interval,
        eval_iters=eval_iters,
        checkpoint_dir=destination,
        start_step=step,
        saves=Saves(interval=until, keep=ckptstore.Keep()),
    )


if __name__ == "__main__":
    main(prog_name="python -m gpt.replay")
