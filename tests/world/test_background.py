"""A save in the background that fails stops nothing: told at once, at the next call, and at close.

And one that is under way when the program ends, or is interrupted, is finished first.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest
import torch

import ckptstore
from ckptstore.testing import Refuse, asked, inject

FULL = "no space is left; free some, then try again"


def state(step):
    return {"w": torch.full((10,), float(step))}


def failed(location):
    """Return a store whose last save in the background failed, and its future."""
    full = Refuse(asked("create", "manifest.json"), ckptstore.StorageError(FULL), times=1)
    with inject(full):
        store = ckptstore.Store(location)
    future = store.save_async(model=state(1), step=1)
    store._background._join()
    return store, future


def told(caplog):
    return [(record.levelname, record.getMessage()) for record in caplog.records]


AT_ONCE = ("ERROR", f"a save in the background failed: {FULL}")
LATER = ("WARNING", f"an earlier save in the background failed: {FULL}")


def test_it_is_logged_at_once(tmp_path, caplog):
    failed(tmp_path / "dante")

    assert told(caplog) == [AT_ONCE]


@pytest.mark.parametrize("call", ["save", "save_async", "prepare"])
def test_the_next_call_says_it_once_more_and_goes_on(tmp_path, caplog, call):
    store, _ = failed(tmp_path / "dante")

    for _ in range(2):
        if call == "prepare":
            store.prepare(model=state(2))
        else:
            getattr(store, call)(model=state(2), step=2)
    store._background._join()

    assert told(caplog) == [AT_ONCE, LATER]
    if call != "prepare":
        assert store.open().step == 2


def test_close_raises_it_once(tmp_path, caplog):
    store, _ = failed(tmp_path / "dante")

    with pytest.raises(ckptstore.StorageError, match=FULL):
        store.close()
    store.close()

    assert told(caplog) == [AT_ONCE]


def test_who_asked_the_future_is_told_nothing_twice(tmp_path, caplog):
    store, future = failed(tmp_path / "dante")
    with pytest.raises(ckptstore.StorageError, match=FULL):
        future.result()

    store.save(model=state(2), step=2)
    store.close()

    assert told(caplog) == [AT_ONCE]


def test_it_hides_no_other_exception(tmp_path, caplog):
    store, _ = failed(tmp_path / "dante")

    def train():
        with store:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        train()
    assert told(caplog) == [AT_ONCE, LATER]


def test_what_is_being_committed_cannot_be_cancelled(tmp_path, caplog):
    with ckptstore.Store(tmp_path / "dante") as store:
        future = store.save_async(model=state(1), step=1)
        cancelled = future.cancel()

        assert future.result().step == 1

    assert not cancelled
    assert told(caplog) == []


def test_a_bug_is_told_by_its_name(tmp_path, caplog):
    store = ckptstore.Store(tmp_path / "dante")
    store._background._commit = lambda *_: {}["none"]

    store.save_async(model=state(1))

    with pytest.raises(KeyError):
        store.close()
    assert told(caplog) == [("ERROR", "a save in the background failed: KeyError('none')")]


@pytest.mark.parametrize(("end", "host"), [("it ends", "localhost"), ("Ctrl-C", "127.0.0.1")])
def test_a_save_to_a_bucket_is_finished_before_the_program_ends(moto_server, host, end):
    url = moto_server.url("dante")
    endpoint = moto_server.endpoint.replace("127.0.0.1", host)
    program = f"""
import os, signal, torch, ckptstore
store = ckptstore.Store({url!r})
store.save_async(model={{"w": torch.full((1_000_000,), 7.0)}}, step=7)
{"os.kill(os.getpid(), signal.SIGINT)" if end == "Ctrl-C" else ""}
"""
    environ = {**os.environ, **moto_server.environ, "AWS_ENDPOINT_URL": endpoint}

    done = subprocess.run(
        [sys.executable, "-c", program], env=environ, capture_output=True, text=True, check=False
    )

    assert bool(done.returncode) == (end == "Ctrl-C"), done.stderr
    assert "failed" not in done.stderr
    checkpoint = ckptstore.open(url, storage_options=moto_server.storage_options)
    assert (checkpoint.load_model()["w"] == 7).all()


def test_a_program_that_is_terminated_leaves_the_old_checkpoint_or_the_new_one(tmp_path):
    ckptstore.save(tmp_path / "dante", model=state(1), step=1)
    program = f"""
import torch, ckptstore
store = ckptstore.Store({str(tmp_path / "dante")!r})
for step in range(2, 1000):
    store.save_async(model={{"w": torch.full((10,), float(step))}}, step=step)
    print(step, flush=True)
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as process:
        for _ in range(5):
            process.stdout.readline()
        process.terminate()

    assert process.returncode == -signal.SIGTERM
    checkpoint = ckptstore.open(tmp_path / "dante")
    assert checkpoint.step >= 5
    assert (checkpoint.load_model()["w"] == checkpoint.step).all()
