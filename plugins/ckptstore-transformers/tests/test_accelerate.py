"""An Accelerate loop that is killed goes on in a fresh process as if nothing had been."""

from __future__ import annotations

import signal
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from ckptstore_transformers import load_state, save_state

import ckptstore

KILLED = -signal.SIGKILL


def same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return bool(one == other)


@pytest.mark.parametrize("kind", ["local", "s3, stateful"])
def test_a_killed_loop_ends_as_one_that_was_not(run, tmp_path, moto, kind):
    asked: dict[str, Any] = {"stateful": kind != "local"}
    there = str(tmp_path)
    if kind != "local":
        asked["storage_options"] = moto.storage_options
        there = moto.url("loop")

    assert run("loop", **asked, location=f"{there}/whole", final=tmp_path / "whole.pt") == 0
    asked |= {"location": f"{there}/killed", "final": tmp_path / "killed.pt"}
    if kind == "local":
        assert run("loop", **asked, kill_at_step=6) == KILLED
    assert run("loop", **asked, kill_at=("create", "step-00000016/manifest.json")) == KILLED
    assert run("loop", **asked) == 0

    whole, killed = (torch.load(tmp_path / f"{name}.pt") for name in ("whole", "killed"))
    assert len(whole["losses"]) == 26
    assert same(killed["losses"], whole["losses"])
    assert same(killed, whole)
    store = ckptstore.Store(f"{there}/killed", storage_options=asked.get("storage_options"))
    assert store.steps() == (20, 24)


@pytest.fixture
def accelerator():
    from accelerate.state import AcceleratorState, GradientState

    yield Accelerator(cpu=True)
    AcceleratorState._reset_state(True)
    GradientState._reset_state()


def prepared(accelerator: Accelerator, models: int = 1) -> list[torch.nn.Module]:
    found = []
    for _ in range(models):
        model = torch.nn.Linear(2, 2)
        optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
        found.append(accelerator.prepare(model, optimizer)[0])
    return found


def test_what_is_saved_is_plain_and_named_by_what_it_is(accelerator, tmp_path):
    [model, _] = prepared(accelerator, 2)
    accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=8.0)

    checkpoint = save_state(
        accelerator, tmp_path / "x", step=3, config={"n": 2}, metrics={"val_loss": 1.5}
    )

    folder = tmp_path / "x/step-00000003"
    assert same(torch.load(folder / "model.pt"), model.state_dict())
    names = ("model_1", "optimizer_1", "scaler", "accelerator", "random")
    assert checkpoint.states() == names
    assert (checkpoint.config, checkpoint.metrics) == ({"n": 2}, {"val_loss": 1.5})
    assert not [*folder.glob("*.pkl"), *folder.glob("*.bin")]

    accelerator.scaler = torch.amp.GradScaler("cpu")
    load_state(accelerator, tmp_path / "x")
    assert accelerator.scaler.get_scale() == 8.0


def test_nothing_saved_yet_is_none_and_a_step_that_is_not_there_an_error(accelerator, tmp_path):
    prepared(accelerator)
    assert load_state(accelerator, tmp_path / "x") is None

    save_state(accelerator, tmp_path / "x", step=1)
    with pytest.raises(ckptstore.NotFoundError, match="no checkpoint at step 7"):
        load_state(accelerator, tmp_path / "x", step=7)


def test_other_objects_than_were_saved_are_refused_unchanged(accelerator, tmp_path):
    [model] = prepared(accelerator)
    save_state(accelerator, tmp_path / "one", step=1)
    [second] = prepared(accelerator)
    save_state(accelerator, tmp_path / "two", step=1)
    torch.nn.init.zeros_(model.weight)

    with pytest.raises(ckptstore.NotFoundError, match="no state 'model_1', 'optimizer_1'; it has"):
        load_state(accelerator, tmp_path / "one")
    accelerator._models.pop(), accelerator._optimizers.pop()
    with pytest.raises(
        ckptstore.UnsupportedError,
        match="two has 'model_1', 'optimizer_1', and nothing like it was prepared or registered",
    ):
        load_state(accelerator, tmp_path / "two")

    assert not model.weight.any()
    assert second.weight.any()


def test_a_damaged_step_is_refused_and_the_one_before_can_be_taken(accelerator, tmp_path):
    [model] = prepared(accelerator)
    for step in (1, 2):
        torch.nn.init.constant_(model.weight, step)
        save_state(accelerator, tmp_path / "x", step=step)
    file = tmp_path / "x/step-00000002/optimizer.pt"
    short = file.read_bytes()[:-9]
    file.unlink()  # Both steps have these bytes, and only one is to lose some.
    file.write_bytes(short)
    torch.nn.init.zeros_(model.weight)

    with pytest.raises(ckptstore.CorruptionError, match="optimizer.pt"):
        load_state(accelerator, tmp_path / "x")
    assert not model.weight.any()

    assert load_state(accelerator, tmp_path / "x", fallback=True).step == 1
    assert bool((model.weight == 1).all())


def test_what_cannot_be_kept_is_refused(accelerator, tmp_path, monkeypatch):
    with pytest.raises(ckptstore.UnsupportedError, match="the Accelerator has no model; call"):
        save_state(accelerator, tmp_path / "x", step=1)

    prepared(accelerator)
    with pytest.raises(ckptstore.UnsupportedError, match="steps need Store"):
        save_state(accelerator, ckptstore.Store(tmp_path / "x"), step=1)
    handle = accelerator.register_save_state_pre_hook(lambda models, weights, folder: None)
    with pytest.raises(ckptstore.UnsupportedError, match="a hook of register_save_state_pre_hook"):
        save_state(accelerator, tmp_path / "x", step=1)
    handle.remove()
    from accelerate.utils import DistributedType

    monkeypatch.setattr(accelerator.state, "distributed_type", DistributedType.FSDP)
    with pytest.raises(ckptstore.UnsupportedError, match="works with FSDP, which shards the state"):
        save_state(accelerator, tmp_path / "x", step=1)
    assert ckptstore.Store(tmp_path / "x").steps() == ()


def test_a_process_whose_states_were_not_saved_leaves_them_as_they_are(
    accelerator, tmp_path, caplog
):
    [model] = prepared(accelerator)
    save_state(accelerator, tmp_path / "x", step=1)
    step = tmp_path / "y"
    with ckptstore.Store(tmp_path / "x") as source:
        saved = source.open()
    states = {name: saved.load_state(name) for name in saved.states()}
    states["random"] = {1: states["random"][0]}
    states["accelerator"]["loaders"] = {1: []}
    with ckptstore.Store(step, keep=ckptstore.Keep()) as store:
        store.save(model=model, optimizer=saved.load_optimizer(), state=states, step=1)

    load_state(accelerator, step)

    assert "no random states of process 0 were saved" in caplog.text
    assert "no data loaders of process 0 were saved" in caplog.text
