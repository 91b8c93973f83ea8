"""A checkpoint: a handle on one committed state, or on files that never had a manifest."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ckptstore import plugins, restoring, verify
from ckptstore.commit.files import CommittedFiles
from ckptstore.commit.stored import Stored
from ckptstore.errors import CorruptionError, NotFoundError, PluginError, UnsupportedError
from ckptstore.formats.base import Files, Format, Reader
from ckptstore.manifest import TensorInfo
from ckptstore.progress import OnProgress, Progress
from ckptstore.statistics import Statistics
from ckptstore.structure import Structure
from ckptstore.tokenizers.base import Tokenizer
from ckptstore.tokenizers.files import Carried

__all__ = ["Checkpoint", "FileInfo", "PassedOver", "batches"]

_BATCH = 256 * 2**20


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


@dataclass(frozen=True)
class PassedOver:
    """A state that is newer than the one that was opened, and damaged.

    Attributes:
        called: ``step 1500``, or ``generation 3``.
        step: its training step; None where nothing could say.
        reason: what is wrong with it, a sentence for people.
    """

    called: str
    step: int | None
    reason: str


def batches(
    names: Iterable[str], infos: Mapping[str, TensorInfo], most: int = _BATCH
) -> Iterator[list[str]]:
    """Part names of tensors into lists whose tensors take 256 MiB or ``most``, or are one."""
    batch: list[str] = []
    size = 0
    for name in names:
        nbytes = infos[name].nbytes if name in infos else 0
        if batch and size + nbytes > most:
            yield batch
            batch, size = [], 0
        batch.append(name)
        size += nbytes
    if batch:
        yield batch


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
        write_id: names this very commit and no other, whatever its step and generation are; None
            where nothing was committed. Two processes that opened the same have the same.
        metrics: what was measured of the model.
        fingerprint: of the tokenizer's vocabulary, or None.
        passed_over: the newer states that were found damaged, where `open` was to fall back.
        stored: of a save, what it had to write, and what was there already; None of what was
            opened.
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
        self.write_id = manifest.write_id if manifest else None
        self.metrics = dict(manifest.metrics) if manifest else {}
        self.fingerprint = manifest.fingerprint if manifest else None
        if self.step is None and manifest is not None:
            self.step = manifest.step
        self.passed_over: tuple[PassedOver, ...] = ()
        self.stored: Stored | None = None
        self._files = files
        self._reader = reader

    def __repr__(self) -> str:
        state = "" if self.generation is None else f", generation {self.generation}"
        return f"<Checkpoint {self.format} {self.location!r}{state}, step {self.step}>"

    # -- without reading weights --------------------------------------------------------

    def tensors(self, part: str = "model") -> dict[str, TensorInfo]:
        """Return tensors by name, without reading their bytes and without torch.

        Args:
            part: ``model``, ``optimizer``, or the name of a state.
        """
        return self._reader.tensors() if part == "model" else self._reader.tensors_in(part)

    def structure(self) -> dict[str, Structure]:
        """Return what the pickles in it say beside their tensors, without torch.

        Returns:
            By part (``model``, ``optimizer``, names of states): tied tensors, views of something
            larger, an optimizer's groups, and what the pickle refers to.
        """
        return self._reader.structure()

    def parts(self) -> tuple[str, ...]:
        """Return what `tensors` takes: ``model``, ``optimizer`` where there is one, and states."""
        optimizer = ("optimizer",) if self.has_optimizer else ()
        return ("model", *optimizer, *self.states())

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
        # The model first, whatever was written first.
        for name in (*self._reader.files(), *manifest.files):
            file = manifest.files.get(name)
            if file is not None:
                found[name] = FileInfo(file.digest.size, file.digest.sha256, name in present)
        return found

    @property
    def has_optimizer(self) -> bool:
        """Whether `load_optimizer` returns something; False in an inference copy."""
        return self._reader.has_optimizer

    # -- reading weights ----------------------------------------------------------------

    def statistics(
        self,
        names: Iterable[str] | None = None,
        *,
        bins: int | None = None,
        progress: OnProgress | None = None,
    ) -> dict[str, Statistics]:
        """Return what the values of the model's tensors are like; reads them, proved, in batches.

        Args:
            names: of tensors; all by default.
            bins: the most intervals of each one's histogram; without, there are none.
            progress: called with `Progress` events.

        Raises:
            NotFoundError: there is no tensor of a name.
            CorruptionError: bytes are damaged.
        """
        from ckptstore import tensors

        infos = self.tensors()
        wanted = list(infos) if names is None else list(names)
        found: dict[str, Statistics] = {}
        for batch in batches(wanted, infos):
            state = self.load_model(batch)
            for name in batch:
                found[name] = tensors.statistics(state.pop(name), bins)
            if progress is not None:
                done = sum(infos[name].nbytes for name in found)
                total = sum(infos[name].nbytes for name in wanted)
                progress(Progress("inspect", batch[-1], done, total))
        return found

    def load_model(
        self,
        names: Sequence[str] | None = None,
        map_location: Any = "cpu",
        *,
        mmap: bool = False,
        prove: bool = True,
    ) -> dict[str, Any]:
        """Return the model's state dict, or the named tensors of it.

        Guarantee: every byte is proved before it is unpickled (G4), nothing is executed (G5),
        and no second copy is made (G6). Names come without the prefixes of torch.compile and
        DistributedDataParallel.

        Args:
            names: tensors to load; all by default. Only the chunks that they touch are read.
            map_location: where the tensors go, as torch.load has it.
            mmap: on a local disk, let the tensors look into the file instead of memory of their
                own: for inference, since the first change of each page copies it. Changes never
                reach the file; a file that is overwritten in place meanwhile changes them.
            prove: with ``mmap``, whether the weights are proved first; without, only what is
                unpickled is.

        Raises:
            CorruptionError: bytes are damaged, or the model's file is absent.
            UnsafeError: unpickling would run code.
            NotFoundError: a name is not among `tensors`.
            SupersededError: this state was replaced and removed.
            UnsupportedError: it cannot be mapped.
        """
        if mmap:
            if str(map_location) != "cpu":
                raise UnsupportedError(
                    f"map_location is {str(map_location)!r}, and mapped tensors stay on the CPU; "
                    "load them without mmap"
                )
            return self._reader.map_model(names, prove=prove)
        if not prove:
            raise UnsupportedError("prove=False needs mmap=True: what is read is always proved")
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

    def load_metrics_log(self) -> tuple[dict[str, Any], ...]:
        """Return what was measured since the training began, a JSON object for each time.

        Raises:
            NotFoundError: it was saved, and its file is absent.
            CorruptionError, SupersededError: as for `load_model`.
        """
        return self._reader.load_metrics_log()

    def load_tokenizer(self) -> Tokenizer:
        """Return the tokenizer, with exactly the vocabulary that the model was trained on.

        What the checkpoint carries of it is proved (G4) and used; without that what the kind
        needs has to be on this machine.

        Raises:
            NotFoundError: the checkpoint has none.
            UnsupportedError: its kind is not installed, or needs something that is not here.
            CorruptionError: the vocabulary found is another one, or a file of it is damaged.
            SupersededError: as for `load_model`.
        """
        if self.tokenizer_state is None:
            raise NotFoundError(f"{self.location} has no tokenizer; save it with tokenizer=")
        return plugins.load_tokenizer(
            self.tokenizer_state, fingerprint=self.fingerprint, files=self.tokenizer_files()
        )

    def tokenizer_files(self) -> Mapping[str, bytes]:
        """Return what the checkpoint carries of the tokenizer beside tokenizer.json, by name.

        Each file is read, and proved (G4), when it is asked for; reading one raises what
        `load_model` raises. `save` takes them as ``vocabulary=``.
        """
        files = self._reader.tokenizer_files()
        if self.proved or not files or self.tokenizer_state is None:
            return files
        # In a plain folder a program's own tokenizer.py lies beside; the kind knows its files.
        try:
            names = plugins.file_names_of(self.tokenizer_state)
            if not names and plugins.fingerprint_of(self.tokenizer_state) is None:
                return files  # It is not installed, so nobody knows.
        except PluginError:
            return files
        except CorruptionError:
            return {}  # The state says of no kind that it is its own.
        sizes = {name: self._files.size(name) for name in files if name in names}
        return Carried(sizes, files.__getitem__, self.location)

    def restore(
        self,
        *,
        model: Any = None,
        optimizer: Any = None,
        state: Mapping[str, Any] | None = None,
        atomic: bool = False,
    ) -> None:
        """Load into existing objects, in place: a model, its optimizer, and what else was saved.

        All are compared before one is changed, and every byte is proved (G4). The weights are
        read straight into the memory of the model's parameters: where damage is found half way,
        the model holds a part of what was read, and the error says so. After any other error that
        is named below, all are what they were, unless the device itself fails, or an object that
        only its own ``load_state_dict`` can judge refuses its state: those before it in ``state``
        hold theirs by then (with ``atomic`` the model, too), and the error says which. Random
        states are set last.

        Args:
            model: a module.
            optimizer: an optimizer.
            state: objects with ``load_state_dict`` (modules, optimizers, schedulers, scalers,
                data loaders, `RandomStates`), and torch's generators, by the names that
                their states were saved under with ``state=``.
            atomic: prove all weights first, by reading them once more: then damage, too, leaves
                all as they were.

        Raises:
            NotFoundError: an optimizer or a state was asked for, and the checkpoint has none;
                the message says which.
            UnsupportedError: names, shapes, groups or kinds differ; the message says which.
            CorruptionError, UnsafeError, SupersededError: as for `load_model`.
        """
        restoring.restore(self, model=model, optimizer=optimizer, state=state or {}, atomic=atomic)

    def verify(
        self,
        *,
        sample: float | None = None,
        seed: int | None = None,
        progress: OnProgress | None = None,
    ) -> verify.Report:
        """Read every file and prove it: chunk checksums and SHA-256, or the zip's own CRCs.

        Of a single checkpoint the view is proved too, apart from the state itself.

        Args:
            sample: the share of each file's chunks to prove, above 0 and at most 1, chosen at
                random, at least one of each file; the SHA-256 of whole files is then not proved.
                All by default.
            seed: chooses the same chunks as a run before; its report has the seed.
            progress: called with `Progress` events.

        Returns:
            A report; damage is in it and does not raise.

        Raises:
            SupersededError: this state was replaced and removed.
            UnsupportedError: the sample is no share.
        """
        part = None if sample is None else verify.Sample.of(sample, seed)
        return verify.prove(
            self._files, self._reader.files(), progress, sample=part, reader=self._reader
        )

    # -- for ckptstore's own modules ----------------------------------------------------

    @property
    def source(self) -> Files:
        """The pinned files, for `sync`."""
        return self._files

    @property
    def reader(self) -> Reader:
        """What the format made of the files, for `sync`."""
        return self._reader
