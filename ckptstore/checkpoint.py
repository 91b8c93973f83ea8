"""A checkpoint: a handle on one committed state, or on files that never had a manifest."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ckptstore import plugins, storage, verify
from ckptstore.commit.edits import hand_edits
from ckptstore.commit.files import CommittedFiles, PlainFiles, read_text
from ckptstore.commit.layout import Committed, newest, read_manifest, step_named
from ckptstore.errors import ConflictError, NotFoundError, SupersededError, UnsupportedError
from ckptstore.formats.base import Files, Format, Reader
from ckptstore.manifest import MANIFEST, TensorInfo
from ckptstore.progress import OnProgress
from ckptstore.storage.base import Storage
from ckptstore.tokenizers.base import Tokenizer

__all__ = ["Checkpoint", "FileInfo", "open", "open_place", "open_state"]

Location = str | os.PathLike[str]

_TRIES = 5
_LISTED = 8


@dataclass(frozen=True)
class FileInfo:
    """A file of a checkpoint.

    Attributes:
        size: bytes.
        sha256: hexadecimal; None where there is no manifest.
        present: whether it is there; known without a manifest, and in a folder of plain files.
    """

    size: int
    sha256: str | None
    present: bool


class Checkpoint:
    """One state of a model, pinned: it stays the same for ever, or raises `SupersededError` (G7).

    Made by `open`, `save` and their like. Does I/O: `load_*`, `restore` and `verify` read the
    storage; everything else was read when it was opened.

    Attributes:
        location: where, for people.
        format: the name of the layout: ``bundle``, ``legacy``, …
        step: finished optimizer steps, or None.
        generation: its number in a single checkpoint, or None.
        config: the architecture, or None.
        tokenizer_state: the tokenizer as a JSON object with ``token_kind``, or None.
        training_state: step, names of other files and the caller's own fields, or None.
        edited: the JSON files that somebody changed by hand since the save; what they say now
            is what the fields above show.
        proved: whether a manifest says what every byte has to be (G4).
        created: when it was committed, ISO 8601, or None.
        writer: the program that wrote it, or None.
        metrics: what was measured of the model.
        fingerprint: of the tokenizer's vocabulary, or None.
    """

    def __init__(
        self, files: Files, format: Format, reader: Reader, *, location: str | None = None
    ) -> None:
        manifest = files.manifest
        self.location = location or files.location
        self.format = format.name
        self.step = reader.step
        self.config = reader.config
        self.tokenizer_state = reader.tokenizer_state
        self.training_state = reader.training_state
        self.proved = manifest is not None
        edits = files.edits if isinstance(files, CommittedFiles) else {}
        self.edited = tuple(sorted({*edits} & {*reader.files()}))
        self.generation = manifest.generation if manifest else None
        self.created = manifest.created if manifest else None
        self.writer = manifest.writer if manifest else None
        self.metrics = dict(manifest.metrics) if manifest else {}
        self.fingerprint = manifest.fingerprint if manifest else None
        if self.step is None and manifest is not None:
            self.step = manifest.step
        self._files = files
        self._reader = reader

    def __repr__(self) -> str:
        state = "" if self.generation is None else f", generation {self.generation}"
        return f"<Checkpoint {self.format} {self.location!r}{state}, step {self.step}>"

    # -- without reading weights --------------------------------------------------------

    def tensors(self) -> dict[str, TensorInfo]:
        """Return the model's tensors by name, without reading their bytes and without torch."""
        return self._reader.tensors()

    def states(self) -> tuple[str, ...]:
        """Return the names of the further states that `load_state` takes."""
        return self._reader.states()

    def files(self) -> dict[str, FileInfo]:
        """Return the files that this checkpoint is made of, by plain name."""
        manifest = self._files.manifest
        present = self._files.names()
        if manifest is None:
            sizes = {name: self._files.size(name) for name in self._reader.files()}
            return {name: FileInfo(size, None, True) for name, size in sizes.items()}
        found = {
            name: FileInfo(len(entry.text.encode()), entry.sha256, name in present)
            for name, entry in manifest.texts.items()
        }
        for name, file in manifest.files.items():
            found[name] = FileInfo(file.digest.size, file.digest.sha256, name in present)
        return found

    @property
    def has_optimizer(self) -> bool:
        """Whether `load_optimizer` returns something; False in an inference copy."""
        return self._reader.has_optimizer

    # -- reading weights ----------------------------------------------------------------

    def load_model(
        self, names: Sequence[str] | None = None, map_location: Any = "cpu"
    ) -> dict[str, Any]:
        """Return the model's state dict, or the named tensors of it.

        Guarantee: every byte is proved before it is unpickled (G4), nothing is executed (G5),
        and no second copy is made (G6). Names come without the prefixes of torch.compile and
        DistributedDataParallel.

        Args:
            names: tensors to load; all by default. Only the chunks that they touch are read.
            map_location: where the tensors go, as torch.load has it.

        Raises:
            CorruptionError: bytes are damaged, or the model's file is absent.
            UnsafeError: unpickling would run code.
            NotFoundError: a name is not among `tensors`.
            SupersededError: this state was replaced and removed.
        """
        return self._reader.load_model(names, map_location)

    def load_optimizer(self, map_location: Any = "cpu") -> dict[str, Any] | None:
        """Return the optimizer's state dict, or None where none was saved.

        Raises:
            NotFoundError: the checkpoint names one, and its file is absent.
            CorruptionError, UnsafeError, SupersededError: as for `load_model`.
        """
        return self._reader.load_optimizer(map_location)

    def load_state(self, name: str, map_location: Any = "cpu") -> Any:
        """Return a further state that was saved with ``state={name: ...}``.

        Raises:
            NotFoundError: there is none of that name; the message lists those that there are.
            CorruptionError, UnsafeError, SupersededError: as for `load_model`.
        """
        return self._reader.load_state(name, map_location)

    def load_tokenizer(self) -> Tokenizer:
        """Return the tokenizer, with exactly the vocabulary that the model was trained on.

        Raises:
            NotFoundError: the checkpoint has none.
            UnsupportedError: its kind is not installed, or needs something that is not here.
            CorruptionError: the vocabulary found is another one.
        """
        if self.tokenizer_state is None:
            raise NotFoundError(f"{self.location} has no tokenizer; save it with tokenizer=")
        return plugins.load_tokenizer(self.tokenizer_state, fingerprint=self.fingerprint)

    def restore(self, *, model: Any = None, optimizer: Any = None) -> None:
        """Load into an existing model and optimizer, in place.

        Both are read and compared before either is changed.

        Raises:
            NotFoundError: an optimizer was given, and the checkpoint has none.
            UnsupportedError: names, shapes or groups differ; the message says which.
            CorruptionError, UnsafeError, SupersededError: as for `load_model`.
        """
        from ckptstore import tensors

        weights = None if model is None else self.load_model()
        moments = None if optimizer is None else self.load_optimizer()
        if optimizer is not None and moments is None:
            raise NotFoundError(
                f"{self.location} has no optimizer state; restore the model alone, and start "
                "with a fresh optimizer"
            )
        tensors.restore(model, weights, optimizer, moments, where=self.location)

    def verify(self, *, progress: OnProgress | None = None) -> verify.Report:
        """Read every file and prove it: chunk checksums and SHA-256, or the zip's own CRCs.

        Args:
            progress: called with `Progress` events.

        Returns:
            A report; damage is in it and does not raise.

        Raises:
            SupersededError: this state was replaced and removed.
        """
        return verify.prove(self._files, self._reader.files(), progress)

    # -- for ckptstore's own modules ----------------------------------------------------

    @property
    def source(self) -> Files:
        """The pinned files, for `sync`."""
        return self._files

    @property
    def reader(self) -> Reader:
        """What the format made of the files, for `sync`."""
        return self._reader


def open(
    location: Location,
    *,
    step: int | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> Checkpoint:
    """Open the newest checkpoint of a location, with small reads only.

    Guarantee: a whole committed state, the newest or the one that is asked for, whatever is
    being saved meanwhile (G2); it stays that one (G7). No weights are read, torch is not
    imported.

    Args:
        location: path or URL of a checkpoint, of a history, or of a single file of weights.
        step: the training step of a history; the newest by default.
        storage_options: what fsspec's filesystem takes.

    Raises:
        NotFoundError: nothing there is a checkpoint, or there is none of that step.
        CorruptionError: a file that says what is there is malformed.
        UnsafeError: reading what is there would run code, or lead outside the location.
        UnsupportedError: it is of a format that is not installed.
        ConflictError: a person replaced a file of weights in the view.
        StorageError: the storage failed.
    """
    place, file = storage.locate(location, storage_options)
    if file is not None:
        files = PlainFiles(place, (file,), named=file)
        return _read(files, step, location=f"{place.location}/{file}")
    return open_place(place, step)


def open_place(place: Storage, step: int | None) -> Checkpoint:
    """Open the newest checkpoint of a storage; see `open`."""
    if step is not None and (not isinstance(step, int) or isinstance(step, bool)):
        raise UnsupportedError(f"step is {step!r}, not a whole number")
    for _ in range(_TRIES):
        try:
            checkpoint = _open_newest(place, step)
        except SupersededError:
            continue
        if checkpoint is not None:
            return checkpoint
    raise ConflictError(f"{place.location} changes faster than it can be opened; try again")


def open_state(place: Storage, state: Committed) -> Checkpoint:
    """Return a checkpoint of a state that was just committed, without looking for edits."""
    return _read(CommittedFiles(place, state, edits={}), None)


def _open_newest(place: Storage, step: int | None) -> Checkpoint | None:
    state = newest(place) if step is None else step_named(place, step)
    if state is None:
        return _read(_plain(place), step)
    edits: dict[str, str] | None = {}
    if state.manifest.generation is not None:
        edits = hand_edits(place, state, plugins.format_named(state.manifest.format).texts)
    if edits is None:
        return None
    return _read(CommittedFiles(place, state, edits=edits), None)


def _plain(place: Storage) -> Files:
    listing = place.list("")
    manifest = read_manifest(place, "") if MANIFEST in listing.files else None
    if manifest is None:
        return PlainFiles(place, tuple(listing.files))
    known = {*manifest.texts, *plugins.format_named(manifest.format).texts} - {MANIFEST}
    texts = {name: read_text(place, name) for name in sorted(known) if name in listing.files}
    edits = {
        name: text
        for name, text in texts.items()
        if name not in manifest.texts or text != manifest.texts[name].text
    }
    return CommittedFiles(place, Committed("", manifest), edits=edits, present=listing)


def _read(files: Files, step: int | None, *, location: str | None = None) -> Checkpoint:
    format = _format_of(files)
    reader = format.read(files)
    if step is not None and reader.step != step:
        raise NotFoundError(
            f"no checkpoint at step {step} in {files.location}; it holds step {reader.step}"
        )
    return Checkpoint(files, format, reader, location=location)


def _format_of(files: Files) -> Format:
    if files.manifest is not None:
        return plugins.format_named(files.manifest.format)
    found = [format for format in plugins.formats().values() if format.matches(files)]
    names = {format.name for format in found}
    found = [format for format in found if not names & set(format.yields_to)]
    if len(found) > 1:
        both = " and ".join(format.name for format in found)
        raise UnsupportedError(
            f"{files.location} looks like {both}; move one of them into a folder of its own"
        )
    if not found:
        held = sorted(files.names())
        listed = ", ".join(held[:_LISTED]) + (", …" if len(held) > _LISTED else "")
        hint = "; name a file to open it alone" if any(n.endswith(".pt") for n in held) else ""
        raise NotFoundError(
            f"no checkpoint in {files.location}: "
            + (f"it holds {listed}, and no model.pt{hint}" if held else "nothing is there")
        )
    return found[0]
