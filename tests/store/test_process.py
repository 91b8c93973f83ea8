"""Saves in the background that a process of its own commits: as good as in a thread, or in one."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import ckptstore
from ckptstore.background import process, running

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has such processes")


def state(value: float, count: int = 1000) -> dict[str, torch.Tensor]:
    return {"w": torch.full((count,), float(value))}


def value_of(checkpoint: ckptstore.Checkpoint) -> float:
    (value,) = set(checkpoint.load_model()["w"].tolist())
    return value


@pytest.fixture(autouse=True)
def always(monkeypatch):
    """Small states are worth a process, too."""
    monkeypatch.setattr(running, "_WORTH_A_PROCESS", 0)


def process_of(store: ckptstore.Store) -> subprocess.Popen[bytes]:
    found = store._background._process._running
    assert found is not None, "no process was started"
    return found._process


def in_a_thread(store: ckptstore.Store) -> bool:
    return store._background._process._running is None


def gone(pid: int, seconds: float = 20.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(FileNotFoundError):
            if "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text():
                time.sleep(0.01)
                continue
        return True
    return False


# -- it saves --------------------------------------------------------------------------------


def test_what_it_commits_is_what_save_would_have_committed(tmp_path):
    table = torch.randn(300, 300)
    sparse = torch.eye(3).to_sparse()
    contents = {
        "model": {"a": table, "tied": table, "row": torch.randn(90, 90)[4], "none": table[:0]},
        "optimizer": {"state": {0: {"m": table.half(), "s": sparse}}, "param_groups": []},
        "config": {"é": 1},
        "tokenizer": {"token_kind": "char", "chars": ["a", "b"]},
        "state": {"rng": {"torch": torch.get_rng_state()}},
        "training_state": {"loss": 0.5},
        "metrics": {"loss": 0.5},
        "step": 3,
    }
    with ckptstore.Store(tmp_path / "one") as store:
        beside = store.save_async(**contents).result()
        assert process_of(store).poll() is None
    alone = ckptstore.save(tmp_path / "two", **contents)

    for name in ("model.pt", "optimizer.pt", "rng.pt", "config.json", "tokenizer.json"):
        one, two = (tmp_path / folder / name for folder in ("one", "two"))
        assert one.read_bytes() == two.read_bytes(), name
    assert beside.fingerprint == alone.fingerprint
    assert beside.metrics == alone.metrics
    assert beside.verify().sound


def test_it_saves_to_a_bucket(location):
    url, options = location
    with ckptstore.Store(url, storage_options=options) as store:
        for step in (1, 2):
            store.save_async(model=state(step, 3_000_000), step=step).result()
        assert in_a_thread(store) == url.startswith("memory:")

    checkpoint = ckptstore.open(url, storage_options=options)
    assert (checkpoint.step, value_of(checkpoint)) == (2, 2.0)
    assert checkpoint.verify().sound


def test_a_history_keeps_what_its_policy_says(tmp_path):
    with ckptstore.Store(tmp_path, keep=ckptstore.Keep(last=2)) as store:
        store.save(model=state(1), step=1)
        for step in (2, 3):
            store.save_async(model=state(step), step=step).result()
        store.save(model=state(4), step=4)
        store.save_async(model=state(5), step=5).result()

    assert store.steps() == (4, 5)
    assert [value_of(store.open(step)) for step in (4, 5)] == [4.0, 5.0]


def test_it_spares_what_is_pinned_and_what_is_best(tmp_path, caplog):
    keep = ckptstore.Keep(last=1, best="loss")
    with ckptstore.Store(tmp_path, keep=keep) as store:
        store.save_async(model=state(1), step=1, metrics={"loss": 1.0}).result()
        store.pin(1)
        for step in (2, 3):
            store.save_async(model=state(step), step=step, metrics={"loss": 1 / step}).result()
        store.save_async(model=state(4), step=4, metrics={"loss": 1.0}).result()

    assert store.steps() == (1, 3, 4)
    assert store.pinned() == (1,)
    assert not caplog.records, "there was nothing to say"


def test_a_state_that_changes_its_size_is_saved_as_it_is(tmp_path):
    with ckptstore.Store(tmp_path) as store:
        for count in (10, 2_000_000, 100, 5_000_000, 4_999_999):
            saved = store.save_async(model=state(count, count)).result()
            assert saved.load_model()["w"].shape == (count,)
            assert value_of(saved) == count


def test_training_may_go_on_at_once(tmp_path):
    model = state(1, 1_000_000)
    with ckptstore.Store(tmp_path) as store:
        future = store.save_async(model=model)
        model["w"].fill_(-1.0)

        assert value_of(future.result()) == 1.0


def test_a_relative_location_is_the_one_of_its_beginning(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other").mkdir()
    with ckptstore.Store("dante") as store:
        monkeypatch.chdir(tmp_path / "other")
        store.save_async(model=state(1)).result()

    assert value_of(ckptstore.open(tmp_path / "dante")) == 1.0


def test_it_needs_no_torch_and_lets_training_go_first(tmp_path):
    with ckptstore.Store(tmp_path) as store:
        store.save_async(model=state(1)).result()
        pid = process_of(store).pid

        assert "libtorch" in Path(f"/proc/{os.getpid()}/maps").read_text()
        assert "libtorch" not in Path(f"/proc/{pid}/maps").read_text()
        assert os.getpriority(os.PRIO_PROCESS, pid) > os.getpriority(os.PRIO_PROCESS, 0)


def test_one_process_makes_all_saves_and_goes_with_close(tmp_path):
    store = ckptstore.Store(tmp_path)
    store.prepare(model=state(0))
    first = process_of(store)
    for step in (1, 2, 3):
        store.save_async(model=state(step), step=step).result()
    assert process_of(store) is first
    before = len(os.listdir("/proc/self/fd"))
    store.close()

    assert first.returncode == 0
    assert len(os.listdir("/proc/self/fd")) < before
    store.save_async(model=state(4), step=4).result()
    assert process_of(store) is not first
    store.close()


def test_a_sibling_goes_on_with_the_same_process_and_memory(tmp_path):
    store = ckptstore.Store(tmp_path / "1", durable=False)
    store.save_async(model=state(1)).result()
    first, memory = process_of(store), store._background._staging
    for step in (2, 3):
        store = store.sibling(tmp_path / str(step))
        saved = store.save_async(model=state(step), step=step).result()
        assert (process_of(store), store._background._staging) == (first, memory)
        assert saved.location == str(tmp_path / str(step))
    store.close()

    assert first.returncode == 0
    assert [value_of(ckptstore.open(tmp_path / str(n))) for n in (1, 2, 3)] == [1.0, 2.0, 3.0]


def test_a_sibling_of_a_history_is_one_and_reaches_a_bucket(location):
    url, options = location
    keep = ckptstore.Keep(last=1)
    with ckptstore.Store(f"{url}/a", keep=keep, storage_options=options) as store:
        store.save_async(model=state(1), step=1).result()
        with store.sibling(f"{url}/b") as other:
            for step in (2, 3):
                other.save_async(model=state(step), step=step).result()
            assert other.steps() == (3,)

    assert value_of(ckptstore.open(f"{url}/b", storage_options=options)) == 3.0
    assert value_of(ckptstore.open(f"{url}/a", storage_options=options)) == 1.0


def test_after_a_sibling_a_store_goes_on_with_a_process_of_its_own(tmp_path):
    with ckptstore.Store(tmp_path / "a") as store:
        store.save_async(model=state(1)).result()
        first = process_of(store)
        with store.sibling(tmp_path / "b") as other:
            assert process_of(other) is first
            store.save_async(model=state(2)).result()
            other.save_async(model=state(3)).result()
            assert process_of(store) is not first
            assert (value_of(store.open()), value_of(other.open())) == (2.0, 3.0)


def test_a_sibling_of_a_store_whose_process_died_has_one_of_its_own(tmp_path):
    with ckptstore.Store(tmp_path / "a") as store:
        store.save_async(model=state(1)).result()
        process_of(store).kill()
        process_of(store).wait()
        with store.sibling(tmp_path / "b") as other:
            assert value_of(other.save_async(model=state(2)).result()) == 2.0


def test_what_failed_before_a_sibling_is_still_raised_by_close(tmp_path):
    store = ckptstore.Store(tmp_path / "a", keep=ckptstore.Keep(last=1))
    store.save_async(model=state(1), step=1)
    store.save_async(model=state(2), step=1)
    with store.sibling(tmp_path / "b") as other:
        assert value_of(other.save_async(model=state(3), step=1).result()) == 3.0

    with pytest.raises(ckptstore.ConflictError, match="step 1"):
        store.close()


def test_a_store_that_is_forgotten_takes_its_process_along(tmp_path):
    store = ckptstore.Store(tmp_path)
    store.save_async(model=state(1)).result()
    pid = process_of(store).pid
    del store
    gc.collect()

    assert gone(pid)


# -- it fails --------------------------------------------------------------------------------


def test_its_errors_are_those_of_save(tmp_path):
    with ckptstore.Store(tmp_path, keep=ckptstore.Keep()) as store:
        store.save_async(model=state(1), step=1).result()
        with pytest.raises(ckptstore.ConflictError, match="step 1 is in .* with other content"):
            store.save_async(model=state(2), step=1).result()
        with pytest.raises(ckptstore.UnsafeError, match="the model holds a builtins.object"):
            store.save_async(model={"w": object()}, step=2).result()
        assert process_of(store).poll() is None
        assert value_of(store.save_async(model=state(3), step=3).result()) == 3.0


@pytest.mark.skipif(os.geteuid() != 0, reason="a file system of its own takes root")
def test_a_disk_that_is_full_is_told(tmp_path, caplog):
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", small]).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        store = ckptstore.Store(small / "dante")
        store.save_async(model=state(1), step=1).result()
        future = store.save_async(model=state(2, 1_000_000), step=2)
        with pytest.raises(ckptstore.StorageError, match="space") as told:
            future.result()

        assert told.value.committed is False
        assert value_of(store.open()) == 1.0
        store.close()
    finally:
        subprocess.run(["umount", small], check=True)
    assert "a save in the background failed" in caplog.text


def test_what_it_logs_is_logged_here(tmp_path, caplog):
    caplog.set_level(logging.WARNING, logger="ckptstore")
    with ckptstore.Store(tmp_path, keep=ckptstore.Keep(last=1)) as store:
        store.save(model=state(1), step=1)
        manifest = next(tmp_path.glob("*/manifest.json"))
        manifest.write_text("{")
        store.save_async(model=state(2), step=2).result()

    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert record.getMessage().startswith("step 1 stays, for it cannot be read")
    assert record.name == "ckptstore.retaining"


@pytest.mark.parametrize("when", ["idle", "in a save"])
def test_where_it_is_killed_a_thread_goes_on(tmp_path, caplog, when):
    with ckptstore.Store(tmp_path) as store:
        store.save_async(model=state(1), step=1).result()
        child = process_of(store)
        if when == "idle":
            child.kill()
            child.wait()
            future = store.save_async(model=state(2), step=2)
        else:
            child.send_signal(signal.SIGSTOP)
            future = store.save_async(model=state(2), step=2)
            time.sleep(0.1)
            child.kill()

        assert value_of(future.result()) == 2.0
        assert in_a_thread(store)
        assert value_of(store.save_async(model=state(3), step=3).result()) == 3.0
        assert in_a_thread(store)

    told = "the process that saves has ended (-9); saves go on in a thread"
    assert [record.getMessage() for record in caplog.records] == [told]


# -- where there is none ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("where", "change"),
    [
        ("there is no Python to start", lambda m: m.setattr(sys, "executable", "/bin/blender")),
        ("it is frozen", lambda m: m.setattr(sys, "frozen", True, raising=False)),
        ("memory cannot be shared", lambda m: m.delattr(os, "memfd_create")),
        ("no process can be started", lambda m: m.setattr(subprocess, "Popen", refuse)),
        ("no memory is shared", lambda m: m.setattr(os, "memfd_create", refuse)),
    ],
)
def test_otherwise_a_thread_saves(tmp_path, monkeypatch, caplog, where, change):
    with monkeypatch.context() as patch:
        change(patch)
        with ckptstore.Store(tmp_path) as store:
            saved = store.save_async(model=state(1)).result()
            assert in_a_thread(store), where

    assert value_of(saved) == 1.0
    assert not caplog.records


def refuse(*_args, **_options):
    raise PermissionError("not in this sandbox")


def test_a_small_state_is_saved_by_a_thread(tmp_path, monkeypatch):
    monkeypatch.setattr(running, "_WORTH_A_PROCESS", 4001)
    with ckptstore.Store(tmp_path) as store:
        store.save_async(model=state(1)).result()
        assert in_a_thread(store)
        store.save_async(model=state(1, 1001)).result()
        assert not in_a_thread(store)


def test_options_that_only_this_process_has_are_used_here(moto_server):
    class Session:
        def __reduce__(self):
            raise TypeError("not for others")

    url, options = moto_server.url("dante"), moto_server.storage_options
    store = ckptstore.Store(url, storage_options={**options, "session": None, "x": Session()})

    assert not store._background._process.possible


def test_what_is_not_in_shared_memory_is_no_second_copy(tmp_path, monkeypatch):
    monkeypatch.setattr("ckptstore.background.recorded._MOST_COPIED", 1000)
    sparse = torch.eye(1000).to_sparse()
    with ckptstore.Store(tmp_path) as store:
        saved = store.save_async(model={"s": sparse}).result()

    assert torch.equal(saved.load_model()["s"].to_dense(), torch.eye(1000))


# -- secrets -----------------------------------------------------------------------------------


def test_no_secret_is_on_its_command_line(moto_server):
    secret = "planted/Secret+0123456789"
    options = {**moto_server.storage_options, "key": "planted-key", "secret": secret}
    with ckptstore.Store(moto_server.url("dante"), storage_options=options) as store:
        store.save_async(model=state(1)).result()
        pid = process_of(store).pid
        seen = Path(f"/proc/{pid}/cmdline").read_bytes()

        assert secret.encode() not in seen
        assert b"planted-key" not in seen
        assert secret not in repr(store._background._process._task)


def test_the_endpoint_is_that_of_the_stores_beginning(moto_server, monkeypatch):
    for name, value in moto_server.environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto_server.endpoint)
    url = moto_server.url("dante")
    with ckptstore.Store(url) as store:
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        store.save_async(model=state(5)).result()
        assert not in_a_thread(store)

    options = moto_server.storage_options
    assert value_of(ckptstore.open(url, storage_options=options)) == 5.0


def test_the_names_of_python_are_known():
    for name in ("python", "python3", "python3.13", "python3.14t", "pypy3"):
        assert re.fullmatch(process._PYTHON, name)
    for name in ("blender", "ipython-app", "uwsgi", ""):
        assert not re.fullmatch(process._PYTHON, name)
