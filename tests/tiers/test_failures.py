"""Uploads that fail stop nothing, are tried again, and cannot be overlooked."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import threading

import pytest

import ckptstore
from ckptstore import Keep, Store, Tier
from ckptstore.storage import connect
from tests.tiers.conftest import model, until, value_of, waiting_in


def quick(url, **options):
    return Tier(url, retry_after=0.05, retry_at_most=0.3, **options)


def impatient(server):
    """What a client needs that is not to wait for a dead server for a minute."""
    more = {"config_kwargs": {"retries": {"max_attempts": 0}, "connect_timeout": 2}}
    return {**server.storage_options, **more}


def test_a_server_that_was_down_gets_all_when_it_is_up_again(local, new_server, caplog):
    caplog.set_level(logging.INFO, logger="ckptstore")
    server = new_server("rclone")
    url = server.url("dante")
    tier = quick(url, storage_options=impatient(server))
    with Store(local, keep=Keep(last=1), tier=tier) as store:
        store.save(model=model(1), step=1)
        assert store.wait_for_uploads(60)
        server.stop()
        for step in (2, 3):
            store.save(model=model(step), step=step)
        assert until(lambda: store.uploads().last_error is not None)
        assert not store.uploads().failed, "it mends itself"
        assert not store.wait_for_uploads(1.0)
        assert store.uploads().pending == 2
        server.restart()
        assert store.wait_for_uploads(120)
        assert store.uploads().last_error is None

    there = Store(url, storage_options=server.storage_options)
    assert there.steps() == (1, 2, 3)
    assert [value_of(there.open(step)) for step in there.steps()] == [1.0, 2.0, 3.0]
    told = [r for r in caplog.records if r.name.endswith("uploader") and r.levelno > logging.INFO]
    failures = [r.getMessage() for r in told if "fail, and are tried again" in r.getMessage()]
    assert 1 <= len(failures) <= 4, "each kind once, however often it was tried"
    assert any("takes uploads again, after" in record.getMessage() for record in told)


def test_close_does_not_wait_for_ever_for_a_server_that_is_down(local, new_server, caplog):
    server = new_server("rclone")
    url = server.url("dante")
    server.stop()
    tier = quick(url, storage_options=impatient(server), patience=0.5)
    with Store(local, tier=tier) as store:
        store.save(model=model(1), step=1)

    assert "1 save of" in caplog.text
    assert "waits in the journal for the next start" in caplog.text
    assert len(waiting_in(local)) == 1
    server.restart()
    with Store(local, tier=quick(url, storage_options=server.storage_options)):
        pass
    assert ckptstore.open(url, storage_options=server.storage_options).step == 1


def test_close_waits_no_longer_than_it_is_told_to(local, new_server):
    server = new_server("rclone")
    url = server.url("dante")
    server.stop()
    store = Store(local, tier=quick(url, storage_options=impatient(server)))
    store.save(model=model(1))
    store.close(timeout=0.1)

    assert len(waiting_in(local)) == 1


def test_an_absent_bucket_is_raised_at_the_end_and_not_before(local, moto_server, caplog):
    tier = quick("s3://there-is-none/dante", storage_options=moto_server.storage_options)
    store = Store(local, keep=Keep(), tier=tier)
    for step in (1, 2, 3):
        store.save(model=model(step), step=step)
    assert not store.wait_for_uploads()
    status = store.uploads()
    assert (status.pending, status.failed) == (3, True)
    assert isinstance(status.last_error, ckptstore.NotFoundError)
    with pytest.raises(
        ckptstore.StorageError, match="3 saves of .* were not copied to s3://there-"
    ) as told:
        store.close()

    assert told.value.committed is True
    assert "there is no bucket 'there-is-none'" in str(told.value)
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert [e.getMessage() for e in errors if "tried again" in e.getMessage()]
    assert store.steps() == (1, 2, 3)
    client = moto_server.client()
    client.create_bucket(Bucket="there-is-none")
    client.close()
    with Store(local, keep=Keep(), tier=tier):
        pass
    assert Store(tier.location, storage_options=tier.storage_options).steps() == (1, 2, 3)


def test_wrong_credentials_are_raised_at_the_end_and_tell_no_secret(local, rclone_server, caplog):
    url = rclone_server.url("dante")
    options = {**rclone_server.storage_options, "secret": "not-this-one"}
    store = Store(local, tier=quick(url, storage_options=options))
    store.save(model=model(1))
    assert not store.wait_for_uploads()
    with pytest.raises(ckptstore.StorageError, match="access denied") as told:
        store.close()

    assert "not-this-one" not in f"{told.value} {told.value.__cause__} {caplog.text}"
    assert ckptstore.open(local).generation == 1
    with Store(local, tier=quick(url, storage_options=rclone_server.storage_options)):
        pass
    assert ckptstore.open(url, storage_options=rclone_server.storage_options).generation == 1


def test_an_error_in_training_is_the_one_that_is_raised(local, moto_server):
    tier = quick("s3://there-is-none-2/dante", storage_options=moto_server.storage_options)

    def train():
        with Store(local, tier=tier) as store:
            store.save(model=model(1))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        train()


def test_a_damaged_state_stops_no_other(local, tmp_path, caplog):
    with Store(local, keep=Keep(), tier=Tier(tmp_path / "there", uploader="none")) as store:
        for step in (1, 2, 3):
            store.save(model=model(step), step=step)
    path = local / "step-00000002/model.pt"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    store = Store(local, keep=Keep(last=1), tier=quick(tmp_path / "there"))
    assert not store.wait_for_uploads()
    assert store.uploads().failed
    with pytest.raises(ckptstore.StorageError, match=r"1 save .*model\.pt .* is damaged"):
        store.close()

    assert Store(tmp_path / "there").steps() == (1, 3)
    assert 2 in store.steps()
    assert caplog.text.count("step 2 is not copied to") >= 1


def test_a_tier_that_holds_something_else_is_a_conflict(local, tmp_path):
    ckptstore.save(tmp_path / "there", model=model(1))
    store = Store(local, keep=Keep(), tier=quick(tmp_path / "there"))
    store.save(model=model(1), step=1)
    with pytest.raises(ckptstore.StorageError, match="holds a single checkpoint"):
        store.close()
    Store(tmp_path / "steps", keep=Keep()).save(model=model(1), step=1)
    store = Store(tmp_path / "one", tier=quick(tmp_path / "steps"))
    store.save(model=model(1))
    with pytest.raises(ckptstore.StorageError, match="is a history of steps"):
        store.close()


def test_another_runs_step_is_never_replaced(local, tmp_path):
    Store(tmp_path / "there", keep=Keep()).save(model=model(9), step=1)
    store = Store(local, keep=Keep(), tier=quick(tmp_path / "there"))
    store.save(model=model(1), step=1)
    with pytest.raises(ckptstore.StorageError, match="step 1 is in .* with other content"):
        store.close()

    assert value_of(Store(tmp_path / "there").open(1)) == 9.0


def test_a_full_disk_of_the_tier_is_waited_for(local, small_disk):
    junk = small_disk / "junk"
    junk.write_bytes(bytes(2_000_000))
    with Store(local, keep=Keep(), tier=quick(small_disk / "there")) as store:
        store.save(model=model(1, 50_000), step=1)
        assert until(lambda: store.uploads().last_error is not None)
        assert not store.uploads().failed
        junk.unlink()
        assert store.wait_for_uploads(60)

    assert value_of(Store(small_disk / "there").open(1)) == 1.0


def test_a_full_disk_where_states_wait_says_what_holds_it(small_disk, tmp_path, caplog):
    store = Store(
        small_disk / "dante", keep=Keep(last=1), tier=Tier(tmp_path / "there", uploader="none")
    )
    with pytest.raises(ckptstore.StorageError, match="no space is left"):  # noqa: PT012
        for step in range(1, 20):
            store.save(model=model(step, 100_000), step=step)

    count = len(waiting_in(small_disk / "dante"))
    assert f"{count} saves in" in caplog.text
    assert "wait to be copied to a tier" in caplog.text
    with Store(small_disk / "dante", keep=Keep(last=1), tier=Tier(tmp_path / "there")) as store:
        assert store.wait_for_uploads(60)
        assert until(lambda: len(store.steps()) == 1)
        store.save(model=model(30, 100_000), step=30)
    assert Store(tmp_path / "there").steps() == (*range(1, count + 1), 30)


def test_a_folder_of_the_tier_that_may_not_be_written_is_an_error(local, tmp_path):
    if os.geteuid() == 0:
        pytest.skip("nothing is denied to root")
    (tmp_path / "there").mkdir(mode=0o555)
    store = Store(local, tier=quick(tmp_path / "there"))
    store.save(model=model(1))
    with pytest.raises(ckptstore.StorageError, match="permission denied"):
        store.close()


# -- several programs ------------------------------------------------------------------------

PROGRAM = """
import sys, torch, ckptstore
folder, there, first, last = sys.argv[1:]
keep, tier = ckptstore.Keep(last=3), ckptstore.Tier(there)
with ckptstore.Store(folder, keep=keep, tier=tier) as store:
    for step in range(int(first), int(last), 2):
        store.save(model={"w": torch.full((500,), float(step))}, step=step)
    assert store.wait_for_uploads(100)
"""


def test_two_programs_on_one_folder_do_not_fight(local, tmp_path):
    words = [sys.executable, "-c", PROGRAM, str(local), str(tmp_path / "there")]
    both = [
        subprocess.Popen([*words, first, last], stderr=subprocess.PIPE, text=True)
        for first, last in (("1", "20"), ("2", "21"))
    ]
    for program in both:
        _, said = program.communicate(timeout=200)
        assert program.returncode == 0, said

    there = Store(tmp_path / "there")
    assert there.steps() == tuple(range(1, 21))
    assert [value_of(there.open(step)) for step in there.steps()] == list(map(float, range(1, 21)))
    assert waiting_in(local) == []


def test_one_uploader_works_at_a_time(local, tmp_path):
    from ckptstore.tiers.journal import Journal

    with Store(local, tier=Tier(tmp_path / "there", uploader="none")) as store:
        store.save(model=model(1))
    journal, other = Journal(connect(local)), Journal(connect(local))
    with journal.alone() as first:
        with other.alone() as second:
            assert (first, second) == (True, False)
        store = Store(local, tier=quick(tmp_path / "there"))
        assert not store.wait_for_uploads(1.0)
    assert store.wait_for_uploads(60)
    store.close()


def test_a_save_that_is_under_way_is_not_taken_for_one_that_died(local, tmp_path):
    from ckptstore.tiers.journal import Journal

    there = str(tmp_path / "there")
    journal = Journal(connect(local), there)
    entered, leave = threading.Event(), threading.Event()

    def save():
        with journal.saving(7):
            entered.set()
            leave.wait(60)
            Store(local, keep=Keep()).save(model=model(7), step=7)

    thread = threading.Thread(target=save)
    thread.start()
    entered.wait(60)
    store = Store(local, keep=Keep(), tier=quick(there))
    assert not store.wait_for_uploads(1.5)
    leave.set()
    thread.join()
    assert store.wait_for_uploads(60)
    store.close()
    assert Store(there).steps() == (7,)


def test_what_is_lost_in_the_tier_comes_again_with_the_same_step(local, tmp_path):
    with Store(local, keep=Keep(), tier=quick(tmp_path / "there")) as store:
        store.save(model=model(1), step=1)
        assert store.wait_for_uploads(60)
        shutil.rmtree(tmp_path / "there")
        store.save(model=model(1), step=1)

    assert Store(tmp_path / "there").steps() == (1,)
