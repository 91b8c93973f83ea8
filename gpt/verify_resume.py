"""``gpt verify-resume``: prove that going on from a checkpoint is exact, bit for bit (G8).

A fresh process goes on from one step to a later one, and what it gets is held against what was
recorded: the loss of every step, the evaluations, and the digests of weights and optimizer. In a
history the later step is there. Of a single checkpoint only the newest state is: so one process
records what follows, and two others do the same with an end in the middle.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gpt.commands import Command, base_dir, clean, model_name
from gpt.replay import Recorded, recorded_of

if TYPE_CHECKING:
    from ckptstore import Checkpoint

__all__ = ["main"]

_STEPS = 20
_STDERR = 2
_UNMEASURED = ("time",)
_SURROUNDINGS = {"torch": "torch", "threads": "the number of threads", "machine": "the machine"}


@dataclass
class Comparison:
    """What a replay was held against, and where it differs.

    Attributes:
        location: of the checkpoint.
        from_step: where the replay began.
        to_step: where it ended.
        recorded: ``history`` where the later step was there, else ``now``.
        losses: how many losses of steps were compared.
        evaluations: how many evaluations were.
        digests: how many files were.
        differences: a sentence for each thing that differs; the first loss only.
        notes: what was not compared, and what is not as it was.
    """

    location: str
    from_step: int
    to_step: int
    recorded: str
    losses: int = 0
    evaluations: int = 0
    digests: int = 0
    differences: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def exact(self) -> bool:
        """Whether nothing differs."""
        return not self.differences

    def compare(self, recorded: Checkpoint, replayed: Checkpoint) -> None:
        """Hold one state of the same step against another.

        Raises:
            ValueError: nothing of it was recorded.
        """
        there, here = recorded_of(recorded), recorded_of(replayed)
        if there is not None and here is not None:
            self._compare_losses(there, here)
            self._note_surroundings(there, here)
        self._compare_rows(recorded, replayed)
        self._compare_digests(recorded, replayed)
        if not (self.losses or self.evaluations or self.digests):
            raise ValueError(
                f"nothing that was recorded in {self.location} up to step {self.to_step} can be "
                "compared: it has no losses, no evaluations and no model.pt; convert it to a bundle"
            )
        if not self.digests:
            self.notes.append(
                f"the weights were not compared: {self.location} has no model.pt, for it is in the "
                f"format {recorded.format!r}"
            )

    def _compare_losses(self, recorded: Recorded, replayed: Recorded) -> None:
        there, here = recorded.trail.get("losses"), replayed.trail.get("losses")
        if there is None or here is None:
            self.notes.append("the checkpoint has no losses of steps: an older release wrote it")
            return
        known = min(self.to_step - self.from_step, len(there), len(here))
        pairs = zip(there[-known:].tolist(), here[-known:].tolist(), strict=True)
        for step, (one, other) in enumerate(pairs, self.to_step - known + 1):
            self.losses += 1
            if one != other and not (one != one and other != other):
                self.differences.append(
                    f"step {step}: the loss was {one!r}, and is {other!r} when it is replayed, "
                    f"{abs(one - other):.3g} apart"
                )
                return

    def _compare_rows(self, recorded: Checkpoint, replayed: Checkpoint) -> None:
        there, here = (self._rows(checkpoint) for checkpoint in (recorded, replayed))
        for step in sorted(there.keys() & here.keys()):
            self.evaluations += 1
            if there[step] != here[step]:
                self.differences.append(
                    f"step {step}: it was evaluated as {there[step]}, and is as {here[step]} "
                    "when it is replayed"
                )
                return

    def _rows(self, checkpoint: Checkpoint) -> dict[int, dict[str, Any]]:
        return {
            row["step"]: {name: value for name, value in row.items() if name not in _UNMEASURED}
            for row in checkpoint.load_metrics_log()
            if isinstance(row.get("step"), int) and self.from_step < row["step"] <= self.to_step
        }

    def _compare_digests(self, recorded: Checkpoint, replayed: Checkpoint) -> None:
        there, here = recorded.files(), replayed.files()
        for name in ("model.pt", "optimizer.pt"):
            if name not in there or name not in here:
                continue
            self.digests += 1
            if there[name].sha256 != here[name].sha256:
                self.differences.append(
                    f"step {self.to_step}: {name} has sha256 {there[name].sha256}, "
                    f"and {here[name].sha256} when it is replayed"
                )

    def _note_surroundings(self, recorded: Recorded, replayed: Recorded) -> None:
        for name, called in _SURROUNDINGS.items():
            one, other = recorded.trail.get(name), replayed.trail.get(name)
            if one is not None and one != other:
                self.notes.append(f"{called} was {one}, and is {other} here")


@click.command("verify-resume", cls=Command)
@model_name
@base_dir
@click.option(
    "--from_step",
    type=click.IntRange(min=0),
    metavar="N",
    help="Where to begin; by default the last step but one of a history, or the newest state.",
)
@click.option(
    "--steps",
    type=click.IntRange(min=2),
    metavar="K",
    help="How many steps at most. By default up to the next step of the history; of a single "
    f"checkpoint {_STEPS}.",
)
@click.option(
    "--input_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="The text that it was trained on; by default the one that ships with gpt.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.pass_context
def main(
    context: click.Context,
    model_name: str,
    base_dir: str,
    from_step: int | None,
    steps: int | None,
    input_file: Path | None,
    as_json: bool,
) -> None:
    """Prove that going on from a checkpoint is exact, bit for bit.

    Goes on from a step in a fresh process, and compares each loss and the digests of weights and
    optimizer with those that were recorded. Nothing is saved into the checkpoint. The exit code is
    1 where something differs.
    """
    from gpt.checkpoint import CheckpointManager

    location = CheckpointManager(model_name, base_dir).checkpoint_dir
    first, last = _span(location, from_step, steps)
    with tempfile.TemporaryDirectory(prefix="gpt-verify-resume-") as folder:
        work = _Work(context, location, first, input_file, folder)
        found = work.against(last) if last is not None else work.recorded_now(steps or _STEPS)
    if as_json:
        click.echo(json.dumps({"exact": found.exact, **asdict(found)}, indent=2))
    else:
        _say(found)
    if not found.exact:
        context.exit(1)


def _span(location: str, first: int | None, steps: int | None) -> tuple[int, int | None]:
    """Return the step to begin at, and the later one that is there; None where there is none.

    Raises:
        NotFoundError: nothing is there, or not this step.
    """
    import ckptstore

    there = ckptstore.Store(location).steps()
    newest = ckptstore.open(location)
    if first is None:
        earlier = [step for step in there if step < (newest.step or 0)]
        first = earlier[-1] if earlier and newest.step in there else newest.step or 0
    else:
        ckptstore.open(location, step=first)
    later = [step for step in there if step > first]
    within = [step for step in later if steps is None or step <= first + steps]
    if later and not within:
        raise click.UsageError(
            f"the next step after {first} is {later[0]}: --steps has to be {later[0] - first} "
            "at least"
        )
    return first, None if not within else within[0] if steps is None else within[-1]


class _Work:
    """Replays of one checkpoint, each in a fresh process, saved into a folder.

    Args:
        context: of the command; it ends with a replay's exit code where that fails.
        location: of the checkpoint.
        first: the step to begin at.
        input_file: as given.
        folder: where what comes of it is saved.
    """

    def __init__(
        self,
        context: click.Context,
        location: str,
        first: int,
        input_file: Path | None,
        folder: str,
    ) -> None:
        from gpt.train import SAMPLE_TEXT

        self._context = context
        self._location = location
        self._first = first
        self._input = input_file or SAMPLE_TEXT
        self._folder = folder

    def against(self, last: int) -> Comparison:
        """Hold a replay against a later step of the history."""
        import ckptstore

        recorded = ckptstore.open(self._location, step=last)
        self._replay(self._location, self._first, last, "replayed", like=recorded)
        return self._compared(recorded, self._opened("replayed", last), "history")

    def recorded_now(self, steps: int) -> Comparison:
        """Hold steps in one process against the same ones in two."""
        import ckptstore

        start = ckptstore.open(self._location, step=self._first)
        middle, last = self._first + steps // 2, self._first + steps
        self._replay(self._location, self._first, last, "recorded", like=start)
        self._replay(self._location, self._first, middle, "replayed", like=start)
        self._replay(f"{self._folder}/replayed", middle, last, "replayed", like=start)
        return self._compared(self._opened("recorded", last), self._opened("replayed", last), "now")

    def _compared(self, recorded: Checkpoint, replayed: Checkpoint, how: str) -> Comparison:
        found = Comparison(recorded.location, self._first, replayed.step or 0, how)
        if how == "now":
            found.location = self._location
        found.compare(recorded, replayed)
        return found

    def _opened(self, name: str, step: int) -> Checkpoint:
        import ckptstore

        return ckptstore.open(f"{self._folder}/{name}", step=step)

    def _replay(self, location: str, first: int, last: int, name: str, *, like: Checkpoint) -> None:
        import torch

        recorded = recorded_of(like)
        trail = {} if recorded is None else recorded.trail
        if recorded is not None and recorded.processes > 1:
            raise ValueError(
                f"{like.location} was trained by {recorded.processes} processes together, and is "
                "replayed by one: that is not exact"
            )
        settings = {
            "input_file": self._input,
            "eval_interval": trail.get("eval_interval", last),
            "eval_iters": trail.get("eval_iters", 1),
            "threads": trail.get("threads", torch.get_num_threads()),
        }
        options = [part for key, value in settings.items() for part in (f"--{key}", str(value))]
        asked = [location, str(first), str(last), f"{self._folder}/{name}", *options]
        # Our own output is the result alone.
        done = subprocess.run(  # noqa: S603  (ourselves)
            [sys.executable, "-m", "gpt.replay", *asked], stdout=_STDERR, check=False
        )
        if done.returncode:
            self._context.exit(done.returncode if done.returncode > 0 else 1)


def _say(found: Comparison) -> None:
    for note in found.notes:
        click.echo(f"note: {clean(note)}")
    for difference in found.differences:
        click.echo(f"NOT EXACT: {clean(difference)}")
    if found.exact:
        steps = found.to_step - found.from_step
        how = "recorded in the history" if found.recorded == "history" else "recorded just now"
        click.echo(
            f"exact over {steps} steps, {found.from_step} to {found.to_step}, against what was "
            f"{how}: {found.losses} losses, {found.evaluations} evaluations and the sha256 of "
            f"{found.digests} files are the same"
        )


if __name__ == "__main__":
    main(prog_name="python -m gpt.verify_resume")
