"""The benchmarks' own arithmetic, and that a row runs, fails and is left out as it says."""

from __future__ import annotations

import json
import mmap
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.measuring import Spread, ratios
from benchmarks.speed import raw, running, states
from benchmarks.speed.counting import Counting
from benchmarks.speed.memory import Usage, drop, mapped, resident, touch, touch_page_cache
from benchmarks.speed.processes import Failed, Process, shared_memory
from benchmarks.speed.results import Found, summary, tables
from benchmarks.speed.rows import MIB, Job, LeftOut, Row, Timed, Variant, Wanted
from benchmarks.speed.running import run

ROOT = Path(__file__).parents[2]


def nothing(job: Job) -> Timed:
    return Timed(lambda: None)


def row(**options) -> Row:
    variants = (
        Variant("limit", nothing),
        Variant("ours", nothing, ours=True, wanted=(Wanted("time", 1.5), Wanted("peak_mib", 3))),
        Variant("peer", nothing),
    )
    return Row("row", "some work", variants, **options)


def found(**seconds: list[float]) -> Found:
    samples = {
        name: {n: {"seconds": s, "cpu": 0.5, "peak": 4 * MIB} for n, s in enumerate(values)}
        for name, values in seconds.items()
    }
    return Found(row(), 8 * MIB, samples)


def test_ratios_are_taken_round_by_round():
    own, base = {0: 3.0, 1: 8.0, 2: 50.0}, {0: 1.0, 1: 4.0, 2: 10.0}

    # The medians' ratio would be 2.
    assert ratios(own, base) == Spread(3.0, 2.0, 5.0)


def test_a_round_that_only_one_of_two_has_gives_no_ratio():
    assert ratios({0: 2.0, 1: 9.0}, {0: 1.0, 2: 1.0}) == Spread(2.0, 2.0, 2.0)
    assert ratios({0: 2.0}, {1: 1.0}) is None


def test_the_table_has_medians_ratios_to_the_limit_and_to_each_peer():
    text = tables(found(limit=[1.0, 2.0, 4.0], ours=[1.5, 4.0, 4.0], peer=[3.0, 4.0, 16.0]))

    assert "| **ours** | 4.000 | 1.500 to 4.000 | 1.50 | 1.00 to 2.00 |" in text
    assert "| peer | 0.50 (0.25 to 1.00) |" in text


def test_what_is_wanted_is_printed_beside_what_was_measured():
    text = summary([found(limit=[1.0], ours=[1.4])])

    assert "| row | ours | time / limit | <= 1.5 | 1.40 | 1.40 to 1.40 | yes |" in text
    assert "| row | ours | peak, MiB | <= 3 | 4.00 | 4.00 to 4.00 | **no** |" in text


def test_what_was_not_measured_is_neither_met_nor_missed():
    assert "| - | - | not measured |" in summary([found(limit=[1.0])])


def test_a_variant_of_an_absent_package_is_left_out_with_its_reason(tmp_path):
    variant = Variant("peer", nothing, needs={"no_such_module": "no-such-package"})

    result = run(
        Row("row", "some work", (variant,), state=False),
        mib=1,
        rounds=1,
        seconds=1,
        folder=tmp_path,
    )

    assert result.sound
    assert "left out, since no-such-package is not installed: peer" in tables(result)


def test_a_place_that_cannot_be_made_ready_leaves_out_the_row(tmp_path):
    def place(job):
        raise LeftOut("there is no server")

    result = run(row(place=place, state=False), mib=1, rounds=1, seconds=1, folder=tmp_path)

    assert result.sound
    assert "Left out, since there is no server." in tables(result)


def test_where_time_is_short_the_limit_and_ours_go_on_without_the_peers(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(running, "_batch", lambda found, order, *rest: asked.append(order))
    # The first round takes three seconds, and there are five.
    clock = iter([0, 0, 0, 3, 3, 3, 5, 5])
    monkeypatch.setattr(running.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(running.os, "cpu_count", lambda: 8)

    run(row(state=False), mib=1, rounds=9, seconds=5, folder=tmp_path)

    assert [sorted(v.name for v in order) for order in asked] == [
        ["limit", "ours", "peer"],
        ["limit", "ours"],
    ]


def test_a_variant_that_fails_is_told_with_its_last_words(tmp_path):
    # There is no state in this memory.
    job = Job(MIB, tmp_path, memory=str(tmp_path / "absent"))

    with Process("save-cache", "write", job) as process, pytest.raises(Failed, match="absent"):
        process.wait()

    assert [*tmp_path.iterdir()] == []


def test_a_failed_variant_is_in_the_table_and_makes_the_result_unsound():
    result = found(limit=[1.0])
    result.failed["ours"] = "OSError: the disk is full (exit code 1)"

    assert not result.sound
    assert "- FAILED: ours: OSError: the disk is full (exit code 1)" in tables(result)


def test_the_command_runs_a_row_and_leaves_nothing_behind(tmp_path):
    words = ["save-cache", "--quick", "--mib", "4", "--rounds", "1", "--folder", "work"]
    (tmp_path / "work").mkdir()

    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.speed", *words, "--json", "found.json"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        encoding="utf-8",
        timeout=240,
    )

    assert done.returncode == 0, done.stderr
    assert "| write | " in done.stdout
    assert "| **ckptstore.save, durable=False** | " in done.stdout
    document = json.loads((tmp_path / "found.json").read_text())
    assert document["rows"][0]["samples"]["write"]["0"]["seconds"] > 0
    assert [*(tmp_path / "work").iterdir()] == []


def test_an_unknown_row_is_refused_with_those_that_there_are(capsys):
    from benchmarks.speed.__main__ import main

    with pytest.raises(SystemExit) as refused:
        main(["nosuch"])

    assert refused.value.code == 2
    assert "no row nosuch; there are save-disk, save-cache, load" in capsys.readouterr().err


def test_every_row_is_documented():
    from benchmarks.speed.catalogue import ROWS

    text = (ROOT / "docs/benchmarks.md").read_text("utf-8")

    for one in ROWS:
        assert f"| `{one.name}` |" in text
        names = [variant.name for variant in one.variants]
        assert len({*names}) == len(names)


@pytest.mark.parametrize("mib", [1, 20, 64])
def test_a_state_has_the_size_that_was_asked_for(tmp_path, mib):
    with shared_memory(mib * MIB, tmp_path) as memory:
        job = Job(mib * MIB, tmp_path, memory=memory)
        flat = states.flat(job)
        whole = states.levelled(states.checkpoint(job))

    assert states.size_of(flat) == pytest.approx(mib * MIB, rel=0.3)
    assert states.size_of(whole) == pytest.approx(mib * MIB, rel=0.3)


def test_peak_memory_is_that_of_the_call():
    touch(64 * MIB)
    usage = Usage()
    kept = mmap.mmap(-1, 32 * MIB)  # Of no heap that has some already.
    for at in range(0, 32 * MIB, 4096):
        kept[at] = 1

    assert 32 * MIB <= usage.growth() < 48 * MIB
    assert len(kept) == 32 * MIB


def test_what_is_touched_beforehand_is_gone_again(tmp_path):
    touch(MIB)
    touch_page_cache(tmp_path, MIB + 1)

    assert [*tmp_path.iterdir()] == []


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel tells it on Linux")
def test_a_file_in_the_page_cache_is_seen_there(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(bytes(MIB))

    assert resident([str(path)]) == 1
    drop([str(path)])
    assert 0 <= resident([str(path)]) <= 1


def test_the_raw_limits_move_every_byte(tmp_path):
    with shared_memory(3 * MIB, tmp_path) as memory:
        data = memoryview(mapped(memory))[: 3 * MIB]
        raw.write(tmp_path / "file", data, durable=True)
    found = memoryview(bytearray(3 * MIB))
    raw.read_into(str(tmp_path / "file"), found)

    assert found == data


def test_requests_and_bytes_of_answers_are_counted(moto_server):
    import http.client

    with Counting(moto_server.endpoint) as counting:
        connection = http.client.HTTPConnection(counting.url.removeprefix("http://"), timeout=60)
        for _ in range(3):
            connection.request("GET", "/")
            size = len(connection.getresponse().read())
        connection.close()

    assert counting.requests == 3
    assert counting.received > 3 * size > 0
