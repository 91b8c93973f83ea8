"""G2, G3: a loss of power leaves a whole state, and after a save the new one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.acts import ACTS
from tests.faults.zygote import Zygote

# What these ask of the disk the others ask too; they are in `python -m tests.faults`.
LEFT_OUT = (
    "async",
    "carry an edit",
    "convert over",
    "sync an edit",
    "sync something large",
    "view becomes small",
)
UNSEEN = ("repair", "prune")
CHOSEN = [name for name, act in ACTS.items() if not (act.bound or name in LEFT_OUT)]


@pytest.mark.parametrize("name", CHOSEN)
def test_a_loss_of_power_leaves_a_whole_state(name: str, zygote: Zygote, fast_path: Path) -> None:
    result = zygote.run("tests.faults.outages", "outages", name, str(fast_path))

    assert result.wrong == []
    assert result.times >= 3
    assert len(result.seen) >= (1 if name in UNSEEN else 2)
