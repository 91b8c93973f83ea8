"""Which state opens, where the local folder and its tier differ; and going back."""

from __future__ import annotations

import logging
import shutil

import pytest

import ckptstore
from ckptstore import Keep, Store, Tier
from tests.tiers.conftest import model, value_of


def saved(local, tier, steps, **options):
    with Store(local, keep=Keep(), tier=tier, **options) as store:
        for step in steps:
            store.save(model=model(step), step=step)


def test_a_new_machine_goes_on_from_the_tier(local, tmp_path):
    tier = Tier(tmp_path / "there")
    saved(local, tier, (1, 2))
    shutil.rmtree(local)
    with Store(local, keep=Keep(), tier=tier) as store:
        checkpoint = store.open()
        assert (checkpoint.step, value_of(checkpoint)) == (2, 2.0)
        store.save(model=model(3), step=3)
        assert store.open().location == str(local)

    assert Store(tmp_path / "there").steps() == (1, 2, 3)


def test_the_local_folder_is_opened_where_it_is_as_new(local, tmp_path):
    tier = Tier(tmp_path / "there")
    saved(local, tier, (1, 2))

    assert Store(local, keep=Keep(), tier=tier).open().location == str(local)


def test_the_tier_is_opened_where_it_is_newer(local, tmp_path, caplog):
    tier = Tier(tmp_path / "there")
    saved(local, tier, (1, 2))
    saved(tmp_path / "elsewhere", tier, (3,))
    store = Store(local, keep=Keep(), tier=tier)

    assert store.open().step == 3
    assert "step 3 of the tier" in caplog.text
    assert store.open(2).location == str(local)
    assert store.open(3).location == str(tmp_path / "there")


def test_a_single_checkpoint_opens_by_the_same_rule(local, tmp_path):
    tier = Tier(tmp_path / "there")
    for folder, step in ((local, 1), (tmp_path / "elsewhere", 5)):
        with Store(folder, tier=tier) as store:
            store.save(model=model(step), step=step)

    assert Store(local, tier=tier).open().step == 5
    assert Store(tmp_path / "new", tier=tier).open().step == 5


def test_a_tier_that_cannot_be_reached_stops_nobody_who_has_a_local_state(local, caplog):
    options = {
        "endpoint_url": "http://127.0.0.1:9",
        "key": "a",
        "secret": "b",
        "config_kwargs": {"retries": {"max_attempts": 0}},
    }
    tier = Tier("s3://bucket/dante", storage_options=options, uploader="none")
    saved(local, tier, (1,))
    assert Store(local, keep=Keep(), tier=tier).open().step == 1
    assert "is opened, for its tier cannot be" in caplog.text
    shutil.rmtree(local)
    with pytest.raises(ckptstore.StorageError, match="cannot be reached"):
        Store(local, keep=Keep(), tier=tier).open()


def test_where_nothing_is_anywhere_it_is_the_local_folder_that_is_named(local, tmp_path):
    with pytest.raises(ckptstore.NotFoundError, match="no checkpoint in .*dante"):
        Store(local, tier=Tier(tmp_path / "there")).open()


def test_with_fallback_the_tier_stands_in_for_damage(local, tmp_path):
    tier = Tier(tmp_path / "there")
    saved(local, tier, (1,))
    path = local / "step-00000001/model.pt"
    path.write_bytes(bytes(path.stat().st_size))
    store = Store(local, keep=Keep(), tier=tier)

    assert store.open(fallback=True).location == str(tmp_path / "there")


def test_going_back_reaches_the_tier(local, tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="ckptstore")
    tier = Tier(tmp_path / "there")
    saved(local, tier, (1, 2, 3))
    with Store(local, keep=Keep(), tier=tier) as store:
        assert store.rewind(1) == (2, 3)
        assert store.open().step == 1
        store.save(model=model(20), step=2)

    there = Store(tmp_path / "there")
    assert there.steps() == (1, 2)
    assert value_of(there.open(2)) == 20.0


def test_until_the_tier_has_heard_of_going_back_the_local_folder_counts(local, tmp_path):
    saved(local, Tier(tmp_path / "there"), (1, 2, 3))
    store = Store(local, keep=Keep(), tier=Tier(tmp_path / "there", uploader="none"))
    store.rewind(1)

    assert store.open().step == 1
    with pytest.raises(ckptstore.NotFoundError, match="no checkpoint at step 3"):
        store.open(3)
    with Store(local, keep=Keep(), tier=Tier(tmp_path / "there")) as store:
        assert store.wait_for_uploads(60)
    assert Store(tmp_path / "there").steps() == (1,)


def test_one_can_go_back_to_a_step_that_only_the_tier_has(local, tmp_path):
    tier = Tier(tmp_path / "there")
    with Store(local, keep=Keep(last=1), tier=tier) as store:
        for step in (1, 2, 3):
            store.save(model=model(step), step=step)
            assert store.wait_for_uploads(60)
        assert store.steps() == (3,)
        assert store.rewind(2) == (3,)
        assert value_of(store.open()) == 2.0

    assert Store(tmp_path / "there").steps() == (1, 2)


def test_going_back_to_a_step_that_is_nowhere_changes_nothing(local, tmp_path):
    tier = Tier(tmp_path / "there")
    saved(local, tier, (1, 2, 3))
    with Store(local, keep=Keep(), tier=tier) as store:
        with pytest.raises(ckptstore.NotFoundError, match="step 7"):
            store.rewind(7)
        store.remove(3)

    assert Store(tmp_path / "there").steps() == (1, 2, 3)
