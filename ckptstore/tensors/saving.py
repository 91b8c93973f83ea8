"""Writes a `.pt`: only what can be read back safely, and no byte more than the tensors have."""

from __future__ import annotations

import functools
import sys
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pickle import PicklingError
from typing import IO, Any, cast

import torch

from ckptstore.errors import UnsafeError, UnsupportedError
from ckptstore.later import Later
from ckptstore.storage.base import Sink
from ckptstore.tensors.compact import compacted, is_plain
from ckptstore.tensors.interrupts import Interrupts
from ckptstore.tensors.later import loaded
from ckptstore.tensors.standing import Standing, standing
from ckptstore.tensors.writing import write_plain

__all__ = ["Checked", "checked", "save"]

_MOST_DEPTH = 100
_TENSORS = (torch.Tensor, torch.nn.Parameter)
_LEAVES = (type(None), bool, int, float, complex, str, bytes, bytearray)
_TORCH_LEAVES = (torch.dtype, torch.device, torch.Size, torch.layout, torch.qscheme)
_FLAT = frozenset((*_TENSORS, Later, *_LEAVES, *_TORCH_LEAVES))
_SAFE = frozenset((*_FLAT, set))
_CONTAINERS = frozenset((dict, OrderedDict, Counter, list, tuple))
_BEFORE_ALL = -101  # torch's own begin at 10; two of one priority cannot be sorted.
_MOST_BITS = 2000  # torch's safe loader reads whole numbers of up to 255 bytes.


def save(obj: Any, sink: Sink, *, what: str = "the state") -> None:
    """Write an object as `torch.save` does; see `checked` and `Checked.save`.

    Args:
        obj: tensors, numbers, text and containers of these.
        sink: takes the bytes in order; the first exception that it raises is the one raised here.
        what: what to call the object in errors, such as ``the optimizer``.

    Raises:
        UnsafeError: a value in it could only be read back by running code; nothing was written.
        UnsupportedError: torch cannot save it.
    """
    checked(obj, what).save(sink)


@dataclass(frozen=True)
class Checked:
    """An object that can be read back safely, looked through once.

    Attributes:
        size: about how many bytes it will take: each storage once, and some for the rest.
    """

    size: int
    _obj: Any
    _what: str
    _tensors: Mapping[int, torch.Tensor]
    _laters: Mapping[int, Later]

    def save(self, sink: Sink) -> None:
        """Write the object as `torch.save` does, in one pass and without a second copy (G6).

        A `Later` is read as it is written, and gives the bytes that the loaded tensor gives; only
        beside tensors that torch itself has to write (sparse, quantized) all are loaded.

        Guarantee: equal objects give equal bytes; a view is written without the rest of its
        storage; tied tensors stay tied; plain ``torch.load(..., weights_only=True)`` reads the
        result, on a machine without the device that the tensors were on, too (G1, G5).

        Args:
            sink: takes the bytes in order; the first exception that it raises is raised here.

        Raises:
            UnsupportedError: torch cannot save it.
        """
        plain = all(map(is_plain, self._tensors.values()))
        if self._laters and not plain:
            checked(loaded(self._obj), self._what).save(sink)
            return
        replaced: dict[int, torch.Tensor | Standing] = {
            **compacted(self._tensors.values()),
            **standing(self._laters.values()),
        }
        tree = _canonical(self._obj, replaced, {})
        write = write_plain if plain else _write_by_torch
        file, interrupts = _SinkFile(sink), Interrupts()
        try:
            write(tree, file)
        except (RuntimeError, TypeError, ValueError, AttributeError, PicklingError) as error:
            if file.failure is None:
                interrupt = interrupts.behind(error)
                if interrupt is not None:
                    raise interrupt from None
                raise UnsupportedError(
                    f"torch cannot save {self._what}: {str(error).splitlines()[0]}"
                ) from error
        if file.failure is not None:
            # torch turns it into a RuntimeError that no longer says what the storage said.
            raise file.failure


def _write_by_torch(tree: Any, file: _SinkFile) -> None:
    """Leave it to torch itself, which knows how to write sparse tensors and the like."""
    checksums = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(True)
    _register_tag()
    _tagging.active = True
    try:
        torch.save(tree, cast(IO[bytes], file))
    finally:
        _tagging.active = False
        torch.serialization.set_crc32_options(checksums)


def checked(obj: Any, what: str = "the state") -> Checked:
    """Refuse what torch's safe loader would refuse to read back, before anything is written.

    Args:
        obj: what is to be saved.
        what: what to call it in errors.

    Raises:
        UnsafeError: a value is not one of tensors, numbers, text and containers of these.
        UnsupportedError: it is nested deeper than 100, or holds itself.
    """
    tensors: dict[int, torch.Tensor] = {}
    laters: dict[int, Later] = {}
    count = 0
    for path, value in _walk(obj, what):
        count += 1
        kind = type(value)
        if kind in _CONTAINERS:
            continue
        if kind not in _SAFE:
            raise UnsafeError(
                f"{what} holds a {kind.__module__}.{kind.__qualname__}{_at(path)}, which cannot be "
                f"read back without running code; {_advice(value)}"
            )
        if kind in _TENSORS:
            tensors[id(value)] = value
        elif kind is Later:
            laters[id(value)] = value
        elif (kind is int and value.bit_length() > _MOST_BITS) or (kind is bytes and not value):
            raise UnsafeError(
                f"{what} holds {'no bytes' if kind is bytes else 'an absurdly large number'}"
                f"{_at(path)}, which torch's safe loader refuses; save it as text"
            )
    size = 4096 + 128 * count + 512 * (len(tensors) + len(laters))
    size += _bytes_of(tensors.values()) + _later_bytes(laters.values())
    return Checked(size, obj, what, tensors, laters)


def _bytes_of(tensors: Iterable[torch.Tensor]) -> int:
    """Return how many bytes of storages the tensors look at, each byte about once."""
    sizes: dict[int, int] = {}
    for tensor in tensors:
        if tensor.layout is torch.strided and tensor.device.type != "meta":
            storage = tensor.untyped_storage()
            used = tensor.numel() * tensor.element_size()
            address = storage.data_ptr()
            sizes[address] = min(sizes.get(address, 0) + used, storage.nbytes())
    return sum(sizes.values())


def _later_bytes(laters: Iterable[Later]) -> int:
    sizes: dict[int, int] = {}
    for later in laters:
        whole = later if later.whole is None else later.whole
        sizes[id(whole)] = min(sizes.get(id(whole), 0) + later.nbytes, whole.nbytes)
    return sum(sizes.values())


def _walk(obj: Any, what: str) -> Iterator[tuple[Sequence[Any], Any]]:
    """Go through every value and key, with the keys that lead there; they change as it goes on."""
    path: list[Any] = []
    yield path, obj
    inside = [_inside(obj)]
    while inside:
        found = next(inside[-1], None)
        if found is None:
            inside.pop()
            del path[-1:]
            continue
        key, value = found
        path.append(key)
        yield path, value
        if len(path) > _MOST_DEPTH:
            raise UnsupportedError(
                f"{what} is nested deeper than {_MOST_DEPTH}, or holds itself; save it flat"
            )
        if type(value) in _FLAT:
            path.pop()
        else:
            inside.append(_inside(value))


def _inside(value: Any) -> Iterator[tuple[Any, Any]]:
    """Return what a container holds, each value and each key that is no leaf with its key."""
    if isinstance(value, (list, tuple, set)):
        return enumerate(value)
    if isinstance(value, Mapping):
        keys = ((key, key) for key in value if type(key) not in _LEAVES)
        return chain(keys, value.items())
    return iter(())


def _canonical(
    value: Any, replaced: Mapping[int, torch.Tensor | Standing], memo: dict[int, Any]
) -> Any:
    """Copy the containers, so that equal objects pickle equally, whatever their strings' identity.

    pickle writes a string once and then refers to it, by identity: a state that was loaded would
    differ from the one that was saved, though both are equal.
    """
    if isinstance(value, (torch.Tensor, Later)):
        return replaced.get(id(value), value)
    if type(value) is str:
        return sys.intern(value)
    if type(value) not in _CONTAINERS:
        return value
    if id(value) in memo:
        return memo[id(value)]
    result: Any
    if isinstance(value, dict):
        result = memo[id(value)] = type(value)()
        for key, item in value.items():
            result[_canonical(key, replaced, memo)] = _canonical(item, replaced, memo)
        metadata = getattr(value, "_metadata", None)
        if isinstance(value, OrderedDict) and metadata is not None:
            result._metadata = _canonical(metadata, replaced, memo)
    else:
        items = [_canonical(item, replaced, memo) for item in value]
        result = memo[id(value)] = items if isinstance(value, list) else tuple(items)
    return result


def _at(path: Sequence[Any]) -> str:
    return f" at {'.'.join(map(str, path))!r}" if path else ""


def _advice(value: Any) -> str:
    """Return what to save in the place of a value that is refused."""
    module = type(value).__module__.partition(".")[0]
    if hasattr(value, "full_tensor"):
        return "save its full_tensor()"
    if torch.nn.parameter.is_lazy(value):
        return "run the model once, so that it has a shape"
    if isinstance(value, torch.Tensor):
        return "save a plain tensor, such as value.detach().as_subclass(torch.Tensor)"
    if hasattr(value, "state_dict"):
        return "save its state_dict()"
    if module == "numpy":
        return "save value.item(), value.tolist() or torch.from_numpy(value)"
    for kind in (dict, list, tuple, set, str, bool, int, float):
        if isinstance(value, kind):
            return f"save {kind.__name__}(value)"
    if isinstance(value, Mapping):
        return "save dict(value)"
    if isinstance(value, frozenset):
        return "save set(value)"
    if hasattr(value, "__fspath__"):
        return "save str(value)"
    return "save numbers, text, lists, dicts and tensors in its place"


class _Tagging(threading.local):
    """Whether this thread is saving for us."""

    active = False


_tagging = _Tagging()


@functools.cache
def _register_tag() -> None:
    """Let torch note ``cpu`` as the place of every tensor that we save, and of no other.

    It would note ``cuda:0``, and plain `torch.load` would then fail where there is no such device.
    """
    torch.serialization.register_package(
        _BEFORE_ALL, lambda storage: "cpu" if _tagging.active else None, lambda storage, place: None
    )


class _SinkFile:
    """What is written to: it passes the bytes on and keeps the sink's first exception."""

    def __init__(self, sink: Sink) -> None:
        self.failure: BaseException | None = None
        self._sink = sink

    def write(self, data: memoryview, /) -> int:
        return self._pass_on(self._sink.write, data)

    def lend(self, data: memoryview, /) -> int:
        return self._pass_on(self._sink.lend, data)

    def _pass_on(self, take: Callable[[memoryview], object], data: memoryview) -> int:
        if self.failure is not None:
            raise self.failure
        view = memoryview(data).cast("B")
        try:
            take(view)
        except BaseException as error:
            self.failure = error
            raise
        return len(view)

    def flush(self) -> None:
        pass
