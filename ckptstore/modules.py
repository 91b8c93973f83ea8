"""The modules of a model as a tree, made of nothing but the names and shapes of its tensors."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from ckptstore.manifest import TensorInfo

__all__ = ["MOST_DEPTH", "Module"]

MOST_DEPTH = 16


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
            *path, last = name.split(".", MOST_DEPTH)
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
