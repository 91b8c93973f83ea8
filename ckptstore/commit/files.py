"""The files of one state, pinned: what `Files` promises to formats, kept here."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import BinaryIO, cast

from ckptstore.commit.ends import Ends
from ckptstore.commit.layout import Committed, newest_generation, read_manifest
from ckptstore.commit.proved import BlockFile, open_plain, open_proved
from ckptstore.errors import CkptstoreError, CorruptionError, NotFoundError, SupersededError
from ckptstore.formats.base import Files
from ckptstore.manifest import MANIFEST, Manifest
from ckptstore.storage.base import Listing, RangeReader, Storage

__all__ = ["CommittedFiles", "PassedFiles", "PlainFiles", "digest_of", "read_text"]

_MOST_TEXT = 64 * 2**20
_PIECE = 8 * 2**20


def read_text(storage: Storage, name: str) -> str:
    """Return a JSON file's text.

    Raises:
        NotFoundError: there is no such file.
        CorruptionError: it is not UTF-8, or larger than 64 MiB.
    """
    data = storage.read(name, limit=_MOST_TEXT + 1)
    if len(data) > _MOST_TEXT:
        raise CorruptionError(
            f"{name} in {storage.location} is larger than {_MOST_TEXT // 2**20} MiB; not read"
        )
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise CorruptionError(
            f"{name} in {storage.location} is not UTF-8: {error.reason} at byte {error.start}; "
            "save it as UTF-8, or restore it from a good copy"
        ) from error


def digest_of(storage: Storage, name: str) -> str:
    """Return the hexadecimal SHA-256 of a file, by reading all of it.

    Raises:
        NotFoundError: there is no such file.
        CorruptionError: it became shorter while it was read.
    """
    digest, buffer = hashlib.sha256(), memoryview(bytearray(_PIECE))
    with storage.open(name) as reader:
        for start in range(0, reader.size, _PIECE):
            piece = buffer[: min(_PIECE, reader.size - start)]
            reader.readinto(start, piece)
            digest.update(piece)
    return digest.hexdigest()


class PlainFiles(Files):
    """Files that never had a manifest: a folder, or one file of it. Called "not verified".

    Attributes:
        settled: whether whoever opened them has seen that they were not a first save's, and wants
            every later read to look again.
    """

    manifest = None

    def __init__(
        self,
        storage: Storage,
        names: tuple[str, ...],
        *,
        named: str | None = None,
        sizes: Mapping[str, int] | None = None,
    ) -> None:
        self.location = storage.location
        self.named = named
        self.settled = False
        self._sizes = dict(sizes or {})
        self._storage = storage
        self._names = tuple(sorted(names))

    def names(self) -> tuple[str, ...]:
        """Return the plain names of the files, sorted."""
        return self._names

    def text(self, name: str) -> str:
        """Return a JSON file's text."""
        text = read_text(self._storage, self._known(name))
        self._check_not_shown_over(name)
        return text

    def size(self, name: str) -> int:
        """Return a file's size in bytes, as it was when it was first looked at."""
        if self._known(name) not in self._sizes:
            entry = self._storage.entry(name)
            if entry is None:
                raise NotFoundError(f"{name} in {self.location} is gone")
            self._sizes[name] = entry.size
        return self._sizes[name]

    def leads_out(self, name: str) -> bool:
        """Whether links lead from a name to somewhere outside."""
        return self._storage.leads_out(self._known(name))

    def beside(self, name: str) -> BinaryIO | None:
        """Open a file of the folder that holds the one that the location names."""
        if self.named is None:
            return None
        try:
            return cast(BinaryIO, open_plain(self._storage.open(name)))
        except NotFoundError:
            return None

    def open(self, name: str) -> BinaryIO:
        """Open a file of bytes, which come as they are."""
        reader = self._storage.open(self._known(name))
        self._sizes[name] = reader.size
        # What was opened stays what it is; a save that came before may have replaced it.
        try:
            self._check_not_shown_over(name)
        except BaseException:
            reader.close()
            raise
        return cast(BinaryIO, open_plain(reader))

    def _check_not_shown_over(self, name: str) -> None:
        """Refuse a file that the view of a first save, committed since, has taken the place of."""
        if self.named or not self.settled:
            return
        state = newest_generation(self._storage)
        if state is not None and name in {*state.manifest.texts, *state.manifest.files}:
            raise _shown_over(self.location, state)

    def _known(self, name: str) -> str:
        if name not in self._names:
            raise NotFoundError(
                f"no {name} in {self.location}; it holds {', '.join(self._names) or 'no files'}"
            )
        return name


class CommittedFiles(Files):
    """The files of a committed state; the manifest is the truth, each byte is proved by it.

    Args:
        storage: where.
        state: which; its folder is empty for a folder of plain files with a manifest beside
            them, such as a copy of a view.
        edits: plain name to text of the JSON files that somebody edited by hand.
        present: in a folder of plain files, what is there.
    """

    def __init__(
        self,
        storage: Storage,
        state: Committed,
        *,
        edits: Mapping[str, str],
        present: Listing | None = None,
    ) -> None:
        self.location = storage.location
        self.manifest: Manifest = state.manifest
        self.state = state
        self.edits = dict(edits)
        self.storage = storage
        self._present = present

    def names(self) -> tuple[str, ...]:
        """Return the plain names of the files that are there, sorted."""
        saved = {*self.manifest.texts, *self.manifest.files}
        if self._present is not None:
            saved = {name for name in saved if self.path(name) in self._present.files}
        return tuple(sorted({*saved, *self.edits}))

    def text(self, name: str) -> str:
        """Return a JSON file's text, the hand edit where there is one."""
        if name in self.edits:
            return self.edits[name]
        if name not in self.manifest.texts:
            raise NotFoundError(f"no {name} in {self.location}")
        return self.manifest.texts[name].text

    def size(self, name: str) -> int:
        """Return a file's size in bytes."""
        if name in self.manifest.files:
            return self.manifest.files[name].digest.size
        return len(self.text(name).encode())

    def open(self, name: str) -> BinaryIO:
        """Open a file of bytes; every byte is proved before it is handed out (G4)."""
        entry = self.manifest.files.get(name)
        if entry is None:
            held = ", ".join(self.manifest.files) or "none"
            raise NotFoundError(f"no {name} in {self.location}; its files of bytes: {held}")
        try:
            reader = self.storage.open(self.path(name))
        except NotFoundError as error:
            raise self._absent(name) from error
        return cast(
            BinaryIO,
            open_proved(
                _Pinned(reader, self, name), entry.digest, lambda found: self.fault(name, found)
            ),
        )

    def prove(self, name: str) -> None:
        """Read all of a file of bytes, in bounded memory.

        Raises:
            CorruptionError, NotFoundError, SupersededError: what `open` and reading raise.
        """
        with self.open(name) as file:
            cast(BlockFile, file).prove()

    def stored_text(self, name: str) -> str:
        """Return a JSON file's text as the file itself has it, which nothing else depends on.

        Raises:
            NotFoundError: the file is gone, though the manifest has its text.
        """
        try:
            return read_text(self.storage, self.path(name))
        except NotFoundError as error:
            raise self._absent(name) from error

    def path(self, name: str) -> str:
        """Return the name in the storage that holds a file."""
        texts, files = self.manifest.texts, self.manifest.files
        own = texts[name].path if name in texts else files[name].path
        if self._present is not None and own not in self._present.files:
            own = name
        return self.state.path(own)

    def superseded(self) -> SupersededError | None:
        """Return the error to raise where this state is gone by now, else None."""
        if not self.state.folder:
            # Of a person's own folder: since then somebody may have saved into it.
            state = None if self._present is None else newest_generation(self.storage)
            return None if state is None else _shown_over(self.location, state)
        again = read_manifest(self.storage, self.state.folder)
        if again is not None and again.write_id == self.manifest.write_id:
            return None
        return SupersededError(
            f"{self.manifest.called} of {self.location} was replaced or removed since it was "
            "opened; open the location again"
        )

    def fault(self, name: str, found: str) -> CkptstoreError:
        """Return the error for a file that is not what was committed: damage, or superseded."""
        gone = self.superseded()
        if gone is not None:
            return gone
        called, cure = name, f"restore it with ckptstore sync --prove GOOD_COPY {self.location}"
        if self.manifest.generation is not None and self.state.folder:
            cure += ", or adopt what is there with ckptstore doctor --adopt"
        elif self.state.folder:
            called = self.path(name)  # Of a history's step, the folder says which.
        return CorruptionError(f"{called} in {self.location} is damaged: {found}; {cure}")

    def _absent(self, name: str) -> CkptstoreError:
        return self.superseded() or NotFoundError(
            f"{name} is listed in {MANIFEST} of {self.location}, and is not there; "
            "copy it from where this checkpoint came from"
        )


class PassedFiles(CommittedFiles):
    """The files of a write under way, one of which has just passed through this process.

    Args:
        files: of the write.
        ends: the first and the last of what passed.
    """

    def __init__(self, files: CommittedFiles, ends: Ends) -> None:
        super().__init__(files.storage, files.state, edits={})
        self._ends = ends

    def open(self, name: str) -> BinaryIO:
        """Open what is at hand of the file; reads of anything else raise `NotKeptError`."""
        self._ends.seek(0)
        return cast(BinaryIO, self._ends)


def _shown_over(location: str, state: Committed) -> SupersededError:
    return SupersededError(
        f"the plain files of {location} were replaced by {state.manifest.called} since they were "
        "opened; open the location again"
    )


class _Pinned(RangeReader):
    """Reads a file of a committed state, and tells a state that went meanwhile from damage."""

    def __init__(self, reader: RangeReader, files: CommittedFiles, name: str) -> None:
        self.size = reader.size
        self.at_once, self.at_most = reader.at_once, reader.at_most
        self.read_size = reader.read_size
        self._reader = reader
        self._files = files
        self._name = name

    def readinto(self, start: int, target: memoryview) -> None:
        self.readinto_parts(start, (target,))

    def readinto_parts(self, start: int, targets: Sequence[memoryview]) -> None:
        try:
            self._reader.readinto_parts(start, targets)
        except NotFoundError as error:
            raise self._files._absent(self._name) from error
        except CorruptionError as error:
            raise self._files.fault(self._name, "it became shorter while it was read") from error

    def map(self) -> memoryview | None:
        return self._reader.map()

    def interrupt(self) -> None:
        self._reader.interrupt()

    def close(self) -> None:
        self._reader.close()
