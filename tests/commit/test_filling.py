"""Many pieces are filled by few reads: each byte read once, each block checked, errors first."""

from __future__ import annotations

import itertools
import random
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ckptstore.commit import proved as proving
from ckptstore.commit.proved import BlockFile, open_plain, open_proved
from ckptstore.commit.spans import spans
from ckptstore.digests import Chunks
from ckptstore.errors import CorruptionError, NotFoundError
from ckptstore.storage.base import RangeReader

DATA = random.Random(1).randbytes(5000)


class Bytes(RangeReader):
    def __init__(self, data: bytes, *, at_once: int = 1, read_size: int = 2**20) -> None:
        self.data, self.size = data, len(data)
        self.at_once, self.read_size = at_once, read_size
        self.reads: list[tuple[int, int]] = []
        self.lock = threading.Lock()

    def readinto(self, start: int, target: memoryview) -> None:
        with self.lock:
            self.reads.append((start, len(target)))
        target[:] = self.data[start : start + len(target)]


def proved(reader: Bytes, size: int) -> BlockFile:
    chunks = Chunks(size)
    chunks.update(DATA)
    return open_proved(reader, chunks.digest(), CorruptionError)


@st.composite
def pieces(draw):
    cuts = sorted(draw(st.sets(st.integers(0, len(DATA)), max_size=20)))
    chosen = draw(st.lists(st.booleans(), min_size=len(cuts), max_size=len(cuts)))
    between = itertools.pairwise(cuts)
    return draw(st.permutations([s for s, use in zip(between, chosen, strict=False) if use]))


@settings(max_examples=200, deadline=None)
@given(
    places=pieces(),
    block=st.integers(1, 6000),
    read_size=st.integers(1, 6000),
    at_once=st.integers(1, 4),
    whole=st.booleans(),
)
def test_every_piece_gets_its_bytes(places, block, read_size, at_once, whole):
    reader = Bytes(DATA, at_once=at_once, read_size=read_size)
    file = proved(reader, block) if whole else open_plain(reader)
    memories = [(start, memoryview(bytearray(end - start))) for start, end in places]

    file.fill(memories)

    assert all(bytes(memory) == DATA[start : start + len(memory)] for start, memory in memories)
    covered = sorted(reader.reads)
    assert all(a + n <= b for (a, n), (b, _) in itertools.pairwise(covered))


@pytest.mark.parametrize("at_once", [1, 3])
@pytest.mark.parametrize("act", ["fill", "prove"])
def test_damage_anywhere_in_a_block_that_is_touched_is_found(act, at_once):
    damaged = DATA[:2100] + bytes([DATA[2100] ^ 1]) + DATA[2101:]
    file = proved(Bytes(damaged, at_once=at_once, read_size=1000), 1000)

    pieces = [(100, memoryview(bytearray(10))), (2900, memoryview(bytearray(10)))]
    with pytest.raises(CorruptionError, match="chunk 2 is xxh3-128:"):
        file.fill(pieces) if act == "fill" else file.prove()
    file.fill([(100, memoryview(bytearray(1500)))])  # The blocks beside it are sound.


@pytest.mark.parametrize(("fast", "most"), [(0.0, 3), (float("inf"), 8)])
def test_where_each_read_is_slow_more_are_under_way(monkeypatch, fast, most):
    class Slow(Bytes):
        at_most, under_way, seen = 8, 0, 0

        def readinto(self, start: int, target: memoryview) -> None:
            with self.lock:
                self.under_way += 1
                self.seen = max(self.seen, self.under_way)
            time.sleep(0.02)
            super().readinto(start, target)
            with self.lock:
                self.under_way -= 1

    monkeypatch.setattr(proving, "_FAST", fast)
    reader, into = Slow(DATA, at_once=3, read_size=100), bytearray(len(DATA))

    proved(reader, 100).fill([(0, memoryview(into))])

    assert (bytes(into), reader.seen) == (DATA, most)


@pytest.mark.parametrize("at_once", [1, 4])
def test_the_first_error_is_raised_and_the_rest_is_left(at_once):
    class Failing(Bytes):
        def readinto(self, start: int, target: memoryview) -> None:
            super().readinto(start, target)
            raise NotFoundError("gone")

    reader = Failing(DATA * 40, at_once=at_once, read_size=100)

    with pytest.raises(NotFoundError, match="gone"):
        open_plain(reader).fill([(0, memoryview(bytearray(len(DATA) * 40)))])
    assert len(reader.reads) < 1000


def test_pieces_that_overlap_are_a_mistake():
    with pytest.raises(ValueError, match="two pieces overlap at byte 5"):
        spans(
            [(0, memoryview(bytearray(10))), (5, memoryview(bytearray(1)))],
            size=100,
            block=10,
            whole=True,
            most=100,
        )


def test_neighbours_share_a_read_and_far_ones_do_not():
    found = spans(
        [(0, memoryview(bytearray(10))), (100, memoryview(bytearray(10))), (10**6, MANY)],
        size=2 * 10**6,
        block=2**20,
        whole=False,
        most=2**20,
    )

    assert [(span.start, span.end) for span in found] == [(0, 110), (10**6, 10**6 + len(MANY))]
    assert found[0].gap == 90


MANY = memoryview(bytearray(1000))
