"""G2, G7: whatever actors do to the steps of a history, in any order, none is lost or mixed."""

from __future__ import annotations

import pytest
from hypothesis import given, settings

from tests.stateful.moves import QUICK, histories, play
from tests.stateful.world import new_world


@pytest.mark.parametrize("kind", ["memory", "two levels"])
def test_every_history_of_steps_keeps_the_promises(kind):
    @QUICK
    @given(histories())
    def hold(history):
        with new_world(kind, f"stateful-steps-{kind}", history=True) as world:
            play(world, history)

    hold()


def test_histories_of_steps_on_a_disk_keep_them(tmp_path):
    @settings(QUICK, max_examples=10)
    @given(histories())
    def hold(history):
        with new_world("local", str(tmp_path), history=True) as world:
            play(world, history)

    hold()


def test_one_writer_of_steps_is_safe_where_two_are_not_kept_apart():
    @QUICK
    @given(histories(writers=1))
    def hold(history):
        with new_world("one writer", "stateful-steps-alone", history=True) as world:
            play(world, history)

    hold()
