"""The files of one write that is under way, each under a name of its own.

Rule 1: nothing that is there is replaced. Rule 2: a file whose bytes the forerunner has is not
stored again; where its bytes could have been damaged since, they are proved first. Rule 3: what
was written is known, so that all of it can be removed again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import PurePosixPath

from ckptstore.commit.ends import NotKeptError
from ckptstore.commit.files import CommittedFiles, PassedFiles
from ckptstore.commit.incoming import Incoming
from ckptstore.commit.intact import Age, check_files, late_if_removed, removed
from ckptstore.commit.layout import PIN, Committed
from ckptstore.commit.stored import Stored
from ckptstore.commit.takeover import known, sound, still_there
from ckptstore.errors import (
    ConflictError,
    CorruptionError,
    NotFoundError,
    SupersededError,
    UnsupportedError,
)
from ckptstore.formats.base import Files, NewFiles
from ckptstore.manifest import MANIFEST, FileEntry, Manifest, TensorInfo, TextEntry, plain_name
from ckptstore.storage.base import AlreadyThereError, Sink, Storage
from ckptstore.storage.several import delete_or_leave
from ckptstore.structure import Structure

__all__ = ["Index", "Writing"]

log = logging.getLogger(__name__)

# Reads the tensor index of a file that was just written, and refuses what is not safe to load.
Index = Callable[[Files, str], tuple[Mapping[str, TensorInfo], Structure] | None]

_RESERVED = (MANIFEST, PIN)


class Writing(NewFiles):
    """Writes the files of one state into its folder.

    Args:
        storage: where.
        folder: the new generation's folder, or the step's.
        manifest: what is to be committed, from `draft`.
        index: reads the tensor index of a file just written, and refuses what is not safe.
        durable: whether a loss of power must not matter once it is committed.
        base: the forerunner, whose bytes need not be stored again.
        resident: whether what is lent to it is in memory anyhow.
        parallel: whether threads of its own may compute digests.
        age: of the write, where it began before this; it begins now by default.
        own_names: whether files of bytes have names with the write's id in a step, too.

    Attributes:
        state: where, the manifest of what was written so far, and what that took.
    """

    def __init__(
        self,
        storage: Storage,
        folder: str,
        manifest: Manifest,
        *,
        index: Index,
        durable: bool = True,
        base: Committed | None = None,
        resident: bool = True,
        parallel: bool = True,
        age: Age | None = None,
        own_names: bool = False,
    ) -> None:
        self._storage = storage
        self._manifest = manifest
        self._index = index
        self._durable = durable
        self._base = base
        self._resident = resident
        self._parallel = parallel
        self._age = age or Age(storage.location)
        self._lasting: set[str] = set()
        self._written: list[str] = []
        self._digesting: dict[str, Incoming] = {}
        self._probe: tuple[str, bytes] | None = None
        self._leans = False
        self.state = Committed(folder, manifest, Stored())
        # In a step the plain names are used, unless a leftover or a rival has them.
        self._plain = manifest.generation is None and not own_names
        self._taken = set(storage.list(folder).files) if self._plain else set()

    def write_text(self, name: str, text: str) -> None:
        """Write a JSON file under a name of its own."""
        data = text.encode()
        for path in self._paths(name):
            try:
                with late_if_removed(self._storage, self._manifest, path):
                    self._storage.create(self.state.path(path), data, durable=self._durable)
            except AlreadyThereError:
                continue
            self._written.append(path)
            self._probe = self._probe or (self.state.path(path), data)
            self._add(texts={name: TextEntry(path=path, text=text)})
            self._count(name, len(data))
            return
        raise self._name_taken(name)

    def last(self, names: Collection[str], note: str, text: str) -> None:
        """Let some files stay where the way fails, and leave word of them for whoever goes on.

        Args:
            names: plain names of the files, none of which is written yet.
            note: the name of a file to write; when the commit is done, the caller removes it.
            text: of that file.
        """
        self._storage.create(self.state.path(note), text.encode(), durable=False)
        self._written.append(note)
        self._lasting = {note, *map(self.path_of, names)}

    @property
    def names_are_plain(self) -> bool:
        """Whether files have their plain names, as in a step, where those are not taken."""
        return self._plain

    @property
    def taken(self) -> Collection[str]:
        """The names that were taken in the folder of a step when this began."""
        return self._taken

    def path_of(self, name: str) -> str:
        """Return the name in the folder under which a file of bytes is to be written."""
        return next(iter(self._paths(name)))

    @contextmanager
    def create(self, name: str, *, expected_size: int = 0) -> Iterator[Sink]:
        """Write a file of bytes under a name of its own, digested in the same pass.

        What is lent has to stay as it is until the commit: its SHA-256 may still be computed.
        """
        path = self.path_of(name)
        with ExitStack() as stack:
            writer = self._storage.writer(
                self.state.path(path),
                expected_size=expected_size,
                durable=self._durable,
                resident=self._resident,
                lasting=path in self._lasting,
            )
            incoming = Incoming(
                lambda: stack.enter_context(writer),
                expected_size,
                known(self._storage, self._base, name),
                resident=self._resident,
                parallel=self._parallel,
            )
            yield incoming
            if incoming.unchanged and self._took_over(name):
                return
            incoming.finish()
        # A storage that finds the name taken at the end must not have us remove a rival's.
        self._written.append(path)
        self._digesting[name] = incoming
        self._leans = self._leans or incoming.spared > 0
        self._count(name, incoming.chunked().size, incoming.spared)
        self._put(name, FileEntry(path=path, digest=incoming.chunked()), incoming)

    def _put(self, name: str, entry: FileEntry, incoming: Incoming | None = None) -> None:
        """Take a file just written into the manifest, with what its own bytes say is in it."""
        log.debug("wrote %s in %s", self.state.path(entry.path), self._storage.location)
        entry = replace(entry, tensors=None, structure=None)
        self._add(files={name: entry})
        try:
            found = self._indexed(name, incoming)
        except (NotFoundError, SupersededError) as error:
            check_files(self._storage, self.state)
            raise removed(self._storage, self._manifest, entry.path) from error
        if found is not None:
            self._add(files={name: replace(entry, tensors=found[0], structure=found[1])})

    def _indexed(
        self, name: str, incoming: Incoming | None
    ) -> tuple[Mapping[str, TensorInfo], Structure] | None:
        """Return the index of a file just written, from its ends where they hold all of it."""
        files = CommittedFiles(self._storage, self.state, edits={})
        if incoming is not None:
            with suppress(NotKeptError):
                return self._index(PassedFiles(files, incoming.ends), name)
        return self._index(files, name)

    @contextmanager
    def assemble(self, name: str, entry: FileEntry) -> Iterator[Sink]:
        """Write a file of which all is known, from wherever each part of it is.

        Whoever writes its bytes proves them.
        """
        path = self.path_of(name)
        with self._storage.writer(
            self.state.path(path),
            expected_size=entry.digest.size,
            durable=self._durable,
            resident=False,
            lasting=path in self._lasting,
        ) as sink:
            yield sink
        self._written.append(path)
        self._count(name, entry.digest.size, sink.spared)
        self._put(name, replace(entry, path=path))

    def fetch(self, name: str, entry: FileEntry, origin: Storage, source: str) -> bool:
        """Have the two storages copy a file by themselves; return whether they could."""
        path = self._own_path(name)
        self._written.append(path)
        if not self._storage.fetch(origin, source, self.state.path(path)):
            return False
        self._count(name, entry.digest.size, entry.digest.size)
        self._put(name, replace(entry, path=path))
        return True

    def adopt(self, name: str, source: str, entry: FileEntry) -> None:
        """Take over a file that no manifest lists, as `reuse` does, and look what is in it."""
        self.reuse(name, source, entry)
        self._put(name, self.state.manifest.files[name])

    def _took_over(self, name: str) -> bool:
        """Let the forerunner's file stand for one that holds the same; return whether it can."""
        if self._base is None:
            return False
        try:
            self._take(name, *sound(self._storage, self._base, name))
        except (
            CorruptionError,
            NotFoundError,
            SupersededError,
            ConflictError,
            UnsupportedError,
        ) as error:
            log.info("%s of %s is stored anew: %s", name, self._storage.location, error)
            return False
        self._leans = True
        return True

    def reuse(self, name: str, source: str, entry: FileEntry) -> None:
        """Take over a file that the storage holds already, without moving its bytes."""
        try:
            self._take(name, source, entry)
        except UnsupportedError:
            self._take_as_own(name, source, entry)

    def _take(self, name: str, source: str, entry: FileEntry) -> None:
        """Take over a file, in a step under its plain name where that is free.

        Raises:
            UnsupportedError: the storage cannot keep a rival's from being replaced by that.
        """
        if self._plain and name not in self._taken:
            path = self.state.path(name)
            if self._probe is not None:
                # How it keeps rivals from being replaced is known before, and asked once.
                self._storage.create_only(*self._probe)
            with suppress(AlreadyThereError):
                self._storage.copy(source, path, durable=self._durable, only_new=True)
                self._written.append(name)
                self._took(name, source, replace(entry, path=name))
                return
        self._take_as_own(name, source, entry)

    def _take_as_own(self, name: str, source: str, entry: FileEntry) -> None:
        path = self._own_path(name)
        self._written.append(path)
        with late_if_removed(self._storage, self._manifest, path):
            self._storage.copy(source, self.state.path(path), durable=self._durable)
        self._took(name, source, replace(entry, path=path))

    def _took(self, name: str, source: str, entry: FileEntry) -> None:
        log.debug("took %s for %s in %s", source, name, self._storage.location)
        self._count(name, entry.digest.size, entry.digest.size)
        self._add(files={name: entry})

    @property
    def stands(self) -> bool:
        """Whether what was taken over from the forerunner, if anything was, was its own."""
        return not self._leans or self._base is None or still_there(self._storage, self._base)

    def include(self, files: Mapping[str, FileEntry]) -> None:
        """Take in files that other processes wrote for this write, and answer for them from now on.

        They are removed with it, and are looked at before it is committed.
        """
        self._written += [entry.path for entry in files.values()]
        self._add(files=files)

    def expect(self, name: str, entry: FileEntry) -> None:
        """Refuse a file just written whose SHA-256 is not the one that its source promised.

        Raises:
            CorruptionError: the chunks were right, and the whole was not.
        """
        self._end_digests()
        found = self.state.manifest.files[name].digest.sha256
        if found != entry.digest.sha256:
            raise CorruptionError(
                f"{name} has sha256 {found}, the source's manifest says {entry.digest.sha256}; "
                "nothing was committed, verify the source"
            )

    def _paths(self, name: str) -> Iterator[str]:
        own = self._own_path(name)
        if self._plain and name not in self._taken:
            yield name
        yield own

    def _own_path(self, name: str) -> str:
        path = PurePosixPath(plain_name(name, "the new checkpoint"))
        if name in _RESERVED:
            raise ConflictError(f"{name} is a name of ckptstore's own; choose another")
        return f"{path.stem}.{self._manifest.write_id}{path.suffix}"

    def _add(self, **parts: Mapping[str, object]) -> None:
        manifest = self.state.manifest
        merged = {key: {**getattr(manifest, key), **new} for key, new in parts.items()}
        self.state = replace(self.state, manifest=replace(manifest, **merged))  # type: ignore[arg-type]

    def _count(self, name: str, size: int, spared: int = 0) -> None:
        stored = self.state.stored or Stored()
        self.state = replace(self.state, stored=stored.plus(name, size, spared))

    def _end_digests(self) -> None:
        """Wait for the SHA-256 of each file that was written."""
        for name, incoming in self._digesting.items():
            entry = self.state.manifest.files[name]
            self._add(files={name: replace(entry, digest=incoming.digest())})
        self._digesting.clear()

    def _name_taken(self, name: str) -> ConflictError:
        return ConflictError(f"{name} cannot be created in {self._storage.location}: name taken")

    def abandon(self) -> None:
        """Remove what was written; nothing of it was committed."""
        delete_or_leave(self._storage, map(self.state.path, self._written))

    def leave(self) -> None:
        """Remove what was written, but for what is to last."""
        going = (path for path in self._written if path not in self._lasting)
        delete_or_leave(self._storage, map(self.state.path, going))
