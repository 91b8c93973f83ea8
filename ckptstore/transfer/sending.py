"""One file of a copy, by the shortest way on which it is still proved.

In this order: what an earlier copy has begun goes on; what the destination or its service has is
put together there; the rest passes through here, chunk by chunk, from wherever it is nearest.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing

from ckptstore.commit.attempt import Attempt
from ckptstore.commit.files import CommittedFiles
from ckptstore.commit.layout import Committed
from ckptstore.errors import CorruptionError, NotFoundError, StorageError
from ckptstore.formats.base import Files, NewFiles
from ckptstore.manifest import FileEntry
from ckptstore.storage.base import Held, Sink, Storage
from ckptstore.transfer.begun import Begun, Found, find, note_name, note_of
from ckptstore.transfer.nearby import Nearby, same_chunks
from ckptstore.transfer.pieces import Pieces, in_order
from ckptstore.transfer.tally import Tally

__all__ = ["Sending"]

log = logging.getLogger(__name__)

_PIECE = 8 * 2**20
_WORTH_A_NOTE = 64 * 2**20
_LARGEST_COPY = 5 * 2**30
"""What S3 copies by one request; more it makes of parts."""

_WORTH_ASKING = 16 * 2**20
"""Whether a service makes parts of parts costs 5 MiB to find out."""


class Sending:
    """Writes the files of a state into an attempt.

    Args:
        origin: the files of the source.
        place: the destination.
        there: the state that the destination has, or None.
        tally: counts the bytes.
        prove: whether nothing is believed that was not read here.
    """

    def __init__(
        self,
        origin: Files,
        place: Storage,
        there: Committed | None,
        tally: Tally,
        *,
        prove: bool,
    ) -> None:
        self._origin = origin
        self._place = place
        self._there = there
        self._tally = tally
        self._prove = prove
        self._begun = Begun()
        self._note: str | None = None

    def prepare(self, files: Attempt, names: list[str], texts: Iterable[str]) -> None:
        """Look what an earlier copy has begun, and leave word of this one where it is large.

        Args:
            files: where the files are going to be written.
            names: of the files that are going to be sent.
            texts: the names of the JSON files.
        """
        if self._place.taking_over == "never":
            return  # Nothing that was begun there could be of use.
        entries = self._entries(names)
        self._begun = find(self._place, files.state.folder, entries)
        if sum(entry.digest.size for entry in entries.values()) < _WORTH_A_NOTE:
            return
        note = note_name(files.state.manifest.write_id)
        paths = {name: files.path_of(name) for name in entries}
        beside = (files.path_of(name) for name in texts)
        files.last(entries, note, note_of(paths, entries, beside))
        self._note = note

    def end(self, state: Committed) -> None:
        """Remove what this copy and earlier ones have left beside a state that is committed."""
        if self._note is not None:
            self._begun.names.add(state.path(self._note))
        self._begun.clear(self._place, state.manifest, state.folder)

    def send(self, name: str, size: int, files: NewFiles) -> None:
        """Write one file of bytes.

        Raises:
            CorruptionError: the source is not what its manifest says.
            NotFoundError, SupersededError, StorageError: of either side.
        """
        entry = self._entries([name]).get(name)
        if entry is None or not isinstance(files, Attempt):
            self._stream(name, size, files, None)
        elif not (self._go_on(name, entry, files) or self._compose(name, entry, files)):
            self._stream(name, size, files, entry)
        self._tally.took(name, 0)

    def _entries(self, names: list[str]) -> Mapping[str, FileEntry]:
        own = self._origin.manifest
        return {} if own is None else {name: own.files[name] for name in names}

    def _spared(self, name: str, entry: FileEntry) -> None:
        self._tally.spare(name, entry.digest.size)
        self._tally.took(name, entry.digest.size)

    # -- what was begun ---------------------------------------------------------------------

    def _go_on(self, name: str, entry: FileEntry, files: Attempt) -> bool:
        """Take what an earlier copy has of a file, as a whole; return whether it could be."""
        found = self._begun.files.get(name)
        if found is None:
            return False
        if self._place.taking_over == "nothing":
            sound = not self._prove and self._is_finished(name, entry, found)
        else:
            sound = self._place.taking_over == "proof" and self._holds_all(entry, found)
        if not sound:
            return False
        try:
            files.adopt(name, found.path, entry)
        except (StorageError, NotFoundError, CorruptionError) as error:
            log.info("what was begun of %s is of no use: %s", name, error)
            self._tally.forget(name)
            return False
        if found.upload is None:
            self._spared(name, entry)
        return True

    def _holds_all(self, entry: FileEntry, found: Found) -> bool:
        """Whether a file that an earlier copy left is whole, by reading it."""
        with ExitStack() as stack:
            left = Nearby.left(self._place, found.path, entry.digest, stack)
            return left is not None and left.holds_all(entry.digest)

    def _is_finished(self, name: str, entry: FileEntry, found: Found) -> bool:
        """Have the upload of an earlier copy finished, if there is one; return whether it is."""
        size = entry.digest.size
        if size > _LARGEST_COPY and not self._place.composes():
            return False  # It could not be copied to a name of ours.
        if found.upload is None:
            return found.size == size
        try:
            with (
                self._pieces(name, size) as pieces,
                self._place.continued(found.upload, expected_size=size) as sink,
            ):
                self._defer_all(name, entry, sink, pieces, {})
        except (StorageError, NotFoundError) as error:
            log.info("the upload of %s does not go on: %s", name, error)
            self._tally.forget(name)
            return False
        self._begun.uploads.remove(found.upload)
        self._begun.names.add(found.path)
        return True

    # -- what the service puts together -------------------------------------------------------

    def _compose(self, name: str, entry: FileEntry, files: Attempt) -> bool:
        """Have the destination make a file of what it has itself; return whether it could."""
        if self._prove or self._place.taking_over != "nothing":
            return False
        beside = self._beside(name)
        same = same_chunks(self._there, name, entry.digest) if self._there is not None else set()
        spared = entry.digest.size if beside else len(same) * entry.digest.chunk_size
        if spared < _WORTH_ASKING:
            return False
        if not self._place.composes():
            if beside is None or beside.storage is None or files.names_are_plain:
                return False
            if not files.fetch(name, entry, beside.storage, beside.name):
                return False
            self._spared(name, entry)
            return True
        held = {}
        if same and self._there is not None:
            path = self._there.path(self._there.manifest.files[name].path)
            held = {number: Held(path, number * entry.digest.chunk_size) for number in same}
        with (
            self._pieces(name, entry.digest.size) as pieces,
            files.assemble(name, entry) as sink,
        ):
            self._defer_all(name, entry, sink, pieces, held, beside)
        return True

    def _beside(self, name: str) -> Held | None:
        """Return where the source has a file, if the destination's service can read it there."""
        origin = self._origin
        if not isinstance(origin, CommittedFiles) or not self._place.beside(origin.storage):
            return None
        return Held(origin.path(name), 0, origin.storage)

    def _defer_all(
        self,
        name: str,
        entry: FileEntry,
        sink: Sink,
        pieces: Pieces,
        held: Mapping[int, Held],
        beside: Held | None = None,
    ) -> None:
        """Hand a whole file to a sink, none of whose bytes is read before it is asked for."""
        chunk, size = entry.digest.chunk_size, entry.digest.size
        step = sink.part_size or chunk

        def deferred(start: int, count: int) -> None:
            numbers = range(start // chunk, -(-(start + count) // chunk))
            place = held.get(numbers[0]) if all(n in held for n in numbers) else None
            if place is not None:
                place = Held(place.name, start)
            elif beside is not None:
                place = Held(beside.name, start, beside.storage)
            self._tally.spare(name, count)

            def supply() -> memoryview:
                self._tally.spare(name, -count)
                return pieces.read(start, count)

            sink.defer(count, supply, place)
            self._tally.took(name, count, sink.waiting)

        try:
            for start in range(0, size, step):
                deferred(start, min(step, size - start))
        except BaseException:
            pieces.stop()
            raise

    # -- what passes through here -------------------------------------------------------------

    def _stream(self, name: str, size: int, files: NewFiles, entry: FileEntry | None) -> None:
        piece = _PIECE if entry is None else entry.digest.chunk_size
        with ExitStack() as stack:
            near: list[Nearby] = []
            if entry is not None and self._place.taking_over == "proof":
                near += self._near(name, entry, stack)
            pieces = stack.enter_context(self._pieces(name, size, near))

            def read(number: int) -> memoryview:
                start = number * piece
                return pieces.read(start, min(piece, size - start), number if near else None)

            sink = stack.enter_context(files.create(name, expected_size=size))
            pieces.open()
            with closing(in_order(read, -(-size // piece), pieces.stop)) as ready:
                for data in ready:
                    sink.lend(data)
                    self._tally.took(name, len(data), sink.waiting)
        if entry is not None and isinstance(files, Attempt):
            files.expect(name, entry)

    def _pieces(self, name: str, size: int, near: Sequence[Nearby] = ()) -> Pieces:
        return Pieces(self._origin, name, size, near, lambda count: self._tally.spare(name, count))

    def _near(self, name: str, entry: FileEntry, stack: ExitStack) -> Iterator[Nearby]:
        """Yield what the destination can read of a file more quickly than the source."""
        found, there = self._begun.files.get(name), self._there
        if found is not None:
            left = Nearby.left(self._place, found.path, entry.digest, stack)
            if left is not None:
                yield left
        if there is not None:
            same = Nearby.of(self._place, there, name, entry.digest, stack)
            if same is not None:
                yield same
