"""A clock that is wrong by a day, in either direction, disturbs no checkpoint and is named."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
import torch

import ckptstore
import ckptstore.commit.draft
import ckptstore.keep

DAY = timedelta(days=1)


@pytest.fixture
def shift(monkeypatch):
    """A function that sets the clock of this machine forward."""

    def shift(by):
        class Shifted(datetime):
            @classmethod
            def now(cls, tz=None):
                return datetime.now(tz) + by

        for module in (ckptstore.commit.draft, ckptstore.keep):
            monkeypatch.setattr(module, "datetime", Shifted)

    return shift


@pytest.mark.parametrize("by", [DAY, -DAY], ids=["forward", "back"])
def test_generations_go_on_when_the_clock_jumps(place, shift, by):
    made = place.open().created
    shift(by)

    place.save(2)

    assert place.holds(2)
    assert place.store().generations() == (2,)
    assert (place.open().created > made) == (by == DAY)
    shift(timedelta(0))
    place.save(3)
    assert place.holds(3)


def test_the_newest_step_is_that_of_the_highest_number_whatever_the_clock_said(tmp_path, shift):
    with ckptstore.Store(tmp_path, keep=ckptstore.Keep(last=2)) as store:
        for step, by in ((1, DAY), (2, timedelta(0)), (3, -DAY)):
            shift(by)
            store.save(model={"w": torch.ones(1)}, step=step)

    assert store.steps() == (2, 3)
    assert ckptstore.open(tmp_path).step == 3


def test_a_clock_that_jumps_back_makes_retention_remove_less_not_more(tmp_path, shift):
    with ckptstore.Store(tmp_path, keep=ckptstore.Keep(newer_than=3600)) as store:
        for step in (1, 2):
            store.save(model={"w": torch.ones(1)}, step=step)
        shift(-DAY)
        for step in (3, 4):
            store.save(model={"w": torch.ones(1)}, step=step)

    assert store.steps() == (1, 2, 3, 4)


def test_the_newest_step_stays_however_far_the_clock_jumps_ahead(tmp_path, shift):
    with ckptstore.Store(tmp_path, keep=ckptstore.Keep(newer_than=3600)) as store:
        store.save(model={"w": torch.ones(1)}, step=1)
        shift(DAY)
        store.save(model={"w": torch.ones(1)}, step=2)

    assert store.steps() == (2,)
    assert store.open().verify().sound


@pytest.mark.parametrize("by", [DAY, -DAY], ids=["ahead", "behind"])
def test_a_server_that_checks_signatures_names_the_clock(rclone_server, monkeypatch, by):
    import botocore.auth

    url, options = rclone_server.url("dante"), rclone_server.storage_options
    ckptstore.save(url, model={"w": torch.ones(1)}, step=1, storage_options=options)
    real = botocore.auth.get_current_datetime
    monkeypatch.setattr(
        botocore.auth, "get_current_datetime", lambda *more, **named: real(*more, **named) + by
    )

    for act in (
        lambda: ckptstore.open(url, storage_options=options),
        lambda: ckptstore.save(url, model={"w": torch.ones(1)}, storage_options=options),
    ):
        says = "the clock of this machine is wrong.*; S3 refuses requests beyond 15 minutes"
        with pytest.raises(ckptstore.StorageError, match=says) as caught:
            act()
        assert caught.value.committed is False

    monkeypatch.undo()
    assert ckptstore.open(url, storage_options=options).step == 1
