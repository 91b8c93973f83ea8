"""What a checkpoint is one of: the steps of its history, or the generations before it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ckptstore.cli.screen import ago, plural, when

if TYPE_CHECKING:
    from ckptstore.checkpoint import Checkpoint
    from ckptstore.history import Steps

__all__ = ["document", "rows"]


def rows(checkpoint: Checkpoint, steps: Steps | None) -> list[tuple[str, str]]:
    """Return names and values for people; nothing where there is nothing else.

    Args:
        checkpoint: what is shown.
        steps: of the history that it is a step of.
    """
    if steps is not None:
        span = "" if steps.count == 1 else f", {steps.first} to {steps.last}"
        shown = "the newest" if checkpoint.step == steps.last else f"step {checkpoint.step}"
        newest = f"step {steps.last}"
        if steps.created:
            age = ago(steps.created)
            newest += f", saved {when(steps.created)}{f' ({age})' if age else ''}"
        return [
            ("steps", f"{plural(steps.count, 'step')}{span}"),
            ("newest", newest),
            ("shown", shown),
        ]
    if checkpoint.generation is None or checkpoint.generation == 1:
        return []
    forerunners = checkpoint.generation - 1
    return [("generation", f"{checkpoint.generation}, after {plural(forerunners, 'forerunner')}")]


def document(checkpoint: Checkpoint, steps: Steps | None) -> dict[str, Any] | None:
    """Return the same as JSON has it; None where nothing was ever committed.

    Args:
        checkpoint: what is shown.
        steps: of the history that it is a step of.
    """
    if steps is not None:
        return {
            "steps": {"count": steps.count, "first": steps.first, "last": steps.last},
            "newest": {"step": steps.last, "created": steps.created},
            "shown": checkpoint.step,
        }
    if checkpoint.generation is None:
        return None
    return {
        "generation": checkpoint.generation,
        "forerunners": checkpoint.generation - 1,
        "remembered": _known(checkpoint),
    }


def _known(checkpoint: Checkpoint) -> dict[str, int]:
    """Return how many different files of forerunners the manifest has digests of, by name."""
    manifest = checkpoint.source.manifest
    earlier = manifest.earlier if manifest is not None else {}
    return {name: len(digests) for name, digests in earlier.items() if digests}
