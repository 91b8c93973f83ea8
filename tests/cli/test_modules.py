"""`inspect` shows the modules of a model as a tree, from the names and shapes of its tensors."""

from __future__ import annotations

import math

from ckptstore.cli.modules import rows
from ckptstore.manifest import TensorInfo
from ckptstore.modules import Module


def index(**shapes: tuple[int, ...]) -> dict[str, TensorInfo]:
    return {
        name.replace("__", "."): TensorInfo("float32", shape, 4 * math.prod(shape))
        for name, shape in shapes.items()
    }


def test_modules_stand_below_those_that_hold_them():
    found = rows(index(emb__weight=(8, 4), block__proj__weight=(4, 4), block__proj__bias=(4,)))

    assert found == [
        ("emb", "32", "128 B", "float32", "weight 8 x 4"),
        ("block", "20", "80 B", "float32", ""),
        ("  proj", "20", "80 B", "float32", "weight 4 x 4, bias 4"),
    ]


def test_numbered_neighbours_that_are_built_alike_share_a_line():
    found = rows(index(h__0__w=(2,), h__1__w=(2,), h__2__w=(3,), h__3__w=(2,)))

    assert [(row[0], row[1]) for row in found] == [
        ("h", "9"),
        ("  0 to 1 (2 alike)", "4"),
        ("  2", "3"),
        ("  3", "2"),
    ]


def test_neighbours_with_names_are_never_taken_together():
    assert [row[0] for row in rows(index(key__w=(2,), query__w=(2,)))] == ["key", "query"]


def test_tensors_of_no_module_have_lines_of_their_own():
    found = rows(index(scale=(), weight=(2, 3)))

    assert found == [
        ("scale", "1", "4 B", "float32", "scale scalar"),
        ("weight", "6", "24 B", "float32", "weight 2 x 3"),
    ]


def test_as_many_levels_are_shown_as_there_is_room_for():
    many = {f"top.m{n}.weight": TensorInfo("int8", (1,), 1) for n in range(50)}

    assert [row[:3] for row in rows(many)] == [("top", "50", "50 B")]


def test_names_without_an_end_make_no_tree_without_an_end():
    deep = {".".join("a" * 5000): TensorInfo("int8", (1,), 1)}

    assert len(rows(deep)) <= 16
    assert Module.of(deep).parameters == 1


def test_what_a_terminal_would_obey_is_escaped():
    info = TensorInfo("float32", (1,), 4)

    found = rows({"a\x1b[2J.weight": info, "b\x1b[2J": info, "c.d\x1b[2J": info})

    assert [row[0] for row in found] == ["b\\x1b[2J", "a\\x1b[2J", "c"]
    assert all(cell.isprintable() for row in found for cell in row)
