"""The simulator asks for what ckptstore asks for, and its page says what it computes."""

from __future__ import annotations

import json
import re
import socket
import threading
from collections import Counter
from dataclasses import replace

import pytest
import torch

import ckptstore
from benchmarks.scale.__main__ import BEGIN, CALIBRATION, END, PAGE
from benchmarks.scale.engine import Engine, Plan, load, manifest_bytes, save
from benchmarks.scale.events import computed, simulate
from benchmarks.scale.limits import S3
from benchmarks.scale.tables import RANKS, found, shown
from benchmarks.speed.counting import Counting

MIB = 2**20
_REQUEST = re.compile(rb"(GET|PUT|POST|DELETE|HEAD) (\S+) HTTP/1.1\r\n")


class Kinds(Counting):
    """Counts requests by kind, too."""

    def __init__(self, target: str) -> None:
        super().__init__(target)
        self.kinds: Counter[str] = Counter()
        self._held = threading.Lock()

    def pass_on(self, source: socket.socket, target: socket.socket, asking: bool) -> None:
        super().pass_on(_Heard(source, self) if asking else source, target, asking)

    def heard(self, data: bytes) -> None:
        with self._held:
            for kind, path in _REQUEST.findall(data):
                self.kinds["LIST" if b"list-type=2" in path else kind.decode()] += 1

    def taken(self) -> Counter[str]:
        with self._held:
            found, self.kinds = self.kinds, Counter()
        return found


class _Heard:
    def __init__(self, source: socket.socket, counts: Kinds) -> None:
        self._source, self._counts = source, counts

    def recv(self, size: int) -> bytes:
        data = self._source.recv(size)
        self._counts.heard(data)
        return data

    def shutdown(self, how: int) -> None:
        self._source.shutdown(how)


@pytest.mark.parametrize("mib", [1, 20])
def test_a_save_and_a_load_ask_for_exactly_what_the_simulator_says(moto_server, mib):
    url = moto_server.url(f"scale-{mib}")
    with Kinds(moto_server.endpoint) as counting:
        options = {**moto_server.storage_options, "endpoint_url": counting.url}
        with ckptstore.Store(url, keep=ckptstore.Keep(last=1), storage_options=options) as store:
            counted = []
            for step in (1, 2):
                # Other bytes each time: equal ones would be copied by the service.
                saved = store.save(
                    model={"w": torch.randn(mib * MIB // 4)},
                    optimizer={"s": torch.randn(2 * mib * MIB // 4)},
                    config={"n": 1},
                    tokenizer={"token_kind": "gpt2"},
                    step=step,
                )
                counted.append(counting.taken())
        sizes = [saved.files()[name].size for name in ("model.pt", "optimizer.pt")]
        there = ckptstore.open(url, storage_options=options)
        there.load_model()
        there.load_optimizer()
        loaded = counting.taken()

    assert counted[0] == save(sizes, earlier=False, removed=0, first=True).counted()
    assert counted[1] == save(sizes).counted()
    assert loaded == load(sizes).counted()


def test_a_manifest_is_as_large_as_computed(tmp_path):
    weights = {f"model.layers.{number}.mlp.weight": torch.zeros(64, 64) for number in range(500)}
    ckptstore.Store(tmp_path, keep=ckptstore.Keep()).save(model=weights, step=1)
    size = ckptstore.open(tmp_path).files()["model.pt"].size

    real = (tmp_path / "step-00000001" / "manifest.json").stat().st_size

    assert manifest_bytes([size], 500) == pytest.approx(real, rel=0.15)


def test_where_nothing_waits_the_formula_and_the_events_agree():
    given = {"s3": S3(), "engine": Engine(), "rate": 5e8}
    for plan in (save([10**9, 2 * 10**9]), load([10**9, 2 * 10**9])):
        told = computed(plan, 8, **given)
        assert told is not None
        assert told.seconds == pytest.approx(simulate(plan, 8, **given).seconds, rel=0.1)


def test_too_many_at_once_are_told_to_slow_down_and_more_attempts_get_through():
    plan = Plan((), "PUT", (2**20,) * 40, ())
    given = {"s3": S3(writes=100), "rate": 1e9}

    few = simulate(plan, 64, engine=replace(Engine(), attempts=2), **given)
    many = simulate(plan, 64, engine=Engine(), **given)
    spread = simulate(plan, 64, engine=Engine(), prefixes=64, **given)

    assert few.failed > 0
    assert (many.failed, many.slow_downs > 0) == (0, True)
    assert many.seconds >= 64 * 40 / 100 - 1
    assert (spread.failed, spread.slow_downs < many.slow_downs) == (0, True)


def test_storage_is_priced_by_tier():
    assert S3().storage_price(1e12) == pytest.approx(23)
    assert S3().storage_price(100e12) == pytest.approx(50e3 * 0.023 + 50e3 * 0.022)


def test_the_tables_of_the_page_are_what_the_command_prints():
    """All lines but those of 1,024 ranks, which take the events of a minute to compute."""
    calibration = json.loads(CALIBRATION.read_text(encoding="utf-8"))
    page = PAGE.read_text(encoding="utf-8").split(BEGIN)[1].split(END)[0].splitlines()

    for table in shown(calibration, found(calibration, ranks=RANKS[:-1])):
        for line in table.splitlines():
            assert line in page
