"""What a training holds besides model and optimizer: given as objects, restored in place."""

from __future__ import annotations

import copy
import random
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from torch.optim import lr_scheduler as schedulers
from torch.optim.swa_utils import SWALR, AveragedModel, get_ema_multi_avg_fn
from torchdata.stateful_dataloader import StatefulDataLoader
from torchdata.stateful_dataloader.sampler import RandomSampler

import ckptstore
from ckptstore import RandomStates


class Warmup:
    """A rule of a learning rate with a state of its own, as LambdaLR saves it."""

    def __init__(self, over: int) -> None:
        self.over = over
        self.seen: list[int] = []

    def __call__(self, step: int) -> float:
        self.seen.append(step)
        return min(1.0, (step + 1) / self.over)


SCHEDULERS = {
    "LambdaLR": lambda o: schedulers.LambdaLR(o, lambda step: 0.9**step),
    "LambdaLR of an object": lambda o: schedulers.LambdaLR(o, Warmup(5)),
    "MultiplicativeLR": lambda o: schedulers.MultiplicativeLR(o, lambda step: 0.9),
    "StepLR": lambda o: schedulers.StepLR(o, 2),
    "MultiStepLR": lambda o: schedulers.MultiStepLR(o, [2, 2, 6]),
    "ConstantLR": lambda o: schedulers.ConstantLR(o, total_iters=6),
    "LinearLR": schedulers.LinearLR,
    "ExponentialLR": lambda o: schedulers.ExponentialLR(o, 0.9),
    "PolynomialLR": lambda o: schedulers.PolynomialLR(o, 9),
    "CosineAnnealingLR": lambda o: schedulers.CosineAnnealingLR(o, 9),
    "CosineAnnealingWarmRestarts": lambda o: schedulers.CosineAnnealingWarmRestarts(o, 3),
    "CyclicLR": lambda o: schedulers.CyclicLR(o, 0.01, 1.0, 3),
    "CyclicLR of a rule": lambda o: schedulers.CyclicLR(o, 0.01, 1.0, 3, scale_fn=lambda x: x),
    "OneCycleLR": lambda o: schedulers.OneCycleLR(o, 1.0, 20),
    "SWALR": lambda o: SWALR(o, 0.05),
    "SequentialLR": lambda o: schedulers.SequentialLR(
        o, [schedulers.LinearLR(o, 0.1, total_iters=3), schedulers.MultiStepLR(o, [2])], [3]
    ),
    "ChainedScheduler": lambda o: schedulers.ChainedScheduler(
        [schedulers.ConstantLR(o), schedulers.ExponentialLR(o, 0.9)], optimizer=o
    ),
}
# torch says of some combinations that a step of the optimizer comes first, and of itself.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:torch.optim.lr_scheduler")


def made() -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8))
    return model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)


def trained(
    model: torch.nn.Module, optimizer: torch.optim.Optimizer, scheduler: Any
) -> list[float]:
    rates = []
    for _ in range(4):
        model(torch.ones(3, 4)).sum().backward()
        optimizer.step()
        scheduler.step()
        rates.append(optimizer.param_groups[0]["lr"])
    return rates


def exactly(one: Any, other: Any) -> bool:
    """Whether two states are the same, type for type and bit for bit."""
    if type(one) is not type(other):
        return False
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return [*one] == [*other] and all(exactly(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(exactly, one, other))
    return bool(one == other)


def saved(folder: Any, **state: Any) -> ckptstore.Checkpoint:
    return ckptstore.save(folder, model=made()[0], state=state)


@pytest.mark.parametrize("kind", SCHEDULERS)
def test_every_scheduler_goes_on_where_it_was(tmp_path, kind):
    model, optimizer = made()
    scheduler = SCHEDULERS[kind](optimizer)
    trained(model, optimizer, scheduler)
    checkpoint = ckptstore.save(
        tmp_path / "x", model=model, optimizer=optimizer, state={"scheduler": scheduler}
    )
    state = copy.deepcopy(scheduler.state_dict())
    expected = trained(model, optimizer, scheduler)

    model, optimizer = made()
    scheduler = SCHEDULERS[kind](optimizer)
    checkpoint.restore(model=model, optimizer=optimizer, state={"scheduler": scheduler})

    assert exactly(checkpoint.load_state("scheduler"), state)
    assert exactly(scheduler.state_dict(), state)
    assert trained(model, optimizer, scheduler) == expected


def test_a_scheduler_that_looks_at_losses_goes_on_where_it_was(tmp_path):
    def rates(scheduler, optimizer):
        losses = [1.0, 1.1, 1.2, 0.9, 1.3, 1.3, 1.3]
        return [(scheduler.step(loss), optimizer.param_groups[0]["lr"]) for loss in losses]

    _, optimizer = made()
    scheduler = schedulers.ReduceLROnPlateau(optimizer, patience=2)
    assert scheduler.state_dict()["best"] == float("inf")
    fresh = saved(tmp_path / "fresh", scheduler=scheduler)
    expected = rates(scheduler, optimizer)

    _, optimizer = made()
    scheduler = schedulers.ReduceLROnPlateau(optimizer, patience=2)
    fresh.restore(state={"scheduler": scheduler})

    assert rates(scheduler, optimizer) == expected


def test_a_counter_stays_a_counter(tmp_path):
    _, optimizer = made()

    checkpoint = saved(tmp_path / "x", scheduler=schedulers.MultiStepLR(optimizer, [3, 3, 5]))

    milestones = checkpoint.load_state("scheduler")["milestones"]
    assert type(milestones) is Counter
    assert milestones == Counter({3: 2, 5: 1})


def test_plain_data_comes_back_type_for_type(tmp_path):
    state = {
        "python": random.Random(1).getstate(),
        3: (1, [2.5, None, True], {(0, "a"): -0.0, "inf": float("inf")}),
        "set": {1, 2},
        "bytes": b"ab",
        "big": 10**40,
        "torch": torch.Generator().get_state(),
    }

    assert exactly(saved(tmp_path / "x", plain=state).load_state("plain"), state)


@pytest.mark.parametrize("enabled", [True, False])
def test_a_scaler_is_restored_whether_it_is_enabled_or_not(tmp_path, enabled):
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0, growth_interval=1, enabled=enabled)
    model, optimizer = made()
    scaler.scale(model(torch.ones(3, 4)).sum()).backward()
    scaler.step(optimizer)
    scaler.update()

    other = torch.amp.GradScaler("cpu", enabled=enabled)
    saved(tmp_path / "x", scaler=scaler).restore(state={"scaler": other})

    assert exactly(other.state_dict(), scaler.state_dict())
    assert other.get_scale() == (4.0 if enabled else 1.0)


def test_a_scaler_that_was_not_enabled_says_nothing_to_one_that_is(tmp_path):
    checkpoint = saved(tmp_path / "x", scaler=torch.amp.GradScaler("cpu", enabled=False))

    with pytest.raises(
        ckptstore.UnsupportedError,
        match="the state 'scaler' in .* is empty, for the scaler that was saved was not enabled, "
        "and this one is; start with a fresh scaler",
    ):
        checkpoint.restore(state={"scaler": torch.amp.GradScaler("cpu")})


def test_averaged_weights_go_on_where_they_were(tmp_path):
    def averaged(model):
        return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)

    model, _ = made()
    ema = averaged(model)
    for _ in range(3):
        torch.nn.init.normal_(model[0].weight)
        ema.update_parameters(model)

    other = averaged(made()[0])
    checkpoint = ckptstore.save(tmp_path / "x", model=model, state={"ema": ema})
    checkpoint.restore(state={"ema": other})

    assert other.n_averaged == 3
    assert exactly(dict(other.state_dict()), dict(ema.state_dict()))
    model.eval()
    assert set(checkpoint.tensors("ema")) == {
        "n_averaged",
        *(f"module.{n}" for n in model.state_dict()),
    }


def test_a_wrapped_module_is_saved_under_its_own_names_and_fits_any_other(tmp_path):
    teacher = torch.compile(made()[0], backend="eager")

    checkpoint = saved(tmp_path / "x", teacher=teacher)

    assert list(checkpoint.tensors("teacher")) == list(made()[0].state_dict())
    checkpoint.restore(state={"teacher": torch.nn.DataParallel(made()[0])})


def test_a_second_optimizer_and_a_generator_are_states_like_others(tmp_path):
    model, optimizer = made()
    trained(model, optimizer, schedulers.StepLR(optimizer, 1))
    generator = torch.Generator().manual_seed(3)
    torch.rand(5, generator=generator)
    checkpoint = saved(tmp_path / "x", critic=optimizer, generator=generator)
    expected = torch.rand(5, generator=generator)

    fresh, other = made()[1], torch.Generator()
    checkpoint.restore(state={"critic": fresh, "generator": other})

    assert exactly(fresh.state_dict(), optimizer.state_dict())
    assert torch.equal(torch.rand(5, generator=other), expected)


def drawn() -> list[Any]:
    return [
        *(random.random(), random.gauss(0, 1), torch.rand(3).tolist()),
        *(np.random.rand(3).tolist(), np.random.randn()),
    ]


def test_everything_random_goes_on_where_it_was(tmp_path):
    random.gauss(0, 1), np.random.randn(), torch.rand(1)
    checkpoint = saved(tmp_path / "x", rng=RandomStates())
    expected = drawn()
    random.seed(7), np.random.seed(7), torch.manual_seed(7)

    checkpoint.restore(state={"rng": RandomStates()})

    assert drawn() == expected


def test_random_states_come_last(tmp_path):
    class Drawing(torch.nn.Linear):
        def load_state_dict(self, *args, **options):
            torch.rand(1)
            return super().load_state_dict(*args, **options)

    checkpoint = saved(tmp_path / "x", rng=RandomStates(), teacher=Drawing(1, 1))
    expected = drawn()

    checkpoint.restore(state={"rng": RandomStates(), "teacher": Drawing(1, 1)})

    assert drawn() == expected


@pytest.mark.parametrize(
    "change",
    [
        lambda s: {},
        lambda s: None,
        lambda s: {**s, "python": (3, (1, 2), None)},
        lambda s: {**s, "torch": torch.zeros(3)},
        lambda s: {**s, "cuda": [1]},
        lambda s: {**s, "numpy": {**s["numpy"], "pos": 10**9}},
        lambda s: {**s, "numpy": {**s["numpy"], "key": torch.zeros(3, dtype=torch.int64)}},
    ],
)
def test_what_is_no_random_state_is_refused_and_changes_none(change):
    state = RandomStates().state_dict()
    expected = drawn()
    RandomStates().load_state_dict(state)

    with pytest.raises(ckptstore.UnsupportedError, match="the state holds no random states"):
        RandomStates().load_state_dict(change(state))

    assert drawn() == expected


def test_random_states_of_other_devices_are_left_out_with_a_warning(caplog):
    state = {**RandomStates().state_dict(), "cuda": [torch.zeros(16, dtype=torch.uint8)]}

    RandomStates().load_state_dict(state)

    assert "random states of 1 CUDA devices were saved, and there are 0" in caplog.text


def test_another_algorithm_behind_numpys_numbers_is_refused(monkeypatch):
    state = {"bit_generator": "PCG64"}
    monkeypatch.setattr(np.random, "get_state", lambda legacy: state)

    with pytest.raises(ckptstore.UnsupportedError, match="numpy.random draws from PCG64"):
        RandomStates().state_dict()


def loader(workers: int = 0) -> StatefulDataLoader:
    # With one generator for both, torchdata draws from it in another order when it goes on.
    sampler = RandomSampler(range(40), generator=torch.Generator().manual_seed(1))
    return StatefulDataLoader(
        range(40), 4, sampler=sampler, num_workers=workers, generator=torch.Generator()
    )


@pytest.mark.filterwarnings("ignore:'set_vital' is deprecated:UserWarning")  # torchdata's
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("batches", [3, 10])
def test_a_data_loader_goes_on_with_the_next_batch(tmp_path, workers, batches):
    source = loader(workers)
    rest = iter(source)
    for _ in range(batches):
        next(rest)
    checkpoint = saved(tmp_path / "x", data=source)
    expected = [batch.tolist() for batch in rest] + [batch.tolist() for batch in source]

    other = loader(workers)
    checkpoint.restore(state={"data": other})

    # After the last batch of an epoch there is nothing left of it, and the next one begins.
    assert [batch.tolist() for _ in range(2) for batch in other] == expected


# -- what does not fit --------------------------------------------------------------------


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


def test_saving_and_loading_draw_nothing_from_the_trainings_random_numbers(location):
    url, options = location
    random.seed(0), np.random.seed(0), torch.manual_seed(0)
    before = RandomStates().state_dict()

    with ckptstore.Store(url, keep=ckptstore.Keep(last=1), storage_options=options) as store:
        store.save(model=made()[0], step=1)
        torch.manual_seed(0)  # As `made` does.
        store.save_async(model={"w": torch.ones(3)}, step=2).result().verify()
        with pytest.raises(ckptstore.NotFoundError):
            store.open(step=7)
        store.open().load_model()

    assert exactly(RandomStates().state_dict(), before)


# -- in a store ---------------------------------------------------------------------------


def test_objects_are_taken_by_every_way_of_saving(tmp_path):
    model, optimizer = made()
    scheduler = schedulers.MultiStepLR(optimizer, [2])
    state = {"scheduler": scheduler, "ema": AveragedModel(model), "rng": RandomStates()}
    asked = {"model": model, "optimizer": optimizer, "state": state}

    with ckptstore.Store(tmp_path / "x", keep=ckptstore.Keep(last=3)) as store:
        store.prepare(**asked)
        store.save(step=1, **asked)
        future = store.save_async(step=2, **asked)
        (
            optimizer.step(),
            scheduler.step(),
        )  # It changes what the state that was copied aside does not show.
        future.result()

    for step in (1, 2):
        checkpoint = store.open(step)
        assert checkpoint.states() == ("scheduler", "ema", "rng")
        assert checkpoint.load_state("scheduler")["last_epoch"] == 0


def test_a_model_without_layers_is_prepared_like_any_other(tmp_path):
    class Empty(torch.nn.Sequential):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(2))

    with ckptstore.Store(tmp_path / "x") as store:
        store.prepare(model=Empty())
        store.save_async(model=Empty(), step=1)

    assert list(store.open().tensors()) == ["weight"]
