"""How a file is cut into parts: the limits of S3, and bytes that are lent and not copied."""

from __future__ import annotations

import pytest

from ckptstore.storage.s3parts import (
    LARGEST,
    MOST_PARTS,
    Gatherer,
    Placed,
    copied_part_size,
    part_size,
)

MIB = 2**20
SIZES = [0, 1, 8 * MIB, 80 * MIB, 150 * 10**6, 1536 * MIB, 300 * 2**30, 2**40, LARGEST]


def at(key, start):
    return Placed("bucket", key, start)


@pytest.mark.parametrize("size", SIZES)
def test_parts_of_any_file_are_few_enough_and_neither_too_small_nor_too_large(size):
    part = part_size(size)

    assert 5 * MIB <= part <= 5 * 2**30
    assert part * MOST_PARTS >= size
    assert part % MIB == 0


def test_a_tenth_of_the_parts_stays_free_for_a_size_that_was_guessed_too_small():
    assert part_size(LARGEST) * 9_000 >= LARGEST


def test_a_small_file_has_small_parts_and_a_large_one_no_more_of_them_than_it_needs():
    assert [part_size(size) // MIB for size in (0, 80 * MIB, 160 * MIB, 1536 * MIB)] == [
        8,
        8,
        16,
        32,
    ]
    assert part_size(2**40) < 128 * MIB


@pytest.mark.parametrize("size", [5 * 2**30 + 1, 2**40, LARGEST])
@pytest.mark.parametrize("wanted", [5 * MIB, 512 * MIB, 5 * 2**30])
def test_a_copy_in_parts_keeps_the_limits_too(size, wanted):
    part = copied_part_size(size, wanted)

    assert wanted <= part <= 5 * 2**30
    assert -(-size // part) <= MOST_PARTS


def test_parts_of_a_file_of_unknown_size_grow_enough_for_the_largest_object():
    gatherer, total = Gatherer(0), 0
    for _ in range(MOST_PARTS):
        total += gatherer.part_size
        gatherer.next()

    assert total >= LARGEST
    assert gatherer.part_size <= 2**30


def parts_of(gatherer, *steps):
    full = [part for step in steps for part in step]
    return [*full, gatherer.next()]


def test_lent_bytes_are_in_the_parts_themselves_and_parts_have_one_size():
    gatherer = Gatherer(20 * MIB)
    memory = bytearray(20 * MIB)

    parts = parts_of(gatherer, gatherer.lend(memoryview(memory), None))

    assert [part.size for part in parts] == [8 * MIB, 8 * MIB, 4 * MIB]
    assert [part.number for part in parts] == [1, 2, 3]
    assert all(view.obj is memory for part in parts for view in part.views)


def test_a_full_part_waits_for_more_so_that_one_part_is_one_request():
    gatherer = Gatherer(0)

    assert list(gatherer.lend(memoryview(bytearray(8 * MIB)), None)) == []
    assert [part.size for part in gatherer.write(memoryview(b"1"))] == [8 * MIB]


def test_written_bytes_are_copied_and_may_change_afterwards():
    gatherer = Gatherer(0)
    memory = bytearray(b"a" * 3 * MIB)

    parts = parts_of(gatherer, gatherer.write(memoryview(memory)))
    memory[:] = b"b" * len(memory)

    assert b"".join(parts[0].views) == b"a" * 3 * MIB


def test_small_pieces_between_large_ones_keep_their_order():
    gatherer = Gatherer(0)
    pieces = [bytes([number]) * (100 if number % 2 else 100_000) for number in range(200)]

    parts = parts_of(gatherer, *(gatherer.lend(memoryview(piece), None) for piece in pieces))

    assert b"".join(b"".join(part.views) for part in parts) == b"".join(pieces)


def test_memory_of_a_part_that_is_done_is_used_again():
    gatherer = Gatherer(0)
    (part,) = gatherer.write(memoryview(bytes(8 * MIB + 1)))
    slabs = set(map(id, part.slabs))
    gatherer.reuse(part)

    (other,) = gatherer.write(memoryview(bytes(8 * MIB)))

    assert len(slabs & set(map(id, other.slabs))) >= len(slabs) - 1


@pytest.mark.parametrize(
    ("hints", "held"),
    [
        ([at("a", 5), at("a", 5 + MIB)], at("a", 5)),
        ([at("a", 5), at("a", 6 + MIB)], None),
        ([at("a", 5), at("b", 5 + MIB)], None),
        ([at("a", 5), None], None),
        ([None, at("a", MIB)], None),
    ],
)
def test_a_part_is_held_where_all_of_it_lies_in_one_piece(hints, held):
    gatherer = Gatherer(0)
    memory = memoryview(bytearray(MIB))

    (part,) = parts_of(gatherer, *(gatherer.lend(memory, hint) for hint in hints))

    assert part.held == held


def test_where_a_piece_is_cut_the_hint_goes_on():
    gatherer = Gatherer(0)

    first, second = parts_of(gatherer, gatherer.lend(memoryview(bytes(9 * MIB)), at("a", 7)))

    assert (first.held, second.held) == (
        at("a", 7),
        at("a", 7 + 8 * MIB),
    )
