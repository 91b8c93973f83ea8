"""G6: the tensors plus a fixed budget, never a second copy."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch

import ckptstore

# The high-water mark of the process's own memory, in MiB, set back before each call.
PEAK = """
import re, sys, torch, ckptstore
from pathlib import Path

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) // 1024

def grown_by(call):
    Path("/proc/self/clear_refs").write_text("5")
    before = peak()
    result = call()
    return peak() - before, result

torch.set_num_threads(1)
location, sizes = sys.argv[1], map(int, sys.argv[2:])
first = ckptstore.save(location + "-first", model={"w": torch.ones(8)})
first.load_model()
model = {f"w{n}": torch.rand(size * 2**18) for n, size in enumerate(sizes)}
saving, checkpoint = grown_by(lambda: ckptstore.save(location, model=model))
loading, loaded = grown_by(checkpoint.load_model)
assert all(torch.equal(loaded[name], model[name]) for name in model)
del loaded, model
ckptstore.convert(location + "-first", location + "-first.pt", "legacy")
converting, _ = grown_by(lambda: ckptstore.convert(location, location + ".pt", "legacy"))
back, _ = grown_by(lambda: ckptstore.convert(location + ".pt", location + "-back"))
print(saving, loading, converting, back)
"""
BUDGET = 128
SIZES = 150, 42  # MiB: one tensor alone is more than the budget.
SIZE = sum(SIZES)

pytestmark = pytest.mark.skipif(
    not os.access("/proc/self/clear_refs", os.W_OK), reason="needs /proc to measure memory"
)


@pytest.mark.parametrize("place", ["local", "s3"])
def test_saving_and_loading_need_no_second_copy_and_converting_needs_none(place, request, tmp_path):
    location, environ = str(tmp_path / "dante"), {}
    if place == "s3":
        server = request.getfixturevalue("rclone_server")
        location, environ = server.url("dante"), server.environ

    done = subprocess.run(
        [sys.executable, "-c", PEAK, location, *map(str, SIZES)],
        env={**os.environ, **environ},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )

    assert done.returncode == 0, done.stderr
    saving, loading, converting, back = map(int, done.stdout.split())
    assert saving <= BUDGET
    assert loading <= SIZE + BUDGET
    assert converting <= BUDGET
    assert back <= BUDGET


COPY = """
import json, re, sys, ckptstore
from pathlib import Path

source, far, near, options = sys.argv[1:]

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) // 1024

def grown_by(*ends):
    Path("/proc/self/clear_refs").write_text("5")
    before = peak()
    ckptstore.sync(*ends, storage_options=json.loads(options))
    return peak() - before

ckptstore.sync(source + "-first", far + "-first", storage_options=json.loads(options))
print(grown_by(source, far), grown_by(far, near))
"""


@pytest.mark.parametrize("name", ["moto", "rclone"])
def test_a_copy_keeps_little_of_what_passes(name, request, tmp_path):
    server = request.getfixturevalue(f"{name}_server")
    ckptstore.save(tmp_path / "source-first", model={"w": torch.ones(8)})
    ckptstore.save(tmp_path / "source", model={"w": torch.rand(SIZE * 2**18)})
    ends = [str(tmp_path / "source"), server.url("dante"), str(tmp_path / "near")]

    done = subprocess.run(
        [sys.executable, "-c", COPY, *ends, json.dumps(server.storage_options)],
        capture_output=True,
        encoding="utf-8",
        check=False,
    )

    assert done.returncode == 0, done.stderr
    sending, receiving = map(int, done.stdout.split())
    assert sending <= BUDGET
    assert receiving <= BUDGET
