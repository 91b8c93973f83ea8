"""The chunks of a sharded state: found in their files, checked, and read to where they belong.

Rule 1: a file that shards.json names is opened only where it is of this state, and no link that
leads elsewhere (G5). Rule 2: nobody allocates more than 64 times what the files hold, so a text
cannot ask for memory that no file would fill. Rule 3: of a large tensor that is read piece by piece
no more than 8 MiB are held, and as much of each file that is open, of which there are a few.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from math import prod
from typing import TYPE_CHECKING, Any, BinaryIO

from ckptstore import ptfile
from ckptstore.errors import CorruptionError, NotFoundError, UnsafeError
from ckptstore.formats.base import Files
from ckptstore.formats.shards import MODEL, Chunk, Part, Tensor, Value
from ckptstore.later import Later
from ckptstore.ptfile import ITEMSIZES

if TYPE_CHECKING:
    from ckptstore.tensors import Box, BoxFile

__all__ = ["ShardFiles"]

_MOST_PIECE = 8 * 2**20
_MOST_TIMES = 64
_MOST_OPEN = 6


class ShardFiles:
    """The `.pt` files of one sharded state.

    Args:
        files: of the state.
        parts: what shards.json says.
        where: what to call it in errors.
    """

    def __init__(self, files: Files, parts: Mapping[str, Part], where: str) -> None:
        self._files = files
        self._where = where
        self._of_model = frozenset(parts[MODEL].files()) if MODEL in parts else frozenset()
        there = frozenset(files.names())
        claimed: dict[str, int] = {}
        for part in parts.values():
            for tensor in part.tensors.values():
                for chunk in tensor.chunks:
                    size = prod(chunk.sizes) * ITEMSIZES[tensor.dtype]
                    claimed[chunk.file] = claimed.get(chunk.file, 0) + size
            for name in part.files():
                if name in there and files.leads_out(name):
                    raise UnsafeError(
                        f"{where} names {name!r}, a link that leads out of {files.location}; not "
                        "followed, put the file itself in its place"
                    )
        self._claimed = claimed

    def loaded(self, chunked: Mapping[str, Tensor], map_location: Any) -> dict[str, Any]:
        """Return tensors by name, each allocated once; those that are the same are one.

        Raises:
            CorruptionError, NotFoundError, UnsafeError, UnsupportedError: see `Reader.load_model`.
        """
        from ckptstore import tensors

        self._check_claims(chunked.values())
        whole: dict[int, Any] = {
            id(tensor): tensors.empty(tensor.dtype, tensor.shape, map_location)
            for tensor in chunked.values()
        }
        if str(map_location) != "meta":
            once = {id(tensor): tensor for tensor in chunked.values()}
            self.read(_boxes(once, whole))
        placed = {key: tensors.placed(tensor, map_location) for key, tensor in whole.items()}
        return {name: placed[id(tensor)] for name, tensor in chunked.items()}

    def fill(self, chunked: Mapping[str, Tensor], into: Mapping[str, Any]) -> None:
        """Overwrite tensors, which have the right shapes, with those of their names."""
        from ckptstore import tensors

        self.read(_boxes(chunked, {name: tensor.detach() for name, tensor in into.items()}))
        tensors.overwritten(into.values())

    def read(self, boxes: Mapping[str, Iterable[Box]]) -> None:
        """Fill the targets of boxes, by the file that each is in."""
        for name, group in boxes.items():
            with self._opened(name) as file:
                self._boxes(file, name).read(group)

    def prove(self, tensors: Iterable[Tensor]) -> None:
        """Check all that some tensors are read of, and keep nothing.

        Raises:
            CorruptionError: it is damaged.
        """
        keys: dict[str, list[str]] = {}
        for tensor in tensors:
            for chunk in tensor.chunks:
                keys.setdefault(chunk.file, []).append(chunk.key)
        for name, wanted in keys.items():
            with self._opened(name) as file:
                if self._files.manifest is not None and hasattr(file, "prove"):
                    file.prove()
                else:
                    self._boxes(file, name).prove(wanted)

    def later(self, chunked: Mapping[str, Tensor]) -> dict[str, Later]:
        """Return tensors that are read when they are written (G6); the same are one."""
        self._check_claims(chunked.values())
        made: dict[int, Later] = {}
        for tensor in chunked.values():
            if id(tensor) not in made:
                made[id(tensor)] = Later(
                    tensor.dtype, tensor.shape, tensor.info.nbytes, _Pieces(self, tensor)
                )
        return {name: made[id(tensor)] for name, tensor in chunked.items()}

    def pieces(self, tensor: Tensor) -> Iterator[memoryview]:
        """Return the elements of a tensor in row-major order, a piece at a time."""
        from ckptstore import tensors

        keys: dict[str, list[str]] = {}
        for chunk in tensor.chunks:
            keys.setdefault(chunk.file, []).append(chunk.key)
        opened: OrderedDict[str, tuple[BinaryIO, BoxFile]] = OrderedDict()
        try:
            for offsets, sizes in _regions(tensor.shape, ITEMSIZES[tensor.dtype]):
                piece = tensors.empty(tensor.dtype, sizes)
                for name, boxes in _boxes_of(tensor, offsets, piece).items():
                    if name not in opened:
                        _close_down_to(_MOST_OPEN - 1, opened)
                        opened[name] = self._kept_open(name, keys[name])
                    opened.move_to_end(name)
                    opened[name][1].read(boxes)
                yield tensors.bytes_of(piece)
        finally:
            _close_down_to(0, opened)

    def values(self, values: Mapping[str, Value], map_location: Any) -> dict[str, Any]:
        """Return what is no tensor, by name; tensors may be in it, sparse ones for instance."""
        from ckptstore import tensors

        found: dict[str, Any] = {}
        for file_name, wanted in _by_file(values).items():
            with self._opened(file_name) as file:
                held = tensors.load(
                    file,
                    part=_picked([value.key for value in wanted.values()], self._called(file_name)),
                    map_location=map_location,
                    proved=self._files.manifest is not None,
                    where=self._called(file_name),
                )
            found |= {name: held[value.key] for name, value in wanted.items()}
        return {name: found[name] for name in values}

    def looked(self, values: Mapping[str, Value]) -> tuple[dict[str, Any], frozenset[str]]:
        """Return what is no tensor, with stubs for tensors in it, and what the pickles refer to."""
        found: dict[str, Any] = {}
        named: set[str] = set()
        for file_name, wanted in _by_file(values).items():
            with self._opened(file_name) as file:
                content = ptfile.read(file, self._called(file_name))
            pick = _picked([value.key for value in wanted.values()], self._called(file_name))
            held = pick(content.root)
            found |= {name: held[value.key] for name, value in wanted.items()}
            named |= content.named
        return found, frozenset(named)

    def _kept_open(self, name: str, keys: Iterable[str]) -> tuple[BinaryIO, BoxFile]:
        """Open a file that is read in order, a part at a time; what is read of it is proved."""
        file = self._opened(name)
        try:
            getattr(file, "keep", lambda count: None)(1)
            boxes = self._boxes(file, name)
            boxes.prove(keys)
        except BaseException:
            file.close()
            raise
        return file, boxes

    def _check_claims(self, tensors: Iterable[Tensor]) -> None:
        for tensor in tensors:
            for chunk in tensor.chunks:
                self._check_claim(tensor, chunk)

    def _check_claim(self, tensor: Tensor, chunk: Chunk) -> None:
        try:
            held = self._files.size(chunk.file)
        except NotFoundError as error:
            raise self._absent(chunk.file, error) from error
        size = prod(chunk.sizes) * ITEMSIZES[tensor.dtype]
        if size > held or self._claimed[chunk.file] > _MOST_TIMES * held:
            raise CorruptionError(
                f"{self._where} is damaged: it has {max(size, self._claimed[chunk.file])} bytes of "
                f"tensors in {chunk.file}, which has {held}; restore it from a good copy"
            )

    def _opened(self, name: str) -> BinaryIO:
        try:
            return self._files.open(name)
        except NotFoundError as error:
            raise self._absent(name, error) from error

    def _absent(self, name: str, error: NotFoundError) -> Exception:
        return CorruptionError(str(error)) if name in self._of_model else error

    def _boxes(self, file: BinaryIO, name: str) -> BoxFile:
        from ckptstore import tensors

        return tensors.BoxFile(
            file, proved=self._files.manifest is not None, where=self._called(name)
        )

    def _called(self, name: str) -> str:
        return f"{name} in {self._files.location}"


def _close_down_to(count: int, opened: OrderedDict[str, tuple[BinaryIO, BoxFile]]) -> None:
    """Close the files that were not read for longest, but for so many."""
    while len(opened) > count:
        opened.popitem(last=False)[1][0].close()


class _Pieces:
    """The pieces of one tensor, as often as somebody asks for them."""

    def __init__(self, shards: ShardFiles, tensor: Tensor) -> None:
        self._shards = shards
        self._tensor = tensor

    def __call__(self) -> Iterator[memoryview]:
        return self._shards.pieces(self._tensor)


def _picked(keys: list[str], where: str) -> Any:
    """Return what picks some entries of a file; of stubs and of tensors alike."""

    def pick(root: Any) -> dict[str, Any]:
        absent = [key for key in keys if not isinstance(root, Mapping) or key not in root]
        if absent:
            raise CorruptionError(
                f"{where} is damaged: it has no {absent[0]!r}; restore it from a good copy"
            )
        return {key: root[key] for key in keys}

    return pick


def _by_file(values: Mapping[str, Value]) -> dict[str, dict[str, Value]]:
    files: dict[str, dict[str, Value]] = {}
    for name, value in values.items():
        files.setdefault(value.file, {})[name] = value
    return files


def _boxes(chunked: Mapping[Any, Tensor], whole: Mapping[Any, Any]) -> dict[str, list[Box]]:
    """Return every chunk of some tensors as a box of its place in the whole, by its file."""
    found: dict[str, list[Box]] = {}
    for name, tensor in chunked.items():
        boxes = _boxes_of(tensor, (0,) * len(tensor.shape), whole[name])
        for file, group in boxes.items():
            found.setdefault(file, []).extend(group)
    return dict(sorted(found.items()))


def _boxes_of(tensor: Tensor, offsets: tuple[int, ...], piece: Any) -> dict[str, list[Box]]:
    """Return what a piece of a tensor is to be filled with.

    Args:
        tensor: as it was cut.
        offsets: where the piece begins in it.
        piece: of its own shape.
    """
    from ckptstore import tensors

    sizes = tuple(piece.shape)
    found: dict[str, list[Box]] = {}
    for chunk in tensor.chunks:
        low = tuple(map(max, offsets, chunk.offsets))
        ends = (
            min(start + size, begin + length)
            for start, size, begin, length in zip(
                offsets, sizes, chunk.offsets, chunk.sizes, strict=True
            )
        )
        count = tuple(end - start for end, start in zip(ends, low, strict=True))
        if any(one <= 0 for one in count):
            continue
        target = tensors.narrowed(piece, _minus(low, offsets), count)
        box = tensors.Box(chunk.key, tensor.dtype, chunk.sizes, _minus(low, chunk.offsets), target)
        found.setdefault(chunk.file, []).append(box)
    return found


def _minus(one: tuple[int, ...], other: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(a - b for a, b in zip(one, other, strict=True))


def _regions(
    shape: tuple[int, ...], itemsize: int, before: tuple[int, ...] = ()
) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Return offsets and sizes of boxes that follow each other in row-major order."""
    rest = shape[len(before) :]
    if not prod(shape):
        return
    if not rest or prod(rest) * itemsize <= _MOST_PIECE:
        yield (*before, *(0 for _ in rest)), (*(1 for _ in before), *rest)
        return
    row = prod(rest[1:]) * itemsize
    if row > _MOST_PIECE:
        for number in range(rest[0]):
            yield from _regions(shape, itemsize, (*before, number))
        return
    most = _MOST_PIECE // row
    for first in range(0, rest[0], most):
        count = min(most, rest[0] - first)
        zeros, ones = (0 for _ in rest[1:]), (1 for _ in before)
        yield (*before, first, *zeros), (*ones, count, *rest[1:])
