"""Whatever dies, nothing that was saved is forgotten, and the next start goes on with it."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import ckptstore
from ckptstore import Keep, Store, Tier
from ckptstore.storage import connect
from ckptstore.storage.names import TEMPORARY
from ckptstore.testing import Crash, Killed, asked, inject
from ckptstore.tiers.journal import JOURNAL
from tests.faults.deaths import CHANGES
from tests.tiers.conftest import model, until, value_of, waiting_in

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has such processes")


def process_of(store: Store) -> subprocess.Popen[bytes]:
    assert until(lambda: store._uploading._process is not None)
    return store._uploading._process


def gone(pid: int) -> bool:
    def is_gone() -> bool:
        with contextlib.suppress(FileNotFoundError):
            return "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text()
        return True

    return until(is_gone)


TRAINING = """
import sys, torch, ckptstore, json
folder, there, options = sys.argv[1:]
tier = ckptstore.Tier(there, storage_options=json.loads(options), retry_after=0.05)
store = ckptstore.Store(folder, keep=ckptstore.Keep(last=2), tier=tier)
first = (store.steps() or (0,))[-1] + 1
for step in range(first, first + 1000):
    store.save(model={"w": torch.full((500,), float(step))}, step=step)
    print(step, flush=True)
    if step == first:
        while store._uploading._process is None:
            pass
        print("uploader", store._uploading._process.pid, flush=True)
"""


def test_a_training_that_is_killed_again_and_again_loses_nothing(local, rclone_server):
    import json

    url, options = rclone_server.url("dante"), rclone_server.storage_options
    words = [sys.executable, "-c", TRAINING, str(local), url, json.dumps(options)]
    acknowledged, uploaders = [], []
    for wait in (0.0, 0.5):
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as training:
            while not acknowledged or len(acknowledged) % 4:
                line = training.stdout.readline().split()
                if line[0] == "uploader":
                    uploaders.append(int(line[1]))
                else:
                    acknowledged.append(int(line[0]))
            time.sleep(wait)
            training.kill()
            rest = training.stdout.read().splitlines()
            acknowledged += [int(line) for line in rest if line.isdecimal()]
            acknowledged += [acknowledged[-1]] * (-(len(acknowledged) + 1) % 4)
    assert all(gone(pid) for pid in uploaders)
    newest = Store(local).open()

    with Store(local, keep=Keep(last=2), tier=Tier(url, storage_options=options)) as store:
        assert store.wait_for_uploads(200)
        assert store.open().step == newest.step
    there = Store(url, storage_options=options)
    assert {*acknowledged} <= {*there.steps()}
    assert {*there.steps()} <= {*range(1, newest.step + 1)}
    for step in there.steps():
        checkpoint = there.open(step)
        assert value_of(checkpoint) == step
        assert checkpoint.verify().sound
    assert waiting_in(local) == []
    # Who was killed while it wrote a name may leave a temporary one, which counts for nothing.
    left = [path.name for path in (local / JOURNAL).glob("*")]
    assert all(name == "lock" or name.startswith(TEMPORARY) for name in left)


@pytest.mark.parametrize("when", ["idle", "at work"])
def test_an_uploader_that_is_killed_is_started_anew(local, tmp_path, caplog, when):
    with Store(local, keep=Keep(), tier=Tier(tmp_path / "there")) as store:
        store.save(model=model(1), step=1)
        first = process_of(store)
        if when == "idle":
            assert store.wait_for_uploads(60)
            first.kill()
        else:
            first.send_signal(signal.SIGSTOP)
            store.save(model=model(2), step=2)
            first.kill()
        store.save(model=model(3), step=3)
        assert store.wait_for_uploads(60)
        assert process_of(store) is not first

    assert {1, 3} <= {*Store(tmp_path / "there").steps()}
    assert "the process that uploads has ended (-9); another one is started" in caplog.text


def test_the_uploader_goes_with_close_and_with_a_store_that_is_forgotten(local, tmp_path):
    import gc

    store = Store(local, tier=Tier(tmp_path / "there"))
    store.save(model=model(1))
    first = process_of(store)
    assert store.wait_for_uploads(60)
    assert os.getpriority(os.PRIO_PROCESS, first.pid) > os.getpriority(os.PRIO_PROCESS, 0)
    assert "libtorch" not in Path(f"/proc/{first.pid}/maps").read_text()
    store.close()
    assert first.returncode is not None
    store.save(model=model(2))
    second = process_of(store).pid
    del store
    gc.collect()
    assert gone(second)


def test_no_secret_is_on_its_command_line(local, moto_server):
    url, options = moto_server.url("dante"), moto_server.storage_options
    with Store(local, tier=Tier(url, storage_options=options)) as store:
        store.save(model=model(1))
        words = Path(f"/proc/{process_of(store).pid}/cmdline").read_text()
        assert moto_server.secret not in words


def before_change(number):
    """Return a death before the so-manieth operation that changes what is stored."""
    changes = itertools.count(1)

    def fault(operation, perform):
        if operation.name in CHANGES and next(changes) >= number:
            raise Killed
        return perform()

    return fault


@pytest.mark.parametrize("history", [True, False])
def test_a_death_at_any_operation_of_a_save_forgets_no_committed_state(tmp_path, history):
    """Killed before each change of the local disk, in turn, until a save gets through."""
    keep = Keep(last=2) if history else None
    for number in range(1, 200):
        local, there = tmp_path / f"{number}", tmp_path / f"{number}-there"
        with Store(local, keep=keep, tier=Tier(there, uploader="none")) as store:
            store.save(model=model(1), step=1)

        fault = before_change(number)

        done = False
        with contextlib.suppress(Killed), inject(fault):
            Store(local, keep=keep, tier=Tier(there, uploader="none")).save(model=model(2), step=2)
            done = True
        newest = ckptstore.open(local).step
        with Store(local, keep=keep, tier=Tier(there, uploader="thread")) as store:
            assert store.wait_for_uploads(60)
        assert ckptstore.open(there).step == newest, f"killed before operation {number}"
        assert waiting_in(local) == []
        if done:
            break
    assert done
    assert number > 6


@pytest.mark.parametrize("history", [True, False])
def test_a_death_at_any_operation_of_an_upload_loses_nothing(tmp_path, history):
    from ckptstore.tiers import byhand

    keep = Keep() if history else None
    for number in range(1, 300):
        local, there = tmp_path / f"{number}", tmp_path / f"{number}-there"
        with Store(local, keep=keep, tier=Tier(there, uploader="none")) as store:
            for step in (1, 2):
                store.save(model=model(step), step=step)

        fault = before_change(number)

        done = False
        with contextlib.suppress(Killed), inject(fault):
            list(byhand.upload(local, there))
            done = True
        if waiting_in(local):
            assert not done
        [*byhand.upload(local, there)]
        assert waiting_in(local) == []
        assert ckptstore.open(there).verify().sound
        assert ckptstore.open(there).step == 2
        assert Store(there).steps() == ((1, 2) if history else ())
        if done:
            break
    assert done
    assert number > 6


def test_an_entry_whose_save_never_committed_goes_without_a_word(local, tmp_path, caplog):
    caplog.set_level(logging.WARNING, logger="ckptstore")
    store = Store(local, keep=Keep(), tier=Tier(tmp_path / "there", uploader="none"))
    with contextlib.suppress(Killed), inject(Crash(asked("create", "step-00000001/manifest.json"))):
        Store(local, keep=Keep(), tier=store.tier).save(model=model(1), step=1)
    assert len(waiting_in(local)) == 1
    with Store(local, keep=Keep(), tier=Tier(tmp_path / "there")) as store:
        assert store.wait_for_uploads(60)

    assert waiting_in(local) == []
    assert connect(tmp_path / "there").list().folders == ()
    assert caplog.records == []


def test_where_no_process_comes_up_a_thread_uploads(local, tmp_path, monkeypatch, caplog):
    from ckptstore.background import process

    monkeypatch.setattr(process, "_START", "raise SystemExit(3)")
    with Store(local, keep=Keep(), tier=Tier(tmp_path / "there")) as store:
        store.save(model=model(1), step=1)
        assert store.wait_for_uploads(60)

    assert Store(tmp_path / "there").steps() == (1,)
    assert "no process for uploads comes up (3), a thread makes them" in caplog.text
