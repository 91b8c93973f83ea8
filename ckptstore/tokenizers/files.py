"""The files that a tokenizer has beside its state: what they are called, and how large they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ckptstore.errors import CorruptionError, UnsupportedError
from ckptstore.manifest import plain_name

if TYPE_CHECKING:
    from ckptstore.formats.base import Files

__all__ = [
    "MOST_BYTES",
    "Carried",
    "Fetched",
    "carried_in",
    "check_files",
    "is_file_of_tokenizer",
]

MOST_BYTES = 64 * 2**20
"""What the files of one tokenizer have together, at most."""

_BEGINNING = "tokenizer."
# JSON files are texts of the manifest, and the others are states: none of them is a tokenizer's.
_OTHERS = (".json", ".pt", ".pth", ".safetensors")


@dataclass(frozen=True)
class Fetched:
    """What `Tokenizer.fetch_files` has done.

    Attributes:
        folder: where the files are.
        files: each file's name there.
        new: those of these names that were not there before.
        variables: environment variables with which the files are found there; empty where they
            are found anyhow.
        hint: what else to know about the folder; empty where there is nothing.
    """

    folder: str
    files: tuple[str, ...]
    new: tuple[str, ...]
    variables: Mapping[str, str]
    hint: str = ""


class Carried(Mapping[str, bytes]):
    """The files of a tokenizer in a checkpoint, each of which is read when it is asked for.

    Reading one raises `CorruptionError` where they are more than 64 MiB together, by their sizes.

    Args:
        sizes: bytes of all that are there, by name.
        read: returns the content of one.
        where: which checkpoint, for errors.
    """

    def __init__(self, sizes: Mapping[str, int], read: Callable[[str], bytes], where: str) -> None:
        self._sizes = dict(sizes)
        self._read = read
        self._where = where

    def __getitem__(self, name: str) -> bytes:
        size = self._sizes[name]
        if sum(self._sizes.values()) <= MOST_BYTES:
            data = self._read(name)
            if len(data) <= size:
                return data
        raise CorruptionError(
            f"the files of the tokenizer in {self._where} ({', '.join(self._sizes)}) are larger "
            f"than {MOST_BYTES // 2**20} MiB; not read, restore them from a good copy"
        )

    def __contains__(self, name: object) -> bool:
        return name in self._sizes

    def __iter__(self) -> Iterator[str]:
        return iter(self._sizes)

    def __len__(self) -> int:
        return len(self._sizes)


def is_file_of_tokenizer(name: str) -> bool:
    """Whether a file of this name may be one that a tokenizer needs beside tokenizer.json.

    Such names begin with ``tokenizer.`` and end in none of ``.json``, ``.pt``, ``.pth`` and
    ``.safetensors``.
    """
    lower = name.lower()
    return name.startswith(_BEGINNING) and name != _BEGINNING and not lower.endswith(_OTHERS)


def carried_in(files: Files) -> Carried:
    """Return the files of a tokenizer among those of a checkpoint that has one.

    Their names are anybody's, so links among them are not followed to somewhere else (G5); and
    where no manifest lists them, too much is somebody's, and not the tokenizer's.
    """
    names = sorted(filter(is_file_of_tokenizer, files.names()))
    sizes = {name: files.size(name) for name in names if not files.leads_out(name)}
    if files.manifest is None and sum(sizes.values()) > MOST_BYTES:
        sizes = {}

    def read(name: str) -> bytes:
        with files.open(name) as file:
            return file.read(sizes[name] + 1)

    return Carried(sizes, read, files.location)


def check_files(files: Mapping[str, bytes], state: Mapping[str, Any] | None) -> None:
    """Refuse files that nobody would read back as those of a tokenizer.

    Args:
        files: by name.
        state: of the tokenizer; None where there is none.

    Raises:
        UnsupportedError: there is no tokenizer, one has another name than such files have, or they
            are too large.
        UnsafeError: a name is no plain one.
    """
    if files and state is None:
        raise UnsupportedError(
            f"{', '.join(files)} would be saved without a tokenizer; pass tokenizer= too"
        )
    for name in files:
        plain_name(name, "the tokenizer")
        if not is_file_of_tokenizer(name):
            raise UnsupportedError(
                f"a file of a tokenizer cannot be called {name!r}: such names begin with "
                f"{_BEGINNING!r} and end in none of {', '.join(_OTHERS)}; choose another name"
            )
    size = sum(map(len, files.values()))
    if size > MOST_BYTES:
        raise UnsupportedError(
            f"the files of the tokenizer have {size} bytes, and a checkpoint carries no more than "
            f"{MOST_BYTES // 2**20} MiB; save it with vocabulary=False"
        )
