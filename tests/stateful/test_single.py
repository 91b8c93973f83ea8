"""G2, G7: whatever actors do to a single checkpoint, in any order, nothing acknowledged is lost."""

from __future__ import annotations

import pytest
from hypothesis import given, settings

from tests.stateful.moves import QUICK, play, single_checkpoints
from tests.stateful.world import new_world


@pytest.mark.parametrize("kind", ["memory", "two levels", "tagged"])
def test_every_history_of_a_single_checkpoint_keeps_the_promises(kind):
    @QUICK
    @given(single_checkpoints())
    def hold(history):
        with new_world(kind, f"stateful-{kind}") as world:
            play(world, history)

    hold()


def test_histories_on_a_disk_keep_them(tmp_path):
    @settings(QUICK, max_examples=10)
    @given(single_checkpoints())
    def hold(history):
        with new_world("local", str(tmp_path)) as world:
            play(world, history)

    hold()


def test_one_writer_is_safe_where_two_are_not_kept_apart():
    @QUICK
    @given(single_checkpoints(writers=1))
    def hold(history):
        with new_world("one writer", "stateful-alone") as world:
            play(world, history)

    hold()
