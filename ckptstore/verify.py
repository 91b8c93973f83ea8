"""Proving a checkpoint: every chunk and every SHA-256, or the zip's own CRCs, or a sample of them.

Of a single checkpoint the view is proved beside its generation: the generation is what opens, the
view is what other programs read. Bytes that both share by a hard link are read once.
"""

from __future__ import annotations

import hashlib
import math
import random
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import BinaryIO, TypeVar

from ckptstore import ptfile
from ckptstore.commit.files import CommittedFiles
from ckptstore.commit.layout import read_manifest
from ckptstore.commit.shown import BEHIND, DAMAGED, OK, Finding, Shown
from ckptstore.errors import (
    CkptstoreError,
    CorruptionError,
    NotFoundError,
    UnsafeError,
    UnsupportedError,
)
from ckptstore.formats.base import Files, Reader
from ckptstore.manifest import MANIFEST
from ckptstore.progress import OnProgress, Progress

__all__ = ["FileReport", "Report", "Sample", "prove"]

ABSENT, NOT_VERIFIED = "absent", "not verified"
VIEW = "view"
_PIECE = 8 * 2**20
_TORCH, _ZIP = (".pt", ".pth"), b"PK\3\4"
_T = TypeVar("_T")


@dataclass(frozen=True)
class FileReport:
    """What was found of one file.

    Attributes:
        name: its plain name.
        status: ``ok``, ``damaged``, ``absent``, ``not verified``, or of a file in the view
            ``behind``: it waits for a refresh, and is not damaged.
        detail: a sentence for people; empty where there is nothing to say.
        where: what it belongs to: ``generation 3``, ``step 500``, ``view``; empty for plain files.
        error: what reading it raises; None where it can be read.
    """

    name: str
    status: str
    detail: str = ""
    where: str = ""
    error: CkptstoreError | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class Sample:
    """A random part of a checkpoint.

    Attributes:
        share: of each file's chunks, above 0 and at most 1; at least one chunk is read.
        seed: the same seed chooses the same chunks of the same files.
    """

    share: float
    seed: int

    @classmethod
    def of(cls, share: float, seed: int | None = None) -> Sample:
        """Return a sample, with a seed of its own where none is given.

        Raises:
            UnsupportedError: that is no share.
        """
        if not isinstance(share, (int, float)) or not 0 < share <= 1:
            raise UnsupportedError(f"sample is {share!r}, not a share above 0 and at most 1")
        return cls(share, secrets.randbits(32) if seed is None else seed)


@dataclass(frozen=True)
class Report:
    """What `Checkpoint.verify` found.

    Attributes:
        location: which checkpoint.
        sound: whether nothing of the saved state is damaged, and the model is there.
        proved: whether a manifest says what the bytes have to be.
        files: one entry per file: the model's first, the manifest's, then the view's.
        view: of a single checkpoint's view, ``ok``, ``behind`` or ``damaged``, which does not
            touch the saved state; empty where there is no view.
        sample: which part was read; None where all was read.
        read: bytes of weights that were read; hard links count once.
        size: bytes of weights that there are to read.
    """

    location: str
    sound: bool
    proved: bool
    files: tuple[FileReport, ...]
    view: str = ""
    sample: Sample | None = None
    read: int = 0
    size: int = 0


def prove(
    files: Files,
    names: Sequence[str],
    progress: OnProgress | None = None,
    *,
    sample: Sample | None = None,
    view: bool = True,
    reader: Reader | None = None,
) -> Report:
    """Read every file of a checkpoint and hold it against its manifest (G4).

    An absent file is damage only where it is the model's: one of `Reader.weights`, or else the
    first of ``names``.

    Args:
        files: what is read.
        names: the files that the checkpoint is made of.
        progress: called with `Progress` events.
        sample: read only a random part of the chunks; the SHA-256 of whole files is then not
            proved.
        view: whether the view of a single checkpoint is proved too.
        reader: knows more of files without a manifest; asked first.

    Raises:
        SupersededError: the state was replaced while it was read.
    """
    if sample is not None and sample.share == 1:
        sample = None
    proof = _Proof(files, names, progress, sample, view, reader)
    saved, shown = tuple(proof.saved()), tuple(proof.shown())
    damaged = any(report.status == DAMAGED for report in saved)
    needed = names[:1] if reader is None else reader.weights()
    absent = not names or any(r.name in needed and r.status == ABSENT for r in saved)
    return Report(
        location=files.location,
        sound=not damaged and not absent,
        proved=files.manifest is not None,
        files=(*saved, *shown),
        view=_worst(shown),
        sample=sample,
        read=proof.read,
        size=proof.size,
    )


def _worst(shown: Sequence[FileReport]) -> str:
    found = {report.status for report in shown}
    return next((status for status in (DAMAGED, BEHIND, OK) if status in found), "")


class _Proof:
    """One run over the files, counting the bytes that are read."""

    def __init__(
        self,
        files: Files,
        names: Sequence[str],
        progress: OnProgress | None,
        sample: Sample | None,
        view: bool,
        reader: Reader | None,
    ) -> None:
        self._files = files
        self._names = names
        self._reader = reader
        self._progress = progress
        self._sample = sample
        self._random = random.Random(sample.seed if sample else 0)  # noqa: S311  (no secret)
        self._where = ""
        self._view: Shown | None = None
        self._copies: list[str] = []
        if isinstance(files, CommittedFiles) and files.state.folder:
            self._where = files.manifest.called
            if view and files.manifest.generation is not None:
                self._view = Shown(files.storage, files.state)
                self._copies = self._view.copies()
        self.read = 0
        self.size = sum(map(self._size, [n for n in names if not n.endswith(".json")]))
        self.size += sum(map(self._size, self._copies))
        self._total = self.size

    def saved(self) -> Iterator[FileReport]:
        """Prove the state itself."""
        state = self._files
        if not isinstance(state, CommittedFiles):
            for name in self._names:
                yield self._caught(name, partial(self._plain, name))
            return
        for name in self._names:
            if name in state.manifest.files:
                yield self._caught(name, partial(self._bytes, state, name))
            elif name in state.manifest.texts or not state.state.folder:
                yield self._caught(name, partial(self._text, state, name))
        yield self._caught(MANIFEST, partial(self._manifest, state))

    def shown(self) -> Iterator[FileReport]:
        """Prove the view of a generation."""
        view = self._view
        if view is None:
            return
        own, found = view.look_at_manifest(), {}
        for name in self._names if own.status != BEHIND else ():
            if name in self._copies:
                found[name] = view.look_at_bytes(name, partial(self._content, view, name))
            elif name in view.manifest.files:
                found[name] = Finding(OK, f"the file of {self._where} itself, a hard link")
            else:
                found[name] = view.look_at_text(name)
        found[MANIFEST] = own
        if any(finding.status != OK for finding in found.values()) and not view.is_newest():
            return  # A newer generation is being shown by now.
        for name, finding in found.items():
            error = CorruptionError(finding.detail) if finding.status == DAMAGED else None
            yield FileReport(name, finding.status, finding.detail, VIEW, error)

    def _caught(self, name: str, look: Callable[[], tuple[str, str]]) -> FileReport:
        try:
            status, detail = look()
        except NotFoundError as error:
            return FileReport(name, ABSENT, str(error), self._where, error)
        except (CorruptionError, UnsafeError) as error:
            return FileReport(name, DAMAGED, str(error), self._where, error)
        return FileReport(name, status, detail, self._where)

    def _manifest(self, state: CommittedFiles) -> tuple[str, str]:
        gone = state.superseded()
        if gone is not None:
            raise gone
        if read_manifest(state.storage, state.state.folder) != state.manifest:
            raise CorruptionError(
                f"{MANIFEST} in {state.location} is not what it was when the checkpoint was "
                "opened; open it again"
            )
        return OK, ""

    def _text(self, state: CommittedFiles, name: str) -> tuple[str, str]:
        if name in state.edits and not state.state.folder:
            return OK, "edited by hand since it was saved"
        if state.stored_text(name) != state.manifest.texts[name].text:
            raise state.fault(name, "its text is not the one in the manifest")
        return OK, ""

    def _bytes(self, state: CommittedFiles, name: str) -> tuple[str, str]:
        return OK, self._content(state, name)

    def _content(self, state: CommittedFiles, name: str) -> str:
        """Read a file of bytes, or some chunks of it, and return what that proves."""
        digest = state.manifest.files[name].digest
        if self._sample is not None and digest.checksums:
            chosen = self._chosen(range(len(digest.checksums)))
            with state.open(name) as file:
                for chunk in chosen:
                    file.seek(chunk * digest.chunk_size)
                    self._count(name, len(file.read(digest.chunk_size)))
            return f"{len(chosen)} of {len(digest.checksums)} chunks proved, its sha256 not"
        sha256, buffer = hashlib.sha256(), memoryview(bytearray(min(_PIECE, digest.size)))
        with state.open(name) as file:
            while count := file.readinto(buffer):  # type: ignore[attr-defined]
                sha256.update(buffer[:count])
                self._count(name, count)
        if sha256.hexdigest() != digest.sha256:
            found = f"its sha256 is {sha256.hexdigest()}, the manifest says {digest.sha256}"
            raise state.fault(name, found)
        return f"sha256 {digest.sha256}"

    def _plain(self, name: str) -> tuple[str, str]:
        """Check a file without a manifest, as far as it says itself what it has to be."""
        if name.endswith(".json"):
            return NOT_VERIFIED, f"{len(self._files.text(name))} characters, no manifest"
        known = self._reader.prove(name, self._chosen) if self._reader is not None else None
        if known is not None:
            self._count(name, self._files.size(name))
            return NOT_VERIFIED, known
        with self._files.open(name) as file:
            if name.endswith(_TORCH) or file.read(len(_ZIP)) == _ZIP:
                return NOT_VERIFIED, self._records(name, file)
        return NOT_VERIFIED, "no manifest, and nothing in the file proves it"

    def _records(self, name: str, file: BinaryIO) -> str:
        archive = ptfile.read(file, f"{name} in {self._files.location}").archive
        records = sorted(archive.records.values(), key=lambda record: record.header)
        chosen = self._chosen(records)
        for record in chosen:
            ptfile.check_record(file, archive, record)
            self._count(name, record.size)
        if len(chosen) < len(records):
            return f"no manifest; {len(chosen)} of {len(records)} of the zip's own CRCs are right"
        return "no manifest; the zip's own CRCs are right"

    def _chosen(self, items: Sequence[_T]) -> Sequence[_T]:
        """Return what is to be read: all, or a random part in order, at least one."""
        if self._sample is None:
            return items
        count = math.ceil(len(items) * self._sample.share)
        return [items[at] for at in sorted(self._random.sample(range(len(items)), count))]

    def _count(self, name: str, count: int) -> None:
        self.read += count
        if self._progress is not None:
            self._progress(Progress("verify", name, self.read, self._total))

    def _size(self, name: str) -> int:
        try:
            return self._files.size(name)
        except NotFoundError:
            return 0
