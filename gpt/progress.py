"""What a training shows of itself: a bar on a terminal, a line for each evaluation everywhere."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    import torch

__all__ = ["Progress"]


class Progress:
    """A bar on a terminal, and a line for each evaluation everywhere."""

    def __init__(self, start: int, total: int) -> None:
        self._width = len(str(total))
        self._total = total
        self._bar = None
        if sys.stdout.isatty():
            self._bar = click.progressbar(
                length=total, label="training", show_pos=True, item_show_func=self._show_loss
            )
            self._bar.update(start)

    def __enter__(self) -> Progress:
        if self._bar is not None:
            self._bar.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.__exit__(kind, value, traceback)

    def advance(self, loss: torch.Tensor) -> None:
        """Count a finished step."""
        if self._bar is not None:
            self._bar.update(1, loss)

    def report(self, step: int, losses: dict[str, float], saved: str) -> None:
        """Print the line of an evaluation, or of a save.

        Args:
            step: which.
            losses: what was measured, by split; may be empty.
            saved: the word for what became of the save; may be empty.
        """
        parts = [f"{split} loss {loss:.4f}" for split, loss in losses.items()]
        parts += [saved] if saved else []
        self.say(f"step {step:{self._width}}/{self._total}: {', '.join(parts)}")

    def say(self, line: str) -> None:
        """Print a line, above the bar where there is one."""
        if self._bar is None:
            click.echo(line)
        else:  # in place of the bar, which is drawn again below
            click.echo(f"\r\x1b[2K{line}")
            self._bar.render_progress()

    @staticmethod
    def _show_loss(loss: torch.Tensor | None) -> str | None:
        return None if loss is None else f"loss {loss.item():.4f}"
