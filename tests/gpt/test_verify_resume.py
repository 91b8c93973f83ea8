"""`gpt verify-resume` proves that going on is exact, and finds out where it is not (G8)."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

import ckptstore
from gpt.pending import RNG
from gpt.trail import TRAIL
from gpt.verify_resume import Comparison

Train = Callable[..., Result]
QUICK = ["--batch_size", 2, "--block_size", 8, "--n_embd", 8, "--n_head", 2, "--n_layer", 1,
         "--dropout", 0.2, "--eval_iters", 1, "--seed", 1, "--device", "cpu"]  # fmt: skip


@pytest.fixture
def history(run: Any) -> ckptstore.Store:
    """Give the history of a run that saved the steps 4 and 8, and evaluated on the way."""
    arguments = ["train", "--model_name", "dante", *QUICK, "--max_iters", 8, "--eval_interval", 2]
    run(*arguments, "--save_interval", 4, "--keep_last", 9)
    return ckptstore.Store("checkpoints/dante", keep=ckptstore.Keep())


def _verify(run: Any, *options: object) -> Result:
    return run("verify-resume", "--model_name", "dante", *options)


def _again(
    history: ckptstore.Store, step: int, into: ckptstore.Store | None = None, **changes: Any
) -> None:
    """Save a step again with some of its random states changed."""
    there = history.open(step=step)
    states = {name: there.load_state(name) for name in there.states()}
    states[RNG] = {**states[RNG], **changes}
    (into or history).save(
        model=there.load_model(),
        config=there.config,
        tokenizer=there.tokenizer_state,
        optimizer=there.load_optimizer(),
        step=step,
        state=states,
        metrics_log=there.load_metrics_log(),
        overwrite=True,
    )


def test_a_step_of_a_history_is_replayed_in_a_fresh_process_bit_for_bit(
    run: Any, history: ckptstore.Store
) -> None:
    before = {step: history.open(step=step).created for step in history.steps()}
    result = _verify(run, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["exact"] is True
    assert (found["from_step"], found["to_step"], found["recorded"]) == (4, 8, "history")
    assert (found["losses"], found["evaluations"], found["digests"]) == (4, 2, 2)
    assert {step: history.open(step=step).created for step in history.steps()} == before


def test_a_state_from_which_it_does_not_go_on_exactly_is_found_out(
    run: Any, history: ckptstore.Store
) -> None:
    rng = history.open(step=4).load_state(RNG)
    other = rng["torch"].clone()
    other[8] += 1  # of the generator's own words, so that dropout drops others
    _again(history, 4, torch=other)
    result = _verify(run)
    assert result.exit_code == 1
    assert "NOT EXACT: step 5: the loss was" in result.output
    assert "model.pt has sha256" in result.output
    assert "exact over" not in result.output


def test_a_recorded_loss_that_was_another_is_a_difference(history: ckptstore.Store) -> None:
    there = history.open(step=8)
    found = Comparison("checkpoints/dante", 4, 8, "history")
    found.compare(there, there)
    assert found.exact
    assert found.losses == 4
    trail = there.load_state(RNG)[TRAIL]
    trail["losses"][-1] += 1e-6
    other = ckptstore.Store("memory://other", keep=ckptstore.Keep())
    _again(history, 8, other, trail={**trail, "threads": trail["threads"] + 1})
    found.compare(there, other.open())
    assert [line.partition(":")[0] for line in found.differences] == ["step 8"]
    assert found.notes == [f"the number of threads was {trail['threads']}, and is "
                           f"{trail['threads'] + 1} here"]  # fmt: skip


def test_where_nothing_was_recorded_nothing_is_called_exact(legacy_file: Path) -> None:
    there = ckptstore.open(legacy_file.parent)
    with pytest.raises(ValueError, match="it has no losses, no evaluations and no model.pt"):
        Comparison("checkpoints/dante", 4, 8, "history").compare(there, there)


def test_a_single_checkpoint_is_recorded_and_replayed_with_an_end_in_the_middle(run: Any) -> None:
    run("train", "--model_name", "dante", *QUICK, "--max_iters", 3, "--eval_interval", 3)
    before = {path: path.read_bytes() for path in Path("checkpoints").rglob("*") if path.is_file()}
    result = _verify(run, "--steps", 4)
    assert result.exit_code == 0, result.output
    assert "exact over 4 steps, 3 to 7, against what was recorded just now: 4 losses" in (
        result.output
    )
    after = {path: path.read_bytes() for path in Path("checkpoints").rglob("*") if path.is_file()}
    assert after == before


def test_another_text_is_an_error_and_not_a_difference(
    run: Any, history: ckptstore.Store, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other.txt"
    other.write_text("nel mezzo del cammin di nostra vita " * 50, encoding="utf-8")
    result = _verify(run, "--input_file", other)
    assert result.exit_code == 2
    assert "is not the text that checkpoints/dante was trained on" in capfd.readouterr().err


def test_steps_that_reach_nothing_recorded_are_told(run: Any, history: ckptstore.Store) -> None:
    result = _verify(run, "--from_step", 4, "--steps", 2)
    assert result.exit_code == 2
    assert "the next step after 4 is 8: --steps has to be 4 at least" in result.output


def test_the_losses_of_a_run_do_not_depend_on_where_it_was_interrupted(run: Any) -> None:
    options = [*QUICK, "--eval_interval", 3]
    run("train", "--model_name", "whole", *options, "--max_iters", 6)
    run("train", "--model_name", "parts", *options, "--max_iters", 4)
    run("train", "--model_name", "parts", *options, "--max_iters", 6)
    one, other = (
        ckptstore.open(f"checkpoints/{name}").load_state(RNG)[TRAIL]["losses"].tolist()
        for name in ("whole", "parts")
    )
    assert len(one) == 6
    assert one == other
