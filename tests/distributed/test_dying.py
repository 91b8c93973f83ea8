"""Whoever dies, at whatever operation: the whole old state opens, or the whole new one (G2)."""

from __future__ import annotations

import contextlib
import itertools

import pytest
from torch.distributed.checkpoint.api import CheckpointException

import ckptstore
from ckptstore import Keep, Store
from ckptstore.commit.repair import repair
from ckptstore.distributed import StoreWriter
from ckptstore.errors import ConflictError, StorageError
from ckptstore.testing import Crash, Killed, Lose, Refuse, asked, inject

DAY = 24 * 3600
PLACES = itertools.count()


def leftovers(url, options=None):
    """Return how many files of bytes lie there that no manifest lists."""
    store = Store(url, storage_options=options)
    place = store._storage
    found = 0
    for folder in place.list("").folders:
        parents = [folder] if folder.startswith("step-") else []
        if folder == ".ckptstore":
            parents = [f".ckptstore/{name}" for name in place.list(folder).folders]
        for parent in parents:
            files = place.list(parent).files
            if "manifest.json" not in files:
                found += sum(name.endswith(".pt") for name in files)
    return found


@pytest.mark.parametrize("keep", [None, Keep(last=2)], ids=["single", "history"])
@pytest.mark.parametrize("where", ["memory", "disk"])
def test_a_save_that_dies_before_any_operation_leaves_the_old_state_or_the_new(
    tmp_path, ranks, where, keep
):
    def place():
        number = next(PLACES)
        return f"memory://dying/{number}" if where == "memory" else tmp_path / str(number)

    def saved(seed, url):
        return ranks.Ranks(ranks.state(seed), 2).save(url, step=seed, keep=keep)

    counted = place()
    saved(1, counted)
    with inject(lambda operation, perform: perform()) as seen:
        saved(2, counted)
    operations = len(seen.operations)
    assert operations > 20

    new = 0
    for number in range(1, operations + 1, 3 if where == "memory" else 11):
        url = place()
        saved(1, url)
        with contextlib.suppress(Killed), inject(Crash(number)):
            saved(2, url)
        found = ckptstore.open(url)
        assert ranks.holds(found, ranks.state(found.step)), number
        new += found.step == 2
        saved(3, url)  # Nothing that was left stands in the way of the next.
        assert ranks.holds(ckptstore.open(url), ranks.state(3)), number
    assert new > 0 or where == "disk"


def test_a_rank_that_dies_after_its_write_lets_nobody_commit(location, ranks):
    url, options = location
    ranks.Ranks(ranks.state(1), 3).save(url, step=1, storage_options=options)

    with pytest.raises(ConnectionResetError):
        ranks.Ranks(ranks.state(2), 3).save(url, late=1, step=2, storage_options=options)

    assert ranks.holds(ckptstore.open(url, storage_options=options), ranks.state(1))
    assert leftovers(url, options) > 0  # Of rank 1: nobody told it, so its files stay.
    ranks.Ranks(ranks.state(3), 3).save(url, step=3, storage_options=options)
    assert leftovers(url, options) == 0
    assert ranks.holds(ckptstore.open(url, storage_options=options), ranks.state(3))


def test_an_error_of_one_rank_removes_what_all_wrote(location, ranks):
    url, options = location
    chosen = ranks.Ranks(ranks.state(2), 3)

    refused = Refuse(12, StorageError("no space"), times=1)
    with pytest.raises(StorageError, match="no space"), inject(refused):
        chosen.save(url, step=2, storage_options=options)

    assert leftovers(url, options) == 0


def test_doctor_removes_what_a_dead_rank_left_in_a_history_after_a_day(tmp_path, ranks):
    run = tmp_path / "run"
    ranks.Ranks(ranks.state(1), 2).save(run, step=1, keep=Keep(last=2))
    with pytest.raises(ConnectionResetError):
        ranks.Ranks(ranks.state(2), 2).save(run, late=1, step=2, keep=Keep(last=2))
    left = leftovers(run)
    assert left > 0
    place = Store(run)._storage

    repair(place, older_than=DAY)
    assert leftovers(run) == left

    repair(place, older_than=-1)
    assert leftovers(run) == 0
    assert ranks.holds(ckptstore.open(run), ranks.state(1))


def test_a_reply_that_is_lost_leaves_all_files_where_they_are(tmp_path, ranks, moto_server):
    url, options = moto_server.url("lost"), moto_server.storage_options
    ranks.Ranks(ranks.state(1), 2).save(url, step=1, storage_options=options)

    with contextlib.suppress(StorageError), inject(Lose(asked("create", "manifest.json"))):
        ranks.Ranks(ranks.state(2), 2).save(url, step=2, storage_options=options)

    assert ranks.holds(ckptstore.open(url, storage_options=options), ranks.state(2))


def test_a_rank_that_comes_too_late_changes_nothing(location, ranks):
    url, options = location
    store = Store(url, keep=Keep(last=3), storage_options=options)
    late = ranks.Ranks(ranks.state(9), 2)
    writers = [StoreWriter(store, step=5) for _ in range(2)]
    handed = late.begin(writers)  # And then its job is killed, and started again:
    ranks.Ranks(ranks.state(5), 2).save(store, step=5)

    writers[1].write_data(handed[1], late)

    found = store.open()
    assert ranks.holds(found, ranks.state(5))
    assert found.verify().sound


def test_a_coordinator_that_comes_too_late_removes_what_all_wrote(location, ranks):
    url, options = location
    chosen = ranks.Ranks(ranks.state(1), 2)
    writers = [StoreWriter(url, step=1, storage_options=options) for _ in range(2)]
    handed = chosen.begin(writers)
    results = [
        writer.write_data(plan, chosen).value()
        for writer, plan in zip(writers, handed, strict=True)
    ]
    ranks.Ranks(ranks.state(2), 2).save(url, step=2, storage_options=options)

    with pytest.raises((ConflictError, StorageError)):
        writers[0].finish(chosen.metadata(), results)

    assert ranks.holds(ckptstore.open(url, storage_options=options), ranks.state(2))
    assert leftovers(url, options) == 0


@pytest.mark.parametrize("certain", [True, False])
def test_a_rank_removes_its_files_only_where_the_coordinator_said_so(tmp_path, ranks, certain):
    chosen = ranks.Ranks(ranks.state(1), 2)
    writers = [StoreWriter(tmp_path / "one") for _ in range(2)]
    writers[1].write_data(chosen.begin(writers)[1], chosen)
    told = StorageError("the network is gone", committed=False if certain else None)

    writers[1].failed(CheckpointException("write", {0: (told, None)}))

    assert (leftovers(tmp_path / "one") == 0) is certain
