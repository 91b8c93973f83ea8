"""`--save_overhead`: saves stall a training for no more than their share, whatever they cost."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch

import ckptstore
from ckptstore.testing.injection import inject
from gpt.checkpoint import CheckpointManager
from gpt.data import GPTDataLoader
from gpt.pace import Pace
from gpt.saves import Saves

SHARE = 0.02


class Clock:
    """A clock that stands still unless it is told to go on."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now

    def pass_by(self, seconds: float) -> None:
        self.now += seconds


class Run:
    """A training of steps of one second, in which saves cost what they are told to."""

    def __init__(self, cost: Callable[[float], float], nbytes: int = 0) -> None:
        self.clock = Clock()
        self.lines: list[str] = []
        self.pace = Pace(SHARE, nbytes, self.clock, self.lines.append)
        self.cost = cost
        self.stalled = 0.0
        self.saved: list[int] = []
        self.shares: list[float] = []

    def steps(self, count: int, *, step: float = 1.0) -> Run:
        begin = len(self.shares) + 1
        for number in range(begin, begin + count):
            self.clock.pass_by(step)
            self.pace.step_finished()
            if self.pace.is_due(is_busy=False):
                with self.pace.stall():
                    before = self.clock.now
                    self.clock.pass_by(self.cost(before))
                self.stalled += self.clock.now - before
                self.saved.append(number)
                self.pace.say_interval()
            self.shares.append(self.stalled / (self.clock.now - 1000.0))
        return self


def test_a_storage_that_stays_as_it_is_takes_its_share_and_most_of_it() -> None:
    run = Run(lambda now: 0.5).steps(4000)

    after_the_guess = run.shares[run.saved[0] + 50 :]
    assert max(after_the_guess) <= SHARE
    assert len(run.saved) >= 0.75 * 4000 * SHARE / 0.5


def test_a_storage_that_becomes_slower_is_saved_to_less_often_and_the_share_holds() -> None:
    run = Run(lambda now: 0.1 if now < 2000 else 4.0).steps(6000)

    fast = [step for step in run.saved if step < 900]
    slow = [step for step in run.saved if step > 1100]
    gaps = [after - before for before, after in itertools.pairwise(slow)]
    assert len(fast) > 100
    assert min(gaps) >= 4.0 * (1 - SHARE) / SHARE
    # The one that was slow without warning is made up for by the time of the next.
    assert all(run.shares[step - 2] <= SHARE for step in slow[1:])
    assert run.shares[-1] <= SHARE


def test_no_save_is_due_while_more_than_the_share_was_spent() -> None:
    costs = iter([0.01, 60.0, *[0.01] * 9999])
    run = Run(lambda now: next(costs)).steps(15_000)

    assert all(run.shares[step - 2] <= SHARE for step in run.saved)
    assert run.shares[-1] <= SHARE
    assert len(run.saved) > 1000  # It is forgotten again.


def test_a_long_evaluation_earns_no_burst_of_saves() -> None:
    run = Run(lambda now: 1.0).steps(500)
    before = len(run.saved)
    run.clock.pass_by(10_000)
    run.steps(20)

    assert len(run.saved) - before <= 20 / run.pace.interval() + 1


def test_nothing_is_saved_while_a_save_is_under_way() -> None:
    run = Run(lambda now: 0.001).steps(100)

    run.clock.pass_by(10_000)
    run.pace.step_finished()

    assert not run.pace.is_due(is_busy=True)


def test_the_first_save_is_guessed_from_its_size() -> None:
    small = Run(lambda now: 0.1).steps(100)
    large = Run(lambda now: 0.1, nbytes=10**9).steps(2000)

    assert small.saved[0] < 10
    assert large.saved[0] >= 20 * (1 - SHARE) / SHARE


def test_what_was_chosen_is_said_and_said_again_when_it_changes() -> None:
    run = Run(lambda now: 0.5 if now < 3000 else 5.0).steps(6000)

    assert run.lines[0] == (
        "saving about every 31 steps: a save stalls the training for 0.5 s, and may for 2.00% of "
        "its time"
    )
    assert any("every 307 steps" in line for line in run.lines)
    assert len(run.lines) < 10


@pytest.mark.parametrize("background", [False, True])
def test_a_training_into_a_slow_storage_keeps_to_it_and_is_none_other(
    text: str, make_config: Any, monkeypatch: pytest.MonkeyPatch, background: bool
) -> None:
    clock = Clock()
    spent = {"all": 0.0}
    taken = GPTDataLoader.get_batch

    def get_batch(self: Any, split: str, **rest: Any) -> Any:
        clock.pass_by(1.0)
        return taken(self, split, **rest)

    def slow(operation: Any, perform: Callable[[], Any]) -> Any:
        seconds = 0.02 if clock.now < 1150 else 0.06
        if not background:
            clock.pass_by(seconds)
            spent["all"] += seconds
        return perform()

    def train(name: str, saves: Saves | None) -> dict[str, torch.Tensor]:
        torch.manual_seed(5)
        manager = CheckpointManager(name)
        model, optimizer, _ = manager.initialize_for_training(make_config(dropout=0.2), None, text)
        loader = GPTDataLoader(model.config, model)
        loader.prepare_data(text)
        where = None if saves is None else manager.checkpoint_dir
        with inject(slow):
            spent.update(all=0.0)
            model.fit(loader, optimizer, 400, eval_interval=400, eval_iters=1,
                      checkpoint_dir=where, saves=saves)  # fmt: skip
        return model.state_dict()

    monkeypatch.setattr(GPTDataLoader, "get_batch", get_batch)
    began = clock.now
    keep = ckptstore.Keep()
    saves = Saves(overhead=SHARE, clock=clock, keep=keep, background=background)
    saved = train("dante", saves)
    total, steps = clock.now - began, ckptstore.Store("checkpoints/dante").steps()
    one_save = spent["all"] / len(steps)

    assert len(steps) > 3
    assert spent["all"] - 2 * one_save <= SHARE * total
    assert all(torch.equal(value, saved[name]) for name, value in train("none", None).items())


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (["--save_overhead", "2"], "'2' is not a share of the time, such as 2% or 0.02"),
        (["--save_overhead", "0%"], "'0%' is not a share"),
        (["--save_overhead", "much"], "'much' is not a share"),
        (["--save_overhead", "2%", "--save_interval", 5], "exclude each other"),
        (["--save_overhead", "2%", "--keep_every", 5], "chooses the steps that are saved"),
    ],
)
def test_a_share_that_means_nothing_is_refused(run: Any, options: list[Any], part: str) -> None:
    result = run("train", "--model_name", "dante", "--max_iters", 1, *options)

    assert result.exit_code == 2
    assert part in result.stderr


@pytest.mark.parametrize("share", ["50%", "0.5"])
def test_the_command_says_what_it_chose_and_what_it_came_to(run: Any, share: str) -> None:
    result = run("train", "--model_name", "dante", "--batch_size", 2, "--block_size", 8,
                 "--n_embd", 8, "--n_head", 2, "--n_layer", 1, "--eval_iters", 1, "--max_iters",
                 60, "--save_overhead", share, "--device", "cpu")  # fmt: skip

    assert result.exit_code == 0, result.output
    assert "saving about every " in result.stdout
    assert "and may for 50.00% of its time" in result.stdout
    assert "saves stalled the training for " in result.stdout
    assert ckptstore.open("checkpoints/dante").step == 60
