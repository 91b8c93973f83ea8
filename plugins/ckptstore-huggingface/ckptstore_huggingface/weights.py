"""The weights of a folder: in one file or in shards, as safetensors or as torch's own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, BinaryIO

from ckptstore_safetensors.header import Header, read_header

from ckptstore import CorruptionError, TensorInfo, UnsafeError, UnsupportedError, ptfile
from ckptstore.formats.base import Files
from ckptstore.manifest import plain_name
from ckptstore_huggingface.names import BIN, BIN_INDEX, SHARD, TENSORS, TENSORS_INDEX
from ckptstore_huggingface.texts import read_json

__all__ = ["Weights", "weights_of"]

_MOST_SHARDS = 10_000


def weights_of(files: Files) -> Weights:
    """Return the weights of a folder, by the names of its files and its index.

    Where there are several, what transformers would take: safetensors before torch's own, and one
    file before shards.

    Raises:
        CorruptionError: there are none, or the index is malformed, or names a file that is absent.
        UnsafeError: the index names a file that is not in the folder.
    """
    names = files.names()
    for name, kind in ((TENSORS, _Tensors), (BIN, _Pickled)):
        index = {TENSORS: TENSORS_INDEX, BIN: BIN_INDEX}[name]
        if name in names:
            return kind(files, (name,), {})
        if index in names:
            placed = _placed(files, index)
            return kind(files, tuple(dict.fromkeys(placed.values())), placed)
    raise CorruptionError(
        f"{files.location} has none of {TENSORS}, {TENSORS_INDEX}, {BIN} and {BIN_INDEX}; restore "
        "the model's files from a good copy"
    )


def _placed(files: Files, index: str) -> dict[str, str]:
    """Return the file of each tensor, as an index says."""
    where = f"{index} in {files.location}"
    placed = read_json(files.text(index), where).get("weight_map")
    if not isinstance(placed, dict) or not placed:
        raise CorruptionError(f"{where} has no weight_map; restore it from a good copy")
    shards = {value for value in placed.values() if isinstance(value, str)}
    if len(shards) > _MOST_SHARDS:
        raise CorruptionError(f"{where} names {len(shards)} files, more than {_MOST_SHARDS}")
    there = files.names()
    for shard in placed.values():
        plain_name(shard, where)
    for shard in sorted(shards):
        if shard not in there:
            raise CorruptionError(f"{where} names {shard}, which is not there; copy that file too")
        # Under a name of transformers' own a link is the user's, as a download's cache has them.
        if not SHARD.fullmatch(shard) and files.leads_out(shard):
            raise UnsafeError(
                f"{where} names {shard!r}, a link that leads out of {files.location}; not "
                "followed, put the file itself in its place"
            )
    return placed


class Weights(ABC):
    """The weights of a folder.

    Args:
        files: of the folder.
        shards: the names of the files that hold tensors.
        placed: the file of each tensor, as an index says; empty for one file.

    Attributes:
        shards: the same.
    """

    def __init__(self, files: Files, shards: tuple[str, ...], placed: Mapping[str, str]) -> None:
        self.shards = shards
        self._files = files
        self._placed = placed
        self._proved = files.manifest is not None
        self._known: dict[str, dict[str, TensorInfo]] | None = None

    def infos(self) -> dict[str, TensorInfo]:
        """Return all tensors, without reading their bytes and without torch."""
        found: dict[str, TensorInfo] = {}
        for infos in self._shards().values():
            found |= infos
        return found

    @abstractmethod
    def ties(self) -> tuple[tuple[str, ...], ...]:
        """Return the names that one tensor goes by, where a file says so."""

    @abstractmethod
    def load(self, names: Sequence[str] | None, map_location: Any) -> dict[str, Any]:
        """Return the state dict, or the named tensors of it, in the order asked for."""

    @abstractmethod
    def mapped(self, names: Sequence[str] | None, *, prove: bool) -> dict[str, Any]:
        """Return the state dict, or a part of it, as memory that looks into the files."""

    def fill(self, into: Mapping[str, Any], *, prove: bool) -> bool:
        """Overwrite tensors, by reading straight into their memory; return whether that was done.

        Args:
            into: what to overwrite, by name.
            prove: whether all is proved before the first byte is overwritten.
        """
        return False

    @abstractmethod
    def _infos_in(self, shard: str) -> dict[str, TensorInfo]:
        """Return the tensors in one file."""

    def _shards(self) -> dict[str, dict[str, TensorInfo]]:
        """Return the tensors in each file, read once."""
        if self._known is None:
            found = {shard: self._infos_in(shard) for shard in self.shards}
            for name, shard in self._placed.items():
                if name not in found[shard]:
                    raise CorruptionError(
                        f"{self._where(shard)} has no tensor {name!r}, and the index says that it "
                        "is there; restore both from one good copy"
                    )
            self._known = found
        return self._known

    def _chosen(self, names: Sequence[str] | None) -> Iterator[tuple[str, list[str]]]:
        """Yield each file with the names that are wanted of it."""
        infos = self.infos()
        wanted = ptfile.chosen(infos, names, self._files.location)
        for shard, inside in self._shards().items():
            these = [name for name in wanted if name in inside]
            if these:
                yield shard, these

    def _in_order(self, found: Mapping[str, Any], names: Sequence[str] | None) -> dict[str, Any]:
        return {name: found[name] for name in (self.infos() if names is None else names)}

    def _open(self, shard: str) -> BinaryIO:
        return self._files.open(shard)

    def _where(self, shard: str) -> str:
        return f"{shard} in {self._files.location}"


class _Tensors(Weights):
    """In ``.safetensors`` files."""

    def __init__(self, files: Files, shards: tuple[str, ...], placed: Mapping[str, str]) -> None:
        super().__init__(files, shards, placed)
        self._headers: dict[str, Header] = {}

    def ties(self) -> tuple[tuple[str, ...], ...]:
        groups: dict[str, list[str]] = {}
        for shard in self._shards():
            for name, one in self._headers[shard].ties.items():
                groups.setdefault(one, [one]).append(name)
        return tuple(map(tuple, groups.values()))

    def load(self, names: Sequence[str] | None, map_location: Any) -> dict[str, Any]:
        from ckptstore_safetensors.reading import load

        found: dict[str, Any] = {}
        for shard, these in self._chosen(names):
            entries = self._headers[shard].all()
            with self._open(shard) as file:
                wanted = {name: entries[name] for name in these}
                found |= load(file, wanted, map_location, self._where(shard))
        return self._in_order(found, names)

    def mapped(self, names: Sequence[str] | None, *, prove: bool) -> dict[str, Any]:
        from ckptstore_safetensors.reading import mapped

        found: dict[str, Any] = {}
        for shard, these in self._chosen(names):
            entries = self._headers[shard].all()
            with self._open(shard) as file:
                found |= mapped(file, {name: entries[name] for name in these}, self._where(shard))
                if prove and self._proved:
                    file.prove()  # type: ignore[attr-defined]
        return self._in_order(found, names)

    def fill(self, into: Mapping[str, Any], *, prove: bool) -> bool:
        from ckptstore_safetensors.reading import fill

        infos = self.infos()
        if any(n not in infos or infos[n].shape != tuple(t.shape) for n, t in into.items()):
            return False
        chosen = list(self._chosen([*into]))
        if prove and self._proved:
            for shard, _ in chosen:
                with self._open(shard) as file:
                    file.prove()  # type: ignore[attr-defined]
        for shard, these in chosen:
            entries, part = self._headers[shard].all(), {name: into[name] for name in these}
            with self._open(shard) as file:
                fill(file, entries, part, prove=False, where=self._where(shard))
        return True

    def _infos_in(self, shard: str) -> dict[str, TensorInfo]:
        with self._open(shard) as file:
            self._headers[shard] = read_header(file, self._where(shard))
        return self._headers[shard].infos()


class _Pickled(Weights):
    """In files of `torch.save`, read without running anything (G5)."""

    def __init__(self, files: Files, shards: tuple[str, ...], placed: Mapping[str, str]) -> None:
        super().__init__(files, shards, placed)
        self._ties: list[tuple[str, ...]] = []

    def ties(self) -> tuple[tuple[str, ...], ...]:
        self._shards()
        return tuple(self._ties)

    def load(self, names: Sequence[str] | None, map_location: Any) -> dict[str, Any]:
        return self._loaded(names, map_location=map_location)

    def mapped(self, names: Sequence[str] | None, *, prove: bool) -> dict[str, Any]:
        return self._loaded(names, mmap=True, prove=prove)

    def _loaded(self, names: Sequence[str] | None, **options: Any) -> dict[str, Any]:
        from ckptstore import tensors

        found: dict[str, Any] = {}
        for shard, these in self._chosen(names):

            def part(root: Any, these: Sequence[str] = these) -> dict[str, Any]:
                state = ptfile.unwrapped(root)
                return {name: state[name] for name in these}

            with self._open(shard) as file:
                where = self._where(shard)
                found |= tensors.load(file, part=part, proved=self._proved, where=where, **options)
        return self._in_order(found, names)

    def _infos_in(self, shard: str) -> dict[str, TensorInfo]:
        where = self._where(shard)
        with self._open(shard) as file:
            content = ptfile.read(file, where)
        state = ptfile.unwrapped(content.root)
        if not isinstance(state, Mapping):
            raise CorruptionError(f"{where} holds a {type(state).__name__}, not a state dict")
        stubs = {n: v for n, v in state.items() if isinstance(v, ptfile.TensorStub)}
        if not all(isinstance(name, str) for name in stubs):
            raise UnsupportedError(f"{where} holds tensors whose names are no text; rename them")
        self._ties += ptfile.structure(stubs, (), None).ties
        return ptfile.infos(stubs, content.records)
