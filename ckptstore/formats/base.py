"""What a format is: a layout of files that hold one checkpoint.

A format knows which file holds what, and nothing of where the files are, whether they were
committed and how they are proved: `Files` hands it proved bytes, `NewFiles` takes bytes and
commits them. Register a format with the hook `ckptstore_formats` (see `docs/plugins.md`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, BinaryIO, ClassVar

from ckptstore.errors import UnsupportedError
from ckptstore.manifest import Manifest, TensorInfo
from ckptstore.storage.base import Sink
from ckptstore.structure import Structure

__all__ = ["Contents", "Files", "Format", "NewFiles", "Reader"]


class Files(ABC):
    """The files of one state: of a committed one, of a plain folder, or a single file.

    Attributes:
        location: for people.
        manifest: what was committed, or None for files that never had a manifest.
        named: the one file that the location names, or None where it names a folder.
    """

    location: str
    manifest: Manifest | None
    named: str | None = None

    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """Return the plain names of the files, sorted."""

    @abstractmethod
    def text(self, name: str) -> str:
        """Return a JSON file's text, the hand edit where there is one.

        Raises:
            NotFoundError: there is no such file.
            CorruptionError: it is not UTF-8, or larger than 64 MiB.
        """

    @abstractmethod
    def size(self, name: str) -> int:
        """Return a file's size in bytes.

        Raises:
            NotFoundError: there is no such file.
        """

    def leads_out(self, name: str) -> bool:
        """Whether links lead from a name to somewhere outside, where nothing proves the bytes.

        Where the name was read from data, such a file is not to be opened (G5); under a name that
        the format itself looks for, the link is the user's own.
        """
        return False

    def beside(self, name: str) -> BinaryIO | None:
        """Open another file, of the folder that holds the one that the location names.

        Where the location names a folder, its files are in `names`, and there is none beside them.

        Args:
            name: one that the format itself looks for, never one that was read from data (G5).

        Returns:
            A file as `open` gives it, or None where there is none of that name.
        """
        return None

    @abstractmethod
    def open(self, name: str) -> BinaryIO:
        """Open a file of bytes for reading at any place (`read`, `readinto`, `seek`, `tell`).

        Where there is a manifest, every byte is checked against its chunk checksum before it is
        handed out (G4); where there is none, the bytes come as they are, and the format checks
        what it can (`ckptstore.tensors` checks each record's CRC-32).

        Where a file is on a storage, what is returned has more than a file object needs, to be
        asked for by ``getattr``: ``fill(pieces)`` reads pairs of a place and a writable memoryview
        straight into that memory, several at once; ``prove()`` checks all of a file that has a
        manifest, and keeps nothing; ``map()`` returns the whole file as memory, unchecked, or None
        where that cannot be; ``keep(1)`` makes it keep one block of 8 MiB of what was read in
        part, and not four, which is enough for who reads from end to end.

        Raises:
            NotFoundError: there is no such file.
            CorruptionError: here or in a later read: the bytes are not the ones committed.
            SupersededError: here or in a later read: this state was replaced and removed.
        """


class NewFiles(ABC):
    """A write that is under way; nothing of it exists for anyone until it is committed."""

    @abstractmethod
    def write_text(self, name: str, text: str) -> None:
        """Add a JSON file."""

    @abstractmethod
    def create(self, name: str, *, expected_size: int = 0) -> AbstractContextManager[Sink]:
        """Add a file of bytes: a context manager that gives something to write to."""


@dataclass(frozen=True)
class Contents:
    """What is to be saved, as a format's `write` gets it.

    A format that says so (`Format.takes_later`) may get a `ckptstore.later.Later` in the place of
    any tensor in ``model``, ``optimizer`` and ``states``.

    Attributes:
        model: the state dict.
        config: the architecture; any JSON object.
        tokenizer_state: the tokenizer as a JSON object with ``token_kind``.
        optimizer: the optimizer's state dict.
        states: further state dicts by name.
        step: finished optimizer steps.
        training_state: further JSON fields.
        metrics_log: what was measured since the training began, a JSON object for each time.
        tokenizer_files: what the tokenizer needs beside its state, by name, such as
            ``tokenizer.tiktoken``; a format without room for them leaves them out.
    """

    model: Mapping[str, Any]
    config: Mapping[str, Any] | None = None
    tokenizer_state: Mapping[str, Any] | None = None
    optimizer: Mapping[str, Any] | None = None
    states: Mapping[str, Any] = field(default_factory=dict)
    step: int | None = None
    training_state: Mapping[str, Any] = field(default_factory=dict)
    metrics_log: Sequence[Mapping[str, Any]] = ()
    tokenizer_files: Mapping[str, bytes] = field(default_factory=dict)


class Reader(ABC):
    """One checkpoint as a format reads it; made by `Format.read` with small reads only.

    Attributes:
        step: finished optimizer steps, or None.
        config: the architecture, or None.
        tokenizer_state: the tokenizer as a JSON object, or None.
        training_state: what training_state.json holds, or its like, or None.
        has_optimizer: whether `load_optimizer` has something to return.
    """

    step: int | None = None
    config: dict[str, Any] | None = None
    tokenizer_state: dict[str, Any] | None = None
    training_state: dict[str, Any] | None = None
    has_optimizer: bool = False

    @abstractmethod
    def tensors(self) -> dict[str, TensorInfo]:
        """Return the model's tensors, without reading their bytes and without torch."""

    def tensors_in(self, part: str) -> dict[str, TensorInfo]:
        """Return the tensors of ``optimizer`` or of a state, as `tensors` does those of the model.

        Where a format cannot say, or has no such part, it returns none.
        """
        return {}

    def structure(self) -> dict[str, Structure]:
        """Return what the pickles in it say beside their tensors, without bytes of these.

        Returns:
            By what it is about: ``model``, ``optimizer``, or the name of a state. Formats without
            pickles have nothing to say.
        """
        return {}

    @abstractmethod
    def load_model(
        self, names: Sequence[str] | None = None, map_location: Any = "cpu"
    ) -> dict[str, Any]:
        """Return the state dict, or the named tensors of it."""

    def map_model(
        self, names: Sequence[str] | None = None, *, prove: bool = True
    ) -> dict[str, Any]:
        """Return the state dict with tensors that look into the file, mapped as memory.

        Args:
            names: tensors of it; all by default.
            prove: whether their bytes are proved first.

        Raises:
            UnsupportedError: this format, or the storage, has no such thing.
        """
        raise UnsupportedError("this format cannot be mapped; load it without mmap")

    def fill_model(self, into: Mapping[str, Any], *, atomic: bool = False) -> bool:
        """Overwrite the tensors of a model with those of the state dict that have their names.

        Args:
            into: tensors of the right shapes, by name.
            atomic: whether all is proved before the first byte is overwritten.

        Returns:
            Whether it was done; a format that cannot returns False, and `load_model` is used.
        """
        return False

    def model_later(self) -> Mapping[str, Any] | None:
        """Return the state dict without reading it: a `ckptstore.later.Later` for each tensor (G6).

        Names, their order and all that is no tensor are those of `load_model`. What no `Later` can
        say (a sparse tensor, one with strides) is loaded, and stands there as it is. Two names of
        one tensor have the same `Later`.

        Returns:
            The state dict; None where the format has no such thing, and `load_model` is used.

        Raises:
            CorruptionError, UnsafeError: as `load_model`, as far as that is seen without the bytes.
        """
        return None

    def load_optimizer(self, map_location: Any = "cpu") -> dict[str, Any] | None:
        """Return the optimizer's state dict, or None where there is none.

        Raises:
            NotFoundError: one is named, and its file is absent.
        """
        return None

    def optimizer_later(self) -> dict[str, Any] | None:
        """Return the optimizer's state dict as `model_later` returns the model's.

        Returns:
            The state dict; None where there is none, or `load_optimizer` has to be used.

        Raises:
            NotFoundError: one is named, and its file is absent.
        """
        return None

    def states(self) -> tuple[str, ...]:
        """Return the names of the further states."""
        return ()

    def load_state(self, name: str, map_location: Any = "cpu") -> Any:
        """Return a further state by name.

        Raises:
            NotFoundError: there is none of that name.
        """
        raise UnsupportedError(f"this format holds no state {name!r}")

    def state_later(self, name: str) -> Any:
        """Return a further state as `model_later` returns the model; loaded, unless overridden.

        Raises:
            NotFoundError: there is none of that name.
        """
        return self.load_state(name)

    def load_metrics_log(self) -> tuple[dict[str, Any], ...]:
        """Return what was measured since the training began; a format without such a file, none.

        Raises:
            NotFoundError: the manifest has one, and its file is absent.
        """
        return ()

    def tokenizer_files(self) -> Mapping[str, bytes]:
        """Return the files that the tokenizer has beside its state, and are there, by name.

        Each is read, proved, when it is asked for; `ckptstore.tokenizers.files.Carried` does so.
        Their names are among `files`, and among `for_inference`. A format without room for them
        has none.
        """
        return {}

    def files(self) -> tuple[str, ...]:
        """Return the names of the files that this checkpoint is made of, the model's first.

        `verify` proves them: those that end in ``.json`` as texts, the others as bytes.
        """
        return ()

    def weights(self) -> tuple[str, ...]:
        """Return those of `files` without which there is no model: by default the first of them.

        ``verify`` takes it for damage where one of them is absent; that others are is only said.
        """
        return self.files()[:1]

    def prove(self, name: str, chosen: Callable[[Sequence[Any]], Sequence[Any]]) -> str | None:
        """Check one of `files` that has no manifest, as far as it says itself what it has to be.

        For files that are neither JSON nor one zip, of which ``verify`` knows the CRCs.

        Args:
            name: of the file.
            chosen: picks from a list of things to check those that are to be checked: all, or a
                part where somebody wants only a sample.

        Returns:
            What was found right, in words for people; None where that is left to ``verify``.

        Raises:
            CorruptionError: it is damaged.
        """
        return None

    def for_inference(self) -> tuple[str, ...]:
        """Return those of `files` that suffice to use the model.

        Empty where the files cannot be parted, because one holds everything: such a checkpoint
        is converted, not synced.
        """
        return ()


class Format(ABC):
    """A layout. Subclass it, and return the class from the hook `ckptstore_formats`.

    Attributes:
        name: what the command line and the manifest call it.
        writable: whether `write` works.
        one_file: of a format whose checkpoint is a single file, what `write` calls that file, the
            only one that it writes, and what it is called in a folder. Whoever converts to it may
            have it called otherwise: then `Files.named` says how, when it is read.
        own_folder: whether what `write` writes wants a folder of its own, as other programs expect
            it; ``convert`` then has to be told where, and puts nothing beside its source.
        takes_later: whether `write` and `stored` know what to do with a `ckptstore.later.Later` in
            the place of a tensor; where they do not, they get every tensor loaded.
        yields_to: formats that win where both match a folder.
        texts: JSON files that it reads, which a person may also add by hand.
    """

    name: ClassVar[str]
    writable: ClassVar[bool] = False
    one_file: ClassVar[str | None] = None
    own_folder: ClassVar[bool] = False
    takes_later: ClassVar[bool] = False
    yields_to: ClassVar[tuple[str, ...]] = ()
    texts: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def matches(self, files: Files) -> bool:
        """Whether these files are a checkpoint of this format; names first, bytes if need be."""

    @abstractmethod
    def read(self, files: Files) -> Reader:
        """Return the checkpoint that these files hold.

        Raises:
            CorruptionError: they do not hold one.
            UnsafeError: reading them would run code.
        """

    def write(self, contents: Contents, files: NewFiles) -> None:
        """Write a checkpoint as new files; the caller commits them."""
        raise UnsupportedError(f"the format {self.name!r} can be read, not written")

    def stored(self, contents: Contents) -> Contents:
        """Return what reading back gives of what `write` is given.

        Override it where the format renames, reshapes or leaves out something; what it returns may
        look into the tensors of ``contents`` (a view, a mapping that makes each tensor when it is
        asked for), and need not copy them. ``convert`` proves the result against it, so what is
        None or absent here is left out and what is here has to be there, bit for bit.

        Returns:
            ``contents`` itself where all of it comes back as it is.

        Raises:
            UnsupportedError: the format does not write this.
        """
        return contents
