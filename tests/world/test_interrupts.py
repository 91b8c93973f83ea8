"""Ctrl-C ends every command with 130 and one word, at whatever it was; nothing is lost (G2)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
import torch

import ckptstore
from ckptstore.testing import inject


class Interrupt:
    """Somebody presses Ctrl-C before the operation of a number."""

    def __init__(self, at):
        self.at = at
        self.struck = False

    def __call__(self, operation, perform):
        if operation.number == self.at:
            self.struck = True
            raise KeyboardInterrupt
        return perform()


@pytest.fixture
def places(memory_url):
    """Two locations in memory, for checkpoints of the steps 1 and 9."""
    return f"{memory_url}/dante", f"{memory_url}/other"


def renew(place_of, places):
    for location, step in zip(places, (1, 9), strict=True):
        place = place_of(location)
        if place.store().generations():
            place.store().remove()
        place.save(step)


@pytest.fixture
def place_of(place):
    return type(place)


# With how many operations between two attempts.
COMMANDS = {
    "inspect": 2,
    "verify": 5,
    "ls": 3,
    "doctor": 5,
    "doctor --fix": 5,
    "sync": 1,
    "convert": 3,
    "rm --yes": 1,
}


@pytest.mark.parametrize("command", COMMANDS)
def test_an_interrupted_command_loses_nothing(run, place_of, places, command):
    first, second = places
    words = command.split()
    locations = [second, first] if words[0] in ("sync", "convert") else [first]
    more = ["--overwrite"] if words[0] == "convert" else []
    for at in range(1, 200, COMMANDS[command]):
        renew(place_of, places)
        interrupt = Interrupt(at)
        with inject(interrupt):
            result = run("ckptstore", *words, *locations, *more)
        if not interrupt.struck:
            break
        assert (result.exit_code, result.stderr) == (130, "interrupted\n")
        if words[0] != "rm":
            there = place_of(first).open().step
            assert place_of(first).holds(there)
            assert there in (1, 9)

    assert result.exit_code == 0
    assert at > COMMANDS[command]


def test_what_an_interrupt_leaves_is_cleaned(run, place_of, places):
    first, second = places
    for at in range(5, 200, 7):
        renew(place_of, places)
        interrupt = Interrupt(at)
        with inject(interrupt):
            run("ckptstore", "sync", second, first)
        if not interrupt.struck:
            break

        run("ckptstore", "doctor", "--fix", first)
        mended = run("ckptstore", "doctor", first)

        assert "nothing needs mending" in mended.stdout
        assert place_of(first).holds(place_of(first).open().step)


def test_a_real_interrupt_ends_a_sync_to_a_server_that_stalls(bucket, proxy, tmp_path):
    ckptstore.save(tmp_path / "dante", model={}, step=2)
    proxy.harm("PUT", "", "stall", times=None)
    options = f"endpoint_url={proxy.endpoint}"
    command = ["sync", str(tmp_path / "dante"), bucket.url, "--storage-option", options]
    environ = {"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "ckptstore", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environ},
    )
    with process:
        while not proxy.count("PUT"):
            assert process.poll() is None, process.stderr.read()
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=60)

    assert (process.returncode, output, errors) == (130, "", "interrupted\n")
    assert bucket.holds(1)


@pytest.mark.parametrize(
    "words",
    [
        "verify URL",
        "verify URL --sample 50%",
        "inspect URL --stats",
        "diff URL LOCAL --stats",
        "sync URL DESTINATION",
        "sync --fallback URL DESTINATION",
        "convert URL DESTINATION",
        "convert --all URL",
    ],
)
def test_a_real_interrupt_ends_a_command_that_reads_and_leaves_nothing(
    bucket, proxy, tmp_path, words
):
    local, destination = tmp_path / "local", tmp_path / "destination"
    ckptstore.save(local, model={"w": torch.zeros(3000)}, step=2)
    url = bucket.url
    if "--all" in words:
        url = f"{bucket.url.rpartition('/')[0]}/old"
        put_legacy(url, bucket.options, tmp_path)
    places = {"URL": url, "LOCAL": local, "DESTINATION": destination}
    command = [str(places.get(word, word)) for word in words.split()]
    proxy.harm("GET", ".pt", "stall", times=None, after=1 if "--all" in words else 0)
    environ = {
        "AWS_ENDPOINT_URL": proxy.endpoint,
        "AWS_ACCESS_KEY_ID": "k",
        "AWS_SECRET_ACCESS_KEY": "s",
        "OMP_NUM_THREADS": "1",
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "ckptstore", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environ},
    )
    with process:
        while not proxy.count("GET", ".pt"):
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.01)
        time.sleep(0.2)  # it is asked for; let the process begin to wait
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=60)

    assert (process.returncode, output, errors) == (130, "", "interrupted\n")
    assert [path for path in destination.rglob("*") if path.is_file()] == []
    assert bucket.holds(1)


def put_legacy(url, options, folder):
    """Put one legacy file into a bucket."""
    import fsspec

    contents = {"model_state_dict": {"w": torch.ones(3000)}, "config": {}, "step": 1}
    torch.save({**contents, "tokenizer": None, "optimizer_state_dict": None}, folder / "latest.pt")
    fsspec.filesystem("s3", **options).put_file(str(folder / "latest.pt"), f"{url}/latest.pt")
