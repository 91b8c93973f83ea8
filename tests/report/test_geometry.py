"""Treemaps: areas are proportional, cover their box, and overlap nowhere."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptstore.manifest import TensorInfo
from ckptstore.report.geometry import Box, squarified
from ckptstore.report.treemap import HEIGHT, WIDTH, Tile, role_of, tiles

from .conftest import index

SIZES = st.lists(st.integers(0, 10**9), min_size=1, max_size=40).filter(any)
BOXES = st.builds(Box, *(st.floats(-100, 100),) * 2, *(st.floats(1, 2000),) * 2)


def overlap(one: Box, other: Box) -> float:
    wide = min(one.x + one.width, other.x + other.width) - max(one.x, other.x)
    high = min(one.y + one.height, other.y + other.height) - max(one.y, other.y)
    return max(0.0, wide) * max(0.0, high)


@given(SIZES, BOXES)
def test_areas_are_proportional(sizes, box):
    boxes = squarified(sizes, box)

    for size, one in zip(sizes, boxes, strict=True):
        assert one.area == pytest.approx(
            size / sum(sizes) * box.area, rel=1e-6, abs=1e-6 * box.area
        )


@given(SIZES, BOXES)
def test_boxes_lie_inside_and_cover_all(sizes, box):
    boxes = [one for one in squarified(sizes, box) if one.area]
    room = 1e-9 * (box.width + box.height + 200)

    assert sum(one.area for one in boxes) == pytest.approx(box.area)
    for one in boxes:
        assert one.x >= box.x - room
        assert one.y >= box.y - room
        assert one.x + one.width <= box.x + box.width + room
        assert one.y + one.height <= box.y + box.height + room


@given(SIZES, BOXES)
def test_no_two_boxes_overlap(sizes, box):
    boxes = squarified(sizes, box)

    for at, one in enumerate(boxes):
        for other in boxes[:at]:
            assert overlap(one, other) <= 1e-9 * box.area


def test_boxes_are_nearly_square():
    # The example of the paper: 6, 6, 4, 3, 2, 2, 1 in 6 by 4.
    boxes = squarified([6, 6, 4, 3, 2, 2, 1], Box(0, 0, 6, 4))

    assert boxes[0] == Box(0, 0, 3, 2)
    assert boxes[1] == Box(0, 2, 3, 2)
    assert max(max(b.width / b.height, b.height / b.width) for b in boxes) < 3


@pytest.mark.parametrize("sizes", [[], [0], [0, 0, 0]])
def test_nothing_takes_no_room(sizes):
    assert [box.area for box in squarified(sizes, Box(0, 0, 5, 5))] == [0.0] * len(sizes)


def leaves(found: list[Tile]) -> list[Tile]:
    return [tile for tile in found if not tile.module]


def test_every_tensor_of_a_module_has_its_share():
    found = leaves(tiles(index(a__w=(100, 100), a__v=(50, 100), b=(100, 50))))

    assert {tile.name: tile.nbytes for tile in found} == {"a.w": 40000, "a.v": 20000, "b": 20000}
    areas = {tile.name: tile.box.area for tile in found}
    assert areas["a.w"] == pytest.approx(2 * areas["a.v"], rel=0.05)
    assert sum(areas.values()) == pytest.approx(WIDTH * HEIGHT, rel=0.1)


def test_tiles_do_not_overlap_and_stay_in_the_frames_around_them():
    names = {f"h.{n}.{part}.weight": (64, 64) for n in range(6) for part in ("q", "k", "mlp.0")}
    found = tiles({n: TensorInfo("float32", s, 4 * math.prod(s)) for n, s in names.items()})

    own = leaves(found)
    assert sorted(tile.name for tile in own) == sorted(names)
    for at, one in enumerate(own):
        assert all(overlap(one.box, other.box) < 1e-6 for other in own[:at])
    for frame in [tile for tile in found if tile.module]:
        inside = [tile for tile in own if tile.name.startswith(f"{frame.name}.")]
        assert inside
        for tile in inside:
            assert overlap(tile.box, frame.box) == pytest.approx(tile.box.area)


def test_very_many_tensors_are_told_together():
    infos = {f"w{n}": TensorInfo("float32", (n,), 4 * n) for n in range(1, 50_000)}

    found = tiles(infos)

    assert len(found) < 2000
    assert sum(tile.nbytes for tile in leaves(found)) == sum(i.nbytes for i in infos.values())


def test_deep_and_many_modules_have_a_bound():
    infos = {
        f"{a}.{b}.{c}.{d}.w": TensorInfo("float32", (9,), 36)
        for a in range(8)
        for b in range(8)
        for c in range(8)
        for d in range(8)
    }

    assert len(tiles(infos)) < 4000


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("blocks.0.sa.heads.3.key.weight", "blocks.*.sa"),
        ("model.layers.11.mlp.up_proj.weight", "model.layers.*.mlp"),
        ("h.0.weight", "h.*"),
        ("token_embedding_table.weight", "token_embedding_table"),
        ("model.embed_tokens.weight", "model.embed_tokens"),
        ("weight", "weight"),
        ("0.weight", "0"),
    ],
)
def test_a_tensor_plays_the_part_of_its_module(name, role):
    assert role_of(name) == role
