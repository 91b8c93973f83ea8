"""A training saves into a history, beside a single checkpoint too, and goes back in one."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import Result

import ckptstore
from gpt.checkpoint import CheckpointManager
from gpt.data import GPTDataLoader
from gpt.saves import Saves

Train = Callable[..., Result]
QUICK = ["--batch_size", 2, "--block_size", 8, "--n_embd", 8, "--n_head", 2, "--n_layer", 1,
         "--dropout", 0.2, "--eval_iters", 1, "--seed", 1, "--device", "cpu"]  # fmt: skip


@pytest.fixture
def train(run: Any) -> Train:
    """Give a function that trains a tiny model called dante."""

    def train(*options: object, name: str = "dante") -> Result:
        return run("train", "--model_name", name, *QUICK, *options)

    return train


def _steps(name: str = "dante") -> tuple[int, ...]:
    return ckptstore.Store(f"checkpoints/{name}").steps()


def _weights(name: str, step: int | None = None) -> dict[str, torch.Tensor]:
    return ckptstore.open(f"checkpoints/{name}", step=step).load_model()


def _equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("options", [[], ["--async_saves"]])
def test_the_last_the_round_and_the_best_steps_stay(train: Train, options: list[str]) -> None:
    result = train("--max_iters", 12, "--eval_interval", 2, "--keep_last", 2, "--keep_every", 4,
                   "--keep_best", "train_loss", *options)  # fmt: skip

    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    losses = {row["step"]: row["train_loss"] for row in
              ckptstore.open("checkpoints/dante").load_metrics_log()}  # fmt: skip
    assert set(_steps()) == {4, 8, 10, 12, min(losses, key=lambda step: (losses[step], -step))}


def test_saves_have_an_interval_of_their_own(train: Train) -> None:
    result = train("--max_iters", 7, "--eval_interval", 4, "--save_interval", 3, "--keep_last", 9)

    assert _steps() == (3, 6, 7)
    lines = [line.partition(": ")[2] for line in result.stdout.splitlines()[1:-1]]
    assert [line.endswith("saved") for line in lines] == [True, False, True, True]
    assert [line.startswith("train loss") for line in lines] == [False, True, False, True]


def test_in_the_background_saved_is_said_once_it_is_true(train: Train) -> None:
    result = train("--max_iters", 4, "--eval_interval", 2, "--async_saves")

    lines = result.stdout.splitlines()[1:-1]
    assert [line.endswith(", saving") for line in lines] == [True, False, True, False]
    assert lines[1::2] == ["step 2 saved", "step 4 saved"]
    assert ckptstore.open("checkpoints/dante").step == 4


@pytest.mark.parametrize("options", [[], ["--async_saves"]])
def test_a_run_cut_in_two_ends_as_one_that_was_not(train: Train, options: list[str]) -> None:
    rest = ["--eval_interval", 4, "--save_interval", 3, "--keep_last", 5, *options]
    train("--max_iters", 10, *rest, name="whole")
    train("--max_iters", 6, *rest)
    torch.rand(7)

    resumed = train("--max_iters", 10, *rest)

    assert "going on at step 6" in resumed.stdout
    assert _equal(_weights("whole"), _weights("dante"))
    assert _equal(_weights("whole", 9), _weights("dante", 9))


def test_a_history_that_nobody_asks_for_goes_on_and_keeps_all(train: Train) -> None:
    train("--max_iters", 4, "--eval_interval", 2, "--keep_last", 5)

    result = train("--max_iters", 6, "--eval_interval", 1)

    assert "going on with a history: every step stays (--keep_last N keeps fewer)" in result.stdout
    assert _steps() == (2, 4, 5, 6)
    assert not Path("checkpoints/dante/model.pt").exists()


def test_steps_begin_beside_a_single_checkpoint_and_the_higher_step_is_the_newest(
    run: Any, train: Train
) -> None:
    train("--max_iters", 2)

    result = train("--max_iters", 4, "--eval_interval", 1, "--keep_last", 5)

    assert "going on at step 2" in result.stdout
    assert _steps() == (3, 4)
    assert ckptstore.Store("checkpoints/dante").generations() == (1,)
    assert ckptstore.open("checkpoints/dante").step == 4
    assert "Last recorded training step: 4" in run("inspect", "--model_name", "dante").stdout
    assert run("generate", "--model_name", "dante", "--max_new_tokens", 2).exit_code == 0
    assert "going on at step 4" in train("--max_iters", 5).stdout
    assert _steps() == (3, 4, 5)


def test_going_back_removes_the_later_steps_and_says_which(train: Train) -> None:
    train("--max_iters", 8, "--eval_interval", 2, "--keep_last", 9)
    before = _weights("dante")

    result = train("--max_iters", 8, "--eval_interval", 8, "--keep_last", 9, "--from_step", 4)

    assert result.stdout.splitlines()[0] == "went back to step 4: removed steps 6, 8"
    assert "going on at step 4" in result.stdout
    assert _steps() == (2, 4, 8)
    assert _equal(before, _weights("dante"))


def test_nothing_is_removed_where_one_cannot_go_back(train: Train) -> None:
    train("--max_iters", 6, "--eval_interval", 2, "--keep_last", 9)
    model = Path("checkpoints/dante/step-00000004/model.pt")
    model.write_bytes(model.read_bytes()[:-200] + bytes(200))

    absent = train("--max_iters", 8, "--from_step", 3)
    damaged = train("--max_iters", 8, "--from_step", 4)
    both = train("--max_iters", 8, "--from_step", 2, "--fallback")

    assert (absent.exit_code, damaged.exit_code, both.exit_code) == (3, 4, 2)
    assert "no checkpoint at step 3" in absent.stderr
    assert "exclude each other" in both.stderr
    assert _steps() == (2, 4, 6)


def test_going_back_to_the_single_checkpoint_removes_the_steps_beside_it(train: Train) -> None:
    train("--max_iters", 2)
    train("--max_iters", 4, "--eval_interval", 1, "--keep_last", 9)

    result = train("--max_iters", 3, "--from_step", 2)

    assert result.stdout.splitlines()[0] == "went back to step 2: removed steps 3, 4"
    assert _steps() == ()
    assert ckptstore.open("checkpoints/dante").step == 3


def test_a_damaged_step_is_replaced_by_the_run_that_passed_it_over(train: Train) -> None:
    train("--max_iters", 6, "--eval_interval", 2, "--keep_last", 9)
    before = _weights("dante")
    model = Path("checkpoints/dante/step-00000006/model.pt")
    model.write_bytes(model.read_bytes()[:-200] + bytes(200))

    result = train("--max_iters", 6, "--eval_interval", 2, "--keep_last", 9, "--fallback")

    assert result.exit_code == 0, result.output
    assert "going on at step 4" in result.stdout
    assert ckptstore.open("checkpoints/dante").verify().sound
    assert _equal(before, _weights("dante"))


def test_a_save_in_the_background_that_fails_is_a_warning_and_training_goes_on(
    train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = GPTDataLoader.get_batch
    moved = Path("checkpoints/elsewhere")

    def get_batch(self: Any, split: str, **rest: Any) -> Any:
        _blocked(split, rest, moved)
        return taken(self, split, **rest)

    steps = iter(range(1, 99))

    def _blocked(split: str, rest: Any, moved: Path) -> None:
        step = next(steps) if "generator" not in rest else 0
        blocked = Path("checkpoints/dante/step-00000002")
        if step == 1:
            blocked.parent.mkdir(parents=True)
            blocked.write_text("a file where the step's folder should be")

    monkeypatch.setattr(GPTDataLoader, "get_batch", get_batch)
    options = ["--eval_interval", 2, "--keep_last", 9, "--async_saves"]

    result = train("--max_iters", 4, *options)
    shutil.rmtree("checkpoints/dante")
    steps = iter(range(1, 99))
    failed = train("--max_iters", 2, *options)

    assert result.exit_code == 0, result.output
    assert "warning: a save in the background failed: " in result.stderr
    assert "step 2 is not saved" in result.stdout
    assert "step 4 saved" in result.stdout
    assert failed.exit_code == 1
    assert "error: " in failed.stderr


def test_a_manager_keeps_what_it_is_told_to(text: str, make_config: Any) -> None:
    manager = CheckpointManager("dante", keep=ckptstore.Keep(last=1))
    model, optimizer, step = manager.initialize_for_training(make_config(), "char", text)
    loader = GPTDataLoader(model.config, model)
    loader.prepare_data(text)

    model.fit(loader, optimizer, 3, eval_iters=1, checkpoint_dir=manager.checkpoint_dir,
              start_step=step, saves=Saves(interval=1, keep=manager.keep))  # fmt: skip

    assert _steps() == (3,)


def test_that_the_best_is_looked_for_among_few_steps_is_said(train: Train) -> None:
    result = train("--max_iters", 1, "--eval_interval", 4, "--save_interval", 6, "--keep_best")

    assert "knows only steps that are saved and evaluated: every 12 steps" in result.stderr


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (["--save_interval", 0], "0 is not in the range"),
        (["--keep_last", 0], "0 is not in the range"),
        (["--keep_every", "x"], "'x' is not a valid integer"),
        (["--keep_best", "accuracy"], "'accuracy' is not one of 'train_loss', 'val_loss'"),
    ],
)
def test_an_option_of_saving_that_means_nothing_is_refused(
    train: Train, options: list[object], part: str
) -> None:
    result = train(*options, "--max_iters", 1)

    assert result.exit_code == 2
    assert part in result.stderr
