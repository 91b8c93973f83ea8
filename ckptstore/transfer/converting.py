"""`convert`: the same tensors, in another format."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from ckptstore import plugins, storage
from ckptstore.checkpoint import Checkpoint
from ckptstore.commit.draft import Rehearsal
from ckptstore.commit.files import PlainFiles
from ckptstore.commit.layout import Committed, newest
from ckptstore.commit.save import Save, save_generation
from ckptstore.errors import CkptstoreError, ConflictError, UnsupportedError
from ckptstore.formats.base import Contents, Format
from ckptstore.manifest import Manifest
from ckptstore.opening import Location, open, open_state
from ckptstore.progress import OnProgress
from ckptstore.saving import save_of
from ckptstore.storage.base import Storage
from ckptstore.transfer import onefile
from ckptstore.transfer.gathering import contents_of, opened
from ckptstore.transfer.proving import left_out, proved_same, proved_stored
from ckptstore.transfer.report import Transfer
from ckptstore.transfer.watching import Watched
from ckptstore.vocabulary import carried_by, known_names

__all__ = ["convert"]


def convert(
    source: Location,
    destination: Location | None = None,
    format: str = "bundle",
    *,
    optimizer: bool = True,
    vocabulary: bool | None = None,
    overwrite: bool = False,
    fallback: bool = False,
    dry_run: bool = False,
    storage_options: Mapping[str, Any] | None = None,
    destination_options: Mapping[str, Any] | None = None,
    progress: OnProgress | None = None,
) -> Transfer:
    """Write a checkpoint of any format as another, by default beside the old file.

    Guarantee: the source is read, never changed or deleted; tensors, optimizer state and JSON
    fields are the same afterwards, or what the format says that it makes of them
    (`Format.stored`). That the tensors are is seen, one by one, and reported; what the format has
    no room for is named. Where both formats know how, a few MiB of the tensors are in memory at a
    time, whatever their size (G6). A format that is one file, such as ``legacy``, is written
    whole or not at all, and never over a file that is there (G2).

    Args:
        source: path or URL of a checkpoint or of a single file.
        destination: path or URL; by default the source's own folder, but for a format that wants
            a folder of its own. For a format that is one file the file, or with a separator at
            its end the folder that it is to be in.
        format: the name of a writable format.
        optimizer: False for an inference copy: model, config and tokenizer only.
        vocabulary: whether the result carries the files that the tokenizer needs beside its
            state; as for `sync`.
        overwrite: make it the next generation of a destination that holds something else; a
            single file is never replaced.
        fallback: where the newest state of the source is damaged, convert the newest that is
            sound; see `ckptstore.open`.
        dry_run: only say what would be done.
        storage_options: what fsspec's filesystem takes, for both sides.
        destination_options: the same for the destination alone, instead of those.
        progress: called with `Progress` events.

    Raises:
        ConflictError: the destination holds a different checkpoint, or the file is there.
        UnsupportedError: the format cannot be written, does not exist, or cannot hold this; the
            destination could be meant as a file or as a folder, or has to be named; or
            ``vocabulary`` asks for files that are not on this machine.
        NotFoundError, CorruptionError, UnsafeError, StorageError: of either side. Where
            ``committed`` is True the result is there: a CorruptionError says that it is not the
            source, any other error that this could not be seen.
    """
    target = plugins.format_named(format)
    if not target.writable:
        raise UnsupportedError(f"the format {format!r} can be read, not written")
    origin = open(source, fallback=fallback, storage_options=storage_options)
    own = storage_options
    if destination is not None and destination_options is not None:
        own = destination_options  # Else it is beside the source, where only the source's lead.
    name = None
    if target.one_file is not None:
        place, name = onefile.place_of(source, destination, target.one_file, own)
    elif destination is None:
        place, _ = storage.locate(source, storage_options)
    else:
        place = storage.connect(destination, own)
    here = place.location == origin.source.location
    carried = carried_by(
        origin,
        vocabulary,
        shared=not optimizer,
        there=lambda: opened(place, newest(place)) if name is None else None,
    )
    if (
        optimizer
        and {*carried} == {*origin.tokenizer_files()}
        and origin.format == format
        and (destination is None or (here and (name is None or origin.reader.files() == (name,))))
    ):
        for part in origin.parts():
            origin.tensors(part)  # What is damaged is not called the same already.
        return _converted(origin, place, {}, None)
    if destination is None and target.own_folder:
        raise UnsupportedError(
            f"the format {format!r} wants a folder of its own, where other programs find nothing "
            f"else; say which: ckptstore convert {origin.location} DESTINATION --to {format}"
        )
    work = _Work(origin, target, place, optimizer, vocabulary, carried, dry_run, progress)
    return work.to_folder(overwrite) if name is None else work.to_file(name)


@dataclass(frozen=True)
class _Work:
    """One conversion.

    Attributes:
        origin: what is converted.
        target: the format.
        place: where it is to be.
        optimizer: whether it is more than an inference copy.
        vocabulary: whether ``carried`` was asked for.
        carried: the files of the tokenizer.
        dry_run: whether nothing is written.
        progress: called with events.
    """

    origin: Checkpoint
    target: Format
    place: Storage
    optimizer: bool
    vocabulary: bool | None
    carried: Mapping[str, bytes]
    dry_run: bool
    progress: OnProgress | None

    def to_folder(self, overwrite: bool) -> Transfer:
        """Commit the next generation."""
        # The tensors are let go before some of them are read once more, to be compared.
        done, state = self._commit(overwrite)
        if state is None:
            return done
        with _committed():
            return self._proved(done, open_state(self.place, state))

    def _commit(self, overwrite: bool) -> tuple[Transfer, Committed | None]:
        origin, place = self.origin, self.place
        what, rehearsal, _ = self._rehearsed()
        expected = rehearsal.manifest
        there = newest(place)
        if there is not None and (
            expected.same_content(there.manifest)
            or (not overwrite and self._same_as_far_as_asked(expected, there.manifest))
        ):
            return _converted(origin, place, {}, None), None
        if not overwrite:
            _check_free(place, there, expected)
        sizes = _sizes(expected)
        if self.dry_run:
            return replace(_converted(origin, place, sizes, None), left_out=None), None
        watched = replace(
            what, write=lambda files: what.write(Watched(files, sizes, self.progress))
        )
        state = save_generation(place, watched)
        return _converted(origin, place, sizes, state), state

    def _same_as_far_as_asked(self, expected: Manifest, there: Manifest) -> bool:
        """Whether only files of the tokenizer differ, about which nobody has said anything.

        They may have come to this machine since, or gone from it.
        """
        origin = self.origin
        asked = self.vocabulary is not None
        free = {*known_names(origin.tokenizer_state)} - {*origin.tokenizer_files()}
        return not asked and _without(expected, free).same_content(_without(there, free))

    def to_file(self, name: str) -> Transfer:
        """Write one new file."""
        done, written = self._write(name)
        if not written:
            return done
        files = PlainFiles(self.place, (name,), named=name)
        with _committed():
            reader = self.target.read(files)
            result = Checkpoint(files, self.target, reader, location=done.destination)
            return self._proved(done, result)

    def _write(self, name: str) -> tuple[Transfer, bool]:
        origin, place, target = self.origin, self.place, self.target
        what, rehearsal, stored = self._rehearsed()
        sizes = _sizes(rehearsal.manifest)
        onefile.check_only(target, sizes)
        location = f"{place.location}/{name}"
        preview = onefile.as_read_back(target, rehearsal, location)
        (size,), sha256 = sizes.values(), _sha256(rehearsal.manifest)
        if not onefile.free_place(place, name, target, rehearsal, sha256, size):
            done = _converted(origin, place, {}, None)
            return replace(done, destination=location, spared=(name,), spared_bytes=size), False
        done = replace(_converted(origin, place, {name: size}, None), destination=location)
        if self.dry_run:
            lost = left_out(origin, preview, stored) if preview else None
            return replace(done, left_out=lost), False
        files = Watched(onefile.NewFile(place, name, target), sizes, self.progress)
        onefile.put(lambda: what.write(files), place, name, sha256)
        return done, True

    def _rehearsed(self) -> tuple[Save, Rehearsal, Contents | None]:
        """Return what is to be saved, and what that will be; all of the source was read by then.

        The last is what the format stores, where that is not what it is given.
        """
        origin, contents = self.origin, self._contents()
        stored = self.target.stored(contents)
        what = save_of(
            contents, self.target, metrics=origin.metrics, fingerprint=origin.fingerprint
        )
        rehearsal = Rehearsal(what.manifest(None))
        what.write(rehearsal)
        if self.vocabulary and not {*self.carried} <= {*rehearsal.manifest.files}:
            raise UnsupportedError(
                f"the format {self.target.name!r} has no room for {', '.join(self.carried)}, which "
                "the tokenizer needs; convert without asking for it, or to 'bundle'"
            )
        return what, rehearsal, None if stored is contents else stored

    def _contents(self) -> Contents:
        return contents_of(
            self.origin,
            optimizer=self.optimizer,
            roomy=self.target.one_file is not None,
            later=self.target.takes_later,
            tokenizer_files=self.carried,
        )

    def _proved(self, done: Transfer, result: Checkpoint) -> Transfer:
        origin = self.origin
        if type(self.target).stored is not Format.stored:
            contents = self._contents()  # Read once more, so that what was written is not trusted.
            stored = self.target.stored(contents)
            if stored is not contents:
                proofs = proved_stored(origin, result, contents, stored)
                return replace(done, proofs=proofs, left_out=left_out(origin, result, stored))
        parts = origin.parts() if self.optimizer else ("model",)
        proofs = proved_same(origin, result, parts)
        return replace(done, proofs=proofs, left_out=left_out(origin, result))


@contextmanager
def _committed() -> Iterator[None]:
    """Let errors say that the conversion is there, though it could not be proved."""
    try:
        yield
    except CkptstoreError as error:
        error.committed = True
        raise


def _without(manifest: Manifest, names: Collection[str]) -> Manifest:
    files = {name: entry for name, entry in manifest.files.items() if name not in names}
    return replace(manifest, files=files)


def _sizes(manifest: Manifest) -> dict[str, int]:
    sizes = {name: entry.digest.size for name, entry in manifest.files.items()}
    return sizes | {name: len(entry.text.encode()) for name, entry in manifest.texts.items()}


def _sha256(manifest: Manifest) -> str:
    """Return the digest of the one file that a manifest lists."""
    found = [entry.digest.sha256 for entry in manifest.files.values()]
    return (*found, *(entry.sha256 for entry in manifest.texts.values()))[0]


def _check_free(place: Storage, there: Committed | None, expected: Manifest) -> None:
    """Refuse a destination that holds something else, committed or somebody's plain files."""
    if there is not None:
        held = f"another checkpoint already (step {there.manifest.step})"
    else:
        files = place.list("").files
        other = [n for n in (*expected.files, *expected.texts) if n in files]
        held = f"{', '.join(other)} already, which nobody committed" if other else ""
    if held:
        raise ConflictError(
            f"{place.location} holds {held}, and this one (step {expected.step}) is another; "
            "pass --overwrite to make it the newest state there, or choose another destination"
        )


def _converted(
    origin: Checkpoint, place: Storage, written: Mapping[str, int], state: Committed | None
) -> Transfer:
    """Return the report of a conversion that wrote some files, or found them all there."""
    spared = {} if written else {name: info.size for name, info in origin.files().items()}
    return Transfer(
        source=origin.location,
        destination=place.location,
        step=origin.step,
        generation=state.manifest.generation if state else None,
        copied=tuple(written),
        spared=tuple(spared),
        copied_bytes=sum(written.values()),
        spared_bytes=sum(spared.values()),
        edited=origin.edited,
        changed=bool(written),
    )
