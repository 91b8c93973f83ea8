"""Saves beside training: back-pressure, the memory they use, and who has the processor first."""

from __future__ import annotations

import os
import sys
import threading

import pytest
import torch

import ckptstore
from ckptstore.tensors.staging import Staging
from ckptstore.testing.injection import inject


def state(value: float) -> dict[str, torch.Tensor]:
    return {"w": torch.full((8,), value)}


@pytest.fixture
def held():
    """Every commit waits for `go`; a save whose manifest was asked for has `reached`."""
    go, reached = threading.Event(), threading.Event()

    def hold(operation, perform, *args):
        if operation.name == "create" and operation.path.endswith("manifest.json"):
            reached.set()
            assert go.wait(60)
        return perform()

    with inject(hold):
        yield go, reached
        go.set()


def test_a_busy_store_skips_where_it_is_asked_to(tmp_path, held):
    go, reached = held
    with ckptstore.Store(tmp_path / "x", keep=ckptstore.Keep()) as store:
        first = store.save_async(model=state(1), step=1)
        assert reached.wait(60)
        skipped = store.save_async(model=state(2), step=2, when_busy="skip")

        assert skipped.done()
        assert skipped.result() is None
        go.set()
        assert first.result().step == 1
        third = store.save_async(model=state(3), step=3, when_busy="skip")
        assert third.result().step == 3

    assert ckptstore.Store(tmp_path / "x").steps() == (1, 3)


def test_a_busy_store_waits_otherwise(tmp_path, held):
    go, reached = held
    with ckptstore.Store(tmp_path / "x", keep=ckptstore.Keep()) as store:
        store.save_async(model=state(1), step=1)
        assert reached.wait(60)
        threading.Timer(0.2, go.set).start()
        second = store.save_async(model=state(2), step=2)

        assert second.result().step == 2
        assert store.steps() == (1, 2)


def test_another_word_is_refused(tmp_path):
    store = ckptstore.Store(tmp_path / "x")

    with pytest.raises(ckptstore.UnsupportedError, match="when_busy is 'queue'; there are 'wait'"):
        store.save_async(model=state(1), when_busy="queue")


@pytest.mark.skipif(sys.platform != "linux", reason="threads have priorities of their own on Linux")
def test_training_has_the_processor_first(tmp_path):
    seen = {}

    def look(operation, perform, *args):
        seen[operation.name] = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
        return perform()

    own = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    with inject(look), ckptstore.Store(tmp_path / "x") as store:
        store.save_async(model=state(1)).result()

    assert seen["create"] > own
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == own


def addresses(staged) -> set[int]:
    return {value.untyped_storage().data_ptr() for value in staged.values()}


def test_staging_memory_is_used_again():
    staging, model = Staging(), {"a": torch.randn(1000), "b": torch.randn(1000)}
    first = staging.copy(model)
    staging.wait()
    before = addresses(first)
    staging.rewind()
    second = staging.copy({name: value + 1 for name, value in model.items()})

    assert addresses(second) == before
    assert torch.equal(second["a"], model["a"] + 1)


def test_staging_lets_go_of_what_a_state_does_not_need():
    staging = Staging()
    staging.copy({"a": torch.randn(1000), "b": torch.randn(2_000_000)})
    staging.rewind()
    staging.copy({"a": torch.randn(1000)})
    staging.wait()

    assert sum(slab.size for slab in staging.arena._slabs) < 2_000_000
