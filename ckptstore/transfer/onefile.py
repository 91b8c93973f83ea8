"""A checkpoint as one new file, for formats that have no more.

Rule 1: the file is there whole or not at all, and nobody's file is ever replaced: it has no
generation before it to go back to, so that there is no flag for it either. Rule 2: what would be
opened as something else, or not at all, is not written.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from pathlib import PurePosixPath
from typing import Any, BinaryIO, cast

from ckptstore import plugins, storage
from ckptstore.checkpoint import Checkpoint
from ckptstore.commit.draft import Rehearsal
from ckptstore.commit.ends import NotKeptError
from ckptstore.commit.files import PlainFiles, digest_of
from ckptstore.errors import (
    CkptstoreError,
    ConflictError,
    CorruptionError,
    NotFoundError,
    PluginError,
    StorageError,
    UnsafeError,
    UnsupportedError,
)
from ckptstore.formats.base import Files, Format, NewFiles
from ckptstore.opening import Location
from ckptstore.storage.base import Listing, Sink, Storage, UnknownOutcomeError

__all__ = ["NewFile", "as_read_back", "check_only", "free_place", "place_of", "put"]


def place_of(
    source: Location,
    destination: Location | None,
    default: str,
    storage_options: Mapping[str, Any] | None,
) -> tuple[Storage, str]:
    """Return the storage of the folder that a new file is to be in, and the file's name.

    Args:
        source: what it is made of; the file stands beside it where no destination is given.
        destination: a file; or a folder that holds something, or any with a separator at its end.
        default: the file's name in a folder.
        storage_options: for the storage.

    Raises:
        UnsupportedError: it could be meant as either.
    """
    if destination is None:
        return storage.locate(source, storage_options)[0], default
    place, name = storage.locate(destination, storage_options)
    if name is None and place.list("") == Listing({}, ()):
        above, name = storage.locate(destination, storage_options, new=True)
        place = place if name is None else above
        if name is not None and not PurePosixPath(name).suffix:
            text = os.fspath(destination)
            raise UnsupportedError(
                f"{name!r} in {above.location} is not there, and could be meant as a file or as a "
                f"folder; write {text + PurePosixPath(default).suffix!r} for a file of this name, "
                f"or {text + '/'!r} for {default} in a folder"
            )
    return place, name or default


def free_place(
    place: Storage, name: str, target: Format, rehearsal: Rehearsal, sha256: str, size: int
) -> bool:
    """Whether a new file may get its name; False where the very same file has it already.

    Raises:
        ConflictError: another file has the name.
        UnsupportedError: it would be opened as another format.
    """
    there = place.entry(name)
    if there is None:
        _check_opened_as(place, name, target, rehearsal)
        return True
    if there.size == size and digest_of(place, name) == sha256:
        return False
    raise ConflictError(
        f"{name} in {place.location} is there already, and another file; a single file is never "
        "replaced, with --overwrite neither, for it keeps nothing to go back to: choose another "
        "name, or move that file away"
    )


def _check_opened_as(place: Storage, name: str, target: Format, rehearsal: Rehearsal) -> None:
    """Refuse a name, or a folder, by which another format would take the file for its own."""
    alone = _Rehearsed(rehearsal, place.location, name)
    unseen = PlainFiles(place, (name,), named=name)
    names = (*place.list("").files, name) if name == target.one_file else (name,)
    beside = PlainFiles(place, names)
    for other in plugins.formats().values():
        if other.name == target.name or target.name in other.yields_to:
            continue
        try:
            claimed = _claims(other, alone)
        except NotKeptError:
            claimed = _claims(other, unseen)  # By its name alone, then.
        if claimed:
            raise UnsupportedError(
                f"a file called {name} would be opened as {other.name!r}, not as "
                f"{target.name!r}; give it another name"
            )
        if other.name not in target.yields_to and _claims(other, beside):
            raise UnsupportedError(
                f"{place.location} holds a checkpoint of the format {other.name!r}, and with "
                f"{name} beside it nobody could tell which of them is meant; name a file elsewhere"
            )


def _claims(other: Format, files: Files) -> bool:
    try:
        return other.matches(files)
    except CkptstoreError:
        return False  # What is wrong with other files is not asked here.


class NewFile(NewFiles):
    """Takes the one file that a format writes, and puts it where it belongs under its new name.

    Args:
        place: the folder that it is to be in.
        name: what it is called there.
        target: the format.
    """

    def __init__(self, place: Storage, name: str, target: Format) -> None:
        self._place = place
        self._name = name
        self._target = target

    def write_text(self, name: str, text: str) -> None:
        """Write the file, if it is a text."""
        data = text.encode()
        with self.create(name, expected_size=len(data)) as sink:
            sink.write(memoryview(data))

    @contextmanager
    def create(self, name: str, *, expected_size: int = 0) -> Iterator[Sink]:
        """Write the file: there is none before the block is left, and then all of it."""
        check_only(self._target, (name,))
        with self._place.whole(self._name, expected_size=expected_size) as sink:
            yield sink


def check_only(target: Format, names: Iterable[str]) -> None:
    """Refuse files other than the one that a format says is all that it writes.

    Raises:
        PluginError: the format broke its promise.
    """
    if list(names) != [target.one_file]:
        raise PluginError(
            f"the format {target.name!r} wrote {', '.join(names) or 'nothing'}, and promised to "
            f"write {target.one_file} alone; mend its class {type(target).__qualname__}"
        )


def as_read_back(target: Format, rehearsal: Rehearsal, location: str) -> Checkpoint | None:
    """Return the checkpoint that a file would be; None where not enough of it was kept to say.

    Raises:
        UnsupportedError: nobody could open it.
    """
    files = _Rehearsed(rehearsal, location)
    try:
        found = Checkpoint(files, target, target.read(files), location=location)
        for part in found.parts():
            found.tensors(part)
    except NotKeptError:
        return None
    except (CorruptionError, UnsafeError, UnsupportedError) as error:
        raise UnsupportedError(
            f"this cannot be written as {target.name!r}, for nobody could open it: {error}"
        ) from error
    return found


class _Rehearsed(Files):
    """The one file of a rehearsal, as far as it was kept.

    Args:
        rehearsal: the write.
        location: for people.
        named: what the file will be called; as the format calls it by default.
    """

    manifest = None

    def __init__(self, rehearsal: Rehearsal, location: str, named: str | None = None) -> None:
        self.location = location
        self.named = named
        texts, ends = rehearsal.manifest.texts, rehearsal.ends
        self._texts = {named or name: entry.text for name, entry in texts.items()}
        self._ends = {named or name: end for name, end in ends.items()}

    def names(self) -> tuple[str, ...]:
        return tuple(sorted({*self._texts, *self._ends}))

    def text(self, name: str) -> str:
        return self._texts[name]

    def size(self, name: str) -> int:
        return self._ends[name].size if name in self._ends else len(self._texts[name].encode())

    def open(self, name: str) -> BinaryIO:
        if name in self._texts:
            return BytesIO(self._texts[name].encode())
        if name not in self._ends:
            raise NotFoundError(f"there is no {name} in {self.location}")
        return cast(BinaryIO, self._ends[name].again())


def put(write: Callable[[], None], place: Storage, name: str, sha256: str) -> None:
    """Write a file, and say of any failure whether the file is there.

    Raises:
        ConflictError: somebody else's has the name by now; nothing was written.
        StorageError: with ``committed`` True where the file is there all the same, and may not
            survive a loss of power; with None where that cannot be known.
    """
    try:
        write()
    except StorageError as error:
        try:
            there = place.entry(name) is not None and digest_of(place, name) == sha256
        except CkptstoreError:
            there = False
        unknown = isinstance(error, UnknownOutcomeError)
        if there and unknown:
            return
        if there:
            raise StorageError(
                f"{error}; {name} is there, and may not survive a loss of power", committed=True
            ) from error
        if unknown:
            raise StorageError(
                f"{error}; whether {name} was written is not known: look at {place.location}",
                committed=None,
            ) from error
        raise
