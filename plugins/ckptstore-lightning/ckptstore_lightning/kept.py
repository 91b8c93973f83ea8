"""Values that a `.pt` cannot hold safely, and what stands for them there.

A checkpoint of Lightning may hold a path, a number of numpy or an OmegaConf container among its
hyper-parameters and its callbacks' states. Reading those back from a pickle would run code. So a
plain value stands in their place (a path's text, the number itself), and a mark beside it says
where, and which of the kinds below it was. A kind is a word, and what it makes is decided here: a
mark that a stranger wrote can choose among these, and nothing else (G5).
"""

from __future__ import annotations

import re
from argparse import Namespace
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta, timezone
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath
from types import SimpleNamespace
from typing import Any

from ckptstore import UnsafeError

__all__ = ["Mark", "put", "restored", "stand_in"]

Mark = tuple[tuple[Any, ...], str, Any]
"""Where in the checkpoint, which kind, and what the kind needs to know besides."""

_MOST_DEPTH = 100
_LEAVES = frozenset((type(None), bool, int, float, complex, str, bytes, bytearray, set, Counter))
_FACTORIES = {kind.__name__: kind for kind in (bool, int, float, str, list, tuple, dict, set)}
_PATHS: dict[str, type[PurePath]] = {
    "Path": Path,
    "PurePosixPath": PurePosixPath,
    "PureWindowsPath": PureWindowsPath,
}
_TIMES = {kind.__name__: kind for kind in (date, datetime, time)}
# Numbers of up to eight bytes, complex ones of sixteen: what torch and Python have too.
_NUMBERS = re.compile(r"[<>=|](?:b1|[iu][1248]|f[248]|c(?:8|16))")
_INTERPOLATION = re.compile(r"(\\*)\$\{")


def stand_in(value: Any, path: tuple[Any, ...], marks: list[Mark]) -> Any:
    """Return a value with all that is kept by a mark replaced; containers are copied.

    Args:
        value: of a checkpoint.
        path: the keys that lead to it.
        marks: those of this value are appended, what is inside something before it.

    Raises:
        UnsafeError: something in it could only be read back by running code.
    """
    kind: Any = type(value)
    if len(path) > _MOST_DEPTH:
        return value  # Nested too deep, or in itself: refused where it is written.
    if kind in (dict, OrderedDict):
        result = kind()
        for key, item in value.items():
            result[key] = stand_in(item, (*path, key), marks)
        if hasattr(value, "_metadata"):
            result._metadata = value._metadata
        return result
    if kind in (list, tuple):
        return kind(stand_in(item, (*path, at), marks) for at, item in enumerate(value))
    if kind in _LEAVES or _is_of_torch(value):
        return value
    taken = _taken(value)
    if taken is None:
        raise UnsafeError(
            f"checkpoint{_shown(path)} is a {kind.__module__}.{kind.__qualname__}, which cannot "
            f"be read back without running code; nothing was saved, {_advice(value, path)}"
        )
    name, detail, plain = taken
    plain = stand_in(plain, path, marks)
    marks.append((path, name, detail))
    return plain


def restored(tree: Any, marks: list[Mark]) -> Any:
    """Return a checkpoint with what its marks say in the place of what stood for it.

    Each container is gone through once, however many marks there are.

    Raises:
        LookupError, TypeError, ValueError, ArithmeticError, AttributeError: a mark is none, or
            does not fit what is there.
    """
    root = _Node()
    for path, name, detail in marks:
        if len(path) > _MOST_DEPTH + 1:
            raise ValueError(f"a path of {len(path)} keys")
        node = root
        for key in path:
            node = node.inside.setdefault(key, _Node())
        node.here.append((name, detail))
    return _rebuilt(tree, root)


def put(tree: Any, path: tuple[Any, ...], value: Any) -> Any:
    """Return a tree with a value at a path, whose containers are lists and dicts."""
    if not path:
        return value
    target = tree
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = value
    return tree


@dataclass
class _Node:
    """Marks of a place in a checkpoint, in their order, and of what is inside it, by key."""

    here: list[tuple[str, Any]] = field(default_factory=list)
    inside: dict[Any, _Node] = field(default_factory=dict)


def _rebuilt(value: Any, node: _Node) -> Any:
    if node.inside:
        items = list(value) if isinstance(value, tuple) else value
        for key, inner in node.inside.items():
            items[key] = _rebuilt(items[key], inner)
        value = tuple(items) if isinstance(value, tuple) else items
    for name, detail in node.here:
        value = _GIVERS[name](value, detail)
    return value


def _is_of_torch(value: Any) -> bool:
    """Whether it is for ckptstore to say how a value of torch's is kept."""
    import torch

    kinds = (torch.Tensor, torch.dtype, torch.device, torch.Size, torch.layout, torch.qscheme)
    return isinstance(value, kinds)


def _taken(value: Any) -> tuple[str, Any, Any] | None:
    """Return kind, detail and stand-in of a value; None where nothing can stand for it."""
    kind = type(value)
    if isinstance(value, PurePath):
        name = "Path" if isinstance(value, Path) else kind.__name__
        return ("path", name, str(value)) if name in _PATHS else None
    if kind is timedelta:
        return "timedelta", None, (value.days, value.seconds, value.microseconds)
    if kind in _TIMES.values():
        zone = getattr(value, "tzinfo", None)
        fixed = zone is None or type(zone) is timezone
        return ("time", kind.__name__, value.isoformat()) if fixed else None
    if kind in (Namespace, SimpleNamespace):
        return "namespace", kind.__name__, dict(vars(value))
    if kind is defaultdict:
        factory = value.default_factory
        known = factory is None or factory in _FACTORIES.values()
        return ("defaultdict", factory and factory.__name__, dict(value)) if known else None
    if kind is deque:
        return "deque", value.maxlen, list(value)
    if kind is frozenset:
        return "frozenset", None, set(value)
    package = kind.__module__.partition(".")[0]
    if kind.__qualname__ == "AttributeDict" and package in ("lightning", "lightning_fabric"):
        return "AttributeDict", None, dict(value)
    if package == "numpy":
        return _taken_of_numpy(value)
    if package == "omegaconf" or getattr(value, "__module__", "").startswith("omegaconf."):
        return _taken_of_omegaconf(value)
    return None


def _taken_of_numpy(value: Any) -> tuple[str, Any, Any] | None:
    import numpy
    import torch

    if type(value) is numpy.str_:
        return "numpy text", None, str(value)
    form = getattr(getattr(value, "dtype", None), "str", "")
    if not _NUMBERS.fullmatch(form):
        return None
    if isinstance(value, numpy.generic):
        return "numpy number", form, value.item()
    if type(value) is numpy.ndarray:
        native = numpy.array(value, dtype=value.dtype.newbyteorder("="), order="C")
        return "numpy array", form, torch.from_numpy(native)
    return None


def _taken_of_omegaconf(value: Any) -> tuple[str, Any, Any] | None:
    from omegaconf import DictConfig, ListConfig, OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    if value is DictConfig or value is ListConfig:
        return "omegaconf class", None, value.__name__
    if isinstance(value, (DictConfig, ListConfig)):
        try:
            return "omegaconf", None, OmegaConf.to_container(value, resolve=True)
        except OmegaConfBaseException:  # What it refers to is not there: kept as text.
            return "omegaconf", None, OmegaConf.to_container(value, resolve=False)
    return None


# -- and back -------------------------------------------------------------------------------


def _path(plain: str, name: str) -> PurePath:
    return _PATHS[name](plain)


def _time(plain: str, name: str) -> Any:
    return _TIMES[name].fromisoformat(plain)


def _namespace(plain: dict[str, Any], name: str) -> Any:
    return (Namespace if name == "Namespace" else SimpleNamespace)(**plain)


def _defaultdict(plain: dict[Any, Any], name: str | None) -> Any:
    return defaultdict(None if name is None else _FACTORIES[name], plain)


def _attribute_dict(plain: dict[str, Any], _: None) -> Any:
    from ckptstore_lightning import framework

    return framework.fabric("utilities.data").AttributeDict(plain)


def _numpy_number(plain: Any, form: str) -> Any:
    import numpy

    return numpy.dtype(_number_form(form)).type(plain)


def _numpy_array(plain: Any, form: str) -> Any:
    return plain.cpu().numpy().astype(_number_form(form))


def _number_form(form: str) -> str:
    if not _NUMBERS.fullmatch(form):
        raise ValueError(f"numbers of the form {form!r}")
    return form


def _numpy_text(plain: str, _: None) -> Any:
    import numpy

    return numpy.str_(plain)


def _omegaconf(plain: Any, _: None) -> Any:
    from omegaconf import OmegaConf

    return OmegaConf.create(_literal(plain))


def _literal(plain: Any) -> Any:
    """Return containers whose texts OmegaConf takes literally.

    An interpolation would call whatever resolver the program has registered under its name, and
    ``eval`` is a popular one. Those of the program's own were resolved when they were saved.
    """
    if isinstance(plain, dict):
        return {key: _literal(value) for key, value in plain.items()}
    if isinstance(plain, (list, tuple)):
        return [_literal(value) for value in plain]
    if isinstance(plain, str):
        return _INTERPOLATION.sub(lambda found: 2 * found[1] + r"\${", plain)
    return plain


def _omegaconf_class(plain: str, _: None) -> Any:
    from omegaconf import DictConfig, ListConfig

    return {"DictConfig": DictConfig, "ListConfig": ListConfig}[plain]


_GIVERS: dict[str, Callable[[Any, Any], Any]] = {
    "AttributeDict": _attribute_dict,
    "OrderedDict": lambda plain, _: OrderedDict(plain),
    "defaultdict": _defaultdict,
    "deque": lambda plain, most: deque(plain, most),
    "frozenset": lambda plain, _: frozenset(plain),
    "namespace": _namespace,
    "numpy array": _numpy_array,
    "numpy number": _numpy_number,
    "numpy text": _numpy_text,
    "omegaconf": _omegaconf,
    "omegaconf class": _omegaconf_class,
    "path": _path,
    "time": _time,
    "timedelta": lambda plain, _: timedelta(*plain),
    "tuple": lambda plain, _: tuple(plain),
}


def _shown(path: tuple[Any, ...]) -> str:
    return "".join(f"[{key!r}]" for key in path)


def _advice(value: Any, path: tuple[Any, ...]) -> str:
    from enum import Enum

    if isinstance(value, Enum):
        return "put its .value in its place"
    if path[:1] == ("hyper_parameters",) and len(path) > 1:
        return f"leave it out with self.save_hyperparameters(ignore=[{path[1]!r}])"
    return "put plain values in its place"
