"""`python -m benchmarks.sync`: what it counts, what it finds wrong, and that it runs."""

from __future__ import annotations

import http.client
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.sync import rows
from benchmarks.sync.places import differing
from benchmarks.sync.results import Found, table
from benchmarks.sync.running import Failed, Sample, memory, run
from benchmarks.sync.states import Source
from benchmarks.sync.tools import OURS, TOOLS, Tool, environ
from benchmarks.sync.wire import Wire

ROOT = Path(__file__).parents[2]
MIB = 2**20

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="splice(2) and /proc are Linux's")


def found(**options) -> Found:
    return Found("moto", True, OURS.name, 8 * MIB, **options)


def sample(seconds: float = 1.0, sent: int = MIB, peak: int = 100 * MIB) -> Sample:
    return Sample(seconds, sent, 0, peak, peak // 2)


def python(text: str, wire: Wire) -> Sample:
    return run([sys.executable, "-c", text], {**os.environ, "URL": wire.url}, wire)


def asking(url: str, body: bytes) -> str:
    """Return a program that puts an object, and prints nothing."""
    address = url.removeprefix("http://")
    return (
        f"import http.client; one = http.client.HTTPConnection({address!r}, timeout=60); "
        f"one.request('PUT', '/nobody/key', bytes({len(body)})); one.getresponse().read()"
    )


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    return Source(tmp_path_factory.mktemp("states"), 3 * MIB)


def test_every_byte_of_a_connection_is_counted_both_ways(moto_server):
    body = bytes(3 * MIB)
    with Wire(moto_server.endpoint) as wire:
        connection = http.client.HTTPConnection(wire.url.removeprefix("http://"), timeout=60)
        connection.request("PUT", "/nobody/key", body)
        reply = connection.getresponse().read()
        connection.close()

    assert len(body) < wire.sent < len(body) + 1000
    assert len(reply) < wire.received < len(reply) + 1000
    assert wire.moved == wire.sent + wire.received


@on_linux
def test_a_program_is_killed_where_the_limit_is_and_the_server_has_no_more(moto_server):
    body = bytes(64 * MIB)
    with Wire(moto_server.endpoint, limit=8 * MIB) as wire:
        done = python(asking(wire.url, body), wire)

    assert done.killed
    assert 8 * MIB <= done.sent <= 10 * MIB


def test_a_program_that_ends_before_the_limit_is_not_killed(moto_server):
    with Wire(moto_server.endpoint, limit=8 * MIB) as wire:
        done = python(asking(wire.url, b"few"), wire)

    assert not done.killed
    assert 0 < done.sent < MIB


def test_a_program_that_fails_is_told_with_its_last_words(moto_server):
    with Wire(moto_server.endpoint) as wire, pytest.raises(Failed, match=r"gone \(exit code 1\)"):
        python("raise SystemExit('there it is\\nit is gone')", wire)


@on_linux
def test_the_memory_of_a_process_is_that_of_its_children_too():
    child = "memory = bytearray(48 << 20); print('ready', flush=True); input()"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    process = subprocess.Popen(
        [sys.executable, "-c", parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None

    assert process.stdout.readline() == b"ready\n"
    together, own = memory(process.pid)
    assert together > own > 48 * MIB

    process.communicate(b"\n")
    assert memory(process.pid) == (0, 0)


def test_the_second_state_is_the_first_with_one_tensor_changed(source):
    import torch

    source.show(changed=False)
    optimizer = (source.path / "optimizer.pt").stat()
    first = torch.load(source.path / "model.pt", weights_only=True)
    saved = (source.path / "model.pt").stat().st_mtime
    source.show(changed=True)
    second = torch.load(source.path / "model.pt", weights_only=True)

    assert len(first) == 400
    assert [name for name in first if not first[name].equal(second[name])] == ["blocks.200.weight"]
    assert (source.path / "optimizer.pt").stat() == optimizer
    # It counts as saved when it is shown, so that who goes by times sees that it is newer.
    assert (source.path / "model.pt").stat().st_mtime > saved
    assert source.nbytes() == pytest.approx(3 * MIB, rel=0.3)


@pytest.mark.parametrize("remote", [False, True])
def test_a_copy_that_is_not_the_source_is_found(tmp_path, moto_server, remote):
    (tmp_path / "source").mkdir()
    for name, text in {"a": "same", "b": "equal", "c": "long", "d": "there"}.items():
        (tmp_path / "source" / name).write_text(text)
    copy = {"a": b"same", "b": b"other", "c": b"longer"}
    location = moto_server.url("copy") if remote else str(tmp_path / "copy")
    if remote:
        client = moto_server.client()
        for name, data in copy.items():
            client.put_object(Bucket=location.split("/")[2], Key=f"copy/{name}", Body=data)
        client.close()
    else:
        (tmp_path / "copy").mkdir()
        for name, data in copy.items():
            (tmp_path / "copy" / name).write_bytes(data)
    files = sorted((tmp_path / "source").iterdir())

    told = differing(files, location, moto_server)

    assert told == "b is not the same, c is not the same, d is absent"


def test_ratios_are_ours_divided_by_the_tools_round_by_round():
    result = found()
    for seconds, theirs in ((1.0, 2.0), (4.0, 4.0), (9.0, 6.0)):
        result.add("row", OURS.name, sample(seconds))
        result.add("row", "peer", sample(theirs, sent=4 * MIB, peak=50 * MIB))

    text = table(result)

    ours = "| row | **ckptstore sync** | 4.00 (1.00 to 9.00) | 1.00 | 0.00 | 12.5% | 100 | 50 |"
    assert f"{ours}  |  |  |  |" in text
    peer = "| row | peer | 4.00 (2.00 to 6.00) | 4.00 | 0.00 | 50.0% | 50 | 25 |"
    assert f"{peer} 1.00 (0.50 to 1.50) | 0.25 | 2.00 | 2.00 |" in text


def test_a_peer_that_leaves_something_wrong_has_no_ratios_and_is_told():
    result = found()
    result.add("row", OURS.name, sample())
    result.add("row", "peer", replace(sample(), wrong="model.pt is not the same"))

    text = table(result)

    assert "| 100 | 50 | wrong | wrong | wrong | wrong |" in text
    assert "- WRONG: peer, row: model.pt is not the same at the destination" in text
    assert result.sound


def test_what_ours_leaves_wrong_and_what_fails_makes_the_result_unsound():
    wrong = found()
    wrong.add("row", OURS.name, replace(sample(), wrong="model.pt is absent"))

    assert not wrong.sound
    assert not found(failed={"peer": "first copy: no (exit code 1)"}).sound


def test_what_was_left_out_or_failed_is_told_with_its_reason():
    text = table(found(failed={"peer": "no (exit code 1)"}, left_out={"aws": "awscli is absent"}))

    assert "- FAILED: peer: no (exit code 1)" in text
    assert "- left out, since awscli is absent: aws" in text
    assert "Left out, since there is no server." in table(found(reason="there is no server"))


def test_a_program_that_is_not_there_is_not_found():
    assert Tool("absent", "no-such-program", ("copy",)).found() is None
    assert OURS.found() == [sys.executable, "-m", "ckptstore"]


def test_a_tool_gets_the_servers_credentials_and_nobody_elses(moto_server, monkeypatch):
    monkeypatch.setenv("AWS_PROFILE", "production")
    monkeypatch.setenv("RCLONE_TRANSFERS", "16")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy")

    given = environ(moto_server, "http://127.0.0.1:1")

    assert not {"AWS_PROFILE", "RCLONE_TRANSFERS", "HTTPS_PROXY"} & {*given}
    assert (
        given["AWS_ENDPOINT_URL"] == given["RCLONE_CONFIG_STORE_ENDPOINT"] == "http://127.0.0.1:1"
    )
    for tool in TOOLS:
        command = tool.command("folder", "s3://bucket/run")
        assert moto_server.secret not in " ".join(command)


def test_an_unknown_server_is_refused_with_those_that_there_are(capsys):
    from benchmarks.sync.__main__ import main

    with pytest.raises(SystemExit) as refused:
        main(["--server", "azure"])

    assert refused.value.code == 2
    assert "choose from" in capsys.readouterr().err


def test_every_row_and_every_tool_is_documented():
    text = (ROOT / "docs/benchmarks.md").read_text("utf-8")

    for name in (rows.FIRST, rows.SECOND, rows.CHANGED, rows.AGAIN):
        assert f"| {name} |" in text
    for tool in TOOLS:
        assert f"| `{tool.name}` |" in text
