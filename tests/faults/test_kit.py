"""The fault kit itself: it is complete, it does what it says, and it knows when it cannot."""

from __future__ import annotations

import inspect
import os
from pathlib import Path

import pytest
import torch

import ckptstore
from ckptstore.storage import connect
from ckptstore.storage.base import Storage, UnknownOutcomeError
from ckptstore.testing import (
    ANSWERS,
    Crash,
    FaultyStorage,
    Killed,
    Lose,
    Nothing,
    PowerLoss,
    Refuse,
    Seen,
    Short,
    Tear,
    asked,
    inject,
)

MODEL = {"w": torch.ones(3)}


@pytest.fixture
def faulty(tmp_path: Path):
    return lambda fault: FaultyStorage(connect(tmp_path / "dante"), fault)


def test_every_operation_of_a_storage_goes_through_the_fault():
    asked_of = {name for name, value in vars(Storage).items() if inspect.isfunction(value)}

    assert asked_of <= vars(FaultyStorage).keys()


class TestCrash:
    def test_before_an_operation_it_is_not_done(self, faulty):
        storage = faulty(Crash(2))
        storage.create("a", b"1")

        with pytest.raises(Killed):
            storage.create("b", b"2")

        assert list(connect(storage.location).list("").files) == ["a"]

    def test_after_an_operation_it_is_done(self, faulty):
        storage = faulty(Crash(asked("create", "a"), after=True))

        with pytest.raises(Killed):
            storage.create("a", b"1")

        assert list(connect(storage.location).list("").files) == ["a"]

    def test_after_an_operation_that_fails_it_is_death_all_the_same(self, faulty):
        storage = faulty(Crash(1, after=True))

        with pytest.raises(Killed):
            storage.read("absent")

    def test_the_dead_do_nothing_more(self, faulty):
        storage = faulty(Crash(asked("write")))

        with pytest.raises(Killed), storage.writer("a") as sink:
            sink.write(memoryview(b"12"))
        with pytest.raises(Killed):
            storage.delete("a")

        assert connect(storage.location).read("a") == b""


def test_a_torn_write_leaves_its_first_half(faulty):
    storage = faulty(Tear(asked("write")))

    with pytest.raises(Killed), storage.writer("a") as sink:
        sink.write(memoryview(b"1234"))

    assert connect(storage.location).read("a") == b"12"


def test_a_short_write_says_that_all_went_well(faulty):
    storage = faulty(Short(asked("create")))

    storage.create("a", b"1234")

    assert storage.read("a") == b"12"


class TestLose:
    def test_what_was_done_is_there(self, faulty):
        storage = faulty(Lose(1))

        with pytest.raises(UnknownOutcomeError, match="cannot create 'a': no reply came"):
            storage.create("a", b"1")

        assert storage.read("a") == b"1"

    def test_what_was_not_done_lands_later_or_never(self, faulty):
        fault = Lose(1, done=False)
        storage = faulty(fault)
        with pytest.raises(UnknownOutcomeError):
            storage.create("a", b"1")
        assert storage.entry("a") is None

        fault.land()
        fault.land()

        assert storage.read("a") == b"1"


class TestRefuse:
    @pytest.mark.parametrize("answer", ANSWERS)
    def test_nothing_is_done_and_the_error_is_one_of_ours(self, faulty, answer):
        storage = faulty(Refuse(1, answer, times=1))

        with pytest.raises(ckptstore.CkptstoreError):
            storage.create("a", b"1")

        assert storage.entry("a") is None
        storage.create("a", b"1")

    def test_from_then_on_everything_is_refused(self, faulty):
        storage = faulty(Refuse(2, "expired"))
        storage.create("a", b"1")

        for _ in range(3):
            with pytest.raises(ckptstore.StorageError, match="the credentials have expired"):
                storage.read("a")

    def test_a_full_disk_can_still_be_read(self, faulty):
        storage = faulty(Refuse(2, "no space", writes=True))
        storage.create("a", b"1")

        assert storage.read("a") == b"1"
        with pytest.raises(ckptstore.StorageError, match="no space is left"):
            storage.create("b", b"2")


def test_storages_are_counted_together_and_only_while_it_is_asked_for(tmp_path):
    with inject(Nothing()) as seen:
        ckptstore.save(tmp_path / "a", model=MODEL)
        first = len(seen.operations)
        ckptstore.save(tmp_path / "b", model=MODEL)
    ckptstore.save(tmp_path / "c", model=MODEL)

    assert len(seen.operations) == 2 * first
    assert [operation.number for operation in seen.operations] == list(range(1, 2 * first + 1))
    assert isinstance(seen, Seen)


def test_a_manifest_of_the_view_that_is_cut_off_is_read_by_nobody(tmp_path):
    with inject(Short(asked("replace", "manifest.json"))):
        ckptstore.save(tmp_path, model=MODEL, config={"n": 1})

    checkpoint = ckptstore.open(tmp_path)
    assert checkpoint.config == {"n": 1}
    assert checkpoint.edited == ()
    assert ckptstore.Store(tmp_path).repair() == ("refreshed the view to generation 1",)


class TestPowerLoss:
    def test_what_was_not_synced_may_be_lost_in_each_way(self, tmp_path):
        storage = connect(tmp_path / "disk" / "dante")
        (tmp_path / "disk").mkdir()
        with PowerLoss(tmp_path / "disk") as power:
            storage.create("a", b"safe")
            storage.create("b", b"lost", durable=False)

        end = len(power.calls)
        found = {}
        for which in ("synced", "names", "zeros", "all", *range(20)):
            power.left(end, which).write_to(tmp_path / str(which))
            held = tmp_path / str(which) / "dante"
            found[which] = {name: (held / name).read_bytes() for name in os.listdir(held)}

        assert found["synced"] == {"a": b"safe"}
        assert found["names"] == {"a": b"safe", "b": b""}
        assert found["zeros"] == {"a": b"safe", "b": bytes(4)}
        assert found["all"] == {"a": b"safe", "b": b"lost"}
        assert all(left["a"] == b"safe" for left in found.values())
        assert len({str(left) for left in found.values()}) > 4

    def test_a_removal_may_be_undone(self, tmp_path):
        storage = connect(tmp_path / "dante")
        storage.create("a", b"1")
        storage.create("b", b"2")
        with PowerLoss(tmp_path) as power:
            storage.delete("a")
            storage.flush("")
            storage.delete("b")

        left = power.left(len(power.calls))

        assert [name for name, _ in left.names] == ["dante", "dante/b"]

    def test_hard_links_stay_hard_links(self, tmp_path):
        (tmp_path / "disk").mkdir()
        storage = connect(tmp_path / "disk" / "dante")
        with PowerLoss(tmp_path / "disk") as power:
            storage.create("a", b"1")
            storage.copy("a", "b")

        power.left(len(power.calls)).write_to(tmp_path / "left")

        assert (tmp_path / "left/dante/a").samefile(tmp_path / "left/dante/b")

    def test_a_change_that_it_did_not_see_is_an_error(self, tmp_path):
        with (
            pytest.raises(RuntimeError, match="was changed by calls that were not seen"),
            PowerLoss(tmp_path),
        ):
            (tmp_path / "a").write_text("not through the storage")

    def test_afterwards_nothing_is_recorded(self, tmp_path):
        with PowerLoss(tmp_path) as power:
            ckptstore.save(tmp_path / "a", model=MODEL)
        before = len(power.calls)

        ckptstore.save(tmp_path / "b", model=MODEL)

        assert len(power.calls) == before > 30
