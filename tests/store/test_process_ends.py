"""Saves in a process of its own, when the program that asked for them ends, or is ended."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from pathlib import Path

import pytest

import ckptstore

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has such processes")

PROGRAM = """
import os, signal, sys, time, torch, ckptstore
from ckptstore.background import running
running._WORTH_A_PROCESS = 0
"""


def value_of(checkpoint: ckptstore.Checkpoint) -> float:
    (value,) = set(checkpoint.load_model()["w"].tolist())
    return value


def gone(pid: int, seconds: float = 20.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(FileNotFoundError):
            if "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text():
                time.sleep(0.01)
                continue
        return True
    return False


def run(tmp_path, body, **options):
    script = tmp_path / "train.py"
    script.write_text(PROGRAM + body)
    return subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, text=True, **options
    )


def test_a_program_without_a_guard_is_not_started_again_and_ends_after_its_save(tmp_path):
    body = f"""
print("once")
store = ckptstore.Store({str(tmp_path / "x")!r})
store.save_async(model={{"w": torch.full((5_000_000,), 7.0)}}, step=7)
print(store._background._process._running._process.pid)
"""
    with run(tmp_path, body) as program:
        out, _ = program.communicate(timeout=120)

    once, pid = out.split()
    assert (once, program.returncode) == ("once", 0)
    assert gone(int(pid))
    assert value_of(ckptstore.open(tmp_path / "x")) == 7.0


def test_nothing_is_imported_from_the_working_folder(tmp_path):
    (tmp_path / "here").mkdir()
    for name in ("fsspec", "logging", "pickle", "ckptstore"):
        (tmp_path / "here" / f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    body = f"""
store = ckptstore.Store({str(tmp_path / "x")!r})
store.save_async(model={{"w": torch.ones(10)}}).result()
assert store._background._process._running
"""
    with run(tmp_path, body, cwd=tmp_path / "here") as program:
        program.communicate(timeout=120)

    assert program.returncode == 0
    assert not (tmp_path / "ran").exists()


def test_it_ends_at_once_when_the_program_is_killed(tmp_path):
    body = f"""
store = ckptstore.Store({str(tmp_path / "x")!r})
for step in range(1, 10_000):
    future = store.save_async(model={{"w": torch.full((300_000,), float(step))}}, step=step)
    print(store._background._process._running._process.pid, flush=True)
    future.result()
"""
    with run(tmp_path, body) as program:
        for _ in range(4):
            pid = program.stdout.readline()
        program.kill()

    assert gone(int(pid), seconds=5)
    checkpoint = ckptstore.open(tmp_path / "x")
    assert checkpoint.step >= 3
    assert value_of(checkpoint) == checkpoint.step
    assert checkpoint.verify().sound


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_for_the_whole_group_is_the_programs_to_answer(tmp_path, name):
    body = f"""
signal.signal(signal.{name}, lambda *_: None)
store = ckptstore.Store({str(tmp_path / "x")!r})
store.save_async(model={{"w": torch.ones(10)}}, step=1).result()
first = store._background._process._running._process
os.killpg(0, signal.{name})
store.save_async(model={{"w": torch.ones(10)}}, step=2).result()
assert store._background._process._running._process is first
"""
    with run(tmp_path, body, start_new_session=True) as program:
        program.communicate(timeout=120)

    assert program.returncode == 0
    assert ckptstore.open(tmp_path / "x").step == 2


def test_a_fork_of_the_program_leaves_the_process_alone(tmp_path):
    body = f"""
store = ckptstore.Store({str(tmp_path / "x")!r}, keep=ckptstore.Keep())
store.save_async(model={{"w": torch.ones(10)}}, step=1).result()
child = os.fork()
if not child:
    assert not store._background._process.possible
    store.save_async(model={{"w": torch.ones(10)}}, step=2).result()
    store.close()
    sys.exit(0)
assert os.waitpid(child, 0)[1] == 0
store.save_async(model={{"w": torch.ones(10)}}, step=3).result()
assert store._background._process._running
"""
    with run(tmp_path, body) as program:
        program.communicate(timeout=120)

    assert program.returncode == 0
    assert ckptstore.Store(tmp_path / "x").steps() == (1, 2, 3)
