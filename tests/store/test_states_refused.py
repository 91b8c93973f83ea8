"""A state that does not fit is refused and named, and leaves everything else as it was."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch.optim import lr_scheduler as schedulers

import ckptstore
from ckptstore import RandomStates
from tests.store.states import SCHEDULERS, exactly, made, saved, trained


def test_the_names_that_are_missing_are_said_before_anything_is_read(tmp_path):
    checkpoint = saved(tmp_path / "x", rng=RandomStates(), data={"epoch": 1})
    model, optimizer = made()
    before = copy.deepcopy(model.state_dict())

    with pytest.raises(
        ckptstore.NotFoundError,
        match="x has no state 'ema', 'scaler'; it has 'rng', 'data'; restore without what is "
        "missing",
    ):
        checkpoint.restore(model=model, state={"ema": model, "rng": 1, "scaler": optimizer})

    assert exactly(model.state_dict(), before)


def test_a_state_goes_only_into_what_loads_states(tmp_path):
    checkpoint = saved(tmp_path / "x", data={"epoch": 1})

    with pytest.raises(
        ckptstore.UnsupportedError,
        match=r"the state 'data' cannot be restored into a dict, which has no load_state_dict\(\); "
        r"load_state\('data'\) returns it",
    ):
        checkpoint.restore(state={"data": {}})
    with pytest.raises(ckptstore.UnsupportedError, match="state= is a list, not a dict of objects"):
        checkpoint.restore(state=["data"])


@pytest.mark.parametrize(
    ("saver", "loader", "message"),
    [
        ("StepLR", "CosineAnnealingLR", "it lacks T_max, eta_min; the scheduler has no step_size"),
        ("StepLR", "ExponentialLR", "the scheduler has no step_size"),
        ("ExponentialLR", "StepLR", "it lacks step_size"),
        ("SequentialLR", "ChainedScheduler", "it lacks|the scheduler has no"),
        ("StepLR", "SequentialLR", "it is not of 2 schedulers, one after another"),
    ],
)
def test_another_kind_of_scheduler_is_refused_unchanged(tmp_path, saver, loader, message):
    model, optimizer = made()
    checkpoint = saved(tmp_path / "x", scheduler=SCHEDULERS[saver](optimizer))
    scheduler = SCHEDULERS[loader](made()[1])
    before = copy.deepcopy(scheduler.state_dict())

    with pytest.raises(
        ckptstore.UnsupportedError,
        match=rf"the state 'scheduler' in .* does not fit the \w+: .*({message}).*; make the "
        r"scheduler as it was .*load_state\('scheduler'\)",
    ):
        checkpoint.restore(model=model, state={"scheduler": scheduler})

    assert exactly(scheduler.state_dict(), before)


def test_a_scheduler_within_another_is_compared_too(tmp_path):
    def chained(optimizer, last):
        return schedulers.SequentialLR(optimizer, [schedulers.ConstantLR(optimizer), last], [2])

    one, other = made()[1], made()[1]
    checkpoint = saved(tmp_path / "x", scheduler=chained(one, schedulers.ExponentialLR(one, 0.9)))

    with pytest.raises(ckptstore.UnsupportedError, match="in its scheduler 1, it lacks step_size"):
        checkpoint.restore(state={"scheduler": chained(other, schedulers.StepLR(other, 1))})


def test_a_scheduler_of_other_groups_is_refused(tmp_path):
    checkpoint = saved(tmp_path / "x", scheduler=schedulers.StepLR(made()[1], 1))
    groups = [{"params": [torch.ones(1)]}, {"params": [torch.ones(1)]}]
    other = schedulers.StepLR(torch.optim.SGD(groups, lr=1.0), 1)

    with pytest.raises(
        ckptstore.UnsupportedError, match="it is of 1 parameter groups, the optimizer has 2"
    ):
        checkpoint.restore(state={"scheduler": other})


def test_one_state_that_does_not_fit_leaves_everything_else_alone(tmp_path):
    model, optimizer = made()
    scheduler = schedulers.StepLR(optimizer, 2)
    trained(model, optimizer, scheduler)
    checkpoint = ckptstore.save(
        tmp_path / "x",
        model=model,
        optimizer=optimizer,
        state={"scheduler": scheduler, "ema": model, "rng": RandomStates(), "critic": optimizer},
    )
    other, fresh = made()
    stepping = schedulers.StepLR(fresh, 2)
    narrow = torch.nn.Linear(2, 2)
    wrong = [
        ({"ema": narrow}, "the state 'ema' in .* does not fit the model: it lacks"),
        (
            {"critic": torch.optim.Adam(narrow.parameters())},
            "the state 'critic' in .* does not fit the optimizer",
        ),
        ({"rng": torch.Generator()}, "the state 'rng' in .* does not fit the generator"),
        ({"ema": RandomStates()}, "the state 'ema' in .* holds no random states"),
    ]
    before = copy.deepcopy([other.state_dict(), fresh.state_dict(), stepping.state_dict()])

    for state, message in wrong:
        with pytest.raises(ckptstore.UnsupportedError, match=message):
            checkpoint.restore(model=other, optimizer=fresh, state={"scheduler": stepping, **state})

        assert exactly([other.state_dict(), fresh.state_dict(), stepping.state_dict()], before)


class Picky:
    def __init__(self, reason: str | None = None) -> None:
        self.reason = reason
        self.held: Any = None

    def state_dict(self):
        return {"held": 1}

    def load_state_dict(self, state):
        if self.reason:
            raise KeyError(self.reason)
        self.held = state


@pytest.mark.parametrize("atomic", [False, True])
def test_an_object_of_somebody_elses_that_refuses_is_named(tmp_path, atomic):
    checkpoint = saved(tmp_path / "x", first=Picky(), data=Picky(), rng=RandomStates())
    model, _ = made()
    torch.nn.init.zeros_(model[0].weight)
    first = Picky()

    with pytest.raises(
        ckptstore.UnsupportedError,
        match="the state 'data' in .* does not fit the Picky: KeyError: 'no epoch'; restored "
        "before it: 'first'",
    ):
        checkpoint.restore(
            model=model,
            state={"rng": RandomStates(), "first": first, "data": Picky("no epoch")},
            atomic=atomic,
        )

    assert first.held == {"held": 1}
    assert bool(model[0].weight.any()) is atomic


def test_a_lack_of_memory_is_not_taken_for_a_state_that_does_not_fit(tmp_path):
    class Large(Picky):
        def load_state_dict(self, state):
            raise MemoryError

    checkpoint = saved(tmp_path / "x", data=Picky())

    with pytest.raises(MemoryError):
        checkpoint.restore(state={"data": Large()})


def test_what_safe_loading_refuses_is_named_by_its_path(tmp_path):
    class Loader:
        def state_dict(self):
            return {"_snapshot": {"workers": [{"seed": np.random.PCG64()}]}}

    with pytest.raises(
        ckptstore.UnsafeError,
        match=r"the state 'data' holds a numpy\.random\._pcg64\.PCG64 at "
        r"'_snapshot\.workers\.0\.seed', which cannot be read back without running code",
    ):
        saved(tmp_path / "x", data=Loader())


def test_a_class_in_the_place_of_an_object_is_refused(tmp_path):
    with pytest.raises(
        ckptstore.UnsupportedError,
        match="the state 'scaler' is the class GradScaler, not an object",
    ):
        saved(tmp_path / "x", scaler=torch.amp.GradScaler)
    with pytest.raises(ckptstore.UnsupportedError, match=r"a type has no state_dict\(\)"):
        ckptstore.save(tmp_path / "x", model=torch.nn.Linear)
