"""The modules of a model as the lines of a tree."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from ckptstore.cli.screen import clean, shape_text, size
from ckptstore.modules import MOST_DEPTH, Module

if TYPE_CHECKING:
    from ckptstore.manifest import TensorInfo

__all__ = ["rows"]

_MOST_ROWS = 40
_MOST_SHAPES = 3


@dataclass(frozen=True)
class _Line:
    label: str
    depth: int
    module: Module
    count: int = 1


def rows(tensors: Mapping[str, TensorInfo]) -> list[tuple[str, str, str, str, str]]:
    """Return label, parameters, size, dtypes and shapes of each line of the tree.

    Modules with numbers for names that are built alike share one line. As many levels are shown
    as 40 lines have room for, one at least.
    """
    root = Module.of(tensors)
    lines = list(_lines(root, 1))
    for depth in range(2, MOST_DEPTH + 1):
        deeper = list(_lines(root, depth))
        if len(deeper) > _MOST_ROWS or len(deeper) == len(lines):
            break
        lines = deeper
    return [_row(line) for line in lines]


def _lines(module: Module, most: int, depth: int = 0) -> Iterator[_Line]:
    for name, info in module.tensors.items() if depth == 0 else ():
        yield _Line(clean(name), depth, Module({name: info}))
    for names, one in _alike(module):
        yield _Line(_called(names), depth, one, len(names))
        if depth + 1 < most:
            yield from _lines(one, most, depth + 1)


def _alike(module: Module) -> Iterator[tuple[list[str], Module]]:
    """Yield the modules in a module, neighbours with numbers that are built alike as one."""

    def kind(entry: tuple[str, Module]) -> object:
        name, inner = entry
        return inner.form if name.isdecimal() else name

    for _, group in groupby(module.modules.items(), kind):
        entries = list(group)
        yield [name for name, _ in entries], entries[0][1]


def _called(names: list[str]) -> str:
    first, last = clean(names[0]), clean(names[-1])
    return first if len(names) == 1 else f"{first} to {last} ({len(names)} alike)"


def _row(line: _Line) -> tuple[str, str, str, str, str]:
    module = line.module
    return (
        "  " * line.depth + line.label,
        f"{line.count * module.parameters:,}",
        size(line.count * module.nbytes),
        clean(", ".join(module.dtypes)),
        _shapes(module),
    )


def _shapes(module: Module) -> str:
    shown = [
        f"{clean(name)} {shape_text(info.shape)}"
        for name, info in list(module.tensors.items())[:_MOST_SHAPES]
    ]
    more = len(module.tensors) - len(shown)
    return ", ".join([*shown, f"{more} more"] if more > 0 else shown)
