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
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torchdata.stateful_dataloader import StatefulDataLoader
from torchdata.stateful_dataloader.sampler import RandomSampler

import ckptstore
from ckptstore import RandomStates
from tests.store.states import SCHEDULERS, exactly, made, saved, trained


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
