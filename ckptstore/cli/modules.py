"""The modules of a model as a tree, made of nothing but the names and shapes of its tensors."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby
from typing import TYPE_CHECKING

from ckptstore.cli.screen import clean, shape_text, size

if TYPE_CHECKING:
    from ckptstore.manifest import TensorInfo

__all__ = ["Module", "rows"]

_MOST_DEPTH = 16
_MOST_ROWS = 40
_MOST_SHAPES = 3


@dataclass
class Module:
    """A module: its own tensors, and the modules in it.

    Attributes:
        tensors: by the last part of their names.
        modules: by the next part of their names, in the order of the file.
    """

    tensors: dict[str, TensorInfo] = field(default_factory=dict)
    modules: dict[str, Module] = field(default_factory=dict)

    @classmethod
    def of(cls, tensors: Mapping[str, TensorInfo]) -> Module:
        """Return the root of a model; what is deeper than 16 levels has names with dots."""
        root = cls()
        for name, info in tensors.items():
            *path, last = name.split(".", _MOST_DEPTH)
            module = root
            for part in path:
                module = module.modules.setdefault(part, cls())
            module.tensors[last] = info
        return root

    @cached_property
    def parameters(self) -> int:
        """Elements in all tensors here and below."""
        own = sum(math.prod(info.shape) for info in self.tensors.values())
        return own + sum(module.parameters for module in self.modules.values())

    @cached_property
    def nbytes(self) -> int:
        """Bytes of their elements."""
        own = sum(info.nbytes for info in self.tensors.values())
        return own + sum(module.nbytes for module in self.modules.values())

    @cached_property
    def dtypes(self) -> tuple[str, ...]:
        """Their dtypes, sorted."""
        own = {info.dtype for info in self.tensors.values()}
        return tuple(sorted(own.union(*(module.dtypes for module in self.modules.values()))))

    @cached_property
    def form(self) -> tuple[object, ...]:
        """What two modules have in common that are built alike."""
        own = tuple((name, info.dtype, info.shape) for name, info in self.tensors.items())
        return own, tuple((name, module.form) for name, module in self.modules.items())


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
    for depth in range(2, _MOST_DEPTH + 1):
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
