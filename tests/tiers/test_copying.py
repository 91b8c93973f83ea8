"""What is saved on the local disk arrives in the tier, step by step or the newest generation."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

import ckptstore
from ckptstore import Keep, Store, Tier
from ckptstore.tiers.journal import JOURNAL
from tests.tiers.conftest import model, until, value_of, waiting_in


def test_every_step_of_a_history_arrives(local, location):
    url, options = location
    with Store(local, keep=Keep(last=2), tier=Tier(url, storage_options=options)) as store:
        for step in (10, 20, 30, 40):
            store.save(model=model(step), step=step, metrics={"loss": 1 / step})
        assert store.wait_for_uploads(60)
        status = store.uploads()
        assert (status.pending, status.done, status.last_error) == (0, 4, None)
        assert status.copied_bytes > 4 * 2000

    there = Store(url, storage_options=options)
    assert there.steps() == (10, 20, 30, 40)
    for step in there.steps():
        checkpoint = there.open(step)
        assert value_of(checkpoint) == step
        assert checkpoint.metrics == {"loss": 1 / step}
        assert checkpoint.verify().sound
    assert store.steps() == (30, 40)
    assert not (local / JOURNAL).exists()


def test_of_a_single_checkpoint_the_newest_generation_arrives(local, location):
    url, options = location
    with Store(local, tier=Tier(url, storage_options=options)) as store:
        for number in range(1, 6):
            store.save(model=model(number), step=number)
        store.save_async(model=model(6), step=6)

    checkpoint = ckptstore.open(url, storage_options=options)
    assert (checkpoint.step, value_of(checkpoint)) == (6, 6.0)
    assert checkpoint.verify().sound
    assert store.generations() == (6,)
    assert not (local / JOURNAL).exists()


def test_saves_in_the_background_arrive(local, rclone_server):
    url, options = rclone_server.url(), rclone_server.storage_options
    with Store(local, keep=Keep(last=1), tier=Tier(url, storage_options=options)) as store:
        for step in (1, 2, 3):
            store.save_async(model=model(step, 5_000_000), step=step)

    there = Store(url, storage_options=options)
    assert there.steps() == (1, 2, 3)
    assert [value_of(there.open(step)) for step in there.steps()] == [1.0, 2.0, 3.0]
    assert store.steps() == (3,)


def test_the_tier_keeps_what_its_own_policy_says(local, tmp_path):
    tier = Tier(tmp_path / "there", keep=Keep(every=20, best="loss"))
    with Store(local, keep=Keep(last=1), tier=tier) as store:
        for step, loss in ((10, 3.0), (20, 2.0), (30, 1.0), (40, 5.0), (50, 4.0)):
            store.save(model=model(step), step=step, metrics={"loss": loss})
            assert store.wait_for_uploads(60)

    assert Store(tmp_path / "there").steps() == (20, 30, 40, 50)
    assert store.steps() == (50,)


def test_steps_that_the_tier_would_not_keep_are_not_sent(local, tmp_path):
    with Store(local, keep=Keep(), tier=Tier(tmp_path / "there", uploader="none")) as store:
        for step in (10, 20, 30, 40):
            store.save(model=model(step), step=step)
    tier = Tier(tmp_path / "there", keep=Keep(last=2))
    with Store(local, keep=Keep(), tier=tier) as store:
        assert store.wait_for_uploads(60)
        assert store.uploads().done == 2

    assert Store(tmp_path / "there").steps() == (30, 40)


def test_copies_for_inference_have_no_optimizer(local, tmp_path):
    optimizer = {"state": {}, "param_groups": []}
    with Store(local, tier=Tier(tmp_path / "there", optimizer=False)) as store:
        store.save(model=model(1), optimizer=optimizer, step=1)

    assert ckptstore.open(local).has_optimizer
    assert not ckptstore.open(tmp_path / "there").has_optimizer


def test_a_step_that_is_written_over_is_written_over_in_the_tier(local, tmp_path):
    with Store(local, keep=Keep(), tier=Tier(tmp_path / "there")) as store:
        store.save(model=model(1), step=5)
        assert store.wait_for_uploads(60)
        store.save(model=model(2), step=5, overwrite=True)

    assert value_of(ckptstore.open(tmp_path / "there")) == 2.0


def test_what_waits_stays_on_the_disk_until_it_was_copied(local, tmp_path, caplog):
    tier = Tier(tmp_path / "there", uploader="none")
    with Store(local, keep=Keep(last=1), tier=tier) as store:
        for step in range(1, 7):
            store.save(model=model(step), step=step)
        assert store.steps() == (1, 2, 3, 4, 5, 6)
    assert "4 steps of" in caplog.text
    assert "stay until they were copied to the tier" in caplog.text
    assert len(waiting_in(local)) == 6

    Store(local, keep=Keep(last=1)).save(model=model(7), step=7)
    assert Store(local).steps() == (1, 2, 3, 4, 5, 6, 7), "nor does a store without the tier"
    with Store(local, keep=Keep(last=1), tier=Tier(tmp_path / "there")) as store:
        assert store.wait_for_uploads(60)
    assert until(lambda: store.steps() == (7,))
    assert Store(tmp_path / "there").steps() == (1, 2, 3, 4, 5, 6)


def test_a_generation_that_is_being_copied_stays_meanwhile(local, tmp_path):
    from ckptstore.storage import locks

    store = Store(local)
    store.save(model=model(1))
    held = locks.lock(str(local / ".ckptstore/00000001/manifest.json"), shared=True)
    store.save(model=model(2))
    assert store.generations() == (1, 2)
    locks.unlock(held)
    store.save(model=model(3))
    assert store.generations() == (3,)


def test_the_journal_is_for_people_and_holds_no_secret(local, moto_server):
    url, options = moto_server.url(), moto_server.storage_options
    tier = Tier(url, storage_options=options, uploader="none")
    with Store(local, keep=Keep(), tier=tier) as store:
        store.save(model=model(1), step=500)

    (name,) = waiting_in(local)
    assert name.startswith("00000001-step-00000500-")
    text = (local / JOURNAL / name).read_text()
    document = json.loads(text)
    assert (document["step"], document["to"]) == (500, url)
    assert moto_server.secret not in text + repr(tier)
    assert moto_server.key not in text + repr(tier)


def test_a_folder_with_a_journal_is_what_it_was(local, tmp_path):
    with Store(local, tier=Tier(tmp_path / "there", uploader="none")) as store:
        store.save(model=model(1), step=1)
    assert len(waiting_in(local)) == 1

    assert ckptstore.open(local).generation == 1
    assert store.repair() == ()
    assert store.steps() == ()
    copied = ckptstore.sync(local, tmp_path / "copy")
    assert copied.changed
    assert sorted(os.listdir(tmp_path / "copy")) == sorted(
        name for name in os.listdir(local) if name != JOURNAL
    )
    store.remove()
    assert os.listdir(local) == []


def test_what_was_removed_before_its_turn_is_not_copied(local, tmp_path):
    with Store(local, keep=Keep(), tier=Tier(tmp_path / "there", uploader="none")) as store:
        for step in (1, 2):
            store.save(model=model(step), step=step)
        store.remove(1)
    with Store(local, keep=Keep(), tier=Tier(tmp_path / "there")) as store:
        assert store.wait_for_uploads(60)

    assert Store(tmp_path / "there").steps() == (2,)


def test_a_save_that_fails_leaves_nothing_to_be_copied(local, tmp_path):
    with Store(local, keep=Keep(), tier=Tier(tmp_path / "there", uploader="none")) as store:
        store.save(model=model(1), step=1)
        before = waiting_in(local)
        with pytest.raises(ckptstore.ConflictError, match="step 1 is in"):
            store.save(model=model(2), step=1)
        assert waiting_in(local) == before


def test_who_closed_a_store_may_go_on_with_it(local, tmp_path):
    store = Store(local, tier=Tier(tmp_path / "there"))
    for number in (1, 2):
        store.save(model=model(number), step=number)
        store.close()
        assert ckptstore.open(tmp_path / "there").step == number
    assert store.uploads().done == 2


def test_a_tier_in_memory_is_written_by_a_thread(local, memory_url):
    with Store(local, keep=Keep(last=1), tier=Tier(memory_url)) as store:
        for step in (1, 2, 3):
            store.save(model=model(step), step=step)

    assert Store(memory_url).steps() == (1, 2, 3)


def test_uploads_leave_the_trainings_random_numbers_alone(local, memory_url):
    import random

    random.seed(1)
    before = random.getstate()
    with Store(local, tier=Tier(memory_url, retry_after=0.01)) as store:
        store.save(model=model(1))

    assert random.getstate() == before


# -- what does not go together ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("tier", "keep", "match"),
    [
        (lambda here: Tier(here), None, "is the location and its tier at once"),
        (lambda here: Tier(here / "x", keep=Keep(last=1)), None, "for the steps of a history"),
    ],
)
def test_a_tier_that_does_not_go_with_its_store_is_refused(local, tier, keep, match):
    with pytest.raises(ckptstore.UnsupportedError, match=match):
        Store(local, keep=keep, tier=tier(local))


def test_a_tier_needs_a_local_disk(memory_url, tmp_path):
    with pytest.raises(ckptstore.UnsupportedError, match="is on no local disk"):
        Store(memory_url, tier=Tier(tmp_path))


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"retry_after": -1}, r"Tier\(retry_after=-1\) is not a time"),
        ({"retry_at_most": None}, r"Tier\(retry_at_most=None\) is not a time"),
        ({"patience": "1"}, r"Tier\(patience='1'\) is not a time"),
        ({"keep": 3}, r"Tier\(keep=3\) is no ckptstore\.Keep"),
        ({"uploader": "me"}, r"Tier\(uploader='me'\) is none of 'auto', 'thread', 'none'"),
    ],
)
def test_a_mistyped_tier_is_refused(options, match):
    with pytest.raises(ckptstore.UnsupportedError, match=match):
        Tier("there", **options)


def test_a_store_with_a_tier_has_no_siblings(local, tmp_path):
    store = Store(local, tier=Tier(tmp_path / "there"))
    with pytest.raises(ckptstore.UnsupportedError, match="make a Store with a Tier of its own"):
        store.sibling(tmp_path / "other")


def test_a_store_without_a_tier_has_nothing_to_wait_for(local):
    with Store(local) as store:
        store.save(model=model(1))
        assert store.wait_for_uploads()
        assert store.uploads() == ckptstore.Uploads()


def test_an_entry_that_nobody_can_read_is_told_and_stops_nothing(local, tmp_path, caplog):
    folder = local / JOURNAL
    folder.mkdir(parents=True)
    bad = folder / f"00000001-step-00000001-{'0' * 16}.json"
    bad.write_text('{"ckptstore_upload": 2}')
    with Store(local, keep=Keep(), tier=Tier(tmp_path / "there")) as store:
        store.save(model=model(2), step=2)

    assert "is none of this version's (1): it says 2" in caplog.text
    assert Store(tmp_path / "there").steps() == (2,)
    assert bad.exists()


def test_what_waits_for_another_tier_is_told(local, tmp_path, caplog):
    with Store(local, keep=Keep(), tier=Tier(tmp_path / "old", uploader="none")) as store:
        store.save(model=model(1), step=1)
    with Store(local, keep=Keep(), tier=Tier(tmp_path / "new")) as store:
        store.save(model=model(2), step=2)

    assert f"wait for another tier, {tmp_path / 'old'}" in caplog.text
    assert Store(tmp_path / "new").steps() == (2,)
    assert len(waiting_in(local)) == 1


def test_plain_folders_have_no_journal(tmp_path: Path):
    with Store(tmp_path / "a", keep=Keep(last=1)) as store:
        for step in (1, 2):
            store.save(model=model(step), step=step)

    assert os.listdir(tmp_path / "a") == ["step-00000002"]
